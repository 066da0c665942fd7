"""What schedules have in common: the rates that they write, and how they are saved."""

from __future__ import annotations

from typing import Any

from ...errors import CheckpointError, ShapeError
from ..optimizer import Optimizer


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


def whole(schedule: Any, name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ShapeError(f"{type(schedule).__name__}: {name} is a whole number from {least}, not {value!r}")
    return value
