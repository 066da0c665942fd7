"""Losses: how far a prediction is from its target. Composites, in the namespace of `tapegrad.nn.functional`.

`reduction` is "mean", "sum" or "none" everywhere. Losses that compare two embeddings, or ask for a margin, are in `margins.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..dtypes import DEFAULT, promote
from ..errors import ShapeError
from .activation import logsigmoid, softplus
from .elementwise import exp, log, square, where
from .indexing import integers, take_along_axis
from .movement import astype, expand_dims, floating, squeeze
from .network import check_not_word, class_weights, reduce_losses, weights_of
from .registry import Tensor, composite, elementwise

PAIR = [
    dict(shapes=((3, 4), (3, 4)), avoid=(0.0,)),
    dict(shapes=((5,), (5,)), attrs=dict(reduction="sum")),
    dict(shapes=((2, 3), (2, 3)), attrs=dict(reduction="none")),
]
REDUCED: dict[str, Callable] = {"mean": np.mean, "sum": np.sum, "none": lambda losses: losses}


def paired(input, target, op_name: str):
    """Two tensors of one shape and floating dtype: broadcasting in a loss hides mistakes, and differences of uint8 wrap."""
    a, b = input.layout, target.layout
    if a.shape != b.shape:
        raise ShapeError(f"{op_name}: input has shape {a.shape} and target {b.shape}; they must be equal; reshape one")
    if a.dtype is b.dtype and a.dtype.is_float:
        return input, target
    meet = promote(a.dtype, b.dtype)
    meet = meet if meet.is_float else DEFAULT
    return astype(input, meet), astype(target, meet)


# regression


@composite(
    sums=True, namespace="nn", reference=lambda x, t, reduction="mean": REDUCED[reduction]((x - t) ** 2), samples=PAIR
)
def mse_loss(input: Tensor, target: Tensor, reduction="mean"):
    """The squared difference, averaged over all elements. reduction: "mean", "sum" or "none"."""
    input, target = paired(input, target, "mse_loss")
    return reduce_losses(square(input - target), reduction, "mse_loss")


@composite(
    sums=True, namespace="nn", reference=lambda x, t, reduction="mean": REDUCED[reduction](np.abs(x - t)), samples=PAIR
)
def l1_loss(input: Tensor, target: Tensor, reduction="mean"):
    """The absolute difference, averaged over all elements. reduction: "mean", "sum" or "none"."""
    input, target = paired(input, target, "l1_loss")
    return reduce_losses(abs(input - target), reduction, "l1_loss")


@elementwise(
    public=False,
    reference=lambda d, k: np.where(abs(d) < k, d * d / 2, k * (abs(d) - k / 2)),
    samples=[dict(values=((-2.0, 2.0), (0.5, 0.9)))],
)
def huber_of(d, delta):
    """d² / 2 up to |d| = delta, from there on a line of the same slope."""
    return 0.5 * d * d if abs(d) < delta else delta * (abs(d) - 0.5 * delta)


def _huber(x, t, reduction="mean", delta=1.0):
    return REDUCED[reduction](huber_of.reference(x - t, delta))


@composite(
    sums=True,
    namespace="nn",
    reference=_huber,
    samples=[
        dict(shapes=((3, 4), (3, 4)), values=((0.1, 0.3), (-0.3, -0.1))),
        dict(shapes=((5,), (5,)), values=((1.0, 2.0), (-2.0, -1.0)), attrs=dict(delta=0.5, reduction="sum")),
        dict(shapes=((5,), (5,)), values=((1.0, 2.0), (-2.0, -1.0)), attrs=dict(reduction="none")),
    ],
)
def huber_loss(input: Tensor, target: Tensor, reduction="mean", delta=1.0):
    """Half the squared difference up to `delta`, delta · (|difference| - delta / 2) beyond (Huber 1964)."""
    if delta <= 0:
        raise ShapeError(f"huber_loss: delta is {delta!r}; it must be above 0")
    input, target = paired(input, target, "huber_loss")
    return reduce_losses(huber_of(input - target, delta), reduction, "huber_loss")


@composite(
    sums=True,
    namespace="nn",
    reference=lambda x, t, reduction="mean", beta=1.0: (
        _huber(x, t, reduction, beta) / beta if beta else REDUCED[reduction](abs(x - t))
    ),
    samples=[
        dict(shapes=((3, 4), (3, 4)), values=((0.1, 0.3), (-0.3, -0.1))),
        dict(shapes=((5,), (5,)), values=((1.0, 2.0), (-2.0, -1.0)), attrs=dict(beta=0.5, reduction="sum")),
        dict(shapes=((5,), (5,)), values=((1.0, 2.0), (-2.0, -1.0)), attrs=dict(beta=0.0, reduction="none")),
    ],
)
def smooth_l1_loss(input: Tensor, target: Tensor, reduction="mean", beta=1.0):
    """difference² / (2 beta) up to `beta`, |difference| - beta / 2 beyond (Girshick 2015); beta 0 is l1_loss."""
    if beta < 0:
        raise ShapeError(f"smooth_l1_loss: beta is {beta!r}; it must not be below 0")
    input, target = paired(input, target, "smooth_l1_loss")
    losses = abs(input - target) if beta == 0 else huber_of(input - target, beta) / beta
    return reduce_losses(losses, reduction, "smooth_l1_loss")


# probabilities of two classes


@elementwise(
    public=False,
    reference=lambda p, t, k=-100.0: (t - 1) * np.maximum(np.log1p(-p), k) - t * np.maximum(np.log(p), k),
    samples=[dict(values=((0.05, 0.95), (0.05, 0.95), (-100.0, -90.0)))],
)
def bernoulli_loss(p, t, least=-100.0):
    """-t log p - (1 - t) log(1 - p), where each logarithm is at least `least`."""
    return (t - 1.0) * max(math.log1p(-p), least) - t * max(math.log(p), least)


@bernoulli_loss.derivative
def _(p, t, least):
    return (
        (p - t) / max((1.0 - p) * p, 1e-12),
        max(math.log1p(-p), least) - max(math.log(p), least),
        (t - 1.0 if math.log1p(-p) < least else 0.0) - (t if math.log(p) < least else 0.0),
    )


def _bce(p, t, weight=None, reduction="mean"):
    return REDUCED[reduction](bernoulli_loss.reference(p, t) * (1.0 if weight is None else weight))


@composite(
    sums=True,
    namespace="nn",
    reference=_bce,
    samples=[
        dict(shapes=((3, 4), (3, 4)), domain=(0.05, 0.95)),
        dict(shapes=((2, 3), (2, 3), (3,)), domain=(0.05, 0.95), attrs=dict(reduction="none")),
    ],
)
def binary_cross_entropy(input: Tensor, target: Tensor, weight=None, reduction="mean"):
    """-t log p - (1 - t) log(1 - p) for probabilities p (input) and t (target), times weight; logarithms are at least -100.

    Probabilities outside [0, 1] give nan. Where logits are at hand, binary_cross_entropy_with_logits is more exact.
    """
    check_not_word("binary_cross_entropy", weight=weight)
    input, target = paired(input, target, "binary_cross_entropy")
    losses = bernoulli_loss(input, target)
    return reduce_losses(
        losses if weight is None else losses * weights_of(weight, losses), reduction, "binary_cross_entropy"
    )


def _bce_with_logits(x, t, weight=None, reduction="mean", pos_weight=None):
    positive = 1.0 if pos_weight is None else pos_weight
    losses = positive * t * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x)
    return REDUCED[reduction](losses * (1.0 if weight is None else weight))


@composite(
    sums=True,
    namespace="nn",
    reference=_bce_with_logits,
    samples=[
        *PAIR,
        dict(shapes=((2, 3), (2, 3)), args=(np.array([0.5, 1.0, 2.0]), "sum", np.array([3.0, 1.0, 0.2]))),
    ],
)
def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight=None, reduction="mean", pos_weight=None):
    """-t·log σ(x) - (1 - t)·log(1 - σ(x)), computed as softplus(x) - t·x, without overflow.

    weight multiplies each loss, pos_weight its first term; both broadcast to the input's shape, (C,) for one number a class.
    """
    check_not_word("binary_cross_entropy_with_logits", weight=weight, pos_weight=pos_weight)
    input, target = paired(input, target, "binary_cross_entropy_with_logits")
    if pos_weight is None:
        losses = softplus(input) - target * input
    else:
        losses = (1.0 - target) * softplus(input) - (target * weights_of(pos_weight, input)) * logsigmoid(input)
    return reduce_losses(
        losses if weight is None else losses * weights_of(weight, losses), reduction, "binary_cross_entropy_with_logits"
    )


# classes, and distributions over them


def _nll_loss(x, target, weight=None, ignore_index=-100, reduction="mean"):
    counts = target != ignore_index
    place = np.where(counts, target, 0)
    each = (np.ones(x.shape[1]) if weight is None else np.asarray(weight))[place] * counts
    losses = -np.take_along_axis(x, np.expand_dims(place, 1), 1).squeeze(1) * each
    return losses.sum() / each.sum() if reduction == "mean" else REDUCED[reduction](losses)


@composite(
    sums=True,
    namespace="nn",
    reference=_nll_loss,
    samples=[
        dict(shapes=((4, 3),), args=(np.array([0, 2, 1, 1]),)),
        dict(shapes=((4, 3),), args=(np.array([0, 2, 1, 1]),), attrs=dict(ignore_index=1)),
        dict(shapes=((4, 3),), args=(np.array([0, 2, -100, 1]),), attrs=dict(reduction="sum")),
        dict(shapes=((2, 3, 2),), args=(np.array([[0, 2], [1, 1]]), np.array([0.5, 1.0, 2.0]))),
    ],
)
def nll_loss(input: Tensor, target: Tensor, weight=None, ignore_index=-100, reduction="mean"):
    """The negative log probability of each class: input (N, C) or (N, C, ...) holds log probabilities, target the classes.

    target (N,) or (N, ...); for one sample, input (C,) and target (). weight (C,) multiplies the losses by their class; the
    mean is then over the weights. Elements whose class is ignore_index count nothing. Raises IndexOutOfRange for other
    classes outside 0..C-1.
    """
    check_not_word("nll_loss", weight=weight)
    single = input.ndim == 1
    wanted = () if single else input.shape[:1] + input.shape[2:]
    if input.ndim == 0 or target.shape != wanted or target.dtype.is_float:
        raise ShapeError(
            f"nll_loss: input has shape {input.shape}, wanted (N, C) or (N, C, …), and target has shape {target.shape} and "
            f"dtype {target.dtype.name}, wanted {wanted} of integers"
        )
    input, target = floating(input), integers(target, "nll_loss", "target")
    if single:
        input, target = expand_dims(input, 0), expand_dims(target, 0)
    counts = target != ignore_index
    place = where(counts, where(target < 0, input.shape[1], target), 0)  # -1 must not count from the end
    losses = -squeeze(take_along_axis(input, expand_dims(place, 1), 1), 1)
    if weight is None:
        each = astype(counts, input.dtype)
    else:
        each = where(counts, class_weights(weight, place, input, "nll_loss"), 0.0)
        losses = losses * each
    losses = where(counts, losses, 0.0)
    if single and reduction == "none":
        return squeeze(losses, 0)
    return reduce_losses(losses, reduction, "nll_loss", each.sum() if reduction == "mean" else None)


def _kl_div(x, t, reduction="mean", log_target=False):
    losses = np.exp(t) * (t - x) if log_target else np.where(t == 0, 0.0, t * (np.log(np.where(t == 0, 1, t)) - x))
    return losses.sum() / len(x) if reduction == "batchmean" else REDUCED[reduction](losses)


@composite(
    sums=True,
    namespace="nn",
    reference=_kl_div,
    samples=[
        dict(shapes=((3, 4), (3, 4)), values=((-3.0, -0.1), (0.1, 0.9))),
        dict(shapes=((3, 4), (3, 4)), values=((-3.0, -0.1), (0.1, 0.9)), attrs=dict(reduction="batchmean")),
        dict(shapes=((2, 3), (2, 3)), values=((-3.0, -0.1), (-3.0, -0.1)), args=("sum", True)),
    ],
)
def kl_div(input: Tensor, target: Tensor, reduction="mean", log_target=False):
    """target · (log target - input), where input holds log probabilities and target probabilities, or log_target their logarithms.

    Where a probability of the target is 0, so is the loss. reduction "batchmean" divides the sum by the number of rows,
    which is the Kullback-Leibler divergence; "mean" divides by the number of elements.
    """
    input, target = paired(input, target, "kl_div")
    if log_target:
        losses = exp(target) * (target - input)
    else:
        nothing = target == 0.0
        losses = where(nothing, 0.0, target * (log(where(nothing, 1.0, target)) - input))
    if reduction == "batchmean":
        if not input.ndim:
            raise ShapeError(f'kl_div: input has shape {input.shape}; reduction "batchmean" needs rows to divide by')
        return losses.sum() / float(input.shape[0])
    return reduce_losses(losses, reduction, "kl_div")
