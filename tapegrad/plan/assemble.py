"""Sums of arrays that are each zero but for a part: the gradient of an array that was read slice by slice.

Eagerly each slice's gradient is embedded in zeros and the results are added, which for T slices takes T passes over the whole.
Where the parts do not overlap, each is written to its place instead.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from ..layouts import layout
from ..ops.elementwise import add
from ..ops.registry import IDENTITY
from .segment import Row, Value


def assemble(values: list[Value], rows: list[Row], numbers: list[int]) -> tuple[list[Row], list[int]]:
    """The rows with such sums replaced, and the numbers of those that are left. `values` grows by the places of the parts."""
    reads = Counter(v if values[v].base is None else values[v].base for n in numbers for v in rows[n].ins)
    parts: dict[int, list[int]] = {}  # value -> the rows that embed its parts
    sums: dict[int, list[int]] = {}  # value -> the rows that add them
    inner: set[int] = set()
    for n in numbers:
        row = rows[n]
        if row.op.name == "embed":
            parts[row.outs[0]], sums[row.outs[0]] = [n], []
        elif row.op is add and not row.assigns:
            a, b = row.ins
            if a != b and all(v in parts and reads[v] == 1 and not values[v].fixed for v in (a, b)):
                parts[row.outs[0]] = parts[a] + parts[b]
                sums[row.outs[0]] = [*sums[a], *sums[b], n]
                inner |= {a, b}
    rows, gone = list(rows), set()
    for v, embeds in parts.items():
        if v in inner or len(embeds) < 2 or not apart(values, rows, embeds):
            continue
        first = min(embeds)
        rows[first] = Row(rows[first].op, rows[first].ins, (v,), rows[first].attrs)  # writes the zeros too
        for n in embeds:
            if n != first:
                rows[n] = Row(IDENTITY, rows[n].ins, (place(values, v, rows[n]),), {}, assigns=True)
        gone.update(sums[v])
    return rows, [n for n in numbers if n not in gone]


def apart(values: list[Value], rows: list[Row], embeds: list[int]) -> bool:
    """True where along some axis no two parts overlap."""
    for axis in range(len(rows[embeds[0]].attrs["shape"])):
        spans = []
        for n in embeds:
            attrs, length = rows[n].attrs, values[rows[n].ins[0]].layout.shape[axis]
            start, end = attrs["starts"][axis], attrs["starts"][axis] + (length - 1) * attrs["steps"][axis]
            spans.append((min(start, end), max(start, end)))
        if all(a[1] < b[0] for a, b in pairwise(sorted(spans))):
            return True
    return False


def place(values: list[Value], whole: int, row: Row) -> int:
    """A view of the whole where the row embeds its input."""
    x, y = values[row.ins[0]].layout, values[whole].layout
    strides = tuple([s * t for s, t in zip(y.strides, row.attrs["steps"], strict=True)])
    offset = sum(a * s for a, s in zip(row.attrs["starts"], y.strides, strict=True))
    values.append(Value(layout(x.shape, y.dtype, strides, y.device), False, whole, offset))
    return len(values) - 1
