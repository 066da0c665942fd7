"""Ops that move elements or look at them another way: views where strides can say it, copies elsewhere."""

from __future__ import annotations

import math
import operator

import numpy as np

from ..dtypes import DEFAULT, as_dtype, promote
from ..errors import DtypeError, ShapeError
from ..layouts import row_major
from .axes import many_axes, one_axis
from .elementwise import identity_copy
from .registry import Tensor, composite, elementwise, primitive, run_with, view


def _shape_argument(shape: tuple, op_name: str) -> tuple[int, ...]:
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
    wanted = _shape_argument(shape, "reshape")
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
    wanted = _shape_argument(axes, "permute")
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
    wanted = _shape_argument(shape, "broadcast_to")
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


@composite(public=False)
def where_scalar(value: Tensor):
    """A number or a 0-d tensor as a tensor."""
    return value


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
    counts = _shape_argument((repetitions,), "tile")
    counts = (1,) * (x.ndim - len(counts)) + counts
    if min(counts, default=1) < 0:
        raise ShapeError(f"tile: repetitions {repetitions!r} must not be negative")
    shape = (1,) * (len(counts) - x.ndim) + x.shape
    x = reshape(x, tuple(k for n in shape for k in (1, n)))
    wide = tuple(k for n, c in zip(shape, counts, strict=True) for k in (c, n))
    return reshape(broadcast_to(x, wide), tuple(n * c for n, c in zip(shape, counts, strict=True)))
