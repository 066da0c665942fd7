"""Matrix products: BLAS through its address for floats, a loop for integers, whole batches in one call.

A transposed view goes to BLAS as it is (`matmul_accepts` says which views do). Products with a vector take gemv, which
is up to 8 times faster there than gemm (1024 x 1024 float32: 52 against 200-420 µs). There is no kernel of our own for
small matrices: cblas_sgemm takes 40-48 ns for 8 x 8 x 8 (100 ns without AVX-512), a register tile in its place 35-38.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import NamedTuple

from ..layouts import Layout, layout
from .blas import address
from .language import T, gemm, gemv, offset
from .launch import Step, kernel
from .skeleton import skeleton

PLAIN, TRANSPOSED = 111, 112  # cblas names of the two ways to read a matrix
GRAIN_FLOPS = 1_000_000  # a thread's piece takes at least some 10 µs, so that waking it pays
GRAIN_BYTES = 1 << 18  # a matrix times a vector is bound by memory, not by arithmetic
COLUMN_SPLIT_ROWS = 64  # with fewer rows than this, threads share the columns of C


class Operand(NamedTuple):
    """How BLAS reads one matrix: as it is or transposed, and its leading dimension."""

    how: int
    leading: int

    def strides(self) -> tuple[int, int]:
        """Elements from one row to the next and from one column to the next."""
        return (self.leading, 1) if self.how == PLAIN else (1, self.leading)


def as_operand(x: Layout) -> Operand | None:
    """How BLAS can read the last two axes of `x`, or None if it cannot."""
    (rows, columns), (by_row, by_column) = x.shape[-2:], x.strides[-2:]
    if x.size == 0:
        return Operand(PLAIN, max(columns, 1))
    if (by_column == 1 or columns <= 1) and (by_row >= max(columns, 1) or rows <= 1):
        return Operand(PLAIN, by_row if rows > 1 else max(columns, 1))
    if (by_row == 1 or rows <= 1) and (by_column >= max(rows, 1) or columns <= 1):
        return Operand(TRANSPOSED, by_column if columns > 1 else max(rows, 1))
    return None


def matmul_accepts(x: Layout) -> bool:
    """Whether `matmul` takes an operand of this layout as it is; otherwise make a contiguous copy first.

    One of the last two strides has to be 1 (or that axis has length 1) and the other at least the length. Batch axes
    may have any strides, 0 included.

    >>> from tapegrad.dtypes import float32
    >>> from tapegrad.layouts import layout
    >>> matmul_accepts(layout((3, 4), float32, (1, 3))), matmul_accepts(layout((3, 4), float32, (8, 2)))
    (True, False)
    """
    return x.ndim >= 2 and as_operand(x) is not None


@skeleton(
    "a: *T, b: *T, c: *T, sgemm: address, ta: int, tb: int, m: int, n: int, k: int, lda: int, ldb: int, ldc: int, "
    "a_start: int, b_start: int, c_start: int, inner: int, a_outer: int, a_inner: int, b_outer: int, "
    "b_inner: int, c_outer: int, c_inner: int"
)
def matmul_rows(
    a,
    b,
    c,
    sgemm,
    ta,
    tb,
    m,
    n,
    k,
    lda,
    ldb,
    ldc,
    a_start,
    b_start,
    c_start,
    inner,
    a_outer,
    a_inner,
    b_outer,
    b_inner,
    c_outer,
    c_inner,
    begin,
    end,
):
    """C = A B for the rows begin..end of C, counted through all batches."""
    row = begin
    while row < end:
        batch = row // m
        first = row - batch * m
        rows = min(m - first, end - row)
        outer = batch // inner
        i = batch - outer * inner
        skip = first * lda if ta == 111 else first
        left = offset(a, a_start + outer * a_outer + i * a_inner + skip)
        right = offset(b, b_start + outer * b_outer + i * b_inner)
        into = offset(c, c_start + outer * c_outer + i * c_inner + first * ldc)
        gemm(sgemm, ta, tb, rows, n, k, T(1), left, lda, right, ldb, T(0), into, ldc)
        row += rows
    return 0


@skeleton(
    "a: *T, b: *T, c: *T, sgemm: address, ta: int, tb: int, m: int, n: int, k: int, lda: int, ldb: int, ldc: int, "
    "a_start: int, b_start: int, c_start: int"
)
def matmul_columns(a, b, c, sgemm, ta, tb, m, n, k, lda, ldb, ldc, a_start, b_start, c_start, begin, end):
    """C = A B for the columns begin..end of one C with few rows."""
    skip = begin if tb == 111 else begin * ldb
    right = offset(b, b_start + skip)
    into = offset(c, c_start + begin)
    gemm(sgemm, ta, tb, m, end - begin, k, T(1), offset(a, a_start), lda, right, ldb, T(0), into, ldc)
    return 0


@skeleton(
    "a: *T, x: *T, y: *T, sgemv: address, ta: int, m: int, k: int, lda: int, x_step: int, y_step: int, a_start: int, "
    "x_start: int, y_start: int, inner: int, a_outer: int, a_inner: int, x_outer: int, x_inner: int, "
    "y_outer: int, y_inner: int"
)
def matrix_vector(
    a,
    x,
    y,
    sgemv,
    ta,
    m,
    k,
    lda,
    x_step,
    y_step,
    a_start,
    x_start,
    y_start,
    inner,
    a_outer,
    a_inner,
    x_outer,
    x_inner,
    y_outer,
    y_inner,
    begin,
    end,
):
    """y = A x, A being m x k as seen through `ta`, for the elements begin..end of all batches' y."""
    row = begin
    while row < end:
        batch = row // m
        first = row - batch * m
        rows = min(m - first, end - row)
        outer = batch // inner
        i = batch - outer * inner
        vector = offset(x, x_start + outer * x_outer + i * x_inner)
        result = offset(y, y_start + outer * y_outer + i * y_inner + first * y_step)
        start = a_start + outer * a_outer + i * a_inner
        if ta == 111:
            gemv(sgemv, 111, rows, k, T(1), offset(a, start + first * lda), lda, vector, x_step, T(0), result, y_step)
        else:
            gemv(sgemv, 112, k, rows, T(1), offset(a, start + first), lda, vector, x_step, T(0), result, y_step)
        row += rows
    return 0


@skeleton(
    "a: *T, b: *T, c: *T, m: int, n: int, k: int, a_row: int, a_column: int, b_row: int, b_column: int, "
    "a_start: int, b_start: int, c_start: int, inner: int, a_outer: int, a_inner: int, b_outer: int, "
    "b_inner: int"
)
def matmul_loop(
    a,
    b,
    c,
    m,
    n,
    k,
    a_row,
    a_column,
    b_row,
    b_column,
    a_start,
    b_start,
    c_start,
    inner,
    a_outer,
    a_inner,
    b_outer,
    b_inner,
    begin,
    end,
):
    """C = A B for the rows begin..end through all batches, by a loop that wraps around on overflow."""
    for row in range(begin, end):
        batch = row // m
        outer = batch // inner
        i = batch - outer * inner
        left = offset(a, a_start + outer * a_outer + i * a_inner + (row - batch * m) * a_row)
        right = offset(b, b_start + outer * b_outer + i * b_inner)
        out = offset(c, c_start + row * n)
        if b_column == 1:  # the columns of a row of B lie together: add whole rows
            for j in range(n):
                out[j] = T(0)
            for p in range(k):
                factor = left[p * a_column]
                line = offset(right, p * b_row)
                for j in range(n):
                    out[j] = T(out[j] + factor * line[j])
        else:
            for j in range(n):
                column = offset(right, j * b_column)
                total = T(0)
                for p in range(k):
                    total = T(total + left[p * a_column] * column[p * b_row])
                out[j] = total
    return 0


class Batches(NamedTuple):
    """Leading axes: for each, its length and the strides of both operands and of the result in it."""

    lengths: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    out: tuple[int, ...]

    def inmost(self) -> tuple[int, ...]:
        """The static words that walk the last two axes: the last length, then each matrix's outer and inner stride."""
        inner = self.lengths[-1] if self.lengths else 1
        return (inner, *(s for strides in self[1:] for s in (0, 0, *strides)[-2:]))

    def starts(self):
        """For each position in all axes but the last two: the first element of both operands and of the result."""
        for index in product(*map(range, self.lengths[:-2])):
            yield tuple(sum(i * s for i, s in zip(index, strides, strict=False)) for strides in self[1:])

    @property
    def products(self) -> int:
        """The number of products that one step walks."""
        return prod(self.lengths[-2:])


def batches(a: Layout, b: Layout, out: Layout) -> Batches:
    """The leading axes of a product, neighbours merged where all strides allow."""
    lead = out.shape[:-2]

    def strides(x: Layout) -> tuple[int, ...]:
        missing = len(lead) - (x.ndim - 2)
        own = (0 if n == 1 else s for n, s in zip(x.shape[:-2], x.strides, strict=False))
        return (0,) * missing + tuple(own)

    merged: list[tuple[int, ...]] = []
    for n, *steps in zip(lead, strides(a), strides(b), strides(out), strict=True):
        if n == 1:
            continue
        if merged and all(outer == n * s for outer, s in zip(merged[-1][1:], steps, strict=True)):
            merged[-1] = (merged[-1][0] * n, *steps)
        else:
            merged.append((n, *steps))
    return Batches(*(tuple(axis[i] for axis in merged) for i in range(4)))


def grain(items: int, flops_each: int, bytes_each: int = 0) -> int:
    """The fewest items worth a thread's while, in fours (BLAS works on four rows at a time); 0: too few to split."""
    least = -(-GRAIN_FLOPS // max(flops_each, 1))
    if bytes_each:
        least = min(least, -(-GRAIN_BYTES // bytes_each))
    least = -(-least // 4) * 4
    return least if 2 * least <= items else 0


def turned(x: Layout) -> Layout:
    """The layout of x with its last two axes exchanged."""
    (*shape, m, n), (*strides, by_row, by_column) = x.shape, x.strides
    return layout((*shape, n, m), x.dtype, (*strides, by_column, by_row))


def in_order(out: Layout, order: tuple[int, ...]) -> Layout:
    """The layout of a product whose axes lie in memory as out[k] = axis order[k]."""
    back = sorted(range(out.ndim), key=order.__getitem__)
    return layout(tuple(out.shape[k] for k in back), out.dtype, tuple(out.strides[k] for k in back))


@kernel("matmul", accepts=matmul_accepts, sure=True)
def _(ins, outs, attrs):
    """attrs: `turned`: B is given transposed; `order`: the result's axes as they lie in memory, its last one last."""
    a, b = ins
    (out,) = outs
    b = turned(b) if attrs.get("turned") else b
    out = in_order(out, attrs["order"]) if "order" in attrs else out
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    left, right, lead = as_operand(a), as_operand(b), batches(a, b, out)
    ldc = out.strides[-2] if m > 1 else n
    tall = lead.lengths and lead.right[-1] == 0 and lead.out[-1] == m * ldc
    if left.how == PLAIN and tall and lead.left[-1] == m * left.leading:
        # one b for all of a's last batch axis: its matrices follow one another, so they are one tall matrix
        m *= lead.lengths[-1]
        lead = Batches(*(axis[:-1] for axis in lead))
    if not out.dtype.is_float:
        return integer_steps(out, left, right, lead, (m, k, n))
    if k > 0 and (n == 1 or m == 1):
        return vector_steps(out, left, right, lead, (m, k, n, ldc))
    sizes = (left.how, right.how, m, n, k, left.leading, right.leading, ldc)
    routine = address("sgemm" if out.dtype.itemsize == 4 else "dgemm")
    by_columns = lead.products == 1 and m < COLUMN_SPLIT_ROWS and n > m
    code = (matmul_columns if by_columns else matmul_rows).address(T=out.dtype)
    extent, each = (n, 2 * m * k) if by_columns else (lead.products * m, 2 * n * k)
    walk = () if by_columns else lead.inmost()
    few = grain(extent, each)
    parts = 1 if lead.products < 8 else 4
    return tuple(
        Step(code, (0, 1, 2), (routine, *sizes, *starts, *walk), extent, few, parts=parts) for starts in lead.starts()
    )


def vector_steps(out: Layout, left: Operand, right: Operand, lead: Batches, sizes) -> tuple[Step, ...]:
    """Steps of a product in which A has one row or B one column."""
    m, k, n, ldc = sizes
    routine = address("sgemv" if out.dtype.itemsize == 4 else "dgemv")
    code = matrix_vector.address(T=out.dtype)
    if n == 1:
        matrix, operands, length, step = left, (0, 1, 2), m, right.strides()[0]
    else:  # y = x B is y^T = B^T x^T
        flipped = Operand(PLAIN + TRANSPOSED - right.how, right.leading)
        matrix, operands, length, step = flipped, (1, 0, 2), n, left.strides()[1]
        lead = Batches(lead.lengths, lead.right, lead.left, lead.out)
    extent = lead.products * length
    words = (routine, matrix.how, length, k, matrix.leading, step, ldc if n == 1 else 1)
    least = grain(extent, 2 * k, k * out.dtype.itemsize)
    return tuple(Step(code, operands, (*words, *starts, *lead.inmost()), extent, least) for starts in lead.starts())


def integer_steps(out: Layout, left: Operand, right: Operand, lead: Batches, sizes) -> tuple[Step, ...]:
    """Steps of a product of integers, whose result lies in C order."""
    m, k, n = sizes
    code = matmul_loop.address(T=out.dtype)
    words = (m, n, k, *left.strides(), *right.strides())
    extent = lead.products * m
    least = grain(extent, 16 * n * k)  # an integer step costs about 8 times a float one
    walk = lead.inmost()[:5]
    return tuple(Step(code, (0, 1, 2), (*words, *starts, *walk), extent, least) for starts in lead.starts())
