"""Linear algebra on stacks of matrices: a block of threads factors a matrix where it lies in device memory.

Right-looking Cholesky and LU with partial pivoting (Golub & Van Loan 2013, algorithms 4.2.2 and 3.4.1), unblocked: for the
small matrices of a stack. As on the CPU, a matrix with nan or inf gives nan, and a pivot of 0 the status SINGULAR.
"""

from __future__ import annotations

from math import prod

from ...layouts import Layout
from ..status import NOT_POSITIVE_DEFINITE, SINGULAR
from .names import INF, NAN, T, cuda, float64, int32, int64, log_f64, sqrt
from .template import MACHINE, STATUS, Kernel, Launch, Steps, Work, cuda_kernel, inline, template


@inline
def all_finite(a, start, n, triangle):
    """Whether all elements of a matrix are finite, or with `triangle` its lower triangle; all threads call it."""
    bad = cuda.shared.array(1, int32)
    if cuda.threadIdx.x == 0:
        bad[0] = 0
    cuda.syncthreads()
    e = int64(cuda.threadIdx.x)
    while e < n * n:
        row = e // n
        if (not triangle or e - row * n <= row) and not abs(a[start + e]) < INF:
            bad[0] = 1
        e += cuda.blockDim.x
    cuda.syncthreads()
    fine = bad[0] == 0
    cuda.syncthreads()
    return fine


@inline
def pivot_row(a, start, n, j):
    """The row from j on with the largest element in column j, the first of equals; all threads call it."""
    found = cuda.shared.array(1, int64)
    if cuda.threadIdx.x == 0:
        best = j
        for i in range(j + 1, n):
            if abs(a[start + i * n + j]) > abs(a[start + best * n + j]):
                best = i
        found[0] = best
    cuda.syncthreads()
    return found[0]


@inline
def swap_rows(a, start, columns, i, j):
    c = int64(cuda.threadIdx.x)
    while c < columns:
        kept = a[start + i * columns + c]
        a[start + i * columns + c] = a[start + j * columns + c]
        a[start + j * columns + c] = kept
        c += cuda.blockDim.x


@inline
def eliminate(a, start, n, j, x, x_start, columns):
    """x[i] -= a[i, j] / a[j, j] x[j] for all rows i > j; x is another matrix."""
    e = int64(cuda.threadIdx.x)
    while e < (n - j - 1) * columns:
        i = j + 1 + e // columns
        c = e % columns
        x[x_start + i * columns + c] -= a[start + i * n + j] * x[x_start + j * columns + c]
        e += cuda.blockDim.x


@inline
def eliminate_below(a, start, n, j):
    """Step j of LU: the multipliers go where zeros would be."""
    i = j + 1 + int64(cuda.threadIdx.x)
    while i < n:
        a[start + i * n + j] = a[start + i * n + j] / a[start + j * n + j]
        i += cuda.blockDim.x
    cuda.syncthreads()
    e = int64(cuda.threadIdx.x)
    rest = n - j - 1
    while e < rest * rest:
        i = j + 1 + e // rest
        c = j + 1 + e % rest
        a[start + i * n + c] -= a[start + i * n + j] * a[start + j * n + c]
        e += cuda.blockDim.x


@inline
def copy_matrix(to, source, start, count):
    e = int64(cuda.threadIdx.x)
    while e < count:
        to[start + e] = source[start + e]
        e += cuda.blockDim.x


@inline
def fill_matrix(to, start, count, value):
    e = int64(cuda.threadIdx.x)
    while e < count:
        to[start + e] = value
        e += cuda.blockDim.x


@template("a: *T, b: *T, x: *T, lu: *T, status: *int32, count: int, n: int, k: int")
def solve_systems(a, b, x, lu, status, count, n, k):
    """x = a^-1 b."""
    item = int64(cuda.blockIdx.x)
    while item < count:
        start = item * n * n
        to = item * n * k
        if all_finite(a, start, n, False):
            copy_matrix(lu, a, start, n * n)
            copy_matrix(x, b, to, n * k)
            cuda.syncthreads()
            j = int64(0)
            while j < n:
                p = pivot_row(lu, start, n, j)
                if p != j:
                    swap_rows(lu, start, n, j, p)
                    swap_rows(x, to, k, j, p)
                cuda.syncthreads()
                if lu[start + j * n + j] == 0:
                    status[0] = int32(SINGULAR)
                    break
                eliminate_below(lu, start, n, j)
                cuda.syncthreads()
                eliminate(lu, start, n, j, x, to, k)
                cuda.syncthreads()
                j += 1
            j = n - 1
            while j >= 0:
                c = int64(cuda.threadIdx.x)
                while c < k:
                    x[to + j * k + c] = x[to + j * k + c] / lu[start + j * n + j]
                    c += cuda.blockDim.x
                cuda.syncthreads()
                e = int64(cuda.threadIdx.x)
                while e < j * k:
                    i = e // k
                    x[to + e] -= lu[start + i * n + j] * x[to + j * k + (e - i * k)]
                    e += cuda.blockDim.x
                cuda.syncthreads()
                j -= 1
        else:
            fill_matrix(x, to, n * k, T(NAN))
        cuda.syncthreads()
        item += cuda.gridDim.x


@template("a: *T, out: *T, status: *int32, count: int, n: int")
def cholesky_factors(a, out, status, count, n):
    """The lower Cholesky factors; reads the lower triangles."""
    item = int64(cuda.blockIdx.x)
    while item < count:
        start = item * n * n
        fine = all_finite(a, start, n, True)
        e = int64(cuda.threadIdx.x)
        while e < n * n:
            row = e // n
            value = a[start + e] if fine else T(NAN)
            out[start + e] = value if e - row * n <= row else T(0)
            e += cuda.blockDim.x
        cuda.syncthreads()
        j = int64(0)
        while j < n and fine:
            pivot = out[start + j * n + j]
            if not pivot > 0:
                status[0] = int32(NOT_POSITIVE_DEFINITE)
                break
            root = sqrt(pivot)
            cuda.syncthreads()
            i = j + int64(cuda.threadIdx.x)
            while i < n:
                out[start + i * n + j] = root if i == j else out[start + i * n + j] / root
                i += cuda.blockDim.x
            cuda.syncthreads()
            rest = n - j - 1
            e = int64(cuda.threadIdx.x)
            while e < rest * rest:
                i = j + 1 + e // rest
                c = j + 1 + e % rest
                if c <= i:
                    out[start + i * n + c] -= out[start + i * n + j] * out[start + c * n + j]
                e += cuda.blockDim.x
            cuda.syncthreads()
            j += 1
        cuda.syncthreads()
        item += cuda.gridDim.x


@template("a: *T, b: *T, x: *T, status: *int32, count: int, n: int, k: int, forward: int, row: int, column: int")
def solve_triangles(a, b, x, status, count, n, k, forward, row, column):
    """x = op(a)^-1 b; element (i, j) of op(a) is a[i row + j column], and `forward` says that it is lower triangular."""
    item = int64(cuda.blockIdx.x)
    while item < count:
        start = item * n * n
        to = item * n * k
        copy_matrix(x, b, to, n * k)
        cuda.syncthreads()
        for step in range(n):
            j = step if forward else n - 1 - step
            if a[start + j * n + j] == 0:
                status[0] = int32(SINGULAR)
                break
            c = int64(cuda.threadIdx.x)
            while c < k:
                x[to + j * k + c] = x[to + j * k + c] / a[start + j * n + j]
                c += cuda.blockDim.x
            cuda.syncthreads()
            e = int64(cuda.threadIdx.x)
            while e < (n - 1 - step) * k:
                i = e // k
                c = e - i * k
                if forward:
                    i = j + 1 + i
                x[to + i * k + c] -= a[start + i * row + j * column] * x[to + j * k + c]
                e += cuda.blockDim.x
            cuda.syncthreads()
        cuda.syncthreads()
        item += cuda.gridDim.x


@template("a: *T, sign: *T, logarithm: *T, lu: *T, count: int, n: int")
def log_determinants(a, sign, logarithm, lu, count, n):
    """The sign of each determinant, and the logarithm of its size."""
    item = int64(cuda.blockIdx.x)
    while item < count:
        start = item * n * n
        s = float64(1)
        total = float64(0)
        if all_finite(a, start, n, False):
            copy_matrix(lu, a, start, n * n)
            cuda.syncthreads()
            j = int64(0)
            while j < n:
                p = pivot_row(lu, start, n, j)
                if p != j:
                    swap_rows(lu, start, n, j, p)
                    s = -s
                cuda.syncthreads()
                pivot = float64(lu[start + j * n + j])
                if pivot == 0:
                    s = float64(0)
                    total = float64(-INF)
                    break
                if pivot < 0:
                    s = -s
                total += log_f64(abs(pivot))
                eliminate_below(lu, start, n, j)
                cuda.syncthreads()
                j += 1
        else:
            s = float64(NAN)
            total = float64(NAN)
        if cuda.threadIdx.x == 0:
            sign[item] = T(s)
            logarithm[item] = T(total)
        cuda.syncthreads()
        item += cuda.gridDim.x


def stack(x: Layout) -> tuple[int, int]:
    """How many matrices `x` holds, and the number of their rows."""
    return prod(x.shape[:-2]), x.shape[-2]


def by_blocks(kernel: Kernel, count: int, places: tuple[int, ...], words: tuple[int, ...]) -> Launch:
    """A launch with a block for each of `count` matrices."""
    return Launch(kernel, max(1, min(count, MACHINE.blocks)), MACHINE.block, places, (count, *words))


@cuda_kernel("solve")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    a, b = ins
    count, n = stack(a)
    steps = Steps(ins, outs)
    lu = steps.temporary(a.nbytes)
    steps.add(by_blocks(solve_systems.bind(T=a.dtype), count, (0, 1, 2, lu, STATUS), (n, b.shape[-1])))
    return steps.work()


@cuda_kernel("cholesky")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    count, n = stack(ins[0])
    return Work((by_blocks(cholesky_factors.bind(T=ins[0].dtype), count, (0, 1, STATUS), (n,)),))


@cuda_kernel("triangular_solve")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    a, b = ins
    count, n = stack(a)
    transpose = attrs["transpose"]
    words = (n, b.shape[-1], int(attrs["lower"] != transpose), *((1, n) if transpose else (n, 1)))
    return Work((by_blocks(solve_triangles.bind(T=a.dtype), count, (0, 1, 2, STATUS), words),))


@cuda_kernel("slogdet")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    (a,) = ins
    count, n = stack(a)
    steps = Steps(ins, outs)
    lu = steps.temporary(a.nbytes)
    steps.add(by_blocks(log_determinants.bind(T=a.dtype), count, (0, 1, 2, lu), (n,)))
    return steps.work()
