"""Commands: what other threads ask of a running trainer, done between two iterations."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ..errors import TrainingError


class Receipt:
    """Says when a command took effect.

    iteration: after which iteration it did; None before. result: what it gave. error: what it raised.
    """

    def __init__(self, title: str, action: Callable[[], Any]):
        self.title, self.action = title, action
        self.iteration: int | None = None
        self.result: Any = None
        self.error: Exception | None = None
        self._done = threading.Event()

    @property
    def done(self) -> bool:
        """Whether it took effect, or failed."""
        return self._done.is_set()

    def wait(self, timeout: float | None = None) -> int:
        """Wait, `timeout` seconds at most: the iteration after which the command took effect. Raises what it raised.

        TrainingError where the time is over, or in the thread that trains, which would wait for itself.
        """
        if not self.done and getattr(_training, "now", False):
            raise TrainingError(
                f"{self.title}: wait() in the thread that trains would never end; the command is done after this iteration"
            )
        if not self._done.wait(timeout):
            raise TrainingError(f"{self.title}: not done after {timeout} s; is the trainer running?")
        if self.error is not None:
            raise self.error
        assert self.iteration is not None
        return self.iteration

    def perform(self, iteration: int) -> None:
        """Do it."""
        try:
            self.result = self.action()
        except Exception as error:  # noqa: BLE001  belongs to the thread that asked, which gets it from wait()
            self.error = error
        self.iteration = iteration
        self._done.set()

    def refuse(self, why: str) -> None:
        """Say that it will not be done."""
        self.error = TrainingError(f"{self.title}: {why}")
        self._done.set()

    def __repr__(self) -> str:
        state = "waiting" if not self.done else "failed" if self.error else f"done after iteration {self.iteration}"
        return f"<{self.title}: {state}>"


_training = threading.local()


class Queue:
    """Commands in the order in which they came. Its truth is whether there are any."""

    def __init__(self) -> None:
        self.waiting: deque[Receipt] = deque()
        self.arrived = threading.Condition()

    def __bool__(self) -> bool:
        return bool(self.waiting)

    def put(self, receipt: Receipt) -> Receipt:
        """Add one, and wake a trainer that is paused."""
        with self.arrived:
            self.waiting.append(receipt)
            self.arrived.notify_all()
        return receipt

    def perform(self, iteration: int) -> None:
        """Do all that are there."""
        while self.waiting:
            self.waiting.popleft().perform(iteration)

    def wait(self) -> None:
        """Sleep until there is one."""
        with self.arrived:
            while not self.waiting:
                self.arrived.wait()

    def refuse(self, why: str) -> None:
        """Refuse all that are there."""
        while self.waiting:
            self.waiting.popleft().refuse(why)


class trains:
    """Marks this thread as the one that trains, within a `with` block."""

    def __enter__(self) -> None:
        _training.now = True

    def __exit__(self, *error) -> None:
        _training.now = False
