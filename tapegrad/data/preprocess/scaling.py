"""Scaling of numbers: to a range, or to mean 0 and variance 1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from ...errors import DataError
from .transform import Transform, as_numbers, floating

CHUNK = 1 << 20  # values that are turned into float64 at once


class _Scaling(Transform):
    """What both have in common: axes, chunks, missing values."""

    axis: Any
    missing: str

    def _check_options(self) -> None:
        who = type(self).__name__
        axes = (0,) if self.axis is None else (self.axis,) if isinstance(self.axis, int) else tuple(self.axis)
        if 0 not in axes:
            raise DataError(f"{who}: axis is {self.axis!r}; it must hold 0, the samples, or be None for all axes.")
        if self.missing not in ("error", "ignore"):
            raise DataError(f"{who}: missing is {self.missing!r}; wanted is 'error' or 'ignore'.")

    def _axes(self, ndim: int) -> tuple[int, ...]:
        if self.axis is None:
            return tuple(range(ndim))
        return (self.axis,) if isinstance(self.axis, int) else tuple(self.axis)

    def _chunks(self, x: Any) -> Iterator[np.ndarray]:
        """Parts of the samples as float64; DataError for values that are not finite."""
        who = type(self).__name__
        array = as_numbers(x, who)
        if not array.size:
            raise DataError(f"{who}: no sample came to be fitted on.")
        rows = max(1, CHUNK // max(1, array[0].size))
        for start in range(0, len(array), rows):
            chunk = array[start : start + rows].astype(np.float64)
            finite = np.isfinite(chunk)
            if not finite.all():
                if self.missing == "error" or np.isinf(chunk).any():
                    raise _not_finite(who, chunk, finite, start)
            yield chunk

    def _check_shape(self, array: np.ndarray, learned: np.ndarray) -> None:
        shape = learned.shape
        if array.ndim != len(shape) or any(m not in (1, n) for n, m in zip(array.shape[1:], shape[1:])):
            raise DataError(
                f"{type(self).__name__}: samples of shape {array.shape[1:]} came, and it was fitted on ones that "
                f"fit {shape[1:]}."
            )


def _not_finite(who: str, chunk: np.ndarray, finite: np.ndarray, start: int) -> DataError:
    where = np.argwhere(~finite)[0]
    feature = f", feature {', '.join(map(str, where[1:]))}" if len(where) > 1 else ""
    what = "NaN" if np.isnan(chunk[tuple(where)]) else "infinite"
    return DataError(
        f"{who}: {np.count_nonzero(~finite):,} values are not finite; the first, {what}, is sample {start + where[0]}{feature}. "
        "Fill gaps with Impute first, or give missing='ignore' to leave NaN as it is."
    )


class Standardize(_Scaling):
    """To mean 0 and variance 1: (x - mean) / standard deviation (scikit-learn's `StandardScaler`).

    Args:
        axis: axes that share a mean; 0 is one for each feature, (0, 2, 3) one for each channel of images, None one of all.
        missing: "error" refuses NaN in `fit`; "ignore" fits on the rest, and NaN stays NaN.

    float64 stays float64, all else becomes float32. A feature that is the same everywhere becomes 0. `partial_fit` takes
    training data part by part. DataError for infinite values, and for samples of another shape than those fitted on.

    The variance is that of the whole set (divided by N), merged from parts in float64 after Chan, Golub, LeVeque
    (Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979).

    >>> Standardize().fit_transform(np.array([[1.0, 10.0], [3.0, 30.0]]))
    array([[-1., -1.],
           [ 1.,  1.]])
    """

    options = ("axis", "missing")
    learned = ("count", "mean", "square")

    def __init__(self, axis: int | tuple[int, ...] | None = 0, missing: str = "error"):
        self.axis, self.missing = axis, missing
        self.count: Any = None
        self.mean: Any = None
        self.square: Any = None  # the sum of squared differences from the mean
        self._check_options()

    def fit(self, x: Any) -> Self:
        self.count = self.mean = self.square = None
        return self.partial_fit(x)

    def partial_fit(self, x: Any) -> Self:
        """Learn from one part of the training data, in addition to those before."""
        for chunk in self._chunks(x):
            axes = self._axes(chunk.ndim)
            if self.mean is not None:
                self._check_shape(chunk, self.mean)
            there = ~np.isnan(chunk)
            count = there.sum(axis=axes, keepdims=True).astype(np.float64)
            safe = np.maximum(count, 1)
            mean = np.where(there, chunk, 0).sum(axis=axes, keepdims=True) / safe
            square = np.where(there, (chunk - mean) ** 2, 0).sum(axis=axes, keepdims=True)
            if self.mean is None:
                self.count, self.mean, self.square = count, mean, square
            else:
                total = np.maximum(self.count + count, 1)
                step = mean - self.mean
                self.square = self.square + square + step**2 * self.count * count / total
                self.mean = self.mean + step * count / total
                self.count = self.count + count
        return self

    @property
    def std(self) -> np.ndarray:
        """Standard deviations, 1 where a feature does not vary."""
        self.check_fitted()
        std = np.sqrt(self.square / np.maximum(self.count, 1))
        # what rounding leaves of a constant is no spread
        found: np.ndarray = np.where(std > 1e-12 * np.abs(self.mean), std, 1.0)
        return found

    def transform(self, x: Any) -> np.ndarray:
        array = as_numbers(x, "Standardize")
        std = self.std
        self._check_shape(array, self.mean)
        dtype = floating(array)
        out: np.ndarray = np.subtract(array, self.mean.astype(dtype), dtype=dtype)
        out /= std.astype(dtype)
        return out

    def inverse_transform(self, x: Any) -> np.ndarray:
        array = as_numbers(x, "Standardize")
        std = self.std
        self._check_shape(array, self.mean)
        dtype = floating(array)
        out: np.ndarray = np.multiply(array, std.astype(dtype), dtype=dtype)
        out += self.mean.astype(dtype)
        return out


class Normalize(_Scaling):
    """To a range: the smallest training value becomes `low`, the largest `high` (scikit-learn's `MinMaxScaler`).

    `clip`: what lies outside later is cut to the range. A feature that is the same everywhere becomes `low`. Else as
    `Standardize`.

    >>> Normalize(-1, 1).fit_transform(np.array([0, 128, 255], np.uint8))
    array([-1.        ,  0.00392163,  1.        ], dtype=float32)
    """

    options = ("low", "high", "axis", "clip", "missing")
    learned = ("least", "most")

    def __init__(
        self,
        low: float = 0.0,
        high: float = 1.0,
        axis: int | tuple[int, ...] | None = 0,
        clip: bool = False,
        missing: str = "error",
    ):
        self.low, self.high, self.axis, self.clip, self.missing = low, high, axis, clip, missing
        self.least: Any = None
        self.most: Any = None
        self._check_options()
        if not low < high:
            raise DataError(f"Normalize: low is {low} and high is {high}; low must be below high.")

    def fit(self, x: Any) -> Self:
        self.least = self.most = None
        return self.partial_fit(x)

    def partial_fit(self, x: Any) -> Self:
        """Learn from one part of the training data, in addition to those before."""
        for chunk in self._chunks(x):
            axes = self._axes(chunk.ndim)
            least = np.fmin.reduce(chunk, axis=axes, keepdims=True)
            most = np.fmax.reduce(chunk, axis=axes, keepdims=True)
            if self.least is None:
                self.least, self.most = least, most
            else:
                self._check_shape(chunk, self.least)
                self.least, self.most = np.fmin(self.least, least), np.fmax(self.most, most)
        return self

    def _scale(self) -> np.ndarray:
        self.check_fitted()
        width = self.most - self.least
        scale: np.ndarray = (self.high - self.low) / np.where(width > 0, width, 1.0)
        return scale

    def transform(self, x: Any) -> np.ndarray:
        array = as_numbers(x, "Normalize")
        scale = self._scale()
        self._check_shape(array, self.least)
        dtype = floating(array)
        out: np.ndarray = np.subtract(array, self.least.astype(dtype), dtype=dtype)
        out *= scale.astype(dtype)
        out += dtype.type(self.low)
        return np.clip(out, self.low, self.high, out=out) if self.clip else out

    def inverse_transform(self, x: Any) -> np.ndarray:
        array = as_numbers(x, "Normalize")
        scale = self._scale()
        self._check_shape(array, self.least)
        dtype = floating(array)
        out: np.ndarray = np.subtract(array, dtype.type(self.low), dtype=dtype)
        out /= scale.astype(dtype)
        out += self.least.astype(dtype)
        return out
