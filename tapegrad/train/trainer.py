"""The trainer: a loop over batches in a session, with hooks, commands and checkpoints."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, TapegradError, TrainingError
from ..nn.module import Module
from ..nn.utils import clip_grad_norm_
from ..ops.random import get_seed_state, seed, set_seed_state
from ..optim.averaging import ExponentialMovingAverage
from ..optim.grad_scaler import GradScaler
from ..optim.optimizer import Optimizer
from ..precision import autocast as lowered
from ..tape.session import Session
from ..tape.state import no_grad
from ..tape.tensor import Tensor
from . import checkpoint
from .addresses import Addresses
from .batches import array_of, as_tensor, mean, parts_of
from .commands import Queue, Receipt, trains
from .history import History
from .hook import Hook
from .metrics import Metric, as_metrics
from .progress import Lines
from .running import Running
from .validation import Validation

FLUSH = 256  # losses that are held as tensors before they are read
EXTRAS = ("preprocessing", "average", "grad_scaler")  # what a trainer may have that is saved along


class Trainer:
    """Trains a model: `fit` walks a loader, each iteration in a session.

    loss: a function or module of (output, target) -> a 0-d tensor. metrics: names, functions or `Metric`s that validation
    computes. hooks: what is done besides, see `Hook`. seed: fixes the random numbers of this thread. progress: print a line
    for each epoch. preprocessing: anything with state_dict and load_state_dict that is to be saved along. clip_grad_norm: scale
    the gradients of a step down to this norm. after_step: called with the model after each step, such as `optim.MaxNorm(3.0)`.
    average: updated after each step, and saved along. autocast: "bfloat16" or "float16", for `tg.autocast` around the model and the
    loss, in evaluation too. grad_scaler: an `optim.GradScaler`, which float16 wants; saved along.

    A batch is (input, target), a tuple whose last part is the target and whose others are inputs, or a dict with "inputs" and
    "targets". For anything else define `loss_of(batch)` in a subclass: the whole of what is differentiated.

    values: the latest numbers by name: "loss" (the last one read), "epoch.loss" (the mean since the epoch began),
    "validation.…". iteration, epoch: how many are over.

    >>> import numpy as np
    >>> import tapegrad as tg
    >>> from tapegrad import data, nn, optim
    >>> tg.seed(0)
    >>> x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    >>> model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> trainer = Trainer(model, nn.MSELoss(), optim.Adam(model.parameters(), lr=0.05), progress=False, seed=0)
    >>> history = trainer.fit(data.DataLoader((x, x**2), batch_size=16, shuffle=True, seed=0), epochs=20)
    >>> history["loss"][-1] < 0.01
    True
    """

    def __init__(
        self,
        model: Module,
        loss: Callable[..., Tensor],
        optimizer: Optimizer,
        *,
        metrics: Any = (),
        hooks: Iterable[Hook] = (),
        seed: int | None = None,
        progress: bool = True,
        preprocessing: Any = None,
        clip_grad_norm: float | None = None,
        after_step: Iterable[Callable[[Module], Any]] = (),
        average: ExponentialMovingAverage | None = None,
        autocast: Any = None,
        grad_scaler: GradScaler | None = None,
    ):
        self.model, self.loss, self.optimizer = model, loss, optimizer
        if clip_grad_norm is not None and not clip_grad_norm > 0:
            raise TrainingError(f"Trainer: clip_grad_norm is a number above 0, not {clip_grad_norm!r}")
        self.clip_grad_norm, self.after_step, self.average = clip_grad_norm, tuple(after_step), average
        self.grad_scaler = grad_scaler
        self._casting: Any = nullcontext() if autocast is None else lowered(autocast)
        self.metrics: dict[str, Metric] = as_metrics(metrics)
        self.preprocessing = preprocessing
        self.iteration = self.epoch = 0
        self.goal: dict[str, int] = {}  # where fit is to end: by "epoch", by "iteration"
        self.history = History()
        self.session, self._watching = Session(), Session()
        self.epoch_losses = array("d")  # of the epoch so far, as far as they were read
        self.hooks: list[Hook] = [*hooks]
        self._numbers: dict[str, float] = {}
        self._losses: list[Tensor] = []
        self._commands = Queue()
        self._running: Running | None = None
        self._position: dict[str, Any] | None = None  # where the loader stood when the training ended
        self._left: Any = None  # that loader
        self._loaded = False  # the position is that of a checkpoint
        self._stopping = self._paused = self._single = False
        self._seed = seed
        self.addresses = Addresses(self)
        for hook in self.hooks:
            if not isinstance(hook, Hook):
                wrapper = "Schedule" if hasattr(hook, "get_last_lr") or hasattr(hook, "step") else "Call"
                raise TrainingError(
                    f"Trainer: hooks are Hook objects, not a {type(hook).__name__}; wrap it in train.{wrapper}"
                )
        if progress:
            self.hooks.append(Lines())
        if seed is not None:
            self._start_seed(seed)

    def _start_seed(self, value: int) -> None:
        seed(value)

    # what is trained

    @property
    def device(self) -> str:
        """Where batches go: to the optimizer's first parameter, which is where the model is."""
        return self.optimizer.param_groups[0]["params"][0].layout.device

    def loss_of(self, batch: Any) -> Tensor:
        """The loss of a batch: what an iteration differentiates. A subclass may define its own."""
        inputs, targets = parts_of(batch, self.device)
        return self.loss(self.model(*inputs), targets)

    def iterate(self, batch: Any) -> Tensor:
        """One iteration: loss, gradients, step, in the session."""
        with self.session:
            with self._casting:
                loss = self.loss_of(batch)
            self.optimizer.zero_grad()
            scaler = self.grad_scaler
            if scaler is None:
                loss.backward()
                self._clip()
                self.optimizer.step()
            else:
                scaler.scale(loss).backward()
                if self.clip_grad_norm is not None:
                    scaler.unscale_(self.optimizer)
                    self._clip()
                scaler.step(self.optimizer)
                scaler.update()
            for change in self.after_step:
                change(self.model)
            if self.average is not None:
                self.average.update()
        return loss

    def _clip(self) -> None:
        if self.clip_grad_norm is not None:
            clip_grad_norm_(self._trained, self.clip_grad_norm)

    @property
    def _trained(self) -> list[Tensor]:
        """The optimizer's parameters."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def fit(
        self,
        loader: Iterable,
        epochs: int | None = None,
        *,
        iterations: int | None = None,
        validation: Iterable | None = None,
    ) -> History:
        """Train for so many more epochs or iterations, whichever ends first; without either, to where a loaded trainer was to go.

        loader: yields batches, anew for each epoch. validation: a loader that is evaluated after each epoch. A training that
        stopped within an epoch goes on there, if the loader has `state_dict`, as `data.DataLoader` does.
        """
        self._aim(epochs, iterations)
        if self._running is not None:
            raise TrainingError("fit: this trainer is training already, in another thread or around this call")
        hooks = [*self.hooks]
        if validation is not None:
            hooks.append(Validation(validation))
        self._go_on(loader)
        self._stopping = False
        self._running = running = Running(self, hooks, loader)
        try:
            with trains():
                try:
                    running.begin()
                    self._epochs(loader, running)
                finally:
                    running.end()
        finally:
            self._running = None
            self._commands.refuse("the training ended before")
        return self.history

    def _go_on(self, loader: Iterable) -> None:
        """Bring the loader to where the training stopped, if it is the one that was used then, or stands for it in a new process."""
        position = self._position
        if position is None or not (self._loaded or self._left is loader):
            return
        restore = getattr(loader, "load_state_dict", None)
        if restore is None:
            raise TrainingError(
                f"fit: the training goes on where a loader stopped, and a {type(loader).__name__} has no load_state_dict to go "
                "on there; use data.DataLoader"
            )
        restore(position)
        self._loaded = False

    def _aim(self, epochs: int | None, iterations: int | None) -> None:
        """Set where to end."""
        for name, count in (("epochs", epochs), ("iterations", iterations)):
            if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
                raise TrainingError(f"fit: {name} is a whole number from 0, not {count!r}")
        if epochs is not None or iterations is not None:
            self.goal = {}
            if epochs is not None:
                self.goal["epoch"] = self.epoch + epochs
            if iterations is not None:
                self.goal["iteration"] = self.iteration + iterations
        elif not self.goal:
            raise TrainingError("fit: say how long, as in fit(loader, epochs=3)")

    def _over(self) -> bool:
        goal = self.goal
        return (
            self._stopping
            or self.epoch >= goal.get("epoch", math.inf)
            or self.iteration >= goal.get("iteration", math.inf)
        )

    def _epochs(self, loader: Iterable, running: Running) -> None:
        while not self._over():
            batches = iter(loader)
            before = self.iteration
            try:
                complete = self._epoch(batches, running)
            except BaseException:
                self._leave(loader, batches)
                raise
            if not complete:
                self._leave(loader, batches)
                return
            if self.iteration == before and not (self._losses or self.epoch_losses):  # it may have had its last batch
                raise TrainingError("fit: the loader gave no batch; is it an iterator that is used up, or empty?")
            self.epoch += 1
            self._leave(loader, batches)
            self._epoch_over(running)

    def _epoch(self, batches: Iterator, running: Running) -> bool:
        """The iterations of an epoch, or of what is left of it; False where the training ends within."""
        last = self.goal.get("iteration", math.inf)
        for batch in batches:
            try:
                loss = self.iterate(batch)
            except TapegradError as error:
                error.add_note(f"in iteration {self.iteration + 1}, epoch {self.epoch + 1}")
                raise
            self._losses.append(loss)
            self.iteration += 1
            if self._commands or self._paused:
                running.obey()
            if self.iteration >= running.due or running.timed:
                running.iteration_over()
            if len(self._losses) >= FLUSH:
                self.read_losses()
            if self._stopping or self.iteration >= last:
                over = len(self.epoch_losses) + len(self._losses) == running.batches()
                if over:
                    next(batches, None)  # by which the loader knows, too
                return over
        return True

    def _leave(self, loader: Iterable, batches: Iterator) -> None:
        """Note where the loader stands."""
        self._left = loader
        state = getattr(loader, "state_dict", None)
        self._position = state() if state is not None else None
        close = getattr(batches, "close", None)
        if close is not None:
            close()

    def _epoch_over(self, running: Running) -> None:
        self.read_losses()
        self.values["epoch.loss"] = mean(self.epoch_losses)
        running.epoch_over()
        self.history.add({"epoch": self.epoch, "loss": mean(self.epoch_losses), **running.noted})
        running.after_epoch()
        self.epoch_losses = array("d")

    # numbers

    @property
    def values(self) -> dict[str, float]:
        """The latest numbers by name."""
        if self._losses:
            self.read_losses()
        return self._numbers

    def read_losses(self) -> None:
        """Read the losses of the iterations since the last time."""
        losses, self._losses = self._losses, []
        if losses:
            self.epoch_losses.extend([t.item() for t in losses])
            self._numbers["loss"] = self.epoch_losses[-1]
            self._numbers["epoch.loss"] = mean(self.epoch_losses)

    def note(self, numbers: Mapping[str, float]) -> None:
        """Put numbers into the history's row of this epoch: what a hook may want to call."""
        if self._running is not None:
            self._running.noted.update(numbers)

    @property
    def batches(self) -> int | None:
        """Of an epoch, where the loader has a length; None outside of `fit`."""
        return self._running.batches() if self._running is not None else None

    def evaluate(self, loader: Iterable, metrics: Any = None) -> dict[str, float]:
        """The mean loss, and the metrics, over a loader, in evaluation mode and without gradients."""
        wanted = self.metrics if metrics is None else as_metrics(metrics)
        for metric in wanted.values():
            metric.reset()
        total, count, training, device = 0.0, 0, self.model.training, self.device
        self.model.eval()
        try:
            for batch in loader:
                with self._watching, no_grad(), self._casting:
                    inputs, targets = parts_of(batch, device)
                    output = self.model(*inputs)
                    loss = self.loss(output, targets)
                size = len(targets) if isinstance(targets, Tensor) and targets.ndim else 1
                total, count = total + loss.item() * size, count + size
                if wanted:
                    given, true = array_of(output), targets.numpy()
                    for metric in wanted.values():
                        metric.update(given, true)
        finally:
            self.model.train(training)
        if not count:
            raise TrainingError("evaluate: the loader gave no batch")
        return {"loss": total / count, **{name: metric.result() for name, metric in wanted.items()}}

    def predict(self, loader: Iterable) -> Iterator[Any]:
        """The model's outputs, one NumPy array for each batch, in evaluation mode. A batch is what `fit` takes, or inputs only."""
        training, device = self.model.training, self.device
        self.model.eval()
        try:
            for batch in loader:
                with self._watching, no_grad(), self._casting:
                    several = isinstance(batch, Mapping) or (isinstance(batch, tuple | list) and len(batch) > 1)
                    if not several and isinstance(batch, tuple | list) and batch:
                        (batch,) = batch
                    inputs = parts_of(batch, device)[0] if several else (as_tensor(batch, device),)
                    output = self.model(*inputs)
                yield array_of(output)
        finally:
            self.model.train(training)

    # commands

    def _command(self, title: str, action: Callable[[], Any]) -> Receipt:
        receipt = Receipt(title, action)
        if self._running is None:
            receipt.perform(self.iteration)
        else:
            self._commands.put(receipt)
        return receipt

    def pause(self) -> Receipt:
        """Rest after this iteration, until `resume`, `step` or `stop`. Any thread may call this, and the others."""
        return self._command("pause", lambda: self._set(_paused=True))

    def resume(self) -> Receipt:
        """Go on."""
        return self._command("resume", lambda: self._set(_paused=False))

    def step(self) -> Receipt:
        """One iteration, then rest again."""
        return self._command("step", lambda: self._set(_paused=True, _single=True))

    def stop(self) -> Receipt:
        """End after this iteration; `fit` returns."""
        return self._command("stop", lambda: self._set(_stopping=True, _paused=False))

    def set(self, path: str, value: Any) -> Receipt:
        """Write a value, or all that a pattern names, as in `set("optimizer.lr", 0.01)`; see `addresses`."""
        return self._command(f"set {path}", lambda: self.addresses.set(path, value))

    def request_save(self, path: str | os.PathLike, **settings) -> Receipt:
        """`save`, after this iteration; its result is the path."""
        return self._command("save", lambda: self.save(path, **settings))

    def request_load(self, path: str | os.PathLike) -> Receipt:
        """`load` the weights and the optimizer's state, after this iteration."""
        return self._command("load", lambda: self.load(path, only=("model", "optimizer")))

    def _set(self, **flags: bool) -> None:
        for name, value in flags.items():
            setattr(self, name, value)

    # checkpoints

    def save(self, path: str | os.PathLike, only: tuple[str, ...] = (), keep: int | None = None) -> Path:
        """Write a checkpoint into a folder of checkpoints, see `checkpoint.write`; its path.

        only: some of "model", "optimizer", "trainer", "preprocessing", or all. keep: how many checkpoints to keep.
        """
        states = self._states()
        unknown = set(only) - set(states)
        if unknown:
            raise TrainingError(f"save: there is no {', '.join(sorted(unknown))}; there are {', '.join(states)}")
        wanted = {name: state() for name, state in states.items() if not only or name in only}
        return checkpoint.write(path, self.iteration, wanted, keep)

    def _states(self) -> dict[str, Callable[[], dict[str, Any]]]:
        states: dict[str, Callable[[], dict[str, Any]]] = {
            "model": self.model.state_dict,
            "optimizer": self.optimizer.state_dict,
            "trainer": self.state_dict,
        }
        for name in EXTRAS:
            owner = getattr(self, name)
            if owner is not None:
                states[name] = owner.state_dict
        return states

    def load(self, path: str | os.PathLike, only: tuple[str, ...] = ()) -> Path:
        """Continue from a checkpoint, or from the last one in a folder; its path. Nothing changes where something does not fit.

        only: some of what was saved, such as ("model",) for the weights.
        """
        if self._running is not None and not self._paused and "trainer" in (only or ("trainer",)):
            raise TrainingError("load: this trainer is training; use request_load, or stop it first")
        states, found = checkpoint.read(path)
        wanted = only or tuple(states)
        missing = [name for name in wanted if name not in states]
        if missing:
            raise CheckpointError(f"load: {found} has no {', '.join(missing)}; it has {', '.join(states)}")
        before = {name: state() for name, state in self._states().items() if name in wanted}
        try:
            for name in wanted:
                self._restore(name, states[name])
        except TapegradError:
            for name, state in before.items():
                self._restore(name, state)
            raise
        return found

    def _restore(self, name: str, state: dict[str, Any]) -> None:
        owners = {
            "model": self.model,
            "optimizer": self.optimizer,
            "trainer": self,
            **{extra: getattr(self, extra) for extra in EXTRAS},
        }
        owner = owners.get(name)
        if owner is None:
            raise CheckpointError(f"load: the checkpoint holds {name!r}, for which this trainer has no place")
        owner.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the weights and the optimizer's state: counts, random numbers, the loader's place, what hooks remember."""
        self.read_losses()
        running = self._running
        return {
            "iteration": self.iteration,
            "epoch": self.epoch,
            "goal": dict(self.goal),
            "seed": list(get_seed_state()),
            "losses": list(self.epoch_losses),
            "values": dict(self._numbers),
            "history": self.history.rows,
            "loader": running.position() if running is not None else self._position,
            "hooks": [[hook.name, hook.state_dict()] for hook in self.hooks],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        try:
            saved = [(str(name), own) for name, own in state["hooks"]]
            names = [hook.name for hook in self.hooks]
            if [name for name, _ in saved] != names:
                raise CheckpointError(
                    f"load: the checkpoint was made with the hooks {', '.join(n for n, _ in saved) or 'none'}; this trainer "
                    f"has {', '.join(names) or 'none'}. Load only=('model', 'optimizer') to leave them out."
                )
            self._losses, self.epoch_losses = [], array("d", state["losses"])
            self.iteration, self.epoch, self.goal = state["iteration"], state["epoch"], dict(state["goal"])
            self.history = History([dict(row) for row in state["history"]])
            self._numbers, self._position = dict(state["values"]), state["loader"]
            self._loaded = self._position is not None
            set_seed_state(tuple(state["seed"]))
            for hook, (_, own) in zip(self.hooks, saved, strict=True):
                self._restore_hook(hook, own)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"load: the trainer's state is not one that state_dict gave: {error!r}") from error

    def _restore_hook(self, hook: Hook, state: dict[str, Any]) -> None:
        try:
            hook.load_state_dict(state)
        except TapegradError as error:
            raise CheckpointError(
                f"load: what the checkpoint holds for the hook {hook.name} does not fit this trainer's: {error}. Is it that of "
                "another training? Load only=('model', 'optimizer') to leave hooks out."
            ) from error
