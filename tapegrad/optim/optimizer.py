"""Optimizers: which rule runs on which parameter with which settings."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

from ..errors import CheckpointError, ShapeError, TapeError
from ..tape.apply import constant
from ..tape.create import tensor, zeros_like
from ..tape.state import enable_grad, no_grad
from ..tape.tensor import Tensor

SLOTS = 64  # sets of numbers that an optimizer keeps as tensors


class Optimizer:
    """The parent of all optimizers.

    `param_groups` is a list of dicts with "params" and the settings, "lr" a plain float.

    params: leaf tensors, or dicts with "params" and settings of their own. Frozen ones, without requires_grad, are
    passed over for as long as they are frozen.

    A rule of one's own is a subclass with an `update` method; `tensors` and `numbers` name what it keeps for a
    parameter.
    """

    tensors: tuple[str, ...] = ()  # state of the parameter's shape and dtype
    numbers: tuple[str, ...] = ()  # state that is one number

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
        self.state: dict[Tensor, dict[str, Any]] = {}
        self._slots: dict[tuple, tuple[Tensor, ...]] = {}
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
        made["params"] = params
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

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients, or with set_to_none=False set them to zero."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad = None if set_to_none else zeros_like(p)

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient, in place. A closure is called first and its result returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self.param_groups:
                lr = group.get("lr", 0.0)
                if type(lr) is not float or not 0.0 <= lr < math.inf:  # a schedule writes it between steps
                    self.check(group)
                for p in group["params"]:
                    if p.grad is not None:
                        self.update(p, p.grad, self.state.setdefault(p, {}), group)
        return loss

    def update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Run the rule on one parameter."""
        raise TapeError(f"{type(self).__name__} has no update rule; define update(self, p, g, state, group)")

    def scalars(self, p: Tensor, *values: float) -> tuple[Tensor, ...]:
        """Numbers as inputs of a rule on p. Parameters of a group have most in common, so the last ones are kept."""
        key = (p.layout.dtype, p.layout.device, values)
        found = self._slots.get(key)
        if found is None:
            if len(self._slots) >= SLOTS:
                self._slots.clear()
            found = self._slots[key] = tuple([constant(v, p.layout.dtype, p.layout.device) for v in values])
        return found

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
        loaded: dict[Tensor, dict[str, Any]] = {}
        for number, values in state["state"].items():
            if not str(number).isdecimal() or int(number) >= len(params):
                raise CheckpointError(
                    f"load_state_dict: the state has a parameter {number!r}, {type(self).__name__} has {len(params)}"
                )
            loaded[params[int(number)]] = self._loaded_state(number, values, params[int(number)])
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

    def _loaded_state(self, number: str, values: dict[str, Any], p: Tensor) -> dict[str, Any]:
        """A parameter's state as tensors of its own, in the parameter's dtype."""
        if values and set(values) != {*self.tensors, *self.numbers}:
            raise CheckpointError(
                f"load_state_dict: the state of parameter {number} has {sorted(values)}, {type(self).__name__} keeps "
                f"{sorted((*self.tensors, *self.numbers))}"
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
