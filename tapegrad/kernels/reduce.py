"""Reductions over any set of axes: sum, prod, max, min, any, all, logsumexp.

Axes of one kind that lie side by side are merged, then the last group decides: reduced, it is walked in rows, kept, in
strips of columns (`reduce_loops.py`). A reduction is a monoid bound to those loops, and here is their table.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, prod

from ..dtypes import BITS16, DType, bool_, float64, int32, int64, uint8
from ..errors import ShapeError
from ..layouts import Layout
from .keys import KEY_DTYPE, float_of, key_constants, nan_at_bottom, nan_on_top
from .language import A, T, fast_exp, fast_log, inline
from .launch import Step, kernel
from .reduce_loops import R, columns, plain_rows, rows

WORK = 100_000  # elements that are worth a thread
STRIP = 512  # columns of one item: their accumulators stay in L1
OUTER = 4  # groups of kept, and of reduced, axes in front of the innermost


@inline
def as_accumulator(x, s):
    return A(x)


@inline
def add(a, b):
    return a + b


@inline
def multiply(a, b):
    return a * b


@inline
def as_result(a, s):
    return R(a)


@inline
def greater(a, b):
    return a if a > b else b


@inline
def less(a, b):
    return a if a < b else b


@inline
def key_nan_on_top(x, s):
    return nan_on_top(x)


@inline
def key_nan_at_bottom(x, s):
    return nan_at_bottom(x)


@inline
def value_of_key(a, s):
    return float_of(a)


@inline
def is_true(x, s):
    return A(1) if x != T(0) else A(0)


@inline
def either(a, b):
    return A(a | b)


@inline
def both(a, b):
    return A(a & b)


@inline
def finite_shift(s):
    """The row's maximum, or 0 where it is infinite: inf - inf is not wanted."""
    return s if abs(s) < T(inf) else T(0)


@inline
def shifted_exp(x, s):
    return fast_exp(x - finite_shift(s))


@inline
def log_and_shift(a, s):
    return fast_log(a) + finite_shift(s)


def _arithmetic(x: DType, out: DType) -> dict:
    wide = float64 if x.is_float else int64
    return {"T": storage(x), "A": wide, "R": out, "load": as_accumulator, "finish": as_result}


def extremum(x: DType, largest: bool) -> dict:
    """The bindings of max (or min): compare keys, NaN before all."""
    constants = key_constants(x)
    bound = {"T": storage(x), "A": KEY_DTYPE[x], "R": storage(x), "combine": greater if largest else less}
    bound["start"] = constants["LOW" if largest else "TOP"]
    if not x.is_float:
        return bound | {"load": as_accumulator, "finish": as_result}
    load = key_nan_on_top if largest else key_nan_at_bottom
    return bound | constants | {"load": load, "finish": value_of_key}


def _truth(x: DType, start: int) -> dict:
    return {"T": storage(x), "A": uint8, "R": uint8, "start": start, "load": is_true, "finish": as_result}


def _exponentials(x: DType, out: DType) -> dict:
    return {"T": x, "A": x, "R": x, "start": 0, "load": shifted_exp, "combine": add, "finish": log_and_shift}


# op -> (dtype in, dtype out) -> bindings of the passes over the data
PASSES = {
    "sum": lambda x, out: [_arithmetic(x, out) | {"start": 0, "combine": add}],
    "prod": lambda x, out: [_arithmetic(x, out) | {"start": 1, "combine": multiply}],
    "max": lambda x, out: [extremum(x, True)],
    "min": lambda x, out: [extremum(x, False)],
    "any": lambda x, out: [_truth(x, 0) | {"combine": either}],
    "all": lambda x, out: [_truth(x, 1) | {"combine": both}],
    "logsumexp": lambda x, out: [extremum(x, True), _exponentials(x, out)],
}


def storage(dtype: DType) -> DType:
    """The dtype that compiled code sees: a bool is a byte."""
    return uint8 if dtype is bool_ else dtype


def bits_like(dtype: DType) -> DType:
    """The integer dtype of the same size, for kernels that only move elements."""
    return {1: uint8, 2: BITS16, 4: int32, 8: int64}[dtype.itemsize]


def grain_of(work: int) -> int:
    """Fewest items of `work` elements each that are worth a thread."""
    return max(1, WORK // max(work, 1))


@dataclass(frozen=True, slots=True)
class Walk:
    """The axes of a reduction after merging: (size, stride) of the outer kept and reduced ones, and the innermost."""

    kept: list[tuple[int, int]]
    reduced: list[tuple[int, int]]
    inner: int
    inner_is_reduced: bool

    def words(self) -> tuple[int, ...]:
        """The static words that say how to walk: k2..k4, s1..s4, r1..r4, t1..t4."""
        if max(len(self.kept), len(self.reduced)) > OUTER:
            raise ShapeError(
                f"a reduction over {len(self.reduced)} groups of axes that lie apart is too scattered; at most {OUTER} "
                "groups go at once. Reduce some of the axes first, or transpose."
            )
        kept = [(1, 0)] * (OUTER - len(self.kept)) + self.kept
        reduced = [(1, 0)] * (OUTER - len(self.reduced)) + self.reduced
        return (*(n for n, _ in kept[1:]), *(s for _, s in kept), *(n for n, _ in reduced), *(t for _, t in reduced))


def walk(shape: tuple[int, ...], axes: tuple[int, ...]) -> Walk:
    """Merge the axes of a C-contiguous `shape`, of which `axes` are reduced."""
    if any(shape[a] == 0 for a in axes):  # nothing to reduce: every result is the start value
        results = prod(n for i, n in enumerate(shape) if i not in axes)
        return Walk([(results, 0)], [], 0, True)
    groups: list[list] = []  # [size, is reduced], outermost first
    for i, n in enumerate(shape):
        if n == 1:
            continue
        if groups and groups[-1][1] == (i in axes):
            groups[-1][0] *= n
        else:
            groups.append([n, i in axes])
    inner, inner_is_reduced = groups.pop() if groups else (1, False)
    kept: list[tuple[int, int]] = []
    reduced: list[tuple[int, int]] = []
    stride = inner
    for n, is_reduced in reversed(groups):
        (reduced if is_reduced else kept).insert(0, (n, stride))
        stride *= n
    return Walk(kept, reduced, inner, inner_is_reduced)


def reduction(way: Walk, bound: dict, operands: tuple[int, int] = (0, 1)) -> Step:
    """The step that reduces along `way` with the monoid `bound`."""
    outer = prod(n for n, _ in way.kept)
    count = prod(n for n, _ in way.reduced)
    if way.inner_is_reduced:
        grain = grain_of(count * way.inner)
        if not way.reduced and len(way.kept) <= 1:
            return Step(plain_rows.address(**bound), operands, (way.inner,), outer, grain)
        return Step(rows.address(**bound), operands, (way.inner, *way.words()), outer, grain)
    strips = -(-way.inner // STRIP)
    strip = -(-way.inner // strips)
    if strips > 1:
        strip = -(-strip // 32) * 32
        strips = -(-way.inner // strip)
    fold = 1
    shifted = bound["load"] is shifted_exp  # there is one shift per column, none for the columns of a folded row
    if strips == 1 and not shifted and way.reduced and way.reduced[-1][1] == way.inner:
        fold = max(1, min(STRIP // way.inner, way.reduced[-1][0] // 4))
    static = (way.inner, strip, strips, fold, *way.words())
    scratch = strip * (1 + fold) * bound["A"].itemsize
    grain = grain_of(count * strip)
    return Step(columns.address(**bound), operands, static, outer * strips, grain, scratch)


def _register(name: str) -> None:
    @kernel(name, sure=True)
    def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
        if name in ("max", "min") and any(ins[0].shape[a] == 0 for a in attrs["axes"]):
            raise ShapeError(f"{name}: an axis of length 0 has no extremum; check the shape first")
        way = walk(ins[0].shape, attrs["axes"])
        return tuple(reduction(way, bound) for bound in PASSES[name](ins[0].dtype, outs[0].dtype))


for _name in PASSES:
    _register(_name)
