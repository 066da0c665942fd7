"""The thread pool of large kernels: threads that spin for a short time after each job and then sleep.

A worker is an ordinary Python thread (daemon) inside one compiled call, `work`, with the interpreter's lock released. A
caller with a kernel worth splitting publishes it, claims chunks like any worker until none is left, and waits for those
who still run one (`handoff.py`). It never waits for a worker to arrive, so one that sleeps, has ended, or never was (a
forked child) costs time only, never an answer. The pool serves one caller at a time; others run their kernels alone.

Sleeping is a futex on Linux. Elsewhere the worker returns to Python and waits on a condition, and a caller gives up its
time slice instead of sleeping.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import threading
import time
from functools import cache

from . import handoff, processor
from .jit import load

SPIN = 40e-6  # seconds for which a worker looks for the next job before it sleeps: longer than the gaps within a sweep
WAIT = 60e-6  # seconds for which a caller looks for the last worker to leave before it sleeps


@cache
def share_function():
    """`share(pool, record, packed words)`: the status."""
    address = load("share", "share", lambda: handoff.module(handoff.share(), handoff.spread("internal")))
    return ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(address)


@cache
def work_function():
    """`work(pool, index, looks, sleeps)`: 0 where the worker shall end, 1 where it found no job and is not to sleep."""
    address = load("work", "work", lambda: handoff.module(handoff.work()))
    return ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_int32)(address)


@cache
def admit_function():
    """`admit(pool, threads)`: let that many work."""
    address = load("admit", "admit", lambda: handoff.module(handoff.admit()))
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32)(address)


class Block:
    """The memory that callers and workers share. It is never freed: a daemon thread may outlive all Python objects."""

    def __init__(self):
        memory = ctypes.create_string_buffer(handoff.SIZE + 64)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
        self.address = -(-ctypes.addressof(memory) // 64) * 64
        self.limit = ctypes.c_int32.from_address(self.address + handoff.LIMIT)
        self.patience = ctypes.c_int64.from_address(self.address + handoff.PATIENCE)
        self.sleepers = ctypes.c_int32.from_address(self.address + handoff.SLEEPERS)
        self.limit.value = 2


@cache
def looks_per_second() -> float:
    """How often a waiting loop looks in a second: 10 to 300 million, by processor."""
    block, serve, count = Block(), work_function(), 1000
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        serve(block.address, 1, count, 0)  # nobody publishes here
        best = min(best, time.perf_counter() - start)
    return count / best


class Pool:
    """The worker threads of this process. `limit`: threads that may work, the caller included."""

    def __init__(self):
        self.block = Block()
        self.block.limit.value = 1
        self.address = self.block.address
        self.limit = 1
        self.resting = 0  # workers that wait in Python
        self.workers: dict[int, threading.Thread] = {}
        self.started = False  # by the first kernel worth splitting
        self._looks = 0
        self._sleeps = True  # in compiled code; else a worker waits in Python
        self._ended = False
        self._state = threading.Condition()

    def resize(self, count: int) -> None:
        """Let `count` threads work, the caller included: start those that are missing; the surplus ends by itself."""
        with self._state:
            count = min(count, handoff.ENTRANTS)
            if self._ended or count == self.limit:
                return
            if not self._looks:
                self._sleeps = processor.futex() is not None
                self._looks = int(SPIN * looks_per_second())
                self.block.patience.value = int(WAIT * looks_per_second())
            self._admit(count)
            for index in range(1, count):
                if index not in self.workers and not self._start(index):
                    break

    def start(self, count: int) -> None:
        """`resize`, and from now on each time `set_num_threads` is called."""
        self.started = True
        self.resize(count)

    def _admit(self, count: int) -> None:
        self.limit = count
        admit_function()(self.address, count)
        self._state.notify_all()

    def _start(self, index: int) -> bool:
        worker = threading.Thread(target=self._serve, args=(index,), name=f"tapegrad-{index}", daemon=True)
        try:
            worker.start()
        except RuntimeError:  # the interpreter is ending, or the system has no more threads
            return False
        self.workers[index] = worker
        return True

    def _serve(self, index: int) -> None:
        """What worker `index` runs, from 1."""
        if hasattr(
            signal, "pthread_sigmask"
        ):  # signals are for threads that run Python, faults for those who commit them
            faults = {getattr(signal, name, None) for name in ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT")}
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - faults)
        work = work_function()
        while True:
            idle = work(self.address, index, self._looks, self._sleeps)
            with self._state:
                if index >= self.limit:
                    self.workers.pop(index, None)
                    return
                if idle:
                    self.resting += 1
                    self._state.wait()
                    self.resting -= 1

    def wake(self) -> None:
        """Wake workers that wait in Python; those that sleep on a futex are woken by compiled code."""
        with self._state:
            self._state.notify_all()

    def end(self) -> None:
        """Send all workers home. What is split later runs on its caller's thread."""
        with self._state:
            self._ended = True
            workers = list(self.workers.values())
            if workers:
                self._admit(1)
        deadline = time.monotonic() + 1.0  # one that is in the middle of another caller's kernel is left to it
        for worker in workers:
            worker.join(max(deadline - time.monotonic(), 0.0))

    def forked(self) -> None:
        """In the child of a fork there are no workers, and there shall be none."""
        self._state = threading.Condition()
        self.workers, self.limit, self.resting, self._ended = {}, 1, 0, True
        self.block.limit.value = 1


POOL = Pool()
atexit.register(POOL.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.forked)
