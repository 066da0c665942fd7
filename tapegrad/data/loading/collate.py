"""A batch of a list of samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import DataError


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
