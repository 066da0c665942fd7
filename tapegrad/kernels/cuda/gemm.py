"""Matrix products as calls of cuBLAS: from layouts to the exact arguments, as data. Nothing here touches a GPU.

cuBLAS keeps matrices by columns, tapegrad by rows. The same memory read by columns is the transpose, and C^T = B^T A^T, so B
comes first, A second, and m and n change places. A transposed view is a flag, never a copy.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from ...errors import DtypeError, KernelError
from ...layouts import Layout, layout
from ...precision import PRECISIONS
from ..matmul import PLAIN, Batches, Operand, as_operand, batches, in_order, matmul_accepts, turned
from .cublas_table import CONSTANTS

OP_N, OP_T = CONSTANTS["CUBLAS_OP_N"], CONSTANTS["CUBLAS_OP_T"]
TYPES = {
    "float32": CONSTANTS["CUDA_R_32F"],
    "float64": CONSTANTS["CUDA_R_64F"],
    "float16": CONSTANTS["CUDA_R_16F"],
    "bfloat16": CONSTANTS["CUDA_R_16BF"],
}
# how float32 is multiplied; float16 and bfloat16 are always multiplied exactly and summed in float32
COMPUTE = {
    "float32": CONSTANTS["CUBLAS_COMPUTE_32F"],
    "tf32": CONSTANTS["CUBLAS_COMPUTE_32F_FAST_TF32"],
    "bfloat16": CONSTANTS["CUBLAS_COMPUTE_32F_FAST_16BF"],
    "float16": CONSTANTS["CUBLAS_COMPUTE_32F_FAST_16F"],
}
COMPUTE_64F = CONSTANTS["CUBLAS_COMPUTE_64F"]
DEFAULT_ALGORITHM = CONSTANTS["CUBLAS_GEMM_DEFAULT"]
MOST_CALLS = 8  # with more, a copy of an operand to C order, which is one launch, saves many


class Matrix(NamedTuple):
    """A matrix as cuBLAS is told of it.

    operand: place in the product's operands (0: A, 1: B, 2: C); start: bytes to its first element; op: CUBLAS_OP_N or _T;
    leading: elements between columns; stride: elements between the matrices of a batch; type: a cudaDataType.
    """

    operand: int
    start: int
    op: int
    leading: int
    stride: int
    type: int


class Gemm(NamedTuple):
    """One call: `result` = op(first) op(second), or that added to it, for each of `batch` matrices; m, n, k as cuBLAS counts."""

    m: int
    n: int
    k: int
    first: Matrix
    second: Matrix
    result: Matrix
    batch: int
    compute: int
    accumulate: bool

    @property
    def function(self) -> str:
        """The name of the C function."""
        return "cublasGemmEx_64" if self.batch == 1 else "cublasGemmStridedBatchedEx_64"

    def arguments(self, addresses: tuple[int, ...], alpha: int, beta: int) -> tuple[int, ...]:
        """What follows the handle in the function's argument list.

        addresses: of the operands A, B, C in bytes; alpha, beta: addresses of the factors on the host, of float64 where
        `compute` is CUBLAS_COMPUTE_64F and of float32 elsewhere.
        """
        words: list[int] = [self.first.op, self.second.op, self.m, self.n, self.k, alpha]
        for matrix in (self.first, self.second, self.result):
            if matrix is self.result:
                words.append(beta)
            words += (addresses[matrix.operand] + matrix.start, matrix.type, matrix.leading)
            if self.batch != 1:
                words.append(matrix.stride)
        if self.batch != 1:
            words.append(self.batch)
        return (*words, self.compute, DEFAULT_ALGORITHM)


class Product(NamedTuple):
    """The calls of a product; `zero`: there is nothing to add up, and the result is to be filled with zeros instead."""

    calls: tuple[Gemm, ...]
    zero: bool = False


def has_gemm(dtype_name: str) -> bool:
    """Whether cuBLAS multiplies matrices of that dtype: floats; integers need a kernel.

    >>> has_gemm("float32"), has_gemm("int64")
    (True, False)
    """
    return dtype_name in TYPES


def compute_type(a: str, b: str, out: str, precision: str = "float32") -> int:
    """The cublasComputeType_t for the dtypes of A, B and C. `precision` is that of `tg.matmul_precision`.

    float64 is multiplied as float64 and float32 as `precision` says; float16 and bfloat16 are summed in float32, and
    their product may be of their dtype or float32.
    """
    if precision not in PRECISIONS:
        raise KernelError(f"matmul: precision {precision!r} is none of {', '.join(PRECISIONS)}")
    if a != b or a not in TYPES or out not in ((a, "float32") if a in ("float16", "bfloat16") else (a,)):
        raise DtypeError(
            f"matmul: cuBLAS has no product of {a} and {b} that gives {out}; wanted two of float32, float64, float16 or "
            "bfloat16 giving the same, or float32 from the latter two. Convert with .astype()."
        )
    if a == "float64":
        return COMPUTE_64F
    return COMPUTE[precision] if a == "float32" else COMPUTE["float32"]


def gemm(
    a: Layout,
    b: Layout,
    out: Layout,
    *,
    turned_b: bool = False,
    order: tuple[int, ...] | None = None,
    precision: str = "float32",
    accumulate: bool = False,
) -> Product:
    """The calls that compute out = a @ b, or out += a @ b where `accumulate` is set.

    a: (..., m, k), b: (..., k, n), or (..., n, k) where `turned_b`; leading axes broadcast. out: (..., m, n), or its axes in
    that `order`, contiguous in the last. `operands_to_copy` says which of a and b to bring to C order before.
    Leading axes that do not merge make several calls, the longest of them a call's batch.

    >>> from tapegrad.dtypes import float32
    >>> (call,) = gemm(layout((2, 3), float32), layout((3, 4), float32), layout((2, 4), float32)).calls
    >>> call.m, call.n, call.k, call.first.leading, call.second.leading, call.result.leading
    (4, 2, 3, 4, 3, 4)
    """
    compute = compute_type(a.dtype.name, b.dtype.name, out.dtype.name, precision)
    b = turned(b) if turned_b else b
    out = in_order(out, order) if order is not None else out
    left, right, into = as_operand(a), as_operand(b), as_operand(out)
    if left is None or right is None or into is None or into.how != PLAIN:
        x = next((x for x, how in ((a, left), (b, right)) if how is None), out)
        raise KernelError(
            f"matmul: cuBLAS cannot read {x}; one of the last two strides has to be 1. Copy it to C order."
        )
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    if out.size == 0:
        return Product(())
    if k == 0:
        return Product((), zero=not accumulate)
    lead, m = _tall(batches(a, b, out), left, into, m)
    return Product(tuple(_calls((left, right, into), (a, b, out), lead, (n, m, k), compute, accumulate)))


def _tall(lead: Batches, left: Operand, into: Operand, m: int) -> tuple[Batches, int]:
    """Batches whose right matrix is the same, and whose left ones follow one another, as one tall matrix."""
    for i, length in enumerate(lead.lengths):
        follows = lead.left[i] == m * left.leading and lead.out[i] == m * into.leading
        if lead.right[i] == 0 and left.how == PLAIN and follows:
            return Batches(*(axis[:i] + axis[i + 1 :] for axis in lead)), m * length
    return lead, m


def _calls(how, layouts, lead: Batches, sizes: tuple[int, int, int], compute: int, accumulate: bool):
    """A call for each position in all leading axes but the longest, which is the calls' batch."""
    inmost = max(range(len(lead.lengths)), key=lead.lengths.__getitem__, default=None)
    others = [i for i in range(len(lead.lengths)) if i != inmost]
    for index in product(*(range(lead.lengths[i]) for i in others)):
        matrices = []
        for operand, strides in enumerate(lead[1:]):
            x = layouts[operand].dtype
            start = sum(position * strides[i] for position, i in zip(index, others, strict=True)) * x.itemsize
            op = OP_N if how[operand].how == PLAIN else OP_T
            stride = 0 if inmost is None else strides[inmost]
            matrices.append(Matrix(operand, start, op, how[operand].leading, stride, TYPES[x.name]))
        a, b, c = matrices
        batch = 1 if inmost is None else lead.lengths[inmost]
        yield Gemm(*sizes, b, a, c, batch, compute, accumulate)


def operands_to_copy(
    a: Layout, b: Layout, out: Layout, *, turned_b: bool = False, order: tuple[int, ...] | None = None
) -> tuple[int, ...]:
    """Which of a (0) and b (1) to copy to C order before `gemm`: those that cuBLAS cannot read, and those whose leading axes
    would make more than 8 calls that a copy makes fewer.

    >>> from tapegrad.dtypes import float32
    >>> operands_to_copy(layout((2, 3), float32, (6, 2)), layout((4, 3), float32), layout((2, 4), float32), turned_b=True)
    (0,)
    """
    needed = tuple(i for i, x in enumerate((a, b)) if not matmul_accepts(x))
    choices = [needed] + [c for c in ((0,), (1,), (0, 1)) if set(c) > set(needed)]
    fewest = None
    for choice in choices:
        plain = [layout(x.shape, x.dtype, None, x.device) if i in choice else x for i, x in enumerate((a, b))]
        calls = _count(plain[0], turned(plain[1]) if turned_b else plain[1], in_order(out, order) if order else out)
        if calls <= MOST_CALLS:
            return choice
        if fewest is None or calls < fewest[0]:
            fewest = (calls, choice)
    return fewest[1] if fewest else needed


def _count(a: Layout, b: Layout, out: Layout) -> int:
    """How many calls `gemm` makes at most."""
    lengths = sorted(batches(a, b, out).lengths)
    total = 1
    for length in lengths[:-1]:
        total *= length
    return total
