"""Kernels in sessions: every op of the registry (footgun v), custom ops, and errors that only show when a kernel runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from paired import SUMMED, TRAINED, Within, agree, agrees, batches, mlp, said, state
from registry_cases import params

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.errors import IndexOutOfRange, KernelError
from tapegrad.nn import functional as F
from tapegrad.ops import samples


@pytest.mark.parametrize("op", params())
def test_v_every_op_agrees_with_itself(op):
    """Forward and backward on the op's samples; bitwise where each element is computed alone."""

    def program(make):
        rng = np.random.default_rng(0)
        sessions = [make() for _ in samples.draw(op, rng)]
        for _ in range(4):
            for d, session in zip(samples.draw(op, rng), sessions, strict=True):
                with session:
                    tensors = [tg.tensor(x, requires_grad=op.differentiable) for x in d.tensors]
                    found = d.call(op, tensors, tg.tensor)
                    found = found if isinstance(found, tuple) else (found,)
                    for y in found:
                        if y.requires_grad:
                            (y * y).sum().backward(retain_graph=True)
                yield Within(0 if op.kind in ("elementwise", "view") else SUMMED, [y.detach() for y in found])
                yield Within(SUMMED, [x.grad for x in tensors])

    agree(program)


CHAINS = {
    "elementwise": lambda x, y: tg.tanh(1.5 * x + 0.3) * tg.sigmoid(x) + tg.exp(-x * x) - y / (1 + y * y),
    "broadcast": lambda x, y: (x * y[0] + y[:, :1]) * tg.maximum(x[:1], y) - tg.where(x > y, x, 2.0),
    "casts": lambda x, y: ((x * 100).astype(tg.int32) % 7).astype(tg.float32) * y + (x > 0) + tg.round(y),
    "views": lambda x, y: (x.T * y.T + 1).T.reshape((-1,))[::2] * tg.flip(x, 1).reshape((-1,))[::2],
    "matmul": lambda x, y: tg.tanh(x @ y.T + 0.5) @ x,
    "joined": lambda x, y: tg.concatenate([x * 2, tg.exp(y)], 1)[:, 1:-1] + tg.pad(x, ((0, 0), (1, 13)))[:, 1:13],
}


@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
@pytest.mark.parametrize("name", CHAINS)
def test_v_chains_are_bitwise_equal(name, dtype):
    """No sum whose order could differ, so no bit may."""

    def program(make):
        rng, session = np.random.default_rng(0), make()
        for i in range(6):
            x, y = (tg.tensor(v, dtype=dtype) for v in rng.normal(size=(2, 5, 7)))
            with session:
                z = CHAINS[name](x, y)
                if i % 2:
                    z = CHAINS[name](x, y) * 2
            yield z

    agree(program)


REDUCED = {
    "softmax": lambda x: tg.softmax(x * 2 + 1, 1) * x,
    "log softmax": lambda x: tg.log_softmax(tg.tanh(x)) - x,
    "layer norm": lambda x: (x - x.mean(1, keepdims=True)) / tg.sqrt(x.var(1, keepdims=True) + 1e-5) * 2 + 1,
    "columns": lambda x: tg.exp(x) * (x * x).sum(0) + x.max(0),
    "all": lambda x: (x * x).sum() * x + x.mean() - (x - 1).abs().max(),
    "logsumexp": lambda x: tg.logsumexp(x * 3, 1) + (x > 0).sum(1),
    "norm": lambda x: x / tg.sqrt((x * x).sum(1, keepdims=True)).clip(min=1e-3),
    "gelu after layer norm": lambda x: tg.gelu(
        (x - x.mean(1, keepdims=True)) * tg.rsqrt(x.var(1, keepdims=True) + 1.0)
    ),
}


@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
@pytest.mark.parametrize("shape", [(5, 7), (33, 64), (1, 100), (64, 1)])
@pytest.mark.parametrize("name", REDUCED)
def test_v_reductions_within_ulps(name, shape, dtype):
    """Values and gradients of chains around sums along rows, columns and everything.

    Results are weighted before they are summed: the sum of the squares of a normalised row is a constant, and its gradient
    nothing but what rounding leaves of 0.
    """

    def program(make):
        rng, session = np.random.default_rng(0), make()
        weights = tg.tensor(rng.normal(size=REDUCED[name](tg.ones(shape)).shape), dtype=dtype)
        for _ in range(5):
            values = rng.normal(size=shape)
            with session:
                x = tg.tensor(values, dtype=dtype, requires_grad=True)
                y = REDUCED[name](x)
                (y * y * weights).sum().backward()
            yield y.detach(), x.grad

    agree(program, ulps=4 * SUMMED)


@agrees(ulps=SUMMED)
def test_v_empty_and_single_elements(make):
    session = make()
    for i in range(8):
        shape = [(0, 3), (3, 0), (0,), (1, 1), (), (2, 0, 4)][i % 6]
        with session:
            x = tg.full(shape, 0.5 + i, dtype=tg.float64, requires_grad=True)
            y = tg.exp(-x * x) * 2 + x.sum() - tg.where(x > 1, x, 0.0).sum()
            y.sum().backward()
        yield y, x.grad


@pytest.mark.parametrize("count", [1, 2, 3])
def test_v_the_number_of_threads_changes_no_result(count):
    """Large enough for every kernel to be split."""

    def program(make):
        rng, session = np.random.default_rng(0), make()
        for i in range(5):
            values = rng.normal(size=(600, 500)).astype(np.float32)
            with session:
                x = tg.tensor(values, requires_grad=True)
                y = tg.tanh(1.5 * x + 0.3) * tg.sigmoid(x) + tg.exp(-x * x) * (1.0 + i)
                y.backward(x.detach())
            yield y.detach(), x.grad

    before = tg.get_num_threads()
    tg.set_num_threads(count)
    try:
        agree(program).steady(3)
    finally:
        tg.set_num_threads(before)


@agrees()
def test_v_the_number_of_threads_changes_between_passes(make):
    x, session, before = tg.normal(size=(400, 1000)), make(), tg.get_num_threads()
    try:
        for i in range(9):
            tg.set_num_threads(1 + i % 3)
            with session:
                y = tg.sin(x * float(i)) + x
            yield y
    finally:
        tg.set_num_threads(before)


@agrees(steady=3)
def test_v_a_pass_of_thousands_of_rows(make):
    session, x = make(), tg.tensor(np.linspace(0.1, 1, 8), requires_grad=True)
    for i in range(5):
        with session:
            x.grad = None
            y = x
            for k in range(1500):
                y = tg.sin(y) * 1.01 + 0.001 * k if k % 3 else y - 0.0005 * k
            y.backward(tg.full(8, 1.0 + i, dtype=tg.float64))
        yield y, x.grad


@agrees(ulps=SUMMED, steady=4)
def test_v_values_that_are_not_finite(make):
    session, x = make(), tg.tensor([np.inf, -np.inf, np.nan, 0.0, -0.0, 1e30, -1.0], dtype=tg.float32)
    for i in range(8):
        with session:
            y = (
                tg.maximum(x, float(i)),
                x / 0.0,
                tg.sqrt(x),
                x * 0.0 + 1,
                tg.exp(x),
                tg.tanh(x),
                tg.where(x > 0, 1 / x, x),
            )
            z = tg.softmax(tg.where(tg.isfinite(x), x * 1e-30, -np.inf)), x.max(), tg.isnan(x) & (x == x)
        yield [tg.isnan(v) for v in y], [tg.where(tg.isnan(v), 0.0, v) for v in y], z


# errors at a sync


@pytest.mark.parametrize("op", ["cross_entropy", "nll_loss", "embedding", "take"])
@pytest.mark.parametrize("bad", [(0,), (4,), (4, 5), (9,), (0, 1, 2, 9)])
def test_an_index_out_of_range_at_a_sync(op, bad):
    """The error comes when the kernel runs; parameters, gradients and step counts are what eager code would have left."""

    def program(make):
        model, table, session = mlp(), nn.Embedding(4, 3), make()
        optimizer = optim.Adam([*model.parameters(), *table.parameters()], lr=0.01)
        for i, (x, y) in enumerate(batches(14)):
            if i in bad:
                y = y.copy()
                y[3] = 11
            refused = None
            try:
                with session:
                    out = model(tg.tensor(x))
                    targets = tg.tensor(y)
                    if op == "cross_entropy":
                        loss = F.cross_entropy(out, targets)
                    elif op == "nll_loss":
                        loss = F.nll_loss(F.log_softmax(out), targets)
                    elif op == "embedding":
                        loss = out.sum() + table(targets).sum()
                    else:
                        loss = (out * tg.take(out, targets[:4] % 12, 1).sum(1, keepdims=True)).sum()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            except IndexOutOfRange as error:
                refused = type(error).__name__, str(error)
            yield refused, state(model), [s["step"] for s in optimizer.state.values()]

    agree(program, ulps=TRAINED)


def test_an_index_error_names_its_op_and_line():
    """The line is that of the op, though another line has asked for the value."""
    session = tg.Session()

    def step(last):
        x = tg.tensor(np.zeros((3, 4)))
        with session:
            loss = F.cross_entropy(x, tg.tensor([0, 1, last]))
            loss = loss * 2
            loss.item()

    for last in (0, 1, 2, 3, 7, 7, 7, 1):
        if last < 4:
            step(last)
        else:
            with pytest.raises(IndexOutOfRange, match=r"cross_entropy.*0 to 7.*\(3, 4\)") as caught:
                step(last)
            assert any("test_session_kernels.py" in n and "F.cross_entropy(x" in n for n in caught.value.__notes__)


def test_an_error_that_is_read_by_nobody_is_raised_on_leaving():
    """Eagerly the line would have raised. At the latest the end of the pass does."""
    session = tg.Session()
    for i in range(8):
        if i in (0, 5, 6):
            with pytest.raises(IndexOutOfRange), session:
                tg.take(tg.arange(3), tg.tensor([5]), 0)
        else:
            with session:
                y = tg.take(tg.arange(3), tg.tensor([2]), 0)
            assert y.tolist() == [2]


def test_a_pending_error_does_not_hide_the_user_s():
    session = tg.Session()

    def step():
        with session:
            tg.take(tg.arange(3), tg.tensor([5]), 0)
            raise ZeroDivisionError

    for _ in range(6):
        with pytest.raises((ZeroDivisionError, IndexOutOfRange)) as caught:
            step()
        known = [caught.value, caught.value.__cause__, caught.value.__context__]
        assert any(isinstance(e, IndexOutOfRange) for e in known)


# custom ops


@tg.elementwise
def bump(x, s):
    """Readable: an expression, which fuses."""
    return math.exp(-s * x * x) + x


@tg.elementwise
def collatz(x):
    """A loop: compiled by Numba."""
    total = 0.0
    while x > 1.0:
        x = x * 0.5
        total = total + x
    return total


@tg.elementwise
def cube(x):
    return x * x * x


@cube.derivative
def _(x, y):
    return 3.0 * x * x


@tg.kernel("(m,k),(k,n)->(m,n)")
def product(a, b, out):
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            total = a[i, 0] * 0
            for l in range(a.shape[1]):  # noqa: E741
                total += a[i, l] * b[l, j]
            out[i, j] = total


@product.adjoint
def _(g, y, a, b):
    return g @ b.swapaxes(-1, -2), a.swapaxes(-1, -2) @ g


@tg.kernel("(n)->()")
def positive(x, out):
    if x[0] <= 0:
        raise ValueError("not positive")
    out[0] = x[0]


@agrees(ulps=SUMMED, steady=4)
def test_custom_ops_in_a_session(make):
    session = make()
    w = tg.tensor(np.linspace(0.5, 2.0, 6).reshape(2, 3), requires_grad=True)
    for i in range(12):
        t = 0.1 + 0.05 * i
        with session:
            w.grad = None
            h = cube(bump(w, t)) + collatz(w * 8)
            y = product(h, tg.full((3, 2), t, dtype=tg.float64)) * t
            y.sum().backward()
        yield h, y, w.grad


@agrees()
def test_a_custom_kernel_that_fails(make):
    session = make()
    for i in range(12):
        with session:
            x = tg.tensor([[1.0], [-1.0 if i in (0, 5, 6) else 2.0]])
            refused = said(lambda x=x: positive(x * 2).tolist())
        yield refused
        assert (refused == KernelError.__name__) is (i in (0, 5, 6))
