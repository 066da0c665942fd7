"""Outputs made from a few numbers, and block copies: full, arange, eye, tri, concatenate, pad."""

from __future__ import annotations

from math import prod

from ..dtypes import float64, int64
from ..errors import ShapeError
from ..layouts import Layout
from .language import A, T, inline, offset
from .launch import Step, kernel
from .reduce import WORK, bits_like, grain_of, storage
from .skeleton import skeleton

CHUNK = 16_384  # elements of one item where one long row is copied
PADDED = 4  # groups of padded axes in front of the last one


@skeleton("value: *T, y: *T")
def fill(value, y, begin, end):
    """y[i] = value."""
    v = value[0]
    for i in range(begin, end):
        y[i] = v
    return 0


@skeleton("start: *T, step: *T, y: *T", reassoc=False)
def fill_range(start, step, y, begin, end):
    """y[i] = start + i step, from i alone, in float64 for floats, so that errors do not add up."""
    first, width = A(start[0]), A(step[0])
    for i in range(begin, end):
        y[i] = T(first + A(i) * width)
    return 0


@skeleton("y: *uint8, columns: int, k: int")
def fill_tri(y, columns, k, begin, end):
    """y[i, j] = j <= i + k."""
    for i in range(begin, end):
        row = offset(y, i * columns)
        for j in range(columns):
            row[j] = 1 if j <= i + k else 0
    return 0


@skeleton("y: *T, columns: int, k: int")
def fill_eye(y, columns, k, begin, end):
    """y[i, j] = 1 where j = i + k, else 0."""
    for i in range(begin, end):
        row = offset(y, i * columns)
        for j in range(columns):
            row[j] = T(0)
        if 0 <= i + k < columns:
            row[i + k] = T(1)
    return 0


@skeleton("x: *T, y: *T, width: int, chunks: int, y_stride: int, y_first: int, chunk: int")
def copy_rows(x, y, width, chunks, y_stride, y_first, chunk, begin, end):
    """y[o, y_first:][:width] = x[o]; an item is a chunk of a row."""
    for item in range(begin, end):
        o = item // chunks
        first = (item - o * chunks) * chunk
        source = offset(x, o * width + first)
        to = offset(y, o * y_stride + y_first + first)
        for j in range(min(chunk, width - first)):
            to[j] = source[j]
    return 0


@inline
def fill_part(y, first, last, value):
    for j in range(first, last):
        y[j] = value


@skeleton(
    "x: *T, value: *T, y: *T, before: int, n: int, width: int,"
    "n1: int, n2: int, n3: int, n4: int, b1: int, b2: int, b3: int, b4: int, w1: int, w2: int, w3: int, w4: int"
)
def pad_rows(x, value, y, before, n, width, n1, n2, n3, n4, b1, b2, b3, b4, w1, w2, w3, w4, begin, end):
    """Rows of the padded array: sizes w1..w4 of the outer axes, of which n1..n4 from b1..b4 on come from x."""
    v = value[0]
    for row in range(begin, end):
        rest = row // w4
        i4 = row - rest * w4 - b4
        i3 = rest % w3 - b3
        rest //= w3
        i2 = rest % w2 - b2
        i1 = rest // w2 - b1
        out = offset(y, row * width)
        if 0 <= i1 < n1 and 0 <= i2 < n2 and 0 <= i3 < n3 and 0 <= i4 < n4:
            source = offset(x, (((i1 * n2 + i2) * n3 + i3) * n4 + i4) * n)
            fill_part(out, 0, before, v)
            inside = offset(out, before)
            for j in range(n):
                inside[j] = source[j]
            fill_part(out, before + n, width, v)
        else:
            fill_part(out, 0, width, v)
    return 0


@kernel("full", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    return (Step(fill.address(T=bits_like(outs[0].dtype)), (0, 1), (), outs[0].size, WORK),)


@kernel("arange", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    dtype = outs[0].dtype
    address = fill_range.address(T=dtype, A=float64 if dtype.is_float else int64)
    return (Step(address, (0, 1, 2), (), outs[0].size, WORK),)


@kernel("tri", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    rows, columns = outs[0].shape
    return (Step(fill_tri.address(), (len(ins),), (columns, attrs["k"]), rows, grain_of(columns)),)


@kernel("eye", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    rows, columns = outs[0].shape
    address = fill_eye.address(T=storage(outs[0].dtype))
    return (Step(address, (len(ins),), (columns, attrs["k"]), rows, grain_of(columns)),)


@kernel("concatenate", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    axis, out = attrs["axis"], outs[0]
    rows, stride = prod(out.shape[:axis]), prod(out.shape[axis:])
    steps, first = [], 0
    for i, x in enumerate(ins):
        width = prod(x.shape[axis:])
        if x.size:
            chunks = -(-width // CHUNK)
            static = (width, chunks, stride, first, CHUNK)
            address = copy_rows.address(T=bits_like(out.dtype))
            steps.append(Step(address, (i, len(ins)), static, rows * chunks, grain_of(min(width, CHUNK))))
        first += width
    return tuple(steps)


def _padded_groups(shape: tuple[int, ...], pads: tuple[tuple[int, int], ...]) -> list[list[int]]:
    """[before, size, after] per padded axis; axes without padding join the one in front of them."""
    groups: list[list[int]] = []
    for n, (before, after) in zip(shape, pads, strict=True):
        if groups and before == after == 0:
            groups[-1] = [g * n for g in groups[-1]]
        else:
            groups.append([before, n, after])
    return groups or [[0, 1, 0]]


@kernel("pad", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    groups = _padded_groups(ins[0].shape, attrs["pads"])
    before, n, after = groups.pop()
    if len(groups) > PADDED:
        raise ShapeError(
            f"pad: {len(groups) + 1} axes are padded, at most {PADDED + 1} can be at once; pad in two calls."
        )
    groups = [[0, 1, 0]] * (PADDED - len(groups)) + groups
    width = before + n + after
    outer = [sum(g) for g in groups]
    static = (before, n, width, *(g[1] for g in groups), *(g[0] for g in groups), *outer)
    address = pad_rows.address(T=bits_like(outs[0].dtype))
    return (Step(address, (0, 1, 2), static, prod(outer), grain_of(width)),)
