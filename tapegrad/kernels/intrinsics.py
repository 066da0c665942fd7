"""What the words of `language.py` compile to, as Numba intrinsics. Imported only to compile a skeleton.

An intrinsic here has the name it has in `language.py`.
"""

# mypy: ignore-errors
# Numba calls and types these functions, by its own rules
from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .tiles import add_products, lanes_of, tile, turn_block  # noqa: F401 (found by name, as all below)
from .windows import all_maxima, clipped_maxima, some_maxima  # noqa: F401

I32, I64 = ir.IntType(32), ir.IntType(64)
_BITS = {types.float32: types.int32, types.float64: types.int64}
_FLOATS = {bits: number for number, bits in _BITS.items()}


@intrinsic
def offset(_, pointer, i):
    if not isinstance(pointer, types.CPointer):
        return None

    def generate(context, builder, signature, args):
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.int64), generate


@intrinsic
def bits_to_float(_, i):
    return _bitcast(_FLOATS.get(i), i)


@intrinsic
def float_to_bits(_, x):
    return _bitcast(_BITS.get(x), x)


def _bitcast(to, source):
    if to is None:
        return None

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(to))

    return to(source), generate


@intrinsic
def maximum(_, a, b):
    return _extreme("llvm.maximum", ">", a, b)


@intrinsic
def minimum(_, a, b):
    return _extreme("llvm.minimum", "<", a, b)


def _extreme(name, relation, a, b):
    """Numba's own max and min are compare-and-select, which LLVM does not vectorise unless it may ignore nan."""
    if a != b or not isinstance(a, types.Float | types.Integer):
        return None

    def generate(context, builder, signature, args):
        if isinstance(a, types.Float):
            number = args[0].type
            function = builder.module.declare_intrinsic(name, [number], ir.FunctionType(number, [number, number]))
            return builder.call(function, args)
        compare = builder.icmp_signed if a.signed else builder.icmp_unsigned
        return builder.select(compare(relation, *args), *args)

    return a(a, b), generate


@intrinsic
def cast_pointer(_, pointer, like):
    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(like))

    return like(pointer, like), generate


@intrinsic
def pointer_at(_, address, like):
    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(like))

    return like(types.int64, like), generate


@intrinsic
def copy(_, to, source, n):
    def generate(context, builder, signature, args):
        size = context.get_abi_sizeof(context.get_data_type(to.dtype))
        cgutils.raw_memmove(builder, args[0], args[1], args[2], I64(size))
        return context.get_dummy_value()

    return types.none(to, source, types.int64), generate


@intrinsic
def fill_zero(_, pointer, n):
    def generate(context, builder, signature, args):
        size = context.get_abi_sizeof(context.get_data_type(pointer.dtype))
        cgutils.memset(builder, args[0], builder.mul(args[1], I64(size)), 0)
        return context.get_dummy_value()

    return types.none(pointer, types.int64), generate


# BLAS, row-major, by the C interface. i: int, f: number of the matrices' dtype, p: pointer


@intrinsic
def gemm(_, address, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
    return cblas("iiiiifpipifpi", [ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc])


@intrinsic
def gemv(_, address, ta, m, n, alpha, a, lda, x, incx, beta, y, incy):
    return cblas("iiifpipifpi", [ta, m, n, alpha, a, lda, x, incx, beta, y, incy])


@intrinsic
def ger(_, address, m, n, alpha, x, incx, y, incy, a, lda):
    return cblas("iifpipipi", [m, n, alpha, x, incx, y, incy, a, lda])


@intrinsic
def syrk(_, address, uplo, ta, n, k, alpha, a, lda, beta, c, ldc):
    return cblas("iiiifpifpi", [uplo, ta, n, k, alpha, a, lda, beta, c, ldc])


@intrinsic
def trsm(_, address, side, uplo, ta, diag, m, n, alpha, a, lda, b, ldb):
    return cblas("iiiiiifpipi", [side, uplo, ta, diag, m, n, alpha, a, lda, b, ldb])


@intrinsic
def dot(_, address, n, x, incx, y, incy):
    return cblas("ipipi", [n, x, incx, y, incy], order=False, gives=x.dtype)


def cblas(kinds, given, order=True, gives=None):
    """Signature and code of a call of a C BLAS function; `order` puts "row-major" in front."""
    number = next(t.dtype for t, kind in zip(given, kinds, strict=True) if kind == "p")
    wanted = [{"i": types.int32, "f": number, "p": t}[kind] for t, kind in zip(given, kinds, strict=True)]

    def generate(context, builder, signature, args):
        passed = [I32(101), *args[1:]] if order else args[1:]
        result = call_address(builder, args[0], passed, gives and context.get_value_type(gives))
        return result if gives else context.get_dummy_value()

    return (gives or types.none)(types.int64, *wanted), generate


# LAPACK, column-major, by the Fortran interface: every argument is passed by address, `info` comes back


@intrinsic
def getrf(_, address, m, n, a, lda, ipiv):
    return lapack("iipip", [m, n, a, lda, ipiv])


@intrinsic
def getrs(_, address, trans, n, nrhs, a, lda, ipiv, b, ldb):
    return lapack("ciipippi", [trans, n, nrhs, a, lda, ipiv, b, ldb])


@intrinsic
def gesv(_, address, n, nrhs, a, lda, ipiv, b, ldb):
    return lapack("iipippi", [n, nrhs, a, lda, ipiv, b, ldb])


@intrinsic
def potrf(_, address, uplo, n, a, lda):
    return lapack("cipi", [uplo, n, a, lda])


@intrinsic
def potrs(_, address, uplo, n, nrhs, a, lda, b, ldb):
    return lapack("ciipipi", [uplo, n, nrhs, a, lda, b, ldb])


@intrinsic
def trtrs(_, address, uplo, trans, diag, n, nrhs, a, lda, b, ldb):
    return lapack("ccciipipi", [uplo, trans, diag, n, nrhs, a, lda, b, ldb])


def lapack(kinds, given):
    """Signature and code of a call of a LAPACK routine; c: one character, as an int. The result is `info`."""
    plain = {"i": types.int32, "c": types.uint8}
    wanted = [plain.get(kind, t) for t, kind in zip(given, kinds, strict=True)]

    def generate(context, builder, signature, args):
        info = cgutils.alloca_once_value(builder, I32(0))
        passed = [
            arg if kind == "p" else cgutils.alloca_once_value(builder, arg)
            for arg, kind in zip(args[1:], kinds, strict=True)
        ]
        lengths = [I64(1)] * kinds.count("c")  # gfortran's hidden lengths of character arguments
        call_address(builder, args[0], [*passed, info, *lengths])
        return builder.sext(builder.load(info), I64)

    return types.int64(types.int64, *wanted), generate


def call_address(builder, address, args, result=None):
    """Call the C function at `address` (an int64) with LLVM values; `result` is its LLVM type, void by default."""
    kind = ir.FunctionType(result or ir.VoidType(), [a.type for a in args])
    return builder.call(builder.inttoptr(address, kind.as_pointer()), args)
