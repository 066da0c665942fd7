"""Gradient descent with momentum."""

from __future__ import annotations

from ..errors import ShapeError
from . import rules
from .optimizer import Optimizer


class SGD(Optimizer):
    """Gradient descent, with momentum (Polyak 1964) or Nesterov's (Sutskever et al. 2013). Arguments as in PyTorch.

    >>> import tapegrad as tg
    >>> w = tg.tensor([1.0], requires_grad=True)
    >>> optimizer = SGD([w], lr=0.5)
    >>> (w * w).sum().backward(); optimizer.step()
    >>> w.item()
    0.0
    """

    tensors = ("momentum_buffer",)

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        super().__init__(
            params, dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov)
        )

    def check(self, group):
        """Refuse settings that make no sense."""
        super().check(group)
        if group["nesterov"] and (group["momentum"] == 0.0 or group["dampening"] != 0.0):
            raise ShapeError("SGD: nesterov needs a momentum above 0 and no dampening")

    def rule_for(self, group, new):
        """With momentum, the first step has a rule of its own."""
        if group["momentum"] == 0.0:
            return rules.sgd
        if group["nesterov"]:
            return rules.sgd_nesterov_first if new else rules.sgd_nesterov
        return rules.sgd_momentum_first if new else rules.sgd_momentum

    def coefficients(self, group, step, new):
        """lr, weight_decay, momentum, 1 - dampening; without those that the rule does not read."""
        lr, decay, momentum = group["lr"], group["weight_decay"], group["momentum"]
        if momentum == 0.0:
            return lr, decay
        if new:
            return (lr, decay, momentum) if group["nesterov"] else (lr, decay)
        return lr, decay, momentum, 1.0 - group["dampening"]

    def kept(self, group):
        """A velocity, with momentum."""
        return self.tensors if group["momentum"] != 0.0 else ()
