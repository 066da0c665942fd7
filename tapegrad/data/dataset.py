"""Datasets held in memory: parallel arrays whose first axis is the sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import DataError, IndexOutOfRange


class ArrayDataset:
    """Arrays of equal length; sample `i` is the tuple of their `i`-th entries (PyTorch's `TensorDataset`).

    The arrays are kept as they are, not copied. An int gives one sample; a slice or an array of indices gives the
    tuple of arrays of these samples. DataError where there is no array or their lengths differ.

    >>> points = ArrayDataset(np.eye(3, dtype=np.float32), np.array([2, 0, 1]))
    >>> len(points), points[0]
    (3, (array([1., 0., 0.], dtype=float32), np.int64(2)))
    >>> points[1:][1]
    array([0, 1])
    """

    def __init__(self, *arrays: Any):
        if not arrays:
            raise DataError("ArrayDataset: no array was given; give one or more, as in ArrayDataset(inputs, targets).")
        self.arrays: tuple[np.ndarray, ...] = tuple(np.asarray(a) for a in arrays)
        for place, array in enumerate(self.arrays):
            if array.ndim == 0:
                raise DataError(
                    f"ArrayDataset: argument {place} is a single value ({array.dtype}); wanted is an array whose first "
                    "axis is the sample."
                )
        if len({len(a) for a in self.arrays}) > 1:
            lengths = ", ".join(str(len(a)) for a in self.arrays)
            raise DataError(
                f"ArrayDataset: the arrays have {lengths} samples; their first axes must have the same length."
            )

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        try:
            return tuple(a[index] for a in self.arrays)
        except IndexError:
            name = type(self).__name__
            raise IndexOutOfRange(f"{name}: index {index!r} is not among its {len(self)} samples.") from None

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return zip(*self.arrays, strict=True)

    def __repr__(self) -> str:
        fields = ", ".join(f"{a.dtype} {a.shape}" for a in self.arrays)
        return f"{type(self).__name__}({len(self)} samples: {fields})"
