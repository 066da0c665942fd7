"""Update rules: for one element, the new values of the parameter and its state. Each is one kernel per parameter.

Learning rates, step counts and coefficients are inputs like any other, never constants of the kernel, so changing them
compiles nothing. Complements such as 1 - β are inputs of their own: in float32, 1 - 0.999 would be off by 5e-5.
"""

from __future__ import annotations

import math

from ..ops.registry import Op


def rule(fn) -> Op:
    """An elementwise op that is no public function: it writes its results into existing tensors."""
    return Op(fn.__name__, fn, "elementwise", public=False, differentiable=False)


@rule
def sgd(p, g, lr, weight_decay):
    """p - lr · (g + weight_decay · p)."""
    return p - lr * (g + weight_decay * p)


@rule
def sgd_momentum_first(p, g, v, lr, weight_decay):
    """The first step with momentum: the velocity starts as the gradient (Sutskever et al. 2013, as PyTorch has it)."""
    d = g + weight_decay * p
    return p - lr * d, d


@rule
def sgd_nesterov_first(p, g, v, lr, weight_decay, momentum):
    """The first step with Nesterov momentum."""
    d = g + weight_decay * p
    return p - lr * (d + momentum * d), d


@rule
def sgd_momentum(p, g, v, lr, weight_decay, momentum, take):
    """v' = momentum · v + take · g; p' = p - lr · v'. take = 1 - dampening."""
    d = g + weight_decay * p
    v = momentum * v + take * d
    return p - lr * v, v


@rule
def sgd_nesterov(p, g, v, lr, weight_decay, momentum, take):
    """Nesterov's form: p' = p - lr · (g + momentum · v')."""
    d = g + weight_decay * p
    v = momentum * v + take * d
    return p - lr * (d + momentum * v), v


@rule
def adam(p, g, m, v, step_size, take1, beta2, take2, root_correction, eps, weight_decay):
    """Kingma & Ba 2015, with L2 decay added to the gradient.

    step_size = lr / (1 - β1ᵗ), take = 1 - β, root_correction = √(1 - β2ᵗ).
    """
    d = g + weight_decay * p
    m = m + take1 * (d - m)
    v = beta2 * v + take2 * (d * d)
    return p - step_size * m / (math.sqrt(v) / root_correction + eps), m, v


@rule
def adamw(p, g, m, v, step_size, take1, beta2, take2, root_correction, eps, decay):
    """Loshchilov & Hutter 2019: the decay acts on the parameter, not on the moments. decay = 1 - lr · weight_decay."""
    p = p * decay
    m = m + take1 * (g - m)
    v = beta2 * v + take2 * (g * g)
    return p - step_size * m / (math.sqrt(v) / root_correction + eps), m, v


@rule
def adagrad(p, g, s, step_size, eps, weight_decay):
    """Duchi, Hazan & Singer 2011: s is the sum of the squared gradients; step_size = lr / (1 + (t - 1) · lr_decay)."""
    d = g + weight_decay * p
    s = s + d * d
    return p - step_size * d / (math.sqrt(s) + eps), s
