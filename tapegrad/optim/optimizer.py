"""Optimizers: which rule runs on which parameter with which settings."""

from __future__ import annotations

import copy
import functools
import math
import struct
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

import numpy as np

from ..dtypes import DType
from ..errors import CheckpointError, ShapeError, TapeError
from ..layouts import layout
from ..ops.registry import Op
from ..tape.apply import FORMATS, constant, empty, pack_scalar
from ..tape.assign import update
from ..tape.create import tensor, zeros_like
from ..tape.reverse import drop_gradients
from ..tape.spaces import writer_of
from ..tape.state import enable_grad, local, no_grad
from ..tape.tensor import Tensor
from .steady import Leaves, Steady, steady

SLOTS = 64  # sets of numbers that an optimizer keeps as tensors


class Parameters(list):
    """The parameters of a group. `version` counts the changes of the list, so that a step need not look at each of them."""

    version = 0


def _counted(name: str):
    change = getattr(list, name)

    @functools.wraps(change)
    def counted(self, *args, **kwargs):
        self.version += 1
        return change(self, *args, **kwargs)

    return counted


for _name in ("append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"):
    setattr(Parameters, _name, _counted(_name))
for _name in ("__delitem__", "__iadd__", "__imul__", "__setitem__"):
    setattr(Parameters, _name, _counted(_name))


class Operands:
    """Some numbers side by side in memory, as 0-d tensors."""

    def __init__(self, dtype: DType, device: str, count: int):
        whole = empty(layout((count,), dtype, None, device), "an optimizer's numbers")
        at = [whole.address + i * dtype.itemsize for i in range(count)]
        self.address, self.dtype, self.nbytes, self.put = whole.address, dtype, whole.nbytes, writer_of(device)
        self.pack = struct.Struct(f"={count}{FORMATS[dtype.name]}").pack
        self.tensors = tuple([Tensor(whole.buffer, a, layout((), dtype, None, device)) for a in at])

    def write(self, values: tuple[float, ...]) -> tuple[Tensor, ...]:
        """The tensors, with these values."""
        try:
            packed = self.pack(*values)
        except OverflowError:  # beyond float32: inf
            packed = b"".join([pack_scalar(v, self.dtype) for v in values])
        self.put(self.address, packed, self.nbytes)
        return self.tensors


class Optimizer:
    """The parent of all optimizers.

    `param_groups` is a list of dicts with "params" and the settings, "lr" a plain float.

    params: leaf tensors, or dicts with "params" and settings of their own. Frozen ones, without requires_grad, are
    passed over for as long as they are frozen.

    `tensors` and `numbers` name what an optimizer keeps for a parameter. What it does is either data, `rule_for` and
    `coefficients`: an elementwise op that gives the new parameter and tensors, and the numbers among its inputs; or, for a
    rule that is no such op, a method `update` of a subclass.
    """

    tensors: tuple[str, ...] = ()  # state of the parameter's shape and dtype
    numbers: tuple[str, ...] = ()  # state that is one number; "step" counts the steps

    def __init__(self, params: Iterable, defaults: dict[str, Any]):
        name = type(self).__name__
        if not isinstance(params, Iterable):
            raise TapeError(
                f"{name}: params are tensors or dicts of them, not a {type(params).__name__}; pass model.parameters()"
            )
        listed = [params] if isinstance(params, Tensor) else list(params)
        if not listed:
            raise ShapeError(f"{name}: no parameters were given; was model.parameters() already used up?")
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.counting: Steady | None = None  # the recorded step of a session that counts the steps now
        self.kept_state: dict[Tensor, dict[str, Any]] = {}
        self.leaves = Leaves([])
        self._slots: dict[tuple, tuple[Tensor, ...]] = {}
        self._operands: dict[tuple, Operands] = {}
        for group in listed if isinstance(listed[0], dict) else [{"params": listed}]:
            self.add_param_group(group)
        if not any(p.requires_grad for group in self.param_groups for p in group["params"]):
            raise TapeError(f"{name}: none of the parameters has requires_grad=True, so nothing would be trained")

    def add_param_group(self, group: Any) -> None:
        """Add parameters with settings of their own; what is not said takes the optimizer's defaults."""
        name = type(self).__name__
        if not isinstance(group, dict) or "params" not in group:
            raise TapeError(f'{name}: a parameter group is a dict with "params", not {group!r}')
        params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for p in params:
            if not isinstance(p, Tensor):
                raise TapeError(f"{name}: parameters are tensors, got a {type(p).__name__}")
            if not p.is_leaf:
                raise TapeError(
                    f"{name}: a parameter of shape {p.shape} is the result of an op ({p.node.op.name}), so no gradient "
                    "collects in it; make it with nn.Parameter or tg.tensor(..., requires_grad=True)"
                )
            if id(p) in known:
                raise TapeError(f"{name}: a parameter of shape {p.shape} was given twice")
            known.add(id(p))
        unknown = set(group) - set(self.defaults) - {"params"}
        if unknown:
            raise TapeError(f"{name}: unknown settings {sorted(unknown)}; it has {sorted(self.defaults)}")
        made = {k: tuple(v) if isinstance(v, list) else v for k, v in {**self.defaults, **group}.items()}
        made["params"] = Parameters(params)
        self.check(made)
        self.param_groups.append(made)

    def check(self, group: dict[str, Any]) -> None:
        """Refuse settings that make no sense."""
        for key in ("lr", "momentum", "weight_decay", "eps", "dampening"):
            value = group.get(key, 0.0)
            if not isinstance(value, Real) or not float(value) >= 0.0 or math.isinf(value):
                raise ShapeError(f"{type(self).__name__}: {key} is a number from 0, not {value!r}")
        betas = group.get("betas", (0.0, 0.0))
        if (
            not isinstance(betas, tuple | list)
            or len(betas) != 2
            or not all(isinstance(b, Real) and 0.0 <= float(b) < 1.0 for b in betas)
        ):
            raise ShapeError(f"{type(self).__name__}: betas are two numbers from 0 to below 1, not {betas!r}")

    @property
    def state(self) -> dict[Tensor, dict[str, Any]]:
        """What is kept for each parameter that was updated, by name."""
        if self.counting is not None:
            self.counting.show()
        return self.kept_state

    @state.setter
    def state(self, value: dict[Tensor, dict[str, Any]]) -> None:
        self.counting, self.kept_state = None, value

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients, or with set_to_none=False set them to zero."""
        if set_to_none:
            if not self.leaves.current(self.param_groups):
                self.leaves = Leaves(self.param_groups)
            drop_gradients(self.leaves.trained)
            return
        for p in [p for group in self.param_groups for p in group["params"]]:
            if p.grad is not None:
                p.grad = zeros_like(p)

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient, in place. A closure is called first and its result returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        if type(self).update is Optimizer.update and "update" not in self.__dict__:
            session = local.state.session
            if session is None or closure is not None:
                self._step(self._buckets())
            else:
                session.step(self)
            return loss
        with no_grad():
            for group in self.param_groups:
                self.check_lr(group)
                for p in group["params"]:
                    if p.grad is not None:
                        self.update(p, p.grad, self.state.setdefault(p, {}), group)
        return loss

    def _step(self, buckets: list) -> None:
        for bucket in buckets:
            self._run(*bucket)

    def recorded(self):
        """A step inside a session: what it did besides its updates."""
        buckets = self._buckets()
        leaves = [p.node for group in self.param_groups for p in group["params"] if p.node is not None]
        self._step(buckets)
        return leaves, lambda values: steady(self, buckets, values)

    def update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Run the rule on one parameter: what a subclass with a rule that is no elementwise op defines."""
        self._run(group, *self._place(state, group), [(p, g, state)])

    # a step as data

    def rule_for(self, group: dict[str, Any], new: bool) -> Op:
        """The op (p, g, *tensors, *coefficients) -> (p, *tensors) that these settings ask for; new: the tensors are zeros."""
        raise TapeError(f"{type(self).__name__} has no update rule; define update(self, p, g, state, group)")

    def coefficients(self, group: dict[str, Any], step: int, new: bool) -> tuple[float, ...]:
        """The last inputs of `rule_for(group, new)` in step number `step`, which is 1 in the first."""
        return ()

    def kept(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Those of `tensors` that these settings need."""
        return self.tensors

    def initial(self, name: str, p: Tensor, group: dict[str, Any]) -> Tensor:
        """What a tensor of the state starts as. Of halves it is float32, as what is computed with it."""
        return zeros_like(p, dtype=p.dtype.compute)

    def _place(self, state: dict[str, Any], group: dict[str, Any]) -> tuple[int, bool]:
        """Which step comes next for a parameter with this state (1 where none are counted), and whether it has no tensors yet."""
        kept = self.kept(group)
        return state.get("step", 0) + 1, bool(kept) and kept[0] not in state

    def _buckets(self) -> list[tuple[dict[str, Any], int, bool, list[tuple[Tensor, Tensor, dict[str, Any]]]]]:
        """(group, number of the step, whether state is to be made, [(p, g, state), ...]) of the parameters with a gradient.

        All of a bucket have one rule and the same coefficients. Nothing has changed when settings are refused.
        """
        found: list = []
        states = self.state
        for group in self.param_groups:
            self.check_lr(group)
            kept = self.kept(group)
            first = kept[0] if kept else None
            here: dict[tuple[int, bool], list] = {}
            last: tuple[int, bool] | None = None
            for p in group["params"]:
                leaf = p.node
                if leaf is None or leaf.grad is None:
                    continue
                state = states.get(p)
                if state is None:
                    state = states[p] = {}
                place = (state.get("step", 0) + 1, first is not None and first not in state)
                if place != last:
                    last, members = place, here.setdefault(place, [])
                members.append((p, leaf.grad, state))
            for place, members in here.items():
                found.append((group, *place, members))
        return found

    def check_lr(self, group: dict[str, Any]) -> None:
        """Refuse a learning rate that makes no sense."""
        lr = group.get("lr", 0.0)
        if type(lr) is not float or not 0.0 <= lr < math.inf:  # a schedule writes it between steps
            self.check(group)

    def _run(self, group: dict[str, Any], step: int, new: bool, members: list) -> None:
        """One step of the parameters of a bucket."""
        rule, values, kept = self.rule_for(group, new), self.coefficients(group, step, new), self.kept(group)
        if new:
            for p, _, state in members:
                state.update(dict.fromkeys(self.numbers, 0))
                state.update({name: self.initial(name, p, group) for name in kept})
        counted = "step" in self.numbers
        inputs: dict[tuple[DType, str], tuple[Tensor, ...]] = {}
        for p, g, state in members:
            where = p.layout.dtype.compute, p.layout.device
            if where not in inputs:
                inputs[where] = self.operands(*where, values)
            if counted:
                state["step"] = step
            targets = (p, *[state[name] for name in kept])
            update(targets, rule, (p, g, *targets[1:], *inputs[where]))

    def operands(self, dtype: DType, device: str, values: tuple[float, ...]) -> tuple[Tensor, ...]:
        """Numbers as inputs of a rule, for the updates of this bucket: the next ones overwrite them."""
        session = local.state.session
        if session is not None:  # which runs updates later, each with its own numbers
            x = layout((len(values),), dtype, None, device)
            return tuple(session.fresh(np.array(values), x, numbers=True)) if values else ()
        key = (dtype, device, len(values))
        found = self._operands.get(key)
        if found is None:
            found = self._operands[key] = Operands(*key)
        return found.write(values)

    def scalars(self, p: Tensor, *values: float) -> tuple[Tensor, ...]:
        """Numbers as inputs of an op on p, for `update` methods. Nothing overwrites them; the last ones are kept."""
        key = (p.layout.dtype.compute, p.layout.device, values)
        found = self._slots.get(key)
        if found is None:
            if len(self._slots) >= SLOTS:
                self._slots.clear()
            found = self._slots[key] = tuple([constant(v, *key[:2]) for v in values])
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_slots": {},
            "_operands": {},
            "leaves": Leaves([]),
            "kept_state": self.state,
            "counting": None,
        }

    def state_dict(self) -> dict[str, Any]:
        """Settings and state, with parameters as numbers: what `tg.save` takes.

        The next step after loading is bit-identical.
        """
        numbers = {id(p): i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}
        groups = [
            {k: [numbers[id(p)] for p in v] if k == "params" else copy.copy(v) for k, v in g.items()}
            for g in self.param_groups
        ]
        state = {
            str(numbers[id(p)]): {k: v.copy() if isinstance(v, Tensor) else v for k, v in s.items()}
            for p, s in self.state.items()
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave.

        Raises CheckpointError where it does not fit, and changes nothing then.
        """
        groups = self._loaded_groups(state)
        params = [p for g in self.param_groups for p in g["params"]]
        owners = [own for g, own in zip(self.param_groups, groups, strict=True) for _ in g["params"]]
        loaded: dict[Tensor, dict[str, Any]] = {}
        for number, values in state["state"].items():
            if not str(number).isdecimal() or int(number) >= len(params):
                raise CheckpointError(
                    f"load_state_dict: the state has a parameter {number!r}, {type(self).__name__} has {len(params)}"
                )
            loaded[params[int(number)]] = self._loaded_state(number, values, params[int(number)], owners[int(number)])
        for mine, saved in zip(self.param_groups, groups, strict=True):
            mine.update(saved)
        self.state = loaded

    def _loaded_groups(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        """The settings of each group, checked against the groups that are here."""
        name = type(self).__name__
        if (
            not isinstance(state, dict)
            or not isinstance(state.get("state"), dict)
            or not isinstance(state.get("param_groups"), list)
        ):
            raise CheckpointError(
                'load_state_dict: wanted what state_dict() of an optimizer gives: "state" and "param_groups"'
            )
        sizes, own = [len(g["params"]) for g in state["param_groups"]], [len(g["params"]) for g in self.param_groups]
        if sizes != own:
            raise CheckpointError(f"load_state_dict: the state has groups of {sizes} parameters, this {name} of {own}")
        groups = [
            {k: tuple(v) if isinstance(v, list) else v for k, v in g.items() if k != "params"}
            for g in state["param_groups"]
        ]
        for group in groups:
            if set(group) != set(self.defaults):
                raise CheckpointError(
                    f"load_state_dict: the state has the settings {sorted(group)}, {name} has {sorted(self.defaults)}"
                )
            try:
                self.check(group)
            except ShapeError as error:
                raise CheckpointError(f"load_state_dict: {error}") from None
        return groups

    def _loaded_state(self, number: str, values: dict[str, Any], p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """A parameter's state as tensors of its own, in the parameter's dtype."""
        wanted = {*self.kept(group), *self.numbers}
        if values and not wanted <= set(values) <= {*self.tensors, *self.numbers}:
            raise CheckpointError(
                f"load_state_dict: the state of parameter {number} has {sorted(values)}, {type(self).__name__} keeps "
                f"{sorted(wanted)}"
            )
        made = {}
        for key, value in values.items():
            if (key in self.tensors) is not isinstance(value, Tensor) or (
                isinstance(value, Tensor) and value.shape != p.shape
            ):
                raise CheckpointError(
                    f"load_state_dict: {key} of parameter {number} does not fit a parameter of shape {p.shape}: "
                    f"{f'its shape is {value.shape}' if isinstance(value, Tensor) else f'it is {value!r}'}"
                )
            made[key] = tensor(value, dtype=p.dtype, device=p.device) if isinstance(value, Tensor) else value
        return made

    def __repr__(self) -> str:
        groups = "; ".join(", ".join(f"{k}={v}" for k, v in g.items() if k != "params") for g in self.param_groups)
        return f"{type(self).__name__}({groups})"
