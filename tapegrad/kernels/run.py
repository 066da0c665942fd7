"""Runs steps: packs their words, calls the kernels, splits large ones among threads.

A kernel's call costs about 0.3 µs from Python. Small kernels keep the interpreter's lock (taking it back costs more than
they do), large ones let it go. Splitting costs about 20 µs, so a step is split only when every thread gets `grain` items.
"""
from __future__ import annotations

import ctypes
import os
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from .. import config
from ..errors import ConfigError
from .launch import Step
from .status import OK

KEEPS_LOCK = ctypes.PYFUNCTYPE(ctypes.c_int32, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)
DROPS_LOCK = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)

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
        old, _executor = _executor, None
    if old is not None:
        old.shutdown(wait=True)


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
    return max(1, min(get_num_threads(), step.extent // step.grain))


def run_step(step: Step, addresses: list[int], workspace) -> int:
    """Run one step on operands at `addresses`; the status. `workspace(nbytes)` gives the address of scratch memory."""
    count = pieces(step)
    places = [addresses[i] for i in step.operands]
    static = words(len(step.static)).pack(*step.static)
    bounds = [step.extent * i // count for i in range(count + 1)]
    scratch = workspace(step.workspace * count) if step.workspace else 0
    calls = []
    for i in range(count):
        pointers = [*places, scratch + i * step.workspace] if step.workspace else places
        calls.append((words(len(pointers)).pack(*pointers) + static, bounds[i], bounds[i + 1]))
    kernel = function(step.address, False)
    if count == 1:
        return kernel(*calls[0])
    executor = _workers(count - 1)
    futures = [executor.submit(kernel, *c) for c in calls[1:]]
    statuses = [kernel(*calls[0]), *(f.result() for f in futures)]
    return next((s for s in statuses if s != OK), OK)


def _after_fork() -> None:
    global _executor, _lock
    _executor, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
