"""What the tape records, sweeps and refuses."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest

import tapegrad as tg
from tapegrad.errors import DtypeError, ShapeError, TapeError


def leaf(values, dtype=tg.float64) -> tg.Tensor:
    return tg.tensor(values, dtype=dtype, requires_grad=True)


def close(t: tg.Tensor | None, wanted) -> None:
    assert t is not None
    np.testing.assert_allclose(t.numpy(), np.asarray(wanted), rtol=1e-12, atol=1e-12)


def test_backward_of_a_scalar():
    x = leaf([1.0, 2.0, 3.0])
    (x * x).sum().backward()
    close(x.grad, [2.0, 4.0, 6.0])


def test_backward_of_a_tensor_of_one_element_needs_no_seed():
    x = leaf([[3.0]])
    (x * x).backward()
    close(x.grad, [[6.0]])


def test_backward_of_several_elements_needs_a_seed():
    x = leaf([1.0, 2.0])
    y = x * x
    with pytest.raises(ShapeError, match=r"backward: the tensor has shape \(2,\).*gradient="):
        y.backward()
    y.backward(tg.tensor([1.0, 10.0], dtype=tg.float64))
    close(x.grad, [2.0, 40.0])


def test_a_seed_of_another_shape_is_refused_and_of_another_dtype_converted():
    x = leaf([1.0, 2.0])
    with pytest.raises(ShapeError, match=r"gradient has shape \(3,\), the tensor has \(2,\)"):
        (x * x).backward(tg.ones(3))
    (x * x).backward(np.array([1, 1]))
    close(x.grad, [2.0, 4.0])


def test_backward_of_a_leaf():
    x = leaf(2.0)
    x.backward()
    x.backward()
    close(x.grad, 2.0)


@pytest.mark.parametrize(
    "make", [lambda: tg.tensor(1.0), lambda: tg.tensor(1.0) * 2, lambda: leaf(1.0).detach(), lambda: leaf(1.0) > 0]
)
def test_backward_where_nothing_was_recorded(make):
    with pytest.raises(TapeError, match="backward: nothing was recorded"):
        make().backward()


def test_no_grad_and_detach_stop_gradients():
    x = leaf([1.0, 2.0])
    with tg.no_grad():
        y = x * 3
        with tg.enable_grad():
            z = x * 5
    assert not y.requires_grad and z.requires_grad
    (x * y).sum().backward()
    close(x.grad, [3.0, 6.0])
    x.grad = None
    (x * x.detach()).sum().backward()
    close(x.grad, [1.0, 2.0])


def test_no_grad_on_a_function_and_after_an_error():
    x = leaf([1.0])

    @tg.no_grad()
    def f(depth):
        y = x * 2 if depth == 0 else f(depth - 1)
        assert not y.requires_grad
        return y

    assert not f(3).requires_grad
    with pytest.raises(ZeroDivisionError), tg.no_grad():
        raise ZeroDivisionError
    assert (x * 2).requires_grad


def test_gradients_do_not_pass_integers_and_comparisons():
    x = leaf([1.5, 2.5])
    n = x.astype(tg.int64)
    assert not n.requires_grad and not (x > 1).requires_grad
    y = (x * n + tg.where(x > 2, x, 0.0)).sum()
    y.backward()
    close(x.grad, [1.0, 3.0])


def test_gradients_pass_float_conversions():
    x = leaf([1.0, 2.0])
    y = x.astype(tg.float32) * 3
    assert y.dtype is tg.float32
    y.sum().backward()
    assert x.grad.dtype is tg.float64
    close(x.grad, [3.0, 3.0])


def test_twice_raises_without_retain_graph_and_accumulates_with_it():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    close(x.grad, [4.0, 8.0])
    with pytest.raises(TapeError, match="retain_graph=True"):
        y.backward()
    close(x.grad, [4.0, 8.0])


def test_a_part_that_is_shared_with_a_released_graph():
    x = leaf(2.0)
    shared = x * x
    (shared * 3).backward()
    with pytest.raises(TapeError, match="released by an earlier backward"):
        (shared * 5).backward()


def test_gradients_accumulate_over_backwards_and_do_not_share_memory():
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (x + y).sum().backward()
    first = x.grad
    (x + y).sum().backward()
    close(x.grad, [2.0, 2.0])
    close(first, [1.0, 1.0])
    with tg.no_grad():
        x.grad.copy_(x.grad * 10)
    close(y.grad, [2.0, 2.0])


def test_a_seed_is_not_shared_with_the_gradient():
    x = leaf([1.0, 2.0])
    seed = tg.tensor([1.0, 1.0], dtype=tg.float64)
    x.backward(seed)
    x.grad.copy_(x.grad * 10)
    close(seed, [1.0, 1.0])


@pytest.mark.parametrize(
    ("f", "slope"),
    [
        (lambda x: x * x * x, lambda x: 3 * x * x),
        (lambda x: x + x, lambda x: 2 + 0 * x),
        (lambda x: x - x, lambda x: 0 * x),
        (lambda x: x / x, lambda x: 0 * x),
        (lambda x: (x * 2) * (x * 3), lambda x: 12 * x),
        (lambda x: (lambda a: (lambda b: b * b + a * b)(a + a))(x * x), lambda x: 24 * x**3),
        (lambda x: x**3 - x**2 + x**1, lambda x: 3 * x**2 - 2 * x + 1),
        (lambda x: 1 / x + 2 - x, lambda x: -1 / x**2 - 1),
    ],
)
def test_values_used_more_than_once(f, slope):
    values = np.array([1.5, -2.0, 0.5])
    x = leaf(values)
    f(x).sum().backward()
    close(x.grad, slope(values))


def test_a_ladder_of_diamonds_is_swept_once():
    x = leaf(1.0)
    y = x
    for _ in range(60):
        y = y + y
    y.backward()
    close(x.grad, 2.0**60)


@pytest.mark.parametrize(
    ("left", "right"),
    [((3, 1), (1, 4)), ((4,), (3, 4)), ((), (2, 3)), ((1,), ()), ((2, 1, 3), (4, 1)), ((1, 1), (5,)), ((0, 3), (1,))],
)
def test_broadcast_gradients_are_summed_back(left, right, rng):
    a, b = rng.normal(size=left), rng.normal(size=right)
    x, y = leaf(a), leaf(b)
    (x * y).sum().backward()
    assert x.grad.shape == left and y.grad.shape == right
    full = np.broadcast_shapes(left, right)

    def back(values, shape):
        values = np.broadcast_to(values, full)
        lead = values.ndim - len(shape)
        values = values.sum(axis=tuple(range(lead)))
        return values.sum(
            axis=tuple(i for i, n in enumerate(shape) if n == 1 and values.shape[i] != 1), keepdims=True
        ).reshape(shape)

    close(x.grad, back(b, left))
    close(y.grad, back(a, right))


def line_of(text: str) -> str:
    return f"test_tape.py:.*{text}"


def test_overwritten_input_is_named():
    x, w = leaf([1.0, 2.0]), tg.tensor([3.0, 4.0], dtype=tg.float64)
    y = (x * w).sum()
    w.copy_(w + 1)
    with pytest.raises(TapeError, match=r"(?s)multiply.*overwritten in place.*" + line_of(r"w\.copy_")):
        y.backward()


def test_overwritten_part_is_named():
    x, w = leaf([1.0, 2.0]), tg.tensor([3.0, 4.0], dtype=tg.float64)
    y = (x * w).sum()
    w[0] = 7.0
    with pytest.raises(TapeError, match=r"(?s)multiply.*overwritten in place.*" + line_of(r"w\[0\] = 7\.0")):
        y.backward()


def test_overwritten_leaf_is_named():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    with tg.no_grad():
        x.copy_(x * 2)
    with pytest.raises(TapeError, match="square|multiply"):
        y.backward()


def test_overwritten_output_is_named():
    x = leaf([1.0, 2.0])
    y = tg.softmax(x)
    y.detach().copy_(tg.zeros(2))
    with pytest.raises(TapeError, match="the output of softmax"):
        y.sum().backward()


def test_writing_through_a_view_is_noticed():
    x, w = leaf([[1.0, 2.0], [3.0, 4.0]]), tg.tensor([[3.0, 4.0], [5.0, 6.0]], dtype=tg.float64)
    y = (x * w).sum()
    w.T[0].copy_(tg.zeros(2))
    with pytest.raises(TapeError, match="multiply"):
        y.backward()


def test_harmless_writes():
    x, w = leaf([1.0, 2.0]), tg.tensor([3.0, 4.0], dtype=tg.float64)
    w[0] = 5.0  # before it is read
    y = (x * w).sum() + (x + w).sum()
    with tg.no_grad():
        x.copy_(x * 2)  # multiply reads w alone for x, add nothing
    y.backward()
    w[...] = 0.0  # after backward
    close(x.grad, [6.0, 5.0])
    z = w + x  # add saves nothing
    w.copy_(w + 1)
    z.sum().backward()
    close(x.grad, [7.0, 6.0])


def test_a_block_that_was_written_and_reused_is_fresh():
    for _ in range(3):
        x = leaf([1.0, 2.0])
        w = tg.tensor([3.0, 4.0], dtype=tg.float64)
        w.copy_(w + 1)
        y = (x * w).sum()
        y.backward()
        close(x.grad, [4.0, 5.0])
        del w, x, y


def test_writes_where_gradients_flow_are_refused():
    x = leaf([1.0, 2.0])
    with pytest.raises(TapeError, match="copy_: a leaf that requires a gradient"):
        x.copy_(tg.zeros(2))
    with pytest.raises(TapeError, match="assignment to a part: a leaf"):
        x[0] = 1.0
    y = x * 2
    with pytest.raises(TapeError, match="result of a recorded op"), tg.no_grad():
        y.copy_(tg.zeros(2))
    with pytest.raises(TapeError, match="no gradient can flow through a write"):
        tg.zeros(2).copy_(x)
    z = tg.zeros(2)
    with pytest.raises(TapeError, match="gradient"):
        z[0] = x[0]
    with pytest.raises(TapeError, match="gradient"):
        z[[0, 1]] = x
    with pytest.raises(TapeError, match="broadcast"):
        tg.broadcast_to(tg.zeros(1), (3,)).copy_(tg.ones(3))
    with pytest.raises(TapeError, match="in place: a leaf"):
        x += 1


def test_topk_and_sort():
    x = leaf([3.0, 1.0, 4.0, 1.5])
    values, where = tg.topk(x, 2)
    assert where.tolist() == [2, 0] and not where.requires_grad
    (values * tg.tensor([10.0, 100.0], dtype=tg.float64)).sum().backward()
    close(x.grad, [100.0, 0.0, 10.0, 0.0])


def test_split_uses_each_part_and_ignores_the_rest():
    x = leaf(np.arange(6.0))
    first, second, third = tg.split(x, 3)
    (first.sum() + 2 * (third * third).sum()).backward()
    close(x.grad, [1.0, 1.0, 0.0, 0.0, 16.0, 20.0])
    assert second.shape == (2,)


def test_slogdet_second_output_alone_and_both(rng):
    a = rng.normal(size=(3, 3)) + 3 * np.eye(3)
    x = leaf(a)
    sign, logdet = tg.linalg.slogdet(x)
    logdet.backward(retain_graph=True)
    np.testing.assert_allclose(x.grad.numpy(), np.linalg.inv(a).T, rtol=1e-9)
    x.grad = None
    (logdet * 2 + sign).backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.linalg.inv(a).T, rtol=1e-9)


def test_an_output_row_that_only_an_outer_node_uses(rng):
    x = leaf(rng.normal(size=(2, 3, 3)) + 3 * np.eye(3))
    sign, logdet = tg.linalg.slogdet(x)
    (logdet * tg.tensor([1.0, 0.0], dtype=tg.float64)).sum().backward()
    assert np.abs(x.grad.numpy()[1]).max() == 0


def test_requires_grad_setters():
    x = tg.tensor([1.0])
    assert not x.requires_grad and x.is_leaf and x.grad is None
    x.requires_grad = True
    assert x.requires_grad_() is x and x.is_leaf
    x.requires_grad = False
    assert not x.requires_grad
    with pytest.raises(TapeError, match="only floating tensors have gradients, this one is int64"):
        tg.tensor([1]).requires_grad = True
    with pytest.raises(TapeError, match="only floating"):
        tg.tensor([True], requires_grad=True)
    y = leaf([1.0]) * 2
    y.requires_grad = True
    with pytest.raises(TapeError, match="detach"):
        y.requires_grad = False


def test_grad_setter():
    x = leaf([1.0, 2.0])
    x.grad = tg.zeros(2, dtype=tg.float64)
    close(x.grad, [0.0, 0.0])
    x.grad = None
    for wrong in (tg.zeros(3, dtype=tg.float64), tg.zeros(2), 1.0, np.zeros(2)):
        with pytest.raises(TapeError, match="grad: wanted a tensor of shape"):
            x.grad = wrong
    with pytest.raises(TapeError, match="only leaves"):
        (x * 2).grad = None
    assert (x * 2).grad is None


def test_integer_leaf_beside_a_float_leaf():
    x = leaf([1.0, 2.0, 3.0])
    picked = x[tg.tensor([2, 2, 0])]
    picked.sum().backward()
    close(x.grad, [1.0, 0.0, 2.0])


def test_mixed_dtypes_give_each_leaf_its_own():
    x, y = leaf([1.0, 2.0], tg.float32), leaf([3.0, 4.0])
    (x * y).sum().backward()
    assert x.grad.dtype is tg.float32 and y.grad.dtype is tg.float64
    close(x.grad, [3.0, 4.0])


def test_an_error_in_the_middle_of_backward_leaves_recording_on():
    x = leaf(2.0)
    y = x * x
    y.backward()
    with pytest.raises(TapeError):
        y.backward()
    assert (x * x).requires_grad


def test_backward_inside_no_grad():
    x = leaf([2.0])
    y = x * x
    with tg.no_grad():
        y.backward()
    close(x.grad, [4.0])


def test_empty_tensors_have_gradients():
    x = leaf(np.zeros((0, 3)))
    (x * 2).sum().backward()
    assert x.grad.shape == (0, 3)


def test_bad_seeds():
    x = leaf([1.0])
    for wrong in ("one", object(), {}):
        with pytest.raises((DtypeError, ShapeError)):
            (x * 2).backward(wrong)


def test_a_long_chain_needs_no_recursion():
    """A million rows: swept and freed with a stack of a few dozen frames."""
    program = textwrap.dedent(
        """
        import sys, threading
        import tapegrad as tg
        x = tg.tensor(1.0, requires_grad=True)
        (x * 2 + 1).backward()   # compiles
        x.grad = None
        threading.stack_size(256 * 1024)
        def run():
            sys.setrecursionlimit(80)
            y = x
            for _ in range(1_000_000):
                y = y + x
            y.backward(retain_graph=True)
            assert x.grad.item() == 1_000_001, x.grad
            z = tg.grad(lambda v: v + y)(2.0)
            del y, z
            print("done")
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        stats = tg.memory_stats()
        used = stats["reserved"] - stats["free"]
        assert used < 2 << 20, stats
        print("freed")
        """
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0 and ended.stdout.split() == ["done", "freed"], ended.stderr[-2000:]


def test_a_long_chain_that_is_dropped_without_backward():
    program = textwrap.dedent(
        """
        import tapegrad as tg
        x = tg.tensor([1.0, 2.0], requires_grad=True)
        y = x
        for _ in range(300_000):
            y = y * x
        del y
        print("freed")
        """
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert ended.stdout.split() == ["freed"], (ended.returncode, ended.stderr[-2000:])
