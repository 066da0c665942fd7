"""Splits of a dataset into parts that share no sample: by record, by block, by group, stratified, k-fold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from .dataset import Subset
from .gather import as_dataset
from .loading.samplers import stratified
from .order import shuffled


def split(
    dataset: Any,
    fractions: Sequence[float],
    *,
    seed: int | None = 0,
    stratify: Any = None,
    groups: Any = None,
    block_size: int | None = None,
) -> list[Subset]:
    """Parts of a dataset, disjoint and together the whole of it.

    Args:
        fractions: sizes of the parts, that add up to 1; or numbers of samples, that add up to the dataset's.
        seed: of the order in which samples are dealt out; None keeps theirs, so that the first part is the earliest.
        stratify: labels (N,); each part gets the same share of each, to within one sample of a class.
        groups: labels (N,); samples of one group go to one part (patients, speakers, documents). Sizes are then near to
            what was asked for, as the groups allow.
        block_size: the same for runs of so many neighbours, of time series, say.

    DataError where a part would be empty, sizes do not add up, or labels are not one for each sample.

    >>> train, test = split(np.arange(10), [0.8, 0.2], seed=1)
    >>> len(train), len(test), sorted(train.indices.tolist() + test.indices.tolist()) == list(range(10))
    (8, 2, True)
    """
    dataset = as_dataset(dataset, "split")
    count = len(dataset)
    sizes = _sizes(fractions, count)
    kept, labels = _labels(count, stratify, groups, block_size)
    if kept is not None:
        parts = _dealt_groups(kept, sizes, seed)
    elif labels is None:
        parts = np.split(_order(count, seed), np.cumsum(sizes)[:-1])
    else:
        parts = _dealt_strata(labels, sizes, seed)
    for size, part in zip(sizes, parts):
        if not len(part):
            raise DataError(
                f"split: a part of {size} of {count} samples is left empty; "
                + (
                    "there are too few groups or blocks."
                    if kept is not None
                    else "the dataset is too small, or a fraction."
                )
            )
    if seed is None or kept is not None:
        parts = [np.sort(part) for part in parts]
    return [Subset(dataset, part) for part in parts]


def k_fold(
    dataset: Any,
    k: int,
    *,
    seed: int | None = 0,
    stratify: Any = None,
    groups: Any = None,
    block_size: int | None = None,
) -> Iterator[tuple[Subset, Subset]]:
    """`k` pairs (training, validation): each sample is in the validation part of exactly one (k-fold cross-validation).

    Options are those of `split`.

    >>> [validation.indices.tolist() for _, validation in k_fold(np.arange(6), 3, seed=None)]
    [[0, 1], [2, 3], [4, 5]]
    """
    dataset = as_dataset(dataset, "k_fold")
    count = len(dataset)
    if not 2 <= k <= count:
        raise DataError(f"k_fold: k is {k}; wanted is from 2 to the {count} samples.")
    sizes = [count // k + (i < count % k) for i in range(k)]
    parts = split(dataset, sizes, seed=seed, stratify=stratify, groups=groups, block_size=block_size)
    return _folds(dataset, [part.indices for part in parts])


def _folds(dataset: Any, folds: list[np.ndarray]) -> Iterator[tuple[Subset, Subset]]:
    for i, fold in enumerate(folds):
        rest = np.concatenate([f for j, f in enumerate(folds) if j != i])
        yield Subset(dataset, rest), Subset(dataset, fold)


def _sizes(fractions: Sequence[float], count: int) -> list[int]:
    if not count:
        raise DataError("split: the dataset is empty; it needs at least one sample.")
    asked = list(fractions)
    if not asked or any(size <= 0 for size in asked):
        raise DataError(f"split: the sizes are {asked}; wanted are numbers above 0, such as [0.8, 0.2].")
    if all(isinstance(size, int | np.integer) for size in asked):
        if sum(asked) != count:
            raise DataError(f"split: the sizes {asked} add up to {sum(asked)}, and the dataset has {count} samples.")
        return [int(size) for size in asked]
    if abs(sum(asked) - 1) > 1e-6:
        raise DataError(f"split: the fractions {asked} add up to {sum(asked):g} and not to 1.")
    ends = [round(end * count) for end in np.cumsum(asked)]
    ends[-1] = count
    return [end - start for start, end in zip([0, *ends], ends)]


def _order(count: int, seed: int | None) -> np.ndarray:
    return np.arange(count) if seed is None else shuffled(count, seed)


def _labels(
    count: int, stratify: Any, groups: Any, block_size: int | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(what is kept together, what is shared out evenly), each as codes or None."""
    if sum(option is not None for option in (stratify, groups, block_size)) > 1:
        raise DataError("split: stratify, groups and block_size exclude each other; give one of them.")
    if block_size is not None:
        if block_size < 1:
            raise DataError(f"split: block_size is {block_size}; a whole number from 1 is wanted.")
        return np.arange(count) // block_size, None
    codes: list[np.ndarray | None] = []
    for name, labels in (("groups", groups), ("stratify", stratify)):
        if labels is None:
            codes.append(None)
            continue
        labels = np.asarray(labels)
        if labels.shape != (count,):
            raise DataError(f"split: {name} has shape {labels.shape}; wanted is one label for each of {count} samples.")
        codes.append(np.unique(labels, return_inverse=True)[1].reshape(-1))
    return codes[0], codes[1]


def _dealt_strata(labels: np.ndarray, sizes: list[int], seed: int | None) -> list[np.ndarray]:
    """Parts of the wanted sizes with the same share of each class."""
    order = _order(len(labels), seed)
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels))
    parts = np.split(stratified(labels, order), np.cumsum(sizes)[:-1])
    return [part[np.argsort(rank[part])] for part in parts]


def _dealt_groups(groups: np.ndarray, sizes: list[int], seed: int | None) -> list[np.ndarray]:
    """Parts near to the wanted sizes; a group goes, whole, to the first part that its middle falls into."""
    counts = np.bincount(groups)
    order = _order(len(counts), seed)
    middle = np.cumsum(counts[order]) - counts[order] / 2
    part_of = np.empty(len(counts), np.int64)
    part_of[order] = np.searchsorted(np.cumsum(sizes), middle, side="right").clip(0, len(sizes) - 1)
    of_sample = part_of[groups]
    return [np.flatnonzero(of_sample == part) for part in range(len(sizes))]
