"""Attention: weighted means of values, the weights a softmax of products of queries and keys."""

from __future__ import annotations

import math

import numpy as np

from ..dtypes import promote
from ..errors import ShapeError
from .creation import arange
from .elementwise import where
from .linalg import matmul
from .movement import astype, expand_dims, floating, reshape, swapaxes
from .network import dropout, softmax
from .reduce import sum_ as sum_over
from .registry import Tensor, as_tensor, composite

LEAST = -1e30  # in place of -inf, which has no gradient where a whole row is masked; exp of it is 0 in both dtypes


def _attention(q, k, v, mask=None, dropout_p=0.0, is_causal=False, scale=None):
    scores = q @ np.swapaxes(k, -1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    allowed = np.ones(scores.shape[-2:], bool)
    if is_causal:
        allowed = np.tril(allowed)
    if mask is not None and mask.dtype.kind == "b":
        allowed = allowed & mask
    elif mask is not None:
        scores = scores + mask
    scores = np.where(allowed, scores, LEAST)
    e = np.exp(scores - scores.max(-1, keepdims=True)) * allowed
    return e / np.maximum(e.sum(-1, keepdims=True), 1e-300) @ v


_MASK = np.array([[True, False, True], [True, True, False]])


@composite(
    namespace="nn",
    reference=_attention,
    samples=[
        dict(shapes=((2, 3, 4), (2, 3, 4), (2, 3, 2))),
        dict(shapes=((2, 2, 2, 4), (2, 2, 3, 4), (2, 2, 3, 2)), args=(_MASK,)),
        dict(shapes=((1, 3, 4), (1, 3, 4), (1, 3, 2)), attrs=dict(is_causal=True, scale=0.3)),
        dict(shapes=((2, 4), (3, 4), (3, 4)), args=(np.array([[0.5, -1.0, 0.0]]),)),
    ],
)
def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None
):
    """softmax(query keyᵀ · scale + mask) value (Vaswani et al. 2017).

    query (..., L, E), key (..., S, E), value (..., S, V) -> (..., L, V). attn_mask broadcasts to (..., L, S): booleans say
    which pairs take part, floats are added. is_causal: each query sees the keys up to its own place. A query that sees
    nothing gives zeros. scale is 1 / √E where it is None. dropout_p: the share of weights that are dropped.
    """
    if attn_mask is None:
        return attend(query, key, value, None, None, dropout_p, is_causal, scale)[0]
    allowed = attn_mask if _is_bool(attn_mask) else None
    return attend(query, key, value, allowed, None if allowed is attn_mask else attn_mask, dropout_p, is_causal, scale)[
        0
    ]


@composite(namespace="nn", public=False)
def attend(
    query: Tensor, key: Tensor, value: Tensor, allowed=None, added=None, dropout_p=0.0, is_causal=False, scale=None
):
    """scaled_dot_product_attention's result and its weights (..., L, S) before dropout.

    allowed: a mask of booleans, added: one of floats; both broadcast to (..., L, S).
    """
    if (
        min(query.ndim, key.ndim, value.ndim) < 2
        or query.shape[-1] != key.shape[-1]
        or key.shape[-2] != value.shape[-2]
    ):
        raise ShapeError(
            f"scaled_dot_product_attention: query, key and value have shapes {query.shape}, {key.shape} and {value.shape}; "
            "wanted (..., L, E), (..., S, E) and (..., S, V)"
        )
    meet = promote(promote(floating(query).dtype, floating(key).dtype), floating(value).dtype)
    query, key, value = (astype(x, meet) for x in (query, key, value))
    length, width = query.shape[-2], query.shape[-1]
    scores = matmul(query * (1.0 / math.sqrt(width) if scale is None else scale), swapaxes(key, -1, -2))
    for mask in (allowed, added):
        if mask is not None:
            _check_mask(mask, scores.shape)
    if added is not None:
        scores = scores + astype(as_tensor(added, "attention", scores.device), scores.dtype)
    if is_causal:
        places = arange(key.shape[-2], device=query.device)
        seen = expand_dims(arange(length, device=query.device), 1) >= places
        allowed = seen if allowed is None else seen & allowed
    if allowed is None:
        weights = softmax(scores, -1)
    else:
        weights = where(allowed, softmax(where(allowed, scores, LEAST), -1), 0.0)
    return matmul(dropout(weights, dropout_p, True) if dropout_p else weights, value), weights


def _is_bool(mask) -> bool:
    return str(getattr(mask.dtype, "name", mask.dtype)) == "bool"


def _check_mask(mask, shape: tuple[int, ...]) -> None:
    found = tuple(getattr(mask, "shape", np.shape(mask)))
    try:
        fits = np.broadcast_shapes(found, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"scaled_dot_product_attention: attn_mask has shape {found}, which does not broadcast to {shape} (queries, keys)"
        )


@composite(
    namespace="nn",
    reference=lambda a, b, w, bias=None: np.einsum("...i,oij,...j->...o", a, w, b) + (0.0 if bias is None else bias),
    samples=[dict(shapes=((3, 4), (3, 2), (5, 4, 2), (5,))), dict(shapes=((2, 3, 2), (2, 3, 3), (1, 2, 3)))],
)
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias=None):
    """input1 · weight[o] · input2 for each output o, plus bias: (..., I), (..., J), (O, I, J), (O,) -> (..., O)."""
    if (
        weight.ndim != 3
        or not input1.ndim
        or not input2.ndim
        or (input1.shape[-1], input2.shape[-1]) != weight.shape[1:]
    ):
        raise ShapeError(
            f"bilinear: inputs have shapes {input1.shape} and {input2.shape} and weight has {weight.shape}; wanted (..., I), "
            "(..., J) and (outputs, I, J)"
        )
    if input1.shape[:-1] != input2.shape[:-1]:
        raise ShapeError(
            f"bilinear: inputs have shapes {input1.shape} and {input2.shape}; only their last axes may differ"
        )
    outputs, first, second = weight.shape
    rows = reshape(input1, (math.prod(input1.shape[:-1]), first))
    products = matmul(rows, reshape(swapaxes(weight, 0, 1), (first, outputs * second)))
    products = reshape(products, (rows.shape[0], outputs, second))
    y = sum_over(products * expand_dims(reshape(input2, (rows.shape[0], second)), 1), 2)
    y = reshape(y, (*input1.shape[:-1], outputs))
    return y if bias is None else y + bias
