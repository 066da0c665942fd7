"""What can be read and set by path while a trainer runs: `trainer.addresses["optimizer.lr"]`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import TrainingError
from ..paths import find, is_pattern
from ..tape.state import no_grad
from ..tape.tensor import Tensor

if TYPE_CHECKING:
    from .trainer import Trainer

PLAIN = (bool, int, float, str, tuple, type(None))


class Entry(NamedTuple):
    """How a value is read and written; `write` is None where it cannot be."""

    read: Callable[[], Any]
    write: Callable[[Any], None] | None = None


class Addresses:
    """The values of a trainer by path: `model.<parameter>`, `optimizer.<setting>` (of all groups), `optimizer.groups.0.<setting>`,
    `hooks.<name>.<attribute>`, `values.<name>`, `iteration`, `epoch`. A leading `trainer.` may be written.

    Paths may be patterns, see `tapegrad.paths`: reading gives a dict then, writing sets all. TrainingError, with near names,
    where nothing matches.

    >>> from tapegrad import nn, optim
    >>> from tapegrad.train import Trainer
    >>> model = nn.Linear(2, 1)
    >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), progress=False)
    >>> trainer.set("optimizer.lr", 0.05).iteration
    0
    >>> trainer.addresses["optimizer.lr"], sorted(trainer.addresses["model.*"])
    (0.05, ['model.bias', 'model.weight'])
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def entries(self) -> dict[str, Entry]:
        """All of them."""
        found = dict(self._model())
        found.update(self._optimizer())
        for hook in self.trainer.hooks:
            for name, value in vars(hook).items():
                if not name.startswith("_") and isinstance(value, PLAIN):
                    found[f"hooks.{hook.name}.{name}"] = _attribute(hook, name)
        trainer = self.trainer
        for name in trainer.values:
            found[f"values.{name}"] = Entry(partial(trainer.values.__getitem__, name))
        found["iteration"] = Entry(lambda: trainer.iteration)
        found["epoch"] = Entry(lambda: trainer.epoch)
        return found

    def _model(self) -> Iterator[tuple[str, Entry]]:
        model = self.trainer.model
        for name, t in (*model.named_parameters(), *model.named_buffers()):
            yield f"model.{name}", Entry(partial(_itself, t), partial(_copy, t))

    def _optimizer(self) -> Iterator[tuple[str, Entry]]:
        optimizer = self.trainer.optimizer
        groups = optimizer.param_groups
        every = list(range(len(groups)))
        for name in groups[0]:
            if name == "params":
                continue
            for k in every:
                read = partial(groups[k].__getitem__, name)
                yield f"optimizer.groups.{k}.{name}", Entry(read, partial(_setting, optimizer, [k], name))
            read = partial(groups[0].__getitem__, name)
            yield f"optimizer.{name}", Entry(read, partial(_setting, optimizer, every, name))

    def find(self, path: str) -> dict[str, Entry]:
        """The entries that a path names."""
        found = find(path.removeprefix("trainer."), self.entries())
        return dict(found)

    def __getitem__(self, path: str) -> Any:
        found = self.find(path)
        if is_pattern(path):
            return {name: entry.read() for name, entry in found.items()}
        (entry,) = found.values()
        return entry.read()

    def set(self, path: str, value: Any) -> list[str]:
        """Write a value to all that a path names; their names. Nothing is written where one of them cannot be."""
        found = self.find(path)
        fixed = [name for name, entry in found.items() if entry.write is None]
        if fixed:
            raise TrainingError(f"set: {', '.join(fixed)} can only be read")
        for entry in found.values():
            assert entry.write is not None
            entry.write(value)
        return list(found)

    def __setitem__(self, path: str, value: Any) -> None:
        self.set(path, value)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries())


def _itself(t: Tensor) -> Tensor:
    return t


def _attribute(owner: Any, name: str) -> Entry:
    return Entry(partial(getattr, owner, name), partial(setattr, owner, name))


def _copy(target: Tensor, value: Any) -> None:
    with no_grad():
        target.copy_(value)


def _setting(optimizer: Any, groups: list[int], name: str, value: Any) -> None:
    """Write a setting of an optimizer, after its own check."""
    for k in groups:
        optimizer.check({**optimizer.param_groups[k], name: value})
    for k in groups:
        optimizer.param_groups[k][name] = value
