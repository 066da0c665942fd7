"""Reductions: over any axes, with keepdims."""

from __future__ import annotations

import math

import numpy as np

from ..dtypes import bool_, int64
from ..errors import ShapeError
from .axes import many_axes, one_axis
from .comparison import equal
from .elementwise import exp, multiply, where
from .joining import pad
from .movement import astype, broadcast_to, flip, floating, permute, reshape
from .registry import Tensor, composite, elementwise, primitive

_AXES = [
    dict(shapes=((3, 4),)),
    dict(shapes=((2, 3, 4),), attrs=dict(axis=(0, 2))),
    dict(shapes=((3, 4),), attrs=dict(axis=-1, keepdims=True)),
    dict(shapes=((2, 3, 4),), attrs=dict(axis=1)),
]


def reduced(shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    """The shape after a reduction.

    >>> reduced((2, 3, 4), (1,), True)
    (2, 1, 4)
    """
    if keepdims:
        return tuple(1 if a in axes else n for a, n in enumerate(shape))
    return tuple(n for a, n in enumerate(shape) if a not in axes)


def _kept(shape, axes):
    return reduced(shape, axes, True)


def spread(g, x, axes):
    """A reduced tensor broadcast back over the axes that were reduced."""
    return broadcast_to(reshape(g, _kept(x.shape, axes)), x.shape)


def _not_empty(x, axes: tuple[int, ...], op_name: str) -> None:
    if any(x.shape[a] == 0 for a in axes):
        raise ShapeError(
            f"{op_name}: axes {axes} of shape {x.shape} hold no elements, and {op_name} of nothing has no value; check the shape first"
        )


@primitive(
    method=True, reference=lambda x, axis=None, keepdims=False: np.sum(x, axis, keepdims=keepdims), samples=_AXES
)
def sum_(x: Tensor, axis=None, keepdims=False):
    """The sum over the axes given, or all. Integers and truth values sum to int64; float32 is accumulated in float64."""
    return (x,), {"axes": many_axes(axis, x.ndim, "sum"), "keepdims": bool(keepdims)}


@sum_.shape
def _(x, axes, keepdims):
    return reduced(x.shape, axes, keepdims), x.dtype if x.dtype.is_float else int64


@sum_.adjoint(0, saves=())
def _(g, y, x, axes, keepdims):
    return spread(g, x, axes)


@composite(
    sums=True,
    method=True,
    reference=lambda x, axis=None, keepdims=False: np.mean(x, axis, keepdims=keepdims),
    samples=_AXES,
)
def mean(x: Tensor, axis=None, keepdims=False):
    """The mean over the axes given, or all. Integers give float32."""
    axes = many_axes(axis, x.ndim, "mean")
    _not_empty(x, axes, "mean")
    x = floating(x)
    return multiply(sum_(x, axes, keepdims), 1.0 / math.prod(x.shape[a] for a in axes))


@primitive(
    method=True, reference=lambda x, axis=None, keepdims=False: np.prod(x, axis, keepdims=keepdims), samples=_AXES
)
def prod(x: Tensor, axis=None, keepdims=False):
    """The product over the axes given, or all. Right also where factors are 0."""
    return (x,), {"axes": many_axes(axis, x.ndim, "prod"), "keepdims": bool(keepdims)}


@prod.shape
def _(x, axes, keepdims):
    return reduced(x.shape, axes, keepdims), x.dtype if x.dtype.is_float else int64


@prod.adjoint(0, saves=(0,))
def _(g, y, x, axes, keepdims):
    # The product of all other factors: what stands before times what stands after, by doubling shifts. Dividing y by x
    # would lose every gradient beside a zero.
    kept = tuple(a for a in range(x.ndim) if a not in axes)
    order = kept + axes
    flat = reshape(permute(x, order), (*(x.shape[a] for a in kept), -1 if x.size else 0))
    others = multiply(_exclusive_product(flat), flip(_exclusive_product(flip(flat, -1)), -1))
    others = reshape(others, tuple(x.shape[a] for a in order))
    return multiply(spread(g, x, axes), permute(others, tuple(sorted(range(x.ndim), key=order.__getitem__))))


def _exclusive_product(x):
    """Along the last axis, the product of all elements before each (Hillis & Steele 1986)."""

    n, shift = x.shape[-1], 1
    before = ((0, 0),) * (x.ndim - 1)
    p = pad(x[..., : n - 1], (*before, (1, 0)), 1) if n else x
    while shift < n:
        p = multiply(p, pad(p[..., : n - shift], (*before, (shift, 0)), 1))
        shift *= 2
    return p


def _extremum(name: str, reference, doc: str):
    def extremum(x: Tensor, axis=None, keepdims=False):
        axes = many_axes(axis, x.ndim, name)
        _not_empty(x, axes, name)
        return (x,), {"axes": axes, "keepdims": bool(keepdims)}

    extremum.__name__, extremum.__doc__ = name, doc
    op = primitive(method=True, samples=_AXES, reference=reference)(extremum)

    @op.shape
    def _(x, axes, keepdims):
        return reduced(x.shape, axes, keepdims), x.dtype

    @op.adjoint(0, saves=(0, "y"))
    def _(g, y, x, axes, keepdims):
        hit = astype(equal(x, reshape(y, _kept(x.shape, axes))), g.dtype)
        return hit * reshape(g, _kept(x.shape, axes)) / sum_(hit, axes, keepdims=True)

    return op


max_ = _extremum(
    "max",
    lambda x, axis=None, keepdims=False: np.max(x, axis, keepdims=keepdims),
    "The largest element over the axes given, or all; nan where there is one. Equal largest elements share the gradient.",
)
min_ = _extremum(
    "min",
    lambda x, axis=None, keepdims=False: np.min(x, axis, keepdims=keepdims),
    "The smallest element over the axes given, or all; nan where there is one. Equal smallest elements share the gradient.",
)


@composite(
    sums=True,
    method=True,
    reference=lambda x, axis=None, keepdims=False, correction=0: np.var(x, axis, ddof=correction, keepdims=keepdims),
    samples=_AXES,
)
def var(x: Tensor, axis=None, keepdims=False, correction=0):
    """The variance over the axes given, or all: the mean squared distance from the mean, divided by n - correction."""
    axes = many_axes(axis, x.ndim, "var")
    _not_empty(x, axes, "var")
    x = floating(x)
    n = math.prod(x.shape[a] for a in axes)
    if n <= correction:
        raise ShapeError(f"var: {n} elements with correction {correction} leave nothing to divide by")
    centred = x - mean(x, axes, keepdims=True)
    return multiply(sum_(centred * centred, axes, keepdims), 1.0 / (n - correction))


@elementwise(public=False, reference=np.sqrt, samples=[dict(domain=(0.1, 4.0))])
def sqrt_or_zero(x):
    """sqrt(x) whose derivative at 0 is taken as 0: for lengths and spreads, which are not differentiable there."""
    return math.sqrt(x)


@sqrt_or_zero.derivative
def _(x):
    return 0.0 if x == 0.0 else 0.5 / math.sqrt(x)


@composite(
    sums=True,
    method=True,
    reference=lambda x, axis=None, keepdims=False, correction=0: np.std(x, axis, ddof=correction, keepdims=keepdims),
    samples=_AXES,
)
def std(x: Tensor, axis=None, keepdims=False, correction=0):
    """The standard deviation: the square root of `var`. Its derivative is taken as 0 where it is 0."""
    return sqrt_or_zero(var(x, axis, keepdims, correction))


@primitive(public=False, builder="logsumexp")
def logsumexp_kernel(x: Tensor, axes, keepdims):
    """log(sum_(exp(x))) over axes."""
    return (x,), {"axes": axes, "keepdims": keepdims}


@logsumexp_kernel.shape
def _(x, axes, keepdims):
    return reduced(x.shape, axes, keepdims), x.dtype


@logsumexp_kernel.adjoint(0, saves=(0, "y"))
def _(g, y, x, axes, keepdims):
    weights = exp(x - reshape(y, _kept(x.shape, axes)))
    weights = where(
        equal(reshape(y, _kept(x.shape, axes)), -math.inf), 0.0, weights
    )  # of nothing but -inf: no gradient
    return weights * reshape(g, _kept(x.shape, axes))


def _logsumexp(x, axis=None, keepdims=False):
    peak = np.max(x, axis, keepdims=True)
    total = np.log(np.sum(np.exp(x - peak), axis, keepdims=True)) + peak
    return total if keepdims else np.squeeze(total, axis)


@composite(method=True, reference=_logsumexp, samples=_AXES)
def logsumexp(x: Tensor, axis=None, keepdims=False):
    """log(sum_(exp(x))) over the axes given, or all, without overflow."""
    axes = many_axes(axis, x.ndim, "logsumexp")
    return logsumexp_kernel(floating(x), axes, bool(keepdims))


def _arg(name: str, reference, doc: str):
    def arg(x: Tensor, axis=None, keepdims=False):
        found = None if axis is None else one_axis(axis, x.ndim, name)
        _not_empty(x, tuple(range(x.ndim)) if found is None else (found,), name)
        return (x,), {"axis": found, "keepdims": bool(keepdims)}

    arg.__name__, arg.__doc__ = name, doc
    op = primitive(
        method=True,
        differentiable=False,
        reference=reference,
        samples=[dict(shapes=((3, 4),)), dict(shapes=((2, 3, 4),), attrs=dict(axis=1))],
    )(arg)

    @op.shape
    def _(x, axis, keepdims):
        return reduced(x.shape, tuple(range(x.ndim)) if axis is None else (axis,), keepdims), int64

    return op


argmax = _arg(
    "argmax",
    lambda x, axis=None, keepdims=False: np.argmax(x, axis, keepdims=keepdims),
    "The int64 index of the first largest element along an axis, or of the flattened tensor. nan counts as largest.",
)
argmin = _arg(
    "argmin",
    lambda x, axis=None, keepdims=False: np.argmin(x, axis, keepdims=keepdims),
    "The int64 index of the first smallest element along an axis, or of the flattened tensor. nan counts as smallest.",
)


def _truth(name: str, reference, doc: str):
    def truth(x: Tensor, axis=None, keepdims=False):
        return (x,), {"axes": many_axes(axis, x.ndim, name), "keepdims": bool(keepdims)}

    truth.__name__, truth.__doc__ = name, doc
    op = primitive(method=True, differentiable=False, reference=reference, samples=_AXES)(truth)

    @op.shape
    def _(x, axes, keepdims):
        return reduced(x.shape, axes, keepdims), bool_

    return op


any_ = _truth(
    "any",
    lambda x, axis=None, keepdims=False: np.any(x, axis, keepdims=keepdims),
    "True where any element over the axes is not 0.",
)
all_ = _truth(
    "all",
    lambda x, axis=None, keepdims=False: np.all(x, axis, keepdims=keepdims),
    "True where no element over the axes is 0.",
)


@primitive(public=False, builder="cumsum")
def cumsum_kernel(x: Tensor, axis):
    """Running sums along an axis."""
    return (x,), {"axis": axis}


@cumsum_kernel.shape
def _(x, axis):
    return x.shape, x.dtype if x.dtype.is_float else int64


@cumsum_kernel.adjoint(0, saves=())
def _(g, y, x, axis):
    return flip(cumsum_kernel(flip(g, axis), axis), axis)


@composite(
    method=True,
    reference=lambda x, axis=None: np.cumsum(x, axis),
    samples=[dict(shapes=((3, 4),), attrs=dict(axis=0)), dict(shapes=((3, 4),))],
)
def cumsum(x: Tensor, axis=None):
    """Running sums along an axis, or of the flattened tensor."""
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    return cumsum_kernel(x, one_axis(axis, x.ndim, "cumsum"))


@elementwise(public=False, reference=np.power, samples=[dict(domain=(0.2, 3.0))])
def root_or_zero(x, exponent):
    """x to an exponent below 1, whose derivative at 0 is taken as 0 where it would be infinite."""
    return x**exponent


@root_or_zero.derivative
def _(x, exponent):
    return 0.0 if x == 0.0 else exponent * x ** (exponent - 1.0), 0.0 if x == 0.0 else x**exponent * math.log(x)


def _norm(x, axis=None, keepdims=False, ord=2):
    return np.linalg.vector_norm(x, axis=axis, keepdims=keepdims, ord=ord)


_NORMS = [
    dict(shapes=((3, 4),)),
    dict(shapes=((3, 4),), attrs=dict(axis=0, ord=1)),
    dict(shapes=((3, 4),), attrs=dict(axis=1, ord=math.inf)),
    dict(shapes=((3, 4),), attrs=dict(axis=1, keepdims=True, ord=3)),
]


@composite(sums=True, method=True, reference=_norm, samples=_NORMS)
def norm(x: Tensor, axis=None, keepdims=False, ord=2):
    """The vector norm of order `ord` over the axes given, or of all elements: (Σ|x|^ord)^(1/ord); inf and -inf give the extremes.

    Arguments as in the Array API's `linalg.vector_norm`. The gradient at a zero vector is taken as 0.
    """
    x = floating(x)
    if ord == 2:
        return sqrt_or_zero(sum_(x * x, axis, keepdims))
    size = abs(x)
    if ord == math.inf:
        nothing = any(x.shape[a] == 0 for a in many_axes(axis, x.ndim, "norm"))
        return (sum_ if nothing else max_)(size, axis, keepdims)  # of no elements: 0, as in NumPy
    if ord == -math.inf:
        return min_(size, axis, keepdims)
    if ord == 1:
        return sum_(size, axis, keepdims)
    if not isinstance(ord, int | float) or not ord > 0:
        raise ShapeError(f"norm: ord is a positive number, inf or -inf, not {ord!r}")
    return root_or_zero(sum_(size**ord, axis, keepdims), 1.0 / ord)
