"""Attention: masks, causality, dropout, derivatives, sentences."""

from __future__ import annotations

import numpy as np
import pytest

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import nn
from tapegrad.errors import ShapeError
from tapegrad.testing import check_grads


def test_a_causal_layer_does_not_see_what_comes_later():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = tg.normal(size=(2, 6, 8)).numpy()
    later = x.copy()
    later[:, 4:] += 1.0
    a, b = (layer(tg.tensor(v), is_causal=True).numpy() for v in (x, later))
    assert np.array_equal(a[:, :4], b[:, :4]) and not np.allclose(a[:, 4:], b[:, 4:])
    masked = layer(tg.tensor(x), src_mask=nn.causal_mask(6)).numpy()
    np.testing.assert_allclose(masked, a, rtol=1e-6)


def test_padding_does_not_reach_the_rest():
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    x, padding = tg.normal(size=(2, 5, 8)).numpy(), np.array([[False] * 5, [False] * 3 + [True] * 2])
    other = x.copy()
    other[1, 3:] = 7.0
    (a, weights), (b, _) = (layer(t, t, t, key_padding_mask=tg.tensor(padding)) for t in map(tg.tensor, (x, other)))
    assert np.array_equal(a.numpy()[1, :3], b.numpy()[1, :3])
    assert (weights.numpy()[1, :, 3:] == 0).all()
    np.testing.assert_allclose(weights.numpy().sum(-1), 1.0, rtol=1e-6)


def test_a_query_that_sees_nothing_gives_zeros_and_no_nan():
    q, k, v = (tg.tensor(tg.normal(size=(2, 3, 4)).numpy(), requires_grad=True) for _ in range(3))
    mask = tg.tensor([[True, True, False], [False, False, False], [True, False, False]])
    out = F.scaled_dot_product_attention(q, k, v, mask)
    assert (out.numpy()[:, 1] == 0).all()
    (out * out).sum().backward()
    assert all(np.isfinite(x.grad.numpy()).all() for x in (q, k, v))
    assert (q.grad.numpy()[:, 1] == 0).all() and (k.grad.numpy()[:, 2] == 0).all() and (v.grad.numpy()[:, 2] == 0).all()


def test_both_kinds_of_masks_together():
    rng = np.random.default_rng(0)
    layer = nn.MultiheadAttention(4, 2, batch_first=True, dtype="float64")
    x = tg.tensor(rng.normal(size=(2, 3, 4)))
    padding = np.array([[False, False, True], [False, False, False]])
    added = rng.normal(size=(3, 3))
    both, _ = layer(x, x, x, tg.tensor(padding), attn_mask=tg.tensor(added))
    as_numbers, _ = layer(x, x, x, tg.tensor(np.where(padding, -1e30, 0.0)), attn_mask=tg.tensor(added))
    np.testing.assert_allclose(both.numpy(), as_numbers.numpy(), rtol=1e-12)
    per_head = tg.tensor(np.broadcast_to(added, (4, 3, 3)).copy())
    np.testing.assert_allclose(
        layer(x, x, x, tg.tensor(padding), attn_mask=per_head)[0].numpy(), both.numpy(), rtol=1e-12
    )
    bools = tg.tensor(np.tril(np.ones((3, 3), bool)) == 0)
    a, _ = layer(x, x, x, tg.tensor(padding), attn_mask=bools)
    b, _ = layer(x, x, x, tg.tensor(padding), is_causal=True)
    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)


def test_weights_are_given_where_they_are_needed():
    layer, x = nn.MultiheadAttention(8, 2), tg.normal(size=(5, 3, 8))
    assert layer(x, x, x, need_weights=False)[1] is None
    assert layer(x, x, x, average_attn_weights=False)[1].shape == (3, 2, 5, 5)


def test_dropout_of_weights_is_for_training():
    layer, x = nn.MultiheadAttention(8, 2, dropout=0.5), tg.normal(size=(5, 3, 8))
    assert not np.array_equal(layer(x, x, x)[0].numpy(), layer(x, x, x)[0].numpy())
    layer.eval()
    assert np.array_equal(layer(x, x, x)[0].numpy(), layer(x, x, x)[0].numpy())


def test_derivatives():
    rng = np.random.default_rng(2)
    mask = tg.tensor([[True, False, True], [True, True, False]])
    q, k, v = rng.normal(size=(2, 3)), rng.normal(size=(3, 3)), rng.normal(size=(3, 2))
    check_grads(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask) ** 2, q, k, v)
    layer = nn.TransformerEncoderLayer(4, 2, 5, activation="gelu", dropout=0.0, dtype="float64")
    check_grads(lambda x: layer(x, is_causal=True) ** 2, rng.normal(size=(3, 2, 4)))


def test_an_encoder_trains_in_a_session():
    def passes(session):
        tg.seed(3)
        net = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True), 2, nn.LayerNorm(8)
        )
        x, seen = tg.normal(size=(2, 5, 8)), []
        for _ in range(4):
            if session is None:
                loss = one(net, x)
            else:
                with session:
                    loss = one(net, x)
            seen.append([loss.numpy(), *[p.grad.numpy() for p in net.parameters()]])
        return seen

    def one(net, x):
        net.zero_grad()
        loss = (net(x, is_causal=True) ** 3).mean()
        loss.backward()
        return loss

    session = tg.Session()
    for got, wanted in zip(passes(session), passes(None), strict=True):
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
    assert session.stats.recordings == 1 and session.stats.replays == 3


def test_copies_of_a_layer_have_their_own_parameters():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 2)
    first, second = (layer.linear1.weight for layer in encoder.layers)
    assert first is not second and np.array_equal(first.numpy(), second.numpy())


def layer(**settings):
    return nn.MultiheadAttention(8, 2, **settings)


X = tg.ones((5, 3, 8))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: nn.MultiheadAttention(8, 3), "num_heads=3 must divide embed_dim=8"),
        (lambda: nn.MultiheadAttention(8, 2, dropout=-1.0), "dropout is a probability between 0 and 1, not -1.0"),
        (lambda: layer()(tg.ones((5, 3, 7)), X, X), r"query has shape \(5, 3, 7\), wanted \(L, N, E\) with E = 8"),
        (lambda: layer(kdim=4)(X, X, X), r"key has shape \(5, 3, 8\), wanted \(L, N, E\) with E = 4"),
        (lambda: layer()(X, X[:, :2], X[:, :2]), "batches of 3, 2 and 2"),
        (lambda: layer()(X, X, X[:4]), "there are 5 keys for 4 values"),
        (lambda: layer()(X, X, X, tg.ones((5, 3)) > 0), r"key_padding_mask has shape \(5, 3\), wanted \(3, 5\)"),
        (lambda: layer()(X, X, X, attn_mask=tg.ones((4, 5))), r"attn_mask has shape \(4, 5\), wanted \(5, 5\) or \(6, 5, 5\)"),
        (lambda: nn.TransformerEncoderLayer(8, 2, activation="tan"), 'activation is "relu", "gelu" or a function'),
        (lambda: F.scaled_dot_product_attention(X, X, X[:, :2]), r"wanted \(..., L, E\), \(..., S, E\) and \(..., S, V\)"),
        (lambda: F.scaled_dot_product_attention(X, X, X, tg.ones((4, 3))), r"attn_mask has shape \(4, 3\), which does not broadcast"),
        (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 0), "num_layers is a whole number from 1"),
    ],
)  # fmt: skip
def test_sentences(wrong, message):
    with pytest.raises(ShapeError, match=message):
        wrong()
