"""Reductions over any set of axes: sum, prod, max, min, any, all, logsumexp. Every one in a fixed order, at any size.

Axes of one kind that lie side by side are merged; then each group of reduced axes, the innermost first, is one reduction of
(outer, n, inner) to (outer, inner) whose results, accumulators still, are the elements of the next. Along the innermost axis
a team of threads shares a row (`reduce_rows`), before it a thread has a column (`reduce_columns`), so that neighbours read
neighbours. Where there are too few rows or columns to fill the machine, each is cut in parts, which a second pass brings
together. Sums are accumulated in float64 (int64 for integers), as on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ...dtypes import DType, float64, int32, int64
from ...errors import ShapeError
from ...layouts import Layout
from . import blocks
from .blocks import larger, team_combine, team_maximum
from .names import (
    BLOCK,
    INF,
    TEAM,
    VEC,
    A,
    R,
    T,
    combine,
    cuda,
    exp,
    finish,
    load,
    log_f64,
    start,
)
from .template import MACHINE, Inline, Launch, Steps, Work, cuda_kernel, inline, spread, storage, template

PART = 4096  # elements of a part, at least
COLUMN_PART = 64
VECTOR = 4  # elements that a thread reads in one access


@inline
def as_result(a):
    return R(a)


@template("x: *T, y: *R, items: int, n: int, parts: int, width: int")
def reduce_rows(x, y, items, n, parts, width):
    """y[row, part] = reduction of x[row, part * width:][:width]; a team for each (row, part)."""
    lane = cuda.threadIdx.x % TEAM
    first = cuda.blockIdx.x * (BLOCK // TEAM)
    while first < items:
        item = first + cuda.threadIdx.x // TEAM
        a = A(start)
        if item < items:
            row = item // parts
            i = (item - row * parts) * width
            stop = row * n + min(i + width, n)
            i = row * n + i + lane * VEC
            while i < stop:
                for k in range(VEC):
                    a = combine(a, load(x[i + k]))
                i += TEAM * VEC
        a = team_combine(a)
        if lane == 0 and item < items:
            y[item] = finish(a)
        first += cuda.gridDim.x * (BLOCK // TEAM)


@template("x: *T, y: *R, items: int, n: int, inner: int, parts: int, width: int")
def reduce_columns(x, y, items, n, inner, parts, width):
    """y[o, part, j] = reduction of x[o, part * width:, j] over `width` rows; a thread for each."""
    item = cuda.grid(1)
    while item < items:
        row = item // inner
        o = row // parts
        first = (row - o * parts) * width
        count = min(width, n - first)
        at = (o * n + first) * inner + (item - row * inner)
        a = A(start)
        for _ in range(count):
            a = combine(a, load(x[at]))
            at += inner
        y[item] = finish(a)
        item += cuda.gridsize(1)


@template("x: *T, y: *R, items: int, n: int, parts: int, width: int")
def logsumexp_rows(x, y, items, n, parts, width):
    """As `reduce_rows`: the largest element first, then the sum of the exponentials of what is below it."""
    lane = cuda.threadIdx.x % TEAM
    first = cuda.blockIdx.x * (BLOCK // TEAM)
    while first < items:
        item = first + cuda.threadIdx.x // TEAM
        top = T(-INF)
        begin = stop = item
        if item < items:
            row = item // parts
            i = (item - row * parts) * width
            stop = row * n + min(i + width, n)
            begin = row * n + i + lane
            i = begin
            while i < stop:
                top = larger(top, x[i])
                i += TEAM
        top = team_maximum(top)
        shift = top if abs(top) < INF else T(0)
        total = float64(0)
        if item < items:
            i = begin
            while i < stop:
                total += exp(x[i] - shift)
                i += TEAM
        total = team_combine(total)
        if lane == 0 and item < items:
            y[item] = R(log_f64(total) + float64(shift))
        first += cuda.gridDim.x * (BLOCK // TEAM)


@template("x: *T, y: *R, items: int, n: int, inner: int, parts: int, width: int")
def logsumexp_columns(x, y, items, n, inner, parts, width):
    item = cuda.grid(1)
    while item < items:
        row = item // inner
        o = row // parts
        first = (row - o * parts) * width
        count = min(width, n - first)
        begin = (o * n + first) * inner + (item - row * inner)
        top = T(-INF)
        for i in range(count):
            top = larger(top, x[begin + i * inner])
        shift = top if abs(top) < INF else T(0)
        total = float64(0)
        for i in range(count):
            total += exp(x[begin + i * inner] - shift)
        y[item] = R(log_f64(total) + float64(shift))
        item += cuda.gridsize(1)


@dataclass(frozen=True, slots=True)
class Monoid:
    """What a reduction does: bindings of the first pass, of passes over accumulators, of the last result."""

    dtype: DType  # of the accumulators
    bound: dict
    load: Inline
    finish: Inline
    by_exponentials: bool = False

    def bindings(self, x: DType, first: bool, last: DType | None) -> dict:
        """For a pass over elements of dtype x; `last` is the dtype of results, None for accumulators."""
        bound = dict(self.bound) | {"T": storage(x), "A": self.dtype, "R": storage(last) if last else self.dtype}
        bound["load"] = self.load if first else blocks.as_accumulator
        bound["finish"] = self.finish if last else as_result
        return bound


def arithmetic(x: DType, start: int, combine: Inline) -> Monoid:
    wide = float64 if x.is_float else int64
    return Monoid(wide, {"start": start, "combine": combine}, blocks.as_accumulator, as_result)


def extremum(x: DType, largest: bool) -> Monoid:
    """max or min: keys are compared, nan before all."""
    bound = blocks.key_bindings(x)
    bound |= {"start": bound["LOW" if largest else "TOP"], "combine": blocks.greater if largest else blocks.less}
    if not x.is_float:
        return Monoid(bound["K"], bound, blocks.as_accumulator, as_result)
    bound["F"] = x
    key = blocks.key_nan_on_top if largest else blocks.key_nan_at_bottom
    return Monoid(bound["K"], bound, key, blocks.float_of_key)


def truth(start: int, combine: Inline) -> Monoid:
    return Monoid(int32, {"start": start, "combine": combine}, blocks.is_true, as_result)


MONOIDS = {
    "sum": lambda x: arithmetic(x, 0, blocks.add),
    "prod": lambda x: arithmetic(x, 1, blocks.multiply),
    "max": lambda x: extremum(x, True),
    "min": lambda x: extremum(x, False),
    "any": lambda x: truth(0, blocks.either),
    "all": lambda x: truth(1, blocks.both),
    "logsumexp": lambda x: Monoid(float64, {"combine": blocks.add}, blocks.as_accumulator, as_result, True),
}


def groups_of(shape: tuple[int, ...], axes: tuple[int, ...]) -> list[tuple[int, bool]]:
    """(size, is reduced) of the merged axes, outermost first; axes of length 1 are left out."""
    groups: list[tuple[int, bool]] = []
    for i, n in enumerate(shape):
        if n == 1:
            continue
        if groups and groups[-1][1] == (i in axes):
            groups[-1] = (groups[-1][0] * n, groups[-1][1])
        else:
            groups.append((n, i in axes))
    return groups


def parts_of(n: int, items: int, least: int, wanted: int) -> tuple[int, int]:
    """In how many parts each of `items` lines of n elements is cut to give `wanted` parts, and their length."""
    parts = max(1, min(-(-wanted // max(items, 1)), n // least))
    width = -(-n // parts)
    width += -width % VECTOR if parts > 1 else 0
    return -(-n // width) if n else 1, max(width, 1)


def one_pass(monoid: Monoid, bound: dict, places: tuple[int, int], outer: int, n: int, inner: int, cut) -> Launch:
    """The launch that reduces (outer, n, inner) to (outer, parts, inner), for cut = (parts, width)."""
    parts, width = cut
    if inner > 1:
        body = logsumexp_columns if monoid.by_exponentials else reduce_columns
        items = outer * parts * inner
        return spread(body.bind(**bound), items, places, (items, n, inner, parts, width))
    team = blocks.team_for(min(n, width))
    bound = bound | blocks.team_bindings(team)
    items = outer * parts
    grid = max(1, min(-(-items * team // MACHINE.block), MACHINE.blocks))
    words = (items, n, parts, width)
    if monoid.by_exponentials:
        return Launch(logsumexp_rows.bind(**bound), grid, MACHINE.block, places, words)
    plain = Launch(reduce_rows.bind(VEC=1, **bound), grid, MACHINE.block, places, words)
    if n % VECTOR or width % VECTOR or bound["T"].itemsize < 4 or n < VECTOR * team:
        return plain
    kernel = reduce_rows.bind(aligned=True, VEC=VECTOR, **bound)
    return Launch(kernel, grid, MACHINE.block, places, words, unaligned=plain, wide=(0,))


def reduction(name: str, x: Layout, out: Layout, axes: tuple[int, ...], steps: Steps, places: tuple[int, int]) -> None:
    """Adds the launches that reduce `x`, at places[0], to `out`, at places[1]."""
    monoid = MONOIDS[name](x.dtype)
    groups = groups_of(x.shape, axes)
    if any(x.shape[a] == 0 for a in axes):  # nothing to reduce: every result is the start value
        groups = [(out.size, False), (0, True)]
    source, dtype, first = places[0], x.dtype, True
    reduced = [k for k, (_, is_reduced) in enumerate(groups) if is_reduced]
    if not reduced:
        groups, reduced = [*groups, (1, True)], [len(groups)]
    while reduced:
        k = reduced.pop()
        outer, n, inner = prod(g for g, _ in groups[:k]), groups[k][0], prod(g for g, _ in groups[k + 1 :])
        groups[k] = (1, False)
        wanted, least = (MACHINE.blocks, PART) if inner == 1 else (MACHINE.blocks * MACHINE.block, COLUMN_PART)
        cut = parts_of(n, outer * inner, min(least, 16 * MACHINE.block), wanted)
        if cut[0] > 1:
            middle = steps.temporary(outer * cut[0] * inner * monoid.dtype.itemsize)
            bound = monoid.bindings(dtype, first, None)
            steps.add(one_pass(monoid, bound, (source, middle), outer, n, inner, cut))
            source, dtype, first, n = middle, monoid.dtype, False, cut[0]
        last = out.dtype if not reduced else None
        target = places[1] if last else steps.temporary(outer * inner * monoid.dtype.itemsize)
        bound = monoid.bindings(dtype, first, last)
        steps.add(one_pass(monoid, bound, (source, target), outer, n, inner, (1, max(n, 1))))
        source, dtype, first = target, monoid.dtype, False


def _register(name: str) -> None:
    @cuda_kernel(name)
    def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
        if name in ("max", "min") and any(ins[0].shape[a] == 0 for a in attrs["axes"]):
            raise ShapeError(f"{name}: an axis of length 0 has no extremum; check the shape first")
        steps = Steps(ins, outs)
        reduction(name, ins[0], outs[0], attrs["axes"], steps, (0, 1))
        return steps.work()


for _name in MONOIDS:
    _register(_name)
