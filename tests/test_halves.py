"""float16 and bfloat16: stored in two bytes, computed in float32. The oracles are NumPy's float16 and ml_dtypes' bfloat16."""

from __future__ import annotations

import sys
import threading
from contextlib import nullcontext

import ml_dtypes
import numpy as np
import pytest
from registry_cases import elementwise, params

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.errors import DtypeError
from tapegrad.halves import narrowed, widened
from tapegrad.ops import samples

ARRAYS = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
EPS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
both = pytest.mark.parametrize("half", ARRAYS)


def all_of(half: str) -> np.ndarray:
    """Every number of the dtype."""
    return np.arange(1 << 16, dtype=np.uint16).view(ARRAYS[half])


def hard_cases(rng) -> np.ndarray:
    """float32 numbers: any bits, ties between neighbours of both dtypes, what overflows, what is too small."""
    bits = rng.integers(0, 1 << 32, 20_000, dtype=np.uint64).astype(np.uint32)
    ties = (bits & np.uint32(0xFFFF0000)) | np.uint32(0x8000)
    ties16 = (bits & np.uint32(0xFFFFE000)) | np.uint32(0x1000)
    known = np.array([0.0, -0.0, 65504, 65519.9, 65520, -65520, 1e-8, 5.9e-8, 6.1e-5, 3.4e38, np.inf, -np.inf, np.nan])
    near = rng.normal(size=5_000) * 10.0 ** rng.integers(-9, 6, 5_000)
    with np.errstate(over="ignore"):
        rest = [known.astype(np.float32), near.astype(np.float32)]
    return np.concatenate([x.view(np.float32) for x in (bits, ties, ties16)] + rest)


def same_numbers(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.dtype == wanted.dtype
    with np.errstate(invalid="ignore"):
        wide, expected = got.astype(np.float64), wanted.astype(np.float64)
    np.testing.assert_array_equal(wide, expected)
    np.testing.assert_array_equal(np.signbit(wide)[wide == 0], np.signbit(expected)[wide == 0])


# conversion


@both
@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_conversions_of_every_number(half, device, rng):
    numbers = all_of(half)
    t = tg.tensor(numbers, device=device)
    assert t.dtype.name == half and t.layout.nbytes == 2 << 16
    same_numbers(t.numpy(), numbers)
    x = hard_cases(rng)
    with np.errstate(over="ignore", invalid="ignore"):
        for dtype in ("float32", "float64"):
            same_numbers(t.astype(dtype).numpy(), numbers.astype(dtype))
        same_numbers(tg.tensor(x, device=device).astype(half).numpy(), x.astype(ARRAYS[half]))
        same_numbers(tg.tensor(x, dtype=half, device=device).numpy(), x.astype(ARRAYS[half]))


def test_bits_on_the_host(rng):
    numbers, x = all_of("bfloat16"), hard_cases(rng)
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(widened(numbers.view(np.uint16)), numbers.astype(np.float32))
        same_numbers(narrowed(x).view(ARRAYS["bfloat16"]), x.astype(ARRAYS["bfloat16"]))


@both
def test_conversions_of_whole_numbers_and_truths(half, rng):
    whole = rng.integers(-70_000, 70_000, 1001)
    with np.errstate(over="ignore"):
        wanted = whole.astype(np.float32).astype(ARRAYS[half])
        for dtype in ("int32", "int64"):
            same_numbers(tg.tensor(whole.astype(dtype)).astype(half).numpy(), wanted)
    t = tg.tensor(np.array([0.0, -0.0, 1.7, -1.7, 300, np.nan, np.inf]), dtype=half)
    assert t.astype("int32").tolist() == [0, 0, 1, -1, 300, 0, 2**31 - 1]
    assert t.astype("uint8").tolist() == [0, 0, 1, 0, 255, 0, 255]
    assert t.astype("bool").tolist() == [False, False, True, True, True, True, True]


@both
@pytest.mark.parametrize("n", [1, 2, 7, 31, 33, 1023, 1025])
def test_odd_lengths_views_and_masks(half, n, rng):
    a = rng.normal(size=(3, n)).astype(ARRAYS[half])
    t = tg.tensor(a)
    for x, y in ((t.T, a.T), (t[:, ::-1], a[:, ::-1]), (t[::2, : n // 2 + 1], a[::2, : n // 2 + 1])):
        same_numbers((x + x).numpy(), (y.astype(np.float32) * 2).astype(ARRAYS[half]))
        same_numbers((x * 3.0).numpy(), (y.astype(np.float32) * 3).astype(ARRAYS[half]))
    same_numbers(tg.where(t > 0, t, 0.0).numpy(), np.where(a > 0, a, a * 0).astype(ARRAYS[half]) + ARRAYS[half].type(0))


# what ops give


def half_for(op) -> str:
    """One of the two for each op: how they are loaded and stored is the same code for all."""
    return sorted(ARRAYS)[len(op.name) % 2]


@pytest.mark.parametrize("op", elementwise(), ids=lambda op: op.name)
def test_an_elementwise_op_is_rounded_once(op):
    """What float32 gives for the same numbers, rounded."""
    half = half_for(op)
    for drawn in samples.draw(op, np.random.default_rng(0)):
        halves = [tg.tensor(x, dtype=half) for x in drawn.tensors]
        got, wide = drawn.call(op, halves, tg.tensor), drawn.call(op, [t.astype("float32") for t in halves], tg.tensor)
        for y, w in zip(*(o if isinstance(o, tuple) else (o,) for o in (got, wide)), strict=True):
            if w.dtype is tg.float32:
                assert y.dtype.name == half
                with np.errstate(over="ignore", invalid="ignore"):
                    same_numbers(y.numpy(), w.numpy().astype(ARRAYS[half]))
            else:
                assert y.dtype is w.dtype
                np.testing.assert_array_equal(y.numpy(), w.numpy())


def values_and_gradients(op, drawn, dtype: str, halves: str):
    """As arrays of float64, of inputs that `halves` holds exactly."""
    exact = [x.astype(np.float32).astype(ARRAYS[halves]).astype(np.float64) for x in drawn.tensors]
    tensors = [tg.tensor(x, dtype=dtype, requires_grad=True) for x in exact]
    out = drawn.call(op, tensors, tg.tensor)
    outs = list(out if isinstance(out, tuple) else (out,))
    rng = np.random.default_rng(1)
    weighted = []
    for y in outs:
        if y.requires_grad:
            weighted.append((y.astype("float64") * tg.tensor(rng.integers(-2, 3, y.shape).astype(np.float64))).sum())
    if weighted:
        sum(weighted[1:], weighted[0]).backward()
    gradients = [t.grad for t in tensors if weighted and t.grad is not None]
    return outs, gradients


@pytest.mark.parametrize("op", params())
def test_every_op_and_its_gradients(op):
    """Near what float64 gives for the same numbers; a gradient has the dtype of its input."""
    half = half_for(op)
    for drawn in samples.draw(op, np.random.default_rng(0)):
        got, gradients = values_and_gradients(op, drawn, half, half)
        wanted, expected = values_and_gradients(op, drawn, "float64", half)
        assert all(g.dtype.name == half for g in gradients)
        given = [drawn.attrs.get("dtype"), *(a.dtype.name for a in drawn.args if isinstance(a, np.ndarray))]
        for y, w in zip((*got, *gradients), (*wanted, *expected), strict=True):
            if "float64" not in given:
                assert y.dtype.name == half if w.dtype is tg.float64 else y.dtype is w.dtype
            a, b = y.astype("float64").numpy(), w.astype("float64").numpy()
            held = np.abs(b) < float(ml_dtypes.finfo(ARRAYS[half]).max) / 2
            assert held.mean() > 0.9 or not b.size
            scale = max(1.0, np.abs(b[held]).max(initial=0.0))
            np.testing.assert_allclose(a[held], b[held], rtol=0, atol=64 * EPS[half] * scale)


@both
def test_sums_are_of_float32(half):
    ones = tg.ones(60_001, dtype=half)
    assert ones.sum().item() == float(np.float32(60_001).astype(ARRAYS[half]))
    assert ones.mean().item() == 1.0
    small = tg.full(4096, 0.0625, dtype=half)
    assert (small @ small).item() == 16.0


def test_promotion():
    f16, bf16 = tg.ones(2, dtype="float16"), tg.ones(2, dtype="bfloat16")
    assert (f16 + bf16).dtype is tg.float32
    for t in (f16, bf16):
        for other, wanted in (("bool", t.dtype), ("int64", t.dtype), ("float32", tg.float32), ("float64", tg.float64)):
            assert (t + tg.ones(2, dtype=other)).dtype is wanted
            assert (tg.ones(2, dtype=other) * t).dtype is wanted
        assert (t * 2).dtype is t.dtype and (0.5 - t).dtype is t.dtype and (t > 0).dtype.name == "bool"
        assert tg.matmul(t.reshape(1, 2), tg.ones((2, 3))).dtype is tg.float32
        assert tg.exp(t).dtype is t.dtype and tg.argmax(t).dtype is tg.int64


@both
def test_made_in_the_dtype(half):
    assert tg.zeros(3, dtype=half).tolist() == [0, 0, 0]
    assert tg.full((2, 2), 1.5, dtype=half).tolist() == [[1.5, 1.5]] * 2
    assert tg.arange(5, dtype=half).tolist() == [0, 1, 2, 3, 4]
    assert tg.eye(2, dtype=half).tolist() == [[1, 0], [0, 1]]
    assert tg.full(1, 1e300, dtype=half).item() == np.inf
    t = tg.normal(size=1000, dtype=half)
    assert t.dtype.name == half and abs(t.mean().item()) < 0.2
    u = tg.uniform(size=100_000, dtype=half)
    assert u.min().item() >= 0 and u.max().item() < 1 and abs(u.astype("float32").mean().item() - 0.5) < 0.01


@both
def test_writes_and_repr(half):
    t = tg.zeros(4, dtype=half)
    t[1] = 2.5
    t[tg.tensor([3, 3])] = tg.tensor([1.0, 7.0])
    t[tg.tensor([True, False, False, False])] = -1.0
    t.copy_(t * 2)
    assert t.tolist() == [-2, 5, 0, 14] and t[1].item() == 5.0
    assert repr(t) == f"tensor([-2.,  5.,  0., 14.], dtype={half})"
    assert f"{t[1]:.2f}" == "5.00"


@both
def test_in_and_out(half, tmp_path, rng):
    a = rng.normal(size=(3, 5)).astype(ARRAYS[half])
    t = tg.tensor(a)
    assert np.asarray(t).dtype == ARRAYS[half] and tg.tensor(t).dtype.name == half
    same_numbers(tg.tensor(a.T).numpy(), a.T)
    same_numbers(t.to("reference").to("cpu").numpy(), a)
    same_numbers(tg.tensor([[1.0, 2.0]], dtype=half).numpy(), np.array([[1, 2]], ARRAYS[half]))
    path = tmp_path / "state.safetensors"
    tg.save(path, {"half": t, "wide": tg.ones(2), "deep": {"ß": [t[0], 3]}})
    found = tg.load(path)
    same_numbers(found["half"].numpy(), a)
    same_numbers(found["deep"]["ß"][0].numpy(), a[0])
    assert found["wide"].dtype is tg.float32 and found["deep"]["ß"][1] == 3


def test_a_file_with_bfloat16_is_what_others_read(tmp_path, rng):
    """By the format's description: a length, a header of JSON, the elements' bytes."""
    import json

    a = rng.normal(size=(2, 3)).astype(ml_dtypes.bfloat16)
    tg.save(tmp_path / "x.safetensors", {"x": tg.tensor(a)})
    raw = (tmp_path / "x.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    entry = json.loads(raw[8 : 8 + length])["x"]
    assert length % 8 == 0 and entry["dtype"] == "BF16" and entry["shape"] == [2, 3]
    first, last = entry["data_offsets"]
    assert raw[8 + length :][first:last] == a.tobytes()


def test_numpy_without_ml_dtypes(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    t = tg.tensor([1.0, 2.0], dtype="bfloat16")
    with pytest.raises(
        DtypeError, match=r"NumPy has no bfloat16; pip install 'tapegrad\[bfloat16\]'.*\.astype\(\"float32\"\)"
    ):
        t.numpy()
    assert t.tolist() == [1.0, 2.0] and t.sum().item() == 3.0
    assert t.astype("float32").numpy().tolist() == [1.0, 2.0]


def test_two_bytes_that_are_no_halves_stay_whole_numbers():
    assert tg.tensor(np.array([1, 16256], np.uint16)).dtype is tg.int64


@both
def test_functions_of_the_user(half):
    @tg.elementwise
    def steps(x, n):
        total = x
        for _ in range(3):
            total = total * x + n
        return total

    x = tg.tensor([0.5, -1.25, 2.0], dtype=half, requires_grad=True)
    y = steps(x, 0.25)
    wide = tg.tensor([0.5, -1.25, 2.0], requires_grad=True)
    expected = steps(wide, 0.25)
    same_numbers(y.detach().numpy(), expected.detach().numpy().astype(ARRAYS[half]))
    y.sum().backward()
    expected.sum().backward()
    assert x.grad.dtype.name == half
    np.testing.assert_allclose(x.grad.astype("float32").numpy(), wide.grad.numpy(), rtol=4 * EPS[half])


# sessions


def training(half: str, session, steps: int = 8):
    tg.seed(0)
    rng = np.random.default_rng(3)
    model = nn.Sequential(nn.Linear(6, 9), nn.LayerNorm(9), nn.GELU(), nn.Linear(9, 4)).to(half)
    optimizer = optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(steps):
        x, target = rng.normal(size=(5, 6)).astype(np.float32), rng.integers(0, 4, 5)
        with session:
            out = model(tg.tensor(x).astype(half))
            loss = nn.functional.cross_entropy(out, tg.tensor(target)) + (out * out).mean() * 0.5
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss)
    return [t.item() for t in losses], [p.numpy() for p in model.parameters()]


@both
def test_training_in_a_session_is_that_of_eager_code(half):
    from contextlib import nullcontext

    session = tg.Session()
    losses, parameters = training(half, session)
    wanted, expected = training(half, nullcontext())
    assert session.stats.replays >= 5
    np.testing.assert_allclose(losses, wanted, rtol=4 * EPS[half])
    for p, q in zip(parameters, expected, strict=True):
        assert p.dtype == ARRAYS[half]
        np.testing.assert_allclose(p.astype(np.float64), q.astype(np.float64), rtol=0, atol=0.02)
    assert wanted[-1] < wanted[0]


@both
def test_chains_in_a_session_round_where_eager_code_does(half, rng):
    x = tg.tensor(rng.normal(size=(4, 33)), dtype=half, requires_grad=True)

    def program():
        y = tg.tanh(x * 1.5 + 0.1) * tg.sigmoid(x)
        z = (y - y.mean()) * tg.where(y > 0, y, 0.5)
        loss = (z * z).sum()
        x.grad = None
        loss.backward()
        return y, z, loss, x.grad

    wanted = [t.numpy() for t in program()]
    session = tg.Session()
    for _ in range(5):
        with session:
            got = program()
        for t, w in zip(got, wanted, strict=True):
            same_numbers(t.numpy(), w)
    assert session.stats.replays >= 3


@both
def test_an_optimizer_keeps_its_state_in_float32(half):
    """And computes in it: Adam's 1e-8 would be 0 in float16."""
    p = tg.tensor([1.0, -2.0], dtype=half, requires_grad=True)
    wide = tg.tensor([1.0, -2.0], requires_grad=True)
    optimizers = [optim.Adam([p], lr=0.25), optim.Adam([wide], lr=0.25)]
    for _ in range(3):
        for t in (p, wide):
            t.grad = None
            (t * t).sum().backward()
        for o in optimizers:
            o.step()
        assert np.isfinite(p.tolist()).all()
    state = optimizers[0].state[p]
    assert state["exp_avg"].dtype is tg.float32 and p.dtype.name == half
    np.testing.assert_allclose(p.tolist(), wide.tolist(), rtol=8 * EPS[half])


# autocast


def test_autocast_is_for_products():
    a, b = tg.ones((2, 3)), tg.ones((3, 4))
    layer = nn.Linear(3, 4)
    with tg.autocast("bfloat16"):
        y = a @ b
        assert y.dtype is tg.bfloat16 and layer(a).dtype is tg.bfloat16
        assert tg.einsum("ij,jk->ik", a, b).dtype is tg.bfloat16
        assert (y * 2).dtype is tg.bfloat16 and tg.tanh(y).dtype is tg.bfloat16
        assert tg.softmax(y).dtype is tg.float32 and y.sum().dtype is tg.float32
        assert nn.functional.cross_entropy(y, tg.tensor([0, 1])).dtype is tg.float32
        assert (a.astype("float64") @ b.astype("float64")).dtype is tg.float64
        assert (tg.ones((2, 3), dtype="int64") @ tg.ones((3, 4), dtype="int64")).dtype is tg.int64
        with tg.autocast(enabled=False):
            assert (a @ b).dtype is tg.float32 and tg.autocast.current() is None
        with tg.autocast("float16"):
            assert (a @ b).dtype is tg.float16
            assert (y @ y.T).dtype is tg.float16
    assert (a @ b).dtype is tg.float32 and tg.autocast.current() is None

    @tg.autocast("float16")
    def product():
        return a @ b

    assert product().dtype is tg.float16


@pytest.mark.parametrize("dtype", ["float32", "cuda", "int64", 3, None])
def test_autocast_refuses(dtype):
    with pytest.raises(DtypeError, match=r'autocast: dtype .* came; wanted is "bfloat16" or "float16"'):
        tg.autocast(dtype)


@both
def test_gradients_under_autocast(half, rng):
    """Those of the rounded factors, in float32; also where `backward` is called inside."""
    model = nn.Sequential(nn.Linear(7, 16), nn.ReLU(), nn.Linear(16, 3))
    x, target = tg.tensor(rng.normal(size=(9, 7)).astype(np.float32)), tg.tensor(rng.integers(0, 3, 9))

    def gradients(inside: bool):
        model.zero_grad()
        with tg.autocast(half):
            loss = nn.functional.cross_entropy(model(x), target)
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        return [p.grad.numpy() for p in model.parameters()]

    found = gradients(False)
    assert all(g.dtype == np.float32 for g in found)
    for g, h in zip(found, gradients(True), strict=True):
        np.testing.assert_array_equal(g, h)
    model.zero_grad()
    nn.functional.cross_entropy(model(x), target).backward()
    for g, p in zip(found, model.parameters(), strict=True):
        scale = np.abs(p.grad.numpy()).max()
        np.testing.assert_allclose(g, p.grad.numpy(), rtol=0, atol=16 * EPS[half] * scale)
        assert np.abs(g - p.grad.numpy()).max() > 0


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("session", [None, tg.Session])
def test_gradients_of_recurrent_layers_pay_no_heed_to_autocast(layer, session, rng):
    """Their adjoints are written with `matmul`, which is the user's as well."""
    model, x = layer(3, 4), tg.tensor(rng.normal(size=(5, 2, 3)).astype(np.float32))

    def gradients(inside: bool):
        made = session() if session else None
        for _ in range(4 if session else 1):
            with made or nullcontext():
                model.zero_grad()
                with tg.autocast():
                    loss = (model(x)[0] ** 2).sum()
                    if inside:
                        loss.backward()
                        assert tg.autocast.current() is tg.bfloat16
                if not inside:
                    loss.backward()
        return [p.grad.numpy() for p in model.parameters()]

    for g, h in zip(gradients(True), gradients(False), strict=True):
        np.testing.assert_array_equal(g, h)


def test_one_autocast_in_several_threads():
    """Each thread gets back what it had, whoever leaves first."""
    shared, entered, left = tg.autocast("float16"), threading.Event(), threading.Event()
    seen = []

    def other():
        with tg.autocast("bfloat16"):
            with shared:
                entered.set()
                left.wait(60)
            seen.append(tg.autocast.current())

    thread = threading.Thread(target=other)
    with shared:
        thread.start()
        assert entered.wait(60)
    seen.append(tg.autocast.current())
    left.set()
    thread.join()
    assert seen == [None, tg.bfloat16]


def test_autocast_in_a_session(rng):
    """Rows of the one kind are not taken for those of the other."""
    w = tg.tensor(rng.normal(size=(4, 4)).astype(np.float32))
    x = tg.tensor(rng.normal(size=(4, 4)).astype(np.float32))
    plain = (x @ w).numpy()
    with tg.autocast():
        rounded = (x @ w).astype("float32").numpy()
    assert np.abs(plain - rounded).max() > 0
    session = tg.Session()
    for on in (True, True, True, False, False, False, True, False, True):
        with session, tg.autocast(enabled=on):
            y = x @ w
        assert y.dtype is (tg.bfloat16 if on else tg.float32)
        np.testing.assert_array_equal(y.astype("float32").numpy(), rounded if on else plain)
    for on in (True, False, True):
        with tg.autocast(enabled=on), session:
            y = x @ w
        np.testing.assert_array_equal(y.astype("float32").numpy(), rounded if on else plain)
    with session:
        y = x @ w
        with tg.autocast():  # what was asked for before is computed as it was asked for
            np.testing.assert_array_equal(y.numpy(), plain)


def test_autocast_is_of_its_thread():
    from threading import Thread

    seen = []
    with tg.autocast():
        thread = Thread(target=lambda: seen.append((tg.ones((2, 2)) @ tg.ones((2, 2))).dtype))
        thread.start()
        thread.join()
    assert seen == [tg.float32]


def test_dlpack_of_bfloat16_says_so(rng):
    """NumPy does not know it; the bits are never taken for whole numbers."""
    a = rng.normal(size=(3, 4)).astype(ml_dtypes.bfloat16)
    t = tg.tensor(a)
    for x, y in ((t, a), (t.T, a.T), (t[1:, ::2], a[1:, ::2]), (t[:0], a[:0])):
        same_numbers(tg.from_dlpack(x).numpy(), y)
    assert tg.from_dlpack(t).buffer is not t.buffer and t.__dlpack_device__() == (1, 0)
    with pytest.raises((RuntimeError, BufferError, TypeError, ValueError)):
        np.from_dlpack(t)
    half = t.astype("float16")
    same_numbers(np.from_dlpack(half), a.astype(np.float16))
    assert tg.from_dlpack(np.from_dlpack(half)).dtype is tg.float16
    for _ in range(50):  # a capsule that nobody takes gives the buffer back
        t.__dlpack__()


@pytest.mark.peers
def test_bfloat16_and_pytorch(rng):
    torch = pytest.importorskip("torch")
    a = torch.tensor(rng.normal(size=(3, 4))).to(torch.bfloat16)
    t = tg.from_dlpack(a.T)
    assert t.dtype is tg.bfloat16 and t.tolist() == a.T.tolist()
    back = torch.from_dlpack(t)
    assert back.dtype is torch.bfloat16 and torch.equal(back, a.T)
    x = torch.tensor(hard_cases(rng))
    for half in ("bfloat16", "float16"):
        wanted = x.to(getattr(torch, half)).double().numpy()
        got = tg.tensor(x.numpy()).astype(half).astype("float64").numpy()
        np.testing.assert_array_equal(got, wanted)
