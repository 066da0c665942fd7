"""Runs steps: packs their words, calls the kernels, splits large ones among threads.

A kernel's call costs about 0.3 µs from Python. Small kernels keep the interpreter's lock (taking it back costs more than
they do), large ones let it go. A step is split among the threads of `threads.py` when every one gets `WORTH` grains.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from functools import cache

from .. import config
from ..errors import ConfigError
from .handoff import COPIED, RECORD
from .launch import Step
from .threads import POOL, share_function

KEEPS_LOCK = ctypes.PYFUNCTYPE(ctypes.c_int32, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)
DROPS_LOCK = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)

WORTH = 1  # grains, each about 100 K simple operations or 25 µs, that make up for handing work to a thread that waits
WORTH_WAKING = 4  # grains that make up for waking one that sleeps

_threads = 0


@cache
def words(count: int) -> struct.Struct:
    """Packs that many 64-bit words."""
    return struct.Struct(f"{count}q")


@cache
def function(address: int, keeps_lock: bool):
    """The kernel at that address as a Python callable (packed words, begin, end) -> status."""
    return (KEEPS_LOCK if keeps_lock else DROPS_LOCK)(address)


def get_num_threads() -> int:
    """The number of threads that large kernels are split among."""
    return _threads or config.num_threads()


def set_num_threads(n: int) -> None:
    """Split large kernels among `n` threads; 1 turns splitting off. Results do not depend on it.

    >>> import tapegrad as tg
    >>> tg.set_num_threads(2); tg.get_num_threads()
    2
    """
    global _threads
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ConfigError(f"set_num_threads: {n!r} is not a number of threads; give a whole number from 1")
    _threads = n
    if POOL.started:
        POOL.resize(n)


def can_split(step: Step) -> bool:
    """True where the step is large enough for two threads, however many there are."""
    return step.grain > 0 and step.extent >= 2 * WORTH * step.grain


def chunk(step: Step, threads: int) -> int:
    """How many items of a step that can be split a thread takes at a time.

    >>> [chunk(Step(0, (), extent=n, grain=1000), 2) for n in (2000, 7000, 100_000)]
    [1000, 1167, 12500]
    """
    pieces = max(1, min(step.parts * threads, step.extent // step.grain))
    if pieces > threads:
        pieces -= pieces % threads
    return -(-step.extent // pieces)


def whole_lines(nbytes: int) -> int:
    """The bytes rounded up to whole cache lines, which the memory of two threads must not share."""
    return -(-nbytes // 64) * 64


def share_words(step: Step, threads: int) -> tuple[int, ...]:
    """The words of the step's record, as `handoff.py` describes them, when it is split among that many threads."""
    count = len(step.operands) + (step.workspace > 0) + len(step.static)
    slots = threads if count <= COPIED else 1
    position, stride = (len(step.operands), whole_lines(step.workspace)) if step.workspace else (-1, 0)
    pieces = chunk(step, threads) if threads > 1 and can_split(step) else 0
    wakes = step.extent >= 2 * WORTH_WAKING * step.grain
    return (step.address, 0, step.extent, pieces, count, position, stride, slots, wakes)


class Shared:
    """A step that can be split, as a callable of its packed words. `spare` runs it on one thread."""

    __slots__ = ("made", "spare", "step")

    def __init__(self, step: Step, keeps_lock: bool = False):
        self.step = step
        self.spare = function(step.address, keeps_lock)
        self.made: tuple[int, ctypes.Array] | None = None  # threads, the record for that many

    def record(self) -> ctypes.Array | None:
        """The record for the present number of threads; None where that is 1."""
        threads = _threads or config.num_threads()
        if POOL.limit != threads:
            POOL.start(threads)
            threads = POOL.limit
        if threads == 1:
            return None
        made = self.made
        if made is None or made[0] != threads:
            made = self.made = (threads, (ctypes.c_int64 * RECORD)(*share_words(self.step, threads)))
        return made[1]

    def __call__(self, packed: bytes, begin: int, end: int) -> int:
        """Run the step, which needs no workspace, on its whole range `begin..end`; the status."""
        record = self.record()
        if record is None:
            return self.spare(packed, begin, end)
        return self.split(record, packed)

    def split(self, record: ctypes.Array, packed: bytes) -> int:
        if POOL.resting and record[8]:
            POOL.wake()
        return share_function()(POOL.address, record, packed)


def caller(step: Step, keeps_lock: bool) -> Callable[[bytes, int, int], int]:
    """A step without workspace as a callable (packed words, begin, end) -> status, which splits it where that pays."""
    return Shared(step, keeps_lock) if can_split(step) else function(step.address, keeps_lock)


class Ready:
    """A step with its static words packed and its kernel at hand."""

    __slots__ = ("kernel", "operands", "pack", "shared", "static", "step")

    def __init__(self, step: Step):
        self.step = step
        self.operands = step.operands
        self.pack = words(len(step.operands) + (step.workspace > 0)).pack
        self.static = words(len(step.static)).pack(*step.static)
        self.kernel = function(step.address, False)
        self.shared = Shared(step) if can_split(step) else None

    def run(self, addresses: list[int], workspace: Callable[[int], int]) -> int:
        """Run on operands at `addresses`; the status. `workspace(nbytes)` gives the address of scratch memory."""
        step = self.step
        places = [addresses[i] for i in self.operands]
        shared = self.shared
        if shared is not None and (record := shared.record()) is not None:
            if step.workspace:
                places.append(workspace(record[6] * record[7]))
            return shared.split(record, self.pack(*places) + self.static)
        if step.workspace:
            places.append(workspace(step.workspace))
        return self.kernel(self.pack(*places) + self.static, 0, step.extent)
