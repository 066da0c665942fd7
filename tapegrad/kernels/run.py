"""Runs steps: packs their words, calls the kernels, splits large ones among threads.

A kernel's call costs about 0.3 µs from Python. Small kernels keep the interpreter's lock (taking it back costs more than
they do), large ones let it go. Handing work to another Python thread costs 25 to 80 µs (measured: an add of 16 K float32
takes 6 µs on one thread, 30 on two; of 1 M, 155 and 130), so a step is split only when every thread gets `WORTH` grains.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache

from .. import config
from ..errors import ConfigError
from .launch import Step
from .status import OK

KEEPS_LOCK = ctypes.PYFUNCTYPE(ctypes.c_int32, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)
DROPS_LOCK = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)

WORTH = 4  # grains, each about 100 K simple operations or 25 µs, that make up for handing work to a thread

_threads = 0
_executor: ThreadPoolExecutor | None = None
_lock = threading.Lock()


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
    global _threads, _executor
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ConfigError(f"set_num_threads: {n!r} is not a number of threads; give a whole number from 1")
    with _lock:
        _threads = n
        _executor = None  # its threads end when the last split that uses it does


def _workers(count: int) -> ThreadPoolExecutor:
    global _executor
    with _lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(max(count, 1), thread_name_prefix="tapegrad")
        return _executor


def pieces(step: Step) -> int:
    """Into how many ranges the step is split."""
    if step.grain <= 0:
        return 1
    return max(1, min(get_num_threads(), step.extent // (WORTH * step.grain)))


def can_split(step: Step) -> bool:
    """True where the step is large enough for two threads, however many there are."""
    return step.grain > 0 and step.extent >= 2 * WORTH * step.grain


class Ready:
    """A step with its static words packed and its kernel at hand."""

    __slots__ = ("kernel", "operands", "pack", "splits", "static", "step")

    def __init__(self, step: Step):
        self.step = step
        self.operands = step.operands
        self.pack = words(len(step.operands) + (step.workspace > 0)).pack
        self.static = words(len(step.static)).pack(*step.static)
        self.kernel = function(step.address, False)
        self.splits = can_split(step)

    def run(self, addresses: list[int], workspace: Callable[[int], int]) -> int:
        """Run on operands at `addresses`; the status. `workspace(nbytes)` gives the address of scratch memory."""
        step = self.step
        places = [addresses[i] for i in self.operands]
        if self.splits and (count := pieces(step)) > 1:
            return self.split(count, places, workspace)
        if step.workspace:
            places.append(workspace(step.workspace))
        return self.kernel(self.pack(*places) + self.static, 0, step.extent)

    def split(self, count: int, places: list[int], workspace: Callable[[int], int]) -> int:
        step = self.step
        bounds = [step.extent * i // count for i in range(count + 1)]
        scratch = workspace(step.workspace * count) if step.workspace else 0
        calls = []
        for i in range(count):
            pointers = [*places, scratch + i * step.workspace] if step.workspace else places
            calls.append((self.pack(*pointers) + self.static, bounds[i], bounds[i + 1]))
        executor = _workers(count - 1)
        futures: list[Future] = []
        try:
            for packed, first, last in calls[1:]:
                futures.append(executor.submit(self.kernel, packed, first, last))
        except RuntimeError:  # the interpreter is ending and starts no more work: the rest is done here
            pass
        try:
            statuses = [self.kernel(*call) for call in (calls[0], *calls[1 + len(futures) :])]
            statuses += [f.result() for f in futures]
        finally:  # an interrupt must not free buffers that a thread still writes
            if not all(f.done() for f in futures):
                wait(futures)
        return next((s for s in statuses if s != OK), OK)


def _after_fork() -> None:
    global _executor, _lock
    _executor, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
