"""Pooling of images (NCHW) and sequences (NCL)."""

from __future__ import annotations

import math

import numpy as np

from ..dtypes import int32
from ..errors import ShapeError
from .axes import pair
from .convolution import out_length, single
from .indexing import take_along_kernel
from .movement import expand_dims, floating, reshape, squeeze
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
