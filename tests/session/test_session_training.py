"""Training loops as people write them: modes, accumulation, targets, changed optimizers, loaded states, writes in place."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from paired import TRAINED, agree, agrees, batches, mlp, state

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.nn import functional as F


def learn(model, optimizer, x, y):
    loss = F.cross_entropy(model(tg.tensor(x)), tg.tensor(y))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


@pytest.mark.parametrize("quiet", [True, False], ids=["no_grad", "recorded"])
def test_evaluation_and_training_alternate_in_one_session(quiet):
    def program(make):
        model, session = mlp(dropout=0.3), make()
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        for i, (x, y) in enumerate(batches(36)):
            with session:
                if i % 3 == 2:
                    model.eval()
                    if quiet:
                        with tg.no_grad():
                            seen = (model(tg.tensor(x)).argmax(1) == tg.tensor(y)).astype(tg.float64).mean()
                    else:
                        seen = F.cross_entropy(model(tg.tensor(x)), tg.tensor(y))
                    model.train()
                else:
                    seen = learn(model, optimizer, x, y)
            yield seen, seen.requires_grad
        yield state(model)

    agree(program, ulps=TRAINED).steady(12)


@agrees(ulps=TRAINED, steady=9)
def test_an_epoch_of_training_then_an_epoch_of_evaluation(make):
    model, session = mlp(dropout=0.3), make()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        for x, y in batches(5):
            with session:
                learn(model, optimizer, x, y)
        model.eval()
        losses = []
        for x, y in batches(4, seed=9):
            with session, tg.no_grad():
                losses.append(F.cross_entropy(model(tg.tensor(x)), tg.tensor(y)))
            yield losses[-1].item()
        model.train()
        yield losses, state(model)


@agrees(ulps=TRAINED, steady=4)
def test_several_models_in_one_session(make):
    one, two, session = mlp(), mlp(sizes=(6, 10, 10, 4)), make()
    optimizers = optim.SGD(one.parameters(), lr=0.1), optim.Adam(two.parameters(), lr=0.01)
    for x, y in batches(15):
        with session:
            teacher = learn(one, optimizers[0], x, y)
            wanted = F.softmax(one(tg.tensor(x)).detach())
            loss = -(wanted * F.log_softmax(two(tg.tensor(x)))).sum(1).mean()
            optimizers[1].zero_grad()
            loss.backward()
            optimizers[1].step()
        yield teacher, loss, state(one), state(two)


@agrees(ulps=TRAINED, steady=4)
def test_a_target_network_follows(make):
    """Moving averages of parameters, as in reinforcement learning (Lillicrap et al. 2015)."""
    model, session = mlp(), make()
    target = copy.deepcopy(model)
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    for x, _ in batches(20):
        with session:
            with tg.no_grad():
                wanted = target(tg.tensor(x)).max(1)
            loss = F.mse_loss(model(tg.tensor(x)).max(1), 0.9 * wanted + 0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with tg.no_grad():
                for t, p in zip(target.parameters(), model.parameters()):
                    t.copy_(0.99 * t + 0.01 * p)
        yield loss, state(model), state(target)


@agrees(ulps=TRAINED)
def test_a_target_network_is_replaced_every_few_passes(make):
    model, target, session = mlp(), mlp(), make()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for i, (x, _) in enumerate(batches(24)):
        with session:
            if i % 6 == 0:
                with tg.no_grad():
                    for t, p in zip(target.parameters(), model.parameters()):
                        t.copy_(p)
            loss = F.mse_loss(model(tg.tensor(x)), target(tg.tensor(x)).detach() + 1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield loss, state(target)


@agrees(ulps=TRAINED, steady=4)
def test_running_statistics_in_a_module(make):
    """A buffer that every training pass updates and every evaluation reads."""

    class Normalise(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", tg.zeros(6, dtype=tg.float64))
            self.register_buffer("count", tg.tensor(0))

        def forward(self, x):
            if self.training:
                with tg.no_grad():
                    self.mean.copy_(0.9 * self.mean + 0.1 * x.mean(0))
                    self.count.copy_(self.count + 1)
            return x - self.mean

    model, session = nn.Sequential(Normalise(), nn.Linear(6, 4, dtype=tg.float64)), make()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for x, y in batches(12):
        with session:
            learn(model, optimizer, x + 1, y)
            out = model(tg.tensor(x))
        yield out, model[0].mean.numpy(), model[0].count.item()


@agrees(ulps=TRAINED)
def test_an_optimizer_is_changed_on_the_way(make):
    model, session = mlp(sizes=(6, 8, 8, 4)), make()
    optimizer = optim.SGD(model[0].parameters(), lr=0.1)
    for i, (x, y) in enumerate(batches(40)):
        group = optimizer.param_groups[0]
        if i == 8:
            optimizer.add_param_group({"params": list(model[2].parameters()), "lr": 0.05, "momentum": 0.9})
        elif i == 16:
            group["weight_decay"] = 0.01
        elif i == 24:
            group["momentum"] = 0.5
        elif i == 32:
            optimizer = optim.AdamW(model.parameters(), lr=0.01)
        group["lr"] = 0.1 / (1 + i)
        with session:
            loss = learn(model, optimizer, x, y)
        yield loss, state(model)


@agrees(ulps=TRAINED)
def test_parameters_without_gradients_now_and_then(make):
    """The optimizer passes over the head that took no part; its state stays."""
    trunk, heads, session = mlp(), [nn.Linear(4, 1, dtype=tg.float64) for _ in range(3)], make()
    optimizer = optim.Adam([p for m in (trunk, *heads) for p in m.parameters()], lr=0.01)
    for i, (x, _) in enumerate(batches(36)):
        with session:
            loss = (heads[i * i % 3](trunk(tg.tensor(x))) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield loss, state(trunk), [state(h) for h in heads], [s["step"] for s in optimizer.state.values()]


@agrees(ulps=TRAINED, steady=4)
def test_tied_parameters(make):
    session, w = make(), tg.tensor(np.linspace(-1, 1, 24).reshape(6, 4), requires_grad=True)
    optimizer = optim.Adam([w], lr=0.01)
    for x, _ in batches(12):
        with session:
            code = tg.tanh(tg.tensor(x) @ w)
            loss = F.mse_loss(code @ w.T, tg.tensor(x))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield loss, w.numpy()


@agrees(ulps=TRAINED, steady=4)
def test_a_closure_is_called_by_the_step(make):
    model, session = mlp(), make()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for x, y in batches(10):

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(tg.tensor(x)), tg.tensor(y))
            loss.backward()
            return loss

        with session:
            loss = optimizer.step(closure)
        yield loss, state(model)


class SignDescent(optim.optimizer.Optimizer):
    """A user's rule, in ops, with state of its own."""

    tensors = ("trace",)

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    def update(self, p, g, state, group):
        if not state:
            state["trace"] = tg.zeros_like(p)
        state["trace"].copy_(state["trace"] * 0.9 + g * 0.1)
        p.copy_(p - group["lr"] * tg.sign(state["trace"]) * (1.0 if p.ndim > 1 else 0.5))


@agrees(ulps=TRAINED, steady=4)
def test_a_rule_of_one_s_own(make):
    model, session = mlp(), make()
    optimizer = SignDescent(model.parameters(), lr=0.01)
    for i, (x, y) in enumerate(batches(12)):
        optimizer.param_groups[0]["lr"] = 0.01 / (i + 1)
        with session:
            learn(model, optimizer, x, y)
        yield state(model), [s["trace"].numpy() for s in optimizer.state.values()]


@agrees(ulps=TRAINED)
def test_states_are_saved_and_loaded_between_passes(make):
    model, session = mlp(dropout=0.2), make()
    optimizer = optim.Adam(model.parameters(), lr=0.02)
    saved = None
    for i, (x, y) in enumerate(batches(30)):
        if i % 10 == 4:
            saved = model.state_dict(), optimizer.state_dict()
        elif i % 10 == 9:
            model.load_state_dict(saved[0])
            optimizer.load_state_dict(saved[1])
        with session:
            loss = learn(model, optimizer, x, y)
        yield loss, state(model)
    yield saved


@agrees(ulps=TRAINED)
def test_states_are_saved_and_loaded_inside_a_pass(make):
    model, session = mlp(), make()
    optimizer = optim.Adam(model.parameters(), lr=0.02)
    for x, y in batches(10):
        with session:
            saved = model.state_dict(), optimizer.state_dict()
            learn(model, optimizer, x, y)
            tried = state(model)
            model.load_state_dict(saved[0])
            optimizer.load_state_dict(saved[1])
            loss = learn(model, optimizer, x * 0.5, y)
        yield tried, loss, state(model), saved


@agrees(ulps=TRAINED)
def test_a_model_changes_its_dtype(make):
    model, session = mlp(dtype=tg.float32), make()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for i, (x, y) in enumerate(batches(24)):
        if i in (6, 12, 18):
            model.to(tg.float32 if i == 12 else tg.float64)
            optimizer = optim.SGD(model.parameters(), lr=0.1)
        with session:
            x = tg.tensor(x).astype(model[0].weight.dtype)
            loss = F.cross_entropy(model(x), tg.tensor(y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield loss, state(model)


@agrees(ulps=TRAINED)
def test_parameters_are_written_from_outside_between_passes(make):
    """By copy_, by assignment to a part, and through a view of their memory."""
    model, session = mlp(), make()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    w = model[0].weight
    memory = np.from_dlpack(w.detach())
    for i, (x, y) in enumerate(batches(24)):
        if i % 6 == 1:
            with tg.no_grad():
                w.copy_(w * 0.5)
        elif i % 6 == 3:
            with tg.no_grad():
                w[0] = 0.25
        elif i % 6 == 5 and memory.flags.writeable:
            memory[1] = -0.125
        with session:
            loss = learn(model, optimizer, x, y)
        yield loss, state(model), memory.copy()


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(1, 3, 3), nn.MaxPool2d(2)
        self.embed, self.out = nn.Embedding(5, 12), nn.Linear(24, 4)

    def forward(self, x, words):
        h = self.pool(tg.relu(self.conv(x))).flatten(1)
        return self.out(tg.concatenate([h, self.embed(words)], 1))


@agrees(ulps=TRAINED, steady=4)
def test_convolution_pooling_and_embedding(make):
    """float32, as nearly everybody trains."""
    model, session, rng = Conv(), make(), np.random.default_rng(1)
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    for _ in range(12):
        images, words, classes = (
            rng.normal(size=(4, 1, 6, 6)).astype(np.float32),
            rng.integers(0, 5, 4),
            rng.integers(0, 4, 4),
        )
        with session:
            loss = F.cross_entropy(model(tg.tensor(images), tg.tensor(words)), tg.tensor(classes))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield loss, model.embed.weight.numpy()


@pytest.mark.parametrize("name", ["SGD", "momentum", "nesterov", "Adam", "AdamW"])
def test_float32_training_with_every_rule(name):
    from test_session_paths import SCHEDULED

    def program(make):
        model, session = mlp(dtype=tg.float32), make()
        optimizer = SCHEDULED[name](model.parameters())
        optimizer.param_groups[0]["lr"] = 0.01
        for x, y in batches(15):
            with session:
                loss = learn(model, optimizer, x.astype(np.float32), y)
            yield loss, state(model)

    agree(program, ulps=TRAINED).steady(4)
