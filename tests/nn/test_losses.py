"""Losses at their edges: numbers that overflow, everything ignored, probabilities of 0; sentences."""

from __future__ import annotations

import numpy as np
import pytest

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import nn
from tapegrad.errors import IndexOutOfRange, ShapeError


def slope(loss, x):
    """The gradient of a loss by its input."""
    x = tg.tensor(x, requires_grad=True)
    loss(x).backward()
    return x.grad.numpy()


@pytest.mark.parametrize(
    "settings",
    [{}, dict(label_smoothing=0.1), dict(weight=[1.0, 2.0, 3.0]), dict(weight=[1.0, 2.0, 3.0], label_smoothing=0.1)],
)
def test_large_logits_neither_overflow_nor_vanish(settings):
    if "weight" in settings:
        settings = {**settings, "weight": tg.tensor(settings["weight"])}
    logits, classes = [[1e4, -1e4, 0.0], [-3e38, 0.0, 3e38]], tg.tensor([1, 2])
    got = F.cross_entropy(tg.tensor(logits), classes, reduction="none", **settings).numpy()
    assert np.isfinite(got[0]) and got[0] > 1e4
    assert np.isfinite(slope(lambda x: F.cross_entropy(x, classes, **settings), logits)).all()


def test_logits_of_two_classes_at_their_ends():
    x, t = tg.tensor([1e4, -1e4, 1e4, -1e4]), tg.tensor([1.0, 0.0, 0.0, 1.0])
    for settings in ({}, dict(pos_weight=tg.tensor(2.0))):
        got = F.binary_cross_entropy_with_logits(x, t, reduction="none", **settings).numpy()
        np.testing.assert_allclose(got, [0, 0, 1e4, 1e4 * (2 if settings else 1)])
        found = slope(lambda x: F.binary_cross_entropy_with_logits(x, t, reduction="sum", **settings), x.numpy())  # noqa: B023
        np.testing.assert_allclose(found, [0, 0, 1, -2 if settings else -1])


def test_probabilities_at_their_ends():
    """As in PyTorch: logarithms are at least -100, and the slope's denominator at least 1e-12."""
    p, t = [0.0, 1.0, 0.0, 1.0], tg.tensor([0.0, 1.0, 1.0, 0.0])
    assert F.binary_cross_entropy(tg.tensor(p), t, reduction="none").tolist() == [0.0, 0.0, 100.0, 100.0]
    np.testing.assert_allclose(slope(lambda x: F.binary_cross_entropy(x, t, reduction="sum"), p), [0, 0, -1e12, 1e12])


def test_probabilities_of_zero_in_a_target_count_nothing():
    logs, t = [[-1.0, -2.0, -0.5]], tg.tensor([[0.0, 0.4, 0.6]])
    got = F.kl_div(tg.tensor(logs), t, reduction="none").numpy()
    np.testing.assert_allclose(got, [[0.0, 0.4 * (np.log(0.4) + 2.0), 0.6 * (np.log(0.6) + 0.5)]], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(slope(lambda x: F.kl_div(x, t, reduction="sum"), logs), [[0.0, -0.4, -0.6]])
    assert np.isfinite(slope(lambda t: F.kl_div(tg.tensor(logs), t, reduction="sum"), t.numpy())).all()


@pytest.mark.parametrize("settings", [{}, dict(label_smoothing=0.1), dict(weight=tg.tensor([1.0, 2.0]))])
def test_a_batch_of_nothing_but_ignored_classes(settings):
    """The mean of nothing is nan, as in PyTorch; the sum is 0 and has no slope."""
    classes = tg.tensor([-100, -100])
    assert np.isnan(F.cross_entropy(tg.zeros((2, 2)), classes, **settings).item())
    assert F.cross_entropy(tg.zeros((2, 2)), classes, reduction="sum", **settings).item() == 0
    assert (
        slope(lambda x: F.cross_entropy(x, classes, reduction="sum", **settings), [[1.0, 2.0], [3.0, 4.0]]) == 0
    ).all()


def test_an_ignored_row_of_nan_counts_nothing_in_nll():
    x = tg.tensor([[np.nan, np.nan], [-1.0, -2.0]])
    assert F.nll_loss(x, tg.tensor([-100, 1]), weight=tg.tensor([1.0, 3.0])).item() == 2.0


def test_embeddings_of_length_zero():
    a, b = [[0.0, 0.0], [1.0, 0.0]], tg.tensor([[1.0, 1.0], [0.0, 0.0]])
    assert F.cosine_similarity(tg.tensor(a), b).tolist() == [0.0, 0.0]
    assert np.isfinite(slope(lambda x: F.cosine_embedding_loss(x, b, tg.tensor([1, -1])), a)).all()
    same = [[1.0, 2.0]]
    found = slope(lambda x: F.triplet_margin_loss(x, tg.tensor(same), tg.tensor(same)), same)
    assert np.isfinite(found).all()


def test_weights_of_modules_are_saved_and_moved():
    loss = nn.CrossEntropyLoss(weight=tg.tensor([1.0, 2.0]), label_smoothing=0.1)
    assert list(loss.state_dict()) == ["weight"] and list(loss.parameters()) == []
    assert loss.to("float64").weight.dtype is tg.float64
    assert loss(tg.zeros((1, 2), dtype="float64"), tg.tensor([1])).dtype is tg.float64
    assert repr(loss) == "CrossEntropyLoss(weight=tensor of shape (2,), label_smoothing=0.1)"
    loss.load_state_dict({"weight": tg.tensor([5.0, 5.0])})
    assert loss.weight.tolist() == [5.0, 5.0]


def test_losses_of_three_tensors_take_their_names():
    a, b, c = (tg.normal(size=(3, 4)) for _ in range(3))
    loss = nn.TripletMarginLoss(swap=True)
    assert loss(a, b, c).item() == loss(a, negative=c, positive=b).item()
    with pytest.raises(TypeError, match=r"nn.TripletMarginLoss is called with \(anchor, positive, negative\)"):
        loss(a, b)
    with pytest.raises(TypeError, match="is called with"):
        loss(a, b, third=c)


A, N = tg.ones((4, 3)), tg.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: F.cross_entropy(A, N, label_smoothing=1.5), "label_smoothing is a share between 0 and 1, not 1.5"),
        (lambda: F.cross_entropy(A, N, tg.ones(4)), r"cross_entropy: weight has shape \(4,\), wanted one number for each of 3 classes"),
        (lambda: F.cross_entropy(A, A, tg.ones(4)), r"cross_entropy: weight has shape \(4,\), wanted one number for each of 3 classes"),
        (lambda: F.cross_entropy(A, N, "sum"), "weight is 'sum', wanted numbers or None; name the argument: reduction='sum'"),
        (lambda: F.cross_entropy(A, N, reduction="all"), 'reduction is "mean", "sum" or "none", not \'all\''),
        (lambda: F.cross_entropy(A, N[:3]), r"logits have shape \(4, 3\) .* classes need \(4,\); they have \(3,\)"),
        (lambda: F.nll_loss(A, A), r"nll_loss: input has shape \(4, 3\).* wanted \(4,\) of integers"),
        (lambda: F.nll_loss(A, N, tg.ones(2)), r"nll_loss: weight has shape \(2,\)"),
        (lambda: F.nll_loss(A, N, "sum"), "nll_loss: weight is 'sum'"),
        (lambda: F.binary_cross_entropy(A, A, "sum"), "binary_cross_entropy: weight is 'sum'"),
        (lambda: F.binary_cross_entropy_with_logits(A, A, "sum"), "binary_cross_entropy_with_logits: weight is 'sum'"),
        (lambda: F.binary_cross_entropy(A, A[0]), r"input has shape \(4, 3\) and target \(3,\); they must be equal"),
        (lambda: F.huber_loss(A, A, delta=0.0), "delta is 0.0; it must be above 0"),
        (lambda: F.smooth_l1_loss(A, A, beta=-1.0), "beta is -1.0; it must not be below 0"),
        (lambda: F.kl_div(A, A[:3]), "they must be equal; reshape one"),
        (lambda: F.kl_div(A[0, 0], A[0, 0], reduction="batchmean"), 'reduction "batchmean" needs rows to divide by'),
        (lambda: F.cosine_embedding_loss(A, A, A), r"target has \(4, 3\); wanted \(N, D\), \(N, D\) and \(N,\)"),
        (lambda: F.triplet_margin_loss(A, A, A[:3]), "anchor, positive and negative have shapes"),
        (lambda: F.margin_ranking_loss(A, A, N), "inputs and target have shapes"),
        (lambda: F.hinge_embedding_loss(A, N), "hinge_embedding_loss: input has shape"),
        (lambda: F.multi_margin_loss(A, A), r"multi_margin_loss: input has shape \(4, 3\), wanted \(N, C\)"),
        (lambda: F.multi_margin_loss(A, N, p=3), "multi_margin_loss: p is 1 or 2, not 3"),
        (lambda: nn.NLLLoss("sum"), "nn.NLLLoss: weight is a str, wanted a tensor or None"),
    ],
)  # fmt: skip
def test_sentences(wrong, message):
    with pytest.raises(ShapeError, match=message):
        wrong()


@pytest.mark.parametrize("bad", [3, -1])
@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss, F.multi_margin_loss])
def test_classes_that_do_not_exist(loss, bad):
    with pytest.raises(IndexOutOfRange):
        loss(tg.zeros((2, 3)), tg.tensor([0, bad])).item()
    if loss is not F.multi_margin_loss:
        with pytest.raises(IndexOutOfRange):
            loss(tg.zeros((2, 3)), tg.tensor([0, bad]), weight=tg.ones(3)).item()
