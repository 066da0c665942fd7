"""One call of `fit`: which hooks are due when, and what commands do."""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import TapegradError, TrainingError
from .hook import Hook, Snapshot
from .triggers import Clock

if TYPE_CHECKING:
    from .trainer import Trainer


class Timed:
    """A hook and its clock."""

    __slots__ = ("busy", "clock", "hook")

    def __init__(self, hook: Hook, clock: Clock):
        self.hook, self.clock = hook, clock
        self.busy: threading.Thread | None = None


class Running:
    """The hooks of a training in progress.

    due: the iteration at which the next of them is due that counts iterations. timed: whether any counts seconds.
    noted: numbers that hooks want in the row of this epoch.
    """

    def __init__(self, trainer: Trainer, hooks: list[Hook], loader: Iterable):
        self.trainer, self.loader = trainer, loader
        self.started = time.monotonic()
        ordered = sorted(hooks, key=lambda hook: -hook.priority)
        now = {"iteration": trainer.iteration, "epoch": trainer.epoch, "second": 0.0}
        self.hooks = [Timed(h, Clock(h.trigger, now.get(getattr(h.trigger, "unit", ""), 0.0))) for h in ordered]
        self.by_iteration = [t for t in self.hooks if t.clock.unit == "iteration"]
        self.by_second = [t for t in self.hooks if t.clock.unit == "second"]
        self.by_epoch = [t for t in self.hooks if t.clock.unit == "epoch"]
        self.timed = bool(self.by_second)
        self.due = self._next()
        self.noted: dict[str, float] = {}
        self.failures: list[tuple[str, BaseException]] = []  # of hooks in the background

    def _next(self) -> float:
        return min((t.clock.due for t in self.by_iteration), default=math.inf)

    @property
    def seconds(self) -> float:
        """Since fit was called."""
        return time.monotonic() - self.started

    def position(self) -> dict[str, Any] | None:
        """Where the loader stands."""
        state = getattr(self.loader, "state_dict", None)
        return state() if state is not None else None

    def batches(self) -> int | None:
        """Of an epoch."""
        try:
            return len(self.loader)  # type: ignore[arg-type]
        except (TypeError, TapegradError):
            return None

    # hooks

    def begin(self) -> None:
        """Training starts."""
        for t in self.hooks:
            self._guarded(t.hook, t.hook.begin, self.trainer)
        self.event("start")

    def end(self) -> None:
        """Training is over: all hooks end, whatever one of them does; the first error is raised."""
        first: BaseException | None = None
        for t in self.hooks:
            if t.busy is not None:
                t.busy.join()
        ends = [partial(self._guarded, t.hook, t.hook.end, self.trainer) for t in self.hooks]
        actions: tuple[Callable[[], Any], ...] = (partial(self.event, "stop"), *ends, self._raise_failures)
        for action in actions:
            try:
                action()
            except TrainingError as error:
                first = first or error
        if first is not None:
            raise first

    def event(self, name: str) -> None:
        """Run the hooks of an event."""
        self._run([t for t in self.hooks if t.clock.event == name])

    def iteration_over(self) -> None:
        """Run the hooks that are due by iterations or seconds."""
        now, seconds = self.trainer.iteration, self.seconds
        due = [t for t in self.by_iteration if t.clock.reached(now)]
        due += [t for t in self.by_second if t.clock.reached(seconds)]
        self.due = self._next()
        if due:
            self._run(sorted(due, key=lambda t: -t.hook.priority))

    def epoch_over(self) -> None:
        """Run the hooks that are due by epochs, those that only look at what others did come in `after_epoch`."""
        self.noted = {}
        now = self.trainer.epoch
        self._late = [t for t in self.by_epoch if t.clock.reached(now)]
        self._run([t for t in self._late if t.hook.priority >= 0])

    def after_epoch(self) -> None:
        """Run the hooks of the epoch that come after its row is in the history: those of negative priority."""
        self._run([t for t in self._late if t.hook.priority < 0])

    def _run(self, due: list[Timed]) -> None:
        trainer = self.trainer
        if self.failures:
            self._raise_failures()
        for t in due:
            hook = t.hook
            if hook.criterion is not None and not self._guarded(hook, hook.criterion.holds, trainer.values):
                continue
            if not hook.background:
                self._guarded(hook, hook.run, trainer)
            elif t.busy is None or not t.busy.is_alive():
                t.busy = threading.Thread(target=self._in_background, args=(hook, Snapshot(trainer)), daemon=True)
                t.busy.start()

    def _guarded(self, hook: Hook, action, argument) -> Any:
        """Call something of a hook; what it raises names the hook."""
        try:
            return action(argument)
        except Exception as error:
            raise self._failed(hook.name, error) from error

    def _failed(self, name: str, error: BaseException) -> TrainingError:
        trainer = self.trainer
        return TrainingError(
            f"hook {name} failed after iteration {trainer.iteration} (epoch {trainer.epoch + 1}): {type(error).__name__}: "
            f"{error}. The training itself is intact: fit goes on from here."
        )

    def _in_background(self, hook: Hook, snapshot: Snapshot) -> None:
        try:
            hook.run(snapshot)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001  raised in the thread that trains, at its next boundary
            error.add_note("".join(traceback.format_exception(error)))
            self.failures.append((hook.name, error))

    def _raise_failures(self) -> None:
        if self.failures:
            name, error = self.failures.pop(0)
            raise self._failed(name, error) from error

    # commands

    def obey(self) -> None:
        """Do what other threads asked for; rest where the trainer is paused."""
        trainer = self.trainer
        was = trainer._paused
        trainer._commands.perform(trainer.iteration)
        if trainer._single:
            trainer._single = False
            return
        if not trainer._paused or trainer._stopping:
            return
        if not was:
            self.event("pause")
        while trainer._paused and not trainer._stopping:
            trainer._commands.wait()
            trainer._commands.perform(trainer.iteration)
            if trainer._single:
                trainer._single = False
                return
        self.event("resume")
