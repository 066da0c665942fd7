"""A report of what is in data, before a model is trained on it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError
from .gather import as_dataset, gathered, gathers, samples
from .loading.collate import collate
from .table import Table

CHUNK = 4096  # samples that are looked at together
MOST_CLASSES = 100  # whole numbers of more values are features, and no classes
MOST_TEXTS = 10_000  # texts of more values are no classes either
LISTED = 40  # features in the printed table


@dataclass
class Feature:
    """One feature over a split: `missing` and `infinite` are counts, the rest is of its finite values."""

    name: str
    count: int
    missing: int
    infinite: int
    mean: float
    std: float
    least: float
    most: float


@dataclass
class Split:
    """What is known of one split: its samples, the features, how often each class occurs, by field."""

    name: str
    count: int
    features: list[Feature] = field(default_factory=list)
    classes: dict[str, dict[Any, int]] = field(default_factory=dict)
    duplicates: int = 0  # samples that are the same as an earlier one of the split


@dataclass
class Description:
    """What `describe` found. Print it, or read `splits` and `shared`.

    `shared`: for two splits, how many samples of the second are in the first too.
    """

    splits: dict[str, Split]
    shared: dict[tuple[str, str], int]

    @property
    def warnings(self) -> list[str]:
        """Sentences on what is likely to be wrong."""
        found = []
        for split in self.splits.values():
            gaps = sum(f.missing for f in split.features)
            if gaps:
                found.append(f"{split.name}: {gaps:,} values are missing; preprocess.Impute fills them.")
            endless = sum(f.infinite for f in split.features)
            if endless:
                found.append(f"{split.name}: {endless:,} values are infinite.")
            flat = [f.name for f in split.features if f.std == 0]
            if flat:
                found.append(f"{split.name}: {len(flat)} features do not vary ({', '.join(flat[:3])}).")
            for name, counts in split.classes.items():
                if len(counts) > 1 and max(counts.values()) >= 10 * min(counts.values()):
                    found.append(
                        f"{split.name}: {name} is unbalanced, {max(counts.values())} to {min(counts.values())}."
                    )
            if split.duplicates:
                found.append(f"{split.name}: {split.duplicates:,} samples are repeated.")
        for (one, other), count in self.shared.items():
            if count:
                found.append(
                    f"{count:,} samples of {other} are in {one} too: what is measured on them is not to be trusted."
                )
        return found

    def __str__(self) -> str:
        lines = []
        for split in self.splits.values():
            lines.append(f"{split.name}: {split.count:,} samples")
            for name, counts in split.classes.items():
                listed = ", ".join(f"{value}: {count:,}" for value, count in list(counts.items())[:20])
                lines.append(f"  {name}: {len(counts)} classes ({listed}{', …' if len(counts) > 20 else ''})")
            if split.features:
                lines.append(f"  {'feature':<20}{'mean':>12}{'std':>12}{'min':>12}{'max':>12}{'missing':>9}")
            for f in split.features[:LISTED]:
                lines.append(
                    f"  {f.name:<20}{f.mean:>12.5g}{f.std:>12.5g}{f.least:>12.5g}{f.most:>12.5g}{f.missing:>9,}"
                )
            if len(split.features) > LISTED:
                lines.append(f"  … and {len(split.features) - LISTED:,} more features")
        return "\n".join([*lines, *(f"! {warning}" for warning in self.warnings)])


def describe(*datasets: Any, **splits: Any) -> Description:
    """Class balance, statistics of every feature, missing values, and samples that occur twice, also across splits.

    Give one dataset, or several by name: `describe(train=..., test=...)`. Fields of whole numbers with at most 100 values
    and one axis, and of texts, count as classes; other numbers as features. Two samples are the same where all their
    bytes are. DataError for an empty dataset.

    >>> found = describe(train=(np.array([[1.0], [np.nan], [3.0]]), np.array([0, 1, 1])))
    >>> found.splits["train"].classes
    {'1': {0: 1, 1: 2}}
    >>> print(found)
    train: 3 samples
      1: 2 classes (0: 1, 1: 2)
      feature                     mean         std         min         max  missing
      0                              2           1           1           3        1
    ! train: 1 values are missing; preprocess.Impute fills them.
    """
    if len(datasets) > 1 or (datasets and splits) or not (datasets or splits):
        raise DataError("describe: give one dataset, or several by name, as in describe(train=train, test=test).")
    named = splits or {"data": datasets[0]}
    found, prints = {}, {}
    for name, dataset in named.items():
        found[name], prints[name] = _describe_split(name, as_dataset(dataset, "describe"))
    names = list(named)
    shared = {
        (one, other): sum(count for key, count in prints[other].items() if key in prints[one])
        for i, one in enumerate(names)
        for other in names[i + 1 :]
    }
    return Description(found, shared)


def _describe_split(name: str, dataset: Any) -> tuple[Split, dict[bytes, int]]:
    if not len(dataset):
        raise DataError(f"describe: {name} is empty; it needs at least one sample.")
    fields: dict[str, _Field] = {}
    prints: dict[bytes, int] = {}
    whole = gathers(dataset)
    for start in range(0, len(dataset), CHUNK):
        indices = np.arange(start, min(start + CHUNK, len(dataset)))
        batch = gathered(dataset, indices) if whole else collate(samples(dataset, indices))
        columns = _columns(batch)
        for key, column in columns.items():
            fields.setdefault(key, _Field()).add(column)
        for row in range(len(indices)):
            digest = hashlib.blake2b(digest_size=16)
            for column in columns.values():
                digest.update(column[row].tobytes() if column.dtype != object else repr(column[row]).encode())
            prints[digest.digest()] = prints.get(digest.digest(), 0) + 1
    split = Split(name, len(dataset))
    for key, found in fields.items():
        if found.classes is not None:
            split.classes[key] = dict(sorted(found.classes.items()))
        elif found.count is not None:
            split.features.extend(found.features(key, len(fields) > 1))
    split.duplicates = sum(count - 1 for count in prints.values())
    return split, prints


def _columns(batch: Any) -> dict[str, np.ndarray]:
    if isinstance(batch, Table):
        return batch.data
    if isinstance(batch, Mapping):
        return {str(key): np.asarray(value) for key, value in batch.items()}
    if isinstance(batch, tuple | list) and not all(isinstance(b, str) for b in batch):
        return {str(place): np.asarray(value) for place, value in enumerate(batch)}
    return {"value": np.asarray(batch)}


class _Field:
    """One field, chunk by chunk. Moments are merged as in `preprocess.Standardize`."""

    def __init__(self) -> None:
        self.classes: dict[Any, int] | None = {}
        self.count: np.ndarray | None = None

    def add(self, column: np.ndarray) -> None:
        if self.classes is not None:
            if column.ndim == 1 and column.dtype.kind in "biuUO":
                values, counts = np.unique(column, return_counts=True)
                for value, count in zip(values.tolist(), counts.tolist()):
                    self.classes[value] = self.classes.get(value, 0) + count
            else:
                self.classes = None
            most = MOST_CLASSES if column.dtype.kind in "biu" else MOST_TEXTS
            if self.classes is not None and len(self.classes) > most:
                self.classes = None
        if column.dtype.kind not in "biuf":
            return
        flat = column.reshape(len(column), -1).astype(np.float64)
        finite = np.isfinite(flat)
        count = finite.sum(axis=0).astype(np.float64)
        mean = np.where(finite, flat, 0).sum(axis=0) / np.maximum(count, 1)
        square = np.where(finite, (np.where(finite, flat, 0) - mean) ** 2, 0).sum(axis=0)
        missing, infinite = np.isnan(flat).sum(axis=0), np.isinf(flat).sum(axis=0)
        least = np.where(finite, flat, np.inf).min(axis=0)
        most = np.where(finite, flat, -np.inf).max(axis=0)
        if self.count is None:
            self.count, self.mean, self.square = count, mean, square
            self.missing, self.infinite, self.least, self.most = missing, infinite, least, most
            return
        total, step = np.maximum(self.count + count, 1), mean - self.mean
        self.square += square + step**2 * self.count * count / total
        self.mean += step * count / total
        self.count = self.count + count
        self.missing, self.infinite = self.missing + missing, self.infinite + infinite
        self.least, self.most = np.minimum(self.least, least), np.maximum(self.most, most)

    def features(self, key: str, several: bool) -> list[Feature]:
        assert self.count is not None
        nothing = self.count == 0
        std = np.sqrt(self.square / np.maximum(self.count, 1))
        return [
            Feature(
                key if len(self.count) == 1 else f"{key}.{i}" if several else str(i),
                int(self.count[i]),
                int(self.missing[i]),
                int(self.infinite[i]),
                *(float(np.nan if nothing[i] else values[i]) for values in (self.mean, std, self.least, self.most)),
            )
            for i in range(len(self.count))
        ]
