"""Softmax, log-softmax, cross entropy and their slopes, shifted by the maximum so that nothing overflows.

Along the last axis a team of threads shares a row, along another axis a thread has a column (o, j). A row with +inf, or of
-inf only, gives nan, as on the CPU. Sums are accumulated in float64.

Memory is read once where the rows of a block fit in its shared memory: each thread keeps its elements there, in slots of its
own. Longer rows and columns are read once for the maximum and the sum together, which is rescaled wherever the maximum grows
(Milakov and Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867, 2018), and once more for the result.
"""

from __future__ import annotations

from math import prod
from typing import Any

from ...dtypes import DType
from ...dtypes import float64 as WIDE
from ...layouts import Layout
from ..status import INDEX
from . import blocks
from .blocks import larger, team_combine, team_maximum
from .names import BLOCK, INF, TEAM, T, cuda, exp, exp_f64, float64, int32, int64, log
from .template import MACHINE, STATUS, Kernel, Launch, Template, Work, cuda_kernel, inline, spread, template

KEPT = 32 << 10  # bytes of rows that a block keeps: seven such blocks have the 227 KiB of a processor of an H200
LOG: bool = False  # bound: the logarithm of softmax
SLOTS: int = 0  # bound: elements that a block keeps


@inline
def grown(top, total, x):
    """The sum of the exponentials of what is below the largest value, which has become `top`, with one value more."""
    if x == -INF:  # contributes nothing, and -inf below -inf would be nan
        return total
    return total + exp(x - top)


@inline
def rescaled(total, top, new):
    """A sum of exponentials of what is below `top`, as one of what is below `new`."""
    return total if top == new else total * exp_f64(float64(top) - float64(new))


@inline
def read_once(x, begin, stop):
    """The largest of a team's elements, and the sum of the exponentials of what is below it."""
    mine = T(-INF)
    total = float64(0)
    i = begin
    while i < stop:
        value = x[i]
        new = larger(mine, value)
        total = grown(new, rescaled(total, mine, new), value)
        mine = new
        i += TEAM
    top = team_maximum(mine)
    return top, team_combine(rescaled(total, mine, top))


@inline
def keep(x, kept, begin, stop):
    """That sum; `kept` gets the exponentials, or, for the logarithm, what is below the largest."""
    top = T(-INF)
    slot = int64(cuda.threadIdx.x)
    i = begin
    while i < stop:
        value = x[i]
        kept[slot] = value
        top = larger(top, value)
        slot += BLOCK
        i += TEAM
    top = team_maximum(top)
    total = float64(0)
    slot = int64(cuda.threadIdx.x)
    i = begin
    while i < stop:
        below = kept[slot] - top
        power = exp(below)
        total += power
        kept[slot] = below if LOG else power
        slot += BLOCK
        i += TEAM
    return team_combine(total)


@template("x: *T, y: *T, rows: int, n: int")
def softmax_kept(x, y, rows, n):
    """y[o] = softmax of the row x[o, :n], or its logarithm; every element is read once."""
    kept = cuda.shared.array(SLOTS, T)
    lane = cuda.threadIdx.x % TEAM
    first = cuda.blockIdx.x * (BLOCK // TEAM)
    while first < rows:
        o = first + cuda.threadIdx.x // TEAM
        begin = o * n + lane
        stop = o * n + n if o < rows else begin
        total = keep(x, kept, begin, stop)
        shift = log(T(total)) if LOG else T(0)
        scale = T(1) / T(total)
        slot = int64(cuda.threadIdx.x)
        i = begin
        while i < stop:
            y[i] = kept[slot] - shift if LOG else kept[slot] * scale
            slot += BLOCK
            i += TEAM
        first += cuda.gridDim.x * (BLOCK // TEAM)


@template("x: *T, y: *T, rows: int, n: int")
def softmax_rows(x, y, rows, n):
    """The same for rows that a block cannot keep."""
    lane = cuda.threadIdx.x % TEAM
    first = cuda.blockIdx.x * (BLOCK // TEAM)
    while first < rows:
        o = first + cuda.threadIdx.x // TEAM
        begin = o * n + lane
        stop = o * n + n if o < rows else begin
        top, total = read_once(x, begin, stop)
        shift = log(T(total)) if LOG else T(0)
        scale = T(1) / T(total)
        i = begin
        while i < stop:
            below = x[i] - top
            y[i] = below - shift if LOG else exp(below) * scale
            i += TEAM
        first += cuda.gridDim.x * (BLOCK // TEAM)


@template("x: *T, y: *T, items: int, n: int, inner: int")
def softmax_columns(x, y, items, n, inner):
    """The same for the columns x[o, :n, j]."""
    item = cuda.grid(1)
    while item < items:
        o = item // inner
        begin = o * n * inner + (item - o * inner)
        top = T(-INF)
        total = float64(0)
        for i in range(n):
            value = x[begin + i * inner]
            new = larger(top, value)
            total = grown(new, rescaled(total, top, new), value)
            top = new
        shift = log(T(total)) if LOG else T(0)
        scale = T(1) / T(total)
        for i in range(n):
            below = x[begin + i * inner] - top
            y[begin + i * inner] = below - shift if LOG else exp(below) * scale
        item += cuda.gridsize(1)


@template("g: *T, y: *T, out: *T, rows: int, n: int")
def slope_kept(g, y, out, rows, n):
    """out[o] = y (g - sum(g y)) for the row o of softmax's output y, or g - exp(y) sum(g) for its logarithm's."""
    kept_g = cuda.shared.array(SLOTS, T)
    kept_y = cuda.shared.array(SLOTS, T)
    lane = cuda.threadIdx.x % TEAM
    first = cuda.blockIdx.x * (BLOCK // TEAM)
    while first < rows:
        o = first + cuda.threadIdx.x // TEAM
        begin = o * n + lane
        stop = o * n + n if o < rows else begin
        total = float64(0)
        slot = int64(cuda.threadIdx.x)
        i = begin
        while i < stop:
            kept_g[slot] = g[i]
            kept_y[slot] = y[i]
            total += kept_g[slot] if LOG else kept_g[slot] * kept_y[slot]
            slot += BLOCK
            i += TEAM
        sum_ = T(team_combine(total))
        slot = int64(cuda.threadIdx.x)
        i = begin
        while i < stop:
            out[i] = kept_g[slot] - exp(kept_y[slot]) * sum_ if LOG else kept_y[slot] * (kept_g[slot] - sum_)
            slot += BLOCK
            i += TEAM
        first += cuda.gridDim.x * (BLOCK // TEAM)


@template("g: *T, y: *T, out: *T, rows: int, n: int")
def slope_rows(g, y, out, rows, n):
    """The same for rows that a block cannot keep."""
    lane = cuda.threadIdx.x % TEAM
    first = cuda.blockIdx.x * (BLOCK // TEAM)
    while first < rows:
        o = first + cuda.threadIdx.x // TEAM
        begin = o * n + lane
        stop = o * n + n if o < rows else begin
        total = float64(0)
        i = begin
        while i < stop:
            total += g[i] if LOG else g[i] * y[i]
            i += TEAM
        sum_ = T(team_combine(total))
        i = begin
        while i < stop:
            out[i] = g[i] - exp(y[i]) * sum_ if LOG else y[i] * (g[i] - sum_)
            i += TEAM
        first += cuda.gridDim.x * (BLOCK // TEAM)


@template("g: *T, y: *T, out: *T, items: int, n: int, inner: int")
def slope_columns(g, y, out, items, n, inner):
    item = cuda.grid(1)
    while item < items:
        o = item // inner
        begin = o * n * inner + (item - o * inner)
        total = float64(0)
        for i in range(n):
            at = begin + i * inner
            total += g[at] if LOG else g[at] * y[at]
        sum_ = T(total)
        for i in range(n):
            at = begin + i * inner
            out[at] = g[at] - exp(y[at]) * sum_ if LOG else y[at] * (g[at] - sum_)
        item += cuda.gridsize(1)


@template("x: *T, target: *I, y: *T, status: *int32, rows: int, classes: int, ignored: int")
def cross_entropy_rows(x, target, y, status, rows, classes, ignored):
    """y[o] = logsumexp(x[o]) - x[o, target[o]]; 0 where the target is the one to ignore."""
    lane = cuda.threadIdx.x % TEAM
    first = cuda.blockIdx.x * (BLOCK // TEAM)
    while first < rows:
        o = first + cuda.threadIdx.x // TEAM
        begin = o * classes + lane
        stop = o * classes + classes if o < rows else begin
        top, total = read_once(x, begin, stop)
        if lane == 0 and o < rows:
            t = int64(target[o])
            if t == ignored:
                y[o] = T(0)
            elif t < 0 or t >= classes:
                status[0] = int32(INDEX)
            else:
                y[o] = log(T(total)) - (x[o * classes + t] - top)
        first += cuda.gridDim.x * (BLOCK // TEAM)


@template("x: *T, target: *I, g: *T, y: *T, status: *int32, rows: int, classes: int, ignored: int")
def cross_entropy_slope_kept(x, target, g, y, status, rows, classes, ignored):
    """y[o] = g[o] (softmax(x[o]) - one_hot(target[o])); zeros where the target is the one to ignore."""
    kept = cuda.shared.array(SLOTS, T)
    lane = cuda.threadIdx.x % TEAM
    first = cuda.blockIdx.x * (BLOCK // TEAM)
    while first < rows:
        o = first + cuda.threadIdx.x // TEAM
        begin = o * classes + lane
        stop = o * classes + classes if o < rows else begin
        total = keep(x, kept, begin, stop)
        if o < rows:
            t = int64(target[o])
            if t != ignored and (t < 0 or t >= classes):
                status[0] = int32(INDEX)
            scale = g[o] / T(total)
            slot = int64(cuda.threadIdx.x)
            i = begin
            while i < stop:
                if t == ignored:
                    y[i] = T(0)
                else:
                    share = kept[slot] * scale
                    y[i] = share - g[o] if i - o * classes == t else share
                slot += BLOCK
                i += TEAM
        first += cuda.gridDim.x * (BLOCK // TEAM)


@template("x: *T, target: *I, g: *T, y: *T, status: *int32, rows: int, classes: int, ignored: int")
def cross_entropy_slope_rows(x, target, g, y, status, rows, classes, ignored):
    """The same for rows that a block cannot keep."""
    lane = cuda.threadIdx.x % TEAM
    first = cuda.blockIdx.x * (BLOCK // TEAM)
    while first < rows:
        o = first + cuda.threadIdx.x // TEAM
        begin = o * classes + lane
        stop = o * classes + classes if o < rows else begin
        top, total = read_once(x, begin, stop)
        if o < rows:
            t = int64(target[o])
            if t != ignored and (t < 0 or t >= classes):
                status[0] = int32(INDEX)
            scale = g[o] / T(total)
            i = begin
            while i < stop:
                if t == ignored:
                    y[i] = T(0)
                else:
                    share = exp(x[i] - top) * scale
                    y[i] = share - g[o] if i - o * classes == t else share
                i += TEAM
        first += cuda.gridDim.x * (BLOCK // TEAM)


def rows_of(
    body: Template, rows: int, n: int, operands: tuple[int, ...], words: tuple[int, ...] = (), **bound: Any
) -> Work:
    """A launch with a team for each of `rows` rows of n elements."""
    team = blocks.team_for(n)
    kernel: Kernel = body.bind(A=WIDE, combine=blocks.add, **bound, **blocks.team_bindings(team))
    grid = max(1, min(-(-rows * team // MACHINE.block), MACHINE.blocks))
    return Work((Launch(kernel, grid, MACHINE.block, operands, (rows, n, *words)),))


def kept_or_not(
    kept: Template, plain: Template, arrays: int, dtype: DType, rows: int, n: int, places: tuple[int, ...], **more: Any
) -> Work:
    """The launch of `kept` where its block can keep its elements of so many arrays, else that of `plain`."""
    slots = -(-n // blocks.team_for(n)) * MACHINE.block
    if arrays * slots * dtype.itemsize > KEPT:
        return rows_of(plain, rows, n, places, T=dtype, **more)
    slots = 1 << (slots - 1).bit_length()  # one kernel for many lengths
    return rows_of(kept, rows, n, places, T=dtype, SLOTS=slots, **more)


def _along(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """Elements along the axis, and the products of the sizes before and behind it."""
    if not shape:
        return 1, 1, 1
    axis %= len(shape)
    return shape[axis], prod(shape[:axis]), prod(shape[axis + 1 :])


def _softmax(x: Layout, axis: int, log: bool) -> Work:
    n, outer, inner = _along(x.shape, axis)
    if inner == 1:
        return kept_or_not(softmax_kept, softmax_rows, 1, x.dtype, outer, n, (0, 1), LOG=log)
    items = outer * inner
    return Work((spread(softmax_columns.bind(T=x.dtype, LOG=log), items, (0, 1), (items, n, inner)),))


def _slope(y: Layout, axis: int, log: bool) -> Work:
    n, outer, inner = _along(y.shape, axis)
    if inner == 1:
        return kept_or_not(slope_kept, slope_rows, 2, y.dtype, outer, n, (0, 1, 2), LOG=log)
    items = outer * inner
    return Work((spread(slope_columns.bind(T=y.dtype, LOG=log), items, (0, 1, 2), (items, n, inner)),))


@cuda_kernel("softmax")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    return _softmax(ins[0], attrs["axis"], False)


@cuda_kernel("log_softmax")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    return _softmax(ins[0], attrs["axis"], True)


@cuda_kernel("softmax_slope")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    return _slope(outs[0], attrs["axis"], False)


@cuda_kernel("log_softmax_slope")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    return _slope(outs[0], attrs["axis"], True)


@cuda_kernel("cross_entropy")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    rows, classes = ins[0].shape
    ignored = attrs.get("ignore_index", -100)
    places = (0, 1, 2, STATUS)
    return rows_of(cross_entropy_rows, rows, classes, places, (ignored,), T=ins[0].dtype, I=ins[1].dtype)


@cuda_kernel("cross_entropy_slope")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    rows, classes = ins[0].shape
    places = (0, 1, 2, 3, STATUS)
    bodies = cross_entropy_slope_kept, cross_entropy_slope_rows
    more: dict[str, Any] = {"words": (attrs["ignore_index"],), "I": ins[1].dtype}
    return kept_or_not(*bodies, 1, ins[0].dtype, rows, classes, places, **more)
