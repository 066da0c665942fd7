"""Augmentations: random changes of images (N, C, H, W) that leave their meaning, made anew in each epoch.

Given to a loader as its `transform`, they draw from (seed of the loader, epoch, batch), so that a resumed run sees the
same images. By themselves they draw from their own seed and count their calls, which is part of their state.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...errors import DataError
from ..order import generator
from .transform import Transform, as_numbers


class Augmentation(Transform):
    """A random transformation: a subclass gives `change`."""

    random = True
    learned = ("calls",)

    def __init__(self, seed: int = 0):
        self.seed, self.calls = seed, 0

    def transform(self, x: Any, rng: np.random.Generator | None = None) -> np.ndarray:
        """Changed copies of images (N, C, H, W); `rng` is drawn from where it is given."""
        images = as_numbers(x, type(self).__name__)
        if images.ndim != 4:
            raise DataError(f"{type(self).__name__}: shape {images.shape} came; wanted are images (N, C, H, W).")
        if rng is None:
            rng, self.calls = generator(self.seed, self.calls), self.calls + 1
        return self.change(images, rng)

    def change(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Changed copies."""
        raise NotImplementedError


class RandomFlip(Augmentation):
    """Mirrors some images, left to right, or also top to bottom; each with `probability`.

    >>> RandomFlip(probability=1.0).transform(np.arange(3.0).reshape(1, 1, 1, 3))
    array([[[[2., 1., 0.]]]])
    """

    options = ("horizontal", "vertical", "probability", "seed")

    def __init__(self, horizontal: bool = True, vertical: bool = False, probability: float = 0.5, seed: int = 0):
        super().__init__(seed)
        self.horizontal, self.vertical, self.probability = horizontal, vertical, probability

    def change(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        out = images.copy()
        for wanted, axis in ((self.horizontal, -1), (self.vertical, -2)):
            if wanted:
                chosen = rng.random(len(images)) < self.probability
                out[chosen] = np.flip(out[chosen], axis)
        return out


class RandomCrop(Augmentation):
    """Cuts a random part of (height, width) `size` out of each image, `padding` zeros being added on every side first.

    Without a size, images keep theirs: they are shifted by up to `padding`.

    >>> RandomCrop(size=(2, 2)).transform(np.ones((5, 3, 4, 4), np.float32)).shape
    (5, 3, 2, 2)
    """

    options = ("padding", "size", "seed")

    def __init__(self, padding: int = 0, size: tuple[int, int] | None = None, seed: int = 0):
        super().__init__(seed)
        self.padding, self.size = padding, size
        if padding < 0 or (size is None and not padding):
            raise DataError("RandomCrop: give a padding from 1, a size, or both.")

    def change(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        side = self.padding
        height, width = self.size if self.size is not None else images.shape[2:]
        padded = np.pad(images, ((0, 0), (0, 0), (side, side), (side, side)))
        rooms = padded.shape[2] - height, padded.shape[3] - width
        if min(rooms) < 0:
            raise DataError(f"RandomCrop: images of {images.shape[2:]} and padding {side} have no part of {self.size}.")
        top, left = (rng.integers(0, room + 1, len(images)) for room in rooms)
        rows = (top[:, None] + np.arange(height))[:, None, :, None]
        columns = (left[:, None] + np.arange(width))[:, None, None, :]
        sample, channel = np.arange(len(images))[:, None, None, None], np.arange(images.shape[1])[None, :, None, None]
        cut: np.ndarray = padded[sample, channel, rows, columns]
        return cut


class RandomRotate(Augmentation):
    """Turns each image about its middle by an angle from -`degrees` to `degrees`; zeros come in at the corners.

    Pixels are interpolated linearly between four neighbours.

    >>> RandomRotate(15).transform(np.ones((2, 1, 8, 8), np.float32)).shape
    (2, 1, 8, 8)
    """

    options = ("degrees", "seed")

    def __init__(self, degrees: float = 15.0, seed: int = 0):
        super().__init__(seed)
        self.degrees = degrees

    def change(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        angle = rng.uniform(-self.degrees, self.degrees, len(images)) * (math.pi / 180)
        return rotated(images, angle)


def rotated(images: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Images (N, C, H, W) turned by `angle` (N,), in radians, counter-clockwise as they are seen."""
    height, width = images.shape[2:]
    y, x = np.mgrid[:height, :width].astype(np.float64)
    y -= (height - 1) / 2
    x -= (width - 1) / 2
    cos, sin = (f(angle)[:, None, None] for f in (np.cos, np.sin))
    from_x = cos * x - sin * y + (width - 1) / 2  # (N, H, W): where each pixel comes from
    from_y = sin * x + cos * y + (height - 1) / 2
    left, top = np.floor(from_x).astype(np.int64), np.floor(from_y).astype(np.int64)
    sample = np.arange(len(images))[:, None, None]
    out = np.zeros((len(images), height, width, images.shape[1]))
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        at_y, at_x = top + row, left + column
        share = (1 - np.abs(from_y - at_y)) * (1 - np.abs(from_x - at_x))
        share[(at_y < 0) | (at_y >= height) | (at_x < 0) | (at_x >= width)] = 0
        near = images[sample, :, at_y.clip(0, height - 1), at_x.clip(0, width - 1)]  # (N, H, W, C)
        out += share[..., None] * near
    moved = np.moveaxis(out, -1, 1)
    if images.dtype.kind in "iu":
        moved = np.rint(moved)
    return np.ascontiguousarray(moved, dtype=images.dtype)


class GaussianNoise(Augmentation):
    """Adds normal noise of standard deviation `std` to every value of floating images.

    >>> GaussianNoise(0.1).transform(np.zeros((2, 1, 8, 8), np.float32)).dtype
    dtype('float32')
    """

    options = ("std", "seed")

    def __init__(self, std: float = 0.1, seed: int = 0):
        super().__init__(seed)
        self.std = std

    def change(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if images.dtype.kind != "f":
            raise DataError(f"GaussianNoise: {images.dtype} came; wanted are floating images. Normalize first.")
        noise = rng.standard_normal(images.shape, np.float64 if images.dtype == np.float64 else np.float32)
        noise *= images.dtype.type(self.std)
        noise += images
        noisy: np.ndarray = noise.astype(images.dtype, copy=False)
        return noisy
