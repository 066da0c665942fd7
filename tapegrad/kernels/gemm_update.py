"""Matrix products that go straight into an array: added to it, or as a step of gradient descent.

Only plans use these kernels. Where the product would be stored and read again by an elementwise kernel, BLAS adds it to what
is there: C = α A B + β C.
"""

from __future__ import annotations

from ..layouts import Layout
from .blas import address
from .language import T, copy, gemm, offset, pointer_at
from .launch import Step, kernel
from .matmul import as_operand, grain, matmul_accepts
from .skeleton import skeleton


@skeleton("a: *T, b: *T, x: int, c: int, sgemm: address, ta: int, tb: int, m: int, n: int, k: int, lda: int, ldb: int")
def added(a, b, x, c, sgemm, ta, tb, m, n, k, lda, ldb, begin, end):
    """C = X + A B for the rows begin..end; x and c are addresses, which may be one and the same."""
    into = offset(pointer_at(c, a), begin * n)
    if x != c:
        copy(into, offset(pointer_at(x, a), begin * n), (end - begin) * n)
    left = offset(a, begin * lda if ta == 111 else begin)
    gemm(sgemm, ta, tb, end - begin, n, k, T(1), left, lda, b, ldb, T(1), into, n)
    return 0


@skeleton(
    "p: *T, a: *T, b: *T, lr: *T, decay: *T, out: *T, sgemm: address, ta: int, tb: int, m: int, n: int, k: int, "
    "lda: int, ldb: int"
)
def descended(p, a, b, lr, decay, out, sgemm, ta, tb, m, n, k, lda, ldb, begin, end):
    """P = P - lr (A B + decay P) for the rows begin..end, in place: `out` is p."""
    left = offset(a, begin * lda if ta == 111 else begin)
    kept = T(1) - lr[0] * decay[0]
    gemm(sgemm, ta, tb, end - begin, n, k, -lr[0], left, lda, b, ldb, kept, offset(out, begin * n), n)
    return 0


def _step(code, a: Layout, b: Layout, out: Layout, operands: int) -> tuple[Step, ...]:
    left, right = as_operand(a), as_operand(b)
    assert left is not None and right is not None
    (m, k), n = a.shape, b.shape[1]
    routine = address("sgemm" if out.dtype.itemsize == 4 else "dgemm")
    words = (routine, left.how, right.how, m, n, k, left.leading, right.leading)
    return (Step(code.address(T=out.dtype), tuple(range(operands)), words, m, grain(m, 2 * n * k), parts=1),)


@kernel("matmul_added", accepts=matmul_accepts, sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    a, b, _ = ins
    return _step(added, a, b, outs[0], 4)


@kernel("matmul_descended", accepts=lambda x: x.ndim == 0 or matmul_accepts(x), sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    _, a, b, _, _ = ins
    return _step(descended, a, b, outs[0], 6)
