"""Activations: elementwise ops with names of their own in neural networks."""

from __future__ import annotations

import math

import numpy as np

from .elementwise import erf_reference
from .registry import composite, elementwise
from .scalar import logistic

SQRT_HALF = math.sqrt(0.5)
SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)


def _stable_sigmoid(x):
    return np.exp(-np.logaddexp(0, -x))


@elementwise(method=True, reference=_stable_sigmoid)
def sigmoid(x):
    """1 / (1 + exp(-x)), without overflow."""
    return logistic(x)


@elementwise(method=True, reference=lambda x: np.maximum(x, 0), dtypes="keep", samples=[dict(avoid=(0.0,))])
def relu(x):
    """max(x, 0). Its derivative at 0 is 0."""
    return 0 if x <= 0 else x


@elementwise(reference=lambda x, s=0.01: np.where(x <= 0, s * x, x), samples=[dict(avoid=(0.0,))])
def leaky_relu(x, negative_slope=0.01):
    """x where x > 0, negative_slope * x elsewhere."""
    return x * negative_slope if x <= 0.0 else x


@elementwise(reference=lambda x, a=1.0: np.where(x <= 0, a * np.expm1(x), x), samples=[dict(avoid=(0.0,))])
def elu(x, alpha=1.0):
    """x where x > 0, alpha * (exp(x) - 1) elsewhere (Clevert et al. 2015)."""
    return alpha * math.expm1(x) if x <= 0.0 else x


@elementwise(reference=lambda x: 0.5 * x * (1 + erf_reference(x * SQRT_HALF)), public=False)
def gelu_erf(x):
    """x times the normal distribution function of x (Hendrycks & Gimpel 2016)."""
    return 0.5 * x * (1.0 + math.erf(x * SQRT_HALF))


@elementwise(reference=lambda x: 0.5 * x * (1 + np.tanh(SQRT_2_OVER_PI * (x + 0.044715 * x**3))), public=False)
def gelu_tanh(x):
    """The tanh approximation of gelu."""
    return 0.5 * x * (1.0 + math.tanh(SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)))


@composite(
    reference=lambda x, approximate="none": gelu_erf.reference(x) if approximate == "none" else gelu_tanh.reference(x),
    samples=[dict(shapes=((3, 4),)), dict(shapes=((5,),), attrs=dict(approximate="tanh"))],
)
def gelu(x, approximate="none"):
    """x times the normal distribution function of x; approximate="tanh" is the cheaper form."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f'gelu: approximate is "none" or "tanh", not {approximate!r}')
    return gelu_erf(x) if approximate == "none" else gelu_tanh(x)


@elementwise(reference=lambda x: x * _stable_sigmoid(x))
def silu(x):
    """x * sigmoid(x), also called swish."""
    return x * logistic(x)


@elementwise(reference=lambda x: np.logaddexp(0, x))
def softplus(x):
    """log(1 + exp(x)), without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@softplus.derivative
def _(x):
    return logistic(x)


@elementwise(reference=lambda x: x / (1 + np.abs(x)))
def softsign(x):
    """x / (1 + |x|)."""
    return x / (1.0 + abs(x))
