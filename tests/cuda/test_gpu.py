"""On a GPU, where there is one: `pytest -m gpu`. Every op and its gradients, training in sessions, memory, products by cuBLAS."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
from registry_cases import params
from test_ops_reference import TOLERANCE, run
from test_simulated_arrays import CASES, results
from test_simulated_layers import trained as layers
from test_simulated_sessions import dense, same, trained
from test_simulated_softmax import softmax_of

import tapegrad as tg
from tapegrad.halves import widened
from tapegrad.ops import samples

USABLE = os.environ.get("TAPEGRAD_CUDA", "driver") == "driver" and tg.cuda.is_available()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not USABLE, reason=f"no GPU: {tg.cuda.why_not()}")]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("op", params())
def test_every_op_and_its_gradients(op, dtype):
    for drawn in samples.draw(op, np.random.default_rng(0)):
        for got, expected in zip(run(op, drawn, dtype, "cuda:0"), run(op, drawn, dtype, "reference"), strict=True):
            if got.dtype.kind != "f":
                np.testing.assert_array_equal(got, expected)
                continue
            limit = TOLERANCE[got.dtype.name]
            scale = max(1.0, np.abs(expected).max(initial=0.0))
            np.testing.assert_allclose(got, expected, rtol=limit, atol=limit * scale)


def test_training_in_a_session():
    session = tg.Session()
    same(trained("cuda", session), trained("cpu", nullcontext()))
    assert session.stats.replays >= 8 and "graph" in session.explain()


def test_a_classifier_in_a_session():
    for a, b in zip(dense("cuda", tg.Session()), dense("cpu", nullcontext()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_layers_with_bias_and_relu_in_a_session():
    for a, b in zip(layers("cuda", tg.Session(), shape=(33,)), layers("cpu", nullcontext(), shape=(33,)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("value", [1.0, np.nan, np.inf, -np.inf])
def test_relu_behind_a_product_keeps_nan(value):
    w, b = tg.ones((3, 2), device="cuda"), tg.tensor([0.0, np.nan, -9.0], dtype=tg.float32, device="cuda")
    x, session = tg.tensor(np.full((2, 2), value, np.float32), device="cuda"), tg.Session()
    for _ in range(3):
        with session:
            y = tg.nn.functional.relu(tg.nn.functional.linear(x, w, b))
    want = np.float32(2 * value) + b.numpy()
    np.testing.assert_array_equal(y.numpy()[0], np.where(want <= 0, 0, want))


@pytest.mark.parametrize("size", [1, 31, 33, 127, 1025])
def test_products(size):
    rng = np.random.default_rng(size)
    a, b = rng.normal(size=(size, 65)).astype(np.float32), rng.normal(size=(65, size)).astype(np.float32)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    x, y = tg.tensor(a, device="cuda"), tg.tensor(b, device="cuda")
    np.testing.assert_allclose((x @ y).numpy(), exact, rtol=1e-4, atol=1e-4)
    with tg.matmul_precision("tf32"):
        np.testing.assert_allclose((x @ y).numpy(), exact, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_array_kernels_of_users(case, dtype):
    op, make = CASES[case]
    arrays = make()
    for got, expected in zip(results(op, arrays, "cuda:0", dtype), results(op, arrays, "cpu", dtype), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("n", [1, 31, 33, 1025, 8192, 8193, 50_000])
def test_softmax_of_rows(n):
    x = np.random.default_rng(n).normal(size=(37, n)).astype(np.float32) * 10
    for axis, a in ((1, x), (0, np.ascontiguousarray(x.T))):
        t = tg.tensor(a, device="cuda", requires_grad=True)
        y = tg.softmax(t, axis)
        exact = softmax_of(a, axis)
        np.testing.assert_allclose(y.numpy(), exact, rtol=0, atol=2e-6)
        y.backward(tg.tensor(a, device="cuda"))
        slope = exact * (a - (a * exact).sum(axis, keepdims=True))
        np.testing.assert_allclose(t.grad.numpy(), slope, rtol=0, atol=1e-4)


def test_arrays_that_arrive_while_kernels_run():
    """Batches from threads and from here, each checked by what kernels made of it; memory changes hands all the time."""
    rng = np.random.default_rng(0)
    kinds = [rng.integers(0, 1000, size=n).astype(np.float32) for n in (1 << 20, (1 << 20) + 1, 70_001)]
    w = tg.ones((512, 512), device="cuda")

    def load(number: int) -> list[tuple]:
        found = []
        for i in range(40):
            source = kinds[(number + i) % 3] + np.float32(i)
            x = tg.tensor(source, device="cuda")
            source[:] = np.nan
            found.append((i, number, (x - i).max(), (x - i)[-5:]))
        return found

    with ThreadPoolExecutor(3) as threads:
        loading = [threads.submit(load, number) for number in range(3)]
        for _ in range(100):
            w = tg.tanh(w @ w)
        done = [one for work in loading for one in work.result()]
    for i, number, top, end in done:
        source = kinds[(number + i) % 3]
        assert top.item() == source.max()
        np.testing.assert_array_equal(end.numpy(), source[-5:])
    x = tg.tensor(kinds[0], device="cuda")
    np.testing.assert_array_equal(x.numpy(), kinds[0])  # in pieces


def test_device_memory_does_not_grow():
    w = tg.ones(1000, device="cuda", requires_grad=True)
    session = tg.Session()

    def step():
        with session:
            loss = (tg.tanh(w) ** 2).sum()
            w.grad = None
            loss.backward()

    for _ in range(20):
        step()
    before = tg.cuda.memory_stats()["reserved"]
    for _ in range(2000):
        step()
    assert tg.cuda.memory_stats()["reserved"] == before


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_halves(half):
    """Every number there and back, chains of odd lengths, products, and a step under autocast."""
    eps = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[half]
    bits = np.arange(1 << 16, dtype=np.uint16)
    every = widened(bits) if half == "bfloat16" else bits.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(tg.tensor(every, device="cuda").astype(half).astype("float32").numpy(), every)
    rng = np.random.default_rng(0)
    for n in (1, 7, 8, 1023, 1025, 70_001):
        a = rng.normal(size=n).astype(np.float32)
        x, y = (tg.tensor(a, device=d).astype(half) for d in ("cuda", "cpu"))
        for f in (lambda t: t * 2 + 1, lambda t: tg.tanh(t) * t, lambda t: t[1:] - t[:-1], lambda t: t.sum()):
            got, wanted = (f(t).to("cpu").astype("float32").numpy() for t in (x, y))
            np.testing.assert_allclose(got, wanted, rtol=4 * eps, atol=4 * eps)
    a, b = (tg.tensor(rng.normal(size=(65, 65)).astype(np.float32), device="cuda") for _ in range(2))
    exact = a.numpy().astype(np.float64) @ b.numpy()
    with tg.autocast(half):
        product = a @ b
    assert product.dtype.name == half
    np.testing.assert_allclose(product.astype("float32").numpy(), exact, rtol=0, atol=32 * eps)
