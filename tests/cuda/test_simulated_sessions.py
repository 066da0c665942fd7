"""Tensors, training and sessions on the simulated GPUs "cuda:0" and "cuda:1": the tape over the whole of kernels/cuda.

Needs NUMBA_ENABLE_CUDASIM=1; makes the devices itself, as TAPEGRAD_CUDA=simulator does.
"""

from __future__ import annotations

import json
from contextlib import nullcontext

import numpy as np
import pytest

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.errors import DtypeError, IndexOutOfRange, KernelError, OutOfMemory
from tapegrad.tape.spaces import space_of

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def simulator(monkeypatch):
    monkeypatch.setenv("TAPEGRAD_CUDA", "simulator")


@pytest.fixture
def gpu():
    return space_of("cuda:0")


def counts(gpu) -> dict[str, int]:
    names = ("launches", "captures", "graph_launches", "uploads", "synchronizations", "allocations")
    return {name: getattr(gpu.driver.counts, name) for name in names}


class Toy:
    """Elementwise chains, reductions, broadcasting, dropout and an optimizer."""

    def __init__(self, device: str, make=lambda p: optim.Adam(p, lr=0.01)):
        tg.seed(0)
        self.device = device
        self.w = tg.tensor(np.linspace(-1, 1, 6).reshape(2, 3).astype(np.float32), device=device, requires_grad=True)
        self.b = tg.tensor(np.zeros(3, np.float32), device=device, requires_grad=True)
        self.drop = nn.Dropout(0.25)
        self.optimizer = make([self.w, self.b])

    def step(self, session, i: int, x: np.ndarray):
        with session:
            x = tg.tensor(x, device=self.device)
            y = self.drop(tg.tanh(self.w * x + self.b)) * tg.sigmoid(self.w - i * 0.1)
            loss = y.sum() * 0.5 + ((self.w * x).sum(0) ** 2).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return loss


def trained(device: str, session, steps: int = 12, **settings) -> tuple[np.ndarray, list[np.ndarray]]:
    toy, rng = Toy(device, **settings), np.random.default_rng(0)
    losses = [toy.step(session, i, rng.normal(size=(2, 3)).astype(np.float32)) for i in range(steps)]
    return np.array([t.item() for t in losses]), [toy.w.numpy(), toy.b.numpy()]


def same(a, b) -> None:
    np.testing.assert_allclose(a[0], b[0], rtol=1e-5)
    for x, y in zip(a[1], b[1], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [lambda p: optim.Adam(p, lr=0.01), lambda p: optim.SGD(p, lr=0.1, momentum=0.9)])
def test_training_gives_what_the_cpu_gives(gpu, make):
    wanted = trained("cpu", nullcontext(), make=make)
    same(trained("cuda", nullcontext(), make=make), wanted)
    before, session = counts(gpu), tg.Session()
    same(trained("cuda", session, make=make), wanted)
    after = counts(gpu)
    assert session.stats.recordings == 2 and session.stats.replays == 10
    assert after["captures"] - before["captures"] == 1, "one graph, although every loss is held"
    assert after["graph_launches"] - before["graph_launches"] >= 4
    assert session.stats.kernels < session.stats.rows / 2


def test_a_steady_pass_launches_one_graph_waits_for_nothing_and_allocates_nothing(gpu):
    toy, session, rng = Toy("cuda"), tg.Session(), np.random.default_rng(0)
    for i in range(8):
        toy.step(session, i, rng.normal(size=(2, 3)).astype(np.float32))
    before = counts(gpu)
    for i in range(5):
        toy.step(session, i, rng.normal(size=(2, 3)).astype(np.float32))
    after = counts(gpu)
    assert after["graph_launches"] - before["graph_launches"] == 5
    for name in ("captures", "synchronizations", "allocations"):
        assert after[name] == before[name], name


def test_numbers_of_a_pass_arrive_in_one_copy(gpu):
    """Seeds, a number that differs and two groups' coefficients: one copy beside the batch's, and none where nothing differs."""

    def make(p):
        return optim.Adam([{"params": p[:1]}, {"params": p[1:], "lr": 0.1}])

    toy, session, rng = Toy("cuda", make), tg.Session(), np.random.default_rng(0)
    before = gpu.driver.counts.uploads
    for i in range(20):
        if i == 10:
            before = gpu.driver.counts.uploads
        toy.step(session, i, rng.normal(size=(2, 3)).astype(np.float32))
    assert gpu.driver.counts.uploads - before == 2 * 10, "the batch, and all numbers"
    session, seen = tg.Session(), []
    for i in range(12):
        with session:
            y = (toy.w.detach() * (0.5 if i < 8 else 0.25)).sum()
        seen.append((y, gpu.driver.counts.uploads))
    assert seen[7][1] == seen[5][1], "nothing differs, nothing is copied"
    assert seen[8][1] == seen[7][1] + 1 and seen[11][1] == seen[8][1]
    np.testing.assert_allclose(seen[11][0].item() * 2, seen[5][0].item(), rtol=1e-6)


def test_a_number_is_there_for_whatever_reads_it():
    """Numbers and draws that change, of two sessions that share a page; read by programs, by eager ops, in the middle of a pass."""
    sessions, w = [tg.Session(), tg.Session()], tg.ones(3, device="cuda")
    for i in range(9):
        tg.seed(i)
        found = []
        for k, session in enumerate(sessions):
            with session:
                y = w * (i + 0.5 * k) + tg.uniform(size=3, device="cuda") * (k - i)
                if i % 4 == 3:
                    assert np.isfinite(y.numpy()).all()
            found.append(y)
        tg.seed(i)
        for k, y in enumerate(found):
            np.testing.assert_allclose(y.numpy(), i + 0.5 * k + tg.uniform(size=3).numpy() * (k - i), rtol=1e-5)


def test_programs_fuse_and_share_an_arena(gpu):
    toy, session, rng = Toy("cuda"), tg.Session(), np.random.default_rng(0)
    for i in range(4):
        toy.step(session, i, rng.normal(size=(2, 3)).astype(np.float32))
    words = session.explain()
    assert "fused 2×3" in words
    assert session.stats.planned_bytes < session.stats.unplanned_bytes / 2


def test_a_trace(gpu, tmp_path):
    toy, session, rng = Toy("cuda"), tg.Session(), np.random.default_rng(0)
    for i in range(4):
        toy.step(session, i, rng.normal(size=(2, 3)).astype(np.float32))
    before = toy.w.numpy()
    session.trace(tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert any("adam" in e["name"] for e in events)
    np.testing.assert_array_equal(toy.w.numpy(), before)


def test_values_carried_from_pass_to_pass():
    def run(device, session):
        state, seen = tg.zeros(3, device=device), []
        for i in range(10):
            with session:
                state = tg.tanh(state + 0.1 * i) * 0.9
            if i % 3 == 0:
                seen.append(state)
        return np.concatenate([s.numpy() for s in seen])

    np.testing.assert_allclose(run("cuda", tg.Session()), run("cpu", nullcontext()), rtol=1e-6)


def test_branches_shapes_and_looks_in_the_middle():
    def run(device, session):
        w, out = tg.tensor([0.5, -0.5], device=device, requires_grad=True), []
        for i in range(12):
            with session:
                x = tg.tensor(np.full((1 + i % 3, 2), 0.1 * i), dtype=tg.float32, device=device)
                y = (tg.exp(-x * x) * w).sum()
                if y.item() > 0.0:
                    y = y * 2
                w.grad = None
                y.backward()
            out.append(w.grad.numpy())
        return np.concatenate(out)

    np.testing.assert_allclose(run("cuda", tg.Session()), run("cpu", nullcontext()), rtol=1e-5, atol=1e-7)


def test_random_numbers_are_those_of_the_cpu():
    for draw in (
        lambda d: tg.uniform(size=(5, 3), device=d),
        lambda d: tg.bernoulli(0.3, size=17, device=d),
        lambda d: tg.randint(0, 100, size=9, device=d),
    ):
        tg.seed(4)
        there = draw("cuda").numpy()
        tg.seed(4)
        np.testing.assert_array_equal(there, draw("cpu").numpy())


def test_an_index_out_of_range_is_an_error_when_a_value_is_read():
    x = tg.tensor(np.arange(5.0), device="cuda")
    y = tg.take(x, tg.tensor([1, 7], device="cuda")) * 2
    with pytest.raises(IndexOutOfRange, match=r"take: .*noticed when a value is read"):
        y.numpy()
    assert x.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    tg.take(x, tg.tensor([-9], device="cuda"))
    with pytest.raises(IndexOutOfRange, match="take"):
        tg.cuda.synchronize()
    session = tg.Session()
    for k in (1, 2, 3, 4, 9):
        with session:
            z = tg.take(x, tg.tensor([k], device="cuda")) + 1.0
        if k < 5:
            assert z.item() == k + 1
    with pytest.raises(IndexOutOfRange, match="take"):
        z.item()


def test_out_of_memory_in_a_session_leaves_it_usable(gpu):
    w = tg.ones(4, device="cuda", requires_grad=True)
    session = tg.Session()

    def step(n):
        with session:
            y = (tg.ones((n, 4), device="cuda") * w).sum()
            w.grad = None
            y.backward()
        return y

    assert step(3).item() == 12
    limit = gpu.pool.limit
    try:
        gpu.pool.set_limit(gpu.pool.reserved + (1 << 16))
        with pytest.raises(OutOfMemory, match=r"bytes does not fit on cuda:0: .* in use, .* cached"):
            step(1 << 16)
    finally:
        gpu.pool.set_limit(limit)
    for _ in range(4):
        assert step(3).item() == 12
    assert w.grad.tolist() == [3.0] * 4


def test_two_gpus_and_the_cpu():
    a, b = tg.ones(3, device="cuda:0"), tg.full(3, 2.0, device="cuda:1")
    assert (b.to("cuda:0") + a).tolist() == [3.0] * 3
    assert b.cpu().device == "cpu"
    with pytest.raises(DtypeError, match="add: input 0 is on cuda:0, input 1 is on cuda:1"):
        a + b
    with pytest.raises(KernelError, match="cuda:7 was asked for"):
        tg.ones(2, device="cuda:7")
    assert tg.cuda.is_available() and tg.cuda.device_count() == 2 and tg.cuda.why_not() is None
    assert tg.cuda.get_device_properties(1).name == "simulated GPU"
    assert tg.cuda.memory_stats("cuda:1")["reserved"] > 0
    with pytest.raises(DtypeError, match="is no GPU"):
        tg.cuda.synchronize("cpu")


def test_a_batch_goes_by_page_locked_memory(gpu):
    rng = np.random.default_rng(0)
    for _ in range(5):
        a = rng.normal(size=(64, 100)).astype(np.float32)
        kept = a.copy()
        t = tg.tensor(a, device="cuda")
        a[:] = 0
        np.testing.assert_array_equal(t.numpy(), kept)


def test_a_launch_that_cannot_be_captured_runs_and_says_why(gpu, monkeypatch):
    from contextlib import contextmanager

    from tapegrad.kernels.cuda.faults import CaptureUnsafe

    @contextmanager
    def refuse():
        raise CaptureUnsafe("cuda:0, copying from the host: this cannot be part of a graph")
        yield

    monkeypatch.setattr(gpu.driver, "capture", refuse, raising=False)
    wanted = trained("cpu", nullcontext())
    session = tg.Session()
    same(trained("cuda", session), wanted)
    assert "cannot be part of a graph" in session.explain()


def dense(device: str, session) -> list[np.ndarray]:
    """Training with products, transposed operands, softmax and an index."""
    tg.seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).to(device)
    optimizer, rng, losses = optim.SGD(model.parameters(), lr=0.1), np.random.default_rng(0), []
    for _ in range(8):
        x, y = rng.normal(size=(6, 3)).astype(np.float32), rng.integers(0, 4, 6)
        with session:
            loss = nn.CrossEntropyLoss()(model(tg.tensor(x, device=device)), tg.tensor(y, device=device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss)
    return [np.array([t.item() for t in losses]), *(p.numpy() for p in model.parameters())]


def test_a_classifier():
    wanted = dense("cpu", nullcontext())
    for session in (nullcontext(), tg.Session()):
        for a, b in zip(dense("cuda", session), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_products_by_an_emulated_cublas(monkeypatch):
    """The calls of cuBLAS that a GPU would get, in eager ops, in plans and in graphs."""
    from emulated_cublas import Emulated
    from emulated_products import gpu_with_products

    device, _, calls = gpu_with_products(monkeypatch, Emulated())
    wanted = dense("cpu", nullcontext())
    session = tg.Session()
    for s in (nullcontext(), session):
        for a, b in zip(dense(device, s), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert len(calls) > 40
    a = tg.tensor(np.ones((0, 3), np.float32), device=device)
    assert (tg.ones((2, 0), device=device) @ a).tolist() == [[0.0] * 3] * 2
    assert (tg.tensor([[1, 2]], device=device) @ tg.tensor([[3], [4]], device=device)).tolist() == [[11]]


def test_the_precision_of_products_is_an_attribute_of_their_rows():
    """Forward and backward rows of one precision, in eager ops and in sessions that change it from pass to pass."""
    from tapegrad.tape.session.rows import OP

    w = tg.tensor(np.eye(3, dtype=np.float32), device="cuda", requires_grad=True)
    x = tg.tensor(np.ones((2, 3), np.float32), device="cuda")
    with tg.matmul_precision("tf32"):
        y = x @ w
        assert y.node.attrs == {"precision": "tf32"}
        assert nn.functional.linear(x, w).node.attrs == {"turned": True, "precision": "tf32"}
    assert (x @ w).node.attrs in ({}, None)
    session, seen = tg.Session(), []
    for i in range(9):
        with tg.matmul_precision("tf32" if i % 3 == 0 else "float32"), session:
            loss = ((x @ w) ** 2).sum()
            w.grad = None
            loss.backward()
            rows, row = [], session.tail if not session.replaying else session.cursor.next.prev
            while row is not None and row is not session.root:
                rows += [(row.attrs or {}).get("precision")] if row.kind == OP and row.op.builder == "matmul" else []
                row = row.prev
            seen.append(rows)
    assert seen == [["tf32"] * 2 if i % 3 == 0 else [None] * 2 for i in range(9)]
    assert session.stats.variants >= 2 and session.stats.replays >= 4


def test_a_failure_is_not_lost_with_the_program_that_found_it(gpu):
    """The word of a program that is gone keeps its title until somebody reads a value, and is not another op's afterwards."""
    x = tg.tensor(np.arange(5.0), device="cuda")
    session = tg.Session()
    for k in (1, 2, 3, 4, 9):
        with session:
            z = tg.take(x, tg.tensor([k], device="cuda")) + 1.0
        if k < 5:
            assert z.item() == k + 1
    assert session.stats.replays
    session.clear()
    del session
    with pytest.raises(IndexOutOfRange, match="take"):
        z.item()
    free = len(gpu.failures.free)
    assert tg.take(x, tg.tensor([3], device="cuda")).item() == 3
    assert len(gpu.failures.free) == free and not gpu.failures.titles.keys() & set(gpu.failures.free)


def test_words_of_programs_that_are_gone_are_used_again(gpu):
    x = tg.tensor(np.arange(5.0), device="cuda")
    failures = gpu.failures
    for _ in range(3):
        places = [failures.word(f"program {i}", lasting=True) for i in range(len(failures.free))]
        with pytest.raises(
            KernelError, match="take: 4096 programs that may fail are alive on cuda:0; clear some sessions"
        ):
            tg.take(x, tg.tensor([3], device="cuda"))
        failures.give_back(places)
        assert not failures.free
        assert tg.take(x, tg.tensor([3], device="cuda")).item() == 3
    with pytest.raises(IndexOutOfRange, match="take"):
        tg.take(x, tg.tensor([7], device="cuda")).item()


@pytest.mark.parametrize("kept", [1, 2])
def test_small_results_beside_large_ones_in_a_kernel(kept):
    """Numbers that are held, computed in the kernel of the array that they go into: all of the array is written, and no more."""

    def found(device):
        c = tg.tensor(2.0, device=device, requires_grad=True)
        rows = tg.tensor([[1.0], [2.0]], device=device)
        v = tg.tensor(np.arange(16.0, dtype=np.float32).reshape(2, 8), device=device)
        session, seen = tg.Session(), []
        for _ in range(4):
            with session:
                small = tg.tanh(c)
                thin = tg.exp(rows * small)
                wide = (thin + v) * small
                held = (small, thin, wide) if kept == 2 else (small, wide)
            seen += [t.detach().numpy() for t in held]
        assert session.stats.replays >= 2
        return seen

    for got, wanted in zip(found("cuda"), found("cpu"), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
