"""The element types, and the rule by which two of them meet.

Promotion: bool < uint8 < int32 < int64 < float16, bfloat16 < float32 < float64. Two types meet at the larger one, so an integer
tensor beside a float32 tensor gives float32 (as PyTorch and JAX do, where NumPy would widen to float64); float16 and bfloat16,
of which neither holds the other's numbers, meet at float32. Python scalars are weak: they take part with their kind only, so
`x * 2.5` keeps the dtype of a float tensor.

float16 and bfloat16 are ways to store numbers, in two bytes each. All is computed in float32 and rounded once when it is stored.
"""

from __future__ import annotations

import numpy as np

from .errors import DtypeError


class DType:
    """An element type. The eight instances are singletons: compare them with `is`.

    numpy: the dtype of the bytes in memory; of bfloat16, which NumPy has not, uint16. compute: what is computed in.

    >>> float32.itemsize, float32.kind, bfloat16.compute
    (4, 'f', tapegrad.float32)
    """

    __slots__ = ("compute", "is_float", "is_half", "itemsize", "kind", "llvm", "name", "numpy", "rank")

    def __init__(self, name: str, llvm: str, rank: int, numpy: str | None = None, compute: DType | None = None):
        self.name = name
        self.numpy = np.dtype(numpy or name)
        self.itemsize = self.numpy.itemsize
        self.compute = compute or self
        self.is_half = compute is not None  # stored in two bytes, computed in float32
        self.kind = "f" if self.is_half else self.numpy.kind  # 'f' float, 'i' signed, 'u' unsigned, 'b' bool
        self.is_float = self.kind == "f"
        self.llvm = llvm  # the type in memory; a bool is one byte, 0 or 1
        self.rank = rank

    def __repr__(self) -> str:
        return f"tapegrad.{self.name}"

    def __reduce__(self):
        return as_dtype, (self.name,)


bool_ = DType("bool", "i8", 0)
uint8 = DType("uint8", "i8", 1)
int32 = DType("int32", "i32", 2)
int64 = DType("int64", "i64", 3)
float32 = DType("float32", "float", 5)
float64 = DType("float64", "double", 6)
float16 = DType("float16", "i16", 4, compute=float32)
bfloat16 = DType("bfloat16", "i16", 4, "uint16", float32)

ALL = (float32, float64, int32, int64, uint8, bool_)  # what kernels compute in
HALVES = (float16, bfloat16)
# what kernels see of elements of two bytes that they only move; no dtype of a tensor
BITS16 = DType("uint16", "i16", -1)
BY_NAME = {d.name: d for d in (*ALL, *HALVES)}
DEFAULT = float32
halves_used = False  # whether there ever was a tensor of one of them: until then no op asks
_BY_NUMPY = {d.numpy: d for d in (*ALL, float16)}
_BY_PYTHON = {bool: bool_, int: int64, float: float32}


def as_dtype(x) -> DType:
    """The DType that `x` names: a DType, a name, a NumPy dtype or scalar type, or `bool`, `int`, `float`.

    >>> as_dtype("float64"), as_dtype(int)
    (tapegrad.float64, tapegrad.int64)
    """
    if type(x) is DType:
        return x
    if isinstance(x, type) and x in _BY_PYTHON:
        return _BY_PYTHON[x]
    if isinstance(x, str) and x in BY_NAME:
        return BY_NAME[x]
    try:
        found = np.dtype(x)
        return bfloat16 if found.name == "bfloat16" else _BY_NUMPY[found]  # of the package ml_dtypes
    except (TypeError, KeyError):
        names = ", ".join(BY_NAME)
        raise DtypeError(f"dtype {x!r} is not supported; tapegrad has {names}. Convert the data first.") from None


def promote(a: DType, b: DType) -> DType:
    """The dtype at which two tensors meet.

    >>> promote(int64, float32), promote(float16, bfloat16)
    (tapegrad.float32, tapegrad.float32)
    """
    if a.rank == b.rank and a is not b:
        return float32
    return a if a.rank >= b.rank else b


def weak_scalar(value, beside: DType) -> DType:
    """The dtype a Python scalar takes beside a tensor of dtype `beside`.

    >>> weak_scalar(2.5, int32), weak_scalar(2, float64), weak_scalar(True, uint8)
    (tapegrad.float32, tapegrad.float64, tapegrad.uint8)
    """
    if isinstance(value, bool):
        return beside
    if isinstance(value, int):
        return beside if beside.kind != "b" else int64
    return beside if beside.is_float else DEFAULT
