"""Gradient descent with momentum."""

from __future__ import annotations

from ..errors import ShapeError
from ..tape.assign import update
from ..tape.create import zeros_like
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

    def update(self, p, g, state, group):
        """One step of one parameter."""
        lr, decay, momentum = group["lr"], group["weight_decay"], group["momentum"]
        if momentum == 0.0:
            update((p,), rules.sgd, (p, g, *self.scalars(p, lr, decay)))
            return
        v = state.get("momentum_buffer")
        if v is None:
            v = state["momentum_buffer"] = zeros_like(p)
            if group["nesterov"]:
                update((p, v), rules.sgd_nesterov_first, (p, g, v, *self.scalars(p, lr, decay, momentum)))
            else:
                update((p, v), rules.sgd_momentum_first, (p, g, v, *self.scalars(p, lr, decay)))
            return
        rule = rules.sgd_nesterov if group["nesterov"] else rules.sgd_momentum
        update((p, v), rule, (p, g, v, *self.scalars(p, lr, decay, momentum, 1.0 - group["dampening"])))
