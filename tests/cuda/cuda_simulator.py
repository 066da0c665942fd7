"""A CUDA device on host memory: launches run in Numba's simulator, on at most 64 threads each, and addresses are checked."""

from __future__ import annotations

import ctypes
import math

import numpy as np

from tapegrad.errors import IndexOutOfRange, KernelError
from tapegrad.kernels.cuda import template
from tapegrad.kernels.cuda.backend import Cuda
from tapegrad.kernels.cuda.door import settle_simulator
from tapegrad.kernels.cuda.simulated import simulate
from tapegrad.kernels.cuda.template import Launch, Work
from tapegrad.kernels.cuda.words import extents
from tapegrad.kernels.prepare import BACKENDS
from tapegrad.kernels.status import INDEX, SENTENCES
from tapegrad.layouts import Layout
from tapegrad.tape import spaces
from tapegrad.tape.pool import POOL

DEVICE = "cuda:88"
PATTERN = 0xA5  # what scratch memory holds at first


class Pointer:
    """An address of elements of one dtype, within the bytes of one operand: an index outside them is an error."""

    __slots__ = ("elements", "first")

    def __init__(self, memory: np.ndarray, start: int, dtype: str):
        size = np.dtype(dtype).itemsize
        lead = start % size
        whole = (memory.size - lead) // size
        self.elements = memory[lead : lead + whole * size].view(dtype)
        self.first = start // size

    def _place(self, i) -> int:
        if not isinstance(i, int | np.integer):
            raise TypeError(f"an index of type {type(i).__name__}")
        at = self.first + int(i)
        if not 0 <= at < self.elements.size:
            raise IndexError(
                f"element {int(i)} lies outside the operand, which has {self.elements.size} from {-self.first} on"
            )
        return at

    def __getitem__(self, i):
        return self.elements[self._place(i)]

    def __setitem__(self, i, value) -> None:
        at = self._place(i)
        kind = self.elements.dtype.kind
        if kind in "iu" and not isinstance(value, int | np.integer | np.bool_):
            raise TypeError(f"a {type(value).__name__} is stored as {self.elements.dtype}")
        self.elements[at] = value


class Memory:
    """The bytes of one operand, and where its first element lies in them."""

    def __init__(self, address: int, x: Layout | None, nbytes: int = 0):
        self.address = address
        low = high = 0
        if x is not None and x.size:
            low = sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True) if s < 0) * x.dtype.itemsize
            high = (sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True) if s > 0) + 1) * x.dtype.itemsize
        high = high or nbytes
        self.start = -low
        raw = (ctypes.c_char * (high - low)).from_address(address + low) if high > low else b""
        self.bytes = np.frombuffer(raw, np.uint8)


launched: list[Launch] = []  # in this process, the last of them


def run(op, work: Work, ins, outs, addresses) -> None:
    """Run the launches of an op."""
    scratch = [np.full(n + 64, PATTERN, np.uint8) for n in work.scratch]
    places = [Memory(a, x) for a, x in zip(addresses, (*ins, *outs), strict=True)]
    places += [
        Memory(s.ctypes.data + (-s.ctypes.data) % 16, None, n) for s, n in zip(scratch, work.scratch, strict=True)
    ]
    status = np.zeros(1, np.int32)
    places.append(Memory(status.ctypes.data, None, 4))
    del launched[:-100]
    for launch in work.launches:
        start(launch, places)
    if status[0]:
        kind = IndexOutOfRange if status[0] == INDEX else KernelError
        raise kind(f"{op.title}: {SENTENCES[int(status[0])]}")


def start(launch: Launch, places: list[Memory]) -> None:
    launch = launch.fitting([place.address for place in places])
    offsets = launch.offsets or (0,) * len(launch.operands)
    assert math.prod(extents(launch.grid, launch.block, launch.kernel.name)) <= 64, launch
    launched.append(launch)
    kinds = [kind for kind in launch.kernel.arguments if kind != "int"]
    pointers = [
        Pointer(places[p].bytes, places[p].start + o, kind)
        for p, o, kind in zip(launch.operands, offsets, kinds, strict=True)
    ]
    words = (*pointers, *(np.int64(w) for w in launch.static))
    simulate(
        launch.kernel.function(), launch.grid, launch.block, 0, tuple(words[i] for i in launch.order) or tuple(words)
    )


def small() -> None:
    """Cut launches for the simulator: several blocks, several warps in each, threads that loop."""
    template.MACHINE.block, template.MACHINE.lanes, template.MACHINE.blocks = 4, 2, 3


class HostSpace:
    """The memory of the device: the host's."""

    pool = POOL

    def upload(self, address: int, source: int, nbytes: int) -> None:
        ctypes.memmove(address, source, nbytes)

    download = copy = upload

    def synchronize(self) -> None:
        """Launches are done when they return."""


def install() -> str:
    """Make the device known to this process; its name."""
    small()
    settle_simulator()
    BACKENDS[DEVICE] = Cuda(run)
    spaces._spaces[DEVICE] = HostSpace()
    return DEVICE
