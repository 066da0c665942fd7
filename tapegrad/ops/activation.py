"""Activations: elementwise ops with names of their own in neural networks."""

from __future__ import annotations

import math

import numpy as np

from ..errors import ShapeError
from .axes import one_axis
from .elementwise import erf_reference
from .joining import split
from .movement import reshape
from .registry import Tensor, composite, elementwise
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


# more activations, in the namespace of `tapegrad.nn.functional`

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017


@elementwise(
    namespace="nn",
    reference=lambda x: SELU_SCALE * np.where(x <= 0, SELU_ALPHA * np.expm1(x), x),
    samples=[dict(avoid=(0.0,))],
)
def selu(x):
    """ELU with the two constants that keep mean 0 and variance 1 through layers (Klambauer et al. 2017)."""
    return SELU_SCALE * SELU_ALPHA * math.expm1(x) if x <= 0.0 else SELU_SCALE * x


@elementwise(
    namespace="nn",
    reference=lambda x, a=1.0: np.where(x <= 0, a * np.expm1(x / a), x),
    samples=[dict(values=((-2.0, 2.0), (0.5, 1.5)), avoid=(0.0,))],
)
def celu(x, alpha=1.0):
    """x where x > 0, alpha * (exp(x / alpha) - 1) elsewhere (Barron 2017): smooth for every alpha."""
    return alpha * math.expm1(x / alpha) if x <= 0.0 else x


@elementwise(
    namespace="nn",
    reference=lambda x: np.where(x <= 0, 0.0, np.minimum(x, 6.0)),
    samples=[dict(domain=(-8.0, 8.0), avoid=(0.0, 6.0))],
)
def relu6(x):
    """min(max(x, 0), 6)."""
    return 0.0 if x <= 0.0 else 6.0 if x >= 6.0 else x


@elementwise(
    namespace="nn",
    reference=lambda x: np.clip(x / 6 + 0.5, 0, 1),
    samples=[dict(domain=(-5.0, 5.0), avoid=(-3.0, 3.0))],
)
def hardsigmoid(x):
    """x / 6 + 1/2 between -3 and 3, 0 below, 1 above."""
    return 0.0 if x <= -3.0 else 1.0 if x >= 3.0 else x * (1.0 / 6.0) + 0.5


@elementwise(
    namespace="nn",
    reference=lambda x: np.where(x <= -3, 0.0, x * np.clip(x / 6 + 0.5, 0, 1)),
    samples=[dict(domain=(-5.0, 5.0), avoid=(-3.0, 3.0))],
)
def hardswish(x):
    """x * hardsigmoid(x) (Howard et al. 2019)."""
    return 0.0 if x <= -3.0 else x if x >= 3.0 else x * (x * (1.0 / 6.0) + 0.5)


@elementwise(namespace="nn", reference=lambda x: -np.logaddexp(0, -x))
def logsigmoid(x):
    """log(sigmoid(x)), without overflow."""
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))


@logsigmoid.derivative
def _(x):
    return logistic(-x)


@elementwise(namespace="nn", reference=lambda x: x * np.tanh(np.logaddexp(0, x)))
def mish(x):
    """x * tanh(softplus(x)) (Misra 2019)."""
    return x * math.tanh(softplus(x))


@elementwise(namespace="nn", reference=lambda x: x - np.tanh(x))
def tanhshrink(x):
    """x - tanh(x)."""
    return x - math.tanh(x)


_BETWEEN = [dict(values=((-2.0, 2.0), (0.3, 0.7)))]


@elementwise(
    namespace="nn",
    reference=lambda x, k=0.5: np.where((x <= k) & (x >= -k), 0.0, np.where(x > k, x - k, x + k)),
    samples=_BETWEEN,
)
def softshrink(x, lambd=0.5):
    """x - lambd above lambd, x + lambd below -lambd, 0 between."""
    return 0.0 if (x <= lambd) & (x >= -lambd) else x - lambd if x > lambd else x + lambd


@elementwise(namespace="nn", reference=lambda x, k=0.5: np.where((x <= k) & (x >= -k), 0.0, x), samples=_BETWEEN)
def hardshrink(x, lambd=0.5):
    """x where |x| > lambd, 0 elsewhere."""
    return 0.0 if (x <= lambd) & (x >= -lambd) else x


@elementwise(
    namespace="nn",
    reference=lambda x, t, v: np.where(x <= t, v, x),
    samples=[dict(values=((-2.0, 2.0), (0.1, 0.3), (4.0, 5.0)))],
)
def threshold(x, threshold, value):
    """x where x > threshold, `value` elsewhere."""
    return value if x <= threshold else x


@elementwise(
    namespace="nn",
    reference=lambda x, low=-1.0, high=1.0: np.where(x <= low, low, np.where(x >= high, high, x)),
    samples=[dict(values=((-2.0, 2.0), (-0.9, -0.6), (0.6, 0.9)))],
)
def hardtanh(x, min_val=-1.0, max_val=1.0):
    """x limited to [min_val, max_val]; no gradient passes at the limits or outside."""
    return min_val if x <= min_val else max_val if x >= max_val else x


def _channel_weight(x, w):
    return w if w.size == 1 or x.ndim < 2 else w.reshape((-1, *(1,) * (x.ndim - 2)))


@composite(
    namespace="nn",
    reference=lambda x, w: np.where(x <= 0, x * _channel_weight(x, w), x),
    samples=[
        dict(shapes=((2, 3, 4), (3,)), avoid=(0.0,)),
        dict(shapes=((3, 4), (1,)), avoid=(0.0,)),
        dict(shapes=((5,), (1,)), avoid=(0.0,)),
    ],
)
def prelu(input: Tensor, weight: Tensor):
    """x where x > 0, weight * x elsewhere (He et al. 2015): weight (1,), or (C,) with one slope for each channel of axis 1."""
    if weight.size != 1 and (input.ndim < 2 or weight.shape != (input.shape[1],)):
        raise ShapeError(
            f"prelu: weight has shape {weight.shape}, wanted (1,) or one slope for each channel, which are axis 1 of the "
            f"input's shape {input.shape}"
        )
    if weight.size == 1:
        return leaky_relu(input, reshape(weight, ()))
    return leaky_relu(input, reshape(weight, (-1, *(1,) * (input.ndim - 2))))


@composite(
    namespace="nn",
    reference=lambda x, dim=-1: np.split(x, 2, dim)[0] * _stable_sigmoid(np.split(x, 2, dim)[1]),
    samples=[dict(shapes=((3, 4),)), dict(shapes=((2, 6, 3),), args=(1,))],
)
def glu(input: Tensor, dim=-1):
    """The first half along `dim` times the sigmoid of the second (Dauphin et al. 2017)."""
    axis = one_axis(dim, input.ndim, "glu")
    if input.shape[axis] % 2:
        raise ShapeError(f"glu: axis {axis} of shape {input.shape} has an odd length; it is split into halves")
    first, second = split(input, 2, axis)
    return first * sigmoid(second)
