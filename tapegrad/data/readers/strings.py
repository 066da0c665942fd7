"""Texts as an array."""

from __future__ import annotations

import numpy as np

ROOM = 1 << 26  # bytes of padding that do not matter


def text_array(texts: list[str]) -> np.ndarray:
    """Texts as a NumPy array of fixed width; as objects where one long text would blow up all the others.

    >>> text_array(["a", "bcd"])
    array(['a', 'bcd'], dtype='<U3')
    """
    longest = max(map(len, texts), default=0)
    padded = 4 * longest * len(texts)
    if padded > ROOM and padded > 32 * sum(map(len, texts)):
        return np.array(texts, dtype=object)
    return np.array(texts, dtype=f"<U{max(longest, 1)}")
