"""What a training shows of itself while it runs."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import TrainingError
from .history import shown
from .hook import Hook
from .triggers import Every, Trigger

if TYPE_CHECKING:
    from .trainer import Trainer


class Lines(Hook):
    """One line for each epoch: its numbers, seconds, and iterations per second."""

    priority = -100  # last, when all numbers are there

    def __init__(self, trigger: Trigger | None = None, file: TextIO | None = None, **settings):
        super().__init__(trigger or Every(1, "epoch"), **settings)
        self.file = file
        self.start, self.before = 0.0, 0

    def begin(self, trainer: Trainer) -> None:
        """Look at the clock."""
        self.start, self.before = time.monotonic(), trainer.iteration

    def run(self, trainer: Trainer) -> None:
        """Print."""
        now, iterations = time.monotonic(), trainer.iteration - self.before
        row = trainer.history.rows[-1] if trainer.history.rows else {}
        seconds = now - self.start
        goal = trainer.goal.get("epoch")
        name = f"epoch {trainer.epoch}" + (f"/{goal}" if goal else "")
        numbers = [f"{k} {shown(v)}" for k, v in row.items() if k != "epoch"]
        pace = f"{seconds:.1f} s, {iterations / max(seconds, 1e-9):,.0f} iterations/s"
        print("  ".join([name, *numbers, pace]), file=self.file or sys.stdout, flush=True)
        self.start, self.before = now, trainer.iteration


class ProgressBar(Hook):
    """A bar for each epoch, by tqdm (extra "progress"): iterations, the loss, the time that is left."""

    def __init__(self, trigger: Trigger | None = None, file: TextIO | None = None, **settings):
        super().__init__(trigger or Every(0.1, "second"), **settings)
        try:
            from tqdm import tqdm  # type: ignore[import-untyped]
        except ImportError:
            raise TrainingError("ProgressBar needs tqdm: pip install 'tapegrad[progress]'") from None
        self.make, self.file = tqdm, file
        self.bar: Any = None
        self.first = 0

    def begin(self, trainer: Trainer) -> None:
        """No bar yet: it is made when the first epoch has begun."""
        self.bar, self.first = None, trainer.iteration

    def run(self, trainer: Trainer) -> None:
        """Move the bar."""
        total = trainer.batches
        if self.bar is None:
            self.bar = self.make(total=total, desc=f"epoch {trainer.epoch + 1}", file=self.file, unit="it", leave=False)
        done = trainer.iteration - self.first
        if total and done > total:
            self.bar.set_description(f"epoch {trainer.epoch + 1}")
            self.first += done - done % total
            done %= total
            self.bar.reset(total)
        self.bar.n = done
        self.bar.set_postfix(loss=shown(trainer.values.get("loss", float("nan"))), refresh=False)
        self.bar.refresh()

    def end(self, trainer: Trainer) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
