"""The two loops of every reduction: over the last axis (rows) and over an axis before it (columns).

Both are bound to a monoid when they are compiled: `start`, `load(x, s)`, `combine(a, b)` and `finish(a, s)`, where `s`
is what the output held before: a shift, for reductions of two passes. The others ignore it, and it is never read.
Sums are blocked in three levels, so that the rounding error grows with about n**(1/3) and not with n.

The axes in front of the loop come as up to four kept ones (sizes k2.. and strides s1..; the first needs no size) and up
to four reduced ones (sizes r1.. and strides t1..).
"""

from __future__ import annotations

from .language import A, TypeVar, inline, offset
from .skeleton import skeleton

R = TypeVar("R")  # the dtype of the result
start, load, combine, finish = map(TypeVar, ("start", "load", "combine", "finish"))

BLOCK = 1024  # elements summed by one vector loop
GROUP = 128 * BLOCK
ROWS = 256  # rows added up before they join the column totals


@inline
def reduce_row(x, n, s):
    """Reduce n elements, in groups of blocks; the innermost loop vectorises."""
    total = A(start)
    for g in range(0, n, GROUP):
        group = A(start)
        for b in range(g, min(g + GROUP, n), BLOCK):
            block = A(start)
            for i in range(b, min(b + BLOCK, n)):
                block = combine(block, load(x[i], s))
            group = combine(group, block)
        total = combine(total, group)
    return total


@inline
def place(o, k2, k3, k4, s1, s2, s3, s4):
    """Where item o of the kept axes starts."""
    if k2 * k3 * k4 == 1:
        return o * s1
    at = (o % k4) * s4
    o //= k4
    at += (o % k3) * s3
    o //= k3
    return at + (o % k2) * s2 + (o // k2) * s1


@skeleton("x: *T, y: *R, n: int")
def plain_rows(x, y, n, begin, end):
    """y[o] = reduction of the row x[o, :n]."""
    for o in range(begin, end):
        s = y[o]
        y[o] = finish(reduce_row(offset(x, o * n), n, s), s)
    return 0


@skeleton(
    "x: *T, y: *R, n: int, k2: int, k3: int, k4: int, s1: int, s2: int, s3: int, s4: int,"
    "r1: int, r2: int, r3: int, r4: int, t1: int, t2: int, t3: int, t4: int"
)
def rows(x, y, n, k2, k3, k4, s1, s2, s3, s4, r1, r2, r3, r4, t1, t2, t3, t4, begin, end):
    """y[o] = reduction of rows of n elements over the outer reduced axes."""
    for o in range(begin, end):
        here = offset(x, place(o, k2, k3, k4, s1, s2, s3, s4))
        s = y[o]
        a = A(start)
        for i1 in range(r1):
            for i2 in range(r2):
                for i3 in range(r3):
                    for i4 in range(r4):
                        row = offset(here, i1 * t1 + i2 * t2 + i3 * t3 + i4 * t4)
                        a = combine(a, reduce_row(row, n, s))
        y[o] = finish(a, s)
    return 0


@inline
def join_rows(x, s, part, total, count, stride, width, fold):
    """Join `count` rows to `total`, four in each pass over it; `fold` rows that lie side by side are one wide row."""
    wide = width * fold
    for j in range(wide):
        part[j] = A(start)
    folded = count // fold
    quads = folded - folded % 4
    step = stride * fold
    for i in range(0, quads, 4):
        x0 = offset(x, i * step)
        x1 = offset(x0, step)
        x2 = offset(x1, step)
        x3 = offset(x2, step)
        for j in range(wide):
            a = combine(load(x0[j], s[j]), load(x1[j], s[j]))
            b = combine(load(x2[j], s[j]), load(x3[j], s[j]))
            part[j] = combine(part[j], combine(a, b))
    for i in range(quads, folded + 1):
        x0 = offset(x, i * step)
        for j in range(wide if i < folded else (count - folded * fold) * width):  # at last the rows left over
            part[j] = combine(part[j], load(x0[j], s[j]))
    for j in range(width):
        a = part[j]
        for f in range(1, fold):
            a = combine(a, part[f * width + j])
        total[j] = combine(total[j], a)


@skeleton(
    "x: *T, y: *R, scratch: *A, inner: int, strip: int, strips: int, fold: int,"
    "k2: int, k3: int, k4: int, s1: int, s2: int, s3: int, s4: int,"
    "r1: int, r2: int, r3: int, r4: int, t1: int, t2: int, t3: int, t4: int"
)
def columns(
    x, y, scratch, inner, strip, strips, fold,
    k2, k3, k4, s1, s2, s3, s4, r1, r2, r3, r4, t1, t2, t3, t4, begin, end,
):  # fmt: skip
    """y[o, j] = reduction over the reduced axes of x[o, ..., j]; an item is a strip of columns j."""
    for item in range(begin, end):
        o = item // strips
        first = (item - o * strips) * strip
        width = min(strip, inner - first)
        here = offset(x, place(o, k2, k3, k4, s1, s2, s3, s4) + first)
        out = offset(y, o * inner + first)
        part = offset(scratch, strip)
        for j in range(width):
            scratch[j] = A(start)
        for i1 in range(r1):
            for i2 in range(r2):
                for i3 in range(r3):
                    slab = offset(here, i1 * t1 + i2 * t2 + i3 * t3)
                    for i4 in range(0, r4, ROWS * fold):
                        count = min(ROWS * fold, r4 - i4)
                        join_rows(offset(slab, i4 * t4), out, part, scratch, count, t4, width, fold)
        for j in range(width):
            out[j] = finish(scratch[j], out[j])
    return 0
