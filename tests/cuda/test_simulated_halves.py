"""float16 and bfloat16 on the simulated GPU: stored there, computed in float32, as on the CPU."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from emulated_cublas import Emulated
from emulated_products import gpu_with_products
from registry_cases import params

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.errors import TapeError
from tapegrad.kernels.cuda.gemm import COMPUTE, TYPES
from tapegrad.ops import samples

ARRAYS = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
EPS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
both = pytest.mark.parametrize("half", ARRAYS)
SLOW = ("conv", "attention", "lstm", "gru", "rnn", "linalg")  # their kernels are float32's


def wide(t: tg.Tensor) -> np.ndarray:
    t = t.detach().to("cpu")
    return t.astype("float64").numpy() if t.dtype.is_float else t.numpy()


@both
def test_conversions(half, device, rng):
    bits = np.concatenate([np.arange(0, 1 << 16, 97), [0x7C00, 0xFC00, 0x7F80, 0xFF80, 0x7FC0, 1, 0x8000]])
    numbers = bits.astype(np.uint16).view(ARRAYS[half])
    x = rng.integers(0, 1 << 32, 300, dtype=np.uint64).astype(np.uint32)
    x = np.concatenate(
        [x, x & np.uint32(0xFFFF0000) | np.uint32(0x8000), x & np.uint32(0xFFFFE000) | np.uint32(0x1000)]
    )
    with np.errstate(all="ignore"):
        found = tg.tensor(numbers, device=device)
        np.testing.assert_array_equal(wide(found), numbers.astype(np.float64))
        np.testing.assert_array_equal(found.astype("float32").numpy(), numbers.astype(np.float32))
        narrowed = tg.tensor(x.view(np.float32), device=device).astype(half)
        wanted = x.view(np.float32).astype(ARRAYS[half]).astype(np.float64)
        np.testing.assert_array_equal(wide(narrowed), wanted)


def run(op, drawn, half: str, device: str):
    """Values and gradients."""
    tensors = [tg.tensor(x, dtype=half, device=device, requires_grad=True) for x in drawn.tensors]
    out = drawn.call(op, tensors, lambda x: tg.tensor(x, device=device))
    outs = list(out if isinstance(out, tuple) else (out,))
    weighted = [(y * y).astype("float32").sum() for y in outs if y.requires_grad]
    if weighted:
        sum(weighted[1:], weighted[0]).backward()
    return outs + [t.grad for t in tensors if weighted and t.grad is not None]


@pytest.mark.parametrize("op", params())
def test_every_op(op, device):
    """The first sample of each, in one of the two dtypes; those of the kernels that are slow here without."""
    if any(part in op.name or op.namespace == part for part in SLOW):
        pytest.skip("its kernels see float32, in which the other tests run it")
    half = sorted(ARRAYS)[len(op.name) % 2]
    one = samples.draw(op, np.random.default_rng(0))[0]
    for got, expected in zip(run(op, one, half, device), run(op, one, half, "cpu"), strict=True):
        assert got.dtype is expected.dtype and got.device == device
        a, b = wide(got), wide(expected)
        if a.dtype.kind != "f":
            np.testing.assert_array_equal(a, b)
            continue
        scale = np.abs(b[np.isfinite(b)]).max(initial=1.0)
        np.testing.assert_allclose(a, b, rtol=0, atol=8 * EPS[half] * scale)


@both
@pytest.mark.parametrize("n", [1, 7, 8, 9, 31, 64])
def test_groups_and_tails(half, n, device, rng):
    """Groups of eight, what is left, operands of other sizes beside them, and an address that is no multiple of 16."""
    a, b = rng.normal(size=(2, n + 1)).astype(ARRAYS[half]), rng.normal(size=n).astype(np.float32)
    t, u = tg.tensor(a, device=device), tg.tensor(b, device=device)
    mask = tg.tensor(b > 0, device=device)
    with np.errstate(all="ignore"):
        for start in (0, 1):
            x = t[0, start : start + n]
            y = a[0, start : start + n].astype(np.float32)
            np.testing.assert_array_equal(wide(x + x), (2 * y).astype(ARRAYS[half]).astype(np.float64))
            np.testing.assert_array_equal((x * u).numpy(), y * b)
            np.testing.assert_array_equal(wide(tg.where(mask, x, 0.0)), np.where(b > 0, y, 0).astype(np.float64))


@both
def test_training_in_a_session(half, monkeypatch):
    """A model of halves, and float32 parameters under autocast: one graph, the numbers of the CPU."""
    monkeypatch.setenv("TAPEGRAD_CUDA", "simulator")

    def trained(where: str, session, autocast: bool, steps: int = 7):
        tg.seed(0)
        rng = np.random.default_rng(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(where)
        if not autocast:
            model.to(half)
        optimizer = optim.Adam(model.parameters(), lr=0.02)
        losses = []
        for _ in range(steps):
            x = tg.tensor(rng.normal(size=(4, 3)).astype(np.float32), device=where)
            y = tg.tensor(rng.integers(0, 2, 4), device=where)
            with session, tg.autocast(half, enabled=autocast):
                out = model(x if autocast else x.astype(half))
                loss = nn.functional.cross_entropy(out.astype("float32"), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            losses.append(loss)
        return [t.item() for t in losses], [wide(p.detach()) for p in model.parameters()]

    for autocast in (True, False):
        session = tg.Session()
        got, wanted = trained("cuda", session, autocast), trained("cpu", tg.Session(), autocast)
        assert session.stats.replays >= 4
        np.testing.assert_allclose(got[0], wanted[0], rtol=8 * EPS[half])
        for p, q in zip(got[1], wanted[1], strict=True):
            np.testing.assert_allclose(p, q, atol=0.01)


@both
def test_products_of_halves_are_the_librarys(half, monkeypatch, rng):
    """cuBLAS gets the halves themselves, and sums in float32; of a parameter's gradient as of the layer's result."""
    device, _, calls = gpu_with_products(monkeypatch, Emulated())
    a, b = rng.normal(size=(5, 7)).astype(ARRAYS[half]), rng.normal(size=(7, 3)).astype(ARRAYS[half])
    x, y = tg.tensor(a, device=device), tg.tensor(b, device=device)
    exact = (a.astype(np.float64) @ b.astype(np.float64)).astype(ARRAYS[half]).astype(np.float64)
    np.testing.assert_allclose(wide(x @ y), exact, rtol=2 * EPS[half], atol=1e-6)

    def trained(where: str):
        tg.seed(0)
        numbers = np.random.default_rng(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).to(where)
        optimizer, session, found = optim.SGD(model.parameters(), lr=0.1), tg.Session(), []
        for _ in range(6):
            given = tg.tensor(numbers.normal(size=(4, 6)).astype(np.float32), device=where)
            with session:
                with tg.autocast(half):
                    loss = (model(given) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            found.append(loss)
        assert session.stats.replays >= 3
        return [t.item() for t in found] + [wide(p.grad) for p in model.parameters()]

    del calls[:]
    for got, wanted in zip(trained(device), trained("cpu"), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=4 * EPS[half] * np.abs(wanted).max())
    assert len(calls) >= 2 * 5  # those of the passes before the graph that repeats them
    assert {(c.first.type, c.second.type, c.result.type, c.compute) for c in calls} == {
        (TYPES[half], TYPES[half], TYPES[half], COMPUTE["float32"])
    }


@both
def test_a_factor_that_was_overwritten(half, device, monkeypatch):
    """A product of halves needs it in its backward, where it is cuBLAS's; elsewhere it has kept what it converted."""

    def overwritten(where: str):
        w = tg.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=half, device=where, requires_grad=True)
        x = tg.tensor([[1.0, 1.0]], dtype=half, device=where, requires_grad=True)
        y = x @ w
        with tg.no_grad():
            w.copy_(w * 0.5)
        (y * y).sum().backward()
        return x.grad

    for where in ("cpu", device):
        np.testing.assert_array_equal(wide(overwritten(where)), [[32, 72]])
    library, *_ = gpu_with_products(monkeypatch, Emulated())
    with pytest.raises(
        TapeError, match="input 1 of matmul, of shape .* was overwritten in place after it was recorded"
    ):
        overwritten(library)


@both
@pytest.mark.parametrize("shape", [(3, 31), (5, 8), (1, 1), (33, 3)])
def test_reductions_inside_kernels(half, shape, monkeypatch, rng):
    """Sums and maxima of chains, of rows, of columns and of all, and a norm, are those of the CPU's session."""
    monkeypatch.setenv("TAPEGRAD_CUDA", "simulator")
    a = rng.normal(size=shape).astype(ARRAYS[half])

    def found(where: str, session):
        x = tg.tensor(a, device=where, requires_grad=True)
        for _ in range(4):
            with session:
                y = tg.tanh(x * 1.5 + 0.25)
                rows, columns, all_of_it = (y * x).sum(1), (y * y).max(0), tg.abs(y - x).mean()
                z = nn.functional.layer_norm(y, (shape[1],))
                x.grad = None
                ((z * z).sum() + rows.sum() + columns.sum() + all_of_it).backward()
                results = (y, rows, columns, all_of_it, z, x.grad)
            seen = [wide(t.detach()) for t in results]
        assert session.stats.replays >= 2 and all(t.dtype.name == half for t in results)
        return seen

    for got, wanted in zip(found("cuda", tg.Session()), found("cpu", tg.Session()), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=8 * EPS[half] * np.abs(wanted).max(initial=1.0))
