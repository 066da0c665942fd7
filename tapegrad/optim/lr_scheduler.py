"""Learning-rate schedules, named as in `torch.optim.lr_scheduler`.

    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
    for ...: optimizer.step(); scheduler.step()

A schedule writes `param_groups[i]["lr"]`. An optimizer reads that as a number in each step, so a schedule never makes a session
record anew. All but `ReduceLROnPlateau` are functions of the number of steps taken: `value(base, step)` gives the rate from the
one that a group had when the schedule was made.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import CheckpointError, ShapeError
from .optimizer import Optimizer


class LRScheduler:
    """The parent of schedules. A subclass defines `value(base, step)`; `step()` counts and writes.

    last_epoch: the number of steps taken, as PyTorch calls it. base_lrs: the groups' rates at the start.
    """

    def __init__(self, optimizer: Optimizer):
        if not isinstance(optimizer, Optimizer):
            raise ShapeError(f"{type(self).__name__}: wanted an optimizer, not a {type(optimizer).__name__}")
        self.optimizer = optimizer
        self.base_lrs = [float(group["lr"]) for group in optimizer.param_groups]
        self.last_epoch = 0
        self._write()

    def value(self, base: float, step: int) -> float:
        """The rate after `step` steps, of a group that began with `base`."""
        raise ShapeError(f"{type(self).__name__} has no value(base, step); define it")

    def step(self) -> None:
        """One step on."""
        self.last_epoch += 1
        self._write()

    def get_last_lr(self) -> list[float]:
        """The rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def _write(self) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = float(self.value(base, self.last_epoch))

    def state_dict(self) -> dict[str, Any]:
        """What it needs to go on: the optimizer keeps the rates, this the rest. The settings are there to be compared."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs), "settings": self._settings()}

    def _settings(self) -> dict[str, Any]:
        """The numbers and words that the schedule was made with."""
        kinds = (bool, int, float, str)
        return {name: v for name, v in vars(self).items() if type(v) in kinds and name != "last_epoch"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state. CheckpointError where it is that of a schedule with other settings, as of another length."""
        own, saved = self._settings(), state.get("settings") if isinstance(state, dict) else None
        if isinstance(saved, dict) and saved != own:
            names = [n for n in {**own, **saved} if own.get(n) != saved.get(n)]
            differing = ", ".join(f"{n} (saved {saved.get(n)!r}, here {own.get(n)!r})" for n in names)
            raise CheckpointError(
                f"{type(self).__name__}: the state is of a schedule with other settings: {differing}. Make it with the same ones, or go "
                "on without its state"
            )
        try:
            base, last = [float(b) for b in state["base_lrs"]], int(state["last_epoch"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{type(self).__name__}: this is no state of a schedule: {error!r}") from None
        if len(base) != len(self.base_lrs):
            raise CheckpointError(
                f"{type(self).__name__}: the state is of {len(base)} parameter groups, the optimizer has {len(self.base_lrs)}"
            )
        self.base_lrs, self.last_epoch = base, last
        self._write()


def _whole(schedule: Any, name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ShapeError(f"{type(schedule).__name__}: {name} is a whole number from {least}, not {value!r}")
    return value


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
        self.step_size, self.gamma = _whole(self, "step_size", step_size), gamma
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
        self.factor, self.total_iters = factor, _whole(self, "total_iters", total_iters, 0)
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
        self.total_iters = _whole(self, "total_iters", total_iters)
        super().__init__(optimizer)

    def value(self, base, step):
        """base times what lies between the factors."""
        share = min(step, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * share)


class PolynomialLR(LRScheduler):
    """Down to 0 in total_iters steps, along a power."""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0):
        self.total_iters, self.power = _whole(self, "total_iters", total_iters), power
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
        self.decay, self.steps = decay, _whole(self, "steps", steps)
        super().__init__(optimizer)

    def value(self, base, step):
        """base / (1 + decay · step / steps)."""
        return base / (1.0 + self.decay * step / self.steps)


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from base to eta_min in T_max steps, and back (Loshchilov & Hutter 2017, without restarts)."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0):
        self.T_max, self.eta_min = _whole(self, "T_max", T_max), eta_min
        super().__init__(optimizer)

    def value(self, base, step):
        """eta_min + (base - eta_min) · (1 + cos(π step / T_max)) / 2."""
        return self.eta_min + (base - self.eta_min) * (1.0 + math.cos(math.pi * step / self.T_max)) / 2.0


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half cosines from base to eta_min, the first T_0 steps long and each T_mult times the one before (SGDR, 2017)."""

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0):
        self.T_0, self.T_mult, self.eta_min = _whole(self, "T_0", T_0), _whole(self, "T_mult", T_mult), eta_min
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
        self.up = _whole(self, "step_size_up", step_size_up)
        self.down = self.up if step_size_down is None else _whole(self, "step_size_down", step_size_down)
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
            total_steps = _whole(self, "epochs", epochs) * _whole(self, "steps_per_epoch", steps_per_epoch)
        self.total = _whole(self, "total_steps", total_steps)
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


class ChainedScheduler(LRScheduler):
    """Several schedules, one upon the other: each goes on from the rate that those before it give."""

    def __init__(self, schedulers: Sequence[LRScheduler]):
        self.schedulers = _alike(self, schedulers)
        self.base_lrs = list(schedulers[0].base_lrs)
        self.optimizer = schedulers[0].optimizer
        self.last_epoch = 0
        self._write()

    def value(self, base, step):
        """Through all of them."""
        for schedule in self.schedulers:
            base = schedule.value(base, step)
        return base


class SequentialLR(LRScheduler):
    """Schedules one after the other: the next begins, with its own step 0, at each of the milestones."""

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]):
        self.schedulers = _alike(self, schedulers)
        if len(milestones) != len(self.schedulers) - 1:
            raise ShapeError(
                f"SequentialLR: {len(self.schedulers)} schedules have {len(self.schedulers) - 1} milestones between them, "
                f"not {len(milestones)}"
            )
        self.milestones = list(milestones)
        self.base_lrs = list(schedulers[0].base_lrs)
        self.optimizer = optimizer
        self.last_epoch = 0
        self._write()

    def value(self, base, step):
        """Of the schedule whose turn it is."""
        which = bisect_right(self.milestones, step)
        return self.schedulers[which].value(base, step - (self.milestones[which - 1] if which else 0))


def _alike(owner: Any, schedulers: Sequence[LRScheduler]) -> list[LRScheduler]:
    """Schedules of one optimizer."""
    listed = list(schedulers)
    if not listed or not all(isinstance(s, LRScheduler) for s in listed):
        raise ShapeError(f"{type(owner).__name__}: wanted schedules that are functions of the step")
    if any(s.optimizer is not listed[0].optimizer for s in listed):
        raise ShapeError(f"{type(owner).__name__}: the schedules belong to different optimizers")
    # each was made on the rate that the one before it had written: all start from that of the first
    for schedule in listed:
        schedule.base_lrs = list(listed[0].base_lrs)
    return listed


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
            _whole(self, "patience", patience, 0),
            threshold,
            threshold_mode == "rel",
        )
        self.cooldown, self.min_lr, self.eps = _whole(self, "cooldown", cooldown, 0), min_lr, eps
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
