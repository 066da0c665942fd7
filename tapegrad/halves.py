"""bfloat16 on the host, which NumPy does not know: the upper half of a float32's bits, rounded.

In memory an element is two bytes, which NumPy sees as uint16. With the package ml_dtypes (extra "bfloat16") they become arrays
of its dtype `bfloat16`, as JAX and PyTorch's tools use it; without, they are read as float32.
"""

from __future__ import annotations

import numpy as np

from .errors import DtypeError


def narrowed(x: np.ndarray) -> np.ndarray:
    """Numbers as the bits of bfloat16, uint16: by way of float32 to the nearest, ties to even; nan stays nan.

    >>> [hex(n) for n in narrowed(np.array([1.0, -2.0, 1.00390625, np.inf]))]
    ['0x3f80', '0xc000', '0x3f80', '0x7f80']
    """
    with np.errstate(over="ignore", invalid="ignore"):
        wide = np.ascontiguousarray(x, np.float32)
    bits = wide.view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    return np.where(np.isnan(wide), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def widened(bits: np.ndarray) -> np.ndarray:
    """The numbers that such bits stand for, float32.

    >>> widened(np.array([0x3F80, 0xC000], np.uint16)).tolist()
    [1.0, -2.0]
    """
    return (bits.astype(np.uint32) << 16).view(np.float32)


def array_dtype() -> np.dtype:
    """The dtype of ml_dtypes; DtypeError where that is not installed."""
    try:
        import ml_dtypes
    except ImportError:
        raise DtypeError(
            "numpy: NumPy has no bfloat16; pip install 'tapegrad[bfloat16]' for arrays of the package ml_dtypes, or convert the "
            'tensor first with .astype("float32")'
        ) from None
    return np.dtype(ml_dtypes.bfloat16)
