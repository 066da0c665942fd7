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


@rule
def adadelta(p, g, s, u, lr, rho, take, eps, weight_decay):
    """Zeiler 2012: s and u are means of squared gradients and squared updates. take = 1 - rho."""
    d = g + weight_decay * p
    s = rho * s + take * (d * d)
    delta = math.sqrt(u + eps) / math.sqrt(s + eps) * d
    u = rho * u + take * (delta * delta)
    return p - lr * delta, s, u


@rule
def rmsprop(p, g, s, lr, alpha, take, eps, weight_decay):
    """Tieleman & Hinton 2012 (lecture 6.5): s is a mean of squared gradients. take = 1 - alpha."""
    d = g + weight_decay * p
    s = alpha * s + take * (d * d)
    return p - lr * d / (math.sqrt(s) + eps), s


@rule
def rmsprop_momentum(p, g, s, v, lr, alpha, take, eps, weight_decay, momentum):
    """RMSprop whose steps gather in a velocity."""
    d = g + weight_decay * p
    s = alpha * s + take * (d * d)
    v = momentum * v + d / (math.sqrt(s) + eps)
    return p - lr * v, s, v


@rule
def rmsprop_centered(p, g, s, m, lr, alpha, take, eps, weight_decay):
    """Graves 2013: the gradients' variance in place of their mean square."""
    d = g + weight_decay * p
    s = alpha * s + take * (d * d)
    m = m + take * (d - m)
    return p - lr * d / (math.sqrt(s - m * m) + eps), s, m


@rule
def rmsprop_centered_momentum(p, g, s, m, v, lr, alpha, take, eps, weight_decay, momentum):
    """Both."""
    d = g + weight_decay * p
    s = alpha * s + take * (d * d)
    m = m + take * (d - m)
    v = momentum * v + d / (math.sqrt(s - m * m) + eps)
    return p - lr * v, s, m, v


@rule
def nadam(p, g, m, v, step_now, step_mean, take1, beta2, take2, correction, eps, weight_decay, decay):
    """Dozat 2016: a step along the gradient of now and along its mean. correction = 1 - β2ᵗ; decay = 1 - lr · weight_decay."""
    p = p * decay
    d = g + weight_decay * p
    m = m + take1 * (d - m)
    v = beta2 * v + take2 * (d * d)
    root = math.sqrt(v / correction) + eps
    return p - step_now * d / root - step_mean * m / root, m, v


@rule
def radam(p, g, m, v, plain, adaptive, take1, beta2, take2, eps, weight_decay, decay):
    """Liu et al. 2020: the first steps, when the variance says little, are plain ones; then adaptive > 0."""
    p = p * decay
    d = g + weight_decay * p
    m = m + take1 * (d - m)
    v = beta2 * v + take2 * (d * d)
    return p - m * (adaptive / (math.sqrt(v) + eps) if adaptive > 0.0 else plain), m, v


@rule
def lion(p, g, m, lr, beta1, take1, beta2, take2, decay):
    """Chen et al. 2023, algorithm 2: steps of equal size, in the direction of the sign. decay = 1 - lr · weight_decay."""
    c = beta1 * m + take1 * g
    sign = 1.0 if c > 0.0 else (-1.0 if c < 0.0 else c)
    return p * decay - lr * sign, beta2 * m + take2 * g
