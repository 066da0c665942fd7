"""The element types, and the rule by which two of them meet.

Promotion: bool < uint8 < int32 < int64 < float32 < float64. Two types meet at the larger one, so an integer tensor
beside a float32 tensor gives float32 (as PyTorch and JAX do, where NumPy would widen to float64). Python scalars are
weak: they take part with their kind only, so `x * 2.5` keeps the dtype of a float tensor.
"""

from __future__ import annotations

import numpy as np

from .errors import DtypeError


class DType:
    """An element type. The six instances are singletons: compare them with `is`.

    >>> float32.itemsize, float32.kind
    (4, 'f')
    """

    __slots__ = ("is_float", "itemsize", "kind", "llvm", "name", "numpy", "rank")

    def __init__(self, name: str, llvm: str, rank: int):
        self.name = name
        self.numpy = np.dtype(name)
        self.itemsize = self.numpy.itemsize
        self.kind = self.numpy.kind  # 'f' float, 'i' signed, 'u' unsigned, 'b' bool
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
float32 = DType("float32", "float", 4)
float64 = DType("float64", "double", 5)

ALL = (float32, float64, int32, int64, uint8, bool_)
BY_NAME = {d.name: d for d in ALL}
DEFAULT = float32
_BY_NUMPY = {d.numpy: d for d in ALL}
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
    try:
        return _BY_NUMPY[np.dtype(x)]
    except (TypeError, KeyError):
        names = ", ".join(BY_NAME)
        raise DtypeError(f"dtype {x!r} is not supported; tapegrad has {names}. Convert the data first.") from None


def promote(a: DType, b: DType) -> DType:
    """The dtype at which two tensors meet.

    >>> promote(int64, float32)
    tapegrad.float32
    """
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
