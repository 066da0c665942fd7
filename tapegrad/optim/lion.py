"""Lion."""

from __future__ import annotations

from . import rules
from .optimizer import Optimizer


class Lion(Optimizer):
    """Chen et al. 2023, "Symbolic discovery of optimization algorithms": the sign of a mean of gradients, decoupled decay.

    >>> import tapegrad as tg
    >>> w = tg.tensor([1.0], requires_grad=True)
    >>> optimizer = Lion([w], lr=0.1)
    >>> (w * w).sum().backward(); optimizer.step()
    >>> round(w.item(), 4)
    0.9
    """

    tensors = ("exp_avg",)
    numbers = ("step",)

    def __init__(self, params, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    def rule_for(self, group, new):
        """Lion's rule, whatever the settings."""
        return rules.lion

    def coefficients(self, group, step, new):
        """lr, β1, 1 - β1, β2, 1 - β2, 1 - lr · weight_decay."""
        (beta1, beta2), lr = group["betas"], group["lr"]
        return lr, beta1, 1.0 - beta1, beta2, 1.0 - beta2, 1.0 - lr * group["weight_decay"]
