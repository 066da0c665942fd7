"""Hooks: small objects that a trainer runs at their time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .criteria import Criterion
from .triggers import Every, Trigger

if TYPE_CHECKING:
    from .trainer import Trainer


class Hook:
    """Something that a trainer does besides training. Define `run`.

    trigger: when it is due. criterion: run only where it holds then. priority: of several that are due at once, the highest
    goes first. background: `run` gets a `Snapshot` of the trainer and runs in a thread of its own, while training goes on;
    a hook that is still running when it is due again is passed over.

    >>> class Say(Hook):
    ...     trigger = Every(2, "iteration")
    ...     def run(self, trainer):
    ...         print(f"iteration {trainer.iteration}")
    """

    trigger: Trigger = Every(1, "epoch")
    criterion: Criterion | None = None
    priority: int = 0
    background: bool = False

    def __init__(
        self,
        trigger: Trigger | None = None,
        *,
        criterion: Criterion | None = None,
        priority: int | None = None,
        background: bool | None = None,
    ):
        if trigger is not None:
            self.trigger = trigger
        if criterion is not None:
            self.criterion = criterion
        if priority is not None:
            self.priority = priority
        if background is not None:
            self.background = background

    @property
    def name(self) -> str:
        """What it is called in errors, in saved states and in paths."""
        return type(self).__name__

    def begin(self, trainer: Trainer) -> None:
        """Called when training starts, before the first iteration."""

    def run(self, trainer: Trainer) -> None:
        """What the hook does when it is due."""

    def end(self, trainer: Trainer) -> None:
        """Called when training ends, also by an error."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, for checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""


class Call(Hook):
    """A function as a hook.

    >>> Call(print, Every(10, "iteration")).name
    'print'
    """

    def __init__(self, function, trigger: Trigger | None = None, **settings):
        super().__init__(trigger, **settings)
        self.function = function

    @property
    def name(self) -> str:
        """The function's name."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    def run(self, trainer: Trainer) -> None:
        """Call it with the trainer."""
        self.function(trainer)


class Snapshot:
    """What a hook in the background sees: the trainer as it was when the hook was due.

    state: the model's state dict, copied. values, iteration, epoch: as of then.
    """

    def __init__(self, trainer: Trainer):
        self.iteration, self.epoch = trainer.iteration, trainer.epoch
        self.values = dict(trainer.values)
        self.state = trainer.model.state_dict()
        self.history = trainer.history.copy()
