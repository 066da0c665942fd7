"""Averages of parameters over the steps of a training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import CheckpointError, ShapeError
from ..tape.state import no_grad
from ..tape.tensor import Tensor


class ExponentialMovingAverage:
    """Of each parameter the mean over steps, each step counting 1 - decay (Polyak & Juditsky 1992, exponentially forgetting).

    `update()` after each optimizer step, also within a session; `with average.applied():` the parameters are the averages.
    warm_up: take min(decay, (1 + n) / (10 + n)) in step n, so that the start is forgotten soon.

    >>> import tapegrad as tg
    >>> w = tg.tensor([0.0], requires_grad=True)
    >>> average = ExponentialMovingAverage([w], decay=0.5)
    >>> with tg.no_grad():
    ...     _ = w.copy_(tg.tensor([1.0]))
    >>> average.update()
    >>> with average.applied():
    ...     w.item()
    0.5
    """

    def __init__(self, params: Iterable[Tensor], decay: float = 0.999, warm_up: bool = False):
        if not 0.0 <= decay < 1.0:
            raise ShapeError(f"ExponentialMovingAverage: decay is a number from 0 to below 1, not {decay!r}")
        self.params = list(params)
        if not self.params:
            raise ShapeError(
                "ExponentialMovingAverage: no parameters were given; was model.parameters() already used up?"
            )
        self.decay, self.warm_up, self.steps = float(decay), bool(warm_up), 0
        self.averages = [p.detach().copy() for p in self.params]

    def update(self) -> None:
        """Take in the parameters as they are now."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.warm_up else self.decay
        with no_grad():
            for average, p in zip(self.averages, self.params, strict=True):
                average.copy_(average + (1.0 - decay) * (p.detach() - average))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the parameters are the averages; after it, what they were."""
        with no_grad():
            kept = [p.detach().copy() for p in self.params]
            for p, average in zip(self.params, self.averages, strict=True):
                p.copy_(average)
        try:
            yield
        finally:
            with no_grad():
                for p, value in zip(self.params, kept, strict=True):
                    p.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """The averages and the number of steps."""
        return {"steps": self.steps, "averages": [a.copy() for a in self.averages]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        try:
            steps, averages = int(state["steps"]), list(state["averages"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"ExponentialMovingAverage: this is no state of it: {error!r}") from None
        if [a.shape for a in averages] != [a.shape for a in self.averages]:
            raise CheckpointError("ExponentialMovingAverage: the state is of parameters of other shapes")
        self.steps = steps
        with no_grad():
            for mine, saved in zip(self.averages, averages, strict=True):
                mine.copy_(saved)
