"""Passes that differ: footguns d, e, f, g, h and i of sessions. Another branch, length, shape, number or random draw."""

from __future__ import annotations

import math

import numpy as np
import pytest
from paired import SUMMED, TRAINED, agree, agrees, batches, mlp, state

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.nn import functional as F


def test_d_another_branch_at_iteration_50_and_back():
    def program(make):
        w, session = tg.normal(size=(4, 4)), make()
        for i in range(100):
            with session:
                loss = (tg.full((4, 4), 9.0 if 50 <= i < 56 or i >= 90 else 0.5 + 0.01 * i) * w).abs().max()
                y = tg.tanh(loss * 2) if loss.item() > 5.0 else tg.exp(-loss) + w.sum()
            yield y

    passes = agree(program, ulps=SUMMED)
    passes.steady(4, 50)
    passes.steady(53, 90)  # the way back, too, has been seen
    passes.steady(90)  # and so has the other branch


@agrees(ulps=SUMMED)
def test_d_a_branch_while_a_detached_view_is_held(make):
    """Of the array behind the view nobody holds the graph, so what that saved need not be there."""
    w, session = tg.normal(size=(4, 4)).detach().requires_grad_(), make()
    for i in range(8):
        with session:
            y = tg.ones((2, 4)) @ w
            y = y / (y * y).max()
            shown = y.detach()
            del y
            shown = shown * 2 if i >= 5 else shown + 1
        yield shown


@agrees(ulps=TRAINED, steady=12)
def test_d_a_branch_between_forward_and_backward(make):
    """The step is skipped where the loss is large; what the adjoints need is kept over the sync."""
    model, session = mlp(), make()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    for i, (x, y) in enumerate(batches(6) * 6):
        with session:
            loss = F.cross_entropy(model(tg.tensor(x if i % 3 else x * 8)), tg.tensor(y))
            if loss.item() < 1.6:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        yield state(model)


@agrees(restless=True)
def test_d_branches_on_every_kind_of_look_at_a_value(make):
    session, rng = make(), np.random.default_rng(1)
    for i in range(60):
        with session:
            x = tg.tensor(rng.normal(size=3)) * 2
            if x[0] > 0:
                x = x + 1
            if float(x[1]) > 0.5:
                x = tg.exp(-x * x)
            if (x > 0).all():
                x = x * 3
            k = int(x[2] > 1)
            x = [x, x.flip(0)][k] if i % 2 else x
            if not x.numpy().sum() < 4:
                x = tg.sqrt(x.abs())
        yield x


@agrees(ulps=SUMMED, restless=True)
def test_d_newton_until_it_converges(make):
    """A while loop on a value: as many syncs as rounds, and another number of rounds each pass."""
    session = make()
    for i in range(30):
        with session:
            x, target, rounds = tg.tensor(1.0, dtype=tg.float64), 2.0 + (i * 7) % 5, 0
            while abs(x * x - target) > 1e-10:
                x = x - (x * x - target) / (2 * x)
                rounds += 1
        yield x, rounds


def test_e_loops_of_changing_length():
    lengths = [3, 5, 2, 4, 5, 3, 2, 4, 4, 2, 5, 3, 2, 3, 4, 5] * 4

    def program(make):
        w, session = tg.normal(size=(5, 5)), make()
        for n in lengths:
            with session:
                h = tg.full((2, 5), 0.1 * n, dtype=tg.float32)
                for t in range(n):
                    h = tg.tanh(h @ w) + h * (0.1 * t)
            yield h

    agree(program).steady(20)


def test_e_recurrent_training_over_sequences_of_changing_length():
    rng = np.random.default_rng(2)
    sequences = [rng.normal(size=(n, 3, 4)) for n in (4, 2, 3, 4, 2, 3, 3, 2, 4, 3) * 4]

    def program(make):
        cell, out, session = nn.Linear(10, 6, dtype=tg.float64), nn.Linear(6, 1, dtype=tg.float64), make()
        optimizer = optim.Adam([*cell.parameters(), *out.parameters()], lr=0.01)
        for sequence in sequences:
            with session:
                h = tg.zeros((3, 6), dtype=tg.float64)
                for x in sequence:
                    h = tg.tanh(cell(tg.concatenate([tg.tensor(x), h], 1)))
                loss = (out(h) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            yield loss.item()
        yield state(cell)

    agree(program, ulps=TRAINED).steady(16)


def test_f_the_last_batch_is_smaller():
    data = [(x[:3], y[:3]) if i % 7 == 6 else (x, y) for i, (x, y) in enumerate(batches(42))]

    def program(make):
        model, session = mlp(), make()
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        for x, y in data:
            with session:
                loss = F.cross_entropy(model(tg.tensor(x)), tg.tensor(y))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            yield loss
        yield state(model)

    passes = agree(program, ulps=TRAINED)
    passes.steady(4, 6)
    passes.steady(27)  # four epochs


def test_f_shapes_and_dtypes_of_leaves_from_outside():
    """The tensors were made before the session; the same code gets another each pass."""
    kinds = [((4, 3), tg.float32), ((2, 3), tg.float32), ((4, 3), tg.float64), ((3,), tg.float32), ((4, 3), tg.int64)]

    def program(make):
        rng = np.random.default_rng(0)
        inputs = [tg.tensor(rng.normal(size=shape) * 3, dtype=dtype) for shape, dtype in kinds]
        inputs.append(tg.tensor(rng.normal(size=(3, 4)), dtype=tg.float32).T)  # the shape of the first, other strides
        session = make()
        for i in range(60):
            with session:
                y = tg.sin(inputs[i * 5 % 6] * 2) + 1
            yield y

    agree(program).steady(30)


def test_f_the_same_layout_but_another_tensor():
    """A list of batches made once: every pass reads another handle, sometimes the same one twice."""

    def program(make):
        xs, session = [tg.normal(size=(3, 3)) for _ in range(5)], make()
        for i in range(40):
            a, b = xs[i % 5], xs[i * i % 5]
            with session:
                y = a * 2 + b @ a - b
            yield y

    agree(program).steady(25)


SCHEDULED = {
    "SGD": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3),
    "nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: optim.Adam(p, lr=0.1),
    "AdamW": lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("name", SCHEDULED)
def test_g_the_learning_rate_changes_every_step(name):
    def program(make):
        model, session = mlp(), make()
        optimizer = SCHEDULED[name](model.parameters())
        for i, (x, y) in enumerate(batches(30)):
            optimizer.param_groups[0]["lr"] = 0.05 * (1 + math.cos(i / 10))
            with session:
                loss = F.cross_entropy(model(tg.tensor(x)), tg.tensor(y))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            yield loss.item(), state(model)

    agree(program, ulps=TRAINED).steady(4)


@agrees(steady=4)
def test_h_python_floats_that_change_every_step(make):
    w, session = tg.normal(size=(3, 3)), make()
    for i in range(20):
        t = 0.1 + 0.37 * i
        with session:
            y = tg.exp(-w * t) + t / (1 + w * w) - t
            z = tg.maximum(y, t) * tg.where(w > t, t, 2.0) + tg.clip(w, -t, t)
        yield y, z


@agrees(steady=4)
def test_h_floats_and_gradients(make):
    """The float is read again by the adjoint, in a sum over broadcast axes too."""
    w, session = tg.tensor(np.linspace(-1, 1, 6), requires_grad=True), make()
    for i in range(20):
        t = 0.5 + 0.1 * i
        with session:
            w.grad = None
            y = (tg.sin(w * t) * t) ** 2
            y.backward(tg.full((6,), t, dtype=tg.float64))
        yield y, w.grad


@agrees(steady=4)
def test_h_whole_numbers_that_change_every_step(make):
    x, session = tg.arange(6), make()
    for i in range(20):
        with session:
            y, z = x * i - i, (x + 0.5) * i
        yield y, z


@agrees(steady=4)
def test_h_filled_tensors_whose_number_changes(make):
    session = make()
    for i in range(20):
        with session:
            y = tg.full((3,), 0.5 * i) * tg.full_like(tg.ones(3), 1.0 / (i + 1))
        yield y


@agrees(restless=True)
def test_h_numbers_change_their_kind(make):
    """int, float, bool and NumPy numbers: the dtype of the result follows the number that came."""
    x, session = tg.arange(5), make()
    numbers = [
        2,
        2.0,
        True,
        np.float32(2),
        np.float64(2),
        np.int64(2),
        np.uint8(2),
        False,
        3,
        3.5,
        2,
        2.0,
        True,
        np.float64(2),
    ]
    for i in range(4 * len(numbers)):
        with session:
            number = numbers[i % len(numbers)]
            y = x * number
            z = x.astype(tg.float32) + number
        yield y, z


SPECIAL = [0.0, -0.0, math.nan, math.inf, -math.inf, 0.0, math.nan, math.nan, -0.0, 1e-300, 1e300, 2**62, 0, 0.0, 1]


@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_h_special_numbers(dtype):
    """-0.0 is not 0.0, and a nan that comes again is no reason to record."""

    def program(make):
        x, session = tg.tensor([1.0, -2.0, 0.0], dtype=dtype), make()
        for i in range(6 * len(SPECIAL)):
            with session:
                y = 1.0 / (x * SPECIAL[i % len(SPECIAL)])
                z = tg.isnan(y), tg.where(tg.isnan(y), 0.0, y)
            yield z

    agree(program).steady(4 * len(SPECIAL))


@agrees(steady=4)
def test_h_a_number_out_of_range_is_an_error_of_its_pass(make):
    x, session = tg.arange(3, dtype=tg.int32), make()
    for i in range(12):
        said = None
        with session:
            try:
                y = x + (2**40 if i in (3, 6) else i)
            except tg.errors.DtypeError as error:
                said, y = str(error), x
        yield said, y


@agrees(ulps=TRAINED, steady=4)
def test_i_dropout_draws_new_masks_and_the_same_for_the_same_seed(make):
    model, session = mlp(dropout=0.4), make()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for i, (x, y) in enumerate(batches(24)):
        if i % 12 == 0:
            tg.seed(11)
        with session:
            loss = F.cross_entropy(model(tg.tensor(x)), tg.tensor(y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield loss, state(model)


def test_i_masks_differ_from_pass_to_pass():
    session, x, seen = tg.Session(), tg.ones(2000), []
    for i in range(24):
        if i % 12 == 0:
            tg.seed(11)
        with session:
            y = F.dropout(x, 0.5)
        seen.append(y.numpy().tobytes())
    assert len(set(seen)) == 12 and seen[:12] == seen[12:]
    assert session.stats.replays >= 20


@agrees(steady=4)
def test_i_every_random_op(make):
    session = make()
    for _ in range(12):
        with session:
            drawn = tg.normal(size=(5,)), tg.uniform(size=(2, 3)), tg.randint(0, 100, size=(4,)), tg.permutation(6)
            more = tg.bernoulli(0.3, size=(50,)), tg.normal(size=(3,)) * tg.uniform(size=(3,))
        yield drawn, more


@agrees(restless=True)
def test_i_draws_of_a_branch_count(make):
    """A pass that draws once more shifts all draws after it, in whichever pass they are."""
    session = make()
    for i in range(40):
        with session:
            a = tg.normal(size=(3,))
            if i % 5 == 2:
                a = a + tg.uniform(size=(3,))
            b = tg.normal(size=(3,))
        outside = tg.normal(size=(2,)) if i % 3 == 0 else None
        yield a, b, outside


@agrees(steady=4)
def test_i_seeding_inside_a_pass(make):
    session = make()
    for i in range(10):
        with session:
            a = tg.normal(size=(3,))
            tg.seed(i // 2)
            b = tg.normal(size=(3,))
        yield a, b
