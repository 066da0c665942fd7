"""Datasets held in memory: parallel arrays whose first axis is the sample, and parts of datasets."""

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

    def gather(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """The arrays of samples `indices`, int64 (N,): a batch, in new memory."""
        return tuple(a.take(indices, axis=0) for a in self.arrays)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return zip(*self.arrays, strict=True)

    def __repr__(self) -> str:
        fields = ", ".join(f"{a.dtype} {a.shape}" for a in self.arrays)
        return f"{type(self).__name__}({len(self)} samples: {fields})"


class Subset:
    """The samples `indices` of another dataset, in that order, without copying any (PyTorch's `Subset`).

    >>> Subset(np.array([10, 20, 30]), np.array([2, 0]))[0]
    np.int64(30)
    """

    def __init__(self, dataset: Any, indices: Any):
        from .gather import as_dataset, gathers

        self.dataset = as_dataset(dataset, "Subset")
        self.indices = np.asarray(indices, np.int64).reshape(-1)
        self.gathers = gathers(self.dataset)
        count = len(self.dataset)
        if self.indices.size and not 0 <= self.indices.min() <= self.indices.max() < count:
            raise IndexOutOfRange(
                f"Subset: indices go from {self.indices.min()} to {self.indices.max()}, and the dataset's samples are 0 "
                f"to {count - 1}."
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice | np.ndarray | list):
            if self.gathers:
                return self.gather(np.arange(len(self))[index])
            return Subset(self.dataset, self.indices[index])
        try:
            return self.dataset[int(self.indices[index])]
        except IndexError:
            raise IndexOutOfRange(f"Subset: sample {index} is not among its {len(self)}.") from None

    def gather(self, indices: np.ndarray) -> Any:
        """The batch of samples `indices` (N,), where the dataset can give one at once."""
        from .gather import gathered

        return gathered(self.dataset, self.indices[indices])

    def __getitems__(self, indices: list[int]) -> list[Any]:
        from .gather import samples

        return samples(self.dataset, self.indices[indices])

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Subset({len(self)} of {len(self.dataset)} samples)"
