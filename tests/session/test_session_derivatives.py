"""Derivatives in sessions: footgun q, gradients of gradients, released graphs, saved values, recurrent states, anomalies."""

from __future__ import annotations

import numpy as np
import pytest
from paired import SUMMED, TRAINED, agree, agrees, batches, mlp, said, state

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.errors import TapeError
from tapegrad.nn import functional as F


@agrees(ulps=TRAINED, steady=4)
def test_q_gradient_penalty(make):
    """The norm of the gradient by the inputs is part of the loss (Gulrajani et al. 2017)."""
    model, session = mlp(sizes=(6, 12, 1)), make()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    for x, _ in batches(15):
        with session:
            slopes = tg.grad(lambda v: model(v).sum())(tg.tensor(x))
            loss = model(tg.tensor(x)).mean() + (((slopes**2).sum(1) + 1e-6).sqrt() - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield slopes, loss, state(model)


def energy(x):
    return (tg.exp(tg.sin(x)) * x * x).sum()


def curve(x):
    return tg.tanh(x * x) + x.flip(0)


V = np.linspace(-1.0, 1.0, 5)
DERIVATIVES = {
    "grad": lambda x, v: tg.grad(energy)(x),
    "value_and_grad": lambda x, v: tg.value_and_grad(energy)(x),
    "aux": lambda x, v: tg.grad(lambda a: (energy(a), {"a": a * 2}), has_aux=True)(x),
    "argnums": lambda x, v: tg.grad(lambda a, b: (a * b * b).sum(), (0, 1))(x, v),
    "grad of grad": lambda x, v: tg.grad(lambda a: (tg.grad(energy)(a) ** 2).sum())(x),
    "third": lambda x, v: tg.grad(lambda a: tg.grad(lambda b: tg.grad(energy)(b).sum())(a).sum())(x),
    "vjp": lambda x, v: tg.vjp(curve, x)[1](v),
    "vjp twice": lambda x, v: (lambda pull: (pull(v), pull(x)))(tg.vjp(curve, x)[1]),
    "jvp": lambda x, v: tg.jvp(curve, (x,), (v,)),
    "jacobian": lambda x, v: tg.jacobian(curve)(x),
    "hessian": lambda x, v: tg.hessian(energy)(x),
    "hvp": lambda x, v: tg.hvp(energy, (x,), (v,)),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_q_derivatives_of_functions(name):
    def program(make):
        session, v = make(), tg.tensor(V + 0.3)
        for i in range(10):
            with session:
                found = DERIVATIVES[name](tg.tensor(V * (1 + 0.1 * i)), v)
            yield found

    agree(program, ulps=SUMMED).steady(4)


@agrees(ulps=SUMMED, steady=4)
def test_q_derivatives_through_parameters(make):
    """The inner derivative's result is differentiated by what it closes over."""
    w, session = tg.tensor(V, requires_grad=True), make()
    for i in range(10):
        with session:
            w.grad = None
            x = tg.tensor(V * i)
            inner = tg.grad(lambda a: (tg.sin(a * w) * w).sum())(x)
            (inner * x).sum().backward()
        yield inner, w.grad


@agrees(ulps=SUMMED, steady=4)
def test_q_second_derivatives_inside_and_first_outside(make):
    session = make()
    x = tg.tensor(V, requires_grad=True)
    for i in range(10):
        with session:
            y = tg.grad(lambda a, t=float(i): (a**3 * t).sum())(x)
        x.grad = None
        y.sum().backward()
        yield x.grad


@agrees(ulps=SUMMED)
def test_backward_through_a_released_graph(make):
    session, x = make(), tg.tensor(V, requires_grad=True)
    for _ in range(8):
        with session:
            x.grad = None
            shared = tg.exp(x) * x
            one, two = shared.sum(), (shared * shared).sum()
            one.backward()
            twice = said(one.backward), said(two.backward)
        yield twice, said(two.backward), x.grad


@agrees(ulps=SUMMED, steady=4)
def test_retained_graphs(make):
    session, x = make(), tg.tensor(V, requires_grad=True)
    for i in range(10):
        with session:
            x.grad = None
            shared = tg.exp(x) * x
            one, two = (shared * float(i)).sum(), (shared * shared).sum()
            one.backward(retain_graph=True)
            first = x.grad
            two.backward(retain_graph=True)
            one.backward(tg.tensor(2.0, dtype=tg.float64))
        yield first, x.grad


@agrees(ulps=SUMMED, steady=4)
def test_a_graph_is_retained_for_after_the_session(make):
    session, x = make(), tg.tensor(V, requires_grad=True)
    for i in range(10):
        with session:
            x.grad = None
            y = (tg.exp(x * float(i)) * tg.sin(x)).sum()
            y.backward(retain_graph=True)
        y.backward()
        yield x.grad, said(y.backward)


@agrees(ulps=SUMMED)
def test_a_graph_from_before_the_session_and_one_across_passes(make):
    """Rows recorded eagerly, in another pass, and in this one make up one graph."""
    session, w = make(), tg.tensor(V, requires_grad=True)
    for i in range(10):
        w.grad = None
        h = tg.sin(w * 0.5)
        for k in range(3):
            with session:
                h = h * tg.exp(w * 0.1) + float(k)
        with session:
            loss = (h * h).sum()
            if i % 2:
                loss.backward()
        if i % 2 == 0:
            loss.backward()
        yield h, w.grad, said(loss.backward)


@tg.kernel("(n)->(n)")
def twice(x, out):
    for i in range(x.shape[0]):
        out[i] = 2 * x[i]


way = [False]  # which of two ways the adjoint of `twice` goes


@twice.adjoint
def _(g, y, x):
    return g * 2.0 if way[0] else tg.exp(tg.log(g)) * 2.0


@agrees(ulps=SUMMED)
def test_q_an_adjoint_that_goes_another_way(make):
    """The pass parts from the recording in the middle of a reverse sweep, with rows still to visit below."""
    session = make()
    for i in range(16):
        way[0] = i in (4, 5, 8) or i > 12
        with session:
            x = tg.tensor(V * (1 + 0.1 * i))
            slope = tg.grad(lambda a: (twice(tg.tanh(tg.tanh(a))) * 0.5).sum())(x)
            pulled = tg.vjp(lambda a: twice(tg.tanh(tg.sin(a)) * a), x)[1](tg.exp(x))
        yield slope, pulled


@agrees(ulps=TRAINED, steady=8)
def test_truncated_backpropagation(make):
    """The state goes from pass to pass without its graph."""
    cell, session = nn.Linear(4, 3, dtype=tg.float64), make()
    optimizer = optim.SGD(cell.parameters(), lr=0.1)
    h = tg.zeros((2, 3), dtype=tg.float64)
    for i in range(25):
        with session:
            h = h.detach()
            for t in range(4):
                x = tg.full((2, 1), 0.1 * t + 0.01 * i, dtype=tg.float64)
                h = tg.tanh(cell(tg.concatenate([h, x], 1)))
            loss = (h**2).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield h, loss.item()


@agrees(ulps=TRAINED)
def test_a_state_carried_with_its_graph_is_refused_as_eagerly(make):
    """Without detach the second backward meets rows that the first has released."""
    cell, session = nn.Linear(3, 3, dtype=tg.float64), make()
    h = tg.ones((2, 3), dtype=tg.float64)
    for i in range(12):
        refused = None
        with session:
            if i % 4 == 0:
                h = h.detach()
            h = tg.tanh(cell(h))
            try:
                (h**2).sum().backward()
            except TapeError as error:
                refused = "released by an earlier backward" in str(error)
        yield refused, h.numpy(), state(cell)


@agrees(ulps=SUMMED, steady=8)
def test_a_graph_over_several_passes_is_swept_once(make):
    """Every fourth pass goes back through all four."""
    session, w = make(), tg.tensor(V * 0.5, requires_grad=True)
    h = tg.ones(5, dtype=tg.float64)
    for i in range(24):
        with session:
            h = tg.tanh(h * w) + 0.5
            if i % 4 == 3:
                h.sum().backward()
                h = h.detach()
        yield h.numpy(), w.grad


@pytest.mark.parametrize("write", ["copy_", "step", "item"])
@pytest.mark.parametrize("inside", [True, False])
def test_a_write_between_forward_and_backward(write, inside):
    """The adjoint needs the old value, so it raises, in the pass or after it, as eagerly."""

    def program(make):
        session, w = make(), tg.tensor(V, requires_grad=True)
        optimizer = optim.SGD([w], lr=0.1)
        for i in range(8):
            refused = None
            with session:
                y = (w * w * float(i + 1)).sum()
                (w * 2).sum().backward()
                with tg.no_grad():
                    if write == "copy_":
                        w.copy_(w * 0.9)
                    elif write == "step":
                        optimizer.step()
                    elif i % 2:
                        w[1] = 0.25
                if inside:
                    refused = said(y.backward)
            if not inside:
                refused = said(y.backward)
            yield refused, w.numpy(), w.grad

    agree(program)


def test_the_line_of_the_write_is_named_in_a_replay():
    session, w = tg.Session(), tg.tensor(V, requires_grad=True)
    for _ in range(6):
        with session:
            y = (w * w).sum()
            with tg.no_grad():
                w.copy_(w * 0.9)
            with pytest.raises(
                TapeError, match=r"(?s)overwritten in place.*test_session_derivatives\.py:\d+ \(w\.copy_"
            ):
                y.backward()


@agrees(ulps=SUMMED, steady=4)
def test_gradients_are_assigned_clipped_and_dropped_by_hand(make):
    model, session = mlp(), make()
    params = list(model.parameters())
    optimizer = optim.SGD(params, lr=0.2)
    for x, y in batches(12):
        with session:
            for p in params:
                p.grad = None
            (F.cross_entropy(model(tg.tensor(x)), tg.tensor(y)) * 10).backward()
            with tg.no_grad():
                norm = sum((p.grad * p.grad).sum() for p in params) ** 0.5
                scale = tg.minimum(1.0 / (norm + 1e-6), 1.0)
                params[0].grad = params[0].grad * scale
                for p in params[1:]:
                    p.grad.copy_(p.grad * scale)
            optimizer.step()
        yield norm, state(model)


@agrees(ulps=TRAINED)
def test_gradients_accumulate_over_several_passes(make):
    model, session = mlp(), make()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    for i, (x, y) in enumerate(batches(32)):
        with session:
            (F.cross_entropy(model(tg.tensor(x)), tg.tensor(y)) / 4).backward()
            if i % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()
        yield [None if p.grad is None else p.grad.numpy() for p in model.parameters()]
    yield state(model)


@agrees(ulps=TRAINED)
def test_gradients_accumulate_with_the_step_outside(make):
    model, session = mlp(), make()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for i, (x, y) in enumerate(batches(30)):
        with session:
            (F.cross_entropy(model(tg.tensor(x)), tg.tensor(y)) / 3).backward()
        if i % 3 == 2:
            optimizer.step()
            optimizer.zero_grad(set_to_none=i % 2 == 0)
        yield state(model)


@agrees(ulps=SUMMED, steady=4)
def test_gradients_of_fresh_inputs(make):
    session = make()
    for i in range(10):
        with session:
            x = tg.tensor(V * i, requires_grad=True)
            y = tg.full((5,), 0.5, dtype=tg.float64, requires_grad=True)
            (tg.sin(x) * y * y).sum().backward()
            z = x.grad * 2
        yield x, x.grad, y.grad, z


def test_anomalies_are_named_in_a_replay():
    session, w = tg.Session(), tg.tensor([1.0, 2.0], requires_grad=True)
    for i in range(12):
        with session:
            x = tg.tensor([1.0, -1.0 if i in (0, 8) else 1.0])
            if i < 10:
                with tg.detect_anomaly():
                    if i in (0, 8):
                        with pytest.raises(
                            TapeError, match=r"log made a nan .*test_session_derivatives\.py:\d+ \(tg\.log\(x \* 1\)"
                        ):
                            tg.log(x * 1)
                    else:
                        tg.log(x * 1)
            y = (w * x).sum()
        assert y.item() == (1.0 + (-2.0 if i in (0, 8) else 2.0))


def test_anomalies_in_backward():
    session, w = tg.Session(), tg.tensor([0.0, 1.0], requires_grad=True)
    for _ in range(6):
        with session:
            (w * 2).sum().backward()  # without looking
            with tg.detect_anomaly():
                z = (tg.sqrt(w * 1) * tg.tensor([0.0, 1.0])).sum()
                with pytest.raises(TapeError, match=r"in the backward of sqrt, recorded at .*\(z = "):
                    z.backward()


@agrees(ulps=TRAINED)
def test_anomaly_detection_is_switched_on_and_off(make):
    model, session = mlp(), make()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for i, (x, y) in enumerate(batches(16)):

        def step(x=x, y=y):
            with session:
                loss = F.cross_entropy(model(tg.tensor(x)), tg.tensor(y))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            return loss

        if i % 4 == 2:
            with tg.detect_anomaly():
                loss = step()
        else:
            loss = step()
        yield loss, state(model)


@agrees(ulps=SUMMED)
def test_a_backward_that_stops_matching_on_its_way_reaches_every_leaf(make):
    """The first pass raises before its backward was recorded; the second records it, from the middle of its rows on."""
    model, session = mlp(), make()
    for i, (x, y) in enumerate(batches(5)):
        with session:
            out = tg.softmax(model(tg.tensor(x)))
            loss = F.nll_loss(tg.log(out), tg.tensor(y))
            model.zero_grad()
            if i % 2:
                loss = loss * float(i)
            loss.backward()
            if i == 1:
                (model(tg.tensor(x)) ** 2).mean().backward()
        yield loss, [p.grad for p in model.parameters()]
