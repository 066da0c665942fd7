"""Schedules against PyTorch's rates, L-BFGS against its points, Lion against its paper; averages, modifiers, groups."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.errors import CheckpointError, PathError, ShapeError, TapeError
from tapegrad.optim import lr_scheduler

ORACLE = np.load(Path(__file__).parent / "fixtures" / "optimizers.npz")  # made by scripts/make_optimizer_fixtures.py
SCHEDULES = json.loads(str(ORACLE["schedules"]))
QUASI_NEWTON = json.loads(str(ORACLE["lbfgs"]))


def sgd(lr=0.1, **settings) -> optim.SGD:
    return optim.SGD([tg.zeros(1, requires_grad=True)], lr=lr, **{"momentum": 0.9, **settings})


def made(optimizer, case):
    settings = {k: v for k, v in case.items() if k not in ("name", "then")}
    kind = getattr(lr_scheduler, case["name"])
    if "then" not in case:
        return kind(optimizer, **settings)
    parts = [made(optimizer, SCHEDULES[name]) for name in case["then"]]
    return kind(optimizer, parts, **settings) if settings else kind(parts)


def steps(optimizer, schedule, case, values):
    found = []
    for value in values:
        group = optimizer.param_groups[0]
        found.append((group["lr"], group["momentum"]))
        schedule.step(*([value] if case["name"] == "ReduceLROnPlateau" else []))
    return np.array(found)


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_those_of_pytorch(name):
    case, optimizer = SCHEDULES[name], sgd()
    found = steps(optimizer, made(optimizer, case), case, ORACLE["values"])
    np.testing.assert_allclose(found, ORACLE[f"schedule/{name}"], rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_loaded_schedule_goes_on(name, tmp_path):
    case, values = SCHEDULES[name], ORACLE["values"]
    one, two = sgd(), sgd()
    first, second = made(one, case), made(two, case)
    steps(one, first, case, values[:9])
    tg.save(tmp_path / "s", {"schedule": first.state_dict(), "optimizer": one.state_dict()})
    state = tg.load(tmp_path / "s")
    two.load_state_dict(state["optimizer"])
    second.load_state_dict(state["schedule"])
    np.testing.assert_array_equal(steps(two, second, case, values[9:]), steps(one, first, case, values[9:]))
    with pytest.raises(CheckpointError, match="this is no state of"):
        second.load_state_dict({})


def test_inverse_time_and_lambda():
    optimizer = sgd()
    schedule = lr_scheduler.InverseTimeLR(optimizer, decay=0.5, steps=2)
    for _ in range(6):
        schedule.step()
    assert schedule.get_last_lr() == [0.1 / 2.5]
    other = sgd()
    schedule = lr_scheduler.LambdaLR(other, lambda n: 1 / (1 + n))
    schedule.step()
    assert schedule.get_last_lr() == [0.05]


def test_groups_keep_their_own_rates():
    p, q = tg.zeros(1, requires_grad=True), tg.zeros(1, requires_grad=True)
    optimizer = optim.SGD([{"params": [p], "lr": 0.1}, {"params": [q], "lr": 0.4}])
    schedule = lr_scheduler.StepLR(optimizer, 1, 0.5)
    schedule.step()
    assert schedule.get_last_lr() == [0.05, 0.2]
    with pytest.raises(CheckpointError, match="the state is of 1 parameter groups, the optimizer has 2"):
        schedule.load_state_dict({"base_lrs": [1.0], "last_epoch": 3})


def test_adam_cycles_its_first_beta():
    optimizer = optim.Adam([tg.zeros(1, requires_grad=True)])
    schedule = lr_scheduler.OneCycleLR(optimizer, 0.1, epochs=2, steps_per_epoch=5)
    assert optimizer.param_groups[0]["betas"] == (0.95, 0.999)
    schedule.step()
    schedule.step()
    assert optimizer.param_groups[0]["betas"][0] == pytest.approx(0.85)


def test_a_schedule_causes_no_recording():
    tg.seed(0)
    model = nn.Linear(3, 2)
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    schedule = lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=40)
    session, x = tg.Session(), tg.ones((4, 3))
    for _ in range(40):
        with session:
            loss = (model(x) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    assert session.stats.recordings == 2


@pytest.mark.parametrize("name", QUASI_NEWTON)
def test_lbfgs_goes_where_pytorch_goes(name):
    x = tg.tensor([-1.5, 2.0, 0.5], dtype=tg.float64, requires_grad=True)
    optimizer = optim.LBFGS([x], **QUASI_NEWTON[name])
    for want in ORACLE[f"lbfgs/{name}"]:
        optimizer.step(lambda: rosenbrock(x, optimizer))
        np.testing.assert_allclose(x.numpy(), want, rtol=1e-6)


def rosenbrock(x, optimizer):
    optimizer.zero_grad()
    loss = ((1.0 - x[:-1]) ** 2 + 100.0 * (x[1:] - x[:-1] ** 2) ** 2).sum()
    loss.backward()
    return loss


def test_lbfgs_continues_from_a_state(tmp_path):
    def fresh():
        x = tg.tensor([-1.5, 2.0, 0.5], dtype=tg.float64, requires_grad=True)
        return x, optim.LBFGS([x], max_iter=4, history_size=3, line_search_fn="strong_wolfe")

    (x, one), (y, two) = fresh(), fresh()
    for _ in range(3):
        one.step(lambda: rosenbrock(x, one))
    tg.save(tmp_path / "s", {"x": x, "optimizer": one.state_dict()})
    state = tg.load(tmp_path / "s")
    with tg.no_grad():
        y.copy_(state["x"])
    two.load_state_dict(state["optimizer"])
    for _ in range(3):
        one.step(lambda: rosenbrock(x, one))
        two.step(lambda: rosenbrock(y, two))
        assert x.numpy().tobytes() == y.numpy().tobytes()
    for _ in range(30):
        one.step(lambda: rosenbrock(x, one))
    np.testing.assert_allclose(x.numpy(), 1.0, atol=1e-6)


LBFGS_ERRORS = [
    (lambda o, x: o.step(), TapeError, "LBFGS: step needs a closure"),
    (lambda o, x: o.step(lambda: 3.0), TapeError, "the closure gave a float; it has to return the loss"),
    (lambda o, x: o.add_param_group({"params": [tg.zeros(1, requires_grad=True)]}), TapeError, "give them in one group"),
    (lambda o, x: optim.LBFGS([x], max_iter=0), ShapeError, "LBFGS: max_iter is a whole number from 1, not 0"),
    (lambda o, x: optim.LBFGS([x], line_search_fn="wolfe"), ShapeError, "line_search_fn is None or 'strong_wolfe'"),
    (lambda o, x: o.load_state_dict({}), CheckpointError, "this is no state of LBFGS"),
    (lambda o, x: o.load_state_dict({"memory": {}, "param_groups": [{"lr": 1}]}), CheckpointError, "the state has the settings"),
]  # fmt: skip


@pytest.mark.parametrize(("action", "error", "message"), LBFGS_ERRORS)
def test_errors_of_lbfgs(action, error, message):
    x = tg.zeros(2, requires_grad=True)
    with pytest.raises(error, match=message):
        action(optim.LBFGS([x]), x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lion_is_the_algorithm_of_the_paper(dtype):
    rng = np.random.default_rng(0)
    start = rng.standard_normal(9)
    p = tg.tensor(start.astype(dtype), requires_grad=True)
    lr, b1, b2, decay = 0.01, 0.9, 0.95, 0.2
    optimizer = optim.Lion([p], lr=lr, betas=(b1, b2), weight_decay=decay)
    x, m = start.copy(), np.zeros(9)
    for _ in range(20):
        noise = rng.standard_normal(9)
        noise[3] = 0.0
        optimizer.zero_grad()
        (tg.tensor(noise, dtype=p.dtype) * p).sum().backward()
        optimizer.step()
        x = x - lr * (np.sign(b1 * m + (1 - b1) * noise) + decay * x)
        m = b2 * m + (1 - b2) * noise
        np.testing.assert_allclose(p.numpy(), x, rtol=1e-5 if dtype == "float32" else 1e-12)


def test_averages_also_in_a_session():
    tg.seed(0)
    runs = []
    for use in (False, True):
        tg.seed(1)
        model = nn.Linear(3, 2)
        optimizer, session = optim.SGD(model.parameters(), lr=0.1), tg.Session()
        average = optim.ExponentialMovingAverage(model.parameters(), decay=0.9, warm_up=True)
        want = [p.numpy().astype(np.float64) for p in model.parameters()]
        x = tg.ones((4, 3))

        def body(model=model, optimizer=optimizer, average=average, x=x):
            loss = (model(x) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update()

        for n in range(1, 31):
            if use:
                with session:
                    body()
            else:
                body()
            decay = min(0.9, (1 + n) / (10 + n))
            want = [decay * w + (1 - decay) * p.numpy() for w, p in zip(want, model.parameters(), strict=True)]
        for a, w in zip(average.averages, want, strict=True):
            np.testing.assert_allclose(a.numpy(), w, rtol=1e-5)
        before = model.weight.numpy().copy()
        with average.applied():
            np.testing.assert_array_equal(model.weight.numpy(), average.averages[0].numpy())
        np.testing.assert_array_equal(model.weight.numpy(), before)
        runs.append([a.numpy().tobytes() for a in average.averages])
        if use:
            assert session.stats.recordings <= 3
    assert runs[0] == runs[1]
    other = optim.ExponentialMovingAverage(model.parameters())
    other.load_state_dict(average.state_dict())
    assert other.steps == 30 and other.averages[0].numpy().tobytes() == runs[1][0]
    with pytest.raises(CheckpointError, match="of other shapes"):
        other.load_state_dict({"steps": 1, "averages": []})
    with pytest.raises(ShapeError, match="decay is a number from 0 to below 1, not 1.0"):
        optim.ExponentialMovingAverage(model.parameters(), decay=1.0)
    with pytest.raises(ShapeError, match="no parameters were given"):
        optim.ExponentialMovingAverage([])


def test_modifiers():
    tg.seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    bias = model[0].bias.numpy().copy()
    optim.MaxNorm(0.3, "*.weight")(model)
    for layer in model:
        assert np.linalg.norm(layer.weight.numpy(), axis=1).max() <= 0.3 * (1 + 1e-6)
    np.testing.assert_array_equal(model[0].bias.numpy(), bias)
    optim.Scale(0.5, "0.bias")(model)
    np.testing.assert_array_equal(model[0].bias.numpy(), bias * 0.5)
    optim.Clip(-0.01, 0.02)(model)
    assert all(np.float32(-0.01) <= p.numpy().min() and p.numpy().max() <= np.float32(0.02) for p in model.parameters())
    for wrong, message in (
        (lambda: optim.Clip(1, 0), "Clip: the limits are 1 and 0"),
        (lambda: optim.MaxNorm(0), "above 0"),
    ):
        with pytest.raises(ShapeError, match=message):
            wrong()
    with pytest.raises(PathError, match="nothing is named '2.*'"):
        optim.Scale(2.0, "2.*")(model)


def test_groups_by_pattern():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    made = optim.groups(model, {"*.bias": dict(weight_decay=0.0), "1.bias": dict(lr=0.5)})
    assert [[p.shape for p in g["params"]] for g in made] == [[(4, 3), (2, 4)], [(4,)], [(2,)]]
    optimizer = optim.AdamW(made, lr=0.1)
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.1, 0.5]
    with pytest.raises(PathError, match="nothing is named '7.bias'; near names: 1.bias, 0.bias"):
        optim.groups(model, {"7.bias": {}})


WRONG = [
    (lambda o: lr_scheduler.StepLR(o, 0), "StepLR: step_size is a whole number from 1, not 0"),
    (lambda o: lr_scheduler.StepLR(3, 1), "StepLR: wanted an optimizer, not a int"),
    (lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, mode="up"), "CyclicLR: mode is"),
    (lambda o: lr_scheduler.OneCycleLR(o, 0.1), "OneCycleLR: give total_steps, or epochs and steps_per_epoch"),
    (lambda o: lr_scheduler.OneCycleLR(o, 0.1, 10, pct_start=2), "pct_start is a number from 0 to 1, not 2"),
    (lambda o: lr_scheduler.OneCycleLR(o, 0.1, 10, anneal_strategy="up"), "anneal_strategy is 'cos' or 'linear'"),
    (lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.StepLR(o, 1)], [3]), "have 0 milestones between them, not 1"),
    (lambda o: lr_scheduler.ChainedScheduler([]), "ChainedScheduler: wanted schedules"),
    (lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.StepLR(o, 1), lr_scheduler.StepLR(sgd(), 1)]), "different optimizers"),
    (lambda o: lr_scheduler.ReduceLROnPlateau(o, mode="least"), "mode is 'min' or 'max'"),
    (lambda o: lr_scheduler.ReduceLROnPlateau(o, threshold_mode="x"), "threshold_mode is 'rel' or 'abs'"),
    (lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=1.0), "factor is a number from 0 to below 1"),
    (lambda o: lr_scheduler.CyclicLR(optim.Adagrad([tg.zeros(1, requires_grad=True)]), 0.1, 1.0), "Adagrad has no momentum to cycle"),
    (lambda o: optim.Adadelta([tg.zeros(1, requires_grad=True)], rho=1.5), "Adadelta: rho is a number from 0 to 1, not 1.5"),
    (lambda o: optim.RMSprop([tg.zeros(1, requires_grad=True)], alpha=-1), "RMSprop: alpha is a number from 0 to 1, not -1"),
    (lambda o: optim.NAdam([tg.zeros(1, requires_grad=True)], momentum_decay=-1), "NAdam: momentum_decay is a number from 0"),
]  # fmt: skip


@pytest.mark.parametrize(("action", "message"), WRONG)
def test_wrong_settings(action, message):
    with pytest.raises(ShapeError, match=message):
        action(sgd())


def test_a_cycle_that_is_over():
    schedule = lr_scheduler.OneCycleLR(sgd(), 0.1, total_steps=3)
    for _ in range(3):
        schedule.step()
    with pytest.raises(ShapeError, match="OneCycleLR: step 4 of a cycle of 3"):
        schedule.step()


def test_a_state_of_other_settings_is_refused():
    def made(steps):
        w = tg.ones(2, requires_grad=True)
        return lr_scheduler.OneCycleLR(optim.SGD([w], lr=0.1, momentum=0.9), max_lr=1.0, total_steps=steps)

    first = made(10)
    first.step()
    again = made(10)
    again.load_state_dict(first.state_dict())
    assert again.get_last_lr() == first.get_last_lr()
    with pytest.raises(CheckpointError, match=r"OneCycleLR: .*total \(saved 10, here 20\)"):
        made(20).load_state_dict(first.state_dict())
