"""Builders of ops that place elements: strided writes through the elementwise generator."""

from __future__ import annotations

from ..layouts import Layout, layout
from ..ops import expression as ex
from . import elementwise as generator
from .launch import Step, kernel


@kernel("embed", accepts=lambda x: True, sure=True)
def embed(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    """Zeros, then the input written to a strided part of them."""
    (x,), (y,) = ins, outs
    flat = layout((y.size,), y.dtype)
    zero = generator.steps((ex.const(0),), (), (flat,), y.dtype.compute, places=(1,))
    if x.size == 0:
        return zero
    strides = tuple(s * t for s, t in zip(y.strides, attrs["steps"], strict=True))
    offset = sum(a * s for a, s in zip(attrs["starts"], y.strides, strict=True))
    part = layout(x.shape, y.dtype, strides)
    return zero + generator.steps((ex.argument(0),), (x,), (part,), y.dtype.compute, offsets=(0, offset))
