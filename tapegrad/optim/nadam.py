"""NAdam and RAdam: Adam with Nesterov momentum, and with rectified first steps."""

from __future__ import annotations

import math
from numbers import Real

from ..errors import ShapeError
from . import rules
from .optimizer import Optimizer

_products: dict[tuple[float, float], list[float]] = {}


def momentum_product(beta1: float, decay: float, step: int) -> float:
    """Π μᵢ for i = 1 … step, where μᵢ = β1 · (1 - 0.96^(i · decay) / 2)."""
    found = _products.setdefault((beta1, decay), [1.0])
    while len(found) <= step:
        found.append(found[-1] * momentum(beta1, decay, len(found)))
    return found[step]


def momentum(beta1: float, decay: float, step: int) -> float:
    """μ of a step."""
    return beta1 * (1.0 - 0.5 * 0.96 ** (step * decay))


class _Decayed(Optimizer):
    """What both share: moments, and decay of either kind."""

    tensors = ("exp_avg", "exp_avg_sq")
    numbers = ("step",)

    @staticmethod
    def decays(group) -> tuple[float, float]:
        """The decay added to the gradient, and the factor on the parameter."""
        if group["decoupled_weight_decay"]:
            return 0.0, 1.0 - group["lr"] * group["weight_decay"]
        return group["weight_decay"], 1.0


class NAdam(_Decayed):
    """Dozat 2016, "Incorporating Nesterov momentum into Adam". Arguments as in PyTorch.

    >>> import tapegrad as tg
    >>> w = tg.tensor([1.0], requires_grad=True)
    >>> optimizer = NAdam([w], lr=0.1)
    >>> (w * w).sum().backward(); optimizer.step()
    >>> round(w.item(), 4)
    0.8944
    """

    def __init__(
        self,
        params,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
    ):
        super().__init__(
            params,
            dict(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                momentum_decay=momentum_decay,
                decoupled_weight_decay=bool(decoupled_weight_decay),
            ),
        )

    def check(self, group):
        """Refuse settings that make no sense."""
        super().check(group)
        value = group["momentum_decay"]
        if not isinstance(value, Real) or not 0.0 <= float(value) < math.inf:
            raise ShapeError(f"NAdam: momentum_decay is a number from 0, not {value!r}")

    def rule_for(self, group, new):
        """NAdam's rule, whatever the settings."""
        return rules.nadam

    def coefficients(self, group, step, new):
        """Steps along the gradient and its mean, 1 - β1, β2, 1 - β2, 1 - β2ᵗ, eps, the two decays."""
        (beta1, beta2), lr, decay = group["betas"], group["lr"], group["momentum_decay"]
        now, following = momentum(beta1, decay, step), momentum(beta1, decay, step + 1)
        product = momentum_product(beta1, decay, step)
        along = lr * (1.0 - now) / (1.0 - product)
        mean = lr * following / (1.0 - product * following)
        correction = 1.0 - beta2**step
        return along, mean, 1.0 - beta1, beta2, 1.0 - beta2, correction, group["eps"], *self.decays(group)


class RAdam(_Decayed):
    """Liu et al. 2020, "On the variance of the adaptive learning rate and beyond". Arguments as in PyTorch.

    >>> import tapegrad as tg
    >>> w = tg.tensor([1.0], requires_grad=True)
    >>> optimizer = RAdam([w], lr=0.1)
    >>> (w * w).sum().backward(); optimizer.step()
    >>> round(w.item(), 4)
    0.8
    """

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
    ):
        super().__init__(
            params,
            dict(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                decoupled_weight_decay=bool(decoupled_weight_decay),
            ),
        )

    def rule_for(self, group, new):
        """RAdam's rule, whatever the settings."""
        return rules.radam

    def coefficients(self, group, step, new):
        """The plain and the adaptive step (0 while there is none), 1 - β1, β2, 1 - β2, eps, the two decays."""
        beta1, beta2 = group["betas"]
        plain, adaptive = group["lr"] / (1.0 - beta1**step), 0.0
        power = beta2**step
        limit = 2.0 / (1.0 - beta2) - 1.0
        length = limit - 2.0 * step * power / (1.0 - power)  # of the average, in the paper's terms
        if length > 5.0:
            rectified = math.sqrt((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length))
            adaptive = plain * rectified * math.sqrt(1.0 - power)
        return plain, adaptive, 1.0 - beta1, beta2, 1.0 - beta2, group["eps"], *self.decays(group)
