"""Elements by index, and their adjoints: take, index_add, take_along_axis, scatter_add, nonzero_flat.

An index from -size to -1 counts from the end; one outside the axis sets the status INDEX, and nothing is read or written
there. The adding kernels use no atomic additions: each output element is added up by one thread in the order of the indices,
so that the sum is the same in every run, and the same as on the CPU. With few indices a thread has a column of the output;
with many, the indices are sorted, and a thread adds up those that are equal.
"""

from __future__ import annotations

from math import prod
from typing import Any

from ...dtypes import DType, bool_, int64
from ...layouts import Layout
from ..reduce import bits_like
from ..status import INDEX
from .elementwise import work
from .movement import flat, zeros
from .names import T, combine, cuda, int32
from .search import cumulate
from .sort import sort_lines
from .template import MACHINE, STATUS, Steps, Work, cuda_kernel, inline, spread, storage, template

SORTED_FROM = 256  # indices along a line from which on they are sorted
PER_LINE: bool = False  # bound: every line has indices of its own


@inline
def wrapped(i, size):
    """The index counted from the front, or -1 where it lies outside."""
    if i < 0:
        i += size
    if i >= size or i < 0:
        i = -1
    return i


@inline
def add_elements(a, b):
    return T(a + b)


@inline
def either_element(a, b):
    return T(a | b)


@template("x: *T, index: *I, y: *T, status: *int32, items: int, size: int, m: int, inner: int")
def take_elements(x, index, y, status, items, size, m, inner):
    """y[o, k, j] = x[o, index[k], j], or with PER_LINE index[o, k, j]."""
    item = cuda.grid(1)
    while item < items:
        row = item // inner
        o = row // m
        i = wrapped(int64(index[item if PER_LINE else row - o * m]), size)
        if i < 0:
            status[0] = int32(INDEX)
        else:
            y[item] = x[(o * size + i) * inner + (item - row * inner)]
        item += cuda.gridsize(1)


@template("value: *T, index: *I, y: *T, status: *int32, items: int, size: int, m: int, inner: int")
def add_columns(value, index, y, status, items, size, m, inner):
    """y[o, index[k], j] gets value[o, k, j] added; a thread for each column (o, j)."""
    item = cuda.grid(1)
    while item < items:
        o = item // inner
        j = item - o * inner
        for k in range(m):
            at = (o * m + k) * inner + j
            i = wrapped(int64(index[at if PER_LINE else k]), size)
            if i < 0:
                status[0] = int32(INDEX)
            else:
                to = (o * size + i) * inner + j
                y[to] = combine(y[to], value[at])
        item += cuda.gridsize(1)


@template("index: *I, y: *int64, status: *int32, items: int, size: int")
def wrap_indices(index, y, status, items, size):
    """The indices counted from the front; 0 where one lies outside."""
    item = cuda.grid(1)
    while item < items:
        i = wrapped(int64(index[item]), size)
        if i < 0:
            status[0] = int32(INDEX)
            i = 0
        y[item] = i
        item += cuda.gridsize(1)


@template("value: *T, keys: *int64, order: *int64, y: *T, items: int, size: int, m: int, inner: int")
def add_segments(value, keys, order, y, items, size, m, inner):
    """The same with sorted indices: the thread (o, k, j) adds up what has the k-th of them, if it is the first of its kind."""
    item = cuda.grid(1)
    while item < items:
        row = item // inner
        o = row // m
        k = row - o * m
        j = item - row * inner
        line = (o * inner + j) * m if PER_LINE else 0
        key = keys[line + k]
        if k == 0 or keys[line + k - 1] != key:
            total = T(0)
            while k < m and keys[line + k] == key:
                total = combine(total, value[(o * m + order[line + k]) * inner + j])
                k += 1
                if k == m:
                    break
            y[(o * size + key) * inner + j] = total
        item += cuda.gridsize(1)


@template("mask: *uint8, y: *int64, items: int")
def ones_of_mask(mask, y, items):
    item = cuda.grid(1)
    while item < items:
        y[item] = int64(1) if mask[item] != 0 else int64(0)
        item += cuda.gridsize(1)


@template("counts: *int64, places: *int64, number: *int64, n: int")
def place_true(counts, places, number, n):
    """From running counts of true elements: their indices, packed at the front, zeros behind them, and their number."""
    total = counts[n - 1] if n > 0 else int64(0)
    item = cuda.grid(1)
    if item == 0:
        number[0] = total
    while item < n:
        before = counts[item - 1] if item > 0 else int64(0)
        if counts[item] > before:
            places[before] = item
        if item >= total:
            places[item] = 0
        item += cuda.gridsize(1)


def _sides(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    return prod(shape[:axis]), prod(shape[axis + 1 :])


def _taking(ins: tuple[Layout, ...], outs: tuple[Layout, ...], axis: int, m: int, per_line: bool) -> Work:
    x, index = ins
    _, inner = _sides(x.shape, axis) if not per_line else _sides(index.shape, axis)
    kernel = take_elements.bind(T=bits_like(x.dtype), I=index.dtype, PER_LINE=per_line)
    items = outs[0].size
    return Work((spread(kernel, items, (0, 1, 2, STATUS), (items, x.shape[axis], m, inner)),))


@cuda_kernel("take")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    return _taking(ins, outs, attrs["axis"], ins[1].size, False)


@cuda_kernel("take_along_axis")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    axis = attrs["axis"] % max(ins[1].ndim, 1)
    return _taking(ins, outs, axis, ins[1].shape[axis], True)


def _adding(ins, outs, dtype: DType, sides: tuple[int, int, int, int], per_line: bool) -> Work:
    """sides: outer, size, m, inner."""
    (_, index), (y,) = ins, outs
    outer, size, m, inner = sides
    steps = Steps(ins, outs)
    steps.add(*work(zeros(y.dtype), (), (flat(y),), (2,)).launches)
    if m == 0:
        return steps.work()
    join = either_element if dtype is bool_ else add_elements
    bound: dict[str, Any] = {"T": storage(dtype), "combine": join, "PER_LINE": per_line}
    if m < min(SORTED_FROM, 4 * MACHINE.block):
        items = outer * inner
        words = (items, size, m, inner)
        steps.add(spread(add_columns.bind(I=index.dtype, **bound), items, (0, 1, 2, STATUS), words))
        return steps.work()
    whole = steps.temporary(index.size * 8)
    wrap = wrap_indices.bind(I=index.dtype)
    steps.add(spread(wrap, index.size, (1, whole, STATUS), (index.size, size)))
    keys, order = sort_lines(steps, whole, int64, (outer, m, inner) if per_line else (1, m, 1))
    items = outer * m * inner
    steps.add(spread(add_segments.bind(**bound), items, (0, keys, order, 2), (items, size, m, inner)))
    return steps.work()


@cuda_kernel("index_add")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    outer, inner = _sides(outs[0].shape, attrs["axis"])
    return _adding(ins, outs, ins[0].dtype, (outer, attrs["size"], ins[1].size, inner), False)


@cuda_kernel("scatter_add")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    outer, inner = _sides(outs[0].shape, attrs["axis"])
    m = ins[1].shape[attrs["axis"]]
    return _adding(ins, outs, ins[0].dtype, (outer, attrs["size"], m, inner), True)


@cuda_kernel("nonzero_flat")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    n = ins[0].size
    steps = Steps(ins, outs)
    ones, counts = steps.temporary(n * 8), steps.temporary(n * 8)
    if n:
        steps.add(spread(ones_of_mask.bind(), n, (0, ones), (n,)))
        cumulate(steps, ones, counts, (int64, int64), (1, n, 1))
    steps.add(spread(place_true.bind(), max(n, 1), (counts, 1, 2), (n,)))
    return steps.work()
