"""Normalisation: of vectors to length 1, of rows to mean 0 and variance 1. In the namespace of `tapegrad.nn.functional`."""

from __future__ import annotations

import numpy as np

from ..errors import ShapeError
from .elementwise import clip, sqrt, square
from .movement import floating
from .reduce import mean, norm
from .registry import Tensor, composite


def _normalize(x, p=2.0, dim=1, eps=1e-12):
    return x / np.maximum(np.linalg.vector_norm(x, axis=dim, keepdims=True, ord=p), eps)


@composite(
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
    shape = tuple(normalized_shape) if isinstance(normalized_shape, tuple | list) else (normalized_shape,)
    if not shape or input.shape[-len(shape) :] != shape:
        raise ShapeError(
            f"layer_norm: input has shape {input.shape}; its last axes must be normalized_shape, which is {shape}"
        )
    for name, given in (("weight", weight), ("bias", bias)):
        if given is None:
            continue
        # NumPy's shape() reads a tensor's elements, after which a session cannot take the call as a whole
        found = given.shape if hasattr(given, "shape") else np.shape(given)
        if found != shape:
            raise ShapeError(f"layer_norm: {name} has shape {found}, wanted normalized_shape, {shape}")
    axes = tuple(range(-len(shape), 0))
    x = floating(input)
    centred = x - mean(x, axes, True)
    rows = centred / sqrt(mean(square(centred), axes, True) + eps)
    if weight is not None:
        rows = rows * weight
    return rows if bias is None else rows + bias
