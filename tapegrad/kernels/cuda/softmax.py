"""Softmax, log-softmax, cross entropy and their slopes, shifted by the maximum so that nothing overflows.

Along the last axis a team of threads shares a row, along another axis a thread has a column (o, j). A row with +inf, or of
-inf only, gives nan, as on the CPU. Sums are accumulated in float64.
"""

from __future__ import annotations

from math import prod
from typing import Any

from ...dtypes import float64 as WIDE
from ...layouts import Layout
from ..status import INDEX
from . import blocks
from .blocks import larger, team_combine, team_maximum
from .names import BLOCK, INF, TEAM, T, cuda, exp, float64, int32, int64, log
from .template import MACHINE, STATUS, Kernel, Launch, Template, Work, cuda_kernel, spread, template

LOG: bool = False  # bound: the logarithm of softmax


@template("x: *T, y: *T, rows: int, n: int")
def softmax_rows(x, y, rows, n):
    """y[o] = softmax of the row x[o, :n], or its logarithm."""
    lane = cuda.threadIdx.x % TEAM
    first = cuda.blockIdx.x * (BLOCK // TEAM)
    while first < rows:
        o = first + cuda.threadIdx.x // TEAM
        begin = o * n + lane
        stop = o * n + n if o < rows else begin
        top = T(-INF)
        i = begin
        while i < stop:
            top = larger(top, x[i])
            i += TEAM
        top = team_maximum(top)
        total = float64(0)
        i = begin
        while i < stop:
            total += exp(x[i] - top)
            i += TEAM
        total = team_combine(total)
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
        for i in range(n):
            top = larger(top, x[begin + i * inner])
        total = float64(0)
        for i in range(n):
            total += exp(x[begin + i * inner] - top)
        shift = log(T(total)) if LOG else T(0)
        scale = T(1) / T(total)
        for i in range(n):
            below = x[begin + i * inner] - top
            y[begin + i * inner] = below - shift if LOG else exp(below) * scale
        item += cuda.gridsize(1)


@template("g: *T, y: *T, out: *T, rows: int, n: int")
def slope_rows(g, y, out, rows, n):
    """out[o] = y (g - sum(g y)) for the row o of softmax's output y, or g - exp(y) sum(g) for its logarithm's."""
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
        top = T(-INF)
        i = begin
        while i < stop:
            top = larger(top, x[i])
            i += TEAM
        top = team_maximum(top)
        total = float64(0)
        i = begin
        while i < stop:
            total += exp(x[i] - top)
            i += TEAM
        total = team_combine(total)
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
def cross_entropy_slope_rows(x, target, g, y, status, rows, classes, ignored):
    """y[o] = g[o] (softmax(x[o]) - one_hot(target[o])); zeros where the target is the one to ignore."""
    lane = cuda.threadIdx.x % TEAM
    first = cuda.blockIdx.x * (BLOCK // TEAM)
    while first < rows:
        o = first + cuda.threadIdx.x // TEAM
        begin = o * classes + lane
        stop = o * classes + classes if o < rows else begin
        top = T(-INF)
        i = begin
        while i < stop:
            top = larger(top, x[i])
            i += TEAM
        top = team_maximum(top)
        total = float64(0)
        i = begin
        while i < stop:
            total += exp(x[i] - top)
            i += TEAM
        total = team_combine(total)
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


def _along(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """Elements along the axis, and the products of the sizes before and behind it."""
    if not shape:
        return 1, 1, 1
    axis %= len(shape)
    return shape[axis], prod(shape[:axis]), prod(shape[axis + 1 :])


def _softmax(x: Layout, axis: int, log: bool) -> Work:
    n, outer, inner = _along(x.shape, axis)
    if inner == 1:
        return rows_of(softmax_rows, outer, n, (0, 1), T=x.dtype, LOG=log)
    items = outer * inner
    return Work((spread(softmax_columns.bind(T=x.dtype, LOG=log), items, (0, 1), (items, n, inner)),))


def _slope(y: Layout, axis: int, log: bool) -> Work:
    n, outer, inner = _along(y.shape, axis)
    if inner == 1:
        return rows_of(slope_rows, outer, n, (0, 1, 2), T=y.dtype, LOG=log)
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
    words = (attrs["ignore_index"],)
    return rows_of(cross_entropy_slope_rows, rows, classes, places, words, T=ins[0].dtype, I=ins[1].dtype)
