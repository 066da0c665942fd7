"""The buffer pool: memory in size classes, 64-byte aligned, handed out and taken back without asking the system.

Size classes are 64 · {1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, …}: four steps to each doubling, so at most a quarter is
rounded away. Small blocks are carved from slabs of 1 MiB. A buffer returns its address to its class when the last tensor on
it goes; nothing is given back to the system until `trim()`, or until the limit is near.
"""

from __future__ import annotations

import os
import threading

import numpy as np

from .. import config
from ..errors import OutOfMemory, TapeError

ALIGNMENT = 64
SLAB = 1 << 20
CARVED = SLAB // 4  # blocks up to this size share slabs
# Large blocks start at different places within a page. Where a load comes a little behind a store of the same page offset,
# it falsely waits for it ("4K aliasing"): an add of 1 M float32 took 146 µs with blocks 0 or 1088 bytes apart, 164 with 64.
PAGE, STAGGER = 4096, 17 * ALIGNMENT


def class_size(nbytes: int) -> int:
    """The block size that serves a request of that many bytes.

    >>> [class_size(n) for n in (0, 64, 65, 513, 1100)]
    [64, 64, 128, 640, 1280]
    """
    units = max((nbytes + ALIGNMENT - 1) // ALIGNMENT, 1)
    if units <= 8:
        return units * ALIGNMENT
    step = 1 << (units.bit_length() - 3)
    if units == 1 << (units.bit_length() - 1):
        step >>= 1
    return (units + step - 1) // step * step * ALIGNMENT


class SizeClass:
    """The free blocks of one size. `free` is a plain list: append and pop are atomic."""

    __slots__ = ("free", "pool", "size")

    def __init__(self, pool: Pool, size: int):
        self.pool, self.size = pool, size
        self.free: list[int] = []


class Buffer:
    """One block in use. It goes back to its class when the last tensor on it goes."""

    __slots__ = ("address", "free")

    def __init__(self, address: int, free: list[int]):
        self.address = address
        self.free = free

    def __del__(self):
        self.free.append(self.address)


# The last in-place write to each block: its order number and where the user wrote it. Keyed by address, so that buffers that are
# never written, nearly all, pay nothing. A row checks only blocks that it keeps alive, whose address nobody else can have.
writes: dict[int, tuple[int, tuple[str, int] | None]] = {}


class Pool:
    """Owns all host memory of tensors. `stats()` counts it; `limit` bounds it."""

    def __init__(self, limit: int):
        self.limit = limit
        self.reserved = 0  # bytes taken from the system
        self.peak = 0
        self.allocations = 0  # blocks made, which a steady iteration never does
        self.classes: dict[int, SizeClass] = {}
        self._backing: dict[int, np.ndarray] = {}  # address of the block -> the array that owns it
        self._lock = threading.RLock()  # a finaliser that runs inside may make tensors too

    def size_class(self, nbytes: int) -> SizeClass:
        size = class_size(nbytes)
        found = self.classes.get(size)
        if found is None:
            found = self.classes.setdefault(size, SizeClass(self, size))
        return found

    def grow(self, size_class: SizeClass, what: str = "a buffer") -> int:
        """The address of a block that is not in the free list yet."""
        size = size_class.size
        with self._lock:
            self.allocations += 1
            if size > CARVED:
                return self._reserve(size, what)
            first = self._reserve(SLAB, what)
            count = SLAB // size
            size_class.free.extend(first + i * size for i in range(1, count))
            return first

    def _reserve(self, size: int, what: str) -> int:
        if self.reserved + size > self.limit:
            self._trim()
        if self.reserved + size > self.limit:
            raise OutOfMemory(
                f"{what} of {size:,} bytes does not fit: {self.reserved:,} bytes are in use and the limit is {self.limit:,}. "
                "Use smaller batches, drop tensors that are no longer needed, or raise the limit with tg.set_memory_limit."
            )
        try:
            backing = np.empty(size + 2 * PAGE, np.uint8)
        except MemoryError:
            raise OutOfMemory(
                f"{what} of {size:,} bytes: the system has no more memory. Use smaller batches."
            ) from None
        start = (
            -(-backing.ctypes.data // PAGE) * PAGE
            if size > CARVED
            else -(-backing.ctypes.data // ALIGNMENT) * ALIGNMENT
        )
        address = start + (self.allocations * STAGGER % PAGE if size > CARVED else 0)
        self._backing[address] = backing
        self.reserved += size
        self.peak = max(self.peak, self.reserved)
        return address

    def _trim(self) -> None:
        for c in list(self.classes.values()):
            if c.size > CARVED:
                while c.free:
                    del self._backing[c.free.pop()]
                    self.reserved -= c.size

    def trim(self) -> None:
        """Give the free large blocks back to the system."""
        with self._lock:
            self._trim()

    def stats(self) -> dict[str, int]:
        """Bytes reserved, bytes free in the pool, the peak, the limit, and how many blocks were ever made."""
        free = sum(len(c.free) * c.size for c in list(self.classes.values()))
        return {
            "reserved": self.reserved,
            "free": free,
            "peak": self.peak,
            "limit": self.limit,
            "allocations": self.allocations,
        }

    def forked(self) -> None:
        """Make every later allocation raise: the child of a fork shares threads and locks that no longer exist."""
        self._lock = threading.RLock()
        for c in self.classes.values():
            c.free = _Refuse()
        self.size_class = self.grow = _refuse  # type: ignore[method-assign]


def _refuse(*_args, **_kwargs):
    raise TapeError(
        "tapegrad was used in a forked child process, where its threads and buffers are gone. "
        'Start processes with multiprocessing.get_context("spawn"), or use threads.'
    )


class _Refuse(list):
    """A free list of a forked child."""

    def __bool__(self) -> bool:
        return bool(_refuse())

    def pop(self, *_):
        _refuse()


POOL = Pool(config.memory_limit())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.forked)
