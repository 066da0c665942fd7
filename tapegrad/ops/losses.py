"""Losses: how far a prediction is from its target. Composites, in the namespace of `tapegrad.nn.functional`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..dtypes import DEFAULT, promote
from ..errors import ShapeError
from .activation import softplus
from .elementwise import square, where
from .indexing import take_along_axis
from .movement import astype, expand_dims, floating, squeeze
from .network import reduce_losses
from .registry import Tensor, composite

_PAIR = [
    dict(shapes=((3, 4), (3, 4)), avoid=(0.0,)),
    dict(shapes=((5,), (5,)), attrs=dict(reduction="sum")),
    dict(shapes=((2, 3), (2, 3)), attrs=dict(reduction="none")),
]
_REDUCED: dict[str, Callable] = {"mean": np.mean, "sum": np.sum, "none": lambda losses: losses}


def _paired(input, target, op_name: str):
    """Two tensors of one shape and floating dtype: broadcasting in a loss hides mistakes, and differences of uint8 wrap."""
    a, b = input.layout, target.layout
    if a.shape != b.shape:
        raise ShapeError(f"{op_name}: input has shape {a.shape} and target {b.shape}; they must be equal; reshape one")
    if a.dtype is b.dtype and a.dtype.is_float:
        return input, target
    meet = promote(a.dtype, b.dtype)
    meet = meet if meet.is_float else DEFAULT
    return astype(input, meet), astype(target, meet)


@composite(namespace="nn", reference=lambda x, t, reduction="mean": _REDUCED[reduction]((x - t) ** 2), samples=_PAIR)
def mse_loss(input: Tensor, target: Tensor, reduction="mean"):
    """The squared difference, averaged over all elements. reduction: "mean", "sum" or "none"."""
    input, target = _paired(input, target, "mse_loss")
    return reduce_losses(square(input - target), reduction, "mse_loss")


@composite(namespace="nn", reference=lambda x, t, reduction="mean": _REDUCED[reduction](np.abs(x - t)), samples=_PAIR)
def l1_loss(input: Tensor, target: Tensor, reduction="mean"):
    """The absolute difference, averaged over all elements. reduction: "mean", "sum" or "none"."""
    input, target = _paired(input, target, "l1_loss")
    return reduce_losses(abs(input - target), reduction, "l1_loss")


@composite(
    namespace="nn",
    reference=lambda x, t, reduction="mean": _REDUCED[reduction](np.logaddexp(0, x) - t * x),
    samples=_PAIR,
)
def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, reduction="mean"):
    """-t·log σ(x) - (1 - t)·log(1 - σ(x)), computed as softplus(x) - t·x, without overflow."""
    input, target = _paired(input, target, "binary_cross_entropy_with_logits")
    return reduce_losses(softplus(input) - target * input, reduction, "binary_cross_entropy_with_logits")


def _nll_loss(x, target, reduction="mean", ignore_index=-100):
    counts = target != ignore_index
    losses = np.where(counts, -x[np.arange(len(target)), np.where(counts, target, 0)], 0.0)
    return losses.sum() / counts.sum() if reduction == "mean" else _REDUCED[reduction](losses)


@composite(
    namespace="nn",
    reference=_nll_loss,
    samples=[
        dict(shapes=((4, 3),), args=(np.array([0, 2, 1, 1]),)),
        dict(shapes=((4, 3),), args=(np.array([0, 2, 1, 1]),), attrs=dict(ignore_index=1)),
        dict(shapes=((4, 3),), args=(np.array([0, 2, -100, 1]),), attrs=dict(reduction="sum")),
    ],
)
def nll_loss(input: Tensor, target: Tensor, reduction="mean", ignore_index=-100):
    """The negative log probability of each class: input (N, C) holds log probabilities, target (N,) the classes.

    Rows whose class is ignore_index count nothing. Raises IndexOutOfRange for other classes outside 0..C-1.
    """
    if input.ndim != 2 or target.shape != input.shape[:1] or target.dtype.is_float:
        raise ShapeError(
            f"nll_loss: input has shape {input.shape}, wanted (N, C), and target has shape {target.shape} and dtype "
            f"{target.dtype.name}, wanted (N,) of integers"
        )
    input = floating(input)
    counts = target != ignore_index
    place = where(counts, where(target < 0, input.shape[1], target), 0)  # -1 must not count from the end
    picked = squeeze(take_along_axis(input, expand_dims(place, 1), 1), 1)
    return reduce_losses(where(counts, -picked, 0.0), reduction, "nll_loss", astype(counts.sum(), input.dtype))
