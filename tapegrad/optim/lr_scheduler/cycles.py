"""Schedules that go up and down, and take the momentum with them."""

from __future__ import annotations

import math

from ...errors import ShapeError
from ..optimizer import Optimizer
from .schedule import LRScheduler, whole


class _Cycled(LRScheduler):
    """Schedules that move the momentum the other way."""

    def momentum(self, step: int) -> float | None:
        """The momentum, or β1, after a step; None leaves it."""
        return None

    def _write(self) -> None:
        super()._write()
        value = self.momentum(self.last_epoch)
        if value is None:
            return
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (value, *group["betas"][1:])
            elif "momentum" in group:
                group["momentum"] = value
            else:
                raise ShapeError(
                    f"{type(self).__name__}: {type(self.optimizer).__name__} has no momentum to cycle; give cycle_momentum=False"
                )


class CyclicLR(_Cycled):
    """Triangles between base_lr and max_lr (Smith 2017). mode: "triangular", "triangular2" (halved each time) or "exp_range"."""

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float,
        max_lr: float,
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        cycle_momentum: bool = True,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
    ):
        if mode not in ("triangular", "triangular2", "exp_range"):
            raise ShapeError(f"CyclicLR: mode is 'triangular', 'triangular2' or 'exp_range', not {mode!r}")
        self.low, self.high, self.mode, self.gamma = float(base_lr), float(max_lr), mode, gamma
        self.up = whole(self, "step_size_up", step_size_up)
        self.down = self.up if step_size_down is None else whole(self, "step_size_down", step_size_down)
        self.momenta = (base_momentum, max_momentum) if cycle_momentum else None
        super().__init__(optimizer)

    def height(self, step: int) -> float:
        """Between 0 and 1: how far up the triangle."""
        total = self.up + self.down
        cycle, at = divmod(step, total)
        share = at / self.up if at <= self.up else (total - at) / self.down
        scale = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": self.gamma**step}[self.mode]
        return share * scale

    def value(self, base, step):
        """base_lr + (max_lr - base_lr) · height."""
        return self.low + (self.high - self.low) * self.height(step)

    def momentum(self, step):
        """The other way."""
        if self.momenta is None:
            return None
        low, high = self.momenta
        return high - (high - low) * self.height(step)


class OneCycleLR(_Cycled):
    """Up to max_lr and down to nearly nothing, once (Smith & Topin 2018). Arguments as in PyTorch.

    total_steps, or epochs and steps_per_epoch. anneal_strategy: "cos" or "linear". three_phase: as long down as up, then on down.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ):
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ShapeError("OneCycleLR: give total_steps, or epochs and steps_per_epoch")
            total_steps = whole(self, "epochs", epochs) * whole(self, "steps_per_epoch", steps_per_epoch)
        self.total = whole(self, "total_steps", total_steps)
        if not 0.0 <= pct_start <= 1.0:
            raise ShapeError(f"OneCycleLR: pct_start is a number from 0 to 1, not {pct_start!r}")
        if anneal_strategy not in ("cos", "linear"):
            raise ShapeError(f"OneCycleLR: anneal_strategy is 'cos' or 'linear', not {anneal_strategy!r}")
        self.cosine = anneal_strategy == "cos"
        start = max_lr / div_factor
        last, top = start / final_div_factor, float(max_lr)
        low, high = base_momentum, max_momentum
        self.cycles = cycle_momentum
        # (step at which the phase ends, rate at its start and end, momentum at its start and end)
        if three_phase:
            first = pct_start * self.total - 1.0
            second = 2.0 * pct_start * self.total - 2.0
            self.phases = [
                (first, start, top, high, low),
                (second, top, start, low, high),
                (self.total - 1.0, start, last, high, high),
            ]
        else:
            first = pct_start * self.total - 1.0
            self.phases = [(first, start, top, high, low), (self.total - 1.0, top, last, low, high)]
        super().__init__(optimizer)

    def _at(self, step: int, first: int) -> float:
        """A number of the phase that a step lies in: the rate (first = 1) or the momentum (first = 3)."""
        if step > self.total:
            raise ShapeError(f"OneCycleLR: step {step} of a cycle of {self.total}; make the cycle longer")
        begin = 0.0
        for number, phase in enumerate(self.phases):
            end = phase[0]
            if step <= end or number == len(self.phases) - 1:
                share = (step - begin) / (end - begin) if end != begin else 1.0
                a, b = phase[first], phase[first + 1]
                if self.cosine:
                    return b + (a - b) / 2.0 * (math.cos(math.pi * share) + 1.0)
                return (b - a) * share + a
            begin = end
        raise AssertionError("a cycle has a last phase")

    def value(self, base, step):
        """The rate of the phase."""
        return self._at(step, 1)

    def momentum(self, step):
        """The momentum of the phase."""
        return self._at(step, 3) if self.cycles else None
