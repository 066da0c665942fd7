"""What tapegrad uses of cuBLAS and cuBLASLt, as data: functions with their argument lists, constants, one structure.

`tests/cuda/test_cublas.py` compares all of it with what `scripts/make_cublas_signatures.py` reads in the headers of CUDA 12
and 13. The names that end in `_64` are the entry points of CUDA 12 and newer that take sizes as 64-bit integers, so that a
matrix may have more than 2^31 - 1 rows, columns or elements between two rows.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

STATUS = "cublasStatus_t"


class Function(NamedTuple):
    """A C function: its name, the type of its result, and (name, type) of each argument as the header has them."""

    name: str
    result: str
    arguments: tuple[tuple[str, str], ...]


def _function(name: str, arguments: str, result: str = STATUS) -> Function:
    """From the arguments as text, "handle: cublasHandle_t, version: int*"."""
    pairs = (part.split(": ") for part in arguments.split(", ") if part)
    return Function(name, result, tuple((argument, kind) for argument, kind in pairs))


_PRODUCT = (
    "handle: cublasHandle_t, transa: cublasOperation_t, transb: cublasOperation_t, m: int64_t, n: int64_t, k: int64_t, "
    "alpha: const void*, A: const void*, Atype: cudaDataType, lda: int64_t, {a}B: const void*, Btype: cudaDataType, "
    "ldb: int64_t, {b}beta: const void*, C: void*, Ctype: cudaDataType, ldc: int64_t, {c}"
    "computeType: cublasComputeType_t, algo: cublasGemmAlgo_t"
)
_STRIDES = {name: f"stride{name.upper()}: long long int, " for name in "abc"}
_STRIDES["c"] += "batchCount: int64_t, "

CUBLAS = (
    _function("cublasCreate_v2", "handle: cublasHandle_t*"),
    _function("cublasDestroy_v2", "handle: cublasHandle_t"),
    _function("cublasGetVersion_v2", "handle: cublasHandle_t, version: int*"),
    _function("cublasGetStatusString", "status: cublasStatus_t", "const char*"),
    _function("cublasSetStream_v2", "handle: cublasHandle_t, streamId: cudaStream_t"),
    _function("cublasSetWorkspace_v2", "handle: cublasHandle_t, workspace: void*, workspaceSizeInBytes: size_t"),
    _function("cublasSetMathMode", "handle: cublasHandle_t, mode: cublasMath_t"),
    _function("cublasGemmEx_64", _PRODUCT.format(a="", b="", c="")),
    _function("cublasGemmStridedBatchedEx_64", _PRODUCT.format(**_STRIDES)),
)

CUBLASLT = (
    _function("cublasLtCreate", "lightHandle: cublasLtHandle_t*"),
    _function("cublasLtDestroy", "lightHandle: cublasLtHandle_t"),
    _function("cublasLtGetStatusString", "status: cublasStatus_t", "const char*"),
    _function(
        "cublasLtMatmul",
        "lightHandle: cublasLtHandle_t, computeDesc: cublasLtMatmulDesc_t, alpha: const void*, A: const void*, "
        "Adesc: cublasLtMatrixLayout_t, B: const void*, Bdesc: cublasLtMatrixLayout_t, beta: const void*, C: const void*, "
        "Cdesc: cublasLtMatrixLayout_t, D: void*, Ddesc: cublasLtMatrixLayout_t, algo: const cublasLtMatmulAlgo_t*, "
        "workspace: void*, workspaceSizeInBytes: size_t, stream: cudaStream_t",
    ),
    _function(
        "cublasLtMatmulDescCreate",
        "matmulDesc: cublasLtMatmulDesc_t*, computeType: cublasComputeType_t, scaleType: cudaDataType_t",
    ),
    _function("cublasLtMatmulDescDestroy", "matmulDesc: cublasLtMatmulDesc_t"),
    _function(
        "cublasLtMatmulDescSetAttribute",
        "matmulDesc: cublasLtMatmulDesc_t, attr: cublasLtMatmulDescAttributes_t, buf: const void*, sizeInBytes: size_t",
    ),
    _function(
        "cublasLtMatrixLayoutCreate",
        "matLayout: cublasLtMatrixLayout_t*, type: cudaDataType, rows: uint64_t, cols: uint64_t, ld: int64_t",
    ),
    _function("cublasLtMatrixLayoutDestroy", "matLayout: cublasLtMatrixLayout_t"),
    _function("cublasLtMatmulPreferenceCreate", "pref: cublasLtMatmulPreference_t*"),
    _function("cublasLtMatmulPreferenceDestroy", "pref: cublasLtMatmulPreference_t"),
    _function(
        "cublasLtMatmulPreferenceSetAttribute",
        "pref: cublasLtMatmulPreference_t, attr: cublasLtMatmulPreferenceAttributes_t, buf: const void*, "
        "sizeInBytes: size_t",
    ),
    _function(
        "cublasLtMatmulAlgoGetHeuristic",
        "lightHandle: cublasLtHandle_t, operationDesc: cublasLtMatmulDesc_t, Adesc: cublasLtMatrixLayout_t, "
        "Bdesc: cublasLtMatrixLayout_t, Cdesc: cublasLtMatrixLayout_t, Ddesc: cublasLtMatrixLayout_t, "
        "preference: cublasLtMatmulPreference_t, requestedAlgoCount: int, "
        "heuristicResultsArray: cublasLtMatmulHeuristicResult_t*, returnAlgoCount: int*",
    ),
)

# Values of enumerations, by their names in the headers.
CONSTANTS = {
    "CUBLAS_STATUS_SUCCESS": 0,
    "CUBLAS_STATUS_NOT_INITIALIZED": 1,
    "CUBLAS_STATUS_ALLOC_FAILED": 3,
    "CUBLAS_STATUS_INVALID_VALUE": 7,
    "CUBLAS_STATUS_ARCH_MISMATCH": 8,
    "CUBLAS_STATUS_MAPPING_ERROR": 11,
    "CUBLAS_STATUS_EXECUTION_FAILED": 13,
    "CUBLAS_STATUS_INTERNAL_ERROR": 14,
    "CUBLAS_STATUS_NOT_SUPPORTED": 15,
    "CUBLAS_STATUS_LICENSE_ERROR": 16,
    "CUBLAS_OP_N": 0,
    "CUBLAS_OP_T": 1,
    "CUBLAS_DEFAULT_MATH": 0,
    "CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION": 16,
    "CUBLAS_GEMM_DEFAULT": -1,
    "CUBLAS_COMPUTE_32F": 68,
    "CUBLAS_COMPUTE_64F": 70,
    "CUBLAS_COMPUTE_32F_FAST_16F": 74,
    "CUBLAS_COMPUTE_32F_FAST_16BF": 75,
    "CUBLAS_COMPUTE_32F_FAST_TF32": 77,
    "CUDA_R_32F": 0,
    "CUDA_R_64F": 1,
    "CUDA_R_16F": 2,
    "CUDA_R_16BF": 14,
    "CUBLASLT_MATMUL_DESC_TRANSA": 3,
    "CUBLASLT_MATMUL_DESC_TRANSB": 4,
    "CUBLASLT_MATMUL_DESC_EPILOGUE": 7,
    "CUBLASLT_MATMUL_DESC_BIAS_POINTER": 8,
    "CUBLASLT_EPILOGUE_DEFAULT": 1,
    "CUBLASLT_EPILOGUE_RELU": 2,
    "CUBLASLT_EPILOGUE_BIAS": 4,
    "CUBLASLT_EPILOGUE_RELU_BIAS": 6,
    "CUBLASLT_EPILOGUE_GELU": 32,
    "CUBLASLT_EPILOGUE_GELU_BIAS": 36,
    "CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES": 1,
    "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES": 5,
    "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES": 6,
    "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES": 7,
    "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES": 8,
}


class MatmulAlgo(ctypes.Structure):
    """cublasLtMatmulAlgo_t: how cuBLASLt carries out a product; its content is cuBLASLt's."""

    _fields_ = (("data", ctypes.c_uint64 * 8),)


class HeuristicResult(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t: an algorithm and the workspace it needs, in bytes."""

    _fields_ = (
        ("algo", MatmulAlgo),
        ("workspaceSize", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("wavesCount", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


STRUCTURES = {"cublasLtMatmulAlgo_t": MatmulAlgo, "cublasLtMatmulHeuristicResult_t": HeuristicResult}

_NUMBERS = {
    "int": ctypes.c_int,
    "int64_t": ctypes.c_int64,
    "uint64_t": ctypes.c_uint64,
    "long long int": ctypes.c_longlong,
    "size_t": ctypes.c_size_t,
    "float": ctypes.c_float,
}
_HANDLES = frozenset(
    "cublasHandle_t cublasLtHandle_t cudaStream_t cublasLtMatmulDesc_t cublasLtMatrixLayout_t "
    "cublasLtMatmulPreference_t".split()
)
_ENUMERATIONS = frozenset(
    "cublasStatus_t cublasOperation_t cublasComputeType_t cublasGemmAlgo_t cublasMath_t cudaDataType cudaDataType_t "
    "cublasLtMatmulDescAttributes_t cublasLtMatmulPreferenceAttributes_t".split()
)


def ctype(name: str, result: bool = False):
    """The ctypes type of a C type of the table. A pointer, and a handle, is an address; an enumeration is an int.

    >>> ctype("const void*"), ctype("cudaDataType")
    (<class 'ctypes.c_void_p'>, <class 'ctypes.c_int'>)
    """
    if result and name == "const char*":
        return ctypes.c_char_p
    if name.endswith("*") or name in _HANDLES:
        return ctypes.c_void_p
    return ctypes.c_int if name in _ENUMERATIONS else _NUMBERS[name]


def prototype(function: Function):
    """The function's type for ctypes, with which it can be called, or written in Python."""
    return ctypes.CFUNCTYPE(ctype(function.result, True), *(ctype(kind) for _, kind in function.arguments))
