"""Blocks of memory in size classes, handed out and taken back without asking the system: what all pools have in common.

Size classes are 64 · {1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, …}: four steps to each doubling, so at most a quarter is
rounded away. Small blocks are carved from slabs. A buffer returns its address to its class the moment it goes; nothing is given
back to the system until `trim()`, or until the limit is near or the system has no more.

On a device the next owner of a block may write to it while the last one's kernels are still queued: one queue per device runs
them in the order in which they were asked for, so a block needs no waiting to change hands.
"""

from __future__ import annotations

import os
import threading
import weakref
from bisect import bisect_right
from collections import Counter

from ..errors import OutOfMemory, TapeError

ALIGNMENT = 64
FORKED = (
    "tapegrad was used in a forked child process, where its threads and buffers are gone. "
    'Start processes with multiprocessing.get_context("spawn"), or use threads.'
)


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
    """The free blocks of one size. `free` is a plain list: append and pop are atomic. `slabs`: where its slabs begin."""

    __slots__ = ("free", "pool", "size", "slabs")

    def __init__(self, pool: Pool, size: int):
        self.pool, self.size = pool, size
        self.free: list[int] = []
        self.slabs: list[int] = []


class Buffer:
    """One block in use. It goes back to its class when the last tensor on it goes."""

    __slots__ = ("address", "free")

    def __init__(self, address: int, free: list[int]):
        self.address = address
        self.free = free

    def __del__(self):
        self.free.append(self.address)


class Pool:
    """Owns the memory of tensors in one place. `stats()` counts it; `limit` bounds it.

    A subclass says where memory comes from, by `_take` and `_give_back`, and how its errors end, by `where` and `advice`.
    """

    slab = 1 << 20
    carved = slab // 4  # blocks up to this size share slabs
    where = ""
    advice = "Use smaller batches or drop tensors that are no longer needed."

    def __init__(self, limit: int):
        self.limit = limit
        self.reserved = 0  # bytes taken from the system
        self.peak = 0
        self.allocations = 0  # blocks made, which a steady iteration never does
        self.classes: dict[int, SizeClass] = {}
        self._lock = threading.RLock()  # a finaliser that runs inside may make tensors too
        _pools.add(self)

    def _take(self, size: int) -> int | None:
        """The address of that many new bytes, a multiple of 64; None where the system has no more."""
        raise NotImplementedError

    def _give_back(self, address: int) -> None:
        """Give what `_take` returned back to the system."""
        raise NotImplementedError

    def allocate(self, nbytes: int, what: str = "a buffer") -> Buffer:
        """A buffer of at least that many bytes, its contents undefined. `what` it is for stands in the error."""
        size_class = self.size_class(nbytes)
        free = size_class.free
        return Buffer(free.pop() if free else self.grow(size_class, what), free)

    def size_class(self, nbytes: int) -> SizeClass:
        """The class whose blocks serve requests of that many bytes."""
        size = class_size(nbytes)
        found = self.classes.get(size)
        if found is None:
            found = self.classes.setdefault(size, SizeClass(self, size))
        return found

    def grow(self, size_class: SizeClass, what: str = "a buffer") -> int:
        """The address of a block, a new one where the free list is empty."""
        size = size_class.size
        with self._lock:
            if size_class.free:  # another thread grew it meanwhile, or held its blocks to trim them
                return size_class.free.pop()
            self.allocations += 1
            if size > self.carved:
                return self._reserve(size, what)
            first = self._reserve(self.slab, what)
            size_class.slabs.append(first)
            size_class.slabs.sort()
            size_class.free.extend(first + i * size for i in range(1, self.slab // size))
            return first

    def _reserve(self, size: int, what: str) -> int:
        if self.reserved + size > self.limit:
            self._trim()
        if self.reserved + size > self.limit:
            raise OutOfMemory(
                f"{what} of {size:,} bytes does not fit{self.where}: {self._used()} and the limit is {self.limit:,}. {self.advice}"
            )
        address = self._take(size)
        if address is None:
            self._trim()
            address = self._take(size)
        if address is None:
            raise OutOfMemory(f"{what} of {size:,} bytes does not fit{self.where}: {self._exhausted()}. {self.advice}")
        self.reserved += size
        self.peak = max(self.peak, self.reserved)
        return address

    def _used(self) -> str:
        free = self.free_bytes()
        return f"{self.reserved - free:,} bytes are in use, {free:,} are cached in free blocks"

    def _exhausted(self) -> str:
        """Why there was no more, as part of a sentence."""
        return f"{self._used()} and the system has no more memory"

    def free_bytes(self) -> int:
        """Bytes of free blocks that the pool holds on to."""
        return sum(len(c.free) * c.size for c in list(self.classes.values()))

    def _trim(self) -> None:
        for c in list(self.classes.values()):
            if c.size > self.carved:
                while c.free:
                    self._give_back(c.free.pop())
                    self.reserved -= c.size
            elif len(c.free) >= self.slab // c.size:
                self._trim_slabs(c)

    def _trim_slabs(self, c: SizeClass) -> None:
        """Give back the slabs of which every block is free. Other threads may take and return blocks meanwhile."""
        taken = []
        while c.free:
            taken.append(c.free.pop())
        starts = [c.slabs[bisect_right(c.slabs, address) - 1] for address in taken]
        whole = {start for start, n in Counter(starts).items() if n == self.slab // c.size}
        c.free.extend(address for address, start in zip(taken, starts, strict=True) if start not in whole)
        c.slabs = [start for start in c.slabs if start not in whole]
        for start in whole:
            self._give_back(start)
            self.reserved -= self.slab

    def trim(self) -> None:
        """Give the free large blocks, and the slabs that are wholly free, back to the system."""
        with self._lock:
            self._trim()

    def set_limit(self, nbytes: int) -> None:
        """Bound the bytes taken from the system; beyond it OutOfMemory is raised."""
        if not isinstance(nbytes, int) or isinstance(nbytes, bool) or nbytes <= 0:
            raise ValueError(f"a memory limit is a whole number of bytes above 0, not {nbytes!r}")
        self.limit = nbytes

    def stats(self) -> dict[str, int]:
        """Bytes reserved, bytes free in the pool, the peak, the limit, and how many blocks were ever made."""
        return {
            "reserved": self.reserved,
            "free": self.free_bytes(),
            "peak": self.peak,
            "limit": self.limit,
            "allocations": self.allocations,
        }

    def forked(self) -> None:
        """Make every later allocation raise: the child of a fork shares threads and locks that no longer exist."""
        self._lock = threading.RLock()
        for c in self.classes.values():
            c.free = _Refuse()
        self.size_class = self.grow = refuse  # type: ignore[method-assign]


def refuse(*_args, **_kwargs):
    """Raise TapeError, in the child of a fork."""
    raise TapeError(FORKED)


class _Refuse(list):
    """A free list of a forked child."""

    def __bool__(self) -> bool:
        return bool(refuse())

    def pop(self, *_):
        refuse()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _forked() -> None:
    for pool in list(_pools):
        pool.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
