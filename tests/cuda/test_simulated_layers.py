"""Plans in which cuBLASLt adds biases and applies relu, on a simulated GPU with an emulated library."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
from emulated_cublas import Emulated
from emulated_products import gpu_with_products

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import nn, optim
from tapegrad.kernels.cuda.cublaslt import Dense
from tapegrad.kernels.cuda.gemm import COMPUTE, Gemm

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def simulator(monkeypatch):
    monkeypatch.setenv("TAPEGRAD_CUDA", "simulator")


def trained(device: str, session, steps: int = 7, shape: tuple[int, ...] = (6,)) -> list[np.ndarray]:
    """Losses, parameters, last gradients and last hidden values of an MLP of relu layers, one of them without a bias."""
    tg.seed(0)
    layers = [nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Linear(4, 2)]
    model = nn.Sequential(*layers).to(device)
    optimizer, rng, losses = optim.SGD(model.parameters(), lr=0.1), np.random.default_rng(0), []
    hidden = None
    for _ in range(steps):
        x, y = (rng.normal(size=(*shape, n)).astype(np.float32) for n in (3, 2))
        with session:
            hidden = model[:2](tg.tensor(x, device=device))
            loss = ((model[2:](hidden) - tg.tensor(y, device=device)) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss)
    found = [np.array([t.item() for t in losses]), hidden.numpy()]
    return found + [p.numpy() for p in model.parameters()] + [p.grad.numpy() for p in model.parameters()]


def same(a, b) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(6,), (1,), (2, 3)])
def test_an_mlp_gives_what_the_cpu_gives(monkeypatch, shape):
    library, session = Emulated(), tg.Session()
    device, gpu, calls = gpu_with_products(monkeypatch, library)
    same(trained(device, session, shape=shape), trained("cpu", nullcontext(), shape=shape))
    words = session.explain()
    assert "linear·add·relu 6×3 3×5 5" in words if shape != (1,) else "linear·add·relu 1×3" in words
    assert "linear·relu" in words and "launched as a graph" in words
    layers = [call for call in calls if type(call) is Dense]
    assert {(call.activation, call.bias) for call in layers} == {("relu", True), ("relu", False)}
    assert all(call.gemm.compute == COMPUTE["float32"] for call in layers)
    # the last layer's result is read by the kernel of the loss alone, which adds the bias in passing
    assert not any("linear·add 6" in line for line in words.splitlines())
    assert gpu.products.layers._prepared and None not in gpu.products.layers._prepared.values()
    assert len(library.called("cublasLtMatmulAlgoGetHeuristic")) == len(gpu.products.layers._prepared)


def test_launches_are_saved(monkeypatch):
    def kernels(has_epilogues: bool) -> int:
        from tapegrad.plan import gpu as plans

        device, *_ = gpu_with_products(monkeypatch, Emulated())
        if not has_epilogues:
            monkeypatch.setattr(plans, "with_epilogues", lambda g: None)
        session = tg.Session()
        trained(device, session)
        return session.stats.kernels

    assert kernels(True) == kernels(False) - 2  # the sums and relus of two layers


@pytest.mark.parametrize("library", [Emulated(refuses=lambda m, n, k: True), Emulated(keeps_nan=False)])
def test_what_cublaslt_does_not_do_is_done_without_it(monkeypatch, library):
    device, gpu, calls = gpu_with_products(monkeypatch, library)
    session = tg.Session()
    before = len(library.objects)
    same(trained(device, session), trained("cpu", nullcontext()))
    assert "linear·add·relu" in session.explain() and set(gpu.products.layers._prepared.values()) == {None}
    ran = [call for call in calls if type(call) is Dense]
    assert len(ran) == (0 if library.keeps_nan else 2), "the trials alone"
    assert any(type(call) is Gemm for call in calls)
    assert len(library.objects) == before, "descriptors are given back"


@pytest.mark.parametrize("keeps_nan", [True, False])
def test_nan_stays_nan(monkeypatch, keeps_nan):
    device, *_ = gpu_with_products(monkeypatch, Emulated(keeps_nan=keeps_nan))
    w, b = tg.ones((3, 2), device=device), tg.tensor([0.0, np.nan, -9.0], dtype=tg.float32, device=device)
    session, seen = tg.Session(), []
    for value in (1.0, np.nan, np.inf, -np.inf):
        with session:
            y = F.relu(F.linear(tg.tensor(np.full((2, 2), value, np.float32), device=device), w, b))
        seen.append(y.numpy()[0])
    want = [[2, np.nan, 0], [np.nan] * 3, [np.inf, np.nan, np.inf], [0, np.nan, 0]]
    np.testing.assert_array_equal(np.array(seen), np.array(want, np.float32))


def planned(monkeypatch, body, steps: int = 3) -> tuple[str, list]:
    """The plan of a body, of which what it returns is compared with the CPU, and the calls."""
    device, _, calls = gpu_with_products(monkeypatch, Emulated())
    session = tg.Session()
    for i in range(steps):
        rng = np.random.default_rng(i)
        a, b, c = (rng.normal(size=s).astype(np.float32) for s in ((4, 3), (3, 5), (5,)))
        with session:
            found = body(*(tg.tensor(x, device=device) for x in (a, b, c)))
        want = body(*map(tg.tensor, (a, b, c)))
        for x, y in zip(found, want, strict=True):
            np.testing.assert_allclose(x.numpy(), y.numpy(), rtol=2e-5, atol=1e-6)
    return session.explain(), [call for call in calls if type(call) is Dense]


def test_a_kept_sum_and_either_order_of_the_summands(monkeypatch):
    words, calls = planned(monkeypatch, lambda a, b, c: [a @ b + c, F.relu(c + a @ (b * 2)), a @ (b * 3)])
    assert "matmul·add 4" in words and "matmul·add·relu 4" in words
    assert {(call.activation, call.bias) for call in calls} == {(None, True), ("relu", True)}


@pytest.mark.parametrize(
    "body",
    [
        lambda a, b, c: [tg.tanh(a @ b + c)],  # one elementwise kernel reads the sum
        lambda a, b, c: [(p := a @ b), p + c],  # the product is kept
        lambda a, b, c: [tg.gelu(a @ b, approximate="tanh")],
        lambda a, b, c: [a @ b + c[0]],  # a number, no bias
        lambda a, b, c: [tg.reshape(a @ b, (20, 1)) + c],  # each element with the whole bias
        lambda a, b, c: [a @ b + tg.reshape(tg.concatenate([c, c, c, c]), (4, 5))],  # a whole array
        lambda a, b, c: [(a @ b) * c],
        lambda a, b, c: [(p := a @ b) + p],
        lambda a, b, c: [a @ b + tg.concatenate([c, c])[::2]],  # a bias with a stride
        lambda a, b, c: [tg.transpose(a @ b) + c[:4]],
        lambda a, b, c: [tg.relu((a @ b)[1:])],
        lambda a, b, c: [tg.relu(tg.reshape(a @ b, (2, 2, 5)) @ tg.ones((5, 5), device=a.device))],
    ],
)
def test_what_is_no_epilogue(monkeypatch, body):
    _, calls = planned(monkeypatch, body)
    assert [call for call in calls if call.bias] == []


def test_a_sum_that_two_read_lies_in_memory(monkeypatch):
    words, calls = planned(monkeypatch, lambda a, b, c: [tg.sum(s := a @ b + c, 0), tg.tanh(s) @ tg.transpose(b)])
    assert "matmul·add" in words and {(call.activation, call.bias) for call in calls} == {(None, True)}


@pytest.mark.parametrize("assigned", [True, False])
def test_a_bias_that_is_made_behind_the_product(monkeypatch, assigned):
    """An optimizer's step, or an op, writes it between the product and the sum: the product may not read it where it stands."""
    there, _, calls = gpu_with_products(monkeypatch, Emulated())
    session, start = tg.Session(), np.arange(5, dtype=np.float32)
    bias = {d: tg.tensor(start, device=d, requires_grad=True) for d in ("cpu", there)}
    steps = {d: optim.SGD([c], lr=0.1) for d, c in bias.items()}

    def body(a, b, c, optimizer):
        p = a @ b
        loss = (c * c).sum()
        optimizer.zero_grad()
        loss.backward()
        if assigned:
            optimizer.step()
        with tg.no_grad():
            return tg.relu(p + (c if assigned else tg.exp(c)))

    for i in range(4):
        rng, seen = np.random.default_rng(i), []
        a, b = (rng.normal(size=s).astype(np.float32) for s in ((4, 3), (3, 5)))
        for device, s in (("cpu", nullcontext()), (there, session)):
            with s:
                y = body(tg.tensor(a, device=device), tg.tensor(b, device=device), bias[device], steps[device])
            seen.append(y.numpy())
        np.testing.assert_allclose(*seen, rtol=2e-5, atol=1e-6)
    assert "add·relu" in session.explain() and not any(type(call) is Dense for call in calls)
