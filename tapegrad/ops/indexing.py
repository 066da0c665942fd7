"""Indexing: gather, scatter, sort, and Python's square brackets."""

from __future__ import annotations

import math
import operator

import numpy as np

from ..dtypes import DEFAULT, as_dtype, bool_, int64
from ..errors import DtypeError, IndexOutOfRange, ShapeError
from .axes import one_axis
from .movement import astype, broadcast_to, embed, permute, reshape, slice_view
from .registry import Tensor, composite, primitive, run_with, view


def integers(x, op_name: str, argument: str):
    """x, after a check that it holds integers."""
    if x.dtype.kind not in "iu":
        raise DtypeError(
            f"{op_name}: {argument} must hold integers, not {x.dtype.name}; convert with .astype(tg.int64)"
        )
    return x if x.dtype.itemsize >= 4 else astype(x, int64)


# take: whole slices along one axis


@primitive(public=False, builder="take", moves=True)
def take_kernel(x: Tensor, indices: Tensor, axis):
    """x at integer positions along an axis."""
    return (x, indices), {"axis": axis}


@take_kernel.shape
def _(x, indices, axis):
    return x.shape[:axis] + indices.shape + x.shape[axis + 1 :], x.dtype


@take_kernel.adjoint(0, saves=(1,))
def _(g, y, x, indices, axis):
    return index_add(g, indices, axis, x.shape[axis])


@primitive(public=False)
def index_add(values: Tensor, indices: Tensor, axis, size):
    """Zeros with `values` added at integer positions along an axis: the transpose of take."""
    return (values, indices), {"axis": axis, "size": size}


@index_add.shape
def _(values, indices, axis, size):
    return (*values.shape[:axis], size, *values.shape[axis + indices.ndim :]), values.dtype


@index_add.adjoint(0, saves=(1,))
def _(g, y, values, indices, axis, size):
    return take_kernel(g, indices, axis)


@composite(
    method=True,
    reference=lambda x, indices, axis=None: np.take(x, indices, axis),
    samples=[
        dict(shapes=((4, 3),), args=(np.array([[0, 2], [3, 3]]),), attrs=dict(axis=0)),
        dict(shapes=((2, 5),), args=(np.array([1, -1]),), attrs=dict(axis=1)),
    ],
)
def take(x: Tensor, indices: Tensor, axis=None):
    """x at integer positions along an axis, or of the flattened tensor. Negative positions count from the end."""
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    return take_kernel(x, integers(indices, "take", "indices"), one_axis(axis, x.ndim, "take"))


# take_along_axis: one element per position


@primitive(public=False, builder="take_along_axis", moves=True)
def take_along_kernel(x: Tensor, indices: Tensor, axis):
    """x at one position per element along an axis."""
    return (x, indices), {"axis": axis}


@take_along_kernel.shape
def _(x, indices, axis):
    return indices.shape, x.dtype


@take_along_kernel.adjoint(0, saves=(1,))
def _(g, y, x, indices, axis):
    return scatter_kernel(g, indices, axis, x.shape[axis])


@primitive(public=False, builder="scatter_add")
def scatter_kernel(values: Tensor, indices: Tensor, axis, size):
    """Zeros with each value added at its position along an axis: the transpose of take_along_axis."""
    return (values, indices), {"axis": axis, "size": size}


@scatter_kernel.shape
def _(values, indices, axis, size):
    return (*values.shape[:axis], size, *values.shape[axis + 1 :]), values.dtype


@scatter_kernel.adjoint(0, saves=(1,))
def _(g, y, values, indices, axis, size):
    return take_along_kernel(g, indices, axis)


def _aligned(x, indices, axis: int, op_name: str):
    """x and indices broadcast against each other on all axes but one."""
    if x.ndim != indices.ndim:
        raise ShapeError(
            f"{op_name}: the tensor has {x.ndim} axes and the indices have {indices.ndim}; they must be equal"
        )
    shape = []
    for a, (n, m) in enumerate(zip(x.shape, indices.shape, strict=True)):
        if a != axis and n != m and 1 not in (n, m):
            raise ShapeError(f"{op_name}: shapes {x.shape} and {indices.shape} do not agree on axis {a}")
        shape.append(n if m == 1 else m)
    return (
        broadcast_to(x, tuple(n if a != axis else x.shape[a] for a, n in enumerate(shape))),
        broadcast_to(indices, tuple(n if a != axis else indices.shape[a] for a, n in enumerate(shape))),
    )


@composite(
    method=True,
    reference=lambda x, indices, axis: np.take_along_axis(x, indices, axis),
    samples=[dict(shapes=((3, 4),), args=(np.array([[0, 3], [1, 1], [2, -1]]), 1))],
)
def take_along_axis(x: Tensor, indices: Tensor, axis):
    """For each position of `indices`, the element of x at that position along `axis`."""
    axis = one_axis(axis, x.ndim, "take_along_axis")
    x, indices = _aligned(x, integers(indices, "take_along_axis", "indices"), axis, "take_along_axis")
    return take_along_kernel(x, indices, axis)


def _scatter_add(x, indices, values, axis=0):
    out = x.copy()
    grid = list(np.indices(indices.shape))
    grid[axis] = indices
    np.add.at(out, tuple(grid), values)
    return out


@composite(
    method=True,
    reference=_scatter_add,
    samples=[
        dict(
            shapes=((3, 4),),
            args=(np.array([[0, 2], [1, 1], [2, -1]]), np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])),
            attrs=dict(axis=1),
        )
    ],
)
def scatter_add(x: Tensor, indices: Tensor, values: Tensor, axis=0):
    """x with each of `values` added at its position of `indices` along `axis`; positions named twice add up."""
    axis = one_axis(axis, x.ndim, "scatter_add")
    indices = integers(indices, "scatter_add", "indices")
    values = broadcast_to(values, indices.shape)
    if x.ndim != indices.ndim or any(n != m for a, (n, m) in enumerate(zip(x.shape, indices.shape)) if a != axis):
        raise ShapeError(
            f"scatter_add: x has shape {x.shape} and the indices {indices.shape}; all axes but axis {axis} must be equal"
        )
    return x + scatter_kernel(values, indices, axis, x.shape[axis])


@composite(reference=lambda x, n: np.eye(n)[x], samples=[dict(shapes=(), args=(np.array([0, 2, 1]), 4))])
def one_hot(x: Tensor, num_classes, dtype=None):
    """A new last axis of length num_classes with 1 at the class and 0 elsewhere; float32 unless said otherwise.

    Raises IndexOutOfRange where a class is num_classes or more.
    """
    from .creation import eye

    return take(
        eye(operator.index(num_classes), dtype=as_dtype(dtype) if dtype is not None else DEFAULT, device=x.device),
        integers(x, "one_hot", "x"),
        0,
    )


# square brackets


@primitive(public=False, differentiable=False, outputs=2)
def nonzero_flat(mask: Tensor):
    """Positions of the true elements, packed at the front, and how many there are."""
    return (mask,), {}


@nonzero_flat.shape
def _(mask):
    return [((mask.size,), int64), ((1,), int64)]


def _true_positions(mask):
    """The flat positions of the true elements. Waits for the values."""
    packed, count = nonzero_flat(mask)
    return packed[: count.item()]


@composite(reference=np.nonzero, samples=[dict(shapes=(), args=(np.array([[1, 0, 2], [0, 0, 3]]),))])
def nonzero(x: Tensor):
    """The positions of the elements that are not 0, one int64 tensor for each axis."""
    flat = _true_positions(x != 0)
    return tuple(flat // math.prod(x.shape[a + 1 :]) % x.shape[a] for a in range(x.ndim))


@view(public=False)
def item_view(x: Tensor, at):
    """x[at] for one integer: the commonest index, as one row."""
    return (x,), {"at": at}


@item_view.shape
def _(x, at):
    return x.shape[1:], x.strides[1:], at * x.strides[0]


@item_view.adjoint(0, saves=())
def _(g, y, x, at):
    return embed(reshape(g, (1, *g.shape)), x.shape, (at,) + (0,) * (x.ndim - 1), (1,) * x.ndim)


def index(x, key):
    """x[key]: integers, slices, `...`, None, integer arrays and boolean masks, with NumPy's meaning."""
    if type(key) is int and x.ndim and -x.shape[0] <= key < x.shape[0]:
        return run_with(item_view, (x,), at=key % x.shape[0])
    items = _expanded(x, key)
    parts, shape, arrays = [], [], []  # parts: (start, size, step) of each axis
    axis = 0
    for item in items:
        if item is None:
            shape.append(1)
            continue
        n = x.shape[axis]
        if isinstance(item, slice):
            try:
                first, last, step = item.indices(n)
            except TypeError:
                raise DtypeError(f"index: the slice {item} has a part that is not an integer") from None
            except ValueError:
                raise ShapeError(
                    f"index: the slice {item} has step 0; a step is at least 1, or negative to go backwards"
                ) from None
            count = len(range(first, last, step))
            part = (first if count else 0, count, step)
            shape.append(count)
        elif isinstance(item, int):
            if not -n <= item < n:
                raise IndexOutOfRange(f"index: {item} is out of range for axis {axis} with {n} elements")
            part = (item % n, 1, 1)
        else:  # an integer tensor: taken after the slices
            arrays.append((len(shape), item))
            part = (0, n, 1)
            shape.append(n)
        parts.append(part)
        axis += 1
    starts, sizes, steps = tuple(zip(*parts, strict=True)) if parts else ((), (), ())
    if sizes != x.shape or any(s != 1 for s in steps):
        x = slice_view(x, starts, sizes, steps)
    if x.shape != tuple(shape):
        x = reshape(x, tuple(shape))
    return x if not arrays else _gathered(x, arrays, _apart(items))


def _expanded(x, key) -> list:
    """The key as one item per axis (None for a new axis): `...` filled in, masks turned into integer tensors."""
    items: list = []
    for item in key if isinstance(key, tuple) else (key,):
        if item is None or item is Ellipsis or isinstance(item, slice):
            items.append(item)
        elif isinstance(item, bool | np.bool_):
            raise DtypeError("index: a single True or False is not an index; use a mask of the tensor's shape")
        elif hasattr(item, "__index__") and not getattr(item, "shape", ()):
            try:
                items.append(operator.index(item))
            except TypeError:
                raise DtypeError(
                    f"index: {item!r} is not an integer; a single number as an index must be one"
                ) from None
        else:
            items.extend(_array_items(item, x, items))
    used = sum(1 for i in items if i is not None and i is not Ellipsis)
    if used > x.ndim:
        raise IndexOutOfRange(f"index: {used} indices for a tensor of {x.ndim} axes, shape {x.shape}")
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise ShapeError("index: '...' may stand once")
    at = dots[0] if dots else len(items)
    return [*items[:at], *[slice(None)] * (x.ndim - used), *items[at + len(dots) :]]


def _array_items(item, x, before: list) -> list:
    """An array index as integer tensors: a mask becomes one per axis of it."""
    from .registry import _interpreter

    t = _interpreter.tensor(item, "index", x.device)
    if t.dtype is not bool_:
        if t.size == 0 and not _interpreter.is_tensor(item):
            t = astype(t, int64)
        return [integers(t, "index", "an index")]
    first = sum(1 for i in before if i is not None and i is not Ellipsis)
    if Ellipsis not in before and t.shape != x.shape[first : first + t.ndim]:
        raise IndexOutOfRange(
            f"index: a mask of shape {t.shape} does not fit axes {first} to {first + t.ndim - 1} of shape {x.shape}"
        )
    return list(nonzero(t)) if t.ndim else []


def _apart(items: list) -> bool:
    """True where slices or None stand between array indices: NumPy then puts the indexed axes first.

    An integer among arrays counts as one of them.
    """
    kinds = ["array" if i is not None and not isinstance(i, slice) else "other" for i in items]
    first = kinds.index("array")
    last = len(kinds) - 1 - kinds[::-1].index("array")
    return "other" in kinds[first:last]


def _gathered(x, arrays: list, apart: bool):
    """Several integer tensors at once: the axes they index are joined, their positions combined, and one take does it."""
    axes = [a for a, _ in arrays]
    shape = np.broadcast_shapes(*(t.shape for _, t in arrays)) if _broadcasts([t.shape for _, t in arrays]) else None
    if shape is None:
        raise ShapeError(
            f"index: index arrays of shapes {', '.join(str(t.shape) for _, t in arrays)} do not broadcast together"
        )
    if len(arrays) == 1 and not apart:
        return take_kernel(x, arrays[0][1], axes[0])
    front = 0 if apart else axes[0]
    rest = [a for a in range(x.ndim) if a not in axes]
    order = [*rest[:front], *axes, *rest[front:]]
    flat = None
    for a, t in arrays:
        n = x.shape[a]
        t = _wrapped(t, n, a)
        flat = t if flat is None else flat * n + t
    x = permute(x, tuple(order))
    joined = math.prod(x.shape[front : front + len(axes)])
    x = reshape(x, (*x.shape[:front], joined, *x.shape[front + len(axes) :]))
    return take_kernel(x, broadcast_to(flat, tuple(shape)), front)


def _broadcasts(shapes) -> bool:
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        return False
    return True


def _wrapped(t, n: int, axis: int):
    """Positions from 0, after a check: joined positions would otherwise run over into the next row."""
    from .elementwise import where
    from .reduce import max_ as largest
    from .reduce import min_ as smallest

    if t.size and (smallest(t).item() < -n or largest(t).item() >= n):
        raise IndexOutOfRange(f"index: a position is out of range for axis {axis} with {n} elements")
    return where(t < 0, t + n, t)
