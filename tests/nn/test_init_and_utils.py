"""Starting values and their patterns, clipping, vectors, freezing, summaries."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.errors import PathError, ShapeError, TrainingError


def net() -> nn.Module:
    body = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8))
    return nn.Sequential(
        {"body": body, "memory": nn.GRU(8, 4), "head": nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2))}
    )


# init


def test_the_more_specific_pattern_wins():
    model = net()
    written = nn.init.apply(
        model,
        {
            "head.*.bias": nn.init.constant(0.0),
            "*.weight*": nn.init.constant(1.0),
            "*<recurrent>.weight_hh*": nn.init.orthogonal(),
            "*.bias*": nn.init.constant(0.5),
            "body.2.weight": lambda t: np.eye(8),
            "head.1.weight": nn.init.he,
        },
    )
    assert written == [n for n, _ in model.named_parameters()]
    assert (model[2][0].bias.numpy() == 0).all() and (model[0][0].bias.numpy() == 0.5).all()
    w = model[1].weight_hh_l0.numpy()
    np.testing.assert_allclose(w.T @ w, np.eye(4), atol=1e-6)
    assert (model[1].weight_ih_l0.numpy() == 1).all() and (model[1].bias_ih_l0.numpy() == 0.5).all()
    assert np.array_equal(model[0][2].weight.numpy(), np.eye(8)) and np.ptp(model[2][1].weight.numpy()) > 0


def test_patterns_that_name_nothing_and_values_that_do_not_fit():
    with pytest.raises(PathError, match=r"nothing is named 'body\.0\.wieght'; near names: body\.0\.weight"):
        nn.init.apply(net(), {"body.0.wieght": nn.init.he})
    with pytest.raises(
        PathError, match=r"the initialiser of body\.0\.bias is 0, wanted a function of a tensor, as constant\(0\)"
    ):
        nn.init.apply(net(), {"body.0.bias": 0})
    with pytest.raises(
        ShapeError, match=r"the initialiser of body\.0\.bias returned shape \(2,\), wanted the parameter's, \(8,\)"
    ):
        nn.init.apply(net(), {"body.0.bias": lambda t: [1.0, 2.0]})


SPREADS = [
    (nn.init.xavier_normal_, math.sqrt(2 / 500)),
    (nn.init.xavier_uniform_, math.sqrt(2 / 500)),
    (nn.init.xavier, math.sqrt(2 / 500)),
    (nn.init.he, math.sqrt(2 / 200)),
    (nn.init.kaiming_normal_, math.sqrt(2 / 200)),
    (lambda t: nn.init.kaiming_normal_(t, mode="fan_out", nonlinearity="tanh"), 5 / 3 / math.sqrt(300)),
    (lambda t: nn.init.kaiming_uniform_(t, a=math.sqrt(5.0)), math.sqrt(1 / 3 / 200)),
    (nn.init.normal(0.0, 0.3), 0.3),
    (nn.init.uniform(-0.6, 0.6), 0.6 / math.sqrt(3)),
    (nn.init.truncated_normal(0.0, 1.0, -1.0, 1.0), 0.5396),
    (nn.init.truncated_normal(0.0, 1.0, -0.1, 0.1), 0.1 / math.sqrt(3)),
]


@pytest.mark.parametrize("initialiser, spread", SPREADS)
def test_spreads(initialiser, spread):
    t = tg.zeros((300, 200), requires_grad=True)
    initialiser(t)
    assert abs(t.numpy().mean()) < 0.02 * spread + 1e-3
    np.testing.assert_allclose(t.numpy().std(), spread, rtol=0.02)
    assert t.requires_grad and t.is_leaf


@pytest.mark.parametrize("low, high", [(-2.0, 2.0), (0.5, 9.0), (3.0, 3.5), (6.0, 1e6), (-1e9, -4.0)])
def test_truncated_normal_numbers_are_distributed_as_they_should(low, high):
    t = nn.init.trunc_normal_(tg.zeros(20000, dtype="float64"), 0.0, 1.0, low, high).numpy()
    assert (t >= low).all() and (t <= high).all()
    grid = np.linspace(max(low, -12), min(high, 12), 200001)
    density = np.exp(-0.5 * (grid**2 - min(abs(grid)) ** 2))
    share = np.cumsum(density) / density.sum()
    off = np.abs(np.searchsorted(np.sort(t), grid[::100]) / t.size - share[::100])
    assert off.max() < 1.63 / math.sqrt(t.size) * 1.2  # Kolmogorov and Smirnov at 1 %


@pytest.mark.parametrize("shape", [(5, 5), (3, 8), (8, 3), (4, 2, 3)])
def test_orthogonal(shape):
    w = nn.init.orthogonal_(tg.zeros(shape, dtype="float64"), gain=2.0).numpy().reshape(shape[0], -1)
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-12)


def test_seeds_fix_starting_values():
    found = []
    for _ in range(2):
        tg.seed(3)
        found.append([nn.init.trunc_normal_(tg.zeros((5, 4))).numpy(), nn.init.orthogonal_(tg.zeros((5, 4))).numpy()])
    assert all(np.array_equal(a, b) for a, b in zip(*found))
    assert nn.init.eye_(tg.zeros((2, 3))).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: nn.init.calculate_gain("sine"), "no gain is known for nonlinearity 'sine'; known are linear, "),
        (lambda: nn.init.kaiming_normal_(tg.zeros((2, 2)), mode="in"), 'mode is "fan_in" or "fan_out", not \'in\''),
        (lambda: nn.init.orthogonal_(tg.zeros(3)), r"the tensor has shape \(3,\), wanted two axes or more"),
        (lambda: nn.init.eye_(tg.zeros(3)), r"the tensor has shape \(3,\), wanted a matrix"),
        (lambda: nn.init.trunc_normal_(tg.zeros(3), a=1.0, b=0.0), "a=1.0 must be below b=0.0 and std=1.0 above 0"),
        (lambda: nn.init.trunc_normal_(tg.zeros(3), std=0.0), "std=0.0 above 0"),
        (lambda: nn.utils.clip_grad_norm_([], -1.0), "max_norm is -1.0; it must not be below 0"),
        (lambda: nn.utils.clip_grad_value_([], -1.0), "clip_value is -1.0; it must not be below 0"),
        (lambda: nn.utils.parameters_to_vector([]), "there are no parameters"),
        (lambda: nn.utils.vector_to_parameters(tg.ones(3), [tg.ones(2)]), r"vector has shape \(3,\), and the parameters have 2 elements"),
    ],
)  # fmt: skip
def test_sentences(wrong, message):
    with pytest.raises(ShapeError, match=message):
        wrong()


# utils


def with_gradients(*values) -> list[tg.Tensor]:
    """Parameters with these gradients, the last of them with none."""
    made = [tg.zeros(np.shape(v), requires_grad=True) for v in values]
    for p, v in zip(made, values, strict=True):
        (p * tg.tensor(v)).sum().backward()
    return [*made, tg.zeros(2, requires_grad=True)]


@pytest.mark.parametrize(
    "norm_type, before", [(2.0, 13.0), (1.0, 19.0), (math.inf, 12.0), (3.0, (27 + 64 + 1728) ** (1 / 3))]
)
def test_norms_are_clipped_together(norm_type, before):
    ps = with_gradients([3.0, -4.0], [[12.0]])
    assert nn.utils.clip_grad_norm_(ps, 100.0, norm_type).item() == pytest.approx(before, rel=1e-6)
    assert ps[0].grad.tolist() == [3.0, -4.0]
    nn.utils.clip_grad_norm_(ps, 1.0, norm_type)
    found = np.concatenate([p.grad.numpy().ravel() for p in ps[:2]])
    np.testing.assert_allclose(found, np.array([3.0, -4.0, 12.0]) / before, rtol=1e-5)
    assert nn.utils.clip_grad_norm_([tg.zeros(1, requires_grad=True)], 1.0).item() == 0


def test_norms_that_are_not_finite():
    ps = with_gradients([math.inf])
    with pytest.raises(TrainingError, match="the norm of the gradients is inf, so there is no factor to scale them by"):
        nn.utils.clip_grad_norm_(ps, 1.0, error_if_nonfinite=True)
    assert ps[0].grad.tolist() == [math.inf]


@pytest.mark.parametrize("clip", ["norm", "value"])
def test_clipping_in_a_session(clip):
    def passes(session):
        tg.seed(3)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        optimizer, seen = optim.Adam(model.parameters(), lr=0.1), []
        batches = [tg.normal(size=(6, 4)) * 3 for _ in range(6)]
        for x in batches:
            if session is None:
                one(model, optimizer, x)
            else:
                with session:
                    one(model, optimizer, x)
            seen.append([v for p in model.parameters() for v in (p.numpy(), p.grad.numpy())])
        return seen

    def one(model, optimizer, x):
        optimizer.zero_grad()
        (model(x) ** 2).sum().backward()
        if clip == "norm":
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        else:
            nn.utils.clip_grad_value_(model.parameters(), 0.1)
        optimizer.step()

    session = tg.Session()
    for got, wanted in zip(passes(session), passes(None), strict=True):
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert session.stats.recordings <= 2 and session.stats.replays >= 4


def test_vectors_of_parameters():
    model = net()
    vector = nn.utils.parameters_to_vector(model.parameters())
    assert vector.shape == (sum(p.size for p in model.parameters()),)
    (vector * vector).sum().backward()
    np.testing.assert_allclose(model[0][0].bias.grad.numpy(), 2 * model[0][0].bias.numpy())
    other = net()
    nn.utils.vector_to_parameters(vector.detach(), other.parameters())
    assert all(np.array_equal(p.numpy(), q.numpy()) for p, q in zip(model.parameters(), other.parameters()))


def test_freezing_by_pattern():
    model = net()
    assert nn.utils.freeze(model, "body.**", "*<gru>.bias*") == [
        "body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias", "memory.bias_ih_l0", "memory.bias_hh_l0",
    ]  # fmt: skip
    (model[0](tg.ones((2, 3))).sum() + model[1](tg.ones((3, 2, 8)))[0].sum()).backward()
    assert model[0][0].weight.grad is None and model[1].weight_hh_l0.grad is not None
    assert len(nn.utils.unfreeze(model)) == 12 and all(p.requires_grad for p in model.parameters())
    with pytest.raises(
        PathError, match=r"nothing is named 'body\.3\.weight'; near names: body\.2\.weight, body\.0\.weight"
    ):
        nn.utils.freeze(model, "body.3.weight")
    assert all(p.requires_grad for p in model.parameters())


# summary


def test_a_summary_counts_and_changes_nothing():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(
        nn.BatchNorm1d(4), shared, nn.Dropout(0.5), shared, nn.LSTM(4, 3), nn.Lambda(lambda found: found[0])
    )
    nn.utils.freeze(model, "0.*")
    before = {n: v.numpy() for n, v in model.state_dict().items()}
    x = tg.ones((5, 4))
    found = nn.summary(model, x)
    assert [r.path for r in found.rows] == ["", "0", "1", "2", "4", "5"]  # a shared module stands once
    assert [r.calls for r in found.rows] == [1, 1, 2, 1, 1, 1]
    assert [r.shape for r in found.rows] == [(5, 3), (5, 4), (5, 4), (5, 4), [(5, 3), [(1, 3), (1, 3)]], (5, 3)]
    assert [r.parameters for r in found.rows] == [8 + 20 + 108, 8, 20, 0, 108, 0]
    assert (found.parameters, found.trainable, found.nbytes, found.buffer_bytes) == (136, 128, 544, 40)
    assert all(np.array_equal(v.numpy(), before[n]) for n, v in model.state_dict().items())
    assert all(m.training for m in model.modules()) and all("forward" not in vars(m) for m in model.modules())
    text = str(found)
    assert "1: Linear ×2" in text and "(5, 3), (1, 3), (1, 3)" in text
    assert text.endswith("136 parameters, 128 trainable, 8 frozen; 544 bytes, and 40 of buffers")


def test_a_summary_without_inputs_and_of_a_model_that_fails():
    model = nn.Sequential(nn.Linear(4, 3))
    assert "not called" in str(nn.summary(model)) and nn.summary(model).parameters == 15
    with pytest.raises(ShapeError):
        nn.summary(model, tg.ones(5))
    assert "forward" not in vars(model[0]) and model.training


def test_a_summary_sizes_lazy_layers():
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(None))
    found = nn.summary(model, tg.ones((2, 3)))
    assert found.parameters == 30
    assert [r.calls for r in found.rows] == [1, 1, 1]
