"""Addresses of BLAS and LAPACK routines in the OpenBLAS of the package scipy-openblas32.

OpenBLAS runs on one thread, always: tapegrad's own threads split the work, and two pools on the same cores fight (20
instead of 440 GFLOP/s). Its routines may be called from several threads at once.
"""

from __future__ import annotations

import ctypes
import os
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ..errors import KernelError
from .jit import HOST

CBLAS = frozenset({"gemm", "gemv", "ger", "dot", "axpy", "scal", "nrm2", "syrk", "symm", "trsm", "trmm"})
_WIDTH = {"SkylakeX": 512, "Cooperlake": 512, "SapphireRapids": 512, "Haswell": 256, "Zen": 256, "Excavator": 256}


@cache
def address(name: str) -> int:
    """The address of a routine by its usual name: "sgemm" (C interface, row-major), "dgetrf" (Fortran interface).

    >>> address("sgemm") != address("dgemm")
    True
    """
    symbol = f"scipy_cblas_{name}" if name[1:] in CBLAS else f"scipy_{name}_"
    try:
        function = getattr(library(), symbol)
    except AttributeError:
        raise KernelError(f"OpenBLAS has no routine {name!r} (looked for {symbol}).") from None
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def core_name() -> str:
    """The architecture whose kernels OpenBLAS runs, such as SkylakeX."""
    function = library().scipy_openblas_get_corename
    function.restype = ctypes.c_char_p
    return function().decode()


def threads() -> int:
    """Threads that OpenBLAS uses: 1."""
    return library().scipy_openblas_get_num_threads()


@cache
def library() -> ctypes.CDLL:
    """OpenBLAS, loaded without importing its package, and set to one thread."""
    path = _find()
    # read while loading: without it OpenBLAS starts a thread per core, which set_num_threads then only puts to sleep
    before = os.environ.get("OPENBLAS_NUM_THREADS")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    try:
        found = ctypes.CDLL(str(path))
    finally:
        if before is None:
            del os.environ["OPENBLAS_NUM_THREADS"]
        else:
            os.environ["OPENBLAS_NUM_THREADS"] = before
    found.scipy_openblas_set_num_threads(1)
    forced = os.environ.get("OPENBLAS_CORETYPE")
    if forced:
        found.scipy_openblas_get_corename.restype = ctypes.c_char_p
        warn_if_narrow(forced, found.scipy_openblas_get_corename().decode())
    return found


def warn_if_narrow(forced: str, core: str) -> None:
    """Warn where OPENBLAS_CORETYPE makes OpenBLAS use narrower vectors than this processor has."""
    width = _WIDTH.get(core, 128)
    if HOST.triple.startswith(("x86_64", "amd64", "i686")) and width < HOST.vector_bits:
        warnings.warn(
            f"OPENBLAS_CORETYPE={forced} makes OpenBLAS use its {core} kernels ({width}-bit vectors), but this "
            f"processor ({HOST.cpu}) has {HOST.vector_bits}-bit ones; matrix products may take twice as long. Unset it "
            "unless you need it.",
            RuntimeWarning,
            stacklevel=3,
        )


def _find() -> Path:
    spec = find_spec("scipy_openblas32")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for pattern in ("lib/libscipy_openblas*.so*", "lib/libscipy_openblas*.dylib", "lib/libscipy_openblas*.dll"):
            for path in sorted(Path(folder).glob(pattern)):
                return path
    raise KernelError("OpenBLAS was not found; matrix products need it: pip install scipy-openblas32.")
