"""Sorting: argsort, sort, topk. Values are taken by position, so their gradients are those of take_along_axis."""

from __future__ import annotations

import operator

import numpy as np

from ..dtypes import int64
from ..errors import ShapeError
from .axes import one_axis
from .indexing import take_along_kernel
from .movement import slice_view
from .registry import Tensor, composite, primitive


@primitive(public=False, differentiable=False, builder="argsort")
def argsort_kernel(x: Tensor, axis, descending):
    """Positions in sorted order."""
    return (x,), {"axis": axis, "descending": descending}


@argsort_kernel.shape
def _(x, axis, descending):
    return x.shape, int64


def _sorted(x, axis=-1, descending=False):
    s = np.sort(x, axis)
    return np.flip(s, axis) if descending else s


@composite(
    method=True,
    reference=lambda x, axis=-1, descending=False: np.argsort(-x if descending else x, axis, stable=True),
    samples=[dict(shapes=((3, 5),)), dict(shapes=((4, 3),), attrs=dict(axis=0, descending=True))],
)
def argsort(x: Tensor, axis=-1, descending=False):
    """The int64 positions that sort x along an axis. Stable; nan comes last."""
    return argsort_kernel(x, one_axis(axis, x.ndim, "argsort"), bool(descending))


@composite(
    method=True,
    reference=_sorted,
    samples=[dict(shapes=((3, 5),)), dict(shapes=((4, 3),), attrs=dict(axis=0, descending=True))],
)
def sort(x: Tensor, axis=-1, descending=False):
    """x sorted along an axis. Stable; nan comes last."""
    axis = one_axis(axis, x.ndim, "sort")
    return take_along_kernel(x, argsort_kernel(x, axis, bool(descending)), axis)


def _topk(x, k, axis=-1, largest=True):
    order = np.take(np.argsort(-x if largest else x, axis, stable=True), np.arange(k), axis)
    return np.take_along_axis(x, order, axis), order


@composite(
    method=True,
    reference=_topk,
    samples=[dict(shapes=((3, 5),), args=(2,)), dict(shapes=((4, 3),), args=(3,), attrs=dict(axis=0, largest=False))],
)
def topk(x: Tensor, k, axis=-1, largest=True):
    """The k largest (or smallest) elements along an axis, in order, and their positions."""
    axis, k = one_axis(axis, x.ndim, "topk"), operator.index(k)
    if not 0 <= k <= x.shape[axis]:
        raise ShapeError(f"topk: k is {k}, and axis {axis} has {x.shape[axis]} elements")
    order = argsort_kernel(x, axis, bool(largest))
    sizes = tuple(k if a == axis else n for a, n in enumerate(x.shape))
    order = slice_view(order, (0,) * x.ndim, sizes, (1,) * x.ndim)
    return take_along_kernel(x, order, axis), order
