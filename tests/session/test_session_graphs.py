"""Backwards into a graph from before the pass: what eager execution refuses there, a session refuses too, in every pass."""

from __future__ import annotations

from paired import SUMMED, agrees, said

import tapegrad as tg
from tapegrad import optim


def leaf() -> tg.Tensor:
    return tg.tensor([0.5, -0.2], dtype=tg.float64, requires_grad=True)


def refused(t: tg.Tensor, retain: bool = True) -> str | None:
    """The error of a backward, or None."""
    return said(lambda: t.backward(retain_graph=retain))


def gradient(w: tg.Tensor):
    return None if w.grad is None else w.grad.numpy()


@agrees(ulps=SUMMED)
def test_a_pass_releases_it(make):
    session, w = make(), leaf()
    y = w * w
    for i in range(8):
        with session:
            w.grad = None
            loss = (y * 3).sum()
            what = refused(loss, retain=i < 5 or i == 7)
        yield what, gradient(w)


@agrees(ulps=SUMMED)
def test_it_is_released_between_passes(make):
    session, w = make(), leaf()
    y = w * w
    for i in range(8):
        with session:
            w.grad = None
            loss = (y * 3).sum()
            what = refused(loss)
        yield what, gradient(w)
        if i == 5:
            y.sum().backward()


@agrees(ulps=SUMMED)
def test_a_step_overwrites_what_it_saved(make):
    session, w = make(), leaf()
    optimizer = optim.SGD([w], lr=0.1)
    for _ in range(3):
        y = w * w
        for i in range(6):
            with session:
                optimizer.zero_grad()
                loss = (y * 3).sum()
                what = refused(loss)
                if i == 4:
                    optimizer.step()
            yield what, gradient(w), w.numpy()


@agrees(ulps=SUMMED)
def test_what_it_saved_is_overwritten_between_passes(make):
    session, w = make(), leaf()
    y = w * w
    for i in range(8):
        with session:
            w.grad = None
            loss = (y * 3).sum()
            what = refused(loss)
        yield what, gradient(w)
        if i == 5:
            with tg.no_grad():
                w.copy_(w * 2)


@agrees(ulps=SUMMED)
def test_a_derivative_of_a_function_leads_to_it(make):
    session, w, x = make(), leaf(), tg.ones(2, dtype=tg.float64)
    y = w * w
    for i in range(8):
        with session:
            w.grad = None
            slope = tg.grad(lambda v: (v * y).sum())(x)
            what = refused((slope * slope).sum())
        yield what, slope.detach(), gradient(w)
        if i == 5:
            y.sum().backward()


@agrees(ulps=SUMMED)
def test_a_value_is_carried_with_its_graph(make):
    """Every other pass makes another one; the pass between finds its graph released."""
    session, w = make(), leaf()
    optimizer, carried = optim.SGD([w], lr=0.1), tg.zeros(2, dtype=tg.float64)
    for i in range(10):
        with session:
            what = refused((carried**2).sum(), retain=False)
            y = w * 1
            carried = y[:] if i % 2 else carried[:]
            seen = gradient(w)
            optimizer.step()
            optimizer.zero_grad()
        yield what, seen, w.numpy(), carried.detach()
