"""Whole training steps: batch from NumPy, forward, backward, optimizer. And the memory they take."""

from __future__ import annotations

import tapegrad as tg
from tapegrad import optim

from .workloads import TRAININGS


class Step:
    """A step once everything is compiled and the buffers exist."""

    params = tuple(TRAININGS)
    param_names = ("network",)

    def setup(self, network):
        self.step = TRAININGS[network]()
        for _ in range(3):
            self.step()

    def time_step(self, network):
        self.step()

    def time_forward(self, network):
        self.step.loss()

    def peakmem_step(self, network):
        self.step()

    def track_blocks_made_by_a_steady_step(self, network):
        """How often the pool asks the system for memory, which a step like the one before should never need."""
        before = tg.memory_stats()["allocations"]
        self.step()
        return tg.memory_stats()["allocations"] - before

    track_blocks_made_by_a_steady_step.unit = "blocks"  # type: ignore[attr-defined]


class Optimizer:
    """Adam on a million parameters whose gradients are there: bound by memory, 28 bytes a parameter."""

    def setup(self):
        self.p = tg.zeros((1 << 20,), requires_grad=True)
        self.p.grad = tg.ones((1 << 20,))
        self.optimizer = optim.Adam([self.p])
        self.optimizer.step()

    def time_adam_million(self):
        self.optimizer.step()
