"""PTX on disk, in the cache of compiled kernels (`kernels/cache.py`): a kernel that is there needs no import of Numba.

The cache's folder is named after tapegrad's own sources; a key adds what else determines a kernel's PTX: its template or text,
what was bound, the target and the versions of numba-cuda and NVVM. Kernels with a scalar function of the user's, or made from
templates of others, are not stored; array kernels of the user's are, by all that they depend on (`kernels/fingerprint.py`).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from functools import cache

from ...dtypes import DType
from ..jit import object_cache

COMPILERS = ("numba-cuda", "nvidia-nvvm", "nvidia-cuda-nvcc-cu12", "cuda-toolkit")
OURS = "tapegrad.kernels.cuda."


@cache
def versions() -> str:
    """The installed compilers."""
    found = []
    for name in COMPILERS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def bound_text(bound: dict) -> str | None:
    """What was bound to a template, as text; None where a function is not tapegrad's own."""
    words = []
    for name, value in sorted(bound.items()):
        if isinstance(value, DType):
            words.append((name, value.name))
        elif isinstance(value, bool | int | float):
            words.append((name, repr(value)))
        else:
            place = place_of(value.function)
            if place is None:
                return None
            words.append((name, place))
    return repr(words)


def place_of(function) -> str | None:
    """Where a function of tapegrad's is defined: its text is part of the folder's name."""
    if not function.__module__.startswith(OURS) or function.__closure__:
        return None
    return f"{function.__module__} {function.__qualname__} {function.__code__.co_firstlineno}"


def entry_name(what: str, arguments: tuple[str, ...], aligned: bool, cc: tuple[int, int]) -> str:
    words = repr((what, arguments, aligned, cc, versions()))
    return f"ptx-{hashlib.sha256(words.encode()).hexdigest()}"


def read(name: str) -> str | None:
    found = object_cache().read(name)
    return None if found is None else found.decode()


def write(name: str, ptx: str) -> None:
    object_cache().write(name, ptx.encode())
