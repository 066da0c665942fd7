"""Adadelta."""

from __future__ import annotations

from . import rules
from .optimizer import Optimizer
from .settings import share


class Adadelta(Optimizer):
    """Zeiler 2012, "ADADELTA: an adaptive learning rate method". Arguments as in PyTorch.

    >>> import tapegrad as tg
    >>> w = tg.tensor([1.0], requires_grad=True)
    >>> optimizer = Adadelta([w])
    >>> (w * w).sum().backward(); optimizer.step()
    >>> round(w.item(), 4)
    0.9968
    """

    tensors = ("square_avg", "acc_delta")
    numbers = ("step",)

    def __init__(self, params, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0.0):
        super().__init__(params, dict(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay))

    def check(self, group):
        """Refuse settings that make no sense."""
        super().check(group)
        share(self, group, "rho")

    def rule_for(self, group, new):
        """Adadelta's rule, whatever the settings."""
        return rules.adadelta

    def coefficients(self, group, step, new):
        """lr, rho, 1 - rho, eps, weight_decay."""
        return group["lr"], group["rho"], 1.0 - group["rho"], group["eps"], group["weight_decay"]
