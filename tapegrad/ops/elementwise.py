"""Elementwise ops: one scalar function each. Kernels, derivatives of every order and tests follow from it."""

from __future__ import annotations

import math

import numpy as np

from .registry import composite, elementwise

# arithmetic


@elementwise(dtypes="arith", reference=np.add)
def add(x, y):
    """x + y."""
    return x + y


@elementwise(dtypes="arith", reference=np.subtract)
def subtract(x, y):
    """x - y."""
    return x - y


@elementwise(dtypes="arith", reference=np.multiply)
def multiply(x, y):
    """x * y."""
    return x * y


@elementwise(reference=np.divide)
def divide(x, y):
    """x / y, in floating point also for integers."""
    return x / y


@elementwise(
    dtypes="arith",
    reference=np.floor_divide,
    samples=[dict(values=((2.1, 2.4), (0.9, 1.0))), dict(values=((2.1, 2.4), (-1.0, -0.9)))],
)
def floor_divide(x, y):
    """The largest integer not above x / y. An integer divided by 0 gives 0, as in NumPy."""
    return x // y


@elementwise(
    dtypes="arith",
    reference=np.remainder,
    samples=[dict(values=((2.1, 2.4), (0.9, 1.0))), dict(values=((2.1, 2.4), (-1.0, -0.9)))],
)
def remainder(x, y):
    """x - floor(x / y) * y, with the sign of y. An integer modulo 0 gives 0, as in NumPy."""
    return x % y


@elementwise(name="power", dtypes="arith", reference=np.power, samples=[dict(domain=(0.2, 3.0))])
def power(x, y):
    """x to the power y. Integers stay integers; a negative integer exponent gives 0 unless x is 1 or -1."""
    return x**y


@elementwise(dtypes="arith", method=True, reference=np.negative)
def negative(x):
    """-x."""
    return -x


@elementwise(dtypes="keep", method=True, reference=np.abs, samples=[dict(avoid=(0.0,))])
def abs_(x):
    """The absolute value. Its derivative at 0 is 0."""
    return abs(x)


@elementwise(dtypes="keep", method=True, reference=np.sign, samples=[dict(avoid=(0.0,))])
def sign(x):
    """-1, 0 or 1; nan stays nan."""
    return np.sign(x)


@elementwise(dtypes="arith", method=True, reference=np.square)
def square(x):
    """x * x."""
    return x * x


@elementwise(method=True, reference=np.reciprocal, samples=[dict(avoid=(0.0,))])
def reciprocal(x):
    """1 / x."""
    return 1.0 / x


# roots, exponentials, logarithms


@elementwise(method=True, reference=np.sqrt, samples=[dict(domain=(0.1, 4.0))])
def sqrt(x):
    """The square root; nan for negative x, infinite derivative at 0."""
    return math.sqrt(x)


@elementwise(method=True, reference=lambda x: 1 / np.sqrt(x), samples=[dict(domain=(0.1, 4.0))])
def rsqrt(x):
    """1 / sqrt(x)."""
    return 1.0 / math.sqrt(x)


@elementwise(method=True, reference=np.exp)
def exp(x):
    """e to the power x."""
    return math.exp(x)


@elementwise(method=True, reference=np.expm1)
def expm1(x):
    """exp(x) - 1, accurate near 0."""
    return math.expm1(x)


@elementwise(method=True, reference=np.exp2)
def exp2(x):
    """2 to the power x."""
    return math.exp2(x)


@elementwise(method=True, reference=np.log, samples=[dict(domain=(0.1, 4.0))])
def log(x):
    """The natural logarithm; -inf at 0, nan below."""
    return math.log(x)


@elementwise(method=True, reference=np.log1p, samples=[dict(domain=(-0.8, 4.0))])
def log1p(x):
    """log(1 + x), accurate near 0."""
    return math.log1p(x)


@elementwise(method=True, reference=np.log2, samples=[dict(domain=(0.1, 4.0))])
def log2(x):
    """The logarithm to base 2."""
    return math.log2(x)


@elementwise(method=True, reference=np.log10, samples=[dict(domain=(0.1, 4.0))])
def log10(x):
    """The logarithm to base 10."""
    return math.log10(x)


# trigonometric and hyperbolic


@elementwise(method=True, reference=np.sin)
def sin(x):
    """The sine of x radians."""
    return math.sin(x)


@elementwise(method=True, reference=np.cos)
def cos(x):
    """The cosine of x radians."""
    return math.cos(x)


@elementwise(method=True, reference=np.tan, samples=[dict(domain=(-1.2, 1.2))])
def tan(x):
    """The tangent of x radians."""
    return math.tan(x)


@elementwise(method=True, reference=np.arcsin, samples=[dict(domain=(-0.9, 0.9))])
def arcsin(x):
    """The inverse sine, in radians; nan outside [-1, 1]."""
    return math.asin(x)


@elementwise(method=True, reference=np.arccos, samples=[dict(domain=(-0.9, 0.9))])
def arccos(x):
    """The inverse cosine, in radians; nan outside [-1, 1]."""
    return math.acos(x)


@elementwise(method=True, reference=np.arctan)
def arctan(x):
    """The inverse tangent, in radians."""
    return math.atan(x)


@elementwise(reference=np.arctan2, samples=[dict(domain=(0.2, 2.0))])
def arctan2(y, x):
    """The angle of the point (x, y), in (-π, π]."""
    return math.atan2(y, x)


@elementwise(method=True, reference=np.sinh)
def sinh(x):
    """The hyperbolic sine."""
    return math.sinh(x)


@elementwise(method=True, reference=np.cosh)
def cosh(x):
    """The hyperbolic cosine."""
    return math.cosh(x)


@elementwise(method=True, reference=np.tanh)
def tanh(x):
    """The hyperbolic tangent."""
    return math.tanh(x)


def erf_reference(x):
    """The error function of a NumPy array, element by element."""
    return np.vectorize(math.erf, otypes=[float])(x)


@elementwise(method=True, reference=erf_reference)
def erf(x):
    """The error function, 2/√π ∫₀ˣ exp(-t²) dt."""
    return math.erf(x)


# extrema and rounding


@elementwise(dtypes="keep", reference=np.maximum)
def maximum(x, y):
    """The larger of x and y; nan where either is. Equal values share the gradient."""
    return max(x, y)


@elementwise(dtypes="keep", reference=np.minimum)
def minimum(x, y):
    """The smaller of x and y; nan where either is. Equal values share the gradient."""
    return min(x, y)


@elementwise(
    dtypes="keep", public=False, reference=np.clip, samples=[dict(values=((-2.0, 2.0), (-1.0, -0.5), (0.5, 1.0)))]
)
def clip_both(x, low, high):
    """x limited to [low, high], to `high` where that is below `low`. The gradient passes inside, goes to the limit elsewhere."""
    return x if (low <= x) & (x <= high) else min(max(x, low), high)


@elementwise(dtypes="keep", public=False, reference=np.maximum)
def clip_low(x, low):
    """The larger of x and low; unlike in maximum, all of the gradient goes to x where they are equal."""
    return x if x >= low else max(x, low)


@elementwise(dtypes="keep", public=False, reference=np.minimum)
def clip_high(x, high):
    """The smaller of x and high; unlike in minimum, all of the gradient goes to x where they are equal."""
    return x if x <= high else min(x, high)


@composite(
    method=True,
    reference=lambda x, min=None, max=None: np.clip(x, min, max),
    samples=[dict(shapes=((3, 4),), attrs=dict(min=-0.5, max=0.5)), dict(shapes=((5,),), attrs=dict(max=0.3))],
)
def clip(x, min=None, max=None):
    """x limited to [min, max]; None leaves that side open. Inside, limits included, the gradient passes."""
    if min is not None and max is not None:
        return clip_both(x, min, max)
    if min is not None:
        return clip_low(x, min)
    return clip_high(x, max) if max is not None else identity_copy(x)


@elementwise(dtypes="keep", public=False, reference=np.positive)
def identity_copy(x):
    """A copy of x."""
    return x


@elementwise(dtypes="keep", method=True, reference=np.floor, samples=[dict(domain=(0.1, 0.9))])
def floor(x):
    """The largest integer not above x. Its derivative is 0."""
    return np.floor(x)


@elementwise(dtypes="keep", method=True, reference=np.ceil, samples=[dict(domain=(0.1, 0.9))])
def ceil(x):
    """The smallest integer not below x. Its derivative is 0."""
    return np.ceil(x)


@elementwise(dtypes="keep", method=True, reference=np.round, samples=[dict(domain=(0.1, 0.4))])
def round_(x):
    """The nearest integer, halves to even. Its derivative is 0."""
    return np.rint(x)


@elementwise(dtypes="keep", truths=(0,), reference=np.where)
def where(condition, x, y):
    """x where condition holds, y elsewhere. The branch not taken gets gradient 0, whatever its value."""
    return x if condition else y
