"""In which order, and in which company, samples are visited.

A sampler gives `indices(epoch)`, a batch sampler `batches(epoch)`. Both follow from a seed and the epoch alone, so that a
loader can go on anywhere. Random orders stay the same with every version of NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...errors import DataError
from ..order import shuffled, uniform


class Sampler:
    """A subclass gives `indices(epoch)` and its length."""

    def indices(self, epoch: int) -> np.ndarray:
        """int64 (N,): the samples to visit in that epoch."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices(0).tolist())


class SequentialSampler(Sampler):
    """0, 1, … of a dataset or a number.

    >>> list(SequentialSampler(3))
    [0, 1, 2]
    """

    def __init__(self, samples: Any):
        self.count = _count("SequentialSampler", samples)

    def indices(self, epoch: int) -> np.ndarray:
        return np.arange(self.count)

    def __len__(self) -> int:
        return self.count


class RandomSampler(Sampler):
    """Another order in each epoch; `num_samples` of them, or, with `replacement`, so many draws.

    >>> sorted(RandomSampler(4, seed=1))
    [0, 1, 2, 3]
    """

    def __init__(self, samples: Any, *, num_samples: int | None = None, replacement: bool = False, seed: int = 0):
        self.count = _count("RandomSampler", samples)
        self.num_samples = self.count if num_samples is None else num_samples
        self.replacement, self.seed = replacement, seed
        if self.num_samples < 1 or (not replacement and self.num_samples > self.count):
            raise DataError(
                f"RandomSampler: num_samples is {num_samples} of {self.count}; without replacement there are no more."
            )

    def indices(self, epoch: int) -> np.ndarray:
        if self.replacement:
            drawn: np.ndarray = (uniform(self.num_samples, self.seed, epoch) * self.count).astype(np.int64)
            return drawn
        return shuffled(self.count, self.seed, epoch)[: self.num_samples]

    def __len__(self) -> int:
        return self.num_samples


class WeightedSampler(Sampler):
    """Samples drawn with chances in proportion to `weights` (N,), which need not add up to 1.

    Without `replacement` each comes at most once (Efraimidis and Spirakis, Weighted random sampling with a reservoir,
    2006). To visit classes alike, give `1 / counts[labels]`.

    >>> set(WeightedSampler([0, 1, 0, 1], num_samples=8)) <= {1, 3}
    True
    """

    def __init__(self, weights: Any, *, num_samples: int | None = None, replacement: bool = True, seed: int = 0):
        self.weights = np.asarray(weights, np.float64)
        if self.weights.ndim != 1 or not np.isfinite(self.weights).all() or (self.weights < 0).any():
            raise DataError("WeightedSampler: weights must be one finite number from 0 for each sample.")
        possible = int(np.count_nonzero(self.weights))
        self.num_samples = len(self.weights) if num_samples is None else num_samples
        self.replacement, self.seed = replacement, seed
        if not possible or self.num_samples < 1 or (not replacement and self.num_samples > possible):
            raise DataError(
                f"WeightedSampler: {self.num_samples} samples are wanted, and {possible} have a weight above 0."
            )

    def indices(self, epoch: int) -> np.ndarray:
        if self.replacement:
            ends = np.cumsum(self.weights)
            drawn = np.searchsorted(ends, uniform(self.num_samples, self.seed, epoch) * ends[-1], side="right")
            inside: np.ndarray = drawn.clip(0, np.flatnonzero(self.weights)[-1])
            return inside
        with np.errstate(divide="ignore"):
            wait = -np.log1p(-uniform(len(self.weights), self.seed, epoch)) / self.weights
        return np.argsort(np.where(self.weights > 0, wait, np.inf), kind="stable")[: self.num_samples]

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler:
    """A subclass gives `batches(epoch)`, as many in every epoch as its length says."""

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The samples of each batch of that epoch, int64."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[list[int]]:
        return (batch.tolist() for batch in self.batches(0))


class StratifiedBatches(BatchSampler):
    """Batches in which every class has its share of the whole, to within one sample; another order in each epoch.

    >>> labels = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    >>> [sorted(labels[batch].tolist()) for batch in StratifiedBatches(labels, 4)]
    [[0, 0, 0, 1], [0, 0, 0, 1]]
    """

    def __init__(self, labels: Any, batch_size: int, *, seed: int = 0, drop_last: bool = False):
        labels = np.asarray(labels)
        if labels.ndim != 1 or not len(labels):
            raise DataError(f"StratifiedBatches: labels have shape {labels.shape}; wanted is one for each sample.")
        self.codes = np.unique(labels, return_inverse=True)[1].reshape(-1)
        self.batch_size, self.seed, self.drop_last = _size("StratifiedBatches", batch_size), seed, drop_last

    def batches(self, epoch: int) -> list[np.ndarray]:
        mixed = stratified(self.codes, shuffled(len(self.codes), self.seed, epoch))
        cut = _cut(mixed, self.batch_size, self.drop_last)
        whole = len(cut) - int(len(cut) > 0 and len(cut[-1]) < self.batch_size)
        return [cut[i] for i in shuffled(whole, self.seed, epoch, 1)] + cut[whole:]

    def __len__(self) -> int:
        return _batches(len(self.codes), self.batch_size, self.drop_last)


class UndividedBatches(BatchSampler):
    """Batches that hold whole groups: samples with one label in `groups` (N,) always come together, in their order.

    A batch has as many groups as fit into `batch_size` samples; a larger group is a batch of its own. Which groups go
    together follows from the seed; the order of the batches changes in each epoch unless `shuffle` is False.

    >>> [batch for batch in UndividedBatches([0, 0, 1, 1, 1, 2], 4, shuffle=False)]
    [[0, 1], [2, 3, 4, 5]]
    """

    def __init__(self, groups: Any, batch_size: int, *, seed: int = 0, shuffle: bool = True):
        groups = np.asarray(groups)
        if groups.ndim != 1 or not len(groups):
            raise DataError(f"UndividedBatches: groups have shape {groups.shape}; wanted is a label for each sample.")
        self.seed, self.shuffle = seed, shuffle
        codes = np.unique(groups, return_inverse=True)[1].reshape(-1)
        members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
        members.sort(key=lambda m: m[0])  # as they first come
        order = shuffled(len(members), seed) if shuffle else range(len(members))
        packed: list[list[np.ndarray]] = []
        room = 0
        for place in order:
            if len(members[place]) > room:
                packed.append([])
                room = _size("UndividedBatches", batch_size)
            packed[-1].append(members[place])
            room -= len(members[place])
        self.packed = [np.concatenate(parts) for parts in packed]

    def batches(self, epoch: int) -> list[np.ndarray]:
        order = shuffled(len(self.packed), self.seed, epoch, 1) if self.shuffle else range(len(self.packed))
        return [self.packed[i] for i in order]

    def __len__(self) -> int:
        return len(self.packed)


class BucketedBatches(BatchSampler):
    """Batches of samples of similar length, so that padding wastes little; another order in each epoch.

    Samples are shuffled, sorted by `lengths` (N,) within buckets of `bucket` batches, cut into batches, and the batches
    shuffled. A smaller bucket mixes more and pads more.

    >>> lengths = [9, 1, 8, 2]
    >>> sorted(sorted(lengths[i] for i in batch) for batch in BucketedBatches(lengths, 2))
    [[1, 2], [8, 9]]
    """

    def __init__(self, lengths: Any, batch_size: int, *, bucket: int = 100, seed: int = 0, drop_last: bool = False):
        self.lengths = np.asarray(lengths)
        if self.lengths.ndim != 1 or not len(self.lengths):
            raise DataError(f"BucketedBatches: lengths have shape {self.lengths.shape}; wanted is one for each sample.")
        self.batch_size, self.bucket = _size("BucketedBatches", batch_size), max(1, bucket)
        self.seed, self.drop_last = seed, drop_last

    def batches(self, epoch: int) -> list[np.ndarray]:
        order = shuffled(len(self.lengths), self.seed, epoch)
        found: list[np.ndarray] = []
        for part in _cut(order, self.batch_size * self.bucket, False):
            found.extend(_cut(part[np.argsort(self.lengths[part], kind="stable")], self.batch_size, self.drop_last))
        return [found[i] for i in shuffled(len(found), self.seed, epoch, 1)]

    def __len__(self) -> int:
        return _batches(len(self.lengths), self.batch_size, self.drop_last)


def stratified(codes: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The samples in an order in which any stretch has all classes in proportion, as `order` has them within a class.

    Each sample is put where it is within its own class: the third of four at 5/8.

    >>> stratified(np.array([0, 0, 1, 1]), np.arange(4)).tolist()
    [0, 2, 1, 3]
    """
    by_class = order[np.argsort(codes[order], kind="stable")]
    counts = np.bincount(codes)
    within = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
    mixed: np.ndarray = by_class[np.argsort((within + 0.5) / np.repeat(counts, counts), kind="stable")]
    return mixed


def _cut(order: np.ndarray, size: int, drop_last: bool) -> list[np.ndarray]:
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    return parts[:-1] if drop_last and parts and len(parts[-1]) < size else parts


def _batches(count: int, size: int, drop_last: bool) -> int:
    return count // size if drop_last else -(-count // size)


def _count(who: str, samples: Any) -> int:
    count = samples if isinstance(samples, int | np.integer) else len(samples)
    if count < 1:
        raise DataError(f"{who}: there are {count} samples; one at least is wanted.")
    return int(count)


def _size(who: str, batch_size: int) -> int:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise DataError(f"{who}: batch_size is {batch_size!r}; a whole number from 1 is wanted.")
    return int(batch_size)
