"""cuBLAS by ctypes: finding the library, a handle, and what its status codes mean.

A handle belongs to the device whose context is current when it is made, and works in the order of one stream. It computes
float32 as float32: cuBLAS uses TF32 only where a call asks for it. Products of float16 and bfloat16 are summed in float32 to
the end; by its default, cuBLAS may add partial sums in the dtype of the result (CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION).
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Iterable
from functools import cache
from types import SimpleNamespace
from typing import Any

from ...errors import KernelError, OutOfMemory
from .cublas_table import CONSTANTS, CUBLAS, Function, ctype
from .faults import EXTRA
from .gemm import COMPUTE_64F, Gemm

SUCCESS = CONSTANTS["CUBLAS_STATUS_SUCCESS"]
NAMES = {value: name for name, value in CONSTANTS.items() if name.startswith("CUBLAS_STATUS_")}
MEANS = {
    "CUBLAS_STATUS_NOT_INITIALIZED": "it could not start; is there a GPU with a driver new enough, and memory left? "
    "tg.cuda.why_not() says what is missing",
    "CUBLAS_STATUS_ALLOC_FAILED": "no memory was left on the GPU for its work; free tensors, or use a smaller batch",
    "CUBLAS_STATUS_INVALID_VALUE": "an argument is out of its range; please report this with the shapes",
    "CUBLAS_STATUS_ARCH_MISMATCH": "this GPU cannot do it; use float32, or a GPU of compute capability 7.5 or newer",
    "CUBLAS_STATUS_MAPPING_ERROR": "memory of the GPU could not be accessed; was a tensor freed while it was in use?",
    "CUBLAS_STATUS_EXECUTION_FAILED": "the GPU failed while it ran; an earlier kernel may have failed, so restart Python",
    "CUBLAS_STATUS_INTERNAL_ERROR": "it failed inside; an earlier kernel may have failed, so restart Python",
    "CUBLAS_STATUS_NOT_SUPPORTED": "it has no product of these dtypes, sizes or alignments; try float32",
    "CUBLAS_STATUS_LICENSE_ERROR": "its license check failed",
}
MIB = 1 << 20


def sentence(status: int, what: str, said: bytes | None = None) -> str:
    """What a cublasStatus_t that is not success means, in a sentence.

    >>> sentence(3, "cuBLAS: matmul")
    'cuBLAS: matmul: no memory was left on the GPU for its work; free tensors, or use a smaller batch (CUBLAS_STATUS_ALLOC_FAILED)'
    """
    name = NAMES.get(status)
    if name is None:
        return f"{what}: it answered with status {status}" + (f", {said.decode()}" if said else "")
    return f"{what}: {MEANS[name]} ({name})"


def checked(status: int, what: str, said: Any = None) -> None:
    """Raise where a status is not success. said: the library's own function from a status to its text."""
    if status == SUCCESS:
        return
    error = OutOfMemory if NAMES.get(status) == "CUBLAS_STATUS_ALLOC_FAILED" else KernelError
    raise error(sentence(status, what, said(status) if said else None))


def bound(library: Any, functions: Iterable[Function]) -> SimpleNamespace:
    """The functions of a loaded library with their types set, as attributes."""
    found = SimpleNamespace()
    for function in functions:
        try:
            entry = getattr(library, function.name)
        except AttributeError:
            raise KernelError(
                f"cuBLAS at {getattr(library, '_name', library)} has no {function.name}; it is older than CUDA 12. "
                f"Install a newer one: {EXTRA}"
            ) from None
        entry.restype = ctype(function.result, True)
        entry.argtypes = [ctype(kind) for _, kind in function.arguments]
        setattr(found, function.name, entry)
    return found


def load(name: str) -> ctypes.CDLL:
    """The library "cublas" or "cublasLt" of CUDA 12 or 13, from the packages of NVIDIA or from the system."""
    try:
        pathfinder = importlib.import_module("cuda.pathfinder")
    except ImportError:
        raise KernelError(
            f"cuda-pathfinder is not installed, which finds cuBLAS for products on a GPU; {EXTRA}"
        ) from None
    try:
        found = pathfinder.load_nvidia_dynamic_lib(name)
    except (RuntimeError, OSError) as error:
        raise KernelError(f"{name} was not found, which multiplies matrices on a GPU; {EXTRA}") from error
    return ctypes.CDLL(found.abs_path)


@cache
def library() -> SimpleNamespace:
    """The functions of cuBLAS."""
    return bound(load("cublas"), CUBLAS)


def workspace_bytes(cc: tuple[int, int]) -> int:
    """Bytes of device memory that cuBLAS is given to work in, for a compute capability; NVIDIA's advice for cublasSetWorkspace.

    >>> workspace_bytes((8, 0)) // MIB, workspace_bytes((9, 0)) // MIB
    (4, 32)
    """
    return {9: 32, 10: 32, 12: 12}.get(cc[0], 4) * MIB


class Factors:
    """1 and 0 as float32 and float64 in host memory, for the alpha and beta of calls."""

    def __init__(self) -> None:
        self._single = (ctypes.c_float * 2)(0.0, 1.0)
        self._double = (ctypes.c_double * 2)(0.0, 1.0)

    def of(self, compute: int, accumulate: bool) -> tuple[int, int]:
        """The addresses of alpha = 1 and of beta = 1 or 0, in the type that the compute type wants."""
        held = self._double if compute == COMPUTE_64F else self._single
        first, size = ctypes.addressof(held), ctypes.sizeof(held) // 2
        return first + size, first + size * accumulate


class Cublas:
    """A handle of cuBLAS on the device whose context is current.

    functions: of another library than the installed one, as `bound` gives them. Two threads must not use one handle at once.
    """

    def __init__(self, functions: SimpleNamespace | None = None):
        self._functions = functions or library()
        self._factors = Factors()
        self._handle: int | None = None
        handle = ctypes.c_void_p()
        self._check(self._functions.cublasCreate_v2(ctypes.addressof(handle)), "making a handle")
        self._handle = handle.value
        mode = CONSTANTS["CUBLAS_DEFAULT_MATH"] | CONSTANTS["CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION"]
        self._check(self._functions.cublasSetMathMode(self._handle, mode), "setting the mode")

    def use(self, stream: int, workspace: int, nbytes: int) -> None:
        """Work in the order of this stream, with this device memory (aligned to 256 bytes) as workspace.

        With a workspace of ours, cuBLAS allocates nothing, so that its calls can be captured in a graph, and results
        are the same from run to run.
        """
        functions = self._functions
        # in this order: setting the stream puts cuBLAS's own workspace back
        self._check(functions.cublasSetStream_v2(self._handle, stream), "setting the stream")
        self._check(functions.cublasSetWorkspace_v2(self._handle, workspace, nbytes), "setting the workspace")

    def run(self, call: Gemm, addresses: tuple[int, ...]) -> None:
        """Put one call on the stream. addresses: of the operands A, B, C, in device memory."""
        factors = self._factors.of(call.compute, call.accumulate)
        status = getattr(self._functions, call.function)(self._handle, *call.arguments(addresses, *factors))
        if status != SUCCESS:
            sizes = f"{call.n} x {call.k} by {call.k} x {call.m}" + (f", {call.batch} times" if call.batch > 1 else "")
            self._check(status, f"matmul of {sizes}")

    def version(self) -> tuple[int, int, int]:
        """Of the library, such as (12, 9, 3)."""
        number = ctypes.c_int()
        status = self._functions.cublasGetVersion_v2(self._handle, ctypes.addressof(number))
        self._check(status, "asking for its version")
        return number.value // 10_000, number.value // 100 % 100, number.value % 100

    def close(self) -> None:
        """Give the handle back; a second call does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._check(self._functions.cublasDestroy_v2(handle), "giving a handle back")

    def _check(self, status: int, what: str) -> None:
        checked(status, f"cuBLAS: {what}", self._functions.cublasGetStatusString)
