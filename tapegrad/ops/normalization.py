"""Normalisation of vectors, rows, groups of channels and batches. In the namespace of `tapegrad.nn.functional`."""

from __future__ import annotations

import numpy as np

from ..errors import ShapeError
from .elementwise import clip, rsqrt, sqrt, square
from .movement import floating, reshape
from .reduce import mean, norm
from .registry import Tensor, composite, elementwise


def _normalize(x, p=2.0, dim=1, eps=1e-12):
    return x / np.maximum(np.linalg.vector_norm(x, axis=dim, keepdims=True, ord=p), eps)


@composite(
    sums=True,
    namespace="nn",
    reference=_normalize,
    samples=[
        dict(shapes=((3, 4),)),
        dict(shapes=((3, 4),), attrs=dict(p=3.0, dim=0)),
        dict(shapes=((4,),), args=(1, 0, 0.5)),
    ],
)
def normalize(input: Tensor, p=2.0, dim=1, eps=1e-12):
    """input divided by its norm of order p along `dim`, at least eps."""
    return input / clip(norm(input, dim, True, p), eps)


def _layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    axes = tuple(range(-np.size(normalized_shape), 0))
    rows = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)
    return rows * (1.0 if weight is None else weight) + (0.0 if bias is None else bias)


@composite(
    sums=True,
    namespace="nn",
    reference=_layer_norm,
    samples=[
        dict(shapes=((3, 4),), args=(4,)),
        dict(shapes=((3, 4), (4,), (4,)), args=((4,),), at=(0, 2, 3)),
        dict(shapes=((2, 3, 4), (3, 4)), args=((3, 4),), at=(0, 2), attrs=dict(eps=0.1)),
    ],
)
def layer_norm(input: Tensor, normalized_shape, weight=None, bias=None, eps=1e-5):
    """Rows of mean 0 and variance 1 over the trailing axes `normalized_shape`, times weight, plus bias (Ba et al. 2016).

    weight and bias have the shape normalized_shape; None leaves them out.
    """
    shape = trailing_shape(input, normalized_shape, "layer_norm")
    for name, given in (("weight", weight), ("bias", bias)):
        check_weight("layer_norm", name, given, shape, "normalized_shape")
    axes = tuple(range(-len(shape), 0))
    x = floating(input)
    centred = x - mean(x, axes, True)
    rows = centred / sqrt(mean(square(centred), axes, True) + eps)
    if weight is not None:
        rows = rows * weight
    return rows if bias is None else rows + bias


def _rms_norm(x, normalized_shape, weight=None, eps=None):
    axes = tuple(range(-np.size(normalized_shape), 0))
    eps = np.finfo(np.float64).eps if eps is None else eps
    return x / np.sqrt((x * x).mean(axes, keepdims=True) + eps) * (1.0 if weight is None else weight)


@composite(
    sums=True,
    namespace="nn",
    reference=_rms_norm,
    samples=[
        dict(shapes=((3, 4),), args=(4,)),
        dict(shapes=((2, 3, 4), (3, 4)), args=((3, 4),), at=(0, 2), attrs=dict(eps=0.1)),
    ],
)
def rms_norm(input: Tensor, normalized_shape, weight=None, eps=None):
    """Rows divided by their root mean square over the trailing axes `normalized_shape`, times weight (Zhang & Sennrich 2019).

    eps is added to the mean square; None: the dtype's machine epsilon.
    """
    shape = trailing_shape(input, normalized_shape, "rms_norm")
    check_weight("rms_norm", "weight", weight, shape, "normalized_shape")
    axes = tuple(range(-len(shape), 0))
    x = floating(input)
    rows = x * rsqrt(mean(square(x), axes, True) + (EPSILON[x.dtype.compute.name] if eps is None else eps))
    return rows if weight is None else rows * weight


EPSILON = {"float32": 2.0**-23, "float64": 2.0**-52}


def trailing_shape(input, normalized_shape, op_name: str) -> tuple[int, ...]:
    """normalized_shape as a tuple, which the input's shape has to end with."""
    shape = tuple(normalized_shape) if isinstance(normalized_shape, tuple | list) else (normalized_shape,)
    if not shape or input.shape[-len(shape) :] != shape:
        raise ShapeError(
            f"{op_name}: input has shape {input.shape}; its last axes must be normalized_shape, which is {shape}"
        )
    return shape


def check_weight(op_name: str, name: str, given, shape: tuple[int, ...], what: str) -> None:
    """A weight or bias, where there is one, must have that shape, which is called `what`."""
    if given is None:
        return
    # NumPy's shape() reads a tensor's elements, after which a session cannot take the call as a whole
    found = tuple(given.shape if hasattr(given, "shape") else np.shape(given))
    if found != shape:
        raise ShapeError(f"{op_name}: {name} has shape {found}, wanted {what}, {shape}")


def _group_norm(x, groups, weight=None, bias=None, eps=1e-5):
    parts = x.reshape(x.shape[0], groups, -1)
    rows = (parts - parts.mean(2, keepdims=True)) / np.sqrt(parts.var(2, keepdims=True) + eps)
    column = (-1, *(1,) * (x.ndim - 2))
    y = rows.reshape(x.shape) * (1.0 if weight is None else weight.reshape(column))
    return y + (0.0 if bias is None else bias.reshape(column))


@composite(
    sums=True,
    namespace="nn",
    reference=_group_norm,
    samples=[
        dict(shapes=((2, 4, 3),), args=(2,), attrs=dict(eps=0.5)),  # else the sum of squares would have no slope
        dict(shapes=((2, 6, 2, 3), (6,), (6,)), args=(3,), at=(0, 2, 3)),
    ],
)
def group_norm(input: Tensor, num_groups, weight=None, bias=None, eps=1e-5):
    """Each sample's channels in num_groups groups, each of mean 0 and variance 1; then channels scaled and shifted (Wu & He 2018).

    input (N, C, ...); weight and bias (C,).
    """
    if input.ndim < 2:
        raise ShapeError(f"group_norm: input has shape {input.shape}, wanted (N, C, ...)")
    n, channels = input.shape[:2]
    if num_groups < 1 or channels % num_groups:
        raise ShapeError(f"group_norm: num_groups is {num_groups}; it must divide the {channels} channels of the input")
    for name, given in (("weight", weight), ("bias", bias)):
        check_weight("group_norm", name, given, (channels,), "one element per channel")
    x = floating(input)
    parts = reshape(x, (n, num_groups, x.size // max(n * num_groups, 1)))
    centred = parts - mean(parts, 2, True)
    y = reshape(centred * rsqrt(mean(square(centred), 2, True) + eps), x.shape)
    return scaled(y, weight, bias)


def scaled(y, weight, bias):
    """y (N, C, ...) times weight (C,) plus bias (C,), either of which may be None."""
    column = (-1, *(1,) * (y.ndim - 2))
    if weight is not None:
        y = y * reshape(weight, column)
    return y if bias is None else y + reshape(bias, column)


def _batch_norm(x, weight=None, bias=None, eps=1e-5):
    axes = (0, *range(2, x.ndim))
    if x.size // max(x.shape[1], 1) < 2:
        raise ValueError("one value has no variance")
    mu, spread = x.mean(axes), x.var(axes)
    y = _normalize_channels(x, mu, spread, weight, bias, eps)
    return y, mu, spread * (x.size // x.shape[1]) / (x.size // x.shape[1] - 1)


@composite(
    sums=True,
    namespace="nn",
    public=False,
    reference=_batch_norm,
    samples=[
        dict(shapes=((4, 3),)),
        dict(shapes=((2, 3, 4), (3,), (3,))),
        dict(shapes=((2, 2, 2, 3),), args=(None, None, 0.1)),
    ],
)
def normalize_batch(input: Tensor, weight=None, bias=None, eps=1e-5):
    """Channels normalised over the batch, their means (C,) and their variances (C,), divided by count - 1.

    input (N, C, ...); weight and bias (C,) (Ioffe & Szegedy 2015).
    """
    x = floating(input)
    axes = (0, *range(2, x.ndim))
    count = x.size // max(x.shape[1], 1)
    if count < 2:
        raise ShapeError(
            f"batch_norm: input has shape {x.shape}, one value per channel, which has no variance; in training give more "
            "than one, or switch to evaluation with .eval()"
        )
    middle = mean(x, axes, True)
    centred = x - middle
    spread = mean(square(centred), axes, True)
    y = scaled(centred * rsqrt(spread + eps), weight, bias)
    channels = (x.shape[1],)
    return y, reshape(middle, channels), reshape(spread, channels) * (count / (count - 1))


def _normalize_channels(x, mu, spread, weight=None, bias=None, eps=1e-5):
    column = (-1, *(1,) * (x.ndim - 2))
    y = (x - mu.reshape(column)) / np.sqrt(spread.reshape(column) + eps)
    y = y * (1.0 if weight is None else weight.reshape(column))
    return y + (0.0 if bias is None else bias.reshape(column))


@composite(
    sums=True,
    namespace="nn",
    public=False,
    reference=_normalize_channels,
    samples=[
        dict(shapes=((4, 3), (3,), (3,)), values=((-2, 2), (-1, 1), (0.5, 2))),
        dict(shapes=((2, 3, 4), (3,), (3,), (3,), (3,)), values=((-2, 2), (-1, 1), (0.5, 2), (-2, 2), (-2, 2))),
    ],
)
def normalize_channels(input: Tensor, mean: Tensor, var: Tensor, weight=None, bias=None, eps=1e-5):
    """(input - mean) / sqrt(var + eps), times weight, plus bias, each (C,): batch normalisation with known statistics."""
    x = floating(input)
    column = (-1, *(1,) * (x.ndim - 2))
    return scaled((x - reshape(mean, column)) * reshape(rsqrt(var + eps), column), weight, bias)


@elementwise(public=False, reference=lambda old, new, share: old + (new - old) * share)
def moving_average(old, new, share):
    """(1 - share) old + share new."""
    return old + (new - old) * share
