"""Array kernels with a body for CUDA in the simulator: values, gradients and sessions against the body for the CPU."""

from __future__ import annotations

from contextlib import nullcontext

import array_kernels
import cuda_simulator
import numpy as np
import pytest
from numba import cuda

import tapegrad as tg
from tapegrad.errors import KernelError
from tapegrad.tape.spaces import space_of

RNG = np.random.default_rng(11)
CASES = {
    "gather": (array_kernels.sampled, lambda: (normal(2, 1, 7), RNG.uniform(0, 6, (3, 5)))),
    "gather at the edges": (array_kernels.sampled, lambda: (normal(4), np.array([0.0, 3.0, 2.5, -1.0]))),
    "stencil": (array_kernels.smoothed, lambda: (normal(2, 3, 4),)),
    "shared memory": (array_kernels.total, lambda: (normal(3, 11),)),
    "shared memory, one call": (array_kernels.total, lambda: (normal(6),)),
    "a thread for a call": (array_kernels.chamfer, lambda: (normal(3, 1, 4, 2), normal(5, 6, 2))),
}


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def results(op, arrays, device: str, dtype: str) -> list[np.ndarray]:
    """What the op gives, and where it has an adjoint the gradients of a weighted sum of it."""
    differentiable = op.adjoints[None] != op._without_adjoint
    xs = [tg.tensor(x.astype(dtype), device=device, requires_grad=differentiable) for x in arrays]
    y = op(*xs)
    if differentiable:
        (y * tg.arange(y.size, dtype=y.dtype, device=device).reshape(y.shape)).sum().backward()
    return [y.numpy(), *(x.grad.numpy() for x in xs if differentiable)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case, dtype, device):
    op, make = CASES[case]
    arrays = make()
    for got, expected in zip(results(op, arrays, device, dtype), results(op, arrays, "cpu", dtype), strict=True):
        assert got.dtype == expected.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 if dtype == "float32" else 1e-12)


def test_integers_bools_and_several_outputs(device):
    x, places, mask = normal(6).astype(np.float32), np.array([[2, 0], [5, 1]]), np.array([1, 0, 1, 1, 1, 0], bool)
    for got, expected in zip(
        array_kernels.picked(*(tg.tensor(a, device=device) for a in (x, places, mask))),
        array_kernels.picked(*map(tg.tensor, (x, places, mask))),
        strict=True,
    ):
        assert got.dtype is expected.dtype
        np.testing.assert_array_equal(got.numpy(), expected.numpy())


def test_views_come_in_c_order(device):
    x = normal(4, 3, 2)
    for view in (lambda t: t.T, lambda t: t[:, ::-1], lambda t: t[1:, ::2], lambda t: tg.broadcast_to(t[:1], t.shape)):
        got, expected = (array_kernels.smoothed(view(tg.tensor(x, device=d))).numpy() for d in (device, "cpu"))
        np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (1, 1), (3, 1)])
def test_empty_and_small(shape, device):
    x = normal(*shape)
    np.testing.assert_allclose(array_kernels.total(tg.tensor(x, device=device)).numpy(), x.sum(-1))


def test_derivatives_are_checked_on_the_device(device):
    inside = {"shapes": ((2, 4), (1, 2)), "values": ((-1, 1), (0.1, 0.9))}
    tg.testing.check_op(array_kernels.sampled, [inside], order=1, directions=1, device=device)
    tg.testing.check_op(array_kernels.total, directions=1, device=device)


def test_a_wrong_body_is_found(device):
    @tg.kernel("(n)->(n)")
    def doubled(x, out):
        for i in range(x.shape[0]):
            out[i] = 2 * x[i]

    @doubled.cuda
    def _(x, out):
        i = cuda.grid(1)
        if i < x.shape[0]:
            out[i] = 2.001 * x[i]

    with pytest.raises(tg.errors.GradientError, match=r"doubled differs from the CPU's kernel: at element"):
        tg.testing.check_op(doubled, device=device)


def test_what_a_launch_is(device):
    """Threads for the largest output of a call, calls along z; the numbers that were asked for."""
    array_kernels.smoothed(tg.ones((3, 2, 3), device=device))
    assert (cuda_simulator.launched[-1].grid, cuda_simulator.launched[-1].block) == ((2, 1, 3), (2, 2, 1))
    array_kernels.sampled(tg.ones(5, device=device), tg.ones((2, 7), device=device))
    assert (cuda_simulator.launched[-1].grid, cuda_simulator.launched[-1].block) == ((2, 1, 2), (4, 1, 1))
    array_kernels.total(tg.ones((3, 50), device=device))
    assert (cuda_simulator.launched[-1].grid, cuda_simulator.launched[-1].block) == ((1, 1, 3), (4, 1, 1))
    array_kernels.chamfer(tg.ones((9, 2, 2), device=device), tg.ones((2, 2), device=device))
    assert (cuda_simulator.launched[-1].grid, cuda_simulator.launched[-1].block) == (3, 4)


def test_threads_that_a_launch_cannot_have(device):
    @tg.kernel("(n)->(n)")
    def copied(x, out):
        out[0] = x[0]

    for count in (0.5, -1, "many", (1, 2, 3)):
        copied.cuda(copied.fn, threads=lambda n, count=count: count)
        with pytest.raises(KernelError, match="copied.cuda: threads is a whole number or a pair of them, not"):
            copied(tg.ones(2, device=device))


def test_a_write_to_an_input_is_seen(device):
    @tg.kernel("(n)->(n)")
    def writes(x, out):
        out[0] = x[0]

    @writes.cuda
    def _(x, out):
        x[0] = 1.0

    with pytest.raises(ValueError, match="read-only"):
        writes(tg.ones(2, device=device))


def test_a_body_given_later_is_the_one_that_runs(device):
    @tg.kernel("(n)->(n)")
    def shifted(x, out):
        for i in range(x.shape[0]):
            out[i] = x[i] + 1

    x = tg.zeros(3, device=device)
    for step in (1, 2):

        @shifted.cuda
        def _(x, out):
            i = cuda.grid(1)
            if i < x.shape[0]:
                out[i] = x[i] + step  # noqa: B023

        assert shifted(x).tolist() == [step] * 3


def test_a_function_under_cuda_jit_is_called(device):
    @cuda.jit(device=True)
    def twice(value):
        return value + value + cuda.threadIdx.x * 0

    @tg.kernel("(n)->(n)")
    def doubled(x, out):
        for i in range(x.shape[0]):
            out[i] = 2 * x[i]

    @doubled.cuda
    def _(x, out):
        i = cuda.grid(1)
        if i < x.shape[0]:
            out[i] = twice(x[i])

    assert doubled(tg.tensor([1.0, -2.0, 4.5], device=device)).tolist() == [2.0, -4.0, 9.0]


def fitted(device: str, session) -> list[float]:
    """Gradient descent through a gather, its atomic adjoint, and a sum in shared memory."""
    rng = np.random.default_rng(3)
    x = tg.tensor(rng.normal(size=6), device=device, requires_grad=True)
    at = tg.tensor(rng.uniform(0, 5, (2, 4)), device=device)
    losses = []
    for _ in range(7):
        with session:
            error = array_kernels.sampled(x, at) - 0.5
            loss = array_kernels.total(error * error).mean()
            x.grad = None
            loss.backward()
            with tg.no_grad():
                x.copy_(x - 0.3 * x.grad)
        losses.append(loss.item())
    return losses


def test_sessions_run_them_in_a_graph(monkeypatch):
    monkeypatch.setenv("TAPEGRAD_CUDA", "simulator")
    gpu, session = space_of("cuda:0"), tg.Session()
    before = gpu.driver.counts.graph_launches
    expected = fitted("cpu", nullcontext())
    np.testing.assert_allclose(fitted("cuda", session), expected, rtol=1e-9)
    assert expected[-1] < expected[0] / 2
    assert session.stats.replays >= 3 and gpu.driver.counts.graph_launches > before
    assert "sampled" in session.explain()


def test_what_a_gpu_cannot_tell_of_is_refused(device):
    op = tg.elementwise(array_kernels.positive)
    with pytest.raises(
        KernelError, match=r"positive \(.*array_kernels.py:\d+\) raises an exception, which a GPU cannot tell of"
    ):
        op(tg.ones(3, device=device))
