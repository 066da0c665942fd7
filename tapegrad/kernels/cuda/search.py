"""Positions of extrema and running sums along one axis.

An extremum is found in parts, each by a team of threads that compares pairs of key and position; a second launch compares
the parts. A running sum is one of parts: their sums, the running sum of those (by the same means, as often as needed), and
then each part from where it starts.
"""

from __future__ import annotations

from math import prod
from typing import Any

from ...dtypes import DType, float64, int64
from ...errors import ShapeError
from ...layouts import Layout
from . import blocks
from .names import BLOCK, LANES, TEAM, WARPS, A, K, R, combine, cuda, exchange, load
from .reduce import parts_of
from .template import MACHINE, Launch, Steps, Work, cuda_kernel, inline, spread, storage, template

WORST: int = 0  # bound: the key that no other is worse than
PART = 64  # elements of a running sum that one thread adds up
LONG = 4096  # elements of a part in which a team looks for an extremum, at least
HAS_OFFSETS: bool = False  # bound


@inline
def better(key, at, other, there):
    """Whether the pair (other, there) goes before (key, at)."""
    return (other != key and combine(key, other) == other) or (other == key and there < at)


@template("x: *T, best: *K, at: *int64, items: int, n: int, inner: int, parts: int, width: int")
def best_of_parts(x, best, at, items, n, inner, parts, width):
    """The best key of x[o, part * width:, j] over `width` elements and where it is; items are (o, part, j), one for a team."""
    lane = cuda.threadIdx.x % TEAM
    first = cuda.blockIdx.x * (BLOCK // TEAM)
    while first < items:
        item = first + cuda.threadIdx.x // TEAM
        key = K(WORST)
        place = n
        if item < items:
            row = item // inner
            o = row // parts
            i = (row - o * parts) * width
            stop = min(i + width, n)
            i += lane
            while i < stop:
                other = load(x[(o * n + i) * inner + (item - row * inner)])
                if better(key, place, other, i):
                    key = other
                    place = i
                i += TEAM
        distance = (TEAM if TEAM < LANES else LANES) // 2
        while distance > 0:
            other = exchange(key, distance)
            there = exchange(place, distance)
            if better(key, place, other, there):
                key = other
                place = there
            distance //= 2
        if TEAM > LANES:
            keys = cuda.shared.array(WARPS, K)
            places = cuda.shared.array(WARPS, int64)
            if cuda.threadIdx.x % LANES == 0:
                keys[cuda.threadIdx.x // LANES] = key
                places[cuda.threadIdx.x // LANES] = place
            cuda.syncthreads()
            for w in range(WARPS):
                if better(key, place, keys[w], places[w]):
                    key = keys[w]
                    place = places[w]
            cuda.syncthreads()
        if lane == 0 and item < items:
            best[item] = key
            at[item] = place
        first += cuda.gridDim.x * (BLOCK // TEAM)


@template("best: *K, at: *int64, y: *int64, items: int, inner: int, parts: int")
def best_of_all(best, at, y, items, inner, parts):
    """The position of the best of the parts (o, part, j)."""
    item = cuda.grid(1)
    while item < items:
        o = item // inner
        from_ = o * parts * inner + (item - o * inner)
        key = best[from_]
        place = at[from_]
        for p in range(1, parts):
            other = best[from_ + p * inner]
            there = at[from_ + p * inner]
            if better(key, place, other, there):
                key = other
                place = there
        y[item] = place
        item += cuda.gridsize(1)


@template("x: *T, y: *A, items: int, n: int, inner: int, parts: int, width: int")
def sums_of_parts(x, y, items, n, inner, parts, width):
    """y[o, part, j] = the sum of x[o, part * width:, j] over `width` elements."""
    item = cuda.grid(1)
    while item < items:
        row = item // inner
        o = row // parts
        first = (row - o * parts) * width
        total = A(0)
        for i in range(first, min(first + width, n)):
            total += A(x[(o * n + i) * inner + (item - row * inner)])
        y[item] = total
        item += cuda.gridsize(1)


@template("x: *T, before: *A, y: *R, items: int, n: int, inner: int, parts: int, width: int")
def running_sums(x, before, y, items, n, inner, parts, width):
    """y[o, i, j] = the sum of x[o, :i + 1, j]; `before` are the running sums of the parts (o, part, j)."""
    item = cuda.grid(1)
    while item < items:
        row = item // inner
        o = row // parts
        part = row - o * parts
        total = A(0)
        if HAS_OFFSETS:
            if part > 0:
                total = before[item - inner]
        for i in range(part * width, min((part + 1) * width, n)):
            at = (o * n + i) * inner + (item - row * inner)
            total += A(x[at])
            y[at] = R(total)
        item += cuda.gridsize(1)


def along(shape: tuple[int, ...], axis: int | None) -> tuple[int, int, int]:
    """(outer, n, inner) around an axis; None stands for all axes as one."""
    if axis is None or not shape:
        return 1, prod(shape), 1
    axis %= len(shape)
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def _place(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict, largest: bool) -> Work:
    (x,), (y,) = ins, outs
    outer, n, inner = along(x.shape, attrs["axis"])
    if n == 0:
        name = "argmax" if largest else "argmin"
        raise ShapeError(f"{name}: an axis of length 0 has no extremum; check the shape first")
    steps = Steps(ins, outs)
    bound: dict[str, Any] = blocks.key_bindings(x.dtype)
    bound |= {"WORST": bound["LOW" if largest else "TOP"], "combine": blocks.greater if largest else blocks.less}
    parts, width = parts_of(n, outer * inner, min(LONG, 16 * MACHINE.block), MACHINE.blocks)
    team = blocks.team_for(width) if inner == 1 else 1
    items = outer * parts * inner
    best, at = steps.temporary(items * bound["K"].itemsize), steps.temporary(items * 8)
    load = blocks.order_key(x.dtype, nan_last=largest)
    kernel = best_of_parts.bind(T=storage(x.dtype), load=load, **bound, **blocks.team_bindings(team))
    grid = max(1, min(-(-items * team // MACHINE.block), MACHINE.blocks))
    steps.add(Launch(kernel, grid, MACHINE.block, (0, best, at), (items, n, inner, parts, width)))
    join = best_of_all.bind(K=bound["K"], combine=bound["combine"])
    steps.add(spread(join, y.size, (best, at, 1), (y.size, inner, parts)))
    return steps.work()


@cuda_kernel("argmax")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    return _place(ins, outs, attrs, True)


@cuda_kernel("argmin")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    return _place(ins, outs, attrs, False)


def cumulate(steps: Steps, x: int, y: int, dtypes: tuple[DType, DType], sides: tuple[int, int, int]) -> None:
    """Adds the launches of the running sum of elements at place x, to place y; dtypes of both."""
    outer, n, inner = sides
    wide = float64 if dtypes[0].is_float else int64
    width = min(PART, 4 * MACHINE.block)
    parts = max(1, -(-n // width))
    bound: dict[str, Any] = {"T": storage(dtypes[0]), "A": wide, "R": dtypes[1]}
    items = outer * parts * inner
    words = (items, n, inner, parts, width)
    before = x
    if parts > 1:
        before, sums = steps.temporary(items * 8), steps.temporary(items * 8)
        steps.add(spread(sums_of_parts.bind(T=bound["T"], A=wide), items, (x, sums), words))
        cumulate(steps, sums, before, (wide, wide), (outer, parts, inner))
    steps.add(spread(running_sums.bind(HAS_OFFSETS=parts > 1, **bound), items, (x, before, y), words))


@cuda_kernel("cumsum")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    steps = Steps(ins, outs)
    cumulate(steps, 0, 1, (ins[0].dtype, outs[0].dtype), along(ins[0].shape, attrs["axis"]))
    return steps.work()
