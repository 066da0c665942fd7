"""Losses that compare embeddings or ask for a margin, in the namespace of `tapegrad.nn.functional`."""

from __future__ import annotations

import numpy as np

from ..errors import ShapeError
from .activation import relu
from .axes import one_axis
from .creation import arange
from .elementwise import clip, minimum, sqrt, where
from .indexing import integers, take_along_axis
from .losses import REDUCED, paired
from .movement import astype, expand_dims, floating
from .network import reduce_losses
from .reduce import norm
from .reduce import sum_ as sum_over
from .registry import Tensor, composite

_SIGNS = np.array([1, -1, 1, -1])


def _cosine(a, b, dim=1, eps=1e-8):
    return (a * b).sum(dim) / np.sqrt(np.maximum((a * a).sum(dim), eps**2) * np.maximum((b * b).sum(dim), eps**2))


@composite(
    sums=True,
    namespace="nn",
    reference=_cosine,
    samples=[dict(shapes=((3, 4), (3, 4))), dict(shapes=((4,), (4,)), attrs=dict(dim=0))],
)
def cosine_similarity(x1: Tensor, x2: Tensor, dim=1, eps=1e-8):
    """The cosine of the angle between the vectors along `dim`; vectors shorter than eps count as of length eps."""
    x1, x2 = floating(x1), floating(x2)
    lengths = clip(sum_over(x1 * x1, dim), eps * eps) * clip(sum_over(x2 * x2, dim), eps * eps)
    return sum_over(x1 * x2, dim) / sqrt(lengths)


def _cosine_embedding(a, b, target, margin=0.0, reduction="mean"):
    c = _cosine(a, b, -1)
    return REDUCED[reduction](np.where(target == 1, 1 - c, np.maximum(c - margin, 0)))


@composite(
    sums=True,
    namespace="nn",
    reference=_cosine_embedding,
    samples=[
        dict(shapes=((4, 3), (4, 3)), args=(_SIGNS,), domain=(0.2, 2.0)),
        dict(shapes=((4, 3), (4, 3)), args=(_SIGNS, 0.3, "sum"), domain=(0.2, 2.0)),
    ],
)
def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin=0.0, reduction="mean"):
    """1 - cos where target is 1, max(cos - margin, 0) where it is -1, cos being that of the rows of the inputs.

    input1, input2 (N, D) or (D,); target (N,) or ().
    """
    if input1.shape != input2.shape or input1.ndim not in (1, 2) or target.shape != input1.shape[:-1]:
        raise ShapeError(
            f"cosine_embedding_loss: inputs have shapes {input1.shape} and {input2.shape} and target has {target.shape}; "
            "wanted (N, D), (N, D) and (N,)"
        )
    cosine = cosine_similarity(input1, input2, -1)
    losses = where(target == 1, 1.0 - cosine, relu(cosine - margin))
    return reduce_losses(losses, reduction, "cosine_embedding_loss")


def _distance(a, b, p=2.0, eps=1e-6, keepdim=False):
    return np.linalg.vector_norm(a - b + eps, axis=-1, ord=p, keepdims=keepdim)


@composite(
    sums=True,
    namespace="nn",
    reference=_distance,
    samples=[dict(shapes=((3, 4), (3, 4))), dict(shapes=((3, 4), (4,)), args=(1.0,), values=((1, 2), (-1, 0)))],
)
def pairwise_distance(x1: Tensor, x2: Tensor, p=2.0, eps=1e-6, keepdim=False):
    """The norm of order p of x1 - x2 + eps along the last axis."""
    return norm(floating(x1) - x2 + eps, -1, bool(keepdim), p)


def _triplet(a, b, c, margin=1.0, p=2.0, eps=1e-6, swap=False, reduction="mean"):
    far = _distance(a, c, p, eps)
    if swap:
        far = np.minimum(far, _distance(b, c, p, eps))
    return REDUCED[reduction](np.maximum(margin + _distance(a, b, p, eps) - far, 0))


@composite(
    sums=True,
    namespace="nn",
    reference=_triplet,
    samples=[
        dict(shapes=((3, 4), (3, 4), (3, 4)), attrs=dict(margin=3.0)),
        dict(shapes=((3, 4), (3, 4), (3, 4)), attrs=dict(margin=4.0, swap=True, reduction="sum")),
    ],
)
def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin=1.0, p=2.0, eps=1e-6, swap=False, reduction="mean"
):
    """max(d(anchor, positive) - d(anchor, negative) + margin, 0), d being pairwise_distance (Balntas et al. 2016).

    swap: the distance from positive to negative counts in the anchor's place where it is the smaller.
    """
    if not anchor.shape == positive.shape == negative.shape:
        raise ShapeError(
            f"triplet_margin_loss: anchor, positive and negative have shapes {anchor.shape}, {positive.shape} and "
            f"{negative.shape}; they must be equal"
        )
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = minimum(far, pairwise_distance(positive, negative, p, eps))
    losses = relu(pairwise_distance(anchor, positive, p, eps) - far + margin)
    return reduce_losses(losses, reduction, "triplet_margin_loss")


def _hinge_embedding(x, target, margin=1.0, reduction="mean"):
    return REDUCED[reduction](np.where(target == 1, x, np.maximum(margin - x, 0)))


@composite(
    sums=True,
    namespace="nn",
    reference=_hinge_embedding,
    samples=[
        dict(shapes=((4,),), args=(_SIGNS,), avoid=(1.0,)),
        dict(shapes=((2, 4),), args=(np.array([_SIGNS, -_SIGNS]), 0.5, "none"), avoid=(0.5,)),
    ],
)
def hinge_embedding_loss(input: Tensor, target: Tensor, margin=1.0, reduction="mean"):
    """input, a distance, where target is 1; max(margin - input, 0) where it is -1."""
    input, target = paired(input, target, "hinge_embedding_loss")
    return reduce_losses(where(target == 1, input, relu(margin - input)), reduction, "hinge_embedding_loss")


def _margin_ranking(a, b, target, margin=0.0, reduction="mean"):
    return REDUCED[reduction](np.maximum(-target * (a - b) + margin, 0))


@composite(
    sums=True,
    namespace="nn",
    reference=_margin_ranking,
    samples=[
        dict(shapes=((4,), (4,)), args=(_SIGNS,), values=((0.5, 1.5), (-1.5, -0.5))),
        dict(shapes=((4,), (4,)), args=(_SIGNS, 0.3, "sum"), values=((0.5, 1.5), (-1.5, -0.5))),
    ],
)
def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin=0.0, reduction="mean"):
    """max(-target · (input1 - input2) + margin, 0): target 1 says that input1 should be the larger, -1 the smaller."""
    if not input1.shape == input2.shape == target.shape:
        raise ShapeError(
            f"margin_ranking_loss: inputs and target have shapes {input1.shape}, {input2.shape} and {target.shape}; they "
            "must be equal"
        )
    return reduce_losses(relu(margin - target * (input1 - input2)), reduction, "margin_ranking_loss")


def _multi_margin(x, target, p=1, margin=1.0, reduction="mean"):
    own = np.take_along_axis(x, target[:, None], 1)
    losses = np.maximum(margin - own + x, 0) ** p
    np.put_along_axis(losses, target[:, None], 0, 1)
    return REDUCED[reduction](losses.sum(1) / x.shape[1])


@composite(
    sums=True,
    namespace="nn",
    reference=_multi_margin,
    samples=[
        dict(shapes=((4, 3),), args=(np.array([0, 2, 1, 1]),), attrs=dict(margin=5.0)),
        dict(shapes=((4, 3),), args=(np.array([0, 2, 1, 1]), 2, 5.0, "none")),
    ],
)
def multi_margin_loss(input: Tensor, target: Tensor, p=1, margin=1.0, reduction="mean"):
    """The hinge loss of several classes (Crammer & Singer 2001): the sum over the other classes of max(margin - own score +

    theirs, 0) to the power p, 1 or 2, divided by the number of classes. input (N, C), target (N,) of integers.
    """
    if input.ndim != 2 or target.shape != input.shape[:1] or target.dtype.is_float:
        raise ShapeError(
            f"multi_margin_loss: input has shape {input.shape}, wanted (N, C), and target has shape {target.shape} and dtype "
            f"{target.dtype.name}, wanted (N,) of integers"
        )
    if p not in (1, 2):
        raise ShapeError(f"multi_margin_loss: p is 1 or 2, not {p!r}")
    input = floating(input)
    classes = input.shape[one_axis(1, 2, "multi_margin_loss")]
    column = expand_dims(integers(target, "multi_margin_loss", "target"), 1)
    place = where(column < 0, classes, column)  # -1 is no class
    losses = relu(margin - take_along_axis(input, place, 1) + input)
    losses = losses if p == 1 else losses * losses
    others = astype(column != arange(classes, device=input.device), input.dtype)
    return reduce_losses(sum_over(losses * others, 1) * (1.0 / classes), reduction, "multi_margin_loss")
