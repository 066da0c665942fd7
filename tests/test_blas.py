"""BLAS and LAPACK through their addresses, against NumPy and SciPy."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from kernel_runner import ABI

from tapegrad.dtypes import float32, float64
from tapegrad.errors import KernelError
from tapegrad.kernels import blas, jit, status
from tapegrad.kernels.language import dot, gemm, gemv, ger, gesv, getrf, getrs, potrf, potrs, syrk, trsm, trtrs
from tapegrad.kernels.skeleton import skeleton

FLOATS = [float32, float64]
PLAIN, TRANSPOSED = 111, 112
LOWER, UPPER, LEFT = 122, 121, 141


def run(address: int, *args) -> int:
    words = np.array([a.ctypes.data if isinstance(a, np.ndarray) else a for a in args], np.int64)
    return ABI(address)(words.ctypes.data, 0, 1)


def routine(name: str, t) -> int:
    return blas.address(("s" if t is float32 else "d") + name)


def close(got, want, t):
    np.testing.assert_allclose(got, want, rtol=2e-4 if t is float32 else 1e-11, atol=1e-5 if t is float32 else 1e-12)


@skeleton("f: address, a: *T, b: *T, c: *T, ta: int, tb: int, m: int, n: int, k: int, lda: int, ldb: int")
def product(f, a, b, c, ta, tb, m, n, k, lda, ldb, begin, end):
    gemm(f, ta, tb, m, n, k, 2.0, a, lda, b, ldb, 1.0, c, n)
    return 0


@pytest.mark.parametrize("t", FLOATS)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (5, 3, 7), (33, 17, 65), (1, 9, 4), (8, 1, 3), (4, 6, 0)])
@pytest.mark.parametrize("ta", [PLAIN, TRANSPOSED])
@pytest.mark.parametrize("tb", [PLAIN, TRANSPOSED])
def test_gemm(t, m, n, k, ta, tb):
    rng = np.random.default_rng(m * n + k)
    a = rng.standard_normal((m, k) if ta == PLAIN else (k, m)).astype(t.numpy)
    b = rng.standard_normal((k, n) if tb == PLAIN else (n, k)).astype(t.numpy)
    c = rng.standard_normal((m, n)).astype(t.numpy)
    want = c + 2 * (a if ta == PLAIN else a.T).astype(float) @ (b if tb == PLAIN else b.T)
    lda, ldb = max(a.shape[1], 1), max(b.shape[1], 1)
    assert run(product.address(T=t), routine("gemm", t), a, b, c, ta, tb, m, n, k, lda, ldb) == status.OK
    close(c, want, t)


@skeleton("fv: address, fr: address, fs: address, fd: address, a: *T, x: *T, y: *T, c: *T, s: *T, m: int, n: int")
def level_one_and_two(fv, fr, fs, fd, a, x, y, c, s, m, n, begin, end):
    gemv(fv, PLAIN, m, n, 1.0, a, n, x, 1, 0.0, y, 1)
    s[0] = dot(fd, n, x, 1, x, 1)
    ger(fr, m, n, 0.5, y, 1, x, 1, a, n)
    syrk(fs, UPPER, PLAIN, m, n, 1.0, a, n, 0.0, c, m)
    return 0


@pytest.mark.parametrize("t", FLOATS)
def test_vectors_and_symmetric_products(t):
    rng = np.random.default_rng(5)
    m, n = 4, 6
    a, x = rng.standard_normal((m, n)).astype(t.numpy), rng.standard_normal(n).astype(t.numpy)
    y, c, s = np.zeros(m, t.numpy), np.zeros((m, m), t.numpy), np.zeros(1, t.numpy)
    before = a.astype(float)
    run(level_one_and_two.address(T=t), *(routine(r, t) for r in ("gemv", "ger", "syrk", "dot")), a, x, y, c, s, m, n)
    close(y, before @ x, t)
    close(s[0], x @ x, t)
    after = before + 0.5 * np.outer(before @ x, x)
    close(a, after, t)
    close(c, np.triu(after @ after.T), t)


@skeleton("f: address, g: address, h: address, a: *T, b: *T, pivots: *int32, n: int, r: int, way: int")
def solve(f, g, h, a, b, pivots, n, r, way, begin, end):
    if way == 0:
        info = gesv(f, n, r, a, n, pivots, b, n)
    else:
        info = getrf(g, n, n, a, n, pivots)
        if info == 0:
            info = getrs(h, ord("N"), n, r, a, n, pivots, b, n)
    return 2 if info > 0 else 0


@pytest.mark.parametrize("t", FLOATS)
@pytest.mark.parametrize("way", [0, 1])
def test_solve(t, way):
    rng = np.random.default_rng(6)
    n, r = 7, 2
    a, b = rng.standard_normal((n, n)), rng.standard_normal((n, r))
    columns, x, pivots = a.T.astype(t.numpy).copy(), b.T.astype(t.numpy).copy(), np.zeros(n, np.int32)
    routines = [routine(name, t) for name in ("gesv", "getrf", "getrs")]
    assert run(solve.address(T=t), *routines, columns, x, pivots, n, r, way) == status.OK
    np.testing.assert_allclose(x.T, np.linalg.solve(a, b), rtol=1e-2 if t is float32 else 1e-9)
    assert run(solve.address(T=t), *routines, columns * 0, x, pivots, n, r, way) == status.SINGULAR


@skeleton("f: address, g: address, h: address, k: address, a: *T, b: *T, c: *T, d: *T, n: int")
def definite(f, g, h, k, a, b, c, d, n, begin, end):
    if potrf(f, ord("U"), n, a, n) > 0:  # the upper triangle by columns is the lower one by rows
        return 3
    potrs(g, ord("U"), n, 1, a, n, b, n)
    trtrs(h, ord("U"), ord("T"), ord("N"), n, 1, a, n, c, n)
    trsm(k, LEFT, LOWER, PLAIN, 131, n, 1, 1.0, a, n, d, 1)
    return 0


@pytest.mark.parametrize("t", FLOATS)
def test_cholesky_and_triangular(t):
    rng = np.random.default_rng(7)
    n = 5
    m = rng.standard_normal((n, n))
    s, v = m @ m.T + np.eye(n), rng.standard_normal(n)
    a, b, c, d = s.astype(t.numpy), v.astype(t.numpy), v.astype(t.numpy), v.astype(t.numpy)
    routines = [routine(name, t) for name in ("potrf", "potrs", "trtrs", "trsm")]
    assert run(definite.address(T=t), *routines, a, b, c, d, n) == status.OK
    factor = np.linalg.cholesky(s)
    close(np.tril(a), factor, t)
    np.testing.assert_allclose(b, np.linalg.solve(s, v), rtol=1e-2 if t is float32 else 1e-9)
    close(c, np.linalg.solve(factor, v), t)
    np.testing.assert_array_equal(np.round(c, 3), np.round(d, 3))
    a = -s.astype(t.numpy)
    assert run(definite.address(T=t), *routines, a, b, c, d, n) == status.NOT_POSITIVE_DEFINITE


def test_openblas_is_safe_in_two_threads():
    rng = np.random.default_rng(8)
    n = 96
    f, entry = blas.address("dgemm"), product.address(T=float64)
    wrong = []

    def work(seed):
        a, b = rng.standard_normal((n, n)), rng.standard_normal((n, n))
        want = 2 * a @ b
        for _ in range(150):
            c = np.zeros((n, n))
            run(entry, f, a, b, c, PLAIN, PLAIN, n, n, n, n, n)
            if not np.allclose(c, want):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_openblas_has_one_thread():
    assert blas.threads() == 1
    assert blas.core_name()


def test_loading_openblas_starts_no_threads_and_keeps_the_environment():
    code = (
        "import os, threading; os.environ.pop('OPENBLAS_NUM_THREADS', None)\n"
        "from tapegrad.kernels import blas\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "blas.address('sgemm')\n"
        "import sys\n"
        "print(len(os.listdir('/proc/self/task')) - before, 'OPENBLAS_NUM_THREADS' in os.environ,"
        " 'scipy_openblas32' in sys.modules)"
    )
    if sys.platform != "linux":
        pytest.skip("/proc/self/task is Linux")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "False", "False"]


def test_unknown_routine():
    with pytest.raises(KernelError, match="OpenBLAS has no routine 'sgemmm'"):
        blas.address("sgemmm")


def test_a_forced_narrow_core_warns(monkeypatch):
    monkeypatch.setattr(jit, "HOST", jit.Host())
    monkeypatch.setattr(blas, "HOST", jit.HOST)
    monkeypatch.setitem(jit.HOST.__dict__, "triple", "x86_64-unknown-linux-gnu")
    monkeypatch.setitem(jit.HOST.__dict__, "vector_bits", 512)
    with pytest.warns(RuntimeWarning, match="OPENBLAS_CORETYPE=Haswell makes OpenBLAS use its Haswell kernels"):
        blas.warn_if_narrow("Haswell", "Haswell")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        blas.warn_if_narrow("SkylakeX", "SkylakeX")
