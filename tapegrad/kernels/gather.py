"""Elements by index, and their adjoints: take, index_add, take_along_axis, scatter_add, nonzero_flat.

An index from -size to -1 counts from the end. One outside the axis stops the kernel with the status INDEX before
anything is read or written there. The adding kernels split the work by outer items and by strips of columns, never by
indices: each output element is added up by one thread in the order of the indices, so the sum is the same for any
number of threads.
"""

from __future__ import annotations

from math import prod

from ..dtypes import DType, bool_
from ..layouts import Layout
from .language import TypeVar, fill_zero, inline, offset
from .launch import Step, kernel
from .reduce import add, bits_like, grain_of, storage
from .skeleton import skeleton
from .status import INDEX

STRIP = 64  # least columns for one item of the adding kernels: narrower ones cost more than a thread gains
join = TypeVar("join")  # how values at the same index meet


@inline
def either(a, b):
    return a | b


@inline
def wrapped(i, size):
    """The index counted from the front, or -1 where it lies outside."""
    if i < 0:
        i += size
    return i if 0 <= i < size else -1


@skeleton("x: *T, index: *I, y: *T, size: int, m: int, inner: int")
def take_rows(x, index, y, size, m, inner, begin, end):
    """y[o, k, :inner] = x[o, index[k], :inner]; an item is a pair (o, k)."""
    o = begin // m
    k = begin - o * m
    for item in range(begin, end):
        i = wrapped(int(index[k]), size)
        if i < 0:
            return INDEX
        source = offset(x, (o * size + i) * inner)
        out = offset(y, item * inner)
        for j in range(inner):
            out[j] = source[j]
        k += 1
        if k == m:
            k = 0
            o += 1
    return 0


@skeleton("value: *T, index: *I, y: *T, size: int, m: int, inner: int, strip: int, strips: int")
def index_add_strips(value, index, y, size, m, inner, strip, strips, begin, end):
    """y[o, index[k], :inner] gets value[o, k, :inner] added, from zero; an item is a strip of the columns of one o."""
    for item in range(begin, end):
        o = item // strips
        first = (item - o * strips) * strip
        width = min(strip, inner - first)
        out = offset(y, o * size * inner + first)
        if width == inner:
            fill_zero(out, size * inner)
        else:
            for i in range(size):
                fill_zero(offset(out, i * inner), width)
        for k in range(m):
            i = wrapped(int(index[k]), size)
            if i < 0:
                return INDEX
            source = offset(value, (o * m + k) * inner + first)
            to = offset(out, i * inner)
            for j in range(width):
                to[j] = join(to[j], source[j])
    return 0


@skeleton("x: *T, index: *I, y: *T, size: int, m: int, inner: int")
def take_along_rows(x, index, y, size, m, inner, begin, end):
    """y[o, k, j] = x[o, index[o, k, j], j]; an item is a pair (o, k)."""
    for item in range(begin, end):
        source = offset(x, item // m * size * inner)
        for j in range(inner):
            i = wrapped(int(index[item * inner + j]), size)
            if i < 0:
                return INDEX
            y[item * inner + j] = source[i * inner + j]
    return 0


@skeleton("value: *T, index: *I, y: *T, size: int, m: int, inner: int, strip: int, strips: int")
def scatter_add_strips(value, index, y, size, m, inner, strip, strips, begin, end):
    """y[o, index[o, k, j], j] gets value[o, k, j] added, from zero; an item is a strip of the columns of one o."""
    for item in range(begin, end):
        o = item // strips
        first = (item - o * strips) * strip
        last = min(first + strip, inner)
        out = offset(y, o * size * inner)
        for i in range(size):
            fill_zero(offset(out, i * inner + first), last - first)
        for k in range(m):
            row = (o * m + k) * inner
            for j in range(first, last):
                i = wrapped(int(index[row + j]), size)
                if i < 0:
                    return INDEX
                out[i * inner + j] = join(out[i * inner + j], value[row + j])
    return 0


@skeleton("mask: *uint8, places: *int64, count: *int64, n: int")
def nonzero_places(mask, places, count, n, begin, end):
    """The indices of true elements, packed at the front, and their number."""
    c = 0
    for i in range(n):
        places[c] = i
        c += 1 if mask[i] != 0 else 0
    count[0] = c
    return 0


def _sides(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    return prod(shape[:axis]), prod(shape[axis + 1 :])


@kernel("take")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    x, index = ins
    outer, inner = _sides(x.shape, attrs["axis"])
    static = (x.shape[attrs["axis"]], index.size, inner)
    address = take_rows.address(T=bits_like(x.dtype), I=index.dtype)
    return (Step(address, (0, 1, 2), static, outer * index.size, grain_of(inner)),)


@kernel("take_along_axis")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    x, index = ins
    outer, inner = _sides(x.shape, attrs["axis"])
    m = index.shape[attrs["axis"]]
    address = take_along_rows.address(T=bits_like(x.dtype), I=index.dtype)
    return (Step(address, (0, 1, 2), (x.shape[attrs["axis"]], m, inner), outer * m, grain_of(inner)),)


def _adding(loop, value: DType, index: DType, outer: int, size: int, m: int, inner: int) -> tuple[Step, ...]:
    strip = max(STRIP, -(-inner // 16)) if inner > STRIP else inner
    strips = -(-inner // strip)
    address = loop.address(T=storage(value), I=index, join=either if value is bool_ else add)
    static = (size, m, inner, strip, strips)
    return (Step(address, (0, 1, 2), static, outer * strips, grain_of((m + size) * strip)),)


@kernel("index_add")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    outer, inner = _sides(outs[0].shape, attrs["axis"])
    return _adding(index_add_strips, ins[0].dtype, ins[1].dtype, outer, attrs["size"], ins[1].size, inner)


@kernel("scatter_add")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    outer, inner = _sides(outs[0].shape, attrs["axis"])
    m = ins[1].shape[attrs["axis"]]
    return _adding(scatter_add_strips, ins[0].dtype, ins[1].dtype, outer, attrs["size"], m, inner)


@kernel("nonzero_flat", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    return (Step(nonzero_places.address(), (0, 1, 2), (ins[0].size,)),)
