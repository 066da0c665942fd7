"""The spaces that kernels walk, and how shapes fit into them.

A space is known by its cuts: those of (4, 3, 2) are 2, 6, 24. Shapes of one size go together if their cuts can be merged, each
dividing the next: then one is the other with some axes split, and every array can be walked so.
"""

from __future__ import annotations

from typing import NamedTuple

from ..layouts import Layout


class Shape(NamedTuple):
    """The space that a group walks: its cuts, and the number of elements of a row where something is done by rows."""

    cuts: tuple[int, ...]
    split: int = 0

    @property
    def size(self) -> int:
        return self.cuts[-1] if self.cuts else 1


def cuts(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The products of the last lengths of a shape, axes of length 1 left out.

    >>> cuts((4, 1, 3, 2))
    (2, 6, 24)
    """
    found, n = [], 1
    for length in reversed(shape):
        if length != 1:
            n *= length
            found.append(n)
    return tuple(found)


def merged(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    """The cuts of both, or None where they do not divide each other.

    >>> merged((2, 24), (6, 24)), merged((4, 24), (6, 24))
    ((2, 6, 24), None)
    """
    if a == b:
        return a
    found = sorted({*a, *b})
    if any(n % m for m, n in zip(found, found[1:])):
        return None
    return tuple(found)


def by_rows(c: tuple[int, ...], width: int) -> tuple[int, ...]:
    """The cuts of an array of rows of that width, from those of an array with one element a row.

    >>> by_rows((5, 10), 3)
    (3, 15, 30)
    """
    return (*((width,) if width > 1 else ()), *(n * width for n in c))


def spread_rows(x: Layout, domain: tuple[int, ...], width: int) -> bool:
    """True where x, broadcast to `domain`, shows each element `width` times in a row, and its elements in order otherwise.

    >>> from tapegrad.dtypes import float32
    >>> from tapegrad.layouts import layout
    >>> spread_rows(layout((5, 1, 1), float32), (5, 2, 3), 6), spread_rows(layout((5, 1, 1), float32), (5, 2, 3), 3)
    (True, False)
    """
    repeated, want, lead = 1, 1, len(domain) - x.ndim
    for a in range(len(domain) - 1, -1, -1):
        n = domain[a]
        if n == 1:
            continue
        s = 0 if a < lead or x.shape[a - lead] == 1 else x.strides[a - lead]
        if repeated < width:
            if s != 0:
                return False
            repeated *= n
        else:
            if s != want:
                return False
            want *= n
    return repeated == width


class Reduced(NamedTuple):
    """How a reduction goes through its input: "row", "columns" or "all", and the length of what it calls a row."""

    over: str
    width: int


def reduced(shape: tuple[int, ...], axes: tuple[int, ...]) -> Reduced | None:
    """What kind of reduction it is; None where the axes reduced are neither the first nor the last.

    >>> reduced((4, 1, 3, 2), (2, 3)), reduced((4, 1, 3, 2), (0,)), reduced((4, 3, 2), (1,))
    (Reduced(over='row', width=6), Reduced(over='columns', width=6), None)
    """
    kinds = [(n, a in axes) for a, n in enumerate(shape) if n != 1]
    if not kinds:
        return None
    changes = sum(1 for (_, p), (_, q) in zip(kinds, kinds[1:]) if p != q)
    if changes > 1:
        return None
    width, last = 1, kinds[-1][1]
    for n, is_reduced in reversed(kinds):
        if is_reduced == last:
            width *= n
    if not changes:
        return Reduced("all", width) if last else None
    return Reduced("row" if last else "columns", width)
