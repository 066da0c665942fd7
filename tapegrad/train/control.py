"""Hooks that steer a training: stop it, save it, guard it, set its learning rate."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import TrainingError
from .criteria import Criterion, Extremum
from .hook import Hook
from .triggers import Every, Trigger

if TYPE_CHECKING:
    from .trainer import Trainer


class StopOn(Hook):
    """Stop the training where a criterion holds.

    >>> from tapegrad.train import Threshold
    >>> StopOn(Threshold("validation.loss", "<", 0.1)).criterion
    Threshold('validation.loss', '<', 0.1)
    """

    def __init__(self, criterion: Criterion, trigger: Trigger | None = None, **settings):
        super().__init__(trigger or Every(1, "epoch"), criterion=criterion, **settings)

    def run(self, trainer: Trainer) -> None:
        """Stop."""
        trainer.stop()

    def state_dict(self) -> dict[str, Any]:
        """What the criterion remembers."""
        assert self.criterion is not None
        return self.criterion.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        assert self.criterion is not None
        self.criterion.load_state_dict(state)


class EarlyStopping(Hook):
    """Stop when a value has not improved for `patience` epochs (or triggers); the best weights are put back.

    value: by name, "validation.loss" unless said. margin: what counts as better. restore: put the best weights back at the end.
    """

    def __init__(
        self,
        value: str = "validation.loss",
        patience: int = 5,
        mode: str = "min",
        margin: float = 0.0,
        restore: bool = True,
        trigger: Trigger | None = None,
        **settings,
    ):
        super().__init__(trigger or Every(1, "epoch"), **settings)
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise TrainingError(f"EarlyStopping: patience is a whole number from 1, not {patience!r}")
        self.better = Extremum(value, mode, margin)
        self.patience, self.restore = patience, restore
        self.waited = 0
        self.best: dict[str, Any] | None = None

    def run(self, trainer: Trainer) -> None:
        """Look at the value."""
        if self.better.holds(trainer.values):
            self.waited = 0
            if self.restore:
                self.best = trainer.model.state_dict()
            return
        self.waited += 1
        if self.waited >= self.patience:
            trainer.stop()

    def end(self, trainer: Trainer) -> None:
        """Put the best weights back, where the training was stopped for want of improvement."""
        if self.waited >= self.patience and self.best is not None:
            trainer.model.load_state_dict(self.best)

    def state_dict(self) -> dict[str, Any]:
        """The best value and weights, and the epochs since."""
        return {"better": self.better.state_dict(), "waited": self.waited, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.better.load_state_dict(state["better"])
        self.waited, self.best = state["waited"], state["best"]


class Checkpoint(Hook):
    """Save the training: the last `keep` checkpoints, and with `best` the one with the best value beside them.

    folder: of checkpoints (`trainer.load(folder)` takes the last one); the best ones go to folder/best. best: the name of a value.
    only: parts to save, such as ("model",); all unless said.
    """

    priority = -10  # what other hooks of this moment did is saved along

    def __init__(
        self,
        folder: str | os.PathLike,
        trigger: Trigger | None = None,
        *,
        keep: int | None = 1,
        best: str | None = None,
        mode: str = "min",
        only: tuple[str, ...] = (),
        **settings,
    ):
        super().__init__(trigger or Every(1, "epoch"), **settings)
        if keep is not None and (isinstance(keep, bool) or not isinstance(keep, int) or keep < 1):
            raise TrainingError(f"Checkpoint: keep is a whole number from 1, or None for all, not {keep!r}")
        self.folder, self.keep, self.only = Path(folder), keep, only
        self.better = Extremum(best, mode) if best is not None else None
        if self.background:
            raise TrainingError("Checkpoint: a checkpoint is of one moment; it cannot be written in the background")

    def run(self, trainer: Trainer) -> None:
        """Save."""
        is_best = self.better is not None and self.better.holds(trainer.values)
        trainer.save(self.folder, self.only, self.keep)
        if is_best:
            trainer.save(self.folder / "best", self.only, 1)

    def state_dict(self) -> dict[str, Any]:
        """The best value."""
        return self.better.state_dict() if self.better is not None else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        if self.better is not None:
            self.better.load_state_dict(state)


class NaNGuard(Hook):
    """Stop with an error where a loss is nan or infinite; it names the first such iteration.

    Losses are looked at in groups, 50 iterations long unless said, since each look waits for the results.
    """

    priority = 50

    def __init__(self, trigger: Trigger | None = None, **settings):
        super().__init__(trigger or Every(50, "iteration"), **settings)
        self.seen = 0

    def begin(self, trainer: Trainer) -> None:
        """Losses before are not looked at."""
        trainer.read_losses()
        self.seen = len(trainer.epoch_losses)

    def run(self, trainer: Trainer) -> None:
        """Look at the losses since the last time."""
        trainer.read_losses()
        losses = trainer.epoch_losses
        if self.seen > len(losses):
            self.seen = 0  # of an epoch that is over
        for place in range(self.seen, len(losses)):
            if not math.isfinite(losses[place]):
                iteration = trainer.iteration - len(losses) + place + 1
                raise TrainingError(
                    f"the loss of iteration {iteration} is {losses[place]}; look at its batch and learning rate, or find the op "
                    "with tg.detect_anomaly()"
                )
        self.seen = len(losses)


class Schedule(Hook):
    """Step a learning-rate schedule of `tapegrad.optim`, after every epoch unless said.

    scheduler: has step(), or step(value) where `value` names the one that it watches; state_dict and load_state_dict.
    """

    priority = 20

    def __init__(self, scheduler: Any, trigger: Trigger | None = None, value: str | None = None, **settings):
        super().__init__(trigger or Every(1, "epoch"), **settings)
        self.scheduler, self.value = scheduler, value

    def run(self, trainer: Trainer) -> None:
        """Step."""
        if self.value is None:
            self.scheduler.step()
            return
        if self.value not in trainer.values:
            raise TrainingError(f"Schedule: there is no value {self.value!r}; there are {', '.join(trainer.values)}")
        self.scheduler.step(trainer.values[self.value])

    def state_dict(self) -> dict[str, Any]:
        """The schedule's."""
        return self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.scheduler.load_state_dict(state)
