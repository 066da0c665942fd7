"""Ops of neural networks: softmax, cross entropy, convolution, pooling, dropout, embedding. All images are NCHW."""
from __future__ import annotations

import operator

import numpy as np

from ..dtypes import DEFAULT, promote
from ..errors import DtypeError, ShapeError
from .axes import one_axis, pair
from .elementwise import multiply
from .indexing import integers, take, take_along_kernel
from .movement import astype, expand_dims, reshape, squeeze
from .random import bernoulli
from .reduce import sum_ as sum_over
from .registry import Tensor, composite, primitive


def floating(x):
    return x if x.dtype.is_float else astype(x, DEFAULT)


# softmax and cross entropy

def _softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@primitive(public=False, builder="softmax")
def softmax_kernel(x: Tensor, axis):
    """exp(x) / sum(exp(x)) along an axis."""
    return (x,), {"axis": axis}


@softmax_kernel.shape
def _(x, axis):
    return x.shape, x.dtype


@softmax_kernel.adjoint(0, saves=("y",))
def _(g, y, x, axis):
    return y * (g - sum_over(g * y, axis, keepdims=True))


@composite(method=True, reference=_softmax, samples=[dict(shapes=((3, 4),)), dict(shapes=((2, 3, 4),), attrs=dict(axis=1))])
def softmax(x: Tensor, axis=-1):
    """exp(x) / sum(exp(x)) along an axis, without overflow."""
    return softmax_kernel(floating(x), one_axis(axis, x.ndim, "softmax"))


@primitive(public=False, builder="log_softmax")
def log_softmax_kernel(x: Tensor, axis):
    """log(softmax(x)) along an axis."""
    return (x,), {"axis": axis}


@log_softmax_kernel.shape
def _(x, axis):
    return x.shape, x.dtype


@log_softmax_kernel.adjoint(0, saves=(0,))
def _(g, y, x, axis):
    return g - softmax_kernel(x, axis) * sum_over(g, axis, keepdims=True)


@composite(method=True, reference=lambda x, axis=-1: np.log(_softmax(x, axis)), samples=[dict(shapes=((3, 4),)), dict(shapes=((2, 3, 4),), attrs=dict(axis=1))])
def log_softmax(x: Tensor, axis=-1):
    """log(softmax(x)) along an axis, without overflow."""
    return log_softmax_kernel(floating(x), one_axis(axis, x.ndim, "log_softmax"))


@primitive(public=False, builder="cross_entropy")
def cross_entropy_kernel(logits: Tensor, target: Tensor, ignore_index):
    """For each row, logsumexp(row) - row[target]; 0 where the target is ignore_index."""
    return (logits, target), {"ignore_index": ignore_index}


@cross_entropy_kernel.shape
def _(logits, target, ignore_index):
    return target.shape, logits.dtype


@cross_entropy_kernel.adjoint(0, saves=(0, 1))
def _(g, y, logits, target, ignore_index):
    from .creation import arange
    from .elementwise import where

    column = expand_dims(target, -1)
    share = softmax_kernel(logits, 1) - astype(column == arange(logits.shape[1], device=logits.device), logits.dtype)
    return where(column == ignore_index, 0.0, share * expand_dims(g, -1))


def reduce_losses(losses, reduction: str, op_name: str, count=None):
    """Losses as they are, summed, or averaged (over `count`, where given)."""
    if reduction == "none":
        return losses
    total = losses.sum()
    if reduction == "sum":
        return total
    if reduction == "mean":
        return total / count if count is not None else total * (1.0 / max(losses.size, 1))
    raise ShapeError(f'{op_name}: reduction is "mean", "sum" or "none", not {reduction!r}')


def _cross_entropy(x, target, ignore_index=-100, reduction="mean"):
    logp = np.log(_softmax(x, 1))
    if target.dtype.kind == "f":
        losses = -(target * logp).sum(1)
    else:
        losses = -np.take_along_axis(logp, np.expand_dims(target, 1), 1).squeeze(1)
    return {"mean": losses.mean, "sum": losses.sum}[reduction]()


@composite(namespace="nn", reference=_cross_entropy, samples=[dict(shapes=((4, 3),), args=(np.array([0, 2, 1, 1]),)), dict(shapes=((2, 3, 4),), args=(np.array([[0, 2, 1, 1], [1, 0, 0, 2]]),), attrs=dict(reduction="sum")), dict(shapes=((4, 3), (4, 3)))])
def cross_entropy(input: Tensor, target: Tensor, ignore_index=-100, reduction="mean"):
    """The cross entropy between logits and classes (integers) or class probabilities (floats of the logits' shape).

    input: (N, C) or (N, C, ...), or (C,) for one sample. Raises IndexOutOfRange where a class is not in 0..C-1.
    """
    input = floating(input)
    if target.dtype.is_float:
        if target.shape != input.shape:
            raise ShapeError(f"cross_entropy: class probabilities of shape {target.shape} for logits of shape {input.shape}; they must be equal")
        axis = 0 if input.ndim == 1 else 1
        return reduce_losses(-sum_over(target * log_softmax(input, axis), axis), reduction, "cross_entropy")
    if input.ndim == 0 or target.shape != input.shape[:1] * (input.ndim > 1) + input.shape[2:]:
        raise ShapeError(f"cross_entropy: logits have shape {input.shape} (N, C, …), so classes need {input.shape[:1] + input.shape[2:]}; they have {target.shape}")
    target = integers(target, "cross_entropy", "target")
    if input.ndim == 1:
        input, target = expand_dims(input, 0), expand_dims(target, 0)
    rows = input if input.ndim == 2 else reshape(input.swapaxes(1, -1), (-1, input.shape[1])) if input.ndim == 3 else reshape(
        input.permute((0, *range(2, input.ndim), 1)), (-1, input.shape[1]))
    flat = reshape(target, (-1,))
    losses = cross_entropy_kernel(rows, flat, int(ignore_index))
    if reduction == "none":
        return reshape(losses, target.shape)
    counted = None
    if 0 <= ignore_index or reduction == "mean":
        counted = astype(astype(flat != ignore_index, losses.dtype).sum(), losses.dtype)
    return reduce_losses(losses, reduction, "cross_entropy", counted)


# convolution



def _out_length(n: int, k: int, stride: int, pads: tuple[int, int], dilation: int) -> int:
    return (n + pads[0] + pads[1] - dilation * (k - 1) - 1) // stride + 1


@primitive(public=False, builder="conv2d")
def conv_kernel(x: Tensor, w: Tensor, stride, padding, dilation, groups):
    """Cross-correlation of images with filters."""
    return (x, w), {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


@conv_kernel.shape
def _(x, w, stride, padding, dilation, groups):
    size = tuple(_out_length(n, k, s, p, d) for n, k, s, p, d in zip(x.shape[2:], w.shape[2:], stride, padding, dilation, strict=True))
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
    return (g, w), {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "input_size": input_size}


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
    return (x, g), {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "kernel_size": kernel_size}


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
        raise ShapeError(f"{op_name}: input has shape {x.shape} and weight {w.shape}; wanted {axes} axes each (batch and channels first)")
    if groups < 1 or w.shape[0] % groups or x.shape[-axes + 1] % groups:
        raise ShapeError(f"{op_name}: groups is {groups}; it must divide {x.shape[-axes + 1]} input channels and {w.shape[0]} filters")
    channels = w.shape[0] if transposed else w.shape[1] * groups
    if x.shape[-axes + 1] != channels:
        raise ShapeError(f"{op_name}: input {x.shape} has {x.shape[-axes + 1]} channels, weight {w.shape} with {groups} groups wants {channels}")
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
    out = np.concatenate([np.einsum("nchwij,ocij->nohw", q, f) for q, f in zip(parts, np.split(w, groups), strict=True)], 1)
    return out if b is None else out + b[:, None, None]


_CONV2D = [dict(shapes=((2, 3, 5, 4), (4, 3, 3, 2), (4,))), dict(shapes=((1, 4, 6, 6), (4, 2, 3, 3)), attrs=dict(stride=2, padding=1, groups=2)),
           dict(shapes=((2, 2, 7, 6), (3, 2, 2, 2)), attrs=dict(dilation=(2, 1), padding=(0, 1)))]


@composite(namespace="nn", reference=_conv_reference, samples=_CONV2D)
def conv2d(input: Tensor, weight: Tensor, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlation of images (N, C, H, W) with filters (O, C/groups, KH, KW), plus a bias (O,).

    padding: zeros on each side, a number, (vertical, horizontal), "same" or "valid". Source: Goodfellow et al. 2016, chapter 9.
    """
    bias = _bias(bias, "conv2d")
    input, weight = _conv_checked(input, weight, bias, groups, "conv2d", 4)
    single = input.ndim == 3
    if single:
        input = expand_dims(input, 0)
    stride, dilation = pair(stride, "conv2d", "stride", 1), pair(dilation, "conv2d", "dilation", 1)
    padding = _padding(padding, weight.shape[2:], stride, dilation, "conv2d")
    for n, k, p, d in zip(input.shape[2:], weight.shape[2:], padding, dilation, strict=True):
        if n + p[0] + p[1] < d * (k - 1) + 1:
            raise ShapeError(f"conv2d: filters of {weight.shape[2:]} (dilation {dilation}) do not fit into images of {input.shape[2:]} with padding {padding}")
    out = conv_kernel(input, weight, stride=stride, padding=padding, dilation=dilation, groups=groups)
    if bias is not None:
        out = out + reshape(bias, (-1, 1, 1))
    return squeeze(out, 0) if single else out


def _bias(bias, op_name: str):
    from .registry import _interpreter

    return None if bias is None else _interpreter.tensor(bias, op_name)


def _single(value):
    """An argument of a 1-D op as that of the 2-D op on images of height 1."""
    if isinstance(value, str):
        return value
    return (operator.index(value[0] if isinstance(value, tuple | list) else value),)


@composite(namespace="nn", reference=lambda x, w, b=None, stride=1, padding=0, dilation=1, groups=1: _conv_reference(x[:, :, None], w[:, :, None], b, (1, stride), (0, padding), (1, dilation), groups)[:, :, 0],
           samples=[dict(shapes=((2, 3, 7), (4, 3, 3), (4,)), attrs=dict(stride=2, padding=1)), dict(shapes=((1, 4, 6), (2, 2, 2)), attrs=dict(groups=2))])
def conv1d(input: Tensor, weight: Tensor, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlation of sequences (N, C, L) with filters (O, C/groups, K), plus a bias (O,)."""
    bias = _bias(bias, "conv1d")
    input, weight = _conv_checked(input, weight, bias, groups, "conv1d", 3)
    stride, dilation = (1, *_single(stride)), (1, *_single(dilation))
    if not isinstance(padding, str):
        padding = (0, *_single(padding))
    return squeeze(conv2d(expand_dims(input, -2), expand_dims(weight, -2), bias, stride, padding, dilation, groups), -2)


def _transpose_reference(x, w, b=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    s, p, d, e = (v if isinstance(v, tuple) else (v, v) for v in (stride, padding, dilation, output_padding))
    n, c, h, wd = x.shape
    kh, kw = w.shape[2:]
    full = np.zeros((n, w.shape[1] * groups, (h - 1) * s[0] + d[0] * (kh - 1) + 1 + e[0], (wd - 1) * s[1] + d[1] * (kw - 1) + 1 + e[1]))
    cg, og = c // groups, w.shape[1]
    for k in range(groups):
        for i in range(kh):
            for j in range(kw):
                part = np.einsum("nchw,co->nohw", x[:, k * cg:(k + 1) * cg], w[k * cg:(k + 1) * cg, :, i, j])
                full[:, k * og:(k + 1) * og, i * d[0]: i * d[0] + h * s[0]: s[0], j * d[1]: j * d[1] + wd * s[1]: s[1]] += part[:, :, :, :]
    out = full[:, :, p[0]: full.shape[2] - p[0], p[1]: full.shape[3] - p[1]]
    return out if b is None else out + b[:, None, None]


@composite(namespace="nn", reference=_transpose_reference, samples=[dict(shapes=((2, 3, 4, 3), (3, 2, 3, 2), (2,))), dict(shapes=((1, 4, 3, 3), (4, 1, 3, 3)), attrs=dict(stride=2, padding=1, output_padding=1, groups=2))])
def conv_transpose2d(input: Tensor, weight: Tensor, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """The transpose of conv2d: images (N, C, H, W), filters (C, O/groups, KH, KW). Upsamples by `stride`."""
    bias = _bias(bias, "conv_transpose2d")
    input, weight = _conv_checked(input, weight, bias, groups, "conv_transpose2d", 4, transposed=True)
    single = input.ndim == 3
    if single:
        input = expand_dims(input, 0)
    stride, dilation = pair(stride, "conv_transpose2d", "stride", 1), pair(dilation, "conv_transpose2d", "dilation", 1)
    padding, extra = pair(padding, "conv_transpose2d", "padding"), pair(output_padding, "conv_transpose2d", "output_padding")
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ShapeError(f"conv_transpose2d: output_padding {extra} must be smaller than stride {stride} or dilation {dilation}")
    size = tuple((n - 1) * s - 2 * p + d * (k - 1) + 1 + e
                 for n, s, p, d, k, e in zip(input.shape[2:], stride, padding, dilation, weight.shape[2:], extra, strict=True))
    if min(size) < 1:
        raise ShapeError(f"conv_transpose2d: the result would have size {size}; use less padding")
    out = conv_input(input, weight, input_size=size, stride=stride, padding=tuple((p, p) for p in padding), dilation=dilation, groups=groups)
    if bias is not None:
        out = out + reshape(bias, (-1, 1, 1))
    return squeeze(out, 0) if single else out


@composite(namespace="nn", reference=lambda x, w, b=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1: _transpose_reference(x[:, :, None], w[:, :, None], b, (1, stride), (0, padding), (0, output_padding), groups, (1, dilation))[:, :, 0],
           samples=[dict(shapes=((2, 3, 4), (3, 2, 3), (2,)), attrs=dict(stride=2))])
def conv_transpose1d(input: Tensor, weight: Tensor, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """The transpose of conv1d: sequences (N, C, L), filters (C, O/groups, K)."""
    made = conv_transpose2d(expand_dims(input, -2), expand_dims(weight, -2), bias, (1, *_single(stride)), (0, *_single(padding)),
                            (0, *_single(output_padding)), groups, (1, *_single(dilation)))
    return squeeze(made, -2)


# pooling

@primitive(public=False, differentiable=False, builder="max_pool2d_index")
def max_pool_index(x: Tensor, kernel, stride, padding, dilation):
    """The flat position, in its plane, of each window's maximum."""
    return (x,), {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}


@max_pool_index.shape
def _(x, kernel, stride, padding, dilation):
    from ..dtypes import int64

    return (*x.shape[:2], *(_out_length(*v) for v in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True))), int64


def _pool_arguments(x, kernel_size, stride, padding, op_name: str, dilation=1):
    if x.ndim not in (3, 4):
        raise ShapeError(f"{op_name}: wanted images (N, C, H, W) or (C, H, W), got shape {x.shape}")
    kernel = pair(kernel_size, op_name, "kernel_size", 1)
    stride = kernel if stride is None else pair(stride, op_name, "stride", 1)
    padding, dilation = pair(padding, op_name, "padding"), pair(dilation, op_name, "dilation", 1)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise ShapeError(f"{op_name}: padding {padding} may be at most half of kernel_size {kernel}")
    pads = tuple((p, p) for p in padding)
    if any(_out_length(*v) < 1 for v in zip(x.shape[-2:], kernel, stride, pads, dilation, strict=True)):
        raise ShapeError(f"{op_name}: windows of {kernel} do not fit into images of {x.shape[-2:]} with padding {padding}")
    if dilation != (1, 1) and padding != (0, 0):
        for n, k, s, p, d in zip(x.shape[-2:], kernel, stride, padding, dilation):
            for first in range(-p, n + p - d * (k - 1), s):
                if not any(0 <= first + i * d < n for i in range(k)):
                    raise ShapeError(f"{op_name}: with dilation {dilation} and padding {padding}, a window holds nothing but padding; use less padding")
    return kernel, stride, pads, dilation


def _windows(x, k, s, p, fill):
    k, s, p = (v if isinstance(v, tuple) else (v, v) for v in (k, s if s is not None else k, p))
    x = np.pad(x, ((0, 0), (0, 0), (p[0], p[0]), (p[1], p[1])), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(x, k, (2, 3))[:, :, :: s[0], :: s[1]]


@composite(namespace="nn", reference=lambda x, k, stride=None, padding=0: _windows(x, k, stride, padding, -np.inf).max((-1, -2)),
           samples=[dict(shapes=((2, 3, 6, 4),), args=(2,)), dict(shapes=((1, 2, 5, 5),), args=(3,), attrs=dict(stride=2, padding=1))])
def max_pool2d(input: Tensor, kernel_size, stride=None, padding=0, dilation=1):
    """The maximum of each window; the first of equal ones gets the gradient. Padding is never chosen; nan wins."""
    single = input.ndim == 3
    how = _pool_arguments(input, kernel_size, stride, padding, "max_pool2d", dilation)
    x = expand_dims(input, 0) if single else input
    at = max_pool_index(x, *how)
    flat = take_along_kernel(reshape(x, (*x.shape[:2], x.shape[2] * x.shape[3])), reshape(at, (*at.shape[:2], at.shape[2] * at.shape[3])), 2)
    out = reshape(flat, at.shape)
    return squeeze(out, 0) if single else out


@primitive(public=False, builder="avg_pool2d")
def avg_pool_kernel(x: Tensor, kernel, stride, padding, count_include_pad):
    """The mean of each window."""
    return (x,), {"kernel": kernel, "stride": stride, "padding": padding, "count_include_pad": count_include_pad}


@avg_pool_kernel.shape
def _(x, kernel, stride, padding, count_include_pad):
    return (*x.shape[:2], *(_out_length(*v, 1) for v in zip(x.shape[2:], kernel, stride, padding, strict=True))), x.dtype


@avg_pool_kernel.adjoint(0, saves=())
def _(g, y, x, **how):
    return avg_pool_input(g, input_size=x.shape[2:], **how)


@primitive(public=False, builder="avg_pool2d_input")
def avg_pool_input(g: Tensor, input_size, kernel, stride, padding, count_include_pad):
    """The transpose of avg_pool_kernel."""
    return (g,), {"kernel": kernel, "stride": stride, "padding": padding, "count_include_pad": count_include_pad, "input_size": input_size}


@avg_pool_input.shape
def _(g, input_size, **how):
    return (*g.shape[:2], *input_size), g.dtype


@avg_pool_input.adjoint(0, saves=())
def _(g, y, h, input_size, **how):
    return avg_pool_kernel(g, **how)


@composite(namespace="nn", reference=lambda x, k, stride=None, padding=0: _windows(x, k, stride, padding, 0).mean((-1, -2)),
           samples=[dict(shapes=((2, 3, 6, 4),), args=(2,)), dict(shapes=((1, 2, 5, 5),), args=(3,), attrs=dict(stride=2, padding=1))])
def avg_pool2d(input: Tensor, kernel_size, stride=None, padding=0, count_include_pad=True):
    """The mean of each window; padding counts as zeros unless count_include_pad is False."""
    single = input.ndim == 3
    kernel, stride, padding, _ = _pool_arguments(input, kernel_size, stride, padding, "avg_pool2d")
    x = floating(expand_dims(input, 0) if single else input)
    out = avg_pool_kernel(x, kernel, stride, padding, bool(count_include_pad))
    return squeeze(out, 0) if single else out


def _wide(value):
    return None if value is None else (1, *_single(value))


@composite(namespace="nn", reference=lambda x, k, stride=None, padding=0: _windows(x[:, :, None], (1, k), None if stride is None else (1, stride), (0, padding), -np.inf).max((-1, -2))[:, :, 0],
           samples=[dict(shapes=((2, 3, 6),), args=(2,))])
def max_pool1d(input: Tensor, kernel_size, stride=None, padding=0, dilation=1):
    """The maximum of each window of a sequence (N, C, L)."""
    return squeeze(max_pool2d(expand_dims(input, -2), _wide(kernel_size), _wide(stride), (0, *_single(padding)), _wide(dilation)), -2)


@composite(namespace="nn", reference=lambda x, k, stride=None, padding=0: _windows(x[:, :, None], (1, k), None if stride is None else (1, stride), (0, padding), 0).mean((-1, -2))[:, :, 0],
           samples=[dict(shapes=((2, 3, 6),), args=(2,))])
def avg_pool1d(input: Tensor, kernel_size, stride=None, padding=0, count_include_pad=True):
    """The mean of each window of a sequence (N, C, L)."""
    return squeeze(avg_pool2d(expand_dims(input, -2), _wide(kernel_size), _wide(stride), (0, *_single(padding)), count_include_pad), -2)


# dropout and embedding

@composite(namespace="nn", samples=[])
def dropout(input: Tensor, p=0.5, training=True):
    """Each element is 0 with probability p, and divided by 1 - p otherwise; unchanged where training is False (Srivastava et al. 2014)."""
    if not 0.0 <= p <= 1.0:
        raise ShapeError(f"dropout: p is a probability between 0 and 1, not {p!r}")
    if not training or p == 0.0:
        return input
    keep = bernoulli(1.0 - p, input.shape, input.device)
    return multiply(input, multiply(astype(keep, floating(input).dtype), 1.0 / (1.0 - p) if p < 1.0 else 0.0))


@composite(namespace="nn", reference=lambda idx, w: w[idx], samples=[dict(shapes=((5, 3),), args=(np.array([[0, 2], [4, 4]]),), at=(1,))])
def embedding(input: Tensor, weight: Tensor):
    """The rows of `weight` (rows, features) that the integers of `input` name. Raises IndexOutOfRange beyond the last row."""
    if weight.ndim != 2:
        raise ShapeError(f"embedding: weight has shape {weight.shape}, wanted (rows, features)")
    if input.dtype.is_float:
        raise DtypeError(f"embedding: input must hold integers, not {input.dtype.name}; arguments are (input, weight)")
    return take(weight, input, 0)


@composite(namespace="nn", reference=lambda x, w, b=None: x @ w.T + (0 if b is None else b), samples=[dict(shapes=((3, 4), (2, 4), (2,))), dict(shapes=((2, 3, 4), (2, 4)))])
def linear(input: Tensor, weight: Tensor, bias=None):
    """input @ weight.T + bias, with weight (out, in)."""
    if weight.ndim != 2 or input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        raise ShapeError(f"linear: input has shape {input.shape} and weight {weight.shape} (out, in); the last axis of the input must be {weight.shape[-1]}")
    out = input @ weight.T
    return out if bias is None else out + bias


