"""NVIDIA's driver as a library: found, started, counted, and what its statuses say."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from ...errors import KernelError, TapegradError
from .faults import EXTRA, DriverMissing, fault


@dataclass(frozen=True, slots=True)
class Properties:
    """What a GPU is. memory: bytes. shared: bytes of shared memory that a block may ask for. version: of CUDA, as (13, 0).
    coherent: it reads the host's pageable memory by the host's own page tables."""

    name: str
    capability: tuple[int, int]
    processors: int
    memory: int
    shared: int
    version: tuple[int, int]
    coherent: bool = False


def bindings() -> Any:
    """`cuda.bindings.driver`; KernelError where it is not installed."""
    try:
        return importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        raise DriverMissing(f"cuda-bindings is not installed, by which CUDA is called ({error}); {EXTRA}") from None


def started(api: Any = None) -> Any:
    """The driver's functions, ready for use; DriverMissing where there is no driver, or one that is too old."""
    api = api or bindings()
    try:
        version, _ = version_of(api)
        need = api.CUDA_VERSION // 1000
        if version and version // 1000 < need:
            raise DriverMissing(
                f"the NVIDIA driver supports CUDA {version // 1000}.{version % 1000 // 10}, but the installed packages are made "
                f"for CUDA {need}; install a newer driver from nvidia.com, or the packages for CUDA {version // 1000}"
            )
        (status,) = api.cuInit(0)
    except RuntimeError as error:
        if isinstance(error, KernelError):
            raise
        # The bindings raise it where there is no library, or one without a function that they ask for.
        raise DriverMissing(
            f"the NVIDIA driver is not installed, or too old to be found; install it from nvidia.com ({error})"
        ) from None
    if status:
        known = fault_of(api, status, "CUDA", "starting the driver")
        if type(known) is not KernelError:
            raise known
        raise DriverMissing(  # a status that says no more
            f"CUDA, starting the driver: the NVIDIA driver does not start ({name_of(api, status)}); reload it, or restart the machine."
        )
    return api


def device_count(api: Any = None) -> int:
    """How many GPUs there are; DriverMissing where there is no driver."""
    api = started(api)
    status, count = api.cuDeviceGetCount()
    if status:
        raise fault_of(api, status, "CUDA", "counting GPUs")
    return count


def properties_of(api: Any, device: Any, where: str) -> Properties:
    """What a GPU is, asked of the driver."""
    kind = api.CUdevice_attribute

    def known(returned: tuple, doing: str) -> Any:
        if returned[0]:
            raise fault_of(api, returned[0], where, doing)
        return returned[1]

    def attribute(name: str) -> int:
        return known(api.cuDeviceGetAttribute(getattr(kind, f"CU_DEVICE_ATTRIBUTE_{name}"), device), name)

    text = known(api.cuDeviceGetName(256, device), "asking its name")
    return Properties(
        text.split(b"\0")[0].decode(),
        (attribute("COMPUTE_CAPABILITY_MAJOR"), attribute("COMPUTE_CAPABILITY_MINOR")),
        attribute("MULTIPROCESSOR_COUNT"),
        known(api.cuDeviceTotalMem(device), "asking its memory"),
        attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
        version_of(api)[1],
        bool(attribute("PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES")),
    )


def version_of(api: Any) -> tuple[int, tuple[int, int]]:
    """The CUDA version that the driver supports, as 13000 and as (13, 0)."""
    _, version = api.cuDriverGetVersion()
    version = version or 0
    return version, (version // 1000, version % 1000 // 10)


def fault_of(api: Any, status: Any, where: str, doing: str) -> TapegradError:
    """The error for a status other than success."""
    return fault(int(status), name_of(api, status), where, doing)


def name_of(api: Any, status: Any) -> str:
    """The driver's name of a status."""
    failed, name = api.cuGetErrorName(status)
    return f"error {int(status)}" if failed or not name else name.decode()
