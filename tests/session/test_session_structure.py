"""How passes end and meet: footguns j, m, n, o, r and s of sessions. Exceptions, nesting, changed models."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from paired import SUMMED, TRAINED, agree, agrees, batches, mlp, state

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.errors import ShapeError, TapegradError
from tapegrad.nn import functional as F

OUTER = slice(1)  # what runs inside another session's pass is part of that


class Stop(BaseException):
    """What nobody catches by accident."""


@pytest.mark.parametrize("where", ["forward", "loss", "backward", "step"])
@pytest.mark.parametrize("error", [ValueError, Stop])
def test_j_an_exception_within_a_pass(where, error):
    """Everything before it has happened, nothing after it, and the next pass goes on rightly."""

    def program(make):
        model, session = mlp(dropout=0.2), make()
        optimizer = optim.Adam(model.parameters(), lr=0.01)

        def reached(place, i):
            if place == where and i in (0, 7, 8, 19):
                raise error(f"at {place}")

        for i, (x, y) in enumerate(batches(25)):
            said = None
            try:
                with session:
                    h = model[0](tg.tensor(x))
                    reached("forward", i)
                    loss = F.cross_entropy(model[2](model[1](h)), tg.tensor(y))
                    reached("loss", i)
                    optimizer.zero_grad()
                    loss.backward()
                    reached("backward", i)
                    optimizer.step()
                    reached("step", i)
            except error as e:
                said = str(e)
            yield said, h, state(model), sorted(s["step"] for s in optimizer.state.values())

    agree(program, ulps=TRAINED).steady(21)


@pytest.mark.parametrize("after", ["log_softmax", "softmax", "matmul", "sum"])
def test_j_the_first_pass_ends_in_the_middle(after):
    """What the first pass recorded is the beginning of the others, whose gradients go all the way down."""
    ends = {
        "log_softmax": tg.log_softmax,
        "softmax": tg.softmax,
        "matmul": lambda x: x @ x.T,
        "sum": lambda x: x.sum(1),
    }

    def program(make):
        w, session = tg.tensor(np.linspace(-1, 1, 12).reshape(3, 4), requires_grad=True), make()
        for i in range(8):
            w.grad = None
            with contextlib.suppress(KeyError), session:
                y = ends[after](tg.tanh(tg.tanh(w) * 2))
                if i in (0, 5):
                    raise KeyError
                (y * y).sum().backward()
            yield y, w.grad

    agree(program, ulps=SUMMED)


@agrees(ulps=TRAINED)
def test_j_errors_of_tapegrad_itself(make):
    """A shape that does not fit, an undefined gradient: caught inside the pass or outside of it."""
    model, session = mlp(), make()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for i, (x, y) in enumerate(batches(20)):
        said = []
        try:
            with session:
                out = model(tg.tensor(x))
                if i % 5 == 3:
                    with pytest.raises(ShapeError) as caught:
                        out @ out
                    said.append(str(caught.value))
                loss = F.cross_entropy(out, tg.tensor(y))
                optimizer.zero_grad()
                loss.backward()
                if i % 5 == 4:
                    loss.backward()
                optimizer.step()
        except TapegradError as error:
            said.append(type(error).__name__)
        yield said, state(model), loss.item()


@agrees(ulps=TRAINED)
def test_j_break_continue_and_return_leave_a_pass_whole(make):
    model, session = mlp(), make()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    w = model[0].weight

    def step(x, y):
        with session:
            loss = F.cross_entropy(model(tg.tensor(x)), tg.tensor(y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

    for x, y in batches(12):
        yield step(x, y), w.numpy()
    total = tg.zeros(())
    for i in range(8):
        for k in range(3):
            with session:
                total = total + i
                if k == 1:
                    break
        with session:
            total = total * 0.5
            if i > 2:
                continue
            total = total + 1
        yield total


@agrees(ulps=TRAINED, steady=6)
def test_m_two_sessions_take_turns(make):
    """One trains, the other evaluates the same model; parameters that the first writes are inputs of the second."""
    model, train, test = mlp(dropout=0.3), make(), make()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    for x, y in batches(20):
        with train:
            loss = F.cross_entropy(model.train()(tg.tensor(x)), tg.tensor(y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with test, tg.no_grad():
            out = model.eval()(tg.tensor(x))
        yield loss, out


@agrees(ulps=SUMMED, steady=8)
def test_m_sessions_feed_each_other(make):
    one, two = make(), make()
    a, b = tg.ones((2, 3)), tg.zeros((2, 3))
    for _ in range(25):
        with one:
            a = tg.sin(a + b) * 2
        with two:
            b = tg.cos(a) - b
        with one:
            a = tg.sin(a + b) * 2
        yield a.numpy(), b


@agrees(ulps=TRAINED, restless=True)
def test_m_turns_at_random(make):
    rng, sessions, x = np.random.default_rng(5), [make() for _ in range(3)], tg.ones(4)
    model = mlp(sizes=(4, 8, 4))
    for _ in range(60):
        k = rng.integers(3)
        with sessions[k]:
            x = tg.tanh(model(x.reshape((1, 4)).astype(tg.float64)).reshape((4,)) * (k + 1.0)).detach()
            if k == 2:
                x = x + sum((p * 0.01).sum().item() for p in model.parameters())
        yield x if k else x.numpy()


@agrees(ulps=TRAINED, steady=6, sessions=OUTER)
def test_n_a_session_inside_a_session(make):
    """The inner one is an inner loop: gradient steps on an input, under an outer step on the parameters."""
    model, outer, inner = mlp(sizes=(6, 12, 1)), make(), make()
    optimizer = optim.SGD(model.parameters(), lr=0.05)
    for x, _ in batches(15):
        with outer:
            z = tg.tensor(x)
            for _ in range(3):
                with inner:
                    z = z - 0.1 * tg.grad(lambda v: model(v).sum())(z)
            loss = (model(z) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield z, loss.item(), state(model)


@agrees(steady=8, sessions=OUTER)
def test_n_pending_values_cross_the_border(make):
    """Computed outside and read inside, computed inside and read outside, carried to the next pass of either."""
    outer, inner, h = make(), make(), tg.ones(3)
    for i in range(20):
        with outer:
            a = tg.exp(-h) + 0.1 * i
            with inner:
                b = tg.sin(a) * h
                a = a + b
            c = a * b
            with inner:
                b = tg.sin(c) * h
                a = c + b
            h = a - b * 0.5
        yield a, h.numpy()


@agrees(steady=8, sessions=OUTER)
def test_n_an_exception_leaves_the_inner_session_alone(make):
    outer, inner, w = make(), make(), tg.ones(3)
    for i in range(20):
        with outer:
            a = w * float(i)
            with contextlib.suppress(KeyError), inner:
                a = a + 1
                raise KeyError
            b = a * 2
        yield a, b


@agrees(ulps=TRAINED, steady=8)
def test_o_a_session_inside_a_function_called_at_two_places(make):
    session = make()
    small, large = mlp(), mlp(sizes=(6, 9, 9, 4))
    optimizers = {id(m): optim.SGD(m.parameters(), lr=0.1) for m in (small, large)}

    def step(model, x, y):
        with session:
            loss = F.cross_entropy(model(tg.tensor(x)), tg.tensor(y))
            optimizer = optimizers[id(model)]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    for x, y in batches(20):
        first = step(small, x, y)
        second = step(large, x[:5], y[:5])
        yield first, second, state(small), state(large)


@agrees(ulps=TRAINED, steady=8)
def test_o_a_decorated_function_called_at_two_places(make):
    w = tg.tensor(np.linspace(-1, 1, 4), requires_grad=True)

    @make()
    def energy(x, power=2):
        """Some energy."""
        return ((x * w).abs() ** power).sum()

    assert energy.__name__ == "energy" and energy.__doc__ == "Some energy."
    for i in range(20):
        a = energy(tg.full((4,), float(i), dtype=tg.float64))
        b = energy(tg.full((3, 4), float(i), dtype=tg.float64), power=3)
        (a + b).backward()
        yield a, b, w.grad


@agrees(ulps=TRAINED)
def test_r_parameters_are_frozen_and_thawed(make):
    model, session = mlp(sizes=(6, 8, 8, 4)), make()
    optimizer = optim.Adam(model.parameters(), lr=0.02)
    for i, (x, y) in enumerate(batches(40)):
        if i % 8 == 0:
            model[0].requires_grad_(i % 16 != 0)
        with session:
            loss = F.cross_entropy(model(tg.tensor(x)), tg.tensor(y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield state(model), [p.requires_grad for p in model.parameters()]


@agrees(ulps=TRAINED, steady=6)
def test_r_parameters_are_frozen_inside_the_pass(make):
    """Alternating updates, as in adversarial training: each half freezes what it does not train."""
    maker, critic, session = mlp(sizes=(3, 8, 6)), mlp(sizes=(6, 8, 1)), make()
    optimizers = [optim.Adam(m.parameters(), lr=0.01) for m in (maker, critic)]
    for x, _ in batches(20):
        with session:
            critic.requires_grad_(False)
            noise = tg.normal(size=(8, 3)).astype(tg.float64)
            loss = F.softplus(-critic(maker(noise))).mean()
            optimizers[0].zero_grad()
            loss.backward()
            optimizers[0].step()
            critic.requires_grad_(True)
            fake = maker(noise).detach()
            other = (F.softplus(critic(fake)) + F.softplus(-critic(tg.tensor(x)))).mean()
            optimizers[1].zero_grad()
            other.backward()
            optimizers[1].step()
        yield loss.item(), other.item(), state(maker), state(critic)


@agrees(ulps=TRAINED)
def test_s_a_layer_is_added_between_iterations(make):
    model, session = mlp(sizes=(6, 8, 4)), make()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    for i, (x, y) in enumerate(batches(30)):
        if i in (10, 20):
            added = nn.Linear(4, 4, dtype=tg.float64)
            model.append(nn.Tanh()).append(added)
            optimizer.add_param_group({"params": list(added.parameters()), "lr": 0.05})
        with session:
            loss = F.cross_entropy(model(tg.tensor(x)), tg.tensor(y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield loss, state(model)


def test_s_after_a_layer_was_added_passes_replay_again():
    session, model = tg.Session(), mlp(sizes=(6, 8, 4))
    counts = []
    for i, (x, _) in enumerate(batches(20)):
        if i == 10:
            model.append(nn.Tanh())
        with session:
            model(tg.tensor(x)).sum().item()
        counts.append(session.stats.recordings)
    assert counts[4] == counts[9] < counts[10] and counts[14] == counts[19]


@agrees(ulps=TRAINED)
def test_s_a_parameter_is_replaced_by_another(make):
    model, session = mlp(), make()
    for i, (x, y) in enumerate(batches(20)):
        if i % 6 == 5:
            model[0].weight = nn.Parameter(model[0].weight.numpy() * 0.5)
        with session:
            model.zero_grad()
            F.cross_entropy(model(tg.tensor(x)), tg.tensor(y)).backward()
            with tg.no_grad():
                for p in model.parameters():
                    p.copy_(p - 0.1 * p.grad)
        yield state(model)
