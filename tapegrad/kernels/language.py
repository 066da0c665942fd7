"""The words that skeletons are written in: type variables, and calls that only compiled code can make.

Inside a skeleton, `T(0)` casts to the dtype bound to T, and the functions below become machine instructions or calls
through an address. Outside they raise. Their code is in `intrinsics.py`, which imports Numba and is only imported to
compile.
"""

from __future__ import annotations

from collections.abc import Callable


class TypeVar:
    """A dtype, a number or an inline function that is bound when a skeleton is compiled, under its name."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __call__(self, *args):
        raise TypeError(f"{self.name} is a type variable of skeletons; it has a meaning only in compiled code")

    def __repr__(self) -> str:
        return self.name


class Intrinsic:
    """A function of compiled code, found under its name in `intrinsics.py`."""

    def __init__(self, name: str, doc: str):
        self.name = name
        self.__doc__ = doc

    def __call__(self, *args):
        raise TypeError(f"{self.name} has a meaning only in compiled code")

    def __repr__(self) -> str:
        return self.name


class Inline:
    """A function shared by skeletons: compiled into each caller, with the caller's type variables."""

    def __init__(self, function: Callable, reassoc: bool = True):
        self.function = function
        self.reassoc = reassoc
        self.__doc__ = function.__doc__

    def __call__(self, *args):
        return self.function(*args)

    def __repr__(self) -> str:
        return f"{self.function.__module__}.{self.function.__qualname__}"


def inline(function: Callable | None = None, *, reassoc: bool = True):
    """Mark a function that skeletons call. `reassoc=False` keeps the order of its floating-point operations."""
    if function is None:
        return lambda f: Inline(f, reassoc)
    return Inline(function, reassoc)


T, A, S, U, V, W = map(TypeVar, "TASUVW")  # by custom: T element, A accumulator
I = TypeVar("I")  # noqa: E741  by custom: index

offset = Intrinsic("offset", "offset(p, i): the pointer p, i elements further.")
bits_to_float = Intrinsic("bits_to_float", "bits_to_float(i): int32 as the bits of a float32, int64 of a float64.")
float_to_bits = Intrinsic("float_to_bits", "float_to_bits(x): the bits of a float32 as int32, of a float64 as int64.")
maximum = Intrinsic("maximum", "maximum(a, b): of one dtype; nan if either is. Loops vectorise, unlike with max().")
minimum = Intrinsic("minimum", "minimum(a, b): of one dtype; nan if either is. Loops vectorise, unlike with min().")
cast_pointer = Intrinsic("cast_pointer", "cast_pointer(p, q): the pointer p, with the element type of the pointer q.")
pointer_at = Intrinsic("pointer_at", "pointer_at(address, q): an int64 address as a pointer like q.")
copy = Intrinsic("copy", "copy(to, source, n): copy n elements, as memmove does.")
fill_zero = Intrinsic("fill_zero", "fill_zero(p, n): set n elements to zero.")
fast_exp = Intrinsic("fast_exp", "fast_exp(x): e**x for float32 and float64, written so that loops vectorise; 2 ulp.")
fast_log = Intrinsic("fast_log", "fast_log(x): the natural logarithm, written so that loops vectorise; 2 ulp.")

# Library calls, through addresses from `blas.address`; the pointers' dtype chooses the numbers' type.
# BLAS is row-major. ta, tb: 111 as it is, 112 transposed; uplo: 121 upper, 122 lower; side: 141 left, 142 right;
# diag: 131 as it is, 132 ones.
gemm = Intrinsic("gemm", "gemm(address, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc): c = alpha a b + beta c.")
gemv = Intrinsic("gemv", "gemv(address, ta, m, n, alpha, a, lda, x, incx, beta, y, incy): y = alpha a x + beta y.")
ger = Intrinsic("ger", "ger(address, m, n, alpha, x, incx, y, incy, a, lda): a += alpha x yT.")
syrk = Intrinsic("syrk", "syrk(address, uplo, ta, n, k, alpha, a, lda, beta, c, ldc): c = alpha a aT + beta c.")
trsm = Intrinsic("trsm", "trsm(address, side, uplo, ta, diag, m, n, alpha, a, lda, b, ldb): b = alpha a^-1 b.")
dot = Intrinsic("dot", "dot(address, n, x, incx, y, incy): the inner product.")
# LAPACK is column-major; characters are ints, such as ord("L") = 76. The result is info: 0 when all is well.
getrf = Intrinsic("getrf", "getrf(address, m, n, a, lda, ipiv): LU factors in place; ipiv is a pointer to int32.")
getrs = Intrinsic("getrs", "getrs(address, trans, n, nrhs, a, lda, ipiv, b, ldb): solve from getrf's factors.")
gesv = Intrinsic("gesv", "gesv(address, n, nrhs, a, lda, ipiv, b, ldb): factor and solve.")
potrf = Intrinsic("potrf", "potrf(address, uplo, n, a, lda): Cholesky factor in place.")
potrs = Intrinsic("potrs", "potrs(address, uplo, n, nrhs, a, lda, b, ldb): solve from potrf's factor.")
trtrs = Intrinsic("trtrs", "trtrs(address, uplo, trans, diag, n, nrhs, a, lda, b, ldb): solve a triangular system.")
lanes_of = Intrinsic("lanes_of", "lanes_of(p): elements of the pointer's type in one vector.")
add_products = Intrinsic(
    "add_products",
    """add_products(width, sums, a, a_step, b, b_step, count): for c < width,

    sums[c] += sum over i < count of a[i * a_step + c] * b[i * b_step + c]. `width` is a constant: whole vectors.
    """,
)
turn_block = Intrinsic(
    "turn_block", "turn_block(to, to_row, source, source_row): transpose a block of lanes_of(to) rows and columns."
)
tile = Intrinsic(
    "tile",
    """tile(rows, vectors, a, a_row, a_step, b, b_step, c, c_row, count, columns, accumulate): C = A B in registers.

    `rows` and `vectors` are constants, and `columns` is at most that many vectors' elements. A[r, i] is
    a[a_row(r) + a_step(i)] and row i of B starts at b[b_step(i)], where each index is a stride or a table of positions
    (pointer to int64). The sum over i < count goes to C, or is added to it.
    """,
)
all_maxima = Intrinsic(
    "all_maxima",
    """all_maxima(step, x, row_step, column_step, rows, columns, out, at, position): a vector of windows' maxima.

    For as many windows s as one vector of x's type and one of int32 have lanes: out[s] is the largest of
    x[s * step + i * row_step + j * column_step], i < rows, j < columns (the first of equals, a NaN before all), and
    at[s] (int32) where it is, `position` being where x points. `step` is a constant.
    """,
)
some_maxima = Intrinsic("some_maxima", "some_maxima(..., count): all_maxima for the windows s < count alone.")
clipped_maxima = Intrinsic(
    "clipped_maxima",
    """clipped_maxima(..., count, low, high): some_maxima where of each row only x[low] to x[high - 1] exist.

    A window without elements gives 0, and -1 as its position.
    """,
)
