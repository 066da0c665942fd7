"""detect_anomaly names the op that made a nan, forward or backward, and the line that it stands on."""

from __future__ import annotations

import pytest

import tapegrad as tg
from tapegrad.errors import TapeError

HERE = r"test_anomaly\.py:\d+ "


def leaf(values) -> tg.Tensor:
    return tg.tensor(values, requires_grad=True)


def test_forward_names_op_shape_and_line():
    with (
        tg.detect_anomaly(),
        pytest.raises(
            TapeError, match=rf"log made a nan \(input shapes \(2,\)\) at .*{HERE}\(tg\.log\(leaf\(\[1\.0, -1\.0\]\)\)"
        ),
    ):
        tg.log(leaf([1.0, -1.0]))


@pytest.mark.parametrize(
    ("make", "op"),
    [
        (lambda: leaf(0.0) / 0.0, "divide"),
        (lambda: leaf(float("inf")) - float("inf"), "subtract"),
        (lambda: tg.sqrt(tg.tensor([-1.0])), "sqrt"),
        (lambda: tg.tensor([float("inf"), -float("inf")]).sum(), "sum"),
        (lambda: tg.softmax(tg.tensor([float("inf"), 1.0])), "softmax|subtract|exp"),
        (lambda: tg.tensor([[float("inf")]]) @ tg.tensor([[0.0]]), "matmul"),
        (lambda: tg.tensor([1.0, -1.0]) ** 0.5, "sqrt|power"),
        (lambda: tg.tensor([0.0]) * float("inf"), "multiply"),
    ],
)
def test_forward_ops(make, op):
    with tg.detect_anomaly(), pytest.raises(TapeError, match=f"({op}) (made|received) a nan"):
        make()
    make()  # outside, a nan is a value


def test_a_nan_that_comes_in_is_blamed_on_the_input():
    x = tg.tensor([float("nan"), 1.0])
    with tg.detect_anomaly(), pytest.raises(TapeError, match="add received a nan in input 1"):
        tg.ones(2) + x


def test_backward_names_the_forward_op_and_its_line():
    x = leaf([0.0, 1.0])
    with tg.detect_anomaly():
        y = tg.sqrt(x)
        z = (y * tg.tensor([0.0, 1.0])).sum()
        with pytest.raises(TapeError, match=rf"in the backward of sqrt, recorded at .*{HERE}\(y = tg\.sqrt\(x\)\)"):
            z.backward()


def test_backward_of_a_where_that_hides_a_log_of_zero():
    x = leaf([0.0, 1.0])
    with tg.detect_anomaly():
        y = tg.where(x > 0.5, tg.log(x), 0.0)
        with pytest.raises(TapeError, match=rf"backward of log, recorded at .*{HERE}\(y = tg\.where"):
            y.sum().backward()


def test_backward_of_rows_recorded_outside():
    x = leaf([0.0])
    y = (tg.sqrt(x) * 0.0).sum()
    with (
        tg.detect_anomaly(),
        pytest.raises(TapeError, match="in the backward of sqrt, recorded at a line outside detect_anomaly"),
    ):
        y.backward()


def test_a_forward_nan_after_a_backward_is_blamed_on_its_own_line():
    x = leaf([1.0, 2.0])
    with tg.detect_anomaly():
        (x * x).sum().backward()
        with pytest.raises(TapeError, match=rf"log made a nan .* at .*{HERE}\(tg\.log\(-x\)\)"):
            tg.log(-x)


def test_inside_derivatives():
    with tg.detect_anomaly(), pytest.raises(TapeError, match="backward of sqrt"):
        tg.grad(lambda v: (tg.sqrt(v) * 0.0).sum())(tg.tensor([0.0]))
    with tg.detect_anomaly(), pytest.raises(TapeError, match="nan"):
        tg.hessian(lambda v: (tg.sqrt(v) ** 3).sum())(tg.tensor([0.0]))


def test_off_again_afterwards():
    with tg.detect_anomaly():
        pass
    assert tg.log(tg.tensor([-1.0])).isnan().tolist() == [True]
    with pytest.raises(TapeError), tg.detect_anomaly():
        tg.log(tg.tensor([-1.0]))
    assert tg.log(tg.tensor([-1.0])).isnan().tolist() == [True]


def test_nested():
    with tg.detect_anomaly():
        with tg.detect_anomaly():
            pass
        with pytest.raises(TapeError):
            tg.log(tg.tensor([-1.0]))
    tg.log(tg.tensor([-1.0]))
    again = tg.detect_anomaly()
    with again, again:
        pass
    tg.log(tg.tensor([-1.0]))


def test_results_are_the_same_and_infinities_pass():
    x = leaf([1.0, 2.0])
    with tg.detect_anomaly():
        y = (tg.exp(x) @ tg.sin(x) + tg.linalg.slogdet(tg.eye(2) * 2.0 + x.reshape((1, 2)) * 0.0)[1]) * 2
        y.backward()
        assert (tg.tensor(1.0) / 0.0).item() == float("inf")
        assert tg.arange(3).sum().item() == 3
    watched = x.grad.tolist()
    x.grad = None
    ((tg.exp(x) @ tg.sin(x) + tg.linalg.slogdet(tg.eye(2) * 2.0 + x.reshape((1, 2)) * 0.0)[1]) * 2).backward()
    assert watched == x.grad.tolist()


def test_another_thread_is_not_watched():
    import threading

    seen = []
    with tg.detect_anomaly():
        thread = threading.Thread(target=lambda: seen.append(tg.log(tg.tensor([-1.0])).isnan().item()))
        thread.start()
        thread.join()
    assert seen == [True]
