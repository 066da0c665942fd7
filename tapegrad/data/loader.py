"""Batches: a DataLoader walks a dataset in order or shuffled and yields NumPy arrays."""

from __future__ import annotations

import operator
import secrets
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from typing import Any

import numpy as np

from ..errors import DataError, DtypeError, IndexOutOfRange
from .dataset import ArrayDataset

Collate = Callable[[list[Any]], Any]


class DataLoader:
    """Batches of `dataset`, one pass each time it is iterated.

    A batch has the structure of a sample with one more axis in front: a tuple of arrays where samples are tuples, a
    dict where they are dicts, an array where they are arrays or numbers. Arrays in a batch are contiguous copies, so
    changing them leaves the dataset as it was.

    Args:
        dataset: an `ArrayDataset`, an array, a tuple of arrays of equal length, or anything with `__len__` and
            `__getitem__(int)` (a list is a list of samples).
        batch_size: samples in a batch; the last one may be smaller.
        shuffle: another order in each pass. The order follows from `seed` and `epoch` alone, with every NumPy version.
        sampler: indices to visit instead, an iterable that is walked anew in each pass; not together with `shuffle`.
        drop_last: leave out a last batch that is not full.
        collate_fn: makes a batch of a list of samples; `collate` unless given.
        seed: of the shuffle, an int from 0; a random one, kept in `loader.seed`, unless given.

    `epoch` counts the passes begun; set it to repeat a pass or to go on where a saved run stopped.

    Raises:
        DataError: an empty dataset, arrays of different lengths, a batch size below 1, no full batch with `drop_last`.

    >>> loader = DataLoader((np.arange(5), np.arange(5) ** 2), batch_size=2)
    >>> len(loader)
    3
    >>> for x, y in loader:
    ...     print(x, y)
    [0 1] [0 1]
    [2 3] [4 9]
    [4] [16]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        sampler: Iterable[int] | None = None,
        drop_last: bool = False,
        collate_fn: Collate | None = None,
        seed: int | None = None,
    ):
        self.dataset = _as_dataset(dataset)
        self.batch_size = _whole("batch_size", batch_size, least=1)
        self.shuffle = shuffle
        self.sampler = sampler
        self.drop_last = drop_last
        self.collate_fn = collate_fn or collate
        self.seed = secrets.randbits(64) if seed is None else _whole("seed", seed, least=0)
        self.epoch = 0
        if shuffle and sampler is not None:
            raise DataError("DataLoader: shuffle=True and a sampler both decide the order; leave out one.")
        if not len(self.dataset):
            raise DataError("DataLoader: the dataset is empty; it needs at least one sample.")
        samples = self._samples()
        if drop_last and samples is not None and samples < self.batch_size:
            raise DataError(
                f"DataLoader: drop_last leaves no batch of {samples} samples when batch_size is {self.batch_size}. "
                "Take a smaller batch_size, or drop_last=False."
            )
        # Whole arrays are gathered at once; a subclass may change single samples, so it is asked for each.
        plain = type(self.dataset).__getitem__ is ArrayDataset.__getitem__ or isinstance(self.dataset, np.ndarray)
        self._gathers = plain and collate_fn is None

    def __len__(self) -> int:
        """The number of batches in a pass."""
        samples = self._samples()
        if samples is None:
            raise DataError("DataLoader: the sampler has no length, so the batches cannot be counted ahead.")
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        if self.sampler is not None:
            return self._sampled(iter(self.sampler))
        order = shuffled(len(self.dataset), self.seed, epoch) if self.shuffle else None
        return self._ordered(order)

    def _samples(self) -> int | None:
        if self.sampler is None:
            return len(self.dataset)
        return len(self.sampler) if isinstance(self.sampler, Sized) else None

    def _ordered(self, order: np.ndarray | None) -> Iterator[Any]:
        count = len(self.dataset)
        for start in range(0, count, self.batch_size):
            stop = min(start + self.batch_size, count)
            if stop - start < self.batch_size and self.drop_last:
                return
            yield self._batch(np.arange(start, stop) if order is None else order[start:stop])

    def _sampled(self, indices: Iterator[int]) -> Iterator[Any]:
        count = len(self.dataset)
        while chosen := list(islice(indices, self.batch_size)):
            if len(chosen) < self.batch_size and self.drop_last:
                return
            for index in chosen:
                if not hasattr(index, "__index__"):
                    raise DtypeError(f"DataLoader: the sampler gave {index!r}; it must give whole numbers.")
                if not 0 <= index < count:
                    raise IndexOutOfRange(
                        f"DataLoader: the sampler gave index {index}, and the dataset's samples are 0 to {count - 1}."
                    )
            yield self._batch(np.array(chosen, np.int64))

    def _batch(self, indices: np.ndarray) -> Any:
        if not self._gathers:
            return self.collate_fn([self.dataset[i] for i in indices.tolist()])
        if isinstance(self.dataset, np.ndarray):
            return self.dataset.take(indices, axis=0)
        return tuple(a.take(indices, axis=0) for a in self.dataset.arrays)


def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """The numbers 0 to `count - 1`, int64, in an order that depends on `seed` and `epoch` only.

    Sorts raw Philox words (Salmon et al., SC 2011): NumPy promises that their stream stays the same in every version,
    which it does not for `Generator.permutation`.

    >>> sorted(shuffled(5, seed=7, epoch=0).tolist())
    [0, 1, 2, 3, 4]
    """
    words = np.random.Philox(np.random.SeedSequence([seed, epoch])).random_raw(count)
    return np.argsort(words, kind="stable")


def collate(samples: list[Any]) -> Any:
    """One batch of a list of samples: tuples and lists field by field, dicts key by key, the rest stacked.

    Python floats become float32, tapegrad's default, and ints int64. DataError where shapes differ.

    >>> collate([(1.5, 0), (2.5, 1)])
    (array([1.5, 2.5], dtype=float32), array([0, 1]))
    """
    first = samples[0]
    if isinstance(first, dict):
        return {key: collate([sample[key] for sample in samples]) for key in first}
    if isinstance(first, (tuple, list)):
        if any(len(sample) != len(first) for sample in samples):
            raise DataError("DataLoader: samples of one batch differ in their number of fields; give collate_fn.")
        return tuple(collate(list(field)) for field in zip(*samples, strict=True))
    if isinstance(first, (str, bytes)):
        return samples
    arrays = [np.asarray(sample) for sample in samples]
    for place, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise DataError(
                f"DataLoader: samples 0 and {place} of a batch have shapes {arrays[0].shape} and {array.shape}; they "
                "must agree, so pad or crop them, or give collate_fn."
            )
    batch = np.stack(arrays)
    return batch.astype(np.float32) if all(type(sample) is float for sample in samples) else batch


def _as_dataset(dataset: Any) -> Any:
    if isinstance(dataset, tuple) and dataset and all(getattr(a, "ndim", 0) for a in dataset):
        return ArrayDataset(*dataset)
    if hasattr(dataset, "__array__"):
        dataset = np.asarray(dataset)
    if isinstance(dataset, np.ndarray) and dataset.ndim == 0:
        raise DataError("DataLoader: the dataset is a 0-d array; its first axis must be the sample.")
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DtypeError(
            f"DataLoader: a {type(dataset).__name__} is no dataset; wanted is an ArrayDataset, an array, a tuple of "
            "arrays, or an object with __len__ and __getitem__."
        )
    return dataset


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise DtypeError(f"DataLoader: {name} is {value!r}; a whole number from {least} is wanted.")
    if value < least:
        raise DataError(f"DataLoader: {name} is {value}; a whole number from {least} is wanted.")
    return operator.index(value)
