"""What random ops draw, as NumPy functions, by Philox 4x32-10 (Salmon et al. 2011); see `reference_ops.py`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .reference_ops import reference


def philox(state: np.ndarray, count: int) -> np.ndarray:
    """Four uint64 columns of 32-bit words, one row for each of `count` blocks."""
    mask, low = np.uint64(0xFFFFFFFF), np.uint64(32)
    seed, offset = (np.uint64(int(v) % 2**64) for v in state)
    block = np.arange(count, dtype=np.uint64)
    c = [block & mask, block >> low, np.full(count, offset & mask), np.full(count, offset >> low)]
    k0, k1 = seed & mask, seed >> low
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(p1 >> low) ^ c[1] ^ k0, p1 & mask, (p0 >> low) ^ c[3] ^ k1, p0 & mask]
        k0, k1 = np.uint64((int(k0) + 0x9E3779B9) % 2**32), np.uint64((int(k1) + 0xBB67AE85) % 2**32)
    return np.stack(c, 1)


def _drawn(state, shape, each: int, fn: Callable) -> np.ndarray:
    """fn(w0, w1, w2, w3) gives `each` elements of every block."""
    count = math.prod(shape)
    words = philox(state, -(-count // each)).astype(np.float64)
    return np.stack(fn(*words.T), -1).ravel()[:count].reshape(shape)


def _integers(state, count: int, spans) -> list[int]:
    """For each element i, the upper 64 bits of a 64-bit draw times spans[i]: an integer from 0 to spans[i] - 1."""
    words = philox(state, count).tolist()
    return [((w[1] << 32) + w[0]) * span >> 64 for w, span in zip(words, spans, strict=True)]


@reference
def uniform(state, outs, shape, dtype):
    if dtype.itemsize == 4:
        return _drawn(state, shape, 4, lambda *w: [np.floor(x / 2**8) * 2.0**-24 for x in w])
    return _drawn(
        state,
        shape,
        2,
        lambda *w: [np.floor(w[i] / 2**5) * 2.0**-27 + np.floor(w[i + 1] / 2**6) * 2.0**-53 for i in (0, 2)],
    )


@reference
def normal(state, outs, shape, dtype):
    def polar(u, angle):  # Box & Muller 1958
        radius = np.sqrt(-2.0 * np.log(u))
        return [radius * np.cos(angle), radius * np.sin(angle)]

    turn = 2.0 * np.pi
    if dtype.itemsize == 4:
        return _drawn(
            state,
            shape,
            4,
            lambda a, b, c, d: (
                polar((a + 0.5) * 2.0**-32, turn * b * 2.0**-32) + polar((c + 0.5) * 2.0**-32, turn * d * 2.0**-32)
            ),
        )
    return _drawn(
        state,
        shape,
        2,
        lambda a, b, c, d: polar(
            a * 2.0**-32 + (np.floor(b / 2**11) + 0.5) * 2.0**-53,
            turn * (c * 2.0**-32 + np.floor(d / 2**11) * 2.0**-53),
        ),
    )


@reference
def bernoulli(state, p, outs, shape, dtype):
    return _drawn(state, shape, 4, lambda *w: [x < np.floor(p * 2.0**32 + 0.5) for x in w])


@reference
def randint(state, low, high, outs, shape, dtype):
    count, span = math.prod(shape), int(high) - int(low)
    words = philox(state, -(-count // 2)).reshape(-1, 2).tolist()[:count]
    return np.array([int(low) + (((b << 32) + a) * span >> 64) for a, b in words], np.int64).reshape(shape)


@reference
def permutation(state, outs, shape, dtype):
    y: list[int] = []
    for i, j in enumerate(_integers(state, shape[0], range(1, shape[0] + 1))):
        y.append(i)
        y[i], y[j] = y[j], i
    return np.array(y, np.int64)
