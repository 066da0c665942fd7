"""Adam and AdamW."""

from __future__ import annotations

import math

from ..tape.assign import update
from ..tape.create import zeros_like
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

    def update(self, p, g, state, group):
        """One step of one parameter."""
        if not state:
            state.update(step=0, exp_avg=zeros_like(p), exp_avg_sq=zeros_like(p))
        state["step"] += 1
        beta1, beta2 = group["betas"]
        step_size = group["lr"] / (1.0 - beta1 ** state["step"])
        correction = math.sqrt(1.0 - beta2 ** state["step"])
        m, v = state["exp_avg"], state["exp_avg_sq"]
        settings = self.scalars(
            p, step_size, 1.0 - beta1, beta2, 1.0 - beta2, correction, group["eps"], self.decay(group)
        )
        update((p, m, v), self.rule, (p, g, m, v, *settings))

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
