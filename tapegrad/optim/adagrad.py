"""Adagrad."""

from __future__ import annotations

import math
from numbers import Real

from ..errors import ShapeError
from ..tape.create import full_like
from . import rules
from .optimizer import Optimizer


class Adagrad(Optimizer):
    """Duchi, Hazan & Singer 2011, "Adaptive subgradient methods". Arguments as in PyTorch.

    Each element's steps shrink with the root of the sum of its squared gradients; step t takes the learning rate
    lr / (1 + (t - 1) · lr_decay).

    >>> import tapegrad as tg
    >>> w = tg.tensor([1.0], requires_grad=True)
    >>> optimizer = Adagrad([w], lr=0.1)
    >>> (w * w).sum().backward(); optimizer.step()
    >>> round(w.item(), 4)
    0.9
    """

    tensors = ("sum",)
    numbers = ("step",)

    def __init__(
        self,
        params,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ):
        super().__init__(
            params,
            dict(
                lr=lr,
                lr_decay=lr_decay,
                weight_decay=weight_decay,
                initial_accumulator_value=initial_accumulator_value,
                eps=eps,
            ),
        )

    def check(self, group):
        """Refuse settings that make no sense."""
        super().check(group)
        for key in ("lr_decay", "initial_accumulator_value"):
            value = group[key]
            if not isinstance(value, Real) or not 0.0 <= float(value) < math.inf:
                raise ShapeError(f"Adagrad: {key} is a number from 0, not {value!r}")

    def rule_for(self, group, new):
        """Adagrad's rule, whatever the settings."""
        return rules.adagrad

    def coefficients(self, group, step, new):
        """step_size, eps, weight_decay."""
        return group["lr"] / (1.0 + (step - 1) * group["lr_decay"]), group["eps"], group["weight_decay"]

    def initial(self, name, p, group):
        """The sum of the squared gradients starts as initial_accumulator_value."""
        return full_like(p, group["initial_accumulator_value"])
