"""Iterations replayed in sessions: their times, and figures that are exact, so that any change of them is a change."""

from __future__ import annotations

import itertools

import numpy as np

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import nn, optim

from .tasks import TASKS
from .tasks_tapegrad import build, figures

WARM = 20  # iterations before anything is measured
REPLAYED = tuple(name for name in TASKS if not (name.startswith("chain") and "y + w" in name))  # y * w stands for both
PLANNED = tuple(name for name in REPLAYED if not name.startswith("chain") or "tanh" in name)


def warm(task: str):
    """The task after some iterations, planned, its caches filled."""
    made = build(TASKS[task])
    for _ in range(WARM):
        made.step()
    return made


class Replay:
    """One iteration of each task of the comparison with other libraries."""

    params = REPLAYED
    param_names = ("task",)

    def setup(self, task):
        self.step = warm(task).step

    def time_step(self, task):
        self.step()


class Eager:
    """The same iteration without a session, for what a session brings."""

    params = PLANNED
    param_names = ("task",)

    def setup(self, task):
        self.step = build(TASKS[task], session=False).step
        self.step()

    def time_step(self, task):
        self.step()


class FirstSteps:
    """From a new model to its first planned replay; the kernels are compiled."""

    params = ("MLP 8-16-16-1, batch 16, Adam", "MLP 64-256-256-1, batch 128, Adam")
    param_names = ("task",)
    number = 1
    warmup_time = 0.0

    def setup(self, task):
        warm(task)
        self.made = build(TASKS[task])

    def time_until_planned(self, task):
        for _ in range(WARM):
            self.made.step()
            if self.made.ready():
                return
        raise RuntimeError(f"{task}: not planned after {WARM} iterations")


class FreshBatches:
    """The smallest of the models, MLP 8-16-16-1 with a batch of 16 and Adam, given two NumPy arrays that it has not seen."""

    def setup(self):
        rng = np.random.default_rng(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
        optimizer, session = optim.Adam(model.parameters()), tg.Session()
        inputs, targets = rng.normal(size=(2, 64, 16, 8)).astype(np.float32)
        batches = itertools.cycle([(x, t[:, :1].copy()) for x, t in zip(inputs, targets, strict=True)])

        def step():
            x, t = next(batches)
            with session:
                loss = F.mse_loss(model(tg.tensor(x)), tg.tensor(t))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            return loss

        self.step = step
        for _ in range(WARM):
            step()

    def time_step(self):
        self.step()


class Exact:
    """The session's figures after 20 iterations, and in 20 more."""

    params = PLANNED
    param_names = ("task",)

    def setup_cache(self):
        """Figures of every task."""
        return {task: figures(warm(task), WARM) for task in PLANNED}

    setup_cache.timeout = 600  # type: ignore[attr-defined]

    def track_rows(self, found, task):
        return found[task]["rows"]

    def track_kernels_per_step(self, found, task):
        return found[task]["kernels"]

    def track_rows_in_fused_kernels(self, found, task):
        return found[task]["fused_rows"]

    def track_planned_bytes(self, found, task):
        return found[task]["planned_bytes"]

    def track_planned_share_of_unplanned_bytes(self, found, task):
        return found[task]["planned_bytes"] / max(found[task]["unplanned_bytes"], 1)

    def track_recordings(self, found, task):
        """Iterations of 40 that recorded: the first, and at most one more."""
        return found[task]["recordings"]

    def track_variants(self, found, task):
        return found[task]["variants"]

    def track_blocks_made_by_a_steady_iteration(self, found, task):
        """Blocks that the pool asks the system for, which should be none."""
        return found[task]["blocks"] / WARM

    track_planned_bytes.unit = "bytes"  # type: ignore[attr-defined]
    track_recordings.unit = "iterations"  # type: ignore[attr-defined]
    track_blocks_made_by_a_steady_iteration.unit = "blocks"  # type: ignore[attr-defined]
