"""Ops that cannot compute with float16 and bfloat16 are given float32, and what they compute is rounded back.

Both are conversions that are recorded like any other op, so gradients follow by themselves and have the dtype of their inputs.
Elementwise ops need none of this: their kernels load halves, compute in float32 and store halves.
"""

from __future__ import annotations

import functools

from .. import dtypes, precision
from ..dtypes import DType, as_dtype
from ..ops.registry import REGISTRY, Op
from .apply import apply
from .tensor import Tensor


def cast(t, dtype: DType | None = None):
    """A tensor in a dtype; where none is named, in the one that its numbers are computed in."""
    if type(t) is not Tensor:
        return t
    dtype = dtype or t.layout.dtype.compute
    return t if t.layout.dtype is dtype else apply(REGISTRY["cast"], (t,), {"dtype": dtype})


def narrow(results, meet: DType):
    """What was computed in float32, as halves where the inputs met at halves."""
    if not meet.is_half:
        return results
    if type(results) is tuple:
        return tuple([narrow(t, meet) for t in results])
    return cast(results, meet) if results.layout.dtype is dtypes.float32 else results


def met(values) -> DType:
    """The dtype at which the floating tensors among the values meet."""
    floats = [t.layout.dtype for t in values if type(t) is Tensor and t.layout.dtype.is_float]
    return functools.reduce(dtypes.promote, floats) if floats else dtypes.float32


def in_float32(op: Op, inputs: tuple, attrs: dict):
    """One op on halves. Inside `tg.autocast` what it computes stays float32, unless it is a product."""
    meet, asked = met(inputs), attrs.get("dtype")
    if asked is not None:
        meet = as_dtype(asked)
        attrs = {**attrs, "dtype": meet.compute}
    elif precision.autocast.current() is not None and not op.product:
        meet = dtypes.float32
    return narrow(apply(op, tuple(map(cast, inputs)), attrs), meet)


def sums(op: Op, args: tuple, kwargs: dict):
    """A composite that adds up, as a whole: rounded in between, its sums could overflow. Inside `tg.autocast` it stays float32."""
    given = [t for t in (*args, *kwargs.values()) if type(t) is Tensor]
    if not any(t.layout.dtype.is_half for t in given):
        return op.fn(*args, **kwargs)
    meet = dtypes.float32 if precision.autocast.current() is not None else met(given)
    return narrow(op.fn(*map(cast, args), **{k: cast(t) for k, t in kwargs.items()}), meet)
