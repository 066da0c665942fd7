"""Batch normalisation's buffers, in eager passes and in sessions; sentences for wrong uses of all normalising layers."""

from __future__ import annotations

import numpy as np
import pytest

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import nn, optim
from tapegrad.errors import ShapeError
from tapegrad.testing import check_grads


def model() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(27, 4),
        nn.BatchNorm1d(4, momentum=None),
    )


def trained(session_or_none, evaluate_at: tuple[int, ...] = ()):
    """Twelve steps on changing batches: losses, and all that the model holds after each."""
    tg.seed(5)
    net, rng = model(), np.random.default_rng(3)
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    seen = []
    for i in range(12):
        x, y = tg.tensor(rng.normal(size=(6, 2, 5, 5)).astype(np.float32)), tg.tensor(rng.integers(0, 4, 6))
        net.train(i not in evaluate_at)
        if session_or_none is None:
            loss = step(net, optimizer, x, y)
        else:
            with session_or_none:
                loss = step(net, optimizer, x, y)
        seen.append((loss.numpy(), {n: v.numpy() for n, v in net.state_dict().items()}))
    return seen


def step(net, optimizer, x, y):
    loss = F.cross_entropy(net(x), y)
    if net.training:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss


@pytest.mark.parametrize("evaluate_at", [(), (3, 7, 8)])
def test_a_session_replays_the_buffers_updates(evaluate_at):
    session = tg.Session()
    wanted, got = trained(None, evaluate_at), trained(session, evaluate_at)
    for (loss, state), (wanted_loss, wanted_state) in zip(got, wanted, strict=True):
        np.testing.assert_allclose(loss, wanted_loss, rtol=1e-5)
        for name, value in wanted_state.items():
            np.testing.assert_allclose(state[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
            if name.endswith("num_batches_tracked"):
                assert state[name] == value
    assert got[-1][1]["1.num_batches_tracked"] == 12 - len(evaluate_at)
    assert session.stats.recordings <= 2 + (len(evaluate_at) > 0)
    assert session.stats.replays >= 12 - 4


def test_the_buffers_of_one_layer_are_bitwise_those_of_eager_passes():
    def passes(session):
        tg.seed(1)
        layer, seen = nn.BatchNorm1d(5, momentum=0.2, dtype="float64"), []
        for _ in range(6):
            x = tg.normal(size=(7, 5), dtype="float64")
            if session is None:
                layer(x)
            else:
                with session:
                    layer(x)
            seen.append([b.numpy() for b in layer.buffers()])
        return seen

    session = tg.Session()
    for got, wanted in zip(passes(session), passes(None), strict=True):
        for a, b in zip(got, wanted, strict=True):
            assert a.tobytes() == b.tobytes()
    assert session.stats.recordings == 1 and session.stats.replays == 5


def test_running_statistics_approach_those_of_the_data():
    layer = nn.BatchNorm1d(2, momentum=None)
    data = tg.normal(size=(400, 2)) * tg.tensor([2.0, 0.5]) + tg.tensor([3.0, -1.0])
    for i in range(4):
        layer(data[100 * i : 100 * i + 100])
    np.testing.assert_allclose(layer.running_mean.numpy(), data.numpy().mean(0), rtol=1e-4)
    np.testing.assert_allclose(layer.running_var.numpy(), data.numpy().var(0), rtol=0.1)
    out = layer.eval()(data).numpy()
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-3)
    assert layer.num_batches_tracked.item() == 4


def test_evaluation_changes_nothing():
    layer = nn.BatchNorm2d(3).eval()
    before = {n: v.numpy() for n, v in layer.state_dict().items()}
    x = tg.normal(size=(2, 3, 4, 4))
    np.testing.assert_allclose(layer(x).numpy(), x.numpy() / np.sqrt(1 + 1e-5), rtol=1e-6)
    assert all((v.numpy() == before[n]).all() for n, v in layer.state_dict().items())


def test_gradients_of_batch_norm():
    x, w, b = (np.random.default_rng(i).normal(size=s) for i, s in enumerate([(4, 3, 2), (3,), (3,)]))
    check_grads(lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True) ** 3, x, w, b)
    mean, var = tg.tensor([0.1, -0.2, 0.3], dtype="float64"), tg.tensor([0.5, 1.0, 2.0], dtype="float64")
    check_grads(lambda x, w, b: F.batch_norm(x, mean, var, w, b) ** 3, x, w, b)


def test_state_and_repr():
    layer = nn.BatchNorm1d(3)
    assert list(layer.state_dict()) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert repr(layer) == "BatchNorm1d(3, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)"
    assert list(nn.BatchNorm1d(3, affine=False, track_running_stats=False).state_dict()) == []
    assert repr(nn.GroupNorm(2, 4)) == "GroupNorm(2, 4, eps=1e-05, affine=True)"
    assert repr(nn.RMSNorm(4)) == "RMSNorm((4,), eps=None, elementwise_affine=True)"


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: nn.BatchNorm1d(0), "BatchNorm1d: num_features is a whole number from 1, not 0"),
        (
            lambda: nn.BatchNorm1d(3)(tg.ones((2, 4))),
            r"input has shape \(2, 4\), wanted \(N, C\) or \(N, C, L\) with C = 3",
        ),
        (lambda: nn.BatchNorm2d(3)(tg.ones((2, 3))), r"wanted \(N, C, H, W\) with C = 3"),
        (lambda: nn.BatchNorm1d(3)(tg.ones((1, 3))), r"one value per channel, which has no variance; .* \.eval\(\)"),
        (
            lambda: F.batch_norm(tg.ones((2, 3)), None, None),
            "running_mean and running_var are needed where training is False",
        ),
        (
            lambda: F.batch_norm(tg.ones((2, 3)), tg.ones(2), tg.ones(3)),
            r"running_mean has shape \(2,\), but .* 3 channels",
        ),
        (lambda: F.batch_norm(tg.ones(3), None, None, training=True), r"input has shape \(3,\), wanted \(N, C\)"),
        (lambda: nn.GroupNorm(3, 4), "num_groups=3 must divide num_channels=4"),
        (lambda: F.group_norm(tg.ones((2, 4)), 3), "num_groups is 3; it must divide the 4 channels"),
        (lambda: F.group_norm(tg.ones(4), 2), r"input has shape \(4,\), wanted \(N, C, ...\)"),
        (
            lambda: F.group_norm(tg.ones((2, 4)), 2, tg.ones(3)),
            r"weight has shape \(3,\), wanted one element per channel, \(4,\)",
        ),
        (lambda: nn.RMSNorm(0), "RMSNorm: normalized_shape is a whole number from 1, not 0"),
        (lambda: F.rms_norm(tg.ones((2, 4)), 3), "its last axes must be normalized_shape"),
        (
            lambda: F.rms_norm(tg.ones((2, 4)), 4, tg.ones(3)),
            r"weight has shape \(3,\), wanted normalized_shape, \(4,\)",
        ),
    ],
)
def test_sentences(wrong, message):
    with pytest.raises(ShapeError, match=message):
        wrong()
