"""Optimizers: which rule runs on which parameter with which settings."""
from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import CheckpointError, ShapeError, TapeError
from ..tape.assign import update
from ..tape.create import tensor, zeros_like
from ..tape.state import enable_grad, no_grad
from ..tape.tensor import Leaf, Tensor
from . import rules


class Optimizer:
    """The parent of all optimizers. `param_groups` is a list of dicts, each with "params" and the settings, "lr" a plain float.

    params: tensors that require gradients, or dicts with "params" and settings of their own.
    """

    def __init__(self, params: Iterable, defaults: dict[str, Any]):
        listed = [params] if isinstance(params, Tensor) else list(params)
        if not listed:
            raise ShapeError(f"{type(self).__name__}: no parameters were given; was model.parameters() already used up?")
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        for group in listed if isinstance(listed[0], dict) else [{"params": listed}]:
            self.add_param_group(group)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; what is not said takes the optimizer's defaults."""
        name = type(self).__name__
        if not isinstance(group, dict) or "params" not in group:
            raise TapeError(f'{name}: a parameter group is a dict with "params", not {group!r}')
        params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for p in params:
            if not isinstance(p, Tensor) or type(p.node) is not Leaf:
                raise TapeError(f"{name}: parameters are leaf tensors that require gradients; got {type(p).__name__}"
                                f"{' without requires_grad, or the result of an op' if isinstance(p, Tensor) else ''}")
            if id(p) in known:
                raise TapeError(f"{name}: a parameter of shape {p.shape} was given twice")
            known.add(id(p))
        unknown = set(group) - set(self.defaults) - {"params"}
        if unknown:
            raise TapeError(f"{name}: unknown settings {sorted(unknown)}; it has {sorted(self.defaults)}")
        made = {**self.defaults, **group, "params": params}
        self.check(made)
        self.param_groups.append(made)

    def check(self, group: dict[str, Any]) -> None:
        """Refuse settings that make no sense."""
        for key in ("lr", "momentum", "weight_decay", "eps", "dampening"):
            value = group.get(key, 0.0)
            if not isinstance(value, int | float) or not value >= 0.0 or math.isinf(value):
                raise ShapeError(f"{type(self).__name__}: {key} is a number from 0, not {value!r}")
        for beta in group.get("betas", ()):
            if not 0.0 <= beta < 1.0:
                raise ShapeError(f"{type(self).__name__}: betas are numbers from 0 to below 1, not {group['betas']!r}")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients, or with set_to_none=False set them to zero."""
        for group in self.param_groups:
            for p in group["params"]:
                if type(p.node) is Leaf and p.grad is not None:
                    p.grad = None if set_to_none else zeros_like(p)

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient, in place. A closure is called first and its result returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        self.update(p, p.grad, self.state.setdefault(p, {}), group)
        return loss

    def update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Run the rule on one parameter."""
        raise TapeError(f"{type(self).__name__} has no update rule; define update(self, p, g, state, group)")

    def state_dict(self) -> dict[str, Any]:
        """Settings and state, with parameters as numbers: what `tg.save` takes. The next step after loading is bit-identical."""
        numbers = {id(p): i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}
        groups = [{k: [numbers[id(p)] for p in v] if k == "params" else copy.copy(v) for k, v in g.items()} for g in self.param_groups]
        state = {str(numbers[id(p)]): {k: v.copy() if isinstance(v, Tensor) else v for k, v in s.items()} for p, s in self.state.items()}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave. Raises CheckpointError where groups or shapes differ."""
        groups = state["param_groups"]
        sizes, own = [len(g["params"]) for g in groups], [len(g["params"]) for g in self.param_groups]
        if sizes != own:
            raise CheckpointError(f"load_state_dict: the state has groups of {sizes} parameters, this {type(self).__name__} of {own}")
        params = [p for g in self.param_groups for p in g["params"]]
        loaded: dict[Tensor, dict[str, Any]] = {}
        for number, values in state["state"].items():
            p = params[int(number)]
            for key, value in values.items():
                if isinstance(value, Tensor) and value.shape != p.shape:
                    raise CheckpointError(f"load_state_dict: {key} of parameter {number} has shape {value.shape}, the parameter {p.shape}")
            loaded[p] = {k: tensor(v) if isinstance(v, Tensor) else v for k, v in values.items()}
        for mine, saved in zip(self.param_groups, groups, strict=True):
            mine.update({k: tuple(v) if isinstance(v, list) else v for k, v in saved.items() if k != "params"})
        self.state = loaded

    def __repr__(self) -> str:
        groups = "; ".join(", ".join(f"{k}={v}" for k, v in g.items() if k != "params") for g in self.param_groups)
        return f"{type(self).__name__}({groups})"


class SGD(Optimizer):
    """Gradient descent, with momentum (Polyak 1964) or Nesterov's momentum (Sutskever et al. 2013). Arguments as in PyTorch.

    >>> import tapegrad as tg
    >>> w = tg.tensor([1.0], requires_grad=True)
    >>> optimizer = SGD([w], lr=0.5)
    >>> (w * w).sum().backward(); optimizer.step()
    >>> w.item()
    0.0
    """

    def __init__(self, params, lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0,
                 nesterov: bool = False):
        if nesterov and (momentum <= 0.0 or dampening != 0.0):
            raise ShapeError("SGD: nesterov needs a momentum above 0 and no dampening")
        super().__init__(params, dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov))

    def update(self, p, g, state, group):
        """One step of one parameter."""
        lr, decay, momentum = group["lr"], group["weight_decay"], group["momentum"]
        if momentum == 0.0:
            update((p,), rules.sgd, (p, g, lr, decay))
            return
        v = state.get("momentum_buffer")
        if v is None:
            v = state["momentum_buffer"] = zeros_like(p)
            if group["nesterov"]:
                update((p, v), rules.sgd_nesterov_first, (p, g, v, lr, decay, momentum))
            else:
                update((p, v), rules.sgd_momentum_first, (p, g, v, lr, decay))
            return
        rule = rules.sgd_nesterov if group["nesterov"] else rules.sgd_momentum
        update((p, v), rule, (p, g, v, lr, decay, momentum, 1.0 - group["dampening"]))


class Adam(Optimizer):
    """Kingma & Ba 2015, "Adam: a method for stochastic optimization". Arguments as in PyTorch.

    >>> import tapegrad as tg
    >>> w = tg.tensor([1.0], requires_grad=True)
    >>> optimizer = Adam([w], lr=0.1)
    >>> (w * w).sum().backward(); optimizer.step()
    >>> round(w.item(), 4)
    0.9
    """

    rule = rules.adam

    def __init__(self, params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0):
        super().__init__(params, dict(lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay))

    def update(self, p, g, state, group):
        """One step of one parameter."""
        if not state:
            state.update(step=0, exp_avg=zeros_like(p), exp_avg_sq=zeros_like(p))
        state["step"] += 1
        beta1, beta2 = group["betas"]
        step_size = group["lr"] / (1.0 - beta1 ** state["step"])
        correction = math.sqrt(1.0 - beta2 ** state["step"])
        m, v = state["exp_avg"], state["exp_avg_sq"]
        settings = (step_size, 1.0 - beta1, beta2, 1.0 - beta2, correction, group["eps"], self.decay(group))
        update((p, m, v), self.rule, (p, g, m, v, *settings))

    def decay(self, group) -> float:
        """The rule's last input."""
        return group["weight_decay"]


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    rule = rules.adamw

    def __init__(self, params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2):
        super().__init__(params, lr, betas, eps, weight_decay)

    def decay(self, group) -> float:
        """1 - lr · weight_decay."""
        return 1.0 - group["lr"] * group["weight_decay"]
