"""Softmax and cross entropy in the simulator: rows that a block keeps, rows that it cannot, and how often each reads memory."""

from __future__ import annotations

import cuda_simulator
import numpy as np
import pytest

import tapegrad as tg
from tapegrad.kernels.cuda import softmax
from tapegrad.ops.registry import REGISTRY

LENGTHS = [1, 2, 3, 9, 40, 63, 65, 150]  # teams of one thread, of a warp, of a block
FORMS = {"kept": softmax.KEPT, "not kept": 0}


@pytest.fixture(params=FORMS)
def form(request, monkeypatch) -> str:
    monkeypatch.setattr(softmax, "KEPT", FORMS[request.param])
    for op in REGISTRY.values():
        op.launches.clear()  # prepared calls are remembered
    yield request.param
    for op in REGISTRY.values():
        op.launches.clear()


@pytest.fixture
def reads(monkeypatch) -> dict:
    """How many elements of floats the kernels read from then on."""
    count = {"read": 0}
    plain = cuda_simulator.Pointer.__getitem__

    def counted(self, i):
        count["read"] += self.elements.dtype.kind == "f"
        return plain(self, i)

    monkeypatch.setattr(cuda_simulator.Pointer, "__getitem__", counted)
    return count


def softmax_of(x: np.ndarray, axis: int) -> np.ndarray:
    x = x.astype(np.float64)
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def rows_of(n: int) -> np.ndarray:
    """Rows that are hard to sum: rising, falling, far apart, equal, with -inf at either end and everywhere but at one place."""
    rng = np.random.default_rng(n)
    x = rng.normal(size=(8, n)) * 10
    x[1], x[2] = np.sort(x[1]), np.sort(x[2])[::-1]
    x[3] = rng.normal(size=n) * 1e4
    x[4] = 7.5
    x[5, : n // 2] = -np.inf
    x[6, n - n // 2 :] = -np.inf
    x[7, 1:] = -np.inf
    return x


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", LENGTHS)
def test_values_and_slopes(n, dtype, form, device):
    x = rows_of(n).astype(dtype)
    g = np.random.default_rng(n + 1).normal(size=x.shape).astype(dtype)
    tolerance = 2e-6 if dtype == "float32" else 1e-13
    cuda_simulator.launched.clear()
    t = tg.tensor(x, device=device, requires_grad=True)
    y = tg.softmax(t, -1)
    exact = softmax_of(x, -1)
    np.testing.assert_allclose(y.numpy(), exact, rtol=0, atol=tolerance)
    y.backward(tg.tensor(g, device=device))
    slope = exact * (g - (g * exact).sum(-1, keepdims=True))
    np.testing.assert_allclose(t.grad.numpy(), slope, rtol=0, atol=4 * tolerance)
    finite = x[:5]
    t = tg.tensor(finite, device=device, requires_grad=True)
    y = tg.log_softmax(t, -1)
    logarithm = finite - np.float64(finite.max(-1, keepdims=True))
    logarithm = logarithm - np.log(np.exp(logarithm).sum(-1, keepdims=True))
    np.testing.assert_allclose(y.numpy(), logarithm, rtol=tolerance, atol=tolerance)
    y.backward(tg.tensor(g[:5], device=device))
    slope = g[:5] - np.exp(logarithm) * g[:5].sum(-1, keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(t.grad.numpy(), slope, rtol=0, atol=40 * tolerance)
    names = {one.kernel.name for one in cuda_simulator.launched} & {
        "softmax_kept",
        "softmax_rows",
        "slope_kept",
        "slope_rows",
    }
    assert names == ({"softmax_kept", "slope_kept"} if form == "kept" else {"softmax_rows", "slope_rows"})


@pytest.mark.parametrize("shape, axis", [((70, 3), 0), ((2, 9, 5), 1), ((3, 1, 4), 1)])
def test_columns(shape, axis, device):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32) * 20
    got = tg.softmax(tg.tensor(x, device=device), axis).numpy()
    np.testing.assert_allclose(got, softmax_of(x, axis), rtol=0, atol=2e-6)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("n", [1, 5, 150])
def test_special_values_are_those_of_the_cpu(n, axis, form, device):
    """+inf, nan, -inf everywhere, at the front, at the back: nan and zeros where the CPU has them."""
    x = np.random.default_rng(4).normal(size=(7, n)).astype(np.float32)
    x[0], x[1, 0], x[2, -1], x[3, n // 2], x[4, 0], x[5, -1] = -np.inf, np.inf, np.inf, np.nan, -np.inf, -np.inf
    x = x if axis else np.ascontiguousarray(x.T)
    for op in (tg.softmax, tg.log_softmax):
        got, expected = (op(tg.tensor(x, device=d), axis).numpy() for d in (device, "cpu"))
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6)
    if axis:
        target = np.zeros(7, np.int64)
        got, expected = (
            REGISTRY["cross_entropy_kernel"](tg.tensor(x, device=d), tg.tensor(target, device=d), -100).numpy()
            for d in (device, "cpu")
        )
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("n", LENGTHS)
def test_cross_entropy(n, form, device):
    x = rows_of(n)[:5]
    target = np.random.default_rng(1).integers(0, n, 5)
    target[2] = -100
    t = tg.tensor(x, device=device, requires_grad=True)
    losses = tg.nn.functional.cross_entropy(t, tg.tensor(target, device=device), reduction="none")
    below = x - x.max(-1, keepdims=True)
    logarithm = below - np.log(np.exp(below).sum(-1, keepdims=True))
    counted = target != -100
    exact = np.where(counted, -logarithm[np.arange(5), target * counted], 0.0)
    np.testing.assert_allclose(losses.numpy(), exact, rtol=1e-12, atol=1e-12)
    losses.sum().backward()
    slope = np.exp(logarithm) * counted[:, None]
    slope[np.arange(5)[counted], target[counted]] -= 1
    np.testing.assert_allclose(t.grad.numpy(), slope, atol=1e-12)


@pytest.mark.parametrize("n", [9, 150])
def test_how_often_memory_is_read(n, form, device, reads):
    """Once where rows are kept; else once for the maximum and the sum, and once for the result."""
    x = tg.tensor(rows_of(n).astype(np.float32), device=device)
    y = tg.softmax(x, -1).numpy()
    assert reads["read"] == (1 if form == "kept" else 2) * x.size
    reads["read"] = 0
    REGISTRY["softmax_slope"](tg.tensor(np.ones_like(y), device=device), tg.tensor(y, device=device), -1).numpy()
    assert reads["read"] == (2 if form == "kept" else 4) * x.size
