"""Optimizers: 20 steps of each as PyTorch takes them, state that continues bit-identically, sentences for bad input."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import nn, optim
from tapegrad.errors import CheckpointError, TapegradError
from tapegrad.kernels import jit

ORACLE = np.load(Path(__file__).parent / "fixtures" / "optimizers.npz")  # made by scripts/make_optimizer_fixtures.py
CASES = json.loads(str(ORACLE["cases"]))
RTOL = {"float32": 1e-5, "float64": 1e-10}


def made(case: dict, params) -> optim.Optimizer:
    """The optimizer that a case of the fixture names."""
    settings = {k: v for k, v in case.items() if k not in ("optimizer", "decay_rate")}
    return getattr(optim, case["optimizer"])(params, **settings)


def step(p: tg.Tensor, optimizer: optim.Optimizer, noise: np.ndarray) -> None:
    """One step on the loss Σ (noise · p + p² / 2)."""
    optimizer.zero_grad()
    (tg.tensor(noise, dtype=p.dtype) * p + p * p / 2).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_twenty_steps_are_those_of_pytorch(name, dtype):
    case, want = CASES[name], ORACLE[f"{name}/{dtype}"]
    p = tg.tensor(ORACLE["start"].astype(dtype), requires_grad=True)
    optimizer = made(case, [p])
    for i, noise in enumerate(ORACLE["noise"]):
        step(p, optimizer, noise)
        np.testing.assert_allclose(p.numpy(), want[i], rtol=RTOL[dtype], atol=RTOL[dtype] * 0.1, err_msg=f"step {i}")
        optimizer.param_groups[0]["lr"] *= case.get("decay_rate", 1.0)


@pytest.mark.parametrize("name", CASES)
def test_a_loaded_state_continues_bit_identically(name, tmp_path):
    def fresh():
        p = tg.tensor(ORACLE["start"].astype(np.float32), requires_grad=True)
        return p, made(CASES[name], [p])

    (p, one), (q, two) = fresh(), fresh()
    for noise in ORACLE["noise"][:5]:
        step(p, one, noise)
    tg.save(tmp_path / "state.safetensors", {"p": p, "optimizer": one.state_dict()})
    loaded = tg.load(tmp_path / "state.safetensors")
    with tg.no_grad():
        q.copy_(loaded["p"])
    two.load_state_dict(loaded["optimizer"])
    assert repr(two) == repr(one)
    for noise in ORACLE["noise"][5:10]:
        step(p, one, noise)
        step(q, two, noise)
        assert p.numpy().tobytes() == q.numpy().tobytes()


def test_a_state_dict_is_a_copy():
    p = tg.ones(3, requires_grad=True)
    optimizer = optim.Adam([p], lr=0.1)
    step(p, optimizer, np.ones(3))
    state = optimizer.state_dict()
    before = state["state"]["0"]["exp_avg"].numpy()
    step(p, optimizer, np.ones(3))
    assert state["state"]["0"]["step"] == 1
    np.testing.assert_array_equal(state["state"]["0"]["exp_avg"].numpy(), before)
    optimizer.load_state_dict(state)
    step(p, optimizer, np.ones(3))
    np.testing.assert_array_equal(state["state"]["0"]["exp_avg"].numpy(), before)


@pytest.mark.parametrize("name", ["sgd-nesterov-decay", "adam-settings", "adamw", "adagrad-settings"])
def test_another_learning_rate_compiles_nothing(name, monkeypatch):
    p = tg.tensor(ORACLE["start"].astype(np.float32), requires_grad=True)
    optimizer = made(CASES[name], [p])
    for noise in ORACLE["noise"][:2]:
        step(p, optimizer, noise)
    monkeypatch.setattr(jit, "load", lambda *a, **k: pytest.fail("a kernel was compiled"))
    group = optimizer.param_groups[0]
    for i, noise in enumerate(ORACLE["noise"][2:]):
        group["lr"] = 0.1 / (i + 1)
        group["weight_decay"] = 0.01 * i
        step(p, optimizer, noise)


def test_parameters_change_in_place_and_those_without_gradient_stay():
    p, q, frozen = tg.ones(3, requires_grad=True), tg.ones(2, requires_grad=True), tg.ones(2)
    address = p.address
    optimizer = optim.SGD([p, q, frozen], lr=0.5)
    p.sum().backward()
    optimizer.step()
    assert p.address == address
    assert p.tolist() == [0.5] * 3
    assert q.tolist() == frozen.tolist() == [1.0, 1.0]
    assert list(optimizer.state) in ([], [p])


def test_adagrad_is_its_formula():
    """The running sum of squares starts at a value, and the learning rate falls with the number of steps before."""
    p, s, lr, lr_decay, decay, eps = ORACLE["start"].copy(), 0.25, 0.3, 0.2, 0.05, 1e-3
    ours = tg.tensor(p, requires_grad=True)
    optimizer = optim.Adagrad([ours], lr, lr_decay, decay, s, eps)
    for t, noise in enumerate(ORACLE["noise"]):
        step(ours, optimizer, noise)
        g = noise + p + decay * p
        s = s + g * g
        p = p - lr / (1 + t * lr_decay) * g / (np.sqrt(s) + eps)
        np.testing.assert_allclose(ours.numpy(), p, rtol=1e-12)
    assert optimizer.state[ours]["step"] == len(ORACLE["noise"])
    np.testing.assert_allclose(optimizer.state[ours]["sum"].numpy(), s, rtol=1e-12)


def test_groups_have_settings_of_their_own():
    p, q = tg.ones(2, requires_grad=True), tg.ones(2, requires_grad=True)
    optimizer = optim.SGD([{"params": [p]}, {"params": q, "lr": 0.5, "momentum": 0.9}], lr=0.1)
    assert [type(g["lr"]) for g in optimizer.param_groups] == [float, float]
    (p.sum() + q.sum()).backward()
    optimizer.step()
    np.testing.assert_allclose([p.numpy()[0], q.numpy()[0]], [0.9, 0.5], rtol=1e-6)
    r = tg.ones(1, requires_grad=True)
    optimizer.add_param_group({"params": [r]})
    assert optimizer.param_groups[2]["lr"] == 0.1


def test_zero_grad_drops_or_zeroes():
    p = tg.ones(2, requires_grad=True)
    optimizer = optim.SGD([p], lr=0.1)
    p.sum().backward()
    optimizer.zero_grad(set_to_none=False)
    assert p.grad.tolist() == [0.0, 0.0]
    optimizer.zero_grad()
    assert p.grad is None


def test_a_closure_gives_the_loss():
    p = tg.tensor([3.0], requires_grad=True)
    optimizer = optim.SGD([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9.0
    np.testing.assert_allclose(p.item(), 3.0 - 0.6, rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (1,), (3, 0), (5, 3), (129, 70)])
@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.Adagrad])
def test_any_shape_and_any_layout(kind, shape, rng):
    values, slopes = rng.normal(size=shape), rng.normal(size=shape)
    plain = tg.tensor(values, requires_grad=True)
    turned = tg.tensor(values.T).T.detach().requires_grad_()  # the same values, in Fortran's order
    for p in (plain, turned):
        optimizer = kind([p], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (p * tg.tensor(slopes)).sum().backward()
            optimizer.step()
    np.testing.assert_allclose(turned.numpy(), plain.numpy(), rtol=1e-12)
    if plain.size:
        assert not np.allclose(plain.numpy(), values)


def test_a_step_between_forward_and_backward_is_noticed():
    layer = nn.Linear(3, 2)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    x = tg.ones((4, 3), requires_grad=True)
    layer(x).sum().backward()
    loss = layer(x).sum()
    optimizer.step()
    with pytest.raises(TapegradError, match="overwritten in place"):
        loss.backward()


def test_a_small_network_learns():
    tg.seed(1)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    x, y = tg.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]), tg.tensor([[0.0], [1], [1], [0]])
    optimizer = optim.AdamW(model.parameters(), lr=0.05)
    for _ in range(200):
        loss = F.binary_cross_entropy_with_logits(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


@pytest.mark.parametrize("lr", [float("nan"), -0.1, float("inf"), "0.1", tg.tensor(0.1), None])
def test_a_bad_learning_rate_set_between_steps_changes_nothing(lr):
    p = tg.ones(2, requires_grad=True)
    optimizer = optim.SGD([p], lr=0.1)
    p.sum().backward()
    optimizer.param_groups[0]["lr"] = lr
    with pytest.raises(TapegradError, match="lr is a number from 0"):
        optimizer.step()
    assert p.tolist() == [1.0, 1.0]
    optimizer.param_groups[0]["lr"] = np.float32(0.5)
    optimizer.step()
    assert p.tolist() == [0.5, 0.5]


def test_rules_run_on_the_reference_backend_too():
    momentum = dict(momentum=0.9, nesterov=True)
    for kind, settings in ((optim.SGD, momentum), (optim.Adam, {}), (optim.AdamW, {}), (optim.Adagrad, {})):
        values = []
        for device in ("cpu", "reference"):
            p = tg.tensor([1.0, -2.0], device=device, requires_grad=True)
            optimizer = kind([p], lr=0.1, **settings)
            for _ in range(3):
                optimizer.zero_grad()
                (p * p).sum().backward()
                optimizer.step()
            values.append(p.numpy())
        np.testing.assert_allclose(values[0], values[1], rtol=1e-6)


def test_a_bad_setting_of_one_group_stops_the_step_before_it_changes_another():
    p, q = tg.ones(2, requires_grad=True), tg.ones(2, requires_grad=True)
    optimizer = optim.SGD([{"params": [p]}, {"params": [q]}], lr=0.1)
    (p + q).sum().backward()
    optimizer.param_groups[1]["lr"] = -1.0
    with pytest.raises(TapegradError, match="lr is a number from 0"):
        optimizer.step()
    assert p.tolist() == [1.0, 1.0]


class Counting(optim.Adam):
    """Adam that writes down for which steps it computes its coefficients."""

    asked: tuple = ()

    def coefficients(self, group, step, new):
        self.asked = (*self.asked, (group["lr"], step, new))
        return super().coefficients(group, step, new)


def test_coefficients_are_computed_once_for_all_parameters_at_the_same_step():
    late = tg.ones(3, requires_grad=True)
    first = [tg.ones(n, dtype=d, requires_grad=True) for n in (2, 5) for d in (tg.float32, tg.float64)]
    twin = tg.ones(2, dtype=tg.float64, requires_grad=True)
    optimizer = Counting([{"params": [*first, late]}, {"params": [twin], "lr": 0.5}], lr=0.25)
    for p in (*first, twin):
        p.sum().backward()
    optimizer.step()
    assert optimizer.asked == ((0.25, 1, True), (0.5, 1, True))
    late.sum().backward()
    optimizer.step()
    assert optimizer.asked[2:] == ((0.25, 2, False), (0.25, 1, True), (0.5, 2, False))
    assert [optimizer.state[p]["step"] for p in (*first, late, twin)] == [2, 2, 2, 2, 1, 2]
    np.testing.assert_allclose([p.numpy()[0] for p in (*first, late, twin)], [0.5] * 4 + [0.75, 0.0], atol=1e-6)


class Halved(optim.Adam):
    """A rule on top of another: half of every gradient."""

    def update(self, p, g, state, group):
        super().update(p, g * 0.5, state, group)


def test_an_update_method_may_call_that_of_its_parent():
    values = []
    for kind, factor in ((Halved, 1.0), (optim.Adam, 0.5)):
        p = tg.tensor([1.0, -2.0], requires_grad=True)
        optimizer = kind([p], lr=0.1, eps=0.5)
        for _ in range(3):
            optimizer.zero_grad()
            (p * p * factor).sum().backward()
            optimizer.step()
        assert optimizer.state[p]["step"] == 3
        values.append(p.tolist())
    assert values[0] == values[1]


def test_a_rule_without_an_update_is_named():
    p = tg.ones(2, requires_grad=True)
    optimizer = optim.Optimizer([p], {"lr": 0.1})
    p.sum().backward()
    with pytest.raises(TapegradError, match="Optimizer has no update rule; define update"):
        optimizer.step()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.Adagrad])
def test_copies_go_on_alike_and_apart(kind, copied):
    p = tg.tensor([1.0, -2.0], requires_grad=True)
    one = kind([p], lr=0.1)
    step(p, one, np.ones(2))
    other = copied(one)
    [q] = other.param_groups[0]["params"]
    other.param_groups[0]["lr"] = 0.3
    step(q, other, np.ones(2))
    untouched = p.tolist()
    one.param_groups[0]["lr"] = 0.3
    step(p, one, np.ones(2))
    assert p.tolist() == q.tolist() != untouched


def test_numbers_beyond_float32_are_infinite():
    p = tg.tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([p], lr=1e39)
    p.sum().backward()
    optimizer.step()
    assert p.item() == -np.inf


def leaf() -> tg.Tensor:
    return tg.ones(2, requires_grad=True)


SHARED = leaf()
BAD = [
    (lambda: optim.SGD([], lr=0.1), "no parameters"),
    (lambda: optim.SGD(nn.Linear(2, 2), lr=0.1), r"parameters\(\)"),
    (lambda: optim.SGD([leaf() * 2.0], lr=0.1), "the result of an op"),
    (lambda: optim.SGD([tg.ones(2)], lr=0.1), "requires_grad"),
    (lambda: optim.SGD([1.0], lr=0.1), "float"),
    (lambda: optim.SGD([SHARED, SHARED], lr=0.1), "twice"),
    (lambda: optim.SGD([{"params": [SHARED]}, {"params": [SHARED]}], lr=0.1), "twice"),
    (lambda: optim.SGD([{"parms": [leaf()]}], lr=0.1), '"params"'),
    (lambda: optim.SGD([{"params": [leaf()], "momentun": 0.9}], lr=0.1), "momentun"),
    (lambda: optim.SGD([{"params": [leaf()]}, leaf()], lr=0.1), '"params"'),
    (lambda: optim.SGD([leaf()], lr=-0.1), "lr is a number from 0, not -0.1"),
    (lambda: optim.SGD([leaf()], lr=float("nan")), "lr is a number from 0, not nan"),
    (lambda: optim.SGD([leaf()], lr="0.1"), "lr is a number"),
    (lambda: optim.SGD([leaf()], momentum=-1.0), "momentum"),
    (lambda: optim.SGD([leaf()], nesterov=True), "nesterov needs a momentum"),
    (lambda: optim.SGD([{"params": [leaf()], "nesterov": True}]), "nesterov needs a momentum"),
    (lambda: optim.Adam([leaf()], betas=(0.9, 1.0)), "betas"),
    (lambda: optim.Adam([leaf()], betas=0.9), "betas"),
    (lambda: optim.Adam([leaf()], betas=(0.9,)), "betas"),
    (lambda: optim.Adam([leaf()], eps=-1e-8), "eps"),
    (lambda: optim.Adam([leaf()], weight_decay=-1.0), "weight_decay"),
    (lambda: optim.Adagrad([leaf()], lr_decay=-0.1), "lr_decay is a number from 0, not -0.1"),
    (lambda: optim.Adagrad([leaf()], initial_accumulator_value=float("inf")), "initial_accumulator_value"),
    (lambda: optim.Adagrad([leaf()], eps="0"), "eps"),
]


@pytest.mark.parametrize(("make", "says"), BAD, ids=[says for _, says in BAD])
def test_bad_settings_get_a_sentence(make, says):
    with pytest.raises(TapegradError, match=says):
        make()


def adam_state(count: int = 1, size: int = 2) -> dict:
    """The state of Adam after one step."""
    params = [tg.ones(size, requires_grad=True) for _ in range(count)]
    optimizer = optim.Adam(params)
    sum((p.sum() for p in params), tg.tensor(0.0)).backward()
    optimizer.step()
    return optimizer.state_dict()


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (lambda: adam_state(2), "groups of"),
        (lambda: adam_state(1, 3), "shape"),
        (lambda: optim.SGD([leaf()]).state_dict(), "momentum"),
        (lambda: {"state": {}}, "param_groups"),
        (dict, "state"),
        (lambda: nn.Linear(2, 2).state_dict(), "state"),
        (lambda: {**adam_state(), "state": {"7": {}}}, "7"),
        (lambda: {**adam_state(), "state": {"0": {"step": 1}}}, "exp_avg"),
    ],
    ids=range(8),
)
def test_a_state_of_another_optimizer_gets_a_sentence_and_changes_nothing(state, says):
    optimizer = optim.Adam([leaf()], lr=0.25)
    before = optimizer.state_dict()
    with pytest.raises(CheckpointError, match=says):
        optimizer.load_state_dict(state())
    assert optimizer.state_dict() == before


def test_a_loaded_state_takes_the_parameters_dtype():
    p = tg.ones(2, dtype=tg.float64, requires_grad=True)
    optimizer = optim.Adam([p])
    optimizer.load_state_dict(adam_state())
    assert optimizer.state[p]["exp_avg"].dtype is tg.float64
