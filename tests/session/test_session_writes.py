"""Writes in place within and between passes: order, overlap, aliases, and memory that belongs to somebody else by then."""

from __future__ import annotations

import numpy as np
import pytest
from paired import SUMMED, agree, agrees, batches, mlp, said

import tapegrad as tg
from tapegrad import optim


@agrees(steady=4)
def test_copies_and_assignments_inside_a_pass(make):
    """Leaves and results are written; what was computed before keeps its value, views see the writes."""
    session, kept = make(), tg.zeros((3, 4))
    for i in range(15):
        with session:
            before = kept * 1
            kept.copy_(tg.full((4,), float(i)))
            view = kept[1]
            middle = kept + 0
            kept[1, 1:3] = tg.tensor([10.0, 20.0])
            kept[0] = kept[1] * 2
            result = tg.arange(12, dtype=tg.float32).reshape((3, 4)) * float(i)
            saved = result + 0
            result[:, 0] = 5.0
            result[2] = result[1]
            result.T[3].copy_(tg.tensor([7.0, 8.0, 9.0]))
            after = result * 2
        yield before, middle, view.numpy(), kept.numpy(), saved, result, after


@agrees()
def test_assignments_by_mask_and_by_index_inside_a_pass(make):
    session, rng = make(), np.random.default_rng(4)
    kept = tg.zeros(6)
    for i in range(15):
        with session:
            x = tg.tensor(rng.normal(size=(6,))).astype(tg.float32) * 1
            y = x + 0
            x[x < 0] = float(i)
            x[[0, 0, 3]] = tg.tensor([1.0, 2.0, 3.0])
            kept[tg.tensor([1, 4])] = x[:2]
            z = x * 2 + kept
        yield x, y, z, kept.numpy()


@agrees(ulps=SUMMED)
def test_swapping_two_buffers_in_place(make):
    session, a, b = make(), tg.ones(5), tg.zeros(5)
    for i in range(15):
        with session:
            t = a.copy()
            a.copy_(b * 0.5 + float(i))
            b.copy_(t + b)
            refused = said(lambda: a.copy_(tg.ones((2, 5))))
        yield a.numpy(), b.numpy(), refused


@agrees(steady=4)
def test_fresh_tensors_are_written_in_their_pass(make):
    """The next pass gets them as they were made."""
    session = make()
    for i in range(12):
        with session:
            made = tg.zeros(4), tg.tensor([1.0, 2.0, 3.0, 4.0]), tg.arange(4), tg.eye(4)[0], tg.full(4, float(i))
            before = [m * 1 for m in made]
            for k, m in enumerate(made):
                m[k % 4] = 7
            made[0].copy_(made[1] * 2)
            after = [m * 1 for m in made]
        yield before, after, list(made)


@agrees(steady=4)
def test_overlapping_reads_and_writes(make):
    """Elements are read before they are written, whatever the order of the kernel."""
    x, session = tg.arange(8, dtype=tg.float32), make()
    square = tg.arange(16, dtype=tg.float32).reshape((4, 4)).copy()
    for i in range(12):
        with session:
            x[1:] = x[:-1] + float(i)
            x.copy_(tg.flip(x, 0))
            x[:4] = x[4:]
            square.copy_(square.T)
            square[0] = square[:, 1]
            square[1:3, 1:3] = square[:2, :2] * 0.5
            y = x * 2 + square[0].sum() * 0
        yield x.numpy(), square.numpy(), y


@agrees(steady=4)
def test_the_last_write_counts_and_each_read_sees_the_one_before_it(make):
    x, session = tg.zeros(3), make()
    for i in range(12):
        with session:
            x.copy_(tg.full(3, float(i)))
            x.copy_(x + 1)
            a = x * 10
            x.copy_(x + 1)
            b = x * 10
            x[0] = -1.0
            view = x[:2]
            c = view + 0
            x[0] = -2.0
            view.copy_(view * 3)
        yield a, b, c, x.numpy(), view.numpy()


@agrees(steady=4)
def test_aliases_made_outside_are_seen_inside(make):
    """Views of one buffer, made before the session, read and written in turns."""
    base, session = tg.zeros((4, 4)), make()
    row, column, corner, flat = base[1], base[:, 1], base[:2, :2], base.reshape((16,))
    for i in range(12):
        with session:
            row.copy_(tg.full(4, float(i)))
            a = column * 2
            column.copy_(column + 1)
            b = flat * 1
            corner.copy_(base[2:, 2:] - 1.0)
            c = row + column
        yield a, b, c, base.numpy()


@agrees(steady=4)
def test_a_parameter_and_its_detached_views(make):
    w, session = tg.tensor(np.ones((3, 3)), requires_grad=True), make()
    detached, first = w.detach(), w.detach()[0]
    for i in range(12):
        with session:
            y = (w * first * float(i)).sum()
            w.grad = None
            y.backward()
            with tg.no_grad():
                w.copy_(w * 0.5 + 1)
            z = detached * 2 + first
            first[1] = 0.5 * i
            v = w.detach() * 1
        yield y, w.grad, z, v, w.numpy()


@agrees(steady=4)
def test_results_are_written_outside_after_their_pass(make):
    """What a pass gave out belongs to the user: writing there changes no later pass, and no later pass writes there."""
    session, x, kept = make(), tg.ones(4), []
    for i in range(12):
        with session:
            fresh = tg.tensor([1.0, 2.0, 3.0, float(i)])
            y = x * 3
            z = y + fresh
        yield fresh.numpy(), y.numpy(), z.numpy()
        for t in (fresh, y, z):
            t.copy_(tg.full(4, -9.0 - i))
        kept.append((fresh, y, z))
    yield kept


@agrees(steady=4)
def test_gradients_share_no_memory(make):
    """Each may be scaled in place, and so may the seed."""
    x, y = (tg.tensor(np.full(3, v), requires_grad=True) for v in (1.0, 2.0))
    session, seed = make(), tg.ones(3, dtype=tg.float64)
    for i in range(12):
        with session:
            x.grad = y.grad = None
            (x + y).backward(seed)
            x.grad.copy_(x.grad * (i + 2.0))
            seed.copy_(seed * 1.5)
            y.backward(seed)
            seed.copy_(seed * 0.5)
        yield x.grad, y.grad, seed.numpy()


@agrees(ulps=SUMMED, steady=6)
def test_gradients_are_written_outside_and_added_to_inside(make):
    x, session = tg.tensor(np.linspace(0, 1, 5), requires_grad=True), make()
    for i in range(14):
        with session:
            (x * x * float(i)).sum().backward()
        first = x.grad
        with tg.no_grad():
            x.grad.copy_(x.grad * 0.25)
        yield first, x.grad.numpy()


@pytest.mark.parametrize("how", ["write", "copy_", "in place"])
def test_writes_that_are_refused_are_refused_alike(how):
    def program(make):
        x, session = tg.tensor([1.0, 2.0], requires_grad=True), make()
        attempts = {
            "write": lambda y: y.__setitem__(0, 1.0),
            "copy_": lambda y: y.copy_(tg.zeros(2)),
            "in place": lambda y: y.__iadd__(1),
        }
        for i in range(8):
            with session:
                y = x * float(i)
                refused = [
                    said(lambda t=t: attempts[how](t)) for t in (x, y, tg.broadcast_to(tg.zeros(1), (2,)), tg.zeros(2))
                ]
                source = said(lambda: tg.zeros(2).copy_(x))
                z = y * 2
            yield refused, source, z

    agree(program)


def test_a_step_that_runs_at_a_look_in_the_middle_is_written_where_it_stands():
    """Rows between the step and the look saved what the step had written; a backward after the look may read it."""

    def program(make):
        session, model = make(), mlp()
        optimizer = optim.SGD(model.parameters(), lr=0.05)
        for i, (x, _) in enumerate(batches(8)):
            with session:
                optimizer.step()
                optimizer.zero_grad()
                y = model(tg.tensor(x))
                if y.sum().item() > -100.0 and i % 3 == 2:  # another way now and then
                    y = tg.tanh(y)
                (y * y).mean().backward()
            yield [p.grad for p in model.parameters()]

    agree(program, ulps=SUMMED, restless=True)
