"""Hooks that write down what happens: files of numbers, TensorBoard, a live plot, figures of the process and the model."""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TrainingError
from ..tape.create import memory_stats
from .hook import Hook
from .triggers import Every, Trigger

if TYPE_CHECKING:
    from .trainer import Trainer


def row_of(trainer: Trainer) -> dict[str, Any]:
    """The trainer's numbers of now."""
    return {"iteration": trainer.iteration, "epoch": trainer.epoch, **trainer.values}


class CSVLog(Hook):
    """Append the numbers to a CSV file, every epoch unless said. Its columns are those of the first row."""

    priority = -50

    def __init__(self, path: str | os.PathLike, trigger: Trigger | None = None, **settings):
        super().__init__(trigger or Every(1, "epoch"), **settings)
        self.path = Path(path)

    def run(self, trainer: Trainer) -> None:
        """Append a row; the file is complete up to it whenever it is looked at."""
        row = row_of(trainer)
        columns = list(row)
        if self.path.exists() and self.path.stat().st_size:
            with open(self.path, newline="", encoding="utf-8") as file:
                columns = next(csv.reader(file))
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore", restval="")
            if not file.tell():
                writer.writeheader()
            writer.writerow(row)


class JSONLog(Hook):
    """Append the numbers to a file of JSON lines, every epoch unless said. nan and infinities become null."""

    priority = -50

    def __init__(self, path: str | os.PathLike, trigger: Trigger | None = None, **settings):
        super().__init__(trigger or Every(1, "epoch"), **settings)
        self.path = Path(path)

    def run(self, trainer: Trainer) -> None:
        """Append a line."""
        row = {k: v if np.isfinite(v) else None for k, v in row_of(trainer).items()}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class TensorBoardLog(Hook):
    """Write the numbers for TensorBoard, every 50 iterations unless said (extra "tensorboard": tensorboardX)."""

    priority = -50

    def __init__(self, folder: str | os.PathLike, trigger: Trigger | None = None, **settings):
        super().__init__(trigger or Every(50, "iteration"), **settings)
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise TrainingError("TensorBoardLog needs tensorboardX: pip install 'tapegrad[tensorboard]'") from None
        self.folder, self.make = Path(folder), SummaryWriter
        self.writer: Any = None

    def run(self, trainer: Trainer) -> None:
        """Write one point for each number."""
        if self.writer is None:
            self.writer = self.make(str(self.folder))
        for name, value in trainer.values.items():
            self.writer.add_scalar(name.replace(".", "/"), value, trainer.iteration)

    def end(self, trainer: Trainer) -> None:
        """Write out what is waiting."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


class LivePlot(Hook):
    """Redraw a picture of the history after every epoch (extra "plot": matplotlib). With `path`, into that file; else a window."""

    priority = -60

    def __init__(
        self,
        path: str | os.PathLike | None = None,
        names: tuple[str, ...] = (),
        trigger: Trigger | None = None,
        **settings,
    ):
        super().__init__(trigger or Every(1, "epoch"), **settings)
        try:
            from matplotlib import pyplot as plt
        except ImportError:
            raise TrainingError("LivePlot needs matplotlib: pip install 'tapegrad[plot]'") from None
        self.plt, self.path, self.names = plt, path, names
        self.figure: Any = None

    def run(self, trainer: Trainer) -> None:
        """Draw all columns of the history, or those named, over the epochs."""
        if self.figure is None:
            self.figure = self.plt.figure(figsize=(7, 4), layout="constrained")
        self.figure.clear()
        axes = self.figure.add_subplot()
        epochs = trainer.history["epoch"]
        for name in self.names or [c for c in trainer.history.columns if c != "epoch"]:
            values = trainer.history[name]
            axes.plot(epochs[-len(values) :], values, marker=".", label=name)
        axes.set_xlabel("epoch")
        axes.legend()
        if self.path is not None:
            self.figure.savefig(self.path, dpi=120)
        else:
            self.plt.pause(0.001)

    def end(self, trainer: Trainer) -> None:
        """The picture stays; its figure is closed where it went to a file."""
        if self.figure is not None and self.path is not None:
            self.plt.close(self.figure)
            self.figure = None


class Pace(Hook):
    """Seconds of training, and iterations per second since the last time, as "seconds" and "iterations_per_second"."""

    priority = 60

    def __init__(self, trigger: Trigger | None = None, **settings):
        super().__init__(trigger or Every(1, "epoch"), **settings)
        self.spent = self.start = 0.0
        self.before = 0

    def begin(self, trainer: Trainer) -> None:
        """Look at the clock."""
        self.start, self.before = time.monotonic(), trainer.iteration

    def run(self, trainer: Trainer) -> None:
        """Note both."""
        now = time.monotonic()
        passed, iterations = now - self.start, trainer.iteration - self.before
        self.spent += passed
        self.start, self.before = now, trainer.iteration
        trainer.values.update({"seconds": self.spent, "iterations_per_second": iterations / max(passed, 1e-9)})

    def state_dict(self) -> dict[str, Any]:
        """The seconds so far."""
        return {"spent": self.spent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self.spent = state["spent"]


class Resources(Hook):
    """Figures of the process: "memory.tensors" (bytes in use), "memory.peak" (of the process), "cpu.seconds"."""

    priority = 60

    def run(self, trainer: Trainer) -> None:
        """Note them."""
        stats = memory_stats()
        found = {"memory.tensors": float(stats["reserved"] - stats["free"]), "cpu.seconds": time.process_time()}
        try:
            import resource
        except ImportError:  # Windows
            pass
        else:
            unit = 1 if sys.platform == "darwin" else 1024
            found["memory.peak"] = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
        trainer.values.update(found)


class Statistics(Hook):
    """Of every parameter and its gradient the mean, the standard deviation and the largest absolute value.

    Among the values as "statistics.<path>.mean" and so on; gradients as "statistics.<path>.grad.mean".
    """

    priority = 60

    def __init__(self, trigger: Trigger | None = None, pattern: str = "**", **settings):
        super().__init__(trigger or Every(1, "epoch"), **settings)
        self.pattern = pattern

    def run(self, trainer: Trainer) -> None:
        """Compute them in float64."""
        from ..paths import find

        for path, p in find(self.pattern, dict(trainer.model.named_parameters())).items():
            self._note(trainer, f"statistics.{path}", p.numpy())
            if p.grad is not None:
                self._note(trainer, f"statistics.{path}.grad", p.grad.numpy())

    @staticmethod
    def _note(trainer: Trainer, name: str, a: np.ndarray) -> None:
        wide = a.astype(np.float64)
        trainer.values.update(
            {
                f"{name}.mean": float(wide.mean()),
                f"{name}.std": float(wide.std()),
                f"{name}.max": float(np.abs(wide).max()),
            }
        )
