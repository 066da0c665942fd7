"""Running along one axis: argmax, argmin, cumsum.

The place of an extremum is found in two looks: the greatest key of each block (vectorised), and then the first element
of the best block that has it. NaN wins, as in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from ..dtypes import DType, float64, int64
from ..errors import ShapeError
from ..layouts import Layout
from .keys import KEY_DTYPE, K, key_constants, order_key, same
from .language import A, TypeVar, inline, offset
from .launch import Step, kernel
from .reduce import grain_of, greater, less, storage
from .skeleton import skeleton

R = TypeVar("R")  # the dtype of the result
key, better, worst = map(TypeVar, ("key", "better", "worst"))
BLOCK = 128  # elements of one look
STRIP = 256  # columns of one item


@inline
def best_of(x, n):
    """The best key of n elements."""
    best = K(worst)
    for i in range(n):
        best = better(best, key(x[i]))
    return best


@skeleton("x: *T, y: *int64, n: int")
def place_in_rows(x, y, n, begin, end):
    """y[o] = where the row x[o, :n] has its extremum first."""
    for o in range(begin, end):
        row = offset(x, o * n)
        best = best_of(row, min(BLOCK, n))
        first = 0
        for b in range(BLOCK, n, BLOCK):
            other = best_of(offset(row, b), min(BLOCK, n - b))
            if better(best, other) != best:
                best = other
                first = b
        while key(row[first]) != best:
            first += 1
        y[o] = first
    return 0


@skeleton("x: *T, y: *int64, scratch: *K, n: int, inner: int, strip: int, strips: int")
def place_in_columns(x, y, scratch, n, inner, strip, strips, begin, end):
    """y[o, j] = where x[o, :n, j] has its extremum first; an item is a strip of columns j."""
    for item in range(begin, end):
        o = item // strips
        first = (item - o * strips) * strip
        width = min(strip, inner - first)
        slab = offset(x, o * n * inner + first)
        out = offset(y, o * inner + first)
        for j in range(width):
            scratch[j] = key(slab[j])
            out[j] = 0
        for i in range(1, n):
            row = offset(slab, i * inner)
            for j in range(width):
                best = better(scratch[j], key(row[j]))
                out[j] = i if best != scratch[j] else out[j]
                scratch[j] = best
    return 0


@skeleton("x: *T, y: *R, n: int")
def running_sum_rows(x, y, n, begin, end):
    """y[o, i] = the sum of x[o, :i + 1]."""
    for o in range(begin, end):
        total = A(0)
        for i in range(o * n, (o + 1) * n):
            total += A(x[i])
            y[i] = R(total)
    return 0


@skeleton("x: *T, y: *R, scratch: *A, n: int, inner: int, strip: int, strips: int")
def running_sum_columns(x, y, scratch, n, inner, strip, strips, begin, end):
    """y[o, i, j] = the sum of x[o, :i + 1, j]; an item is a strip of columns j."""
    for item in range(begin, end):
        o = item // strips
        first = (item - o * strips) * strip
        width = min(strip, inner - first)
        for j in range(width):
            scratch[j] = A(0)
        for i in range(n):
            row = offset(x, (o * n + i) * inner + first)
            out = offset(y, (o * n + i) * inner + first)
            for j in range(width):
                scratch[j] += A(row[j])
                out[j] = R(scratch[j])
    return 0


def _along(shape: tuple[int, ...], axis: int | None) -> tuple[int, int, int]:
    """(outer, n, inner) around an axis; None stands for all axes as one."""
    if axis is None or not shape:
        return 1, prod(shape), 1
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def _steps(
    rows: Callable[[], int], columns: Callable[[], int], sides: tuple[int, int, int], scratch: DType
) -> tuple[Step, ...]:
    """One step over rows where the axis is innermost, else over columns; each gives its address when called."""
    outer, n, inner = sides
    if inner == 1:
        return (Step(rows(), (0, 1), (n,), outer, grain_of(n)),)
    strip = min(inner, STRIP)
    strips = -(-inner // strip)
    static = (n, inner, strip, strips)
    return (Step(columns(), (0, 1), static, outer * strips, grain_of(n * strip), strip * scratch.itemsize),)


def _place(ins: tuple[Layout, ...], attrs: dict, largest: bool) -> tuple[Step, ...]:
    dtype = ins[0].dtype
    constants = key_constants(dtype)
    bound: dict = {"T": storage(dtype), "K": constants["K"], "worst": constants["LOW" if largest else "TOP"]}
    bound |= {"better": greater if largest else less, "key": order_key(dtype, nan_last=largest)}
    if bound["key"] is not same:
        bound |= constants
    sides = _along(ins[0].shape, attrs["axis"])
    if sides[1] == 0:
        name = "argmax" if largest else "argmin"
        raise ShapeError(f"{name}: an axis of length 0 has no extremum; check the shape first")
    columns = {k: v for k, v in bound.items() if k != "worst"}
    return _steps(
        lambda: place_in_rows.address(**bound), lambda: place_in_columns.address(**columns), sides, KEY_DTYPE[dtype]
    )


@kernel("argmax", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    return _place(ins, attrs, True)


@kernel("argmin", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    return _place(ins, attrs, False)


@kernel("cumsum", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    wide = float64 if ins[0].dtype.is_float else int64
    bound = {"T": storage(ins[0].dtype), "A": wide, "R": outs[0].dtype}
    return _steps(
        lambda: running_sum_rows.address(**bound),
        lambda: running_sum_columns.address(**bound),
        _along(ins[0].shape, attrs["axis"]),
        wide,
    )
