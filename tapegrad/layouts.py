"""Layouts: shape, strides and dtype of a value, interned so that equal layouts are usually one object.

A layout says how to walk a buffer, never where it lies. Prepared launches are looked up by layout identity; two equal
layouts that are not one object (the table was emptied in between) only cost a second lookup.
"""

from __future__ import annotations

import math
import operator
import re

from . import dtypes
from .dtypes import DType
from .errors import DtypeError, OutOfMemory, ShapeError

TABLE_LIMIT = 20_000  # layouts kept before the table is emptied, so that ever new shapes do not grow it


class Layout:
    """Shape and strides (in elements) of a value of one dtype on one device. Made by `layout()`, never changed."""

    __slots__ = ("contiguous", "device", "dtype", "nbytes", "ndim", "shape", "size", "strides")

    def __init__(self, shape: tuple[int, ...], strides: tuple[int, ...], dtype: DType, device: str = "cpu"):
        self.shape = shape
        self.strides = strides
        self.dtype = dtype
        self.device = device
        self.ndim = len(shape)
        self.size = math.prod(shape)
        self.nbytes = self.size * dtype.itemsize
        self.contiguous = self.size == 0 or all(
            n == 1 or s == want for n, s, want in zip(shape, strides, row_major(shape), strict=True)
        )

    def __repr__(self) -> str:
        return f"Layout({self.shape}, strides={self.strides}, {self.dtype.name})"


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of a C-contiguous array.

    >>> row_major((2, 3, 4))
    (12, 4, 1)
    """
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


_DEVICE = re.compile(r"cpu|reference|(cuda|gpu)(:\d{1,3})?")


def is_device(name) -> bool:
    """Whether a text has the form of a device's name.

    >>> is_device("cuda:1"), is_device("float32")
    (True, False)
    """
    return isinstance(name, str) and _DEVICE.fullmatch(name) is not None


def device_named(name: str) -> str:
    """The full name of a device: "cuda" is "cuda:0". DtypeError where it is none.

    >>> device_named("cuda"), device_named("cpu")
    ('cuda:0', 'cpu')
    """
    if name == "cpu":
        return name
    if not is_device(name):
        raise DtypeError(
            f'device {name!r} is not known; devices are "cpu", "cuda:0" and so on, and, for checks, "reference"'
        )
    kind, _, number = name.partition(":")
    return f"cuda:{int(number or 0)}" if kind in ("cuda", "gpu") else name


MOST_AXES = 64
MOST_ELEMENTS = 1 << 59  # of 8 bytes each, with room to count and address them in 64 bits

_table: dict[tuple, Layout] = {}


def _whole(shape) -> tuple[int, ...]:
    """The shape in Python's integers: a length of another kind would spread into sizes and addresses."""
    try:
        return tuple(operator.index(n) if type(n) is not bool else int(n) for n in shape)
    except TypeError:
        raise DtypeError(f"a shape is made of integers, not {shape!r}") from None


def layout(shape: tuple[int, ...], dtype: DType, strides: tuple[int, ...] | None = None, device: str = "cpu") -> Layout:
    """The layout of that shape and dtype; C-contiguous where no strides (in elements) are given.

    >>> from tapegrad.dtypes import float32
    >>> layout((2, 3), float32) is layout((2, 3), float32)
    True
    """
    key = (shape, dtype, strides, device)
    found = _table.get(key)
    if found is None:
        device = device_named(device)
        if strides is None:
            found = layout(shape, dtype, row_major(shape), device)
        else:
            if any(type(n) is not int for n in shape):
                return layout(_whole(shape), dtype, strides, device)
            if len(shape) > MOST_AXES:
                raise ShapeError(
                    f"a shape of {len(shape)} axes was asked for; a tensor has at most {MOST_AXES}, as in NumPy"
                )
            if math.prod(n for n in shape if n) > MOST_ELEMENTS:
                raise OutOfMemory(f"a shape of {shape} was asked for, which has more elements than any memory")
            found = Layout(shape, strides, dtype, device)
            if dtype.is_half:
                dtypes.halves_used = True
        if len(_table) > TABLE_LIMIT:
            _table.clear()
        _table[key] = found
    return found
