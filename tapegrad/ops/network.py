"""Ops of neural networks: softmax, cross entropy, dropout, embedding, linear."""

from __future__ import annotations

import math

import numpy as np

from .. import precision
from ..errors import DtypeError, ShapeError
from .axes import one_axis
from .elementwise import exp, multiply, where
from .indexing import integers, take
from .linalg import factors, linear_kernel, matmul, precise
from .movement import astype, expand_dims, floating, permute_view, reshape
from .random import bernoulli
from .reduce import sum_ as sum_over
from .registry import Tensor, as_tensor, composite, primitive, run_with

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
    return softmax_slope(g, y, axis)


@primitive(public=False)
def softmax_slope(g: Tensor, y: Tensor, axis):
    """y · (g - sum(g · y)) along an axis: softmax's adjoint from its output."""
    return (g, y), {"axis": axis}


@softmax_slope.shape
def _(g, y, axis):
    return y.shape, y.dtype


@softmax_slope.adjoint(0, saves=(1,))
def _(h, d, g, y, axis):
    return softmax_slope(h, y, axis)


@softmax_slope.adjoint(1, saves=(0, 1))
def _(h, d, g, y, axis):
    return h * (g - sum_over(g * y, axis, keepdims=True)) - g * sum_over(h * y, axis, keepdims=True)


@composite(
    method=True, reference=_softmax, samples=[dict(shapes=((3, 4),)), dict(shapes=((2, 3, 4),), attrs=dict(axis=1))]
)
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


@log_softmax_kernel.adjoint(0, saves=("y",))
def _(g, y, x, axis):
    return log_softmax_slope(g, y, axis)


@primitive(public=False)
def log_softmax_slope(g: Tensor, y: Tensor, axis):
    """g - exp(y) · sum(g) along an axis: log-softmax's adjoint from its output."""
    return (g, y), {"axis": axis}


@log_softmax_slope.shape
def _(g, y, axis):
    return y.shape, y.dtype


@log_softmax_slope.adjoint(0, saves=(1,))
def _(h, d, g, y, axis):
    return h - sum_over(h * exp(y), axis, keepdims=True)


@log_softmax_slope.adjoint(1, saves=(0, 1))
def _(h, d, g, y, axis):
    return -h * exp(y) * sum_over(g, axis, keepdims=True)


@composite(
    method=True,
    reference=lambda x, axis=-1: np.log(_softmax(x, axis)),
    samples=[dict(shapes=((3, 4),)), dict(shapes=((2, 3, 4),), attrs=dict(axis=1))],
)
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
    return cross_entropy_slope(logits, target, g, ignore_index)


@primitive(public=False)
def cross_entropy_slope(logits: Tensor, target: Tensor, g: Tensor, ignore_index):
    """For each row, g · (softmax(row) - one_hot(target)); zeros where the target is ignore_index."""
    return (logits, target, g), {"ignore_index": ignore_index}


@cross_entropy_slope.shape
def _(logits, target, g, ignore_index):
    return logits.shape, logits.dtype


@cross_entropy_slope.adjoint(0, saves=(0, 1, 2))
def _(h, y, logits, target, g, ignore_index):
    share = softmax_kernel(logits, 1)
    slope = softmax_slope(h, share, 1) * expand_dims(g, 1)
    return where(expand_dims(target, 1) == ignore_index, 0.0, slope)


@cross_entropy_slope.adjoint(2, saves=(0, 1))
def _(h, y, logits, target, g, ignore_index):
    from .creation import arange

    column = expand_dims(target, 1)
    one_hot = astype(column == arange(logits.shape[1], device=logits.device), logits.dtype)
    return sum_over(where(column == ignore_index, 0.0, h * (softmax_kernel(logits, 1) - one_hot)), 1)


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


def check_not_word(op_name: str, **tensors) -> None:
    """Refuse words where tensors belong: the order of arguments is PyTorch's, weights before the reduction."""
    for name, given in tensors.items():
        if isinstance(given, str):
            raise ShapeError(
                f"{op_name}: {name} is {given!r}, wanted numbers or None; name the argument: reduction={given!r}"
            )


def weights_of(weight, losses):
    """Weights as a tensor of the losses' dtype and device."""
    return astype(as_tensor(weight, "weight", losses.device), losses.dtype)


def class_weights(weight, classes, input, op_name: str):
    """The weight of each of some classes: weight has one number for each class of input (N, C, ...)."""
    weight = weights_of(weight, input)
    if weight.shape != (input.shape[1],):
        raise ShapeError(
            f"{op_name}: weight has shape {weight.shape}, wanted one number for each of {input.shape[1]} classes"
        )
    return take(weight, classes, 0)


def _cross_entropy(x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    logp, classes = np.log(_softmax(x, 1)), x.shape[1]
    weight = np.ones(classes) if weight is None else np.asarray(weight)
    hard = target.dtype.kind != "f"
    counts = target != ignore_index if hard else np.array(1.0)
    share = np.moveaxis(np.eye(classes)[np.where(counts, target, 0)], -1, 1) if hard else target
    share = share * (1 - label_smoothing) + label_smoothing / classes
    losses = -(share * logp * weight.reshape(-1, *(1,) * (x.ndim - 2))).sum(1) * counts
    if reduction == "mean" and hard:
        return losses.sum() / (weight[np.where(counts, target, 0)] * counts).sum()
    if reduction == "mean":
        return losses.mean()
    return losses.sum() if reduction == "sum" else losses


_WEIGHTS = np.array([0.5, 2.0, 1.0])


@composite(
    namespace="nn",
    reference=_cross_entropy,
    samples=[
        dict(shapes=((4, 3),), args=(np.array([0, 2, 1, 1]),)),
        dict(shapes=((2, 3, 4),), args=(np.array([[0, 2, 1, 1], [1, 0, 0, 2]]),), attrs=dict(reduction="sum")),
        dict(shapes=((4, 3), (4, 3))),
        dict(shapes=((4, 3),), args=(np.array([0, 2, -100, 1]), _WEIGHTS)),
        dict(shapes=((4, 3),), args=(np.array([0, 2, -100, 1]),), attrs=dict(label_smoothing=0.2)),
        dict(shapes=((2, 3, 2),), args=(np.array([[0, 2], [1, 1]]), _WEIGHTS, 1, "mean", 0.1)),
        dict(shapes=((4, 3), (4, 3)), args=(_WEIGHTS, -100, "none", 0.1)),
    ],
)
def cross_entropy(input: Tensor, target: Tensor, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """The cross entropy between logits and classes (integers) or class probabilities (floats of the logits' shape).

    input: (N, C) or (N, C, ...), or (C,) for one sample. weight (C,) multiplies each class's term; the mean over integer
    classes is then one over their weights. Classes equal to ignore_index count nothing. label_smoothing, from 0 to 1, is the
    share of the target that is spread evenly over all classes (Szegedy et al. 2016). Raises IndexOutOfRange where a class
    is not in 0..C-1.
    """
    check_not_word("cross_entropy", weight=weight)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ShapeError(f"cross_entropy: label_smoothing is a share between 0 and 1, not {label_smoothing!r}")
    input = floating(input)
    if target.dtype.is_float:
        return _probability_cross_entropy(input, target, weight, reduction, label_smoothing)
    if input.ndim == 0 or target.shape != input.shape[:1] * (input.ndim > 1) + input.shape[2:]:
        raise ShapeError(
            f"cross_entropy: logits have shape {input.shape} (N, C, …), so classes need "
            f"{input.shape[:1] + input.shape[2:]}; they have {target.shape}"
        )
    rows, flat = input, integers(target, "cross_entropy", "target")
    if input.ndim == 1:
        rows, flat = expand_dims(input, 0), expand_dims(target, 0)
    elif input.ndim > 2:  # channels last, then one row for each place
        count, classes = target.size, input.shape[1]
        rows = reshape(input.permute((0, *range(2, input.ndim), 1)), (count, classes))
        flat = reshape(target, (count,))
    losses = cross_entropy_kernel(rows, flat, int(ignore_index))
    plain = weight is None and not label_smoothing
    counted = None if plain and reduction != "mean" else flat != ignore_index
    each = None if counted is None else astype(counted, losses.dtype)
    if weight is not None:
        chosen = class_weights(weight, where(counted, flat, 0), rows, "cross_entropy")
        each = where(counted, chosen, 0.0)
        losses = losses * each
    if label_smoothing:
        logs = log_softmax_kernel(rows, 1)
        spread = sum_over(logs if weight is None else logs * weights_of(weight, logs), 1) * (
            -label_smoothing / rows.shape[1]
        )
        losses = losses * (1.0 - label_smoothing) + where(counted, spread, 0.0)
    if reduction == "none":
        return reshape(losses, target.shape)
    total = each.sum() if each is not None and reduction == "mean" else None
    return reduce_losses(losses, reduction, "cross_entropy", total)


def _probability_cross_entropy(input, target, weight, reduction, label_smoothing):
    """Cross entropy with probabilities of classes."""
    if target.shape != input.shape:
        raise ShapeError(
            f"cross_entropy: class probabilities of shape {target.shape} for logits of shape {input.shape}; they must be equal"
        )
    axis = 0 if input.ndim == 1 else 1
    classes = input.shape[axis]
    if label_smoothing:
        target = target * (1.0 - label_smoothing) + label_smoothing / classes
    terms = target * log_softmax(input, axis)
    if weight is not None:
        weight = weights_of(weight, terms)
        if weight.shape != (classes,):
            raise ShapeError(
                f"cross_entropy: weight has shape {weight.shape}, wanted one number for each of {classes} classes"
            )
        terms = terms * (reshape(weight, (-1, *(1,) * (input.ndim - 2))) if input.ndim > 2 else weight)
    return reduce_losses(-sum_over(terms, axis), reduction, "cross_entropy")


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


@composite(
    namespace="nn",
    reference=lambda idx, w: w[idx],
    samples=[dict(shapes=((5, 3),), args=(np.array([[0, 2], [4, 4]]),), at=(1,))],
)
def embedding(input: Tensor, weight: Tensor):
    """The rows of `weight` (rows, features) that the integers of `input` name. Raises IndexOutOfRange outside 0..rows-1."""
    if weight.ndim != 2:
        raise ShapeError(f"embedding: weight has shape {weight.shape}, wanted (rows, features)")
    if input.dtype.is_float:
        raise DtypeError(f"embedding: input must hold integers, not {input.dtype.name}; arguments are (input, weight)")
    input = integers(input, "embedding", "input")
    if input.dtype.name != "uint8":
        input = where(input < 0, weight.shape[0], input)  # unlike an index, -1 is no row here
    return take(weight, input, 0)


@composite(
    namespace="nn",
    reference=lambda x, w, b=None: x @ w.T + (0 if b is None else b),
    samples=[dict(shapes=((3, 4), (2, 4), (2,))), dict(shapes=((2, 3, 4), (2, 4)))],
)
def linear(input: Tensor, weight: Tensor, bias=None):
    """input @ weight.T + bias, with weight (out, in)."""
    if weight.ndim != 2 or input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: input has shape {input.shape} and weight {weight.shape} (out, in); the last axis of the "
            f"input must be {weight.shape[-1]}"
        )
    if precision.used:
        input, weight = factors(input, weight)
    if input.dtype is not weight.dtype or not weight.dtype.is_float:
        out = matmul(input, run_with(permute_view, (weight,), axes=(1, 0)))
        return out if bias is None else out + bias
    rows = input if input.ndim == 2 else reshape(input, (math.prod(input.shape[:-1]), input.shape[-1]))
    if precision.used:
        out = run_with(linear_kernel, (rows, weight), turned=True, **precise(rows))
    else:
        out = run_with(linear_kernel, (rows, weight), turned=True)
    if bias is not None:
        out = out + (bias if precision.autocast.current() is None else astype(bias, out.dtype))
    return out if input.ndim == 2 else reshape(out, (*input.shape[:-1], weight.shape[0]))
