"""A selection of ops, layers, losses and whole models against PyTorch, values and gradients: `pytest -m peers`."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import nn, optim

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.peers


def numbers(*shape: int, seed: int = 0, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(seed + 97 * len(shape)).normal(size=shape).astype(dtype)


def both(ours, theirs, *arrays: np.ndarray, rtol: float = 1e-9) -> None:
    """Value, and the gradient of a fixed weighting of the value, of every floating input."""
    mine = [tg.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    peers = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    y, z = ours(*mine), theirs(*peers)
    assert y.shape == tuple(z.shape)
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol=rtol, atol=rtol)
    weights = numbers(*y.shape, seed=5, dtype=z.detach().numpy().dtype.name)
    (y * tg.tensor(weights)).sum().backward()
    (z * torch.tensor(weights)).sum().backward()
    for a, m, p in zip(arrays, mine, peers, strict=True):
        if a.dtype.kind == "f":
            np.testing.assert_allclose(m.grad.numpy(), p.grad.numpy(), rtol=rtol, atol=rtol)


def copied(model, peer) -> None:
    """The peer takes the model's parameters, which must have the same names, order and shapes."""
    state = model.state_dict()
    assert [(n, p.shape) for n, p in model.named_parameters()] == [
        (n, tuple(p.shape)) for n, p in peer.named_parameters()
    ]
    peer.load_state_dict({name: torch.tensor(value.numpy()) for name, value in state.items()})


# ops

OPS = {
    "exp": (tg.exp, torch.exp),
    "tanh": (tg.tanh, torch.tanh),
    "sigmoid": (tg.sigmoid, torch.sigmoid),
    "erf": (tg.erf, torch.erf),
    "expm1": (tg.expm1, torch.expm1),
    "arctan": (tg.arctan, torch.arctan),
    "sinh": (tg.sinh, torch.sinh),
    "relu": (F.relu, torch.nn.functional.relu),
    "elu": (lambda x: F.elu(x, 0.7), lambda x: torch.nn.functional.elu(x, 0.7)),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), lambda x: torch.nn.functional.leaky_relu(x, 0.2)),
    "gelu": (F.gelu, torch.nn.functional.gelu),
    "silu": (F.silu, torch.nn.functional.silu),
    "gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
    "softplus": (F.softplus, torch.nn.functional.softplus),
    "softsign": (F.softsign, torch.nn.functional.softsign),
    "softmax": (lambda x: F.softmax(x, 1), lambda x: torch.softmax(x, 1)),
    "log_softmax": (lambda x: F.log_softmax(x, 0), lambda x: torch.log_softmax(x, 0)),
    "logsumexp": (lambda x: tg.logsumexp(x, 1), lambda x: torch.logsumexp(x, 1)),
    "var": (lambda x: tg.var(x, 1), lambda x: torch.var(x, 1, correction=0)),
    "norm": (lambda x: tg.norm(x), lambda x: torch.linalg.norm(x)),
    "prod": (lambda x: tg.prod(x, 1), lambda x: torch.prod(x, 1)),
    "cumsum": (lambda x: tg.cumsum(x, 1), lambda x: torch.cumsum(x, 1)),
    "max": (lambda x: tg.max(x, 1), lambda x: torch.amax(x, 1)),
    "sort": (lambda x: tg.sort(x, 1), lambda x: torch.sort(x, 1).values),
    "clip": (lambda x: tg.clip(x, -0.5, 0.7), lambda x: torch.clip(x, -0.5, 0.7)),
    "flip": (lambda x: tg.flip(x, 1), lambda x: torch.flip(x, [1])),
    "roll": (lambda x: tg.roll(x, 2, 1), lambda x: torch.roll(x, 2, 1)),
    "index": (lambda x: x[1:, ::2], lambda x: x[1:, ::2]),
    "normalize": (lambda x: F.normalize(x), lambda x: torch.nn.functional.normalize(x)),
    "layer_norm": (lambda x: F.layer_norm(x, 6), lambda x: torch.nn.functional.layer_norm(x, (6,))),
}
PAIRS = {
    "matmul": (tg.matmul, torch.matmul, (4, 5), (5, 3)),
    "batched": (tg.matmul, torch.matmul, (2, 1, 4, 5), (3, 5, 3)),
    "vector": (tg.matmul, torch.matmul, (4, 5), (5,)),
    "outer": (tg.outer, torch.outer, (4,), (3,)),
    "einsum": (
        lambda a, b: tg.einsum("bij,bkj->bik", a, b),
        lambda a, b: torch.einsum("bij,bkj->bik", a, b),
        (2, 3, 4),
        (2, 5, 4),
    ),
    "solve": (tg.linalg.solve, torch.linalg.solve, (3, 3), (3, 2)),
    "arctan2": (tg.arctan2, torch.arctan2, (4, 5), (5,)),
    "maximum": (tg.maximum, torch.maximum, (4, 1), (5,)),
    "divide": (lambda a, b: a / b, lambda a, b: a / b, (4, 5), (4, 1)),
    "power": (lambda a, b: abs(a) ** b, lambda a, b: abs(a) ** b, (4, 5), (4, 5)),
    "linear": (F.linear, torch.nn.functional.linear, (2, 3, 5), (4, 5)),
}


@pytest.mark.parametrize("name", OPS)
def test_op(name):
    both(*OPS[name], numbers(4, 6), rtol=1e-8)


@pytest.mark.parametrize("name", PAIRS)
def test_op_of_two(name):
    ours, theirs, first, second = PAIRS[name]
    both(ours, theirs, numbers(*first), numbers(*second, seed=1))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stride": 2},
        {"padding": 1},
        {"dilation": 2, "padding": 2},
        {"groups": 2},
        {"stride": (2, 1), "padding": (0, 2)},
    ],
    ids=str,
)
def test_conv2d(settings):
    shape = (6, 4 // settings.get("groups", 1), 3, 3)
    both(
        lambda x, w, b: F.conv2d(x, w, b, **settings),
        lambda x, w, b: torch.nn.functional.conv2d(x, w, b, **settings),
        numbers(2, 4, 8, 7),
        numbers(*shape),
        numbers(6),
    )


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"dilation": 2}, {"groups": 2}], ids=str)
def test_conv1d(settings):
    shape = (6, 4 // settings.get("groups", 1), 3)
    both(
        lambda x, w, b: F.conv1d(x, w, b, **settings),
        lambda x, w, b: torch.nn.functional.conv1d(x, w, b, **settings),
        numbers(2, 4, 9),
        numbers(*shape),
        numbers(6),
    )


@pytest.mark.parametrize(
    "settings", [{}, {"stride": 2, "padding": 1}, {"stride": 2, "output_padding": 1}, {"groups": 2}], ids=str
)
def test_conv_transpose2d(settings):
    shape = (4, 6 // settings.get("groups", 1), 3, 3)
    both(
        lambda x, w, b: F.conv_transpose2d(x, w, b, **settings),
        lambda x, w, b: torch.nn.functional.conv_transpose2d(x, w, b, **settings),
        numbers(2, 4, 5, 4),
        numbers(*shape),
        numbers(6),
    )


@pytest.mark.parametrize("settings", [(2,), (3, 2), (3, 2, 1), ((2, 3), (1, 2), (1, 1))], ids=str)
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_pooling(name, settings):
    both(
        lambda x: getattr(F, name)(x, *settings),
        lambda x: getattr(torch.nn.functional, name)(x, *settings),
        numbers(2, 3, 8, 7),
    )


# losses


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "binary_cross_entropy_with_logits"])
def test_loss_of_two_floats(name, reduction):
    target = (
        numbers(4, 3, seed=1)
        if name != "binary_cross_entropy_with_logits"
        else np.random.default_rng(1).uniform(size=(4, 3))
    )
    both(
        lambda x, t: getattr(F, name)(x, t, reduction=reduction),
        lambda x, t: getattr(torch.nn.functional, name)(x, t, reduction=reduction),
        numbers(4, 3),
        target,
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_classification_losses(reduction):
    labels = np.array([0, 2, 1, 2, 0])
    both(
        lambda x, t: F.cross_entropy(x, t, reduction=reduction),
        lambda x, t: torch.nn.functional.cross_entropy(x, t, reduction=reduction),
        numbers(5, 3),
        labels,
    )
    both(
        lambda x, t: F.nll_loss(F.log_softmax(x, 1), t, reduction=reduction),
        lambda x, t: torch.nn.functional.nll_loss(torch.log_softmax(x, 1), t, reduction=reduction),
        numbers(5, 3),
        labels,
    )
    labels[1] = -100
    both(
        lambda x, t: F.cross_entropy(x, t, reduction=reduction),
        lambda x, t: torch.nn.functional.cross_entropy(x, t, reduction=reduction),
        numbers(5, 3),
        labels,
    )
    soft = np.random.default_rng(2).dirichlet(np.ones(3), 5)
    both(
        lambda x, t: F.cross_entropy(x, t, reduction=reduction),
        lambda x, t: torch.nn.functional.cross_entropy(x, t, reduction=reduction),
        numbers(5, 3),
        soft,
    )


def test_ignored_labels_of_nll_loss():
    labels = np.array([0, -100, 1])
    both(lambda x, t: F.nll_loss(x, t), lambda x, t: torch.nn.functional.nll_loss(x, t), numbers(3, 3), labels)


# modules: the same classes, arguments and names

MODELS = {
    "mlp": (
        lambda n: n.Sequential(n.Linear(6, 5), n.Tanh(), n.Linear(5, 4, bias=False), n.GELU(), n.Linear(4, 3)),
        (7, 6),
    ),
    "cnn": (
        lambda n: n.Sequential(
            n.Conv2d(2, 4, 3, padding=1),
            n.ReLU(),
            n.MaxPool2d(2),
            n.Conv2d(4, 6, 3, stride=2, groups=2, bias=False),
            n.SiLU(),
            n.AvgPool2d(1),
            n.Flatten(),
            n.Linear(6, 3),
            n.LogSoftmax(1),
        ),
        (3, 2, 7, 6),
    ),
    "sequence": (
        lambda n: n.Sequential(n.Conv1d(3, 4, 3, 2, 1), n.LeakyReLU(0.1), n.Flatten(), n.Linear(16, 2), n.Softmax(-1)),
        (2, 3, 8),
    ),
}
ACTIVATIONS = [
    ("ReLU",),
    ("LeakyReLU", 0.3),
    ("ELU", 1.5),
    ("GELU",),
    ("SiLU",),
    ("Sigmoid",),
    ("Tanh",),
    ("Softplus",),
    ("Softsign",),
    ("Softmax", 1),
    ("LogSoftmax", 1),
]


@pytest.mark.parametrize(("name", "arguments"), [(n, a) for n, *a in ACTIVATIONS], ids=[a[0] for a in ACTIVATIONS])
def test_activation_module(name, arguments):
    both(getattr(nn, name)(*arguments), getattr(torch.nn, name)(*arguments), numbers(3, 5))


@pytest.mark.parametrize("name", MODELS)
def test_model(name):
    make, shape = MODELS[name]
    model, peer = make(nn).to(tg.float64), make(torch.nn).to(torch.float64)
    copied(model, peer)
    both(model, peer, numbers(*shape))
    for (n, p), q in zip(model.named_parameters(), peer.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-9, atol=1e-10, err_msg=n)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("Adam", {}),
        ("AdamW", {"weight_decay": 0.1}),
        ("Adagrad", {"lr_decay": 0.1}),
    ],
)
def test_training_takes_the_same_path(kind, settings):
    make, shape = MODELS["mlp"]
    model, peer = make(nn).to(tg.float64), make(torch.nn).to(torch.float64)
    copied(model, peer)
    ours, theirs = (
        getattr(optim, kind)(model.parameters(), lr=0.01, **settings),
        getattr(torch.optim, kind)(peer.parameters(), lr=0.01, **settings),
    )
    labels = np.array([0, 1, 2, 0, 1, 2, 0])
    for step in range(10):
        x = numbers(*shape, seed=step)
        loss, other = (
            F.cross_entropy(model(tg.tensor(x)), tg.tensor(labels)),
            torch.nn.functional.cross_entropy(peer(torch.tensor(x)), torch.tensor(labels)),
        )
        ours.zero_grad()
        theirs.zero_grad()
        loss.backward()
        other.backward()
        ours.step()
        theirs.step()
        assert math.isclose(loss.item(), other.item(), rel_tol=1e-8)


def test_embedding():
    layer, peer = nn.Embedding(7, 3).to(tg.float64), torch.nn.Embedding(7, 3).to(torch.float64)
    copied(layer, peer)
    both(layer, peer, np.array([[0, 6, 3], [3, 3, 1]]))
    np.testing.assert_allclose(layer.weight.grad.numpy(), peer.weight.grad.numpy())


def test_default_values_have_pytorchs_spread():
    for make in (
        lambda n: n.Linear(400, 300),
        lambda n: n.Conv2d(8, 64, 5),
        lambda n: n.Conv1d(16, 64, 9),
        lambda n: n.Embedding(300, 50),
    ):
        for (name, ours), theirs in zip(make(nn).named_parameters(), make(torch.nn).parameters(), strict=True):
            assert math.isclose(ours.std().item(), theirs.std().item(), rel_tol=0.15), name
            assert math.isclose(abs(ours).max().item(), abs(theirs).max().item(), rel_tol=0.25), name


def test_tensors_go_both_ways_through_dlpack():
    t = tg.arange(6.0).reshape(2, 3)
    assert torch.from_dlpack(t).tolist() == t.tolist()
    assert tg.from_dlpack(torch.arange(4)).tolist() == [0, 1, 2, 3]
