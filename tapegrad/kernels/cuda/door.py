"""The door to Numba's CUDA: the only place that imports numba.cuda, and only when a function is called.

`compile_ptx` makes machine-independent code (PTX) of a Python function, which needs neither a driver nor a GPU; `driver.py`
loads and launches it. Under `NUMBA_ENABLE_CUDASIM=1` there is no PTX: `simulated.py` runs the same function in Numba's
simulator.

The pointers that a kernel takes are plain addresses, and its numbers are 64-bit integers, so a launch needs nothing but
words; no array object of Numba's is involved.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ...errors import KernelError, TapegradError
from .faults import EXTRA, MISSING, NO_DEVICE
from .library import device_count
from .toolkit import find_compiler, name_toolkit
from .vectors import joined

ENTRY = re.compile(r"\.visible \.entry (\w+)\(")
VERSION = re.compile(r"^\s*\.version (\d+)\.(\d+)", re.MULTILINE)
# The minor version of PTX 8 that came with each minor version of CUDA 12; PTX 9 counts as CUDA 13 does. Source: PTX ISA, "Release
# Notes", docs.nvidia.com/cuda/parallel-thread-execution.
PTX_OF_CUDA_12 = (0, 1, 2, 3, 4, 5, 5, 6, 7, 8)
TARGETS = ((7, 5), (8, 0), (9, 0), (10, 0))  # compute capabilities that the tests compile every kernel for


@cache
def module():
    """numba.cuda, or a KernelError that says what to install."""
    if importlib.util.find_spec("numba_cuda") is None:
        raise KernelError(f"numba-cuda is not installed, which makes the kernels for CUDA; {EXTRA}")
    name_toolkit()  # before Numba looks for it
    from numba import cuda

    return cuda


def libdevice():
    """NVIDIA's mathematical functions; the simulator has none."""
    from numba.cuda import libdevice

    return libdevice


def simulated() -> bool:
    """True where kernels run in Numba's simulator: NUMBA_ENABLE_CUDASIM=1 was set before Numba was imported."""
    module()
    import numba

    settings: Any = numba.config  # its fields are made at run time
    return bool(settings.ENABLE_CUDASIM)


def why_not() -> str | None:
    """What is missing for the device "cuda", in one sentence; None where nothing is."""
    try:
        if simulated():
            return "NUMBA_ENABLE_CUDASIM is set, so that kernels run in a simulator; unset it to use a GPU"
        if not device_count():
            return MISSING[NO_DEVICE]
        find_compiler()
        return None
    except TapegradError as error:
        return str(error)


@cache
def argument_types() -> dict[str, Any]:
    """Numba's types of a kernel's arguments: an address of elements of each dtype, and "int"."""
    module()
    from numba import types

    numbers = ("float16", "float32", "float64", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    return {"int": types.int64} | {name: types.CPointer(getattr(types, name)) for name in numbers}


Argument = str | tuple[str, int | None, bool]


def type_of(argument: Argument) -> Any:
    """Numba's type of an argument: a name of `argument_types`, or (dtype, dimensions of a C-contiguous array or None for a
    number, is read-only)."""
    if isinstance(argument, str):
        return argument_types()[argument]
    from numba import types

    dtype, ndim, readonly = argument
    number = types.boolean if dtype == "bool" else getattr(types, dtype)
    return number if ndim is None else types.Array(number, ndim, "C", readonly=readonly)


def result_type(function: Callable, arguments: tuple[Argument, ...], cc: tuple[int, int] = (9, 0)) -> Any:
    """Numba's type of what a function returns that kernels call; raises Numba's error where it cannot be compiled."""
    return module().compile(function, tuple(map(type_of, arguments)), cc=cc, output="ptx", device=True, abi="numba")[1]


def compile_ptx(
    function: Callable, arguments: tuple[Argument, ...], cc: tuple[int, int] = (9, 0), aligned: bool = False
) -> str:
    """The PTX of a kernel for the compute capability `cc`, e.g. (9, 0).

    arguments: for each parameter "int", or the dtype of the elements at an address, or an array as `type_of` has it, which
    comes as several words. aligned: accesses to neighbouring elements start at multiples of 16 bytes, and are joined
    (`vectors.py`).

    Numba's name of the kernel has the types of all parameters in it, and each parameter's name has that; it gets a short one.
    """
    signature = tuple(map(type_of, arguments))
    ptx, _ = module().compile(function, signature, cc=cc, output="ptx", device=False, abi="numba")
    ptx = ptx.replace(entry(ptx), f"kernel_{function.__name__}")
    return joined(ptx) if aligned else ptx


def inlined(function: Callable) -> Callable:
    """A function that kernels may call: its body becomes part of theirs, so that nothing is left to link."""
    return function if simulated() else module().jit(device=True, inline="always")(function)


def entry(ptx: str) -> str:
    """The name of the kernel in a PTX text."""
    found = ENTRY.search(ptx)
    if found is None:
        raise KernelError("the PTX text has no kernel in it")
    return found[1]


def lowered(ptx: str, cuda: tuple[int, int]) -> str:
    """The same text under the newest version of PTX that a driver of that CUDA version takes, where it says a newer one.

    NVVM writes its own version, whatever the text needs. What is newer than the version, an assembler refuses.

    >>> lowered(".version 9.5", (13, 0)), lowered(".version 9.5", (12, 6)), lowered(".version 8.0", (13, 0))
    ('.version 9.0', '.version 8.5', '.version 8.0')
    """
    said, (major, minor) = VERSION.search(ptx), cuda
    newest = (9, minor) if major == 13 else (8, PTX_OF_CUDA_12[min(minor, 9)]) if major == 12 else None
    if said is None or newest is None or (int(said[1]), int(said[2])) <= newest:
        return ptx
    return f"{ptx[: said.start()]}.version {newest[0]}.{newest[1]}{ptx[said.end() :]}"


def assemble(ptx: str, cc: tuple[int, int]) -> bytes:
    """Machine code of a PTX text, by nvJitLink, which needs no GPU; KernelError where it does not take the text, or is missing."""
    module()
    try:
        from cuda.core import Linker, LinkerOptions, ObjectCode

        options = LinkerOptions(arch=f"sm_{cc[0]}{cc[1]}")
        return bytes(Linker(ObjectCode.from_ptx(ptx.encode()), options=options).link("cubin").code)
    except Exception as error:
        raise KernelError(f"nvJitLink makes no machine code of the PTX: {error}") from error


def settle_simulator() -> None:
    """Mend two things of Numba's simulator, for the whole process.

    It makes a shared array when the first thread asks for it, but lets two threads be the first, so that some do not share it.
    And its threads wait for each other by asking again and again, of which each else holds Python's lock for 5 ms.
    """
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    lock = threading.Lock()

    def array(self, shape, dtype, alignment=None):
        frame = sys._getframe(1)
        place = frame.f_code, frame.f_lineno
        with lock:
            if place not in self._allocations:
                self._allocations[place] = np.full(shape, 77, getattr(dtype, "name", dtype))  # Numba's types have names
        return self._allocations[place]

    FakeCUDAShared.array = array  # type: ignore[method-assign]
    sys.setswitchinterval(2e-5)
