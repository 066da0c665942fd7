"""Convolutions of images (NCHW) and sequences (NCL), and their transposes.

Three kernels are each other's gradients: the convolution, its transpose in the images, its transpose in the filters.
"""

from __future__ import annotations

import operator

import numpy as np

from ..dtypes import promote
from ..errors import ShapeError
from .axes import pair
from .movement import astype, expand_dims, floating, reshape, squeeze
from .registry import Tensor, composite, primitive


def out_length(n: int, k: int, stride: int, pads: tuple[int, int], dilation: int) -> int:
    """How many windows of k taps fit into n places with padding."""
    return (n + pads[0] + pads[1] - dilation * (k - 1) - 1) // stride + 1


@primitive(public=False, builder="conv2d")
def conv_kernel(x: Tensor, w: Tensor, stride, padding, dilation, groups):
    """Cross-correlation of images with filters."""
    return (x, w), {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


@conv_kernel.shape
def _(x, w, stride, padding, dilation, groups):
    size = tuple(
        out_length(n, k, s, p, d)
        for n, k, s, p, d in zip(x.shape[2:], w.shape[2:], stride, padding, dilation, strict=True)
    )
    return (x.shape[0], w.shape[0], *size), x.dtype


@conv_kernel.adjoint(0, saves=(1,))
def _(g, y, x, w, **how):
    return conv_input(g, w, input_size=x.shape[2:], **how)


@conv_kernel.adjoint(1, saves=(0,))
def _(g, y, x, w, **how):
    return conv_weight(x, g, kernel_size=w.shape[2:], **how)


@primitive(public=False, builder="conv2d_input")
def conv_input(g: Tensor, w: Tensor, input_size, stride, padding, dilation, groups):
    """The transpose of conv_kernel with respect to its images."""
    return (g, w), {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "input_size": input_size,
    }


@conv_input.shape
def _(g, w, input_size, groups, **how):
    return (g.shape[0], w.shape[1] * groups, *input_size), g.dtype


@conv_input.adjoint(0, saves=(1,))
def _(g, y, h, w, input_size, **how):
    return conv_kernel(g, w, **how)


@conv_input.adjoint(1, saves=(0,))
def _(g, y, h, w, input_size, **how):
    return conv_weight(g, h, kernel_size=w.shape[2:], **how)


@primitive(public=False, builder="conv2d_weight")
def conv_weight(x: Tensor, g: Tensor, kernel_size, stride, padding, dilation, groups):
    """The transpose of conv_kernel with respect to its filters."""
    return (x, g), {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "kernel_size": kernel_size,
    }


@conv_weight.shape
def _(x, g, kernel_size, groups, **how):
    return (g.shape[1], x.shape[1] // groups, *kernel_size), x.dtype


@conv_weight.adjoint(0, saves=(1,))
def _(g, y, x, h, kernel_size, **how):
    return conv_input(h, g, input_size=x.shape[2:], **how)


@conv_weight.adjoint(1, saves=(0,))
def _(g, y, x, h, kernel_size, **how):
    return conv_kernel(x, g, **how)


def _padding(padding, kernel, stride, dilation, op_name: str):
    if padding == "valid":
        return ((0, 0), (0, 0))
    if padding == "same":
        if stride != (1, 1):
            raise ShapeError(f'{op_name}: padding "same" needs stride 1, not {stride}')
        total = tuple(d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
        return tuple((t // 2, t - t // 2) for t in total)
    if isinstance(padding, str):
        raise ShapeError(f'{op_name}: padding is a number, two of them, "same" or "valid", not {padding!r}')
    return tuple((p, p) for p in pair(padding, op_name, "padding"))


def _conv_checked(x, w, bias, groups, op_name: str, axes: int, transposed: bool = False):
    """Shapes and dtypes that fit, or a sentence."""
    if w.ndim != axes or x.ndim not in (axes - 1, axes):
        raise ShapeError(
            f"{op_name}: input has shape {x.shape} and weight {w.shape}; wanted {axes} axes each (batch and channels first)"
        )
    if groups < 1 or w.shape[0] % groups or x.shape[-axes + 1] % groups:
        raise ShapeError(
            f"{op_name}: groups is {groups}; it must divide {x.shape[-axes + 1]} input channels and {w.shape[0]} filters"
        )
    channels = w.shape[0] if transposed else w.shape[1] * groups
    if x.shape[-axes + 1] != channels:
        raise ShapeError(
            f"{op_name}: input {x.shape} has {x.shape[-axes + 1]} channels, weight {w.shape} with {groups} groups wants {channels}"
        )
    filters = w.shape[1] * groups if transposed else w.shape[0]
    if bias is not None and bias.shape != (filters,):
        raise ShapeError(f"{op_name}: bias has shape {bias.shape}, wanted ({filters},)")
    meet = promote(floating(x).dtype, floating(w).dtype)
    return astype(x, meet), astype(w, meet)


def _conv_reference(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    s, p, d = (v if isinstance(v, tuple) else (v, v) for v in (stride, padding, dilation))
    x = np.pad(x, ((0, 0), (0, 0), (p[0], p[0]), (p[1], p[1])))
    kh, kw = (d[i] * (w.shape[2 + i] - 1) + 1 for i in range(2))
    win = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), (2, 3))[:, :, :: s[0], :: s[1], :: d[0], :: d[1]]
    parts = np.split(win, groups, 1)
    out = np.concatenate(
        [np.einsum("nchwij,ocij->nohw", q, f) for q, f in zip(parts, np.split(w, groups), strict=True)], 1
    )
    return out if b is None else out + b[:, None, None]


_CONV2D = [
    dict(shapes=((2, 3, 5, 4), (4, 3, 3, 2), (4,))),
    dict(shapes=((1, 4, 6, 6), (4, 2, 3, 3)), attrs=dict(stride=2, padding=1, groups=2)),
    dict(shapes=((2, 2, 7, 6), (3, 2, 2, 2)), attrs=dict(dilation=(2, 1), padding=(0, 1))),
]


@composite(namespace="nn", reference=_conv_reference, samples=_CONV2D)
def conv2d(input: Tensor, weight: Tensor, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlation of images (N, C, H, W) with filters (O, C/groups, KH, KW), plus a bias (O,).

    padding: zeros on each side, a number, (vertical, horizontal), "same" or "valid". Source: Goodfellow et al. 2016, chapter 9.
    """
    bias = _bias(bias, "conv2d", input.device)
    input, weight = _conv_checked(input, weight, bias, groups, "conv2d", 4)
    single = input.ndim == 3
    if single:
        input = expand_dims(input, 0)
    stride, dilation = pair(stride, "conv2d", "stride", 1), pair(dilation, "conv2d", "dilation", 1)
    padding = _padding(padding, weight.shape[2:], stride, dilation, "conv2d")
    for n, k, p, d in zip(input.shape[2:], weight.shape[2:], padding, dilation, strict=True):
        if n + p[0] + p[1] < d * (k - 1) + 1:
            raise ShapeError(
                f"conv2d: filters of {weight.shape[2:]} (dilation {dilation}) do not fit into images of "
                f"{input.shape[2:]} with padding {padding}"
            )
    out = conv_kernel(input, weight, stride=stride, padding=padding, dilation=dilation, groups=groups)
    if bias is not None:
        out = out + reshape(bias, (-1, 1, 1))
    return squeeze(out, 0) if single else out


def _bias(bias, op_name: str, device: str):
    from .registry import _interpreter

    return None if bias is None else _interpreter.tensor(bias, op_name, device)


def single(value):
    """An argument of a 1-D op as that of the 2-D op on images of height 1."""
    if isinstance(value, str):
        return value
    return (operator.index(value[0] if isinstance(value, tuple | list) else value),)


@composite(
    namespace="nn",
    reference=lambda x, w, b=None, stride=1, padding=0, dilation=1, groups=1: _conv_reference(
        x[:, :, None], w[:, :, None], b, (1, stride), (0, padding), (1, dilation), groups
    )[:, :, 0],
    samples=[
        dict(shapes=((2, 3, 7), (4, 3, 3), (4,)), attrs=dict(stride=2, padding=1)),
        dict(shapes=((1, 4, 6), (2, 2, 2)), attrs=dict(groups=2)),
    ],
)
def conv1d(input: Tensor, weight: Tensor, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlation of sequences (N, C, L) with filters (O, C/groups, K), plus a bias (O,)."""
    bias = _bias(bias, "conv1d", input.device)
    input, weight = _conv_checked(input, weight, bias, groups, "conv1d", 3)
    stride, dilation = (1, *single(stride)), (1, *single(dilation))
    if not isinstance(padding, str):
        padding = (0, *single(padding))
    return squeeze(conv2d(expand_dims(input, -2), expand_dims(weight, -2), bias, stride, padding, dilation, groups), -2)


def _transpose_reference(x, w, b=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    s, p, d, e = (v if isinstance(v, tuple) else (v, v) for v in (stride, padding, dilation, output_padding))
    n, c, h, wd = x.shape
    kh, kw = w.shape[2:]
    full = np.zeros(
        (
            n,
            w.shape[1] * groups,
            (h - 1) * s[0] + d[0] * (kh - 1) + 1 + e[0],
            (wd - 1) * s[1] + d[1] * (kw - 1) + 1 + e[1],
        )
    )
    cg, og = c // groups, w.shape[1]
    for k in range(groups):
        for i in range(kh):
            for j in range(kw):
                part = np.einsum("nchw,co->nohw", x[:, k * cg : (k + 1) * cg], w[k * cg : (k + 1) * cg, :, i, j])
                full[
                    :,
                    k * og : (k + 1) * og,
                    i * d[0] : i * d[0] + h * s[0] : s[0],
                    j * d[1] : j * d[1] + wd * s[1] : s[1],
                ] += part[:, :, :, :]
    out = full[:, :, p[0] : full.shape[2] - p[0], p[1] : full.shape[3] - p[1]]
    return out if b is None else out + b[:, None, None]


@composite(
    namespace="nn",
    reference=_transpose_reference,
    samples=[
        dict(shapes=((2, 3, 4, 3), (3, 2, 3, 2), (2,))),
        dict(shapes=((1, 4, 3, 3), (4, 1, 3, 3)), attrs=dict(stride=2, padding=1, output_padding=1, groups=2)),
    ],
)
def conv_transpose2d(
    input: Tensor, weight: Tensor, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    """The transpose of conv2d: images (N, C, H, W), filters (C, O/groups, KH, KW). Upsamples by `stride`."""
    bias = _bias(bias, "conv_transpose2d", input.device)
    input, weight = _conv_checked(input, weight, bias, groups, "conv_transpose2d", 4, transposed=True)
    single = input.ndim == 3
    if single:
        input = expand_dims(input, 0)
    stride, dilation = pair(stride, "conv_transpose2d", "stride", 1), pair(dilation, "conv_transpose2d", "dilation", 1)
    padding, extra = (
        pair(padding, "conv_transpose2d", "padding"),
        pair(output_padding, "conv_transpose2d", "output_padding"),
    )
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ShapeError(
            f"conv_transpose2d: output_padding {extra} must be smaller than stride {stride} or dilation {dilation}"
        )
    size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + 1 + e
        for n, s, p, d, k, e in zip(input.shape[2:], stride, padding, dilation, weight.shape[2:], extra, strict=True)
    )
    if min(size) < 1:
        raise ShapeError(f"conv_transpose2d: the result would have size {size}; use less padding")
    out = conv_input(
        input,
        weight,
        input_size=size,
        stride=stride,
        padding=tuple((p, p) for p in padding),
        dilation=dilation,
        groups=groups,
    )
    if bias is not None:
        out = out + reshape(bias, (-1, 1, 1))
    return squeeze(out, 0) if single else out


@composite(
    namespace="nn",
    reference=lambda x, w, b=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1: _transpose_reference(
        x[:, :, None], w[:, :, None], b, (1, stride), (0, padding), (0, output_padding), groups, (1, dilation)
    )[:, :, 0],
    samples=[dict(shapes=((2, 3, 4), (3, 2, 3), (2,)), attrs=dict(stride=2))],
)
def conv_transpose1d(
    input: Tensor, weight: Tensor, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    """The transpose of conv1d: sequences (N, C, L), filters (C, O/groups, K)."""
    made = conv_transpose2d(
        expand_dims(input, -2),
        expand_dims(weight, -2),
        bias,
        (1, *single(stride)),
        (0, *single(padding)),
        (0, *single(output_padding)),
        groups,
        (1, *single(dilation)),
    )
    return squeeze(made, -2)
