"""Evaluation on other data while training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .hook import Hook
from .triggers import Every, Trigger

if TYPE_CHECKING:
    from .trainer import Trainer


class Validation(Hook):
    """Evaluate on a loader: "validation.loss" and the trainer's metrics as "validation.…" among the values and in the history."""

    priority = 100  # others look at what it finds

    def __init__(self, loader: Iterable, trigger: Trigger | None = None, prefix: str = "validation", **settings):
        super().__init__(trigger or Every(1, "epoch"), **settings)
        self.loader, self.prefix = loader, prefix

    def run(self, trainer: Trainer) -> None:
        """Evaluate."""
        found = {f"{self.prefix}.{name}": value for name, value in trainer.evaluate(self.loader).items()}
        trainer.values.update(found)
        trainer.note(found)
