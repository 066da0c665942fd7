"""Softmax, log-softmax and cross entropy, shifted by the maximum so that nothing overflows.

Along the last axis a row is read twice (maximum, exponentials) and scaled in place; along another axis, strips of
columns go side by side. A row with +inf, or of -inf only, gives NaN, as in PyTorch.
"""

from __future__ import annotations

from math import inf, prod

from ..dtypes import DType
from ..layouts import Layout
from .keys import float_of
from .language import T, TypeVar, fast_exp, fast_log, inline, offset
from .launch import Step, kernel
from .reduce import extremum, grain_of
from .reduce_loops import BLOCK, reduce_row
from .skeleton import skeleton
from .status import INDEX

LOG = TypeVar("LOG")  # 1 for the logarithm of softmax
STRIP = 256  # columns of one item: input, output and scratch rows stay in L1
NEAR = 1024  # bytes: a vector loop takes at most that many in one go, and operands that are larger begin further apart
EXP_COST = 4  # one exponential against one added element


@inline
def sum_of_exp(x, y, n, top, keep, apart):
    """The sum of exp(x - top), in blocks; the exponentials go to y where they are kept.

    apart: y is known not to begin a little behind x. Else a loop that reads x, writes y and sums is run without vectors
    where it does so, and would sum in another order there than elsewhere; so the sum has a loop of its own.
    """
    total = 0.0
    for b in range(0, n, BLOCK):
        p = offset(x, b)
        q = offset(y, b)
        part = T(0)
        if keep and apart:
            for i in range(min(BLOCK, n - b)):
                e = fast_exp(p[i] - top)
                q[i] = e
                part += e
        elif keep:
            for i in range(min(BLOCK, n - b)):
                q[i] = fast_exp(p[i] - top)
            for i in range(min(BLOCK, n - b)):
                part += q[i]
        else:
            for i in range(min(BLOCK, n - b)):
                part += fast_exp(p[i] - top)
        total += part
    return T(total)


@skeleton("x: *T, y: *T, n: int, apart: int")
def softmax_rows(x, y, n, apart, begin, end):
    """y[o] = softmax of the row x[o, :n], or its logarithm."""
    for o in range(begin, end):
        row = offset(x, o * n)
        out = offset(y, o * n)
        top = float_of(reduce_row(row, n, T(0)))
        if LOG:
            shift = fast_log(sum_of_exp(row, out, n, top, False, apart))
            for i in range(n):
                out[i] = (row[i] - top) - shift
        else:
            scale = T(1) / sum_of_exp(row, out, n, top, True, apart)
            for i in range(n):
                out[i] = out[i] * scale
    return 0


@skeleton("x: *T, y: *T, scratch: *T, n: int, inner: int, strip: int, strips: int")
def softmax_columns(x, y, scratch, n, inner, strip, strips, begin, end):
    """y[o, :, j] = softmax of x[o, :n, j], or its logarithm; an item is a strip of columns j."""
    total = offset(scratch, strip)
    for item in range(begin, end):
        o = item // strips
        first = (item - o * strips) * strip
        width = min(strip, inner - first)
        slab = offset(x, o * n * inner + first)
        out = offset(y, o * n * inner + first)
        for j in range(width):
            scratch[j] = T(-inf)
            total[j] = T(0)
        for i in range(n):
            row = offset(slab, i * inner)
            for j in range(width):
                scratch[j] = row[j] if row[j] > scratch[j] else scratch[j]
        for i in range(n):
            row = offset(slab, i * inner)
            kept = offset(out, i * inner)
            for j in range(width):
                e = fast_exp(row[j] - scratch[j])
                total[j] += e
                if not LOG:
                    kept[j] = e
        for j in range(width):
            total[j] = fast_log(total[j]) if LOG else T(1.0 / float(total[j]))
        for i in range(n):
            row = offset(slab, i * inner)
            kept = offset(out, i * inner)
            for j in range(width):
                kept[j] = (row[j] - scratch[j]) - total[j] if LOG else kept[j] * total[j]
    return 0


@inline
def sum_of_products(a, b, n):
    """The sum of a * b, or of a where LOG is set, in blocks."""
    total = 0.0
    for start in range(0, n, BLOCK):
        p, q = offset(a, start), offset(b, start)
        part = T(0)
        for i in range(min(BLOCK, n - start)):
            part += p[i] if LOG else p[i] * q[i]
        total += part
    return T(total)


@skeleton("g: *T, y: *T, out: *T, n: int")
def softmax_slope_rows(g, y, out, n, begin, end):
    """out[o] = y · (g - sum(g · y)) for the row o of softmax's output y, or g - exp(y) · sum(g) for its logarithm's."""
    for o in range(begin, end):
        slope, row, to = offset(g, o * n), offset(y, o * n), offset(out, o * n)
        total = sum_of_products(slope, row, n)
        for i in range(n):
            to[i] = slope[i] - fast_exp(row[i]) * total if LOG else row[i] * (slope[i] - total)
    return 0


@skeleton("g: *T, y: *T, out: *T, scratch: *T, n: int, inner: int, strip: int, strips: int")
def softmax_slope_columns(g, y, out, scratch, n, inner, strip, strips, begin, end):
    """The same for the columns y[o, :, j]; an item is a strip of columns j."""
    for item in range(begin, end):
        o = item // strips
        first = (item - o * strips) * strip
        width = min(strip, inner - first)
        at = o * n * inner + first
        for j in range(width):
            scratch[j] = T(0)
        for i in range(n):
            slope, row = offset(g, at + i * inner), offset(y, at + i * inner)
            for j in range(width):
                scratch[j] += slope[j] if LOG else slope[j] * row[j]
        for i in range(n):
            slope, row, to = offset(g, at + i * inner), offset(y, at + i * inner), offset(out, at + i * inner)
            for j in range(width):
                to[j] = slope[j] - fast_exp(row[j]) * scratch[j] if LOG else row[j] * (slope[j] - scratch[j])
    return 0


@skeleton("x: *T, target: *I, y: *T, classes: int, ignored: int")
def cross_entropy_rows(x, target, y, classes, ignored, begin, end):
    """y[o] = logsumexp(x[o, :classes]) - x[o, target[o]]; 0 where the target is the one to ignore."""
    for o in range(begin, end):
        t = target[o]
        if t == ignored:
            y[o] = T(0)
            continue
        if t < 0 or t >= classes:
            return INDEX
        row = offset(x, o * classes)
        top = float_of(reduce_row(row, classes, T(0)))
        y[o] = fast_log(sum_of_exp(row, y, classes, top, False, True)) - (row[t] - top)
    return 0


@skeleton("x: *T, target: *I, g: *T, y: *T, classes: int, ignored: int, apart: int")
def cross_entropy_slope_rows(x, target, g, y, classes, ignored, apart, begin, end):
    """y[o] = g[o] · (softmax(x[o, :classes]) - one_hot(target[o])); zeros where the target is the one to ignore."""
    for o in range(begin, end):
        t = target[o]
        row = offset(x, o * classes)
        out = offset(y, o * classes)
        if t == ignored:
            for i in range(classes):
                out[i] = T(0)
            continue
        if t < 0 or t >= classes:
            return INDEX
        top = float_of(reduce_row(row, classes, T(0)))
        scale = g[o] / sum_of_exp(row, out, classes, top, True, apart)
        for i in range(classes):
            out[i] = out[i] * scale
        out[t] = out[t] - g[o]
    return 0


def _row_maximum(dtype: DType) -> dict:
    bound = extremum(dtype, largest=True)
    return {name: value for name, value in bound.items() if name not in ("R", "finish")}


def _along(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """Elements along the axis, and the products of the sizes before and behind it."""
    return (shape[axis], prod(shape[:axis]), prod(shape[axis + 1 :])) if shape else (1, 1, 1)


def _softmax(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict, log: int) -> tuple[Step, ...]:
    n, outer, inner = _along(ins[0].shape, attrs["axis"])
    if inner == 1:
        address = softmax_rows.address(LOG=log, **_row_maximum(ins[0].dtype))
        return (Step(address, (0, 1), (n, outs[0].nbytes > NEAR), outer, grain_of(n * EXP_COST)),)
    strips = -(-inner // STRIP)
    strip = min(inner, STRIP)
    address = softmax_columns.address(LOG=log, T=ins[0].dtype)
    scratch = 2 * strip * ins[0].dtype.itemsize
    return (Step(address, (0, 1), (n, inner, strip, strips), outer * strips, grain_of(n * strip * EXP_COST), scratch),)


def _slope(y: Layout, attrs: dict, log: int) -> tuple[Step, ...]:
    n, outer, inner = _along(y.shape, attrs["axis"])
    cost = EXP_COST if log else 2
    if inner == 1:
        return (Step(softmax_slope_rows.address(LOG=log, T=y.dtype), (0, 1, 2), (n,), outer, grain_of(n * cost)),)
    strips = -(-inner // STRIP)
    strip = min(inner, STRIP)
    words, grain = (n, inner, strip, strips), grain_of(n * strip * cost)
    address = softmax_slope_columns.address(LOG=log, T=y.dtype)
    return (Step(address, (0, 1, 2), words, outer * strips, grain, strip * y.dtype.itemsize),)


@kernel("softmax", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    return _softmax(ins, outs, attrs, 0)


@kernel("log_softmax", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    return _softmax(ins, outs, attrs, 1)


@kernel("softmax_slope", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    return _slope(outs[0], attrs, 0)


@kernel("log_softmax_slope", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    return _slope(outs[0], attrs, 1)


@kernel("cross_entropy")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    count, classes = ins[0].shape
    address = cross_entropy_rows.address(I=ins[1].dtype, **_row_maximum(ins[0].dtype))
    ignored = attrs.get("ignore_index", -100)
    return (Step(address, (0, 1, 2), (classes, ignored), count, grain_of(classes * EXP_COST)),)


@kernel("cross_entropy_slope")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    count, classes = ins[0].shape
    address = cross_entropy_slope_rows.address(I=ins[1].dtype, **_row_maximum(ins[0].dtype))
    words = classes, attrs["ignore_index"], outs[0].nbytes > NEAR
    return (Step(address, (0, 1, 2, 3), words, count, grain_of(classes * EXP_COST)),)
