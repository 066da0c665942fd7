"""Gaps in data, filled."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ...errors import DataError
from .transform import Transform, as_array

STRATEGIES = ("mean", "median", "most_frequent", "constant")


class Impute(Transform):
    """Fills missing values, feature by feature: NaN among numbers, "" among texts (scikit-learn's `SimpleImputer`).

    strategy: "mean", "median" or "most_frequent" (the smallest of several) of the training data, or "constant", which is
    `value`. Whole numbers have no missing values and pass. DataError where a feature has no value at all in training.

    >>> Impute("mean").fit([[1.0], [3.0]]).transform([[np.nan], [5.0]])
    array([[2.],
           [5.]])
    """

    options = ("strategy", "value")
    learned = ("fill",)

    def __init__(self, strategy: str = "mean", value: Any = None):
        self.strategy, self.value = strategy, value
        self.fill: Any = None  # an array of the shape of a sample, or a list of texts
        if strategy not in STRATEGIES:
            raise DataError(f"Impute: strategy is {strategy!r}; wanted is one of {', '.join(STRATEGIES)}.")
        if (strategy == "constant") != (value is not None):
            raise DataError("Impute: a value goes with strategy='constant', and with no other.")

    def fit(self, x: Any) -> Self:
        array = as_array(x, "Impute")
        if not len(array):
            raise DataError("Impute: no sample came to be fitted on.")
        flat = array.reshape(len(array), -1)
        gone = _gone(flat)
        if self.strategy == "constant":
            fill = [self.value] * flat.shape[1]
        else:
            if array.dtype.kind in "UO" and self.strategy != "most_frequent":
                raise DataError(f"Impute: texts have no {self.strategy}; give strategy='most_frequent' or 'constant'.")
            fill = [self._of(flat[:, i][~gone[:, i]], i) for i in range(flat.shape[1])]
        self.fill = fill if array.dtype.kind in "UO" else np.array(fill, np.float64).reshape(array.shape[1:])
        return self

    def _of(self, values: np.ndarray, feature: int) -> Any:
        if not values.size:
            raise DataError(
                f"Impute: feature {feature} has no value in the training data; leave it out, or fill it yourself."
            )
        if self.strategy == "most_frequent":
            found, counts = np.unique(values, return_counts=True)
            return found[counts.argmax()].item() if hasattr(found[0], "item") else found[counts.argmax()]
        return float(np.mean(values, dtype=np.float64) if self.strategy == "mean" else np.median(values))

    def transform(self, x: Any) -> np.ndarray:
        self.check_fitted()
        array = as_array(x, "Impute")
        text = array.dtype.kind in "UO"
        if text != isinstance(self.fill, list):
            raise DataError(f"Impute: {array.dtype} came, and it was fitted on {'numbers' if text else 'texts'}.")
        fill = np.array(self.fill).reshape(array.shape[1:]) if text else self.fill
        if fill.shape != array.shape[1:]:
            raise DataError(
                f"Impute: samples of shape {array.shape[1:]} came, and it was fitted on ones of {fill.shape}."
            )
        gone = _gone(array)
        if not gone.any():
            return array.copy()
        filled: np.ndarray = np.where(gone, fill, array)
        return filled if text else filled.astype(array.dtype, copy=False)


def _gone(array: np.ndarray) -> np.ndarray:
    """Which values are missing."""
    if array.dtype.kind in "UO":
        return np.asarray(array == "")
    return np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool)
