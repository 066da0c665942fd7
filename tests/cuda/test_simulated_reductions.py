"""Chains that are reduced in the kernel that computes them: values as on the CPU at odd sizes, launch lists, the same bits twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plan_rows import NAMED, Recorder, one_by_one
from test_simulated_plans import DEVICE, moved, on_gpu, simulator  # noqa: F401  the fixture

import tapegrad as tg
from tapegrad.plan import gpu
from tapegrad.plan.planner import plan
from tapegrad.tape import spaces

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
SIZES = [1, 31, 33, 1023, 1025]
SHAPES = (
    [(7, n) for n in SIZES] + [(n, 6) for n in SIZES] + [(n,) for n in SIZES] + [(1, 5), (64, 64), (3, 4, 8), (5, 1, 3)]
)


def records(r: Recorder) -> list:
    """The records of a plan, which is not run."""
    return plan(moved(r.segment), gpu.Target(spaces.space_of(DEVICE))).records


def kinds(r: Recorder) -> list[str]:
    return [record.title.split()[0] for record in records(r)]


def agrees(r: Recorder, rtol: float = 2e-6) -> None:
    want, have = one_by_one(r), on_gpu(r)
    for n in want:
        a, b = want[n].ravel()[: have[n].size], have[n].ravel()
        if a.dtype.kind != "f":
            np.testing.assert_array_equal(b, a, err_msg=f"value {n}")
            continue
        scale = np.abs(a[np.isfinite(a)]).max(initial=0.0)
        np.testing.assert_allclose(b, a, rtol=rtol, atol=rtol * scale, err_msg=f"value {n}")


def array(shape, dtype="f4", seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype == "f4" or dtype == "f8":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, 2 if dtype == "?" else 100, shape).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "kind"), [(s, "sum") for s in SHAPES] + [(s, k) for s in SHAPES[::4] for k in ("max", "min")], ids=str
)
def test_what_is_summed_is_not_written(shape, kind):
    """Over the last axis, the first, all: the chain and the reduction are one kernel."""
    for axes in sorted({(len(shape) - 1,), (0,), tuple(range(len(shape)))}):
        r = Recorder()
        x, b = r.given(array(shape)), r.given(array(shape[-1:], seed=1))
        y = r("tanh", r("add", x, b))
        r.keep(r(kind, y, axes=axes, keepdims=False))
        agrees(r)
        made = records(r)
        length = int(np.prod([shape[a] for a in axes]))
        if length == 1:
            continue
        assert made[0].title.startswith("fused") and len(made) <= 2, [m.title for m in made]
        chain = [v for m in made for v in m.values]
        assert y not in chain, "the intermediate has no memory"


@pytest.mark.parametrize("axes", [(1,), (0, 2), (0, 1), (1, 2), (0, 3), (0, 2, 3), (0, 1, 2, 3), (3,), (2,)], ids=str)
def test_mixed_axes(axes):
    """Those that are no first and no last axes are reduced in stages, or by a kernel of their own."""
    r = Recorder()
    x, c = r.given(array((5, 3, 4, 7))), r.given(array((1, 3, 1, 1), seed=1))
    y = r("multiply", r("exp", x), c)
    for keepdims in (True, False):
        r.keep(r("sum", y, axes=axes, keepdims=keepdims))
    agrees(r)


def test_statistics_of_channels_are_summed_where_they_are_made():
    """(batch, channel, pixel) over batch and pixel: rows in the kernel of the chain, then columns of what they gave."""
    r = Recorder()
    x = r.given(array((6, 3, 35)))
    r.keep(r("sum", r("square", x), axes=(0, 2), keepdims=False))
    assert kinds(r) == ["fused", "fused"] and records(r)[0].outputs == 1
    agrees(r)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "u1", "?"])
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)], ids=str)
def test_dtypes(axes, dtype):
    r = Recorder()
    x = r.given(array((33, 12), dtype))
    y = r("maximum", x, r.given(array((33, 12), dtype, 1)))
    for kind in ("sum", "max", "min"):
        if kind == "sum" or dtype != "?":
            r.keep(r(kind, y, axes=axes, keepdims=False))
    r.keep(r("sum", r("greater", x, y), axes=axes, keepdims=False))
    r.keep(r("max", r("less", x, y), axes=axes, keepdims=False))
    agrees(r)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)], ids=str)
def test_special_values(axes):
    x = array((9, 8))
    x[3, 2], x[5, 5], x[6, 1], x[0, 0] = np.nan, np.inf, -np.inf, -0.0
    r = Recorder()
    y = r("negative", r.given(x))
    r.keep(*[r(kind, y, axes=axes, keepdims=False) for kind in ("sum", "max", "min")])
    agrees(r)


@pytest.mark.parametrize("shape", [(7, 12), (33, 31), (5, 1025), (130, 8)], ids=str)
def test_several_results(shape):
    """What is written at every element, sums of everything and along one axis, from one walk."""
    for axis in (0, 1):
        r = Recorder()
        x, m = r.given(array(shape)), r.given(array(shape, seed=1))
        y = r("sigmoid", x)
        z = r("multiply", y, m)
        r.keep(z, r("sum", z, axes=(axis,), keepdims=False), r("max", y, axes=(axis,), keepdims=True))
        r.keep(r("sum", y, axes=(0, 1), keepdims=False))
        agrees(r)
        assert records(r)[0].outputs >= 4


def layer_norm(r: Recorder, x: int, width: int) -> int:
    """As a composition: the mean, the mean square of what is left, a scale and a shift."""
    shape = r.layout(x).shape
    n = r.given(np.float32(1.0 / width))
    scale, shift = r.given(array((width,), seed=3)), r.given(array((width,), seed=4))
    mean = r("multiply", r("sum", x, axes=(1,), keepdims=True), n)
    left = r("subtract", x, r.view("broadcast_view", mean, shape=shape))
    variance = r("multiply", r("sum", r("square", left), axes=(1,), keepdims=True), n)
    root = r("sqrt", r("add", variance, r.given(np.float32(1e-5))))
    y = r("divide", left, r.view("broadcast_view", root, shape=shape))
    return r("add", r("multiply", y, scale), shift)


@pytest.mark.parametrize("shape", [(5, 31), (3, 32), (7, 33), (4, 8), (2, 1023), (3, 1024), (1, 40)], ids=str)
def test_layer_norm_is_one_kernel(shape):
    r = Recorder()
    x = r.given(array(shape))
    r.keep(layer_norm(r, x, shape[1]))
    assert kinds(r) == ["fused"], [m.title for m in records(r)]
    agrees(r, 1e-5)


@pytest.mark.parametrize("shape", [(5, 31), (3, 64), (2, 1025), (9, 4)], ids=str)
def test_softmax_as_a_composition_is_one_kernel(shape):
    r = Recorder()
    x = r.given(array(shape))
    top = r("max", x, axes=(1,), keepdims=True)
    e = r("exp", r("subtract", x, r.view("broadcast_view", top, shape=shape)))
    total = r("sum", e, axes=(1,), keepdims=True)
    r.keep(r("divide", e, r.view("broadcast_view", total, shape=shape)), r("log", total))
    assert kinds(r) == ["fused"]
    agrees(r, 1e-5)


def test_a_mean_that_goes_on_is_one_kernel():
    """The whole of a small array is one row."""
    r = Recorder()
    x = r.given(array((9, 13)))
    total = r("sum", r("square", x), axes=(0, 1), keepdims=True)
    r.keep(r("divide", x, r("sqrt", r.view("broadcast_view", total, shape=(9, 13)))))
    assert kinds(r) == ["fused"]
    agrees(r)


def test_rows_and_columns_are_two_kernels():
    r = Recorder()
    g, x = r.given(array((9, 16))), r.given(array((9, 16), seed=1))
    y = r("multiply", g, x)
    s = r("sum", y, axes=(1,), keepdims=True)
    r.keep(r("subtract", g, r("multiply", x, r.view("broadcast_view", s, shape=(9, 16)))))
    r.keep(r("sum", y, axes=(0,), keepdims=False))
    agrees(r)
    assert len(records(r)) == 2


def test_few_long_rows_are_cut_in_parts():
    """By the kernel of the reduction alone: one block for each would leave a GPU idle."""
    r = Recorder()
    x = r.given(np.zeros((2, 40_000), np.float32))
    r.keep(r("sum", r("tanh", x), axes=(1,), keepdims=False))
    assert kinds(r)[0] == "tanh" and len(records(r)) == 3


def test_operands_that_are_not_contiguous():
    r = Recorder()
    x = r.given(array((8, 12)))
    t = r.view("permute_view", x, axes=(1, 0))
    f = r.view("slice_view", t, starts=(11, 0), sizes=(12, 8), steps=(-1, 1))
    y = r("add", r("tanh", t), r("multiply", f, r.given(array((12, 1), seed=5))))
    for axes in ((0,), (1,), (0, 1)):
        r.keep(r("sum", y, axes=axes, keepdims=False))
    agrees(r)


def test_a_row_of_several_axes():
    """Rows of (channel, pixel) with a number for each channel."""
    r = Recorder()
    x, c = r.given(array((4, 3, 8))), r.given(array((1, 3, 1), seed=2))
    y = r("multiply", r("tanh", x), c)
    s = r("sum", y, axes=(1, 2), keepdims=True)
    r.keep(r("subtract", y, r.view("broadcast_view", s, shape=(4, 3, 8))), r("sum", y, axes=(0,), keepdims=False))
    agrees(r)


def test_rows_that_are_assigned_to():
    """A running sum of each row, written over while others of the team might still read it."""
    r = Recorder()
    x, running = r.given(array((6, 21))), r.given(array((6, 1), seed=1))
    mean = r("multiply", r("sum", r("square", x), axes=(1,), keepdims=True), r.given(np.float32(0.1)))
    r.assign(NAMED["add"], (running,), running, mean)
    agrees(r)


def test_the_same_bits_each_time():
    r = Recorder()
    x = r.given(array((333, 17)))
    y = r("exp", x)
    for axes in ((0,), (1,), (0, 1)):
        r.keep(r("sum", y, axes=axes, keepdims=False))
    first, second = on_gpu(r), on_gpu(r)
    for n in first:
        np.testing.assert_array_equal(first[n], second[n])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_random_reductions(data):
    """Chains of elementwise ops and reductions, whose results are read again at every element."""
    r = Recorder()
    shape = data.draw(st.sampled_from([(4, 6), (3, 8), (6, 4, 4), (40, 3), (2, 3, 5), (1, 9), (16,)]))
    known = [r.given(array(shape, seed=k)) for k in range(2)]
    known.append(r.given(array(shape[-1:], seed=7)))
    for _ in range(data.draw(st.integers(2, 10))):
        op = data.draw(st.sampled_from(["tanh", "add", "multiply", "subtract", "reduce", "reduce"]))
        n = data.draw(st.sampled_from(known))
        if op == "tanh":
            known.append(r(op, n))
        elif op != "reduce":
            known.append(r(op, n, data.draw(st.sampled_from(known))))
        elif r.layout(n).shape == shape:
            axes = tuple(sorted(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))))
            known.append(r(data.draw(st.sampled_from(["sum", "max", "min"])), n, axes=axes, keepdims=True))
    r.keep(*[n for n in known if data.draw(st.booleans())], known[-1])
    agrees(r, 1e-5)


def test_a_session_trains_as_on_the_cpu(monkeypatch):
    monkeypatch.setenv("TAPEGRAD_CUDA", "simulator")

    def trained(device, session):
        tg.seed(0)
        w = tg.tensor(array((12, 7)), device=device, requires_grad=True)
        b = tg.tensor(array((7,), seed=1), device=device, requires_grad=True)
        losses = []
        for k in range(5):
            with session:
                x = tg.tensor(array((12, 7), seed=k), device=device)
                y = tg.nn.functional.layer_norm(tg.tanh(w * x + b), (7,))
                loss = (y * y * w).mean() + (w * w).sum(1).max()
                w.grad = b.grad = None
                loss.backward()
            losses.append(loss)
        return np.array([t.item() for t in losses]), w.grad.numpy(), b.grad.numpy()

    for a, b in zip(trained("cuda", tg.Session()), trained("cpu", tg.Session()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
