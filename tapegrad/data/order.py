"""Random orders and numbers that stay the same with every version of NumPy.

NumPy promises the stream of raw Philox words (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011), not
what `Generator` makes of it; saved runs depend on these orders.
"""

from __future__ import annotations

import numpy as np


def words(count: int, *key: int) -> np.ndarray:
    """`count` random uint64 that follow from `key`, ints from 0, alone."""
    return np.random.Philox(np.random.SeedSequence(list(key))).random_raw(count)


def shuffled(count: int, seed: int, *key: int) -> np.ndarray:
    """The numbers 0 to `count - 1`, int64, in an order that depends on `seed` and `key` (an epoch, say) only.

    >>> sorted(shuffled(5, 7, 0).tolist())
    [0, 1, 2, 3, 4]
    """
    return np.argsort(words(count, seed, *key), kind="stable")


def uniform(count: int, *key: int) -> np.ndarray:
    """float64 from 0 to below 1 that follow from `key` alone.

    >>> bool((uniform(3, 1) == uniform(3, 1)).all())
    True
    """
    found: np.ndarray = (words(count, *key) >> np.uint64(11)) * 2.0**-53
    return found


def normal(count: int, *key: int) -> np.ndarray:
    """float64 standard normal numbers that follow from `key` alone (Box and Muller, 1958).

    >>> abs(float(normal(10_000, 1).mean())) < 0.05
    True
    """
    pairs = uniform(2 * ((count + 1) // 2), *key).reshape(2, -1)
    radius, angle = np.sqrt(-2 * np.log1p(-pairs[0])), 2 * np.pi * pairs[1]
    found: np.ndarray = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
    return found


def generator(*key: int) -> np.random.Generator:
    """A generator that starts from `key`; what it gives may change with NumPy's version."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(list(key))))
