"""RMSprop."""

from __future__ import annotations

from . import rules
from .optimizer import Optimizer
from .settings import share


class RMSprop(Optimizer):
    """Tieleman & Hinton 2012, lecture 6.5 of "Neural networks for machine learning"; centered: Graves 2013. Arguments as in PyTorch.

    >>> import tapegrad as tg
    >>> w = tg.tensor([1.0], requires_grad=True)
    >>> optimizer = RMSprop([w], lr=0.01)
    >>> (w * w).sum().backward(); optimizer.step()
    >>> round(w.item(), 4)
    0.9
    """

    tensors = ("square_avg", "grad_avg", "momentum_buffer")
    numbers = ("step",)

    def __init__(
        self,
        params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ):
        super().__init__(
            params,
            dict(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=bool(centered)),
        )

    def check(self, group):
        """Refuse settings that make no sense."""
        super().check(group)
        share(self, group, "alpha")

    def kept(self, group):
        """What the settings need."""
        middle = ("grad_avg",) if group["centered"] else ()
        last = ("momentum_buffer",) if group["momentum"] != 0.0 else ()
        return ("square_avg", *middle, *last)

    def rule_for(self, group, new):
        """One for each combination of centered and momentum."""
        if group["centered"]:
            return rules.rmsprop_centered_momentum if group["momentum"] != 0.0 else rules.rmsprop_centered
        return rules.rmsprop_momentum if group["momentum"] != 0.0 else rules.rmsprop

    def coefficients(self, group, step, new):
        """lr, alpha, 1 - alpha, eps, weight_decay, and momentum where there is one."""
        alpha, momentum = group["alpha"], group["momentum"]
        first = group["lr"], alpha, 1.0 - alpha, group["eps"], group["weight_decay"]
        return (*first, momentum) if momentum != 0.0 else first
