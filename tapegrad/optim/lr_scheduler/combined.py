"""Schedules made of others: side by side, and one after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from ...errors import ShapeError
from ..optimizer import Optimizer
from .schedule import LRScheduler


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
