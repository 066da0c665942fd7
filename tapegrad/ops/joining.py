"""Ops that join arrays, cut them in parts, put something around them, or repeat them."""

from __future__ import annotations

import operator

import numpy as np

from ..dtypes import promote
from ..errors import DtypeError, ShapeError
from .axes import one_axis
from .elementwise import identity_copy
from .movement import astype, broadcast_to, expand_dims, reshape, shape_argument, slice_view
from .registry import Tensor, composite, primitive


@primitive(public=False, builder="concatenate", moves=True)
def concatenate_same(*tensors, axis):
    """Tensors of one dtype joined along an axis."""
    return tensors, {"axis": axis}


@concatenate_same.shape
def _(*xs, axis):
    first = xs[0]
    return (*first.shape[:axis], sum(x.shape[axis] for x in xs), *first.shape[axis + 1 :]), first.dtype


@concatenate_same.adjoint(saves=())
def _(g, y, *xs, axis):
    parts, at = [], 0
    for x in xs:
        starts = tuple(at if a == axis else 0 for a in range(x.ndim))
        parts.append(slice_view(g, starts, x.shape, (1,) * x.ndim))
        at += x.shape[axis]
    return tuple(parts)


def _sequence(tensors, op_name: str) -> list:
    """A non-empty list of tensors of one dtype."""
    from .registry import _interpreter, device_among

    if _interpreter.is_tensor(tensors) or not isinstance(tensors, tuple | list):
        raise DtypeError(f"{op_name}: wanted a list or tuple of tensors, got {type(tensors).__name__}")
    if not tensors:
        raise ShapeError(f"{op_name}: wanted at least one tensor, got an empty {type(tensors).__name__}")
    device = device_among(tensors)
    made = [_interpreter.tensor(t, op_name, device) for t in tensors]
    meet = made[0].dtype
    for t in made[1:]:
        meet = promote(meet, t.dtype)
    return [astype(t, meet) for t in made]


@composite(
    reference=lambda tensors, axis=0: np.concatenate(tensors, axis),
    samples=[
        dict(shapes=((2, 3), (1, 3), (4, 3)), gather=True),
        dict(shapes=((2, 3), (2, 1)), gather=True, attrs=dict(axis=-1)),
    ],
)
def concatenate(tensors, axis=0):
    """Tensors joined along an existing axis; axis=None joins them flattened."""
    made = _sequence(tensors, "concatenate")
    if axis is None:
        made, axis = [reshape(t, (-1,)) for t in made], 0
    axis = one_axis(axis, made[0].ndim, "concatenate")
    for i, t in enumerate(made):
        if t.ndim != made[0].ndim or any(
            a != b for k, (a, b) in enumerate(zip(t.shape, made[0].shape, strict=True)) if k != axis
        ):
            raise ShapeError(
                f"concatenate: tensor {i} has shape {t.shape}, the first has {made[0].shape}; all axes but axis {axis} must be equal"
            )
    return concatenate_same(*made, axis=axis)


@composite(
    reference=lambda tensors, axis=0: np.stack(tensors, axis),
    samples=[dict(shapes=((2, 3), (2, 3)), gather=True, attrs=dict(axis=1))],
)
def stack(tensors, axis=0):
    """Tensors of one shape joined along a new axis."""
    made = _sequence(tensors, "stack")
    for i, t in enumerate(made):
        if t.shape != made[0].shape:
            raise ShapeError(f"stack: tensor {i} has shape {t.shape}, the first has {made[0].shape}; all must be equal")
    axis = one_axis(axis, made[0].ndim, "stack", extra=1)
    return concatenate_same(*(expand_dims(t, axis) for t in made), axis=axis)


@composite(
    method=True,
    reference=lambda x, n, axis=0: tuple(np.split(x, n, axis)),
    samples=[dict(shapes=((6, 2),), args=(3,)), dict(shapes=((5, 2),), args=((1, 3),))],
)
def split(x: Tensor, indices_or_sections, axis=0):
    """x cut along an axis: into that many equal parts, or before each of the indices given. A tuple of views."""
    axis = one_axis(axis, x.ndim, "split")
    n = x.shape[axis]
    if isinstance(indices_or_sections, tuple | list):
        cuts = [min(operator.index(i) + (n if i < 0 else 0), n) for i in indices_or_sections]
    else:
        count = operator.index(indices_or_sections)
        if count < 1 or n % count:
            raise ShapeError(
                f"split: axis {axis} of length {n} does not divide into {count} equal parts; give a list of indices instead"
            )
        cuts = [n // count * i for i in range(1, count)]
    bounds = [0, *cuts, n]
    parts = []
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        starts = tuple(start if a == axis else 0 for a in range(x.ndim))
        sizes = tuple(max(stop - start, 0) if a == axis else m for a, m in enumerate(x.shape))
        parts.append(slice_view(x, starts, sizes, (1,) * x.ndim))
    return tuple(parts)


@primitive(public=False, builder="pad", moves=True)
def pad_constant(x: Tensor, value: Tensor, pads):
    """x with `value` around it."""
    return (x, value), {"pads": pads}


@pad_constant.shape
def _(x, value, pads):
    return tuple(n + a + b for n, (a, b) in zip(x.shape, pads, strict=True)), x.dtype


@pad_constant.adjoint(0, saves=())
def _(g, y, x, value, pads):
    return slice_view(g, tuple(a for a, _ in pads), x.shape, (1,) * x.ndim)


@pad_constant.adjoint(1, saves=())
def _(g, y, x, value, pads):
    return g.sum() - slice_view(g, tuple(a for a, _ in pads), x.shape, (1,) * x.ndim).sum()


def _pads(pad_width, ndim: int) -> tuple[tuple[int, int], ...]:
    if isinstance(pad_width, int):
        return ((pad_width, pad_width),) * ndim
    listed: list = [tuple(p) if isinstance(p, tuple | list) else p for p in pad_width]
    if len(listed) == 2 and all(isinstance(p, int) for p in listed):
        return (tuple(listed),) * ndim
    if len(listed) == 1:
        listed = listed * ndim
    if len(listed) != ndim or not all(isinstance(p, tuple) and len(p) == 2 for p in listed):
        raise ShapeError(
            f"pad: pad_width is a number, (before, after), or one such pair for each of the {ndim} axes, not {pad_width!r}"
        )
    return tuple(listed)


@composite(
    method=True,
    reference=lambda x, pad_width, constant_values=0: np.pad(x, pad_width, constant_values=constant_values),
    samples=[dict(shapes=((2, 3),), args=(((1, 2), (0, 1)),)), dict(shapes=((3,),), args=(2,))],
)
def pad(x: Tensor, pad_width, constant_values=0):
    """x with `constant_values` around it; pad_width as in NumPy: a number, (before, after), or such a pair for each axis."""
    from .registry import _interpreter

    pads = _pads(pad_width, x.ndim)
    if any(a < 0 or b < 0 for a, b in pads):
        raise ShapeError(f"pad: pad_width {pad_width!r} is negative; cut with slices instead")
    value = broadcast_to(astype(_interpreter.tensor(constant_values, "pad", x.device), x.dtype), ())
    return pad_constant(x, value, pads)


_numpy_pad = pad


def _torch_pads(pad, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    if len(pad) % 2 or len(pad) > 2 * len(shape):
        raise ShapeError(
            f"pad: pad has {len(pad)} numbers; wanted two for each axis to pad, at most {2 * len(shape)} for shape {shape}"
        )
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    return [(0, 0)] * (len(shape) - len(pairs)) + pairs[::-1]


@composite(
    namespace="nn",
    name="pad",
    reference=lambda x, pad, mode="constant", value=0.0: np.pad(x, _torch_pads(pad, x.shape), constant_values=value),
    samples=[
        dict(shapes=((2, 3),), args=((1, 2),)),
        dict(shapes=((2, 3),), args=((0, 1, 2, 0),), attrs=dict(value=1.5)),
    ],
)
def pad_last_axes(input: Tensor, pad, mode="constant", value=0.0):
    """input with `value` around it. pad, as in PyTorch: (before, after) of the last axis, then of the one before it, ….

    `tg.pad` takes NumPy's order.
    """
    if mode != "constant":
        raise ShapeError(f'pad: mode is "constant", not {mode!r}')
    return _numpy_pad(input, _torch_pads(pad, input.shape), value)


@composite(
    method=True,
    reference=lambda x, shift, axis=None: np.roll(x, shift, axis),
    samples=[dict(shapes=((5,),), args=(2,)), dict(shapes=((3, 4),), args=(-1,), attrs=dict(axis=1))],
)
def roll(x: Tensor, shift, axis=None):
    """x with its elements moved by `shift` along an axis, those that fall off coming in at the other end."""
    if axis is None:
        return reshape(roll(reshape(x, (-1,)), shift, 0), x.shape)
    axis = one_axis(axis, x.ndim, "roll")
    n = x.shape[axis]
    at = (n - operator.index(shift)) % n if n else 0
    if at == 0:
        return identity_copy(x)
    low, high = split(x, [at], axis)
    return concatenate([high, low], axis)


@composite(
    method=True,
    reference=lambda x, repeats, axis=None: np.repeat(x, repeats, axis),
    samples=[dict(shapes=((2, 3),), args=(2,), attrs=dict(axis=1)), dict(shapes=((3,),), args=(3,))],
)
def repeat(x: Tensor, repeats, axis=None):
    """Each element `repeats` times in a row, along an axis or flattened."""
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    axis, count = one_axis(axis, x.ndim, "repeat"), operator.index(repeats)
    if count < 0:
        raise ShapeError(f"repeat: repeats is {count}; it must not be negative")
    wide = (*x.shape[: axis + 1], count, *x.shape[axis + 1 :])
    return reshape(
        broadcast_to(expand_dims(x, axis + 1), wide), (*x.shape[:axis], x.shape[axis] * count, *x.shape[axis + 1 :])
    )


@composite(
    method=True, reference=np.tile, samples=[dict(shapes=((2, 3),), args=((2, 2),)), dict(shapes=((3,),), args=(2,))]
)
def tile(x: Tensor, repetitions):
    """x laid side by side, `repetitions` times along each axis."""
    counts = shape_argument((repetitions,), "tile")
    counts = (1,) * (x.ndim - len(counts)) + counts
    if min(counts, default=1) < 0:
        raise ShapeError(f"tile: repetitions {repetitions!r} must not be negative")
    shape = (1,) * (len(counts) - x.ndim) + x.shape
    x = reshape(x, tuple(k for n in shape for k in (1, n)))
    wide = tuple(k for n, c in zip(shape, counts, strict=True) for k in (c, n))
    return reshape(broadcast_to(x, wide), tuple(n * c for n, c in zip(shape, counts, strict=True)))
