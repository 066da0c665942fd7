"""Adam and AdamW."""

from __future__ import annotations

import math

from . import rules
from .optimizer import Optimizer


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
    tensors = ("exp_avg", "exp_avg_sq")
    numbers = ("step",)

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    def rule_for(self, group, new):
        """Adam's rule, whatever the settings."""
        return self.rule

    def coefficients(self, group, step, new):
        """step_size, 1 - β1, β2, 1 - β2, root_correction, eps, decay."""
        beta1, beta2 = group["betas"]
        step_size = group["lr"] / (1.0 - beta1**step)
        correction = math.sqrt(1.0 - beta2**step)
        return step_size, 1.0 - beta1, beta2, 1.0 - beta2, correction, group["eps"], self.decay(group)

    def decay(self, group) -> float:
        """The rule's last input."""
        return group["weight_decay"]


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    rule = rules.adamw

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        super().__init__(params, lr, betas, eps, weight_decay)

    def decay(self, group) -> float:
        """1 - lr · weight_decay."""
        return 1.0 - group["lr"] * group["weight_decay"]
