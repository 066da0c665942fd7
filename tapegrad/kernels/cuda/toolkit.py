"""Where NVVM is, the compiler that numba-cuda calls, and libdevice, its mathematical functions.

cuda-pathfinder finds them in NVIDIA's packages, where the system's linker looks, and below CUDA_HOME; numba-cuda looks for
libdevice in packages, below CUDA_HOME and in /usr/local/cuda. A toolkit that is installed elsewhere, or that the linker does not
know, is named to both by CUDA_HOME.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ...errors import KernelError
from .faults import EXTRA

PLACES = "/usr/local", "/opt"  # where toolkits are installed, as "cuda" or "cuda-13.0"
FOLDERS = (
    "nvvm/lib64",
    "lib64",
    "lib",
)  # of a toolkit, where NVVM may lie; the last in toolkits that were put together of packages
LIBDEVICE = Path("nvvm", "libdevice", "libdevice.10.bc")


def toolkits() -> Iterator[Path]:
    """Toolkits on this machine that have a compiler: that of the nvcc on the path, then the newest."""
    nvcc = shutil.which("nvcc")
    found = [Path(nvcc).resolve().parents[1]] if nvcc else []
    for place in map(Path, PLACES):
        versions = sorted(
            place.glob("cuda-*"), key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)], reverse=True
        )
        found += [place / "cuda", *versions]
    return (root for root in found if (root / LIBDEVICE).is_file())


def packaged() -> bool:
    """Whether NVVM comes with a package of NVIDIA's."""
    found = importlib.util.find_spec("nvidia")
    folders = list(found.submodule_search_locations or ()) if found else []
    return any(Path(folder, name, LIBDEVICE).is_file() for folder in folders for name in ("cu13", "cuda_nvcc"))


def name_toolkit() -> None:
    """Set CUDA_HOME to a toolkit of this machine, where nothing else says where the compiler is."""
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    root = None if named or packaged() else next(toolkits(), None)
    if root is not None:
        os.environ["CUDA_HOME"] = str(root)


@cache
def find_compiler() -> str:
    """The path of NVVM, which is loaded then; KernelError where there is none."""
    name_toolkit()
    try:
        pathfinder = importlib.import_module("cuda.pathfinder")
    except ImportError:
        raise KernelError(f"cuda-pathfinder is not installed, which finds the compiler of kernels; {EXTRA}") from None
    try:
        return str(pathfinder.load_nvidia_dynamic_lib("nvvm").abs_path)
    except (RuntimeError, OSError) as error:
        home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
        places = [Path(home, folder) for folder in FOLDERS] if home else []
        for library in (file for place in places for file in sorted(place.glob("libnvvm.so*"))):
            with contextlib.suppress(OSError):  # cuda-pathfinder reads CUDA_HOME once, and takes what is loaded already
                ctypes.CDLL(str(library))
                return str(library)
        raise KernelError(
            f"NVVM was not found, which compiles kernels for CUDA; {EXTRA}, or let CUDA_HOME name a CUDA toolkit"
        ) from error
