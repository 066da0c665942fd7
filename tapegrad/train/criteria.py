"""Conditions on values of a training, for hooks that run only where something holds.

A criterion is asked each time its hook is due, with the trainer's values by name, and remembers what it needs. `&`, `|` and `~`
combine criteria; each part is asked every time, so that none misses a value.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import TrainingError

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class Criterion:
    """The parent of all criteria: `holds(values)` says whether it does now."""

    def holds(self, values: Mapping[str, float]) -> bool:
        """Whether the condition holds, given the values."""
        raise TrainingError(f"{type(self).__name__} has no holds(values) method; define it")

    def state_dict(self) -> dict[str, Any]:
        """What it remembers."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember what a state says."""

    def __and__(self, other: Criterion) -> Criterion:
        return _Both(self, other)

    def __or__(self, other: Criterion) -> Criterion:
        return _Either(self, other)

    def __invert__(self) -> Criterion:
        return _Not(self)


def value_of(values: Mapping[str, float], name: str, who: str) -> float:
    """A value by name; TrainingError lists those that there are."""
    if name not in values:
        raise TrainingError(f"{who}: there is no value {name!r}; there are {', '.join(sorted(values)) or 'none yet'}")
    return float(values[name])


class Threshold(Criterion):
    """A value is below ("<"), at most ("<="), above (">") or at least (">=") a limit. A nan never is.

    >>> Threshold("loss", "<", 0.1).holds({"loss": 0.05})
    True
    """

    def __init__(self, name: str, comparison: str, limit: float):
        if comparison not in COMPARISONS:
            raise TrainingError(f"Threshold: the comparison is one of {', '.join(COMPARISONS)}, not {comparison!r}")
        self.name, self.comparison, self.limit = name, comparison, float(limit)

    def holds(self, values: Mapping[str, float]) -> bool:
        """Compare the value."""
        return COMPARISONS[self.comparison](value_of(values, self.name, "Threshold"), self.limit)

    def __repr__(self) -> str:
        return f"Threshold({self.name!r}, {self.comparison!r}, {self.limit})"


class Extremum(Criterion):
    """A value is the smallest ("min") or largest ("max") seen so far, by more than `margin`. The first number is.

    >>> best = Extremum("validation.loss")
    >>> [best.holds({"validation.loss": v}) for v in (3.0, 2.0, 2.5, 1.0)]
    [True, True, False, True]
    """

    def __init__(self, name: str, mode: str = "min", margin: float = 0.0):
        if mode not in ("min", "max"):
            raise TrainingError(f"Extremum: the mode is 'min' or 'max', not {mode!r}")
        if not margin >= 0.0:
            raise TrainingError(f"Extremum: the margin is a number from 0, not {margin!r}")
        self.name, self.mode, self.margin = name, mode, float(margin)
        self.best: float | None = None

    def holds(self, values: Mapping[str, float]) -> bool:
        """Compare the value with the best so far."""
        value = value_of(values, self.name, "Extremum")
        if math.isnan(value):
            return False
        if self.best is not None:
            gain = self.best - value if self.mode == "min" else value - self.best
            if not gain > self.margin:
                return False
        self.best = value
        return True

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.best = state["best"]

    def __repr__(self) -> str:
        return f"Extremum({self.name!r}, {self.mode!r})"


class Repeated(Criterion):
    """Another criterion held `count` times in a row.

    >>> c = Repeated(Threshold("loss", "<", 1.0), 2)
    >>> [c.holds({"loss": v}) for v in (0.5, 2.0, 0.5, 0.5)]
    [False, False, False, True]
    """

    def __init__(self, criterion: Criterion, count: int):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise TrainingError(f"Repeated: the count is a whole number from 1, not {count!r}")
        self.criterion, self.count, self.seen = criterion, count, 0

    def holds(self, values: Mapping[str, float]) -> bool:
        """Count the times."""
        self.seen = self.seen + 1 if self.criterion.holds(values) else 0
        return self.seen >= self.count

    def state_dict(self) -> dict[str, Any]:
        """The times so far, and what the other remembers."""
        return {"seen": self.seen, "criterion": self.criterion.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.seen = state["seen"]
        self.criterion.load_state_dict(state["criterion"])

    def __repr__(self) -> str:
        return f"Repeated({self.criterion!r}, {self.count})"


class _Combined(Criterion):
    """Several criteria in one."""

    sign = ""

    def __init__(self, *parts: Criterion):
        for part in parts:
            if not isinstance(part, Criterion):
                raise TrainingError(f"criteria are combined with criteria, not with a {type(part).__name__}")
        self.parts = parts

    def state_dict(self) -> dict[str, Any]:
        """What the parts remember."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for part, own in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(own)

    def __repr__(self) -> str:
        return f"({f' {self.sign} '.join(map(repr, self.parts))})"


class _Both(_Combined):
    sign = "&"

    def holds(self, values: Mapping[str, float]) -> bool:
        held = [part.holds(values) for part in self.parts]
        return all(held)


class _Either(_Combined):
    sign = "|"

    def holds(self, values: Mapping[str, float]) -> bool:
        held = [part.holds(values) for part in self.parts]
        return any(held)


class _Not(_Combined):
    def holds(self, values: Mapping[str, float]) -> bool:
        return not self.parts[0].holds(values)

    def __repr__(self) -> str:
        return f"~{self.parts[0]!r}"
