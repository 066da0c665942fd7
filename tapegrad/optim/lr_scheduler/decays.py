"""Schedules that are one formula of the number of steps."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

from ..optimizer import Optimizer
from .schedule import LRScheduler, whole


class LambdaLR(LRScheduler):
    """base · function(step).

    >>> import tapegrad as tg
    >>> optimizer = tg.optim.SGD([tg.ones(1, requires_grad=True)], lr=0.5)
    >>> schedule = LambdaLR(optimizer, lambda step: 0.5**step)
    >>> schedule.step(); schedule.get_last_lr()
    [0.25]
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float]):
        self.lr_lambda = lr_lambda
        super().__init__(optimizer)

    def value(self, base, step):
        """base · function(step)."""
        return base * self.lr_lambda(step)


class StepLR(LRScheduler):
    """Times gamma after every step_size steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1):
        self.step_size, self.gamma = whole(self, "step_size", step_size), gamma
        super().__init__(optimizer)

    def value(self, base, step):
        """base · gamma^⌊step / step_size⌋."""
        return base * self.gamma ** (step // self.step_size)


class MultiStepLR(LRScheduler):
    """Times gamma at each of the milestones."""

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1):
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def value(self, base, step):
        """base · gamma^(milestones passed)."""
        return base * self.gamma ** bisect_right(self.milestones, step)


class ConstantLR(LRScheduler):
    """Times factor for the first total_iters steps."""

    def __init__(self, optimizer: Optimizer, factor: float = 1.0 / 3.0, total_iters: int = 5):
        self.factor, self.total_iters = factor, whole(self, "total_iters", total_iters, 0)
        super().__init__(optimizer)

    def value(self, base, step):
        """base · factor, then base."""
        return base * self.factor if step < self.total_iters else base


class LinearLR(LRScheduler):
    """A linear warm-up: from start_factor to end_factor in total_iters steps."""

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1.0 / 3.0, end_factor: float = 1.0, total_iters: int = 5
    ):
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = whole(self, "total_iters", total_iters)
        super().__init__(optimizer)

    def value(self, base, step):
        """base times what lies between the factors."""
        share = min(step, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * share)


class PolynomialLR(LRScheduler):
    """Down to 0 in total_iters steps, along a power."""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0):
        self.total_iters, self.power = whole(self, "total_iters", total_iters), power
        super().__init__(optimizer)

    def value(self, base, step):
        """base · (1 - step / total_iters)^power."""
        return base * (1.0 - min(step, self.total_iters) / self.total_iters) ** self.power


class ExponentialLR(LRScheduler):
    """Times gamma in every step."""

    def __init__(self, optimizer: Optimizer, gamma: float):
        self.gamma = gamma
        super().__init__(optimizer)

    def value(self, base, step):
        """base · gamma^step."""
        return base * self.gamma**step


class InverseTimeLR(LRScheduler):
    """base / (1 + decay · step / steps): what Keras calls InverseTimeDecay."""

    def __init__(self, optimizer: Optimizer, decay: float, steps: int = 1):
        self.decay, self.steps = decay, whole(self, "steps", steps)
        super().__init__(optimizer)

    def value(self, base, step):
        """base / (1 + decay · step / steps)."""
        return base / (1.0 + self.decay * step / self.steps)


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from base to eta_min in T_max steps, and back (Loshchilov & Hutter 2017, without restarts)."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0):
        self.T_max, self.eta_min = whole(self, "T_max", T_max), eta_min
        super().__init__(optimizer)

    def value(self, base, step):
        """eta_min + (base - eta_min) · (1 + cos(π step / T_max)) / 2."""
        return self.eta_min + (base - self.eta_min) * (1.0 + math.cos(math.pi * step / self.T_max)) / 2.0


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half cosines from base to eta_min, the first T_0 steps long and each T_mult times the one before (SGDR, 2017)."""

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0):
        self.T_0, self.T_mult, self.eta_min = whole(self, "T_0", T_0), whole(self, "T_mult", T_mult), eta_min
        super().__init__(optimizer)

    def value(self, base, step):
        """The cosine of the period that the step lies in."""
        length = self.T_0
        if self.T_mult == 1:
            step %= length
        while step >= length:
            step -= length
            length *= self.T_mult
        return self.eta_min + (base - self.eta_min) * (1.0 + math.cos(math.pi * step / length)) / 2.0
