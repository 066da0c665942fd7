"""Dense layers by cuBLASLt: a product with the bias added and the activation applied before the result is written.

It saves a pass over the result, which pays where the layer is bound by memory: few inputs per output, or a small batch. The
bias runs along the last axis of a product by rows, which is the first axis by columns, where cuBLASLt wants it.
"""

from __future__ import annotations

import ctypes
from functools import cache
from types import SimpleNamespace
from typing import NamedTuple

from ...errors import KernelError
from ...layouts import Layout
from .cublas import SUCCESS, Factors, bound, checked, load
from .cublas_table import CONSTANTS, CUBLASLT, HeuristicResult, MatmulAlgo
from .gemm import COMPUTE_64F, OP_N, TYPES, Gemm, Matrix, gemm

# (activation, with a bias): the epilogue. cuBLASLt's GELU is the tanh approximation.
EPILOGUES = {
    (None, False): CONSTANTS["CUBLASLT_EPILOGUE_DEFAULT"],
    (None, True): CONSTANTS["CUBLASLT_EPILOGUE_BIAS"],
    ("relu", False): CONSTANTS["CUBLASLT_EPILOGUE_RELU"],
    ("relu", True): CONSTANTS["CUBLASLT_EPILOGUE_RELU_BIAS"],
    ("gelu_tanh", False): CONSTANTS["CUBLASLT_EPILOGUE_GELU"],
    ("gelu_tanh", True): CONSTANTS["CUBLASLT_EPILOGUE_GELU_BIAS"],
}
BIAS = 3  # place of the bias in the operands, after A, B and C
ALIGNED = 256  # bytes; more than this makes no difference to cuBLASLt


class Dense(NamedTuple):
    """A product with an epilogue; operands: A, B, C and, where `bias` is set, the bias."""

    gemm: Gemm
    epilogue: int
    bias: bool
    activation: str | None = None

    def placed(self, addresses: tuple[int, ...]) -> tuple[int, ...]:
        """Where cuBLASLt reads and writes: the first, the second and the result's matrix, and the bias; from the operands'."""
        matrices = (self.gemm.first, self.gemm.second, self.gemm.result)
        found = tuple(addresses[x.operand] + x.start for x in matrices)
        return (*found, addresses[BIAS]) if self.bias else found

    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of the first, the second and the result's matrix as they lie in memory, by columns, before `op`."""

        def stored(op: int, rows: int, columns: int) -> tuple[int, int]:
            return (rows, columns) if op == OP_N else (columns, rows)

        m, n, k = self.gemm.m, self.gemm.n, self.gemm.k
        return stored(self.gemm.first.op, m, k), stored(self.gemm.second.op, k, n), (m, n)


def dense(
    a: Layout,
    b: Layout,
    out: Layout,
    *,
    turned_b: bool = False,
    bias: Layout | None = None,
    activation: str | None = None,
    precision: str = "float32",
) -> Dense | None:
    """out = activation(a @ b + bias) as one call, or None where cuBLASLt has none: then it is a product and a chain of ops.

    a: (m, k), b: (k, n), or (n, k) where `turned_b`; bias: (n,), contiguous, of out's dtype; out: (m, n). activation: None,
    "relu", or "gelu_tanh", gelu's tanh approximation. Not for float64, batches, and products of nothing.

    >>> from tapegrad.dtypes import float32
    >>> from tapegrad.layouts import layout
    >>> call = dense(layout((2, 3), float32), layout((3, 4), float32), layout((2, 4), float32), activation="relu")
    >>> call.epilogue == CONSTANTS["CUBLASLT_EPILOGUE_RELU"]
    True
    """
    epilogue = EPILOGUES.get((activation, bias is not None))
    if epilogue is None or a.dtype.name not in TYPES or a.dtype.name == "float64":
        return None
    if bias is not None and (bias.shape != (out.shape[-1],) or not bias.contiguous or bias.dtype is not out.dtype):
        return None
    calls = gemm(a, b, out, turned_b=turned_b, precision=precision).calls
    if len(calls) != 1 or calls[0].batch != 1:
        return None
    return Dense(calls[0], epilogue, bias is not None, activation)


@cache
def library() -> SimpleNamespace:
    """The functions of cuBLASLt."""
    return bound(load("cublasLt"), CUBLASLT)


def alignment(address: int) -> int:
    """The largest power of two that divides an address, at most 256.

    >>> alignment(4096), alignment(36)
    (256, 4)
    """
    return min(address & -address, ALIGNED) if address else ALIGNED


class Prepared:
    """A dense layer's descriptors and the algorithm that cuBLASLt chose, for addresses of given alignments. Close it."""

    __slots__ = ("algorithm", "alignments", "call", "layouts", "operation", "workspace")

    def __init__(self, call: Dense, alignments: tuple[int, ...]):
        self.call = call
        self.alignments = alignments
        self.operation: int | None = None
        self.layouts: list[int] = []
        self.algorithm = MatmulAlgo()
        self.workspace = 0  # bytes that the algorithm needs


class CublasLt:
    """A handle of cuBLASLt on the device whose context is current; `functions` as in `Cublas`."""

    def __init__(self, functions: SimpleNamespace | None = None):
        self._functions = functions or library()
        self._factors = Factors()
        self._handle: int | None = self._made("cublasLtCreate", "making a handle")

    def prepare(self, call: Dense, addresses: tuple[int, ...], workspace_bytes: int) -> Prepared | None:
        """Ask cuBLASLt how to carry out a dense layer on those addresses; None where it knows no way.

        What comes back fits any addresses that are aligned alike, and wants `workspace` bytes, at most `workspace_bytes`.
        """
        product = call.gemm
        matrices = (product.first, product.second, product.result)
        found = Prepared(call, tuple(map(alignment, call.placed(addresses))))
        try:
            found.operation = self._operation(call)
            if call.bias:
                self._set(found.operation, "CUBLASLT_MATMUL_DESC_BIAS_POINTER", ctypes.c_void_p(addresses[BIAS]))
            found.layouts = []
            for matrix, shape in zip(matrices, call.shapes(), strict=True):
                found.layouts.append(self._layout(matrix, *shape))
            result = self._heuristic(found, workspace_bytes)
        except BaseException:
            self.close_prepared(found)
            raise
        if result is None:
            self.close_prepared(found)
            return None
        found.algorithm, found.workspace = result.algo, result.workspaceSize
        return found

    def run(self, prepared: Prepared, addresses: tuple[int, ...], stream: int, workspace: int) -> None:
        """Put a prepared layer on the stream. addresses: of A, B, C and the bias; workspace: of `prepared.workspace` bytes."""
        call = prepared.call
        product = call.gemm
        a, b, c, *_ = placed = call.placed(addresses)
        if any(address % least for address, least in zip(placed, prepared.alignments, strict=True)):
            raise KernelError(
                f"cuBLASLt: a dense layer was prepared for addresses aligned to {prepared.alignments} bytes and came with "
                f"{tuple(map(alignment, placed))}; prepare it for these"
            )
        if call.bias:
            self._set(prepared.operation, "CUBLASLT_MATMUL_DESC_BIAS_POINTER", ctypes.c_void_p(addresses[BIAS]))
        alpha, beta = self._factors.of(product.compute, product.accumulate)
        first, second, result = prepared.layouts
        status = self._functions.cublasLtMatmul(
            *(self._handle, prepared.operation, alpha, a, first, b, second, beta, c, result, c, result),
            *(ctypes.addressof(prepared.algorithm), workspace, prepared.workspace, stream),
        )
        self._check(status, f"dense layer of {product.n} x {product.k} by {product.k} x {product.m}")

    def close_prepared(self, prepared: Prepared) -> None:
        """Give its descriptors back; a second call does nothing."""
        operation, prepared.operation = prepared.operation, None
        if operation is not None:
            self._check(self._functions.cublasLtMatmulDescDestroy(operation), "giving a descriptor back")
        while prepared.layouts:
            self._check(self._functions.cublasLtMatrixLayoutDestroy(prepared.layouts.pop()), "giving a layout back")

    def close(self) -> None:
        """Give the handle back; a second call does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._check(self._functions.cublasLtDestroy(handle), "giving a handle back")

    def _operation(self, call: Dense) -> int:
        """The descriptor of the operation: compute type, transposes, epilogue."""
        product = call.gemm
        scale = TYPES["float64" if product.compute == COMPUTE_64F else "float32"]
        made = self._made("cublasLtMatmulDescCreate", "describing a product", product.compute, scale)
        self._set(made, "CUBLASLT_MATMUL_DESC_TRANSA", ctypes.c_int32(product.first.op))
        self._set(made, "CUBLASLT_MATMUL_DESC_TRANSB", ctypes.c_int32(product.second.op))
        self._set(made, "CUBLASLT_MATMUL_DESC_EPILOGUE", ctypes.c_uint32(call.epilogue))
        return made

    def _layout(self, matrix: Matrix, rows: int, columns: int) -> int:
        words = (matrix.type, rows, columns, matrix.leading)
        return self._made("cublasLtMatrixLayoutCreate", "describing a matrix", *words)

    def _heuristic(self, prepared: Prepared, workspace_bytes: int) -> HeuristicResult | None:
        """cuBLASLt's first choice of an algorithm, or None."""
        functions = self._functions
        preference = self._made("cublasLtMatmulPreferenceCreate", "stating a preference")
        try:
            limits: list[tuple[str, ctypes.c_uint64 | ctypes.c_uint32]] = [
                ("MAX_WORKSPACE_BYTES", ctypes.c_uint64(workspace_bytes))
            ]
            a, b, c, *_ = prepared.alignments
            for letter, least in zip("ABCD", (a, b, c, min(prepared.alignments[2:])), strict=True):
                limits.append((f"MIN_ALIGNMENT_{letter}_BYTES", ctypes.c_uint32(least)))
            for name, value in limits:
                attribute = CONSTANTS[f"CUBLASLT_MATMUL_PREF_{name}"]
                words = (preference, attribute, ctypes.addressof(value), ctypes.sizeof(value))
                self._check(functions.cublasLtMatmulPreferenceSetAttribute(*words), "stating a preference")
            first, second, result = prepared.layouts
            answer, count = HeuristicResult(), ctypes.c_int()
            status = functions.cublasLtMatmulAlgoGetHeuristic(
                *(self._handle, prepared.operation, first, second, result, result, preference, 1),
                *(ctypes.addressof(answer), ctypes.addressof(count)),
            )
        finally:
            functions.cublasLtMatmulPreferenceDestroy(preference)
        if status == CONSTANTS["CUBLAS_STATUS_NOT_SUPPORTED"]:
            return None
        self._check(status, "choosing an algorithm")
        return answer if count.value and answer.state == SUCCESS else None

    def _made(self, function: str, what: str, *words: int) -> int:
        """What a function that creates something puts into its first argument."""
        place = ctypes.c_void_p()
        self._check(getattr(self._functions, function)(ctypes.addressof(place), *words), what)
        return place.value or 0

    def _set(self, operation: int | None, name: str, value) -> None:
        """An attribute of an operation; cuBLASLt copies the value."""
        words = (operation, CONSTANTS[name], ctypes.addressof(value), ctypes.sizeof(value))
        self._check(self._functions.cublasLtMatmulDescSetAttribute(*words), "describing a product")

    def _check(self, status: int, what: str) -> None:
        checked(status, f"cuBLASLt: {what}", self._functions.cublasLtGetStatusString)
