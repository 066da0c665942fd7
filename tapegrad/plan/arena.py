"""Places in one block for values that live at different times."""

from __future__ import annotations

from bisect import insort

from .program import Record
from .segment import Value

LINE = 64


def span_of(nbytes: int) -> int:
    """Bytes that a value takes in the arena: whole cache lines, at least one.

    >>> span_of(1), span_of(65)
    (64, 128)
    """
    return max(-(-nbytes // LINE), 1) * LINE


def lifetimes(values: list[Value], records: list[Record]) -> dict[int, tuple[int, int]]:
    """For each value of the arena that a record uses, the first and the last record that does."""
    used: dict[int, tuple[int, int]] = {}
    for at, record in enumerate(records):
        for v in record.values:
            base = values[v].base
            r = v if base is None else base
            used[r] = (used[r][0] if r in used else at, at)
    return {r: lives for r, lives in used.items() if not values[r].fixed}


def lay_out(
    values: list[Value], records: list[Record], overlays: dict[int, list[tuple[int, int]]]
) -> tuple[dict[int, int], int]:
    """The offset of every value that has to have a place, and the bytes of all.

    `overlays` names, by the place of a record, inputs and outputs that may be the same memory: an output takes over the
    memory of an input that nothing else reads.
    """
    lives = lifetimes(values, records)
    owner: dict[int, int] = {}  # value -> the value whose memory it takes over
    for at, pairs in overlays.items():
        taken: set[int] = set()
        for i, o in pairs:
            if (
                i in lives
                and o in lives
                and o not in owner
                and i not in taken
                and lives[o][0] == at == lives[i][1]
                and values[i].layout.nbytes == values[o].layout.nbytes
                and not any(values[v].base == i or values[v].base == o for v in records[at].values)
            ):
                owner[o] = i
                taken.add(i)
    blocks: dict[int, tuple[int, int, int]] = {}
    first: dict[int, int] = {}
    for v in sorted(lives, key=lambda v: lives[v]):
        root = first[v] = first[owner[v]] if v in owner else v
        start, end = lives[v]
        if root in blocks:
            nbytes, begun, ends = blocks[root]
            blocks[root] = (nbytes, begun, max(ends, end))
        else:
            blocks[root] = (values[v].layout.nbytes, start, end)
    found, total = offsets(blocks)
    return {v: found[root] for v, root in first.items()}, total


def offsets(lives: dict[int, tuple[int, int, int]]) -> tuple[dict[int, int], int]:
    """Where each value lies, and the bytes of all: from value -> (bytes, first use, last use).

    The largest are placed first, each as low as those whose lives overlap with it leave room (greedy by size; Pisarchyk and
    Lee 2020, "Efficient memory management for deep neural net inference").

    >>> offsets({0: (64, 0, 1), 1: (64, 1, 2), 2: (64, 2, 3)})
    ({0: 0, 1: 64, 2: 0}, 128)
    """
    placed: list[tuple[int, int, int, int]] = []  # (offset, end, first, last), by offset
    found: dict[int, int] = {}
    total = 0
    for number in sorted(lives, key=lambda n: (-lives[n][0], lives[n][1])):
        nbytes, first, last = lives[number]
        size, at = span_of(nbytes), 0
        for offset, end, a, b in placed:
            if a > last or b < first:
                continue
            if at + size <= offset:
                break
            at = max(at, end)
        found[number] = at
        insort(placed, (at, at + size, first, last))
        total = max(total, at + size)
    return dict(sorted(found.items())), total
