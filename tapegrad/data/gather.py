"""How samples of any dataset are gathered: at once where it can, one by one where it must."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError, DtypeError
from .dataset import ArrayDataset


def as_dataset(dataset: Any, who: str = "DataLoader") -> Any:
    """A dataset of an array, of a tuple of arrays, or of anything with `__len__` and `__getitem__`."""
    if isinstance(dataset, tuple) and dataset and all(getattr(a, "ndim", 0) for a in dataset):
        return ArrayDataset(*dataset)
    if hasattr(dataset, "__array__"):
        dataset = np.asarray(dataset)
    if isinstance(dataset, np.ndarray) and dataset.ndim == 0:
        raise DataError(f"{who}: the dataset is a 0-d array; its first axis must be the sample.")
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DtypeError(
            f"{who}: a {type(dataset).__name__} is no dataset; wanted is an ArrayDataset, an array, a tuple of "
            "arrays, or an object with __len__ and __getitem__."
        )
    return dataset


def gathers(dataset: Any) -> bool:
    """True where its method `gather(indices)` gives a batch at once.

    A subclass that changes `__getitem__` alone is asked for each sample.
    """
    if isinstance(dataset, np.ndarray):
        return True
    line = type(dataset).__mro__
    gather = next((i for i, kind in enumerate(line) if "gather" in vars(kind)), None)
    getitem = next((i for i, kind in enumerate(line) if "__getitem__" in vars(kind)), len(line))
    return gather is not None and gather <= getitem and getattr(dataset, "gathers", True)


def gathered(dataset: Any, indices: np.ndarray) -> Any:
    """The batch of samples `indices` (N,) of a dataset that `gathers`."""
    return dataset.take(indices, axis=0) if isinstance(dataset, np.ndarray) else dataset.gather(indices)


def samples(dataset: Any, indices: np.ndarray) -> list[Any]:
    """The samples `indices` (N,), one by one; by `__getitems__`, PyTorch's and Hugging Face's way, where there is that."""
    several = getattr(dataset, "__getitems__", None)
    if several is not None:
        return list(several(indices.tolist()))
    return [dataset[i] for i in indices.tolist()]
