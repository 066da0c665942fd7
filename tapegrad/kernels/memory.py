"""Memory as NumPy sees it: for reading values out, and for the reference backend."""

from __future__ import annotations

import ctypes

import numpy as np

from ..dtypes import bfloat16
from ..halves import widened
from ..layouts import Layout


def array_at(address: int, x: Layout) -> np.ndarray:
    """A NumPy view of the elements at an address. It does not keep the memory alive."""
    if x.size == 0:
        return np.empty(x.shape, x.dtype.numpy)
    low = sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True) if s < 0)
    high = sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True) if s > 0)
    item = x.dtype.itemsize
    raw = (ctypes.c_char * ((high - low + 1) * item)).from_address(address + low * item)
    flat = np.frombuffer(memoryview(raw), x.dtype.numpy)
    return np.lib.stride_tricks.as_strided(flat[-low:], x.shape, tuple(s * item for s in x.strides))


def values(array: np.ndarray, x: Layout) -> np.ndarray:
    """Numbers from an array of what lies in memory: of bfloat16, which are bits to NumPy, a copy as float32."""
    return widened(array) if x.dtype is bfloat16 else array
