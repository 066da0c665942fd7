"""Transformations that move values and change none: axes, the order of features, windows of a series."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import DataError
from ..order import shuffled
from .transform import Transform, as_array


class Permute(Transform):
    """Another order of a sample's axes; `axes` counts them from 1, the samples being axis 0 (PyTorch's `permute`).

    >>> Permute(3, 1, 2).transform(np.zeros((10, 28, 32, 3))).shape
    (10, 3, 28, 32)
    """

    options = ("axes",)

    def __init__(self, *axes: int):
        self.axes = tuple(axes)
        if sorted(axes) != list(range(1, len(axes) + 1)):
            raise DataError(f"Permute: axes are {axes}; wanted is each of 1 to {max(len(axes), 1)} once.")

    def transform(self, x: Any) -> np.ndarray:
        return np.ascontiguousarray(self._checked(x).transpose(0, *self.axes))

    def inverse_transform(self, x: Any) -> np.ndarray:
        return np.ascontiguousarray(self._checked(x).transpose(0, *(np.argsort(self.axes) + 1)))

    def _checked(self, x: Any) -> np.ndarray:
        array = as_array(x, "Permute")
        if array.ndim != len(self.axes) + 1:
            raise DataError(
                f"Permute: shape {array.shape} has {array.ndim - 1} axes behind the samples, not {len(self.axes)}."
            )
        return array


class Shuffle(Transform):
    """Features in a random order, the same for every sample: it follows from `seed` alone ("permuted MNIST").

    All values of a sample count as its features, whatever its axes. (The order of samples is the loader's.)

    >>> Shuffle(seed=1).inverse_transform(Shuffle(seed=1).transform(np.arange(6).reshape(1, 6)))
    array([[0, 1, 2, 3, 4, 5]])
    """

    options = ("seed",)

    def __init__(self, seed: int = 0):
        self.seed = seed

    def transform(self, x: Any) -> np.ndarray:
        array = as_array(x, "Shuffle")
        flat = array.reshape(len(array), -1)
        return flat[:, shuffled(flat.shape[1], self.seed, 0)].reshape(array.shape)

    def inverse_transform(self, x: Any) -> np.ndarray:
        array = as_array(x, "Shuffle")
        flat = array.reshape(len(array), -1)
        return flat[:, np.argsort(shuffled(flat.shape[1], self.seed, 0))].reshape(array.shape)


class Window(Transform):
    """Windows of a series: (T, ...) becomes (M, length, ...), one beginning every `step` values; the rest is left out.

    >>> Window(3, step=2).transform(np.arange(6))
    array([[0, 1, 2],
           [2, 3, 4]])
    """

    options = ("length", "step")

    def __init__(self, length: int, step: int = 1):
        self.length, self.step = length, step
        if length < 1 or step < 1:
            raise DataError(f"Window: length is {length} and step is {step}; both are from 1.")

    def transform(self, x: Any) -> np.ndarray:
        array = as_array(x, "Window")
        if len(array) < self.length:
            raise DataError(f"Window: the series has {len(array)} values, and a window {self.length}.")
        seen = np.lib.stride_tricks.sliding_window_view(array, self.length, axis=0)[:: self.step]
        return np.ascontiguousarray(np.moveaxis(seen, -1, 1))
