"""The schedule that looks at a metric instead of counting steps."""

from __future__ import annotations

import math
from typing import Any

from ...errors import CheckpointError, ShapeError
from ..optimizer import Optimizer
from .schedule import whole


class ReduceLROnPlateau:
    """Times factor when a value has not improved for more than `patience` steps. Arguments as in PyTorch.

    >>> import tapegrad as tg
    >>> optimizer = tg.optim.SGD([tg.ones(1, requires_grad=True)], lr=0.5)
    >>> schedule = ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     schedule.step(loss)
    >>> optimizer.param_groups[0]["lr"]
    0.25
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ):
        if mode not in ("min", "max"):
            raise ShapeError(f"ReduceLROnPlateau: mode is 'min' or 'max', not {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ShapeError(f"ReduceLROnPlateau: threshold_mode is 'rel' or 'abs', not {threshold_mode!r}")
        if not 0.0 <= factor < 1.0:
            raise ShapeError(f"ReduceLROnPlateau: factor is a number from 0 to below 1, not {factor!r}")
        self.optimizer, self.mode, self.factor = optimizer, mode, factor
        self.patience, self.threshold, self.relative = (
            whole(self, "patience", patience, 0),
            threshold,
            threshold_mode == "rel",
        )
        self.cooldown, self.min_lr, self.eps = whole(self, "cooldown", cooldown, 0), min_lr, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.bad = self.cooling = self.last_epoch = 0

    def better(self, value: float) -> bool:
        """Whether the value beats the best by the threshold."""
        sign = 1.0 if self.mode == "min" else -1.0
        if self.relative:
            limit = self.best * (1.0 - sign * self.threshold)
        else:
            limit = self.best - sign * self.threshold
        return value < limit if self.mode == "min" else value > limit

    def step(self, metrics: Any) -> None:
        """Look at a value: a number, or a tensor of one element."""
        value = float(metrics.item() if hasattr(metrics, "item") else metrics)
        self.last_epoch += 1
        if self.better(value):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        if self.cooling > 0:
            self.cooling -= 1
            self.bad = 0
        if self.bad > self.patience:
            for group in self.optimizer.param_groups:
                lower = max(group["lr"] * self.factor, self.min_lr)
                if group["lr"] - lower > self.eps:
                    group["lr"] = float(lower)
            self.cooling, self.bad = self.cooldown, 0

    def get_last_lr(self) -> list[float]:
        """The rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What it needs to go on."""
        return {"best": self.best, "bad": self.bad, "cooling": self.cooling, "last_epoch": self.last_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        try:
            found = [state[name] for name in ("best", "bad", "cooling", "last_epoch")]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"ReduceLROnPlateau: this is no state of it: {error!r}") from None
        self.best, self.bad, self.cooling, self.last_epoch = found
