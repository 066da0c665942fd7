"""cuBLAS and cuBLASLt as the documents describe them, on host memory: what a call reads and writes, by columns.

Its functions have the types of tapegrad's table, and are called by ctypes as the library's are. A call that breaks a rule of
BLAS (a leading dimension below the number of rows, results that share elements) is answered with CUBLAS_STATUS_INVALID_VALUE, and
so is one of cuBLASLt whose algorithm was chosen for another product, other alignments or less workspace.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from tapegrad.kernels.cuda.cublas_table import CONSTANTS, CUBLAS, CUBLASLT, HeuristicResult, MatmulAlgo, prototype

SUCCESS, INVALID = CONSTANTS["CUBLAS_STATUS_SUCCESS"], CONSTANTS["CUBLAS_STATUS_INVALID_VALUE"]
NAMES = {
    value: name.removeprefix("CUDA_R_") for name, value in CONSTANTS.items() if name.startswith("CUDA_R_")
}  # "32F" …
STORED = {"32F": np.float32, "64F": np.float64, "16F": np.float16, "16BF": np.uint16}
SUMMED = {"32F": np.float32, "64F": np.float64}
KEPT = {"CUBLAS_COMPUTE_32F_FAST_TF32": 11, "CUBLAS_COMPUTE_32F_FAST_16BF": 8, "CUBLAS_COMPUTE_32F_FAST_16F": 11}
ATTRIBUTES = ("TRANSA", "TRANSB", "EPILOGUE", "BIAS_POINTER")
EPILOGUES = {value for name, value in CONSTANTS.items() if name.startswith("CUBLASLT_EPILOGUE_")}
BITS = {CONSTANTS[name]: bits for name, bits in KEPT.items()}


def from_bfloat16(x: np.ndarray) -> np.ndarray:
    """uint16 to the float32 of which it is the upper half."""
    return (x.astype(np.uint32) << 16).view(np.float32)


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """float32 to the upper half of the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def rounded(x: np.ndarray, bits: int) -> np.ndarray:
    """float32 rounded to so many bits of significand."""
    fraction, exponent = np.frexp(x.astype(np.float64))
    return np.ldexp(np.round(np.ldexp(fraction, bits)), exponent - bits)


def matrix(address: int, kind: int, rows: int, columns: int, leading: int) -> np.ndarray:
    """The elements at an address, by columns, as a view of the memory."""
    dtype = np.dtype(STORED[NAMES[kind]])
    if rows == 0 or columns == 0:
        return np.zeros((rows, columns), dtype)
    count = (columns - 1) * leading + rows
    flat = np.ctypeslib.as_array((ctypes.c_char * (count * dtype.itemsize)).from_address(address)).view(dtype)
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (dtype.itemsize, leading * dtype.itemsize))


def values(x: np.ndarray) -> np.ndarray:
    return from_bfloat16(x) if x.dtype == np.uint16 else x


class Emulated:
    """A library: its functions as attributes, and in `log` the names of what was called, with the arguments."""

    def __init__(
        self,
        *without: str,
        answers: dict[str, int] | None = None,
        refuses: Callable[[int, int, int], bool] = lambda m, n, k: False,
        keeps_nan: bool = True,
    ):
        self.refuses = refuses  # sizes for which cuBLASLt has no algorithm
        self.keeps_nan = keeps_nan  # what relu makes of nan
        self.algorithms: dict[int, dict] = {}  # number -> what it was chosen for
        self.log: list[tuple] = []
        self.answers = answers or {}  # a status that a function gives instead of working
        self.objects: dict[int, dict] = {}  # handles and descriptors that exist
        for function in (*CUBLAS, *CUBLASLT):
            if function.name not in without:
                setattr(self, function.name, prototype(function)(self._method(function.name)))

    def _method(self, name: str):
        method = getattr(self, "_" + name.removesuffix("_64").removesuffix("_v2"))

        def called(*arguments):
            self.log.append((name, *arguments))
            return self.answers[name] if name in self.answers else method(*arguments)

        return called

    def called(self, name: str) -> list[tuple]:
        """The arguments of every call of that function."""
        return [arguments for function, *arguments in self.log if function == name]

    def _new(self, place: int, **content) -> int:
        key = 0x7000_0000_0000 + 16 * (len(self.log) + 1)
        self.objects[key] = content
        ctypes.c_void_p.from_address(place).value = key
        return SUCCESS

    def _drop(self, key: int) -> int:
        return SUCCESS if self.objects.pop(key, None) is not None else INVALID

    # cuBLAS

    def _cublasCreate(self, place):
        return self._new(place, stream=0, workspace=None, mode=0)

    def _cublasDestroy(self, handle):
        return self._drop(handle)

    def _cublasGetVersion(self, handle, place):
        ctypes.c_int.from_address(place).value = 120903
        return SUCCESS

    def _cublasGetStatusString(self, status):
        return b"emulated" if status else b"success"

    def _cublasSetStream(self, handle, stream):
        self.objects[handle].update(stream=stream, workspace=None)  # the real one forgets the workspace, too
        return SUCCESS

    def _cublasSetWorkspace(self, handle, workspace, nbytes):
        self.objects[handle]["workspace"] = (workspace, nbytes)
        return SUCCESS

    def _cublasSetMathMode(self, handle, mode):
        self.objects[handle]["mode"] = mode
        return SUCCESS

    def _cublasGemmEx(
        self, handle, transa, transb, m, n, k, alpha, a, at, lda, b, bt, ldb, beta, c, ct, ldc, compute, algo
    ):
        strides = (0, 0, 0)
        return self._gemm(
            (transa, transb), (m, n, k), (a, b, c), (at, bt, ct), (lda, ldb, ldc), strides, 1, alpha, beta, compute
        )

    def _cublasGemmStridedBatchedEx(self, *arguments):
        (_, transa, transb, m, n, k, alpha, a, at, lda, sa, b, bt, ldb, sb, beta, c, ct, ldc, sc, batch, compute, _) = (
            arguments
        )
        sizes, addresses, types = (m, n, k), (a, b, c), (at, bt, ct)
        return self._gemm(
            (transa, transb), sizes, addresses, types, (lda, ldb, ldc), (sa, sb, sc), batch, alpha, beta, compute
        )

    def _gemm(self, ops, sizes, addresses, types, leading, strides, batch, alpha, beta, compute, epilogue=lambda x: x):
        m, n, k = sizes
        shapes = [(m, k) if ops[0] == 0 else (k, m), (k, n) if ops[1] == 0 else (n, k), (m, n)]
        if min(*sizes, batch) < 0 or any(ld < max(1, rows) for ld, (rows, _) in zip(leading, shapes)):
            return INVALID
        written = np.add.outer(np.add.outer(np.arange(batch) * strides[2], np.arange(n) * leading[2]), np.arange(m))
        if np.unique(written).size != written.size:
            return INVALID
        dtype = np.float64 if compute == CONSTANTS["CUBLAS_COMPUTE_64F"] else np.float32
        factors = [
            np.ctypeslib.as_array((ctypes.c_char * dtype().itemsize).from_address(p)).view(dtype)[0]
            for p in (alpha, beta)
        ]
        for i in range(batch):
            a, b, c = (
                matrix(p + i * s * np.dtype(STORED[NAMES[t]]).itemsize, t, *shape, ld)
                for p, s, t, shape, ld in zip(addresses, strides, types, shapes, leading)
            )
            left, right = (values(x.T if op else x) for x, op in ((a, ops[0]), (b, ops[1])))
            if compute in BITS:
                left, right = rounded(left, BITS[compute]), rounded(right, BITS[compute])
            total = factors[0] * (left.astype(np.float64) @ right.astype(np.float64)).astype(dtype)
            if factors[1]:
                total = total + factors[1] * values(c)
            total = epilogue(total)
            c[...] = to_bfloat16(total) if c.dtype == np.uint16 else total
        return SUCCESS

    # cuBLASLt

    _cublasLtDestroy = _cublasLtMatmulDescDestroy = _cublasLtMatrixLayoutDestroy = _drop
    _cublasLtMatmulPreferenceDestroy = _drop
    _cublasLtGetStatusString = _cublasGetStatusString

    def _cublasLtCreate(self, place):
        return self._new(place)

    def _cublasLtMatmulDescCreate(self, place, compute, scale):
        return self._new(place, compute=compute, scale=scale, attributes={})

    def _cublasLtMatmulDescSetAttribute(self, made, attribute, place, nbytes):
        self.objects[made]["attributes"][attribute] = int.from_bytes(ctypes.string_at(place, nbytes), "little")
        return SUCCESS

    def _cublasLtMatrixLayoutCreate(self, place, kind, rows, columns, leading):
        return INVALID if leading < rows else self._new(place, type=kind, shape=(rows, columns), leading=leading)

    def _cublasLtMatmulPreferenceCreate(self, place):
        return self._new(place, attributes={})

    def _cublasLtMatmulPreferenceSetAttribute(self, made, attribute, place, nbytes):
        return self._cublasLtMatmulDescSetAttribute(made, attribute, place, nbytes)

    def _described(self, operation: int, layouts: tuple[int, ...]) -> dict | None:
        """What a product's descriptors say, where they fit each other: sizes, how to read, epilogue."""
        held, (a, b, d) = self.objects[operation], (self.objects[x] for x in layouts)
        given = held["attributes"]
        found = {name: given.get(CONSTANTS[f"CUBLASLT_MATMUL_DESC_{name}"], 0) for name in ATTRIBUTES}
        (m, n), transa, transb = d["shape"], found["TRANSA"], found["TRANSB"]
        k = a["shape"][0] if transa else a["shape"][1]
        wide = held["compute"] == CONSTANTS["CUBLAS_COMPUTE_64F"]
        right = (
            a["shape"] == ((k, m) if transa else (m, k))
            and b["shape"] == ((n, k) if transb else (k, n))
            and held["scale"] == CONSTANTS["CUDA_R_64F" if wide else "CUDA_R_32F"]
            and a["type"] == b["type"]
            and (found["EPILOGUE"] in EPILOGUES)
            and (found["BIAS_POINTER"] != 0 or not found["EPILOGUE"] & CONSTANTS["CUBLASLT_EPILOGUE_BIAS"])
        )
        key = (held["compute"], *(tuple(x.items()) for x in (a, b, d)))
        return found | {"sizes": (m, n, k), "key": (*key, transa, transb, found["EPILOGUE"])} if right else None

    def _cublasLtMatmulAlgoGetHeuristic(self, handle, operation, a, b, c, d, preference, wanted, place, count):
        self.limits = self.objects[preference]["attributes"]
        held = self._described(operation, (a, b, d))
        if handle not in self.objects or held is None or c != d or wanted != 1:
            return INVALID
        if self.refuses(*held["sizes"]):
            return CONSTANTS["CUBLAS_STATUS_NOT_SUPPORTED"]
        result, number = HeuristicResult.from_address(place), 77 + len(self.algorithms)
        self.algorithms[number] = {"key": held["key"], "limits": dict(self.limits)}
        result.algo.data[0], result.workspaceSize, result.state = number, 512, SUCCESS
        ctypes.c_int.from_address(count).value = 1
        return SUCCESS

    def _cublasLtMatmul(self, *arguments):
        handle, operation, alpha, a, al, b, bl, beta, c, cl, d, dl, algo, workspace, nbytes, stream = arguments
        held = self._described(operation, (al, bl, dl))
        if handle not in self.objects or held is None or c != d or cl != dl or not algo:
            return INVALID
        chosen = self.algorithms[MatmulAlgo.from_address(algo).data[0]]
        least = [chosen["limits"][CONSTANTS[f"CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_{x}_BYTES"]] for x in "ABD"]
        bias, code = held["BIAS_POINTER"], held["EPILOGUE"]
        placed = [(a, least[0]), (b, least[1]), (d, least[2]), (bias or d, least[2])]
        if chosen["key"] != held["key"] or nbytes < 512 or any(x % n for x, n in placed):
            return INVALID
        layouts = [self.objects[x] for x in (al, bl, dl)]
        (m, n, k), types = held["sizes"], [x["type"] for x in layouts]

        def epilogue(total):
            if code & CONSTANTS["CUBLASLT_EPILOGUE_BIAS"]:  # one for each row of D, and so for each column by rows
                total = total + values(matrix(bias, types[2], m, 1, m))
            if code & CONSTANTS["CUBLASLT_EPILOGUE_RELU"]:
                total = (np.maximum if self.keeps_nan else np.fmax)(total, 0)
            if code & CONSTANTS["CUBLASLT_EPILOGUE_GELU"]:
                total = 0.5 * total * (1 + np.tanh(np.sqrt(2 / np.pi) * (total + 0.044715 * total**3)))
            return total

        self.used = (stream, workspace, nbytes)
        ops, leading = (held["TRANSA"], held["TRANSB"]), [x["leading"] for x in layouts]
        compute = self.objects[operation]["compute"]
        return self._gemm(ops, (m, n, k), (a, b, d), types, leading, (0, 0, 0), 1, alpha, beta, compute, epilogue)
