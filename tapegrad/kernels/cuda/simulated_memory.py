"""The memory of a simulated device: blocks of host memory under addresses that no processor can follow, each used once."""

from __future__ import annotations

import math
import threading
from bisect import bisect_right, insort

import numpy as np

from ...errors import KernelError

# The upper 16 bits of an address. x86-64 wants them all alike, AArch64 wants the lower eight of them alike.
TAG = 0x5A50
DEVICES = 16
ALIGNMENT = 256
PATTERN = 0xFF  # what new memory holds: nan, or -1


def device_of(address: int) -> int | None:
    """The number of the simulated device that an address belongs to; None for an address of the host."""
    tag = address >> 48
    return tag - TAG if TAG <= tag < TAG + DEVICES else None


class Blocks:
    """The live allocations of the device `cuda:<index>`. `live`: their bytes."""

    def __init__(self, index: int):
        self.index, self.where = index, f"cuda:{index}"
        self.live = 0
        self._next = ((TAG + index) << 48) + ALIGNMENT
        self._starts: list[int] = []
        self._blocks: dict[int, np.ndarray] = {}
        self._freed: list[tuple[int, int]] = []  # (start, bytes)
        self._lock = threading.Lock()

    def allocate(self, nbytes: int) -> int:
        """The address of that many bytes, each 255."""
        raw = np.full(nbytes + ALIGNMENT, PATTERN, np.uint8)
        lead = -raw.ctypes.data % ALIGNMENT
        with self._lock:
            start = self._next
            self._next += -(-nbytes // ALIGNMENT) * ALIGNMENT + ALIGNMENT  # a gap: neighbours are not met by mistake
            self._blocks[start] = raw[lead : lead + nbytes]
            insort(self._starts, start)
            self.live += nbytes
        return start

    def free(self, address: int) -> None:
        """End the block that starts there; KernelError where none does."""
        with self._lock:
            block = self._blocks.pop(address, None)
            if block is not None:
                self._starts.remove(address)
                self._freed.append((address, block.size))
                self.live -= block.size
        if block is None:
            raise KernelError(f"{self.where}, freeing {address:#x}: {self._story(address, 1)}")

    def at(self, address: int, nbytes: int, doing: str) -> tuple[np.ndarray, int]:
        """The bytes of the block that holds the whole range, and where the range starts in them; KernelError where none does."""
        with self._lock:
            start = self._start_of(address)
            block = self._blocks[start] if start is not None else None
        if start is None or block is None or address + nbytes > start + block.size:
            raise KernelError(f"{self.where}, {doing} {nbytes:,} bytes at {address:#x}: {self._story(address, nbytes)}")
        return block, address - start

    def view(self, address: int, nbytes: int, doing: str) -> np.ndarray:
        """The bytes of a range."""
        block, start = self.at(address, nbytes, doing)
        return block[start : start + nbytes]

    def _start_of(self, address: int) -> int | None:
        i = bisect_right(self._starts, address) - 1
        return self._starts[i] if i >= 0 else None

    def _story(self, address: int, nbytes: int) -> str:
        """Why a range is wrong, as part of a sentence."""
        device = device_of(address)
        if device is None:
            return "that is an address of the host"
        if device != self.index:
            return f"that is an address of cuda:{device}"
        for start, size in self._freed:
            if start <= address < start + max(size, 1):
                return f"that block of {size:,} bytes was freed"
        found = self._start_of(address)
        if found is None:
            return "nothing was ever allocated there"
        size = self._blocks[found].size
        return f"the block there has {size:,} bytes from {found:#x} on, {address + nbytes - found - size:,} too few"

    def of_host(self, address: int, nbytes: int, doing: str) -> int:
        """The address, of the host; KernelError for one of a device."""
        if device_of(address) is not None or address <= 0:
            raise KernelError(f"{self.where}, {doing} {nbytes:,} bytes: {address:#x} is no address of the host")
        return address

    def pointer(self, address: int, dtype: str, doing: str) -> Pointer:
        """What a kernel has of an address of elements of that dtype."""
        size = np.dtype(dtype).itemsize
        if address % size:
            raise KernelError(
                f"{self.where}, {doing} {address:#x}: it is no multiple of {size}, as an address of {dtype} must be"
            )
        block, start = self.at(address, 0, doing)
        return Pointer(address, block, start, dtype)


def array_at(pointer, shape: tuple[int, ...], readonly: bool) -> np.ndarray:
    """What a kernel in the simulator has of a C-contiguous array."""
    made = pointer.elements[pointer.first : pointer.first + math.prod(shape)].reshape(shape)
    made.flags.writeable = not readonly
    return made


class Pointer:
    """An address of elements of one dtype as a kernel in the simulator has it: it can be indexed, within its block.

    A float as an index or into integers is a TypeError: on a GPU, Numba would convert it without a word.
    """

    __slots__ = ("address", "elements", "first")

    def __init__(self, address: int, memory: np.ndarray, start: int, dtype: str):
        size = np.dtype(dtype).itemsize
        lead = start % size
        self.elements = memory[lead : lead + (memory.size - lead) // size * size].view(dtype)
        self.first = start // size
        self.address = address

    def _place(self, i: int) -> int:
        if not isinstance(i, int | np.integer):
            raise TypeError(f"an index is an integer, not {type(i).__name__}")
        at = self.first + int(i)
        if not 0 <= at < self.elements.size:
            last = self.elements.size - self.first - 1
            raise KernelError(
                f"element {int(i)} lies outside the block of the address {self.address:#x}, which has {-self.first} to {last}"
            )
        return at

    def __getitem__(self, i: int):
        return self.elements[self._place(i)]

    def __setitem__(self, i: int, value) -> None:
        if self.elements.dtype.kind in "iu" and not isinstance(value, int | np.integer | np.bool_):
            raise TypeError(f"an element of {self.elements.dtype} is an integer, not {type(value).__name__}")
        self.elements[self._place(i)] = value
