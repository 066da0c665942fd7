"""When a hook runs: every so often, once after so long, or on an event of the trainer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import TrainingError

UNITS = ("iteration", "epoch", "second")
EVENTS = ("start", "stop", "pause", "resume")


def _check(name: str, count, unit: str) -> None:
    if unit not in UNITS:
        raise TrainingError(f"{name}: the unit is one of {', '.join(map(repr, UNITS))}, not {unit!r}")
    whole = unit != "second"
    if isinstance(count, bool) or not isinstance(count, int | float) or not 0 < count < math.inf:
        raise TrainingError(f"{name}: the count is a number above 0, not {count!r}")
    if whole and count != int(count):
        raise TrainingError(f"{name}: {unit}s are counted in whole numbers, not {count!r}")


@dataclass(frozen=True)
class Every:
    """After every `count` iterations, epochs or seconds.

    >>> Every(10, "iteration")
    Every(count=10, unit='iteration')
    """

    count: float = 1
    unit: str = "epoch"

    def __post_init__(self) -> None:
        _check("Every", self.count, self.unit)


@dataclass(frozen=True)
class After:
    """Once, when `count` iterations, epochs or seconds are over.

    >>> After("epoch", 3)
    After(unit='epoch', count=3)
    """

    unit: str
    count: float

    def __post_init__(self) -> None:
        _check("After", self.count, self.unit)


@dataclass(frozen=True)
class On:
    """When training starts, stops, is paused or resumed.

    >>> On("stop")
    On(event='stop')
    """

    event: str

    def __post_init__(self) -> None:
        if self.event not in EVENTS:
            raise TrainingError(f"On: the event is one of {', '.join(map(repr, EVENTS))}, not {self.event!r}")


Trigger = Every | After | On


class Clock:
    """When a trigger is due next: in iterations, in epochs or in seconds, whichever it counts."""

    __slots__ = ("due", "event", "once", "period", "unit")

    def __init__(self, trigger: Trigger, now: float):
        self.event = trigger.event if isinstance(trigger, On) else None
        self.unit = None if isinstance(trigger, On) else trigger.unit
        self.once = isinstance(trigger, After)
        self.period = 0.0 if isinstance(trigger, On) else trigger.count
        self.due = math.inf if isinstance(trigger, On) else self.first(now)

    def first(self, now: float) -> float:
        """The first count above `now` at which it is due: counts of the whole training, so that a resumed one agrees."""
        if self.once:
            return self.period if now < self.period else math.inf
        return (now // self.period + 1) * self.period

    def reached(self, now: float) -> bool:
        """True where the trigger is due; the next time is set."""
        if now < self.due:
            return False
        self.due = math.inf if self.once else self.first(now)
        return True
