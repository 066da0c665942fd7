"""Pooling of images (NCHW) and sequences (NCL)."""

from __future__ import annotations

import math

import numpy as np

from ..dtypes import int32
from ..errors import ShapeError
from .axes import pair
from .convolution import out_length, single
from .indexing import take, take_along_kernel
from .movement import expand_dims, floating, reshape, squeeze
from .reduce import argmax
from .reduce import sum_ as sum_over
from .registry import Tensor, composite, primitive


@primitive(public=False, builder="max_pool2d", outputs=2)
def max_pool_kernel(x: Tensor, kernel, stride, padding, dilation):
    """Each window's maximum, and its flat position in its plane (int32)."""
    return (x,), {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}


@max_pool_kernel.shape
def _(x, kernel, stride, padding, dilation):
    size = (out_length(*v) for v in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True))
    shape = (*x.shape[:2], *size)
    return [(shape, x.dtype), (shape, int32)]


@max_pool_kernel.adjoint(0, saves=("y",))
def _(g, y, x, **how):
    return None if g[0] is None else max_pool_slope(g[0], y[1], x.shape[2:])


@primitive(public=False, builder="max_pool2d_slope")
def max_pool_slope(g: Tensor, at: Tensor, input_size):
    """Planes of zeros with each element of g added at its flat position: the transpose of a maximum over windows."""
    return (g, at), {"input_size": input_size}


@max_pool_slope.shape
def _(g, at, input_size):
    return (*g.shape[:2], *input_size), g.dtype


@max_pool_slope.adjoint(0, saves=(1,))
def _(h, y, g, at, input_size):
    planes, windows = math.prod(g.shape[:2]), math.prod(g.shape[2:])
    taken = take_along_kernel(reshape(h, (planes, math.prod(input_size))), reshape(at, (planes, windows)), 1)
    return reshape(taken, g.shape)


def _pool_arguments(x, kernel_size, stride, padding, op_name: str, dilation=1):
    if x.ndim not in (3, 4):
        raise ShapeError(f"{op_name}: wanted images (N, C, H, W) or (C, H, W), got shape {x.shape}")
    kernel = pair(kernel_size, op_name, "kernel_size", 1)
    stride = kernel if stride is None else pair(stride, op_name, "stride", 1)
    padding, dilation = pair(padding, op_name, "padding"), pair(dilation, op_name, "dilation", 1)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise ShapeError(f"{op_name}: padding {padding} may be at most half of kernel_size {kernel}")
    pads = tuple((p, p) for p in padding)
    if any(out_length(*v) < 1 for v in zip(x.shape[-2:], kernel, stride, pads, dilation, strict=True)):
        raise ShapeError(
            f"{op_name}: windows of {kernel} do not fit into images of {x.shape[-2:]} with padding {padding}"
        )
    if dilation != (1, 1) and padding != (0, 0):
        for n, k, s, p, d in zip(x.shape[-2:], kernel, stride, padding, dilation):
            for first in range(-p, n + p - d * (k - 1), s):
                if not any(0 <= first + i * d < n for i in range(k)):
                    raise ShapeError(
                        f"{op_name}: with dilation {dilation} and padding {padding}, a window holds nothing but padding; use less padding"
                    )
    return kernel, stride, pads, dilation


def _windows(x, k, s, p, fill):
    k, s, p = (v if isinstance(v, tuple) else (v, v) for v in (k, s if s is not None else k, p))
    x = np.pad(x, ((0, 0), (0, 0), (p[0], p[0]), (p[1], p[1])), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(x, k, (2, 3))[:, :, :: s[0], :: s[1]]


@composite(
    namespace="nn",
    reference=lambda x, k, stride=None, padding=0: _windows(x, k, stride, padding, -np.inf).max((-1, -2)),
    samples=[
        dict(shapes=((2, 3, 6, 4),), args=(2,)),
        dict(shapes=((1, 2, 5, 5),), args=(3,), attrs=dict(stride=2, padding=1)),
    ],
)
def max_pool2d(input: Tensor, kernel_size, stride=None, padding=0, dilation=1):
    """The maximum of each window; the first of equal ones gets the gradient. Padding is never chosen; nan wins."""
    single = input.ndim == 3
    how = _pool_arguments(input, kernel_size, stride, padding, "max_pool2d", dilation)
    x = expand_dims(input, 0) if single else input
    out, _ = max_pool_kernel(x, *how)
    return squeeze(out, 0) if single else out


@primitive(public=False, builder="avg_pool2d")
def avg_pool_kernel(x: Tensor, kernel, stride, padding, count_include_pad):
    """The mean of each window."""
    return (x,), {"kernel": kernel, "stride": stride, "padding": padding, "count_include_pad": count_include_pad}


@avg_pool_kernel.shape
def _(x, kernel, stride, padding, count_include_pad):
    return (*x.shape[:2], *(out_length(*v, 1) for v in zip(x.shape[2:], kernel, stride, padding, strict=True))), x.dtype


@avg_pool_kernel.adjoint(0, saves=())
def _(g, y, x, **how):
    return avg_pool_input(g, input_size=x.shape[2:], **how)


@primitive(public=False, builder="avg_pool2d_input")
def avg_pool_input(g: Tensor, input_size, kernel, stride, padding, count_include_pad):
    """The transpose of avg_pool_kernel."""
    return (g,), {
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "count_include_pad": count_include_pad,
        "input_size": input_size,
    }


@avg_pool_input.shape
def _(g, input_size, **how):
    return (*g.shape[:2], *input_size), g.dtype


@avg_pool_input.adjoint(0, saves=())
def _(g, y, h, input_size, **how):
    return avg_pool_kernel(g, **how)


@composite(
    namespace="nn",
    reference=lambda x, k, stride=None, padding=0: _windows(x, k, stride, padding, 0).mean((-1, -2)),
    samples=[
        dict(shapes=((2, 3, 6, 4),), args=(2,)),
        dict(shapes=((1, 2, 5, 5),), args=(3,), attrs=dict(stride=2, padding=1)),
    ],
)
def avg_pool2d(input: Tensor, kernel_size, stride=None, padding=0, count_include_pad=True):
    """The mean of each window; padding counts as zeros unless count_include_pad is False."""
    single = input.ndim == 3
    kernel, stride, padding, _ = _pool_arguments(input, kernel_size, stride, padding, "avg_pool2d")
    x = floating(expand_dims(input, 0) if single else input)
    out = avg_pool_kernel(x, kernel, stride, padding, bool(count_include_pad))
    return squeeze(out, 0) if single else out


def _wide(value):
    return None if value is None else (1, *single(value))


@composite(
    namespace="nn",
    reference=lambda x, k, stride=None, padding=0: _windows(
        x[:, :, None], (1, k), None if stride is None else (1, stride), (0, padding), -np.inf
    ).max((-1, -2))[:, :, 0],
    samples=[dict(shapes=((2, 3, 6),), args=(2,))],
)
def max_pool1d(input: Tensor, kernel_size, stride=None, padding=0, dilation=1):
    """The maximum of each window of a sequence (N, C, L)."""
    return squeeze(
        max_pool2d(expand_dims(input, -2), _wide(kernel_size), _wide(stride), (0, *single(padding)), _wide(dilation)),
        -2,
    )


@composite(
    namespace="nn",
    reference=lambda x, k, stride=None, padding=0: _windows(
        x[:, :, None], (1, k), None if stride is None else (1, stride), (0, padding), 0
    ).mean((-1, -2))[:, :, 0],
    samples=[dict(shapes=((2, 3, 6),), args=(2,))],
)
def avg_pool1d(input: Tensor, kernel_size, stride=None, padding=0, count_include_pad=True):
    """The mean of each window of a sequence (N, C, L)."""
    return squeeze(
        avg_pool2d(expand_dims(input, -2), _wide(kernel_size), _wide(stride), (0, *single(padding)), count_include_pad),
        -2,
    )


# adaptive pooling: as many windows as wanted, as even as can be


def _even(n: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each of `count` windows over n elements starts and ends: floor(i n / count) to ceil((i + 1) n / count)."""
    i = np.arange(count)
    return i * n // count, -(-(i + 1) * n // count)


def _pooled_evenly(x, axis: int, count: int, how: str):
    """x with `count` windows along the axis in place of its elements, each its mean or its maximum."""
    n = x.shape[axis]
    starts, ends = _even(n, count)
    longest = int((ends - starts).max())
    # windows are equally long here: shorter ones repeat their last element, with weight 0 in a mean
    places = starts[:, None] + np.arange(longest)
    taken = take(x, np.minimum(places, ends[:, None] - 1).reshape(-1), axis)
    windows = reshape(taken, (*x.shape[:axis], count, longest, *x.shape[axis + 1 :]))
    if how == "max":
        # the first of equal ones gets the gradient, in a window of two axes the one in the first row
        return squeeze(take_along_kernel(windows, argmax(windows, axis + 1, True), axis + 1), axis + 1)
    shares = (places < ends[:, None]) / (ends - starts)[:, None]
    shares = shares.astype(x.dtype.name).reshape(count, longest, *(1,) * (x.ndim - axis - 1))
    return sum_over(windows * shares, axis + 1)


def _adaptive(x, output_size, axes: int, op_name: str, how: str):
    if x.ndim not in (axes + 1, axes + 2):
        wanted = "images (N, C, H, W) or (C, H, W)" if axes == 2 else "sequences (N, C, L) or (C, L)"
        raise ShapeError(f"{op_name}: wanted {wanted}, got shape {x.shape}")
    listed = tuple(output_size) if isinstance(output_size, tuple | list) else (output_size,) * axes
    if len(listed) != axes:
        raise ShapeError(f"{op_name}: output_size is a number or {axes} of them, not {output_size!r}")
    first = x.ndim - axes
    sizes = tuple(n if s is None else s for s, n in zip(listed, x.shape[first:], strict=True))
    if not all(hasattr(s, "__index__") and s >= 1 for s in sizes) or 0 in x.shape[first:]:
        raise ShapeError(
            f"{op_name}: output_size is {output_size!r} for an input of shape {x.shape}; sizes are whole numbers from 1, or "
            "None to keep an axis, and there must be something to pool"
        )
    x = floating(x) if how == "mean" else x
    if axes == 2 and all(n % s == 0 for n, s in zip(x.shape[first:], sizes, strict=True)):
        kernel = tuple(n // s for n, s in zip(x.shape[first:], sizes, strict=True))
        return (avg_pool2d if how == "mean" else max_pool2d)(x, kernel)
    for axis, size in reversed(
        list(enumerate(sizes, first))
    ):  # columns, then rows: the order in which equal maxima are taken
        if size != x.shape[axis]:
            x = _pooled_evenly(x, axis, size, how)
    return x


def _adaptive_reference(x, sizes, axes, fn):
    listed = sizes if isinstance(sizes, tuple) else (sizes,) * axes
    for axis, size in enumerate(listed, x.ndim - axes):
        if size is not None:
            parts = zip(*_even(x.shape[axis], size))
            x = np.stack([fn(np.take(x, range(a, b), axis), axis) for a, b in parts], axis)
    return x


_PLANES = [
    dict(shapes=((2, 3, 6, 4),), args=((3, 2),)),
    dict(shapes=((1, 2, 5, 7),), args=((3, None),)),
    dict(shapes=((2, 5, 3),), args=((2, 4),)),
]
_LINES = [dict(shapes=((2, 3, 6),), args=(3,)), dict(shapes=((2, 7),), args=(3,))]


@composite(sums=True, namespace="nn", reference=lambda x, n: _adaptive_reference(x, n, 2, np.mean), samples=_PLANES)
def adaptive_avg_pool2d(input: Tensor, output_size):
    """The means of output_size, a number or (rows, columns), even windows; None keeps an axis. (N, C, H, W) or (C, H, W)."""
    return _adaptive(input, output_size, 2, "adaptive_avg_pool2d", "mean")


@composite(namespace="nn", reference=lambda x, n: _adaptive_reference(x, n, 2, np.max), samples=_PLANES)
def adaptive_max_pool2d(input: Tensor, output_size):
    """The maxima of output_size, a number or (rows, columns), even windows; None keeps an axis. (N, C, H, W) or (C, H, W)."""
    return _adaptive(input, output_size, 2, "adaptive_max_pool2d", "max")


@composite(sums=True, namespace="nn", reference=lambda x, n: _adaptive_reference(x, n, 1, np.mean), samples=_LINES)
def adaptive_avg_pool1d(input: Tensor, output_size):
    """The means of output_size even windows of sequences (N, C, L) or (C, L)."""
    return _adaptive(input, output_size, 1, "adaptive_avg_pool1d", "mean")


@composite(namespace="nn", reference=lambda x, n: _adaptive_reference(x, n, 1, np.max), samples=_LINES)
def adaptive_max_pool1d(input: Tensor, output_size):
    """The maxima of output_size even windows of sequences (N, C, L) or (C, L)."""
    return _adaptive(input, output_size, 1, "adaptive_max_pool1d", "max")
