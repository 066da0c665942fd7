"""Ops that look at elements another way: views where strides can say it, copies elsewhere."""

from __future__ import annotations

import math
import operator

import numpy as np

from ..dtypes import DEFAULT, as_dtype
from ..errors import DtypeError, ShapeError
from ..layouts import row_major
from .axes import many_axes, one_axis
from .elementwise import identity_copy
from .registry import Tensor, composite, elementwise, primitive, run_with, view


def shape_argument(shape: tuple, op_name: str) -> tuple[int, ...]:
    """The sizes that an op was given, one by one or as one tuple or list."""
    if len(shape) == 1 and isinstance(shape[0], tuple | list):
        shape = tuple(shape[0])
    try:
        return tuple(operator.index(n) for n in shape)
    except TypeError:
        raise DtypeError(f"{op_name}: a shape is made of integers, not {shape!r}") from None


@elementwise(public=False, dtypes="keep")
def cast(x):
    """x converted, as it is loaded, to the dtype that the attribute "dtype" names."""
    return x


@composite(
    method=True,
    reference=lambda x, dtype: x.astype(as_dtype(dtype).numpy),
    samples=[dict(shapes=((3, 4),), attrs=dict(dtype="float64"))],
)
def astype(x: Tensor, dtype):
    """x converted to `dtype`; x itself where it has it already. Floats outside an integer's range are clamped to it."""
    dtype = as_dtype(dtype)
    return x if x.dtype is dtype else run_with(cast, (x,), dtype=dtype)


def floating(x):
    """x itself where it is floating, else x in the default float dtype."""
    return x if x.dtype.is_float else astype(x, DEFAULT)


@composite(method=True, reference=lambda x: x.copy(), samples=[dict(shapes=((3, 4),))])
def contiguous(x: Tensor):
    """x with its elements in C order without gaps; x itself where it is so already."""
    return x if x.is_contiguous() else identity_copy(x)


@composite(method=True, reference=lambda x: x.copy(), samples=[dict(shapes=((3, 4),))])
def copy(x: Tensor):
    """A copy of x on a buffer of its own."""
    return identity_copy(x)


@view(public=False, differentiable=False)
def detach_view(x: Tensor):
    """The same elements, through which no gradient flows."""
    return (x,), {}


@detach_view.shape
def _(x):
    return x.shape, x.strides, 0


@view(public=False)
def reshape_view(x: Tensor, shape):
    """x under another shape, on the same elements."""
    return (x,), {"shape": shape}


@reshape_view.shape
def _(x, shape):
    if x.contiguous:
        return shape, row_major(shape), 0
    lengths = iter([s for n, s in zip(x.shape, x.strides, strict=True) if n != 1])
    return shape, tuple(next(lengths) if n != 1 else 0 for n in shape), 0


@reshape_view.adjoint(0, saves=())
def _(g, y, x, shape):
    return reshape(g, x.shape)


@composite(
    method=True,
    reference=lambda x, *shape: np.reshape(x, shape[0] if len(shape) == 1 else shape),
    samples=[dict(shapes=((2, 6),), args=((3, 4),)), dict(shapes=((2, 6),), args=((-1,),))],
)
def reshape(x: Tensor, *shape):
    """x under another shape of as many elements; one length may be -1. A view where x is contiguous."""
    wanted = shape_argument(shape, "reshape")
    if wanted.count(-1) == 1:
        rest = math.prod(n for n in wanted if n != -1)
        if rest == 0 or x.size % rest:
            raise ShapeError(f"reshape: {x.size} elements of shape {x.shape} do not divide into {wanted}")
        wanted = tuple(x.size // rest if n == -1 else n for n in wanted)
    if any(n < 0 for n in wanted) or math.prod(wanted) != x.size:
        raise ShapeError(
            f"reshape: shape {x.shape} has {x.size} elements, {wanted} does not; only one length may be -1"
        )
    if wanted == x.shape:
        return x
    if not x.is_contiguous() and [n for n in wanted if n != 1] != [n for n in x.shape if n != 1]:
        x = identity_copy(x)
    return reshape_view(x, wanted)


@composite(
    method=True,
    reference=lambda x, start_dim=0, end_dim=-1: x.reshape(x.shape[:start_dim] + (-1,)),
    samples=[dict(shapes=((2, 3, 4),)), dict(shapes=((2, 3, 4),), attrs=dict(start_dim=1))],
)
def flatten(x: Tensor, start_dim=0, end_dim=-1):
    """Axes start_dim to end_dim joined into one."""
    if x.ndim == 0:
        return reshape(x, (1,))
    first, last = one_axis(start_dim, x.ndim, "flatten"), one_axis(end_dim, x.ndim, "flatten")
    if first > last:
        raise ShapeError(f"flatten: start_dim {start_dim} lies behind end_dim {end_dim}")
    return reshape(x, (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))


@view(public=False)
def permute_view(x: Tensor, axes):
    """x with its axes in another order."""
    return (x,), {"axes": axes}


@permute_view.shape
def _(x, axes):
    return tuple(x.shape[a] for a in axes), tuple(x.strides[a] for a in axes), 0


@permute_view.adjoint(0, saves=())
def _(g, y, x, axes):
    return permute_view(g, tuple(sorted(range(len(axes)), key=axes.__getitem__)))


@composite(
    method=True,
    reference=lambda x, *axes: np.transpose(x, axes[0] if len(axes) == 1 else axes),
    samples=[dict(shapes=((2, 3, 4),), args=((2, 0, 1),))],
)
def permute(x: Tensor, *axes):
    """x with its axes in the order given. A view."""
    wanted = shape_argument(axes, "permute")
    found = tuple(one_axis(a, x.ndim, "permute") for a in wanted)
    if sorted(found) != list(range(x.ndim)):
        raise ShapeError(f"permute: {wanted} must name each of the {x.ndim} axes once")
    return permute_view(x, found)


@composite(method=True, reference=lambda x, axes=None: np.transpose(x, axes), samples=[dict(shapes=((2, 3, 4),))])
def transpose(x: Tensor, axes=None):
    """x with its axes reversed, or in the order given. A view."""
    return permute(x, tuple(range(x.ndim))[::-1] if axes is None else tuple(axes))


@composite(
    method=True, reference=lambda x, a, b: np.swapaxes(x, a, b), samples=[dict(shapes=((2, 3, 4),), args=(0, 2))]
)
def swapaxes(x: Tensor, axis1, axis2):
    """x with two axes exchanged. A view."""
    axes = list(range(x.ndim))
    a, b = one_axis(axis1, x.ndim, "swapaxes"), one_axis(axis2, x.ndim, "swapaxes")
    axes[a], axes[b] = axes[b], axes[a]
    return permute_view(x, tuple(axes))


@composite(
    method=True,
    reference=lambda x, axis: np.expand_dims(x, axis),
    samples=[dict(shapes=((3, 4),), args=(1,)), dict(shapes=((3,),), args=((0, -1),))],
)
def expand_dims(x: Tensor, axis):
    """x with axes of length 1 at the places given in the result. A view."""
    listed = axis if isinstance(axis, tuple | list) else (axis,)
    places = {one_axis(a, x.ndim, "expand_dims", extra=len(listed)) for a in listed}
    if len(places) != len(listed):
        raise ShapeError(f"expand_dims: axis {axis!r} names a place twice")
    rest = iter(x.shape)
    return reshape_view(x, tuple(1 if i in places else next(rest) for i in range(x.ndim + len(places))))


@composite(
    method=True,
    reference=lambda x, axis=None: np.squeeze(x, axis),
    samples=[dict(shapes=((3, 1, 4),)), dict(shapes=((1, 3, 1),), attrs=dict(axis=0))],
)
def squeeze(x: Tensor, axis=None):
    """x without its axes of length 1, or without those given. A view."""
    axes = tuple(i for i, n in enumerate(x.shape) if n == 1) if axis is None else many_axes(axis, x.ndim, "squeeze")
    for a in axes:
        if x.shape[a] != 1:
            raise ShapeError(f"squeeze: axis {a} has length {x.shape[a]}, not 1, in shape {x.shape}")
    return reshape_view(x, tuple(n for i, n in enumerate(x.shape) if i not in axes)) if axes else x


@view(public=False)
def broadcast_view(x: Tensor, shape):
    """x repeated along new and length-1 axes, without copying."""
    return (x,), {"shape": shape}


@broadcast_view.shape
def _(x, shape):
    lead = len(shape) - x.ndim
    strides = tuple(0 if n == 1 and w != 1 else s for n, s, w in zip(x.shape, x.strides, shape[lead:], strict=True))
    return shape, (0,) * lead + strides, 0


@broadcast_view.adjoint(0, saves=())
def _(g, y, x, shape):
    return g  # summed to x's shape where all gradients are


@composite(
    method=True,
    reference=lambda x, *shape: np.broadcast_to(x, shape[0]),
    samples=[dict(shapes=((3, 1),), args=((2, 3, 4),))],
)
def broadcast_to(x: Tensor, *shape):
    """x repeated to `shape` by the broadcasting rule. A view: no element is copied."""
    wanted = shape_argument(shape, "broadcast_to")
    lead = len(wanted) - x.ndim
    if (
        lead < 0
        or any(n < 0 for n in wanted)
        or any(n not in (1, w) for n, w in zip(x.shape, wanted[lead:], strict=True))
    ):
        raise ShapeError(
            f"broadcast_to: shape {x.shape} does not broadcast to {wanted}; axes must be equal or 1, counted from the last"
        )
    return x if wanted == x.shape else broadcast_view(x, wanted)


@view(public=False)
def slice_view(x: Tensor, starts, sizes, steps):
    """Every `steps[a]`-th element of each axis a, `sizes[a]` of them from `starts[a]`."""
    return (x,), {"starts": starts, "sizes": sizes, "steps": steps}


@slice_view.shape
def _(x, starts, sizes, steps):
    offset = sum(a * s for a, s in zip(starts, x.strides, strict=True)) if 0 not in sizes else 0
    return sizes, tuple(s * t for s, t in zip(x.strides, steps, strict=True)), offset


@slice_view.adjoint(0, saves=())
def _(g, y, x, starts, sizes, steps):
    return embed(g, x.shape, starts, steps)


@primitive(public=False, moves=True)
def embed(x: Tensor, shape, starts, steps):
    """Zeros of `shape` with x written at the places `slice_view` would read: its transpose."""
    return (x,), {"shape": shape, "starts": starts, "steps": steps}


@embed.shape
def _(x, shape, starts, steps):
    return shape, x.dtype


@embed.adjoint(0, saves=())
def _(g, y, x, shape, starts, steps):
    return slice_view(g, starts, x.shape, steps)


@composite(
    method=True,
    reference=lambda x, axis=None: np.flip(x, axis),
    samples=[dict(shapes=((3, 4),)), dict(shapes=((3, 4),), attrs=dict(axis=1))],
)
def flip(x: Tensor, axis=None):
    """x in reverse order along the axes given, or all. A view."""
    axes = many_axes(axis, x.ndim, "flip")
    starts = tuple(max(n - 1, 0) if a in axes else 0 for a, n in enumerate(x.shape))
    return slice_view(x, starts, x.shape, tuple(-1 if a in axes else 1 for a in range(x.ndim)))


@composite(public=False)
def where_scalar(value: Tensor):
    """A number or a 0-d tensor as a tensor."""
    return value
