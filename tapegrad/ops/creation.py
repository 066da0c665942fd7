"""Ops that make tensors from numbers."""

from __future__ import annotations

import math
import operator

import numpy as np

from ..dtypes import DEFAULT, as_dtype, bool_, float64, int64
from ..errors import ShapeError
from .movement import astype
from .registry import Tensor, composite, primitive


@primitive(public=False, differentiable=False, moves=True)
def full(value: Tensor, shape):
    """A tensor of that shape with every element `value`."""
    return (value,), {"shape": shape}


@full.shape
def _(value, shape):
    return shape, value.dtype


@primitive(public=False, differentiable=False, builder="arange")
def ramp(start: Tensor, step: Tensor, count):
    """start + i * step for i from 0 to count - 1."""
    return (start, step), {"count": count}


@ramp.shape
def _(start, step, count):
    return (count,), start.dtype


@composite(reference=np.arange, samples=[])
def arange(start, stop=None, step=1, dtype=None, device="cpu"):
    """start, start + step, … below stop; arange(n) counts from 0. Integers give int64, floats float32.

    >>> import tapegrad as tg
    >>> tg.arange(4)
    tensor([0, 1, 2, 3])
    """
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ShapeError("arange: step is 0; the sequence would not end")
    if dtype is None:
        dtype = int64 if all(isinstance(v, int) for v in (start, stop, step)) else DEFAULT
    dtype = as_dtype(dtype)
    count = math.ceil((stop - start) / step)
    return _ramp(start, step, 0 if count < 0 else count, dtype, device)


def _ramp(start, step, count: int, dtype, device: str):
    from .registry import _interpreter

    number = int if dtype.kind in "iu" else float
    return ramp(*(_interpreter.constant(number(v), dtype, device) for v in (start, step)), count=count)


@composite(reference=np.linspace, samples=[])
def linspace(start, stop, num=50, endpoint=True, dtype=None, device="cpu"):
    """`num` evenly spaced numbers from start to stop, stop included unless endpoint is False.

    >>> import tapegrad as tg
    >>> tg.linspace(0.0, 1.0, 3)
    tensor([0. , 0.5, 1. ])
    """
    count = operator.index(num)
    if count < 0:
        raise ShapeError(f"linspace: num is {count}; it must not be negative")
    wanted = as_dtype(dtype) if dtype is not None else DEFAULT
    gaps = (count - 1) if endpoint else count
    step = (stop - start) / gaps if gaps > 0 else 0.0
    return astype(_ramp(start, step, count, float64, device), wanted)


@primitive(public=False, differentiable=False)
def tri(rows, columns, k, device):
    """True on and below diagonal k."""
    return (), {"rows": rows, "columns": columns, "k": k, "device": device}


@tri.shape
def _(rows, columns, k, device):
    return (rows, columns), bool_


@composite(
    method=True,
    reference=lambda x, k=0: np.tril(x, k),
    samples=[dict(shapes=((3, 4),)), dict(shapes=((2, 3, 3),), attrs=dict(k=-1))],
)
def tril(x: Tensor, k=0):
    """x with everything above diagonal k of its last two axes set to 0."""
    return _triangle(x, k, "tril", False)


@composite(
    method=True,
    reference=lambda x, k=0: np.triu(x, k),
    samples=[dict(shapes=((3, 4),)), dict(shapes=((2, 3, 3),), attrs=dict(k=1))],
)
def triu(x: Tensor, k=0):
    """x with everything below diagonal k of its last two axes set to 0."""
    return _triangle(x, k - 1, "triu", True)


def _triangle(x, k, name, above):
    from .elementwise import where

    if x.ndim < 2:
        raise ShapeError(f"{name}: wanted at least two axes, got shape {x.shape}")
    below = tri(x.shape[-2], x.shape[-1], max(-x.shape[-2], min(operator.index(k), x.shape[-1])), x.device)
    return where(below, 0, x) if above else where(below, x, 0)


@composite(reference=np.eye, samples=[])
def eye(n, m=None, k=0, dtype=None, device="cpu"):
    """Ones on diagonal k of an n × m matrix (m = n if not given), zeros elsewhere.

    >>> import tapegrad as tg
    >>> tg.eye(2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    rows = operator.index(n)
    columns = rows if m is None else operator.index(m)
    if rows < 0 or columns < 0:
        raise ShapeError(f"eye: {rows} × {columns} is not a matrix")
    from .comparison import logical_xor

    return astype(
        logical_xor(tri(rows, columns, k, device), tri(rows, columns, k - 1, device)),
        as_dtype(dtype) if dtype is not None else DEFAULT,
    )
