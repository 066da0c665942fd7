"""`optim.GradScaler`: the scaled training is the unscaled one, less the steps whose gradients overflowed."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.errors import CheckpointError, ShapeError, TapeError

OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: optim.Adam(p, lr=0.05),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.02),
}


def training(make, scaler, session, poisoned=(), skipped=(), steps=14):
    """Parameters after `steps` iterations, in some of which a gradient overflows; `skipped` ones are left out altogether."""
    tg.seed(0)
    rng = np.random.default_rng(1)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2))
    optimizer = make(model.parameters())
    scales = []
    for i in range(steps):
        x, target = rng.normal(size=(6, 5)).astype(np.float32), rng.normal(size=(6, 2)).astype(np.float32)
        if i in skipped:
            continue
        with session:
            loss = nn.functional.mse_loss(model(tg.tensor(x)), tg.tensor(target)) * (
                float("inf") if i in poisoned else 1.0
            )
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        scales.append(scaler.get_scale())
    return [p.numpy() for p in model.parameters()], scales


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("session", [nullcontext, tg.Session], ids=["eager", "session"])
def test_steps_that_overflow_are_as_if_they_had_not_been(make, session):
    """Bit by bit, since the scales are powers of two. The scale is what its rules say."""
    poisoned = (0, 1, 5)
    got, scales = training(make, optim.GradScaler(1024.0, growth_interval=3), session(), poisoned)
    wanted, _ = training(make, optim.GradScaler(enabled=False), nullcontext(), (), poisoned)
    for p, q in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(p, q)
    scale, since, expected = 1024.0, 0, []
    for i in range(14):
        scale, since = (scale / 2, 0) if i in poisoned else (scale, since + 1)
        if since == 3:
            scale, since = scale * 2, 0
        expected.append(scale)
    assert scales == expected


def test_a_session_replays_with_a_scaler():
    session = tg.Session()
    training(OPTIMIZERS["Adam"], optim.GradScaler(2.0**10, growth_interval=4), session, (6,))
    assert session.stats.replays >= 9


def test_small_gradients_of_float16_survive():
    def gradient(scaler):
        w = tg.tensor([[1.0]], requires_grad=True)
        optimizer = optim.SGD([w], lr=1.0)
        with tg.autocast("float16"):
            loss = (tg.ones((1, 1)) @ w).sum() * 2e-8
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        return w.grad.item()

    assert gradient(optim.GradScaler(enabled=False)) == 0.0
    assert gradient(optim.GradScaler()) == pytest.approx(2e-8, rel=1e-3)


def test_a_loss_of_float16_is_scaled_in_float32():
    loss = tg.tensor(3.0, dtype="float16", requires_grad=True)
    scaled = optim.GradScaler().scale(loss)
    assert scaled.dtype is tg.float32 and scaled.item() == 3 * 65536
    pair = optim.GradScaler(2.0).scale([loss, loss.astype("float64")])
    assert [t.item() for t in pair] == [6.0, 6.0] and pair[1].dtype is tg.float64


def test_unscale_before_clipping():
    w = tg.tensor([3.0, 4.0], requires_grad=True)
    optimizer, scaler = optim.SGD([w], lr=1.0), optim.GradScaler(256.0)
    scaler.scale((w * tg.tensor([3.0, 4.0])).sum()).backward()
    scaler.unscale_(optimizer)
    assert nn.utils.clip_grad_norm_([w], 1.0).item() == 5.0
    scaler.step(optimizer)
    np.testing.assert_allclose(w.tolist(), [2.4, 3.2], rtol=1e-6)


def test_two_optimizers_and_one_that_overflows():
    a, b = (tg.tensor([1.0], requires_grad=True) for _ in range(2))
    first, second, scaler = optim.SGD([a], lr=1.0), optim.SGD([b], lr=1.0), optim.GradScaler(4.0)
    scaler.scale((a * 0.5 + b * float("inf")).sum()).backward()
    scaler.step(first)
    scaler.step(second)
    scaler.update()
    assert (a.item(), b.item(), scaler.get_scale()) == (0.5, 1.0, 2.0)


def test_state():
    scaler = optim.GradScaler(32.0, growth_interval=5)
    w = tg.tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([w], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        scaler.scale((w * w).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    again = optim.GradScaler()
    again.load_state_dict(scaler.state_dict())
    assert again.state_dict() == scaler.state_dict() and again.state_dict()["_growth_tracker"] == 3
    with pytest.raises(CheckpointError, match=r"GradScaler: the state is to have \[.*'scale'\]; it has \['a'\]"):
        again.load_state_dict({"a": 1})
    again.update(8.0)
    assert again.get_scale() == 8.0 and optim.GradScaler(enabled=False).get_scale() == 1.0


def test_calls_out_of_order():
    w = tg.tensor([1.0], requires_grad=True)
    optimizer, scaler = optim.SGD([w], lr=0.1), optim.GradScaler()
    with pytest.raises(
        TapeError, match=r"none of the optimizer's parameters has a gradient; call scale\(loss\)\.backward\(\)"
    ):
        scaler.step(optimizer)
    with pytest.raises(
        TapeError, match=r"no gradients were looked at since the last update\(\); call step\(optimizer\)"
    ):
        scaler.update()
    scaler.scale(w.sum()).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(TapeError, match=r"unscale_: it was called for this optimizer since the last update\(\)"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    with pytest.raises(TapeError, match=r"step: it was called for this optimizer since the last update\(\)"):
        scaler.step(optimizer)
    with pytest.raises(TapeError, match=r"GradScaler.scale: a loss is a tensor, not a float"):
        scaler.scale(1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(init_scale=0.0),
        dict(init_scale=float("inf")),
        dict(growth_factor=1.0),
        dict(backoff_factor=1.0),
        dict(growth_interval=0),
    ],
)
def test_settings_that_make_no_sense(wrong):
    ((name, _),) = wrong.items()
    with pytest.raises(ShapeError, match=rf"GradScaler: {name} is .*, not "):
        optim.GradScaler(**wrong)
