"""What is done to parameters after a step: limits and factors, by pattern. Call them like `modifier(model)`."""

from __future__ import annotations

from typing import Any

from ..errors import ShapeError
from ..ops.elementwise import clip, maximum, sqrt, square
from ..ops.reduce import sum_
from ..paths import find
from ..tape.state import no_grad
from ..tape.tensor import Tensor


class Modifier:
    """The parent: `changed(p)` gives what a parameter becomes."""

    def __init__(self, pattern: str = "**"):
        self.pattern = pattern
        self._found: tuple[Any, list[Tensor]] | None = None

    def changed(self, p: Tensor) -> Tensor:
        """The new value of a parameter."""
        raise ShapeError(f"{type(self).__name__} has no changed(p); define it")

    def __call__(self, model: Any) -> None:
        """Change the parameters that the pattern names."""
        if self._found is None or self._found[0] is not model:
            self._found = model, list(find(self.pattern, dict(model.named_parameters())).values())
        with no_grad():
            for p in self._found[1]:
                p.copy_(self.changed(p.detach()))


class Clip(Modifier):
    """Elements between two limits.

    >>> from tapegrad import nn
    >>> model = nn.Linear(2, 2)
    >>> Clip(-0.25, 0.25, "weight")(model)
    >>> model.weight.abs().max().item() <= 0.25
    True
    """

    def __init__(self, low: float, high: float, pattern: str = "**"):
        super().__init__(pattern)
        if not low <= high:
            raise ShapeError(f"Clip: the limits are {low!r} and {high!r}; the first is to be the smaller")
        self.low, self.high = low, high

    def changed(self, p):
        """Clipped."""
        return clip(p, self.low, self.high)


class Scale(Modifier):
    """Times a factor."""

    def __init__(self, factor: float, pattern: str = "**"):
        super().__init__(pattern)
        self.factor = factor

    def changed(self, p):
        """Multiplied."""
        return p * self.factor


class MaxNorm(Modifier):
    """The incoming weights of each unit, a row of a weight (out, in, ...), have a norm of at most `limit` (Srebro & Shraibman 2005)."""

    def __init__(self, limit: float, pattern: str = "**"):
        super().__init__(pattern)
        if not limit > 0.0:
            raise ShapeError(f"MaxNorm: the limit is a number above 0, not {limit!r}")
        self.limit = limit

    def changed(self, p):
        """Rows that are too long, shortened."""
        axes = tuple(range(1, p.ndim)) or (0,)
        norm = sqrt(sum_(square(p), axes, True))
        return p * (self.limit / maximum(norm, self.limit))
