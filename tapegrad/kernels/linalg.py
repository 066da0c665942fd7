"""Linear algebra on stacks of matrices, by LAPACK and BLAS through their addresses.

LAPACK reads column-major, so a row-major A reaches it as its transpose. `solve` factors that transpose, A^T = P L U,
and then A x = b is U^T y = b, L^T z = y, x = P z: two triangular solves on row-major b in place, and no matrix is
transposed.
"""

from __future__ import annotations

import math

from ..layouts import Layout
from .blas import address
from .language import T, cast_pointer, copy, getrf, inline, offset, potrf, trsm
from .launch import Step, kernel
from .skeleton import skeleton
from .status import NOT_POSITIVE_DEFINITE, SINGULAR

LEFT, UPPER, LOWER, PLAIN, TRANSPOSED, STORED, ONES = 141, 121, 122, 111, 112, 131, 132  # cblas names
GRAIN_FLOPS = 200_000  # small matrices take LAPACK some hundred ns each, whatever their arithmetic


@inline
def has_nan_or_inf(a, n):
    """Whether one of n elements is not finite. LAPACK's search for a pivot is not defined on NaN."""
    bad = 0
    for i in range(n):
        bad += 0 if abs(a[i]) < T(math.inf) else 1
    return bad > 0


@skeleton("a: *T, b: *T, x: *T, work: *int32, factor: address, substitute: address, n: int, k: int")
def solve_systems(a, b, x, work, factor, substitute, n, k, begin, end):
    """x = a^-1 b for the systems begin..end; a matrix with NaN or inf in it gives NaN."""
    lu = cast_pointer(offset(work, (n + 15) // 16 * 16), a)
    for item in range(begin, end):
        matrix, result = offset(a, item * n * n), offset(x, item * n * k)
        if has_nan_or_inf(matrix, n * n):
            for i in range(n * k):
                result[i] = T(math.nan)
            continue
        copy(lu, matrix, n * n)
        if getrf(factor, n, n, lu, n, work) != 0:
            return SINGULAR
        copy(result, offset(b, item * n * k), n * k)
        trsm(substitute, LEFT, LOWER, PLAIN, STORED, n, k, T(1), lu, n, result, k)
        trsm(substitute, LEFT, UPPER, PLAIN, ONES, n, k, T(1), lu, n, result, k)
        for i in range(n - 1, -1, -1):
            j = work[i] - 1
            if j != i:
                for c in range(k):
                    result[i * k + c], result[j * k + c] = result[j * k + c], result[i * k + c]
    return 0


@skeleton("a: *T, out: *T, factor: address, n: int")
def cholesky_factors(a, out, factor, n, begin, end):
    """The lower Cholesky factors begin..end; reads the lower triangle. NaN or inf in it gives NaN."""
    for item in range(begin, end):
        matrix, lower = offset(a, item * n * n), offset(out, item * n * n)
        bad = False
        for i in range(n):
            bad = bad or has_nan_or_inf(offset(matrix, i * n), i + 1)
            copy(offset(lower, i * n), offset(matrix, i * n), i + 1)
            for j in range(i + 1, n):
                lower[i * n + j] = T(0)
        if bad:
            for i in range(n):
                for j in range(i + 1):
                    lower[i * n + j] = T(math.nan)
        elif potrf(factor, 85, n, lower, n) != 0:  # ord("U"): the lower triangle of rows is the upper one of columns
            return NOT_POSITIVE_DEFINITE
    return 0


@skeleton("a: *T, b: *T, x: *T, substitute: address, n: int, k: int, uplo: int, how: int")
def solve_triangles(a, b, x, substitute, n, k, uplo, how, begin, end):
    """x = op(a)^-1 b for the triangular systems begin..end."""
    for item in range(begin, end):
        matrix, result = offset(a, item * n * n), offset(x, item * n * k)
        for i in range(n):
            if matrix[i * n + i] == T(0):
                return SINGULAR
        copy(result, offset(b, item * n * k), n * k)
        trsm(substitute, LEFT, uplo, how, STORED, n, k, T(1), matrix, n, result, k)
    return 0


@skeleton("a: *T, sign: *T, logarithm: *T, work: *int32, factor: address, n: int")
def log_determinants(a, sign, logarithm, work, factor, n, begin, end):
    """The sign of each determinant begin..end, and the logarithm of its size; NaN or inf in a matrix gives NaN."""
    lu = cast_pointer(offset(work, (n + 15) // 16 * 16), a)
    for item in range(begin, end):
        matrix = offset(a, item * n * n)
        if has_nan_or_inf(matrix, n * n):
            sign[item] = logarithm[item] = T(math.nan)
            continue
        copy(lu, matrix, n * n)
        getrf(factor, n, n, lu, max(n, 1), work)  # a pivot of 0 shows on the diagonal
        s, total = 1.0, 0.0
        for i in range(n):
            pivot = float(lu[i * n + i])
            if work[i] != i + 1:
                s = -s
            if pivot < 0.0:
                s = -s
            if pivot == 0.0:
                s = 0.0
            total += math.log(abs(pivot))
        sign[item] = T(s)
        logarithm[item] = T(total) if s != 0.0 else T(-math.inf)
    return 0


def routine(name: str, x: Layout) -> int:
    """The address of a BLAS or LAPACK routine for the dtype of `x`."""
    return address(("s" if x.dtype.itemsize == 4 else "d") + name)


def stack(x: Layout) -> tuple[int, int]:
    """How many matrices `x` holds, and the number of their rows."""
    return math.prod(x.shape[:-2]), x.shape[-2]


def grain(flops: int) -> int:
    """Matrices worth a thread's while, of so many operations each."""
    return max(1, GRAIN_FLOPS // max(flops, 500))


def scratch(x: Layout) -> int:
    """Bytes for pivots and one factored matrix."""
    n = max(x.shape[-1], 1)
    return 4 * ((n + 15) // 16 * 16) + n * n * x.dtype.itemsize


@kernel("solve")
def _(ins, outs, attrs):
    a, b = ins
    (count, n), k = stack(a), b.shape[-1]
    words = (routine("getrf", a), routine("trsm", a), n, k)
    least = grain(n * n * (n + 2 * k))
    return (Step(solve_systems.address(T=a.dtype), (0, 1, 2), words, count, least, scratch(a)),)


@kernel("cholesky")
def _(ins, outs, attrs):
    (a,) = ins
    count, n = stack(a)
    return (Step(cholesky_factors.address(T=a.dtype), (0, 1), (routine("potrf", a), n), count, grain(n**3 // 3)),)


@kernel("triangular_solve")
def _(ins, outs, attrs):
    a, b = ins
    (count, n), k = stack(a), b.shape[-1]
    words = (routine("trsm", a), n, k, LOWER if attrs["lower"] else UPPER, TRANSPOSED if attrs["transpose"] else PLAIN)
    return (Step(solve_triangles.address(T=a.dtype), (0, 1, 2), words, count, grain(n * n * k)),)


@kernel("slogdet")
def _(ins, outs, attrs):
    (a,) = ins
    count, n = stack(a)
    words = (routine("getrf", a), n)
    return (Step(log_determinants.address(T=a.dtype), (0, 1, 2), words, count, grain(n**3), scratch(a)),)
