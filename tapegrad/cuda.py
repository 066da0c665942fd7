"""NVIDIA GPUs: whether they can be used, what they are, and their memory.

>>> import tapegrad as tg
>>> tg.cuda.is_available() == (tg.cuda.why_not() is None)
True

Nothing of CUDA is loaded before the first function here, or the first tensor on a device, asks for it. Needs the extra "cuda".
"""

from __future__ import annotations

from typing import Any

from .errors import DtypeError
from .layouts import device_named

__all__ = [
    "device_count",
    "empty_cache",
    "get_device_properties",
    "is_available",
    "memory_stats",
    "set_memory_limit",
    "synchronize",
    "why_not",
]


def is_available() -> bool:
    """True where tensors can be on the device "cuda"."""
    return why_not() is None


def why_not() -> str | None:
    """What is missing for the device "cuda", in one sentence; None where nothing is."""
    from .kernels.cuda import door, simulated

    if simulated.simulates():
        return None if door.simulated() else "TAPEGRAD_CUDA is simulator; set NUMBA_ENABLE_CUDASIM=1 too"
    return door.why_not()


def device_count() -> int:
    """How many GPUs can be used; 0 where there is none, or no driver."""
    from .kernels.cuda import library, simulated

    if not is_available():
        return 0
    return simulated.COUNT if simulated.simulates() else library.device_count()


def _gpu(device: str | int) -> Any:
    from .kernels.cuda.devices import open_device

    name = device_named(f"cuda:{device}" if isinstance(device, int) else device)
    if not name.startswith("cuda:"):
        raise DtypeError(f'tg.cuda: {device!r} is no GPU; name one as "cuda:0" or by its number')
    return open_device(name)


def get_device_properties(device: str | int = "cuda:0") -> Any:
    """Name, compute capability, number of processors, memory in bytes and driver version of a GPU."""
    return _gpu(device).driver.properties


def synchronize(device: str | int = "cuda:0") -> None:
    """Wait until everything that was asked of a GPU is done. Raises what failed there meanwhile."""
    _gpu(device).synchronize()


def memory_stats(device: str | int = "cuda:0") -> dict[str, int]:
    """As `tg.memory_stats`, of a GPU's pool."""
    return _gpu(device).pool.stats()


def set_memory_limit(nbytes: int, device: str | int = "cuda:0") -> None:
    """Bound the bytes of all tensors on a GPU; beyond it OutOfMemory is raised. At first all of the GPU's memory is the limit."""
    _gpu(device).pool.set_limit(nbytes)


def empty_cache(device: str | int = "cuda:0") -> None:
    """Give the free blocks of a GPU's pool back to the driver."""
    _gpu(device).pool.trim()
