"""Recurrent layers: lengths and masks against sequences one by one, carried state, derivatives, sessions, sentences."""

from __future__ import annotations

import numpy as np
import pytest

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import nn
from tapegrad.errors import ShapeError
from tapegrad.testing import check_grads

KINDS = [nn.RNN, nn.GRU, nn.LSTM]


def states(found) -> list[np.ndarray]:
    """The last states, as arrays."""
    return [s.numpy() for s in (found if isinstance(found, tuple) else (found,))]


def real_steps(kind: str, rng) -> np.ndarray:
    """(T, B) of booleans."""
    if kind == "lengths":
        return np.arange(6)[:, None] < np.array([4, 6, 0, 1])
    return rng.uniform(size=(6, 4)) < np.array([0.5, 1.0, 0.0, 0.4])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("how", ["lengths", "mask"])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_that_are_not_real_are_as_if_they_were_not_there(kind, how, batch_first):
    """Outputs, states and gradients are those of each sequence by itself, without its missing steps."""
    rng = np.random.default_rng(3)
    layer = kind(3, 4, 2, bidirectional=True, batch_first=batch_first, dtype="float64")
    x, real = rng.normal(size=(6, 4, 3)), real_steps(how, rng)
    x[~real] = np.nan  # whatever stands there
    first = [rng.normal(size=(4, 4, 4)) for _ in range(layer.states)]

    given = tg.tensor(x.swapaxes(0, 1).copy() if batch_first else x, requires_grad=True)
    start = [tg.tensor(f) for f in first]
    said = {"lengths": real.sum(0)} if how == "lengths" else {"mask": real.T.copy() if batch_first else real}
    out, last = layer(given, tuple(start) if len(start) == 2 else start[0], **said)
    ((out * out).sum() + sum((s * s).sum() for s in (last if isinstance(last, tuple) else (last,)))).backward()
    grads = {n: p.grad.numpy() for n, p in layer.named_parameters()}
    found = out.numpy().swapaxes(0, 1) if batch_first else out.numpy()
    assert (found[~real] == 0).all()

    layer.zero_grad()
    layer.batch_first = False
    for b in range(4):
        steps = real[:, b]
        alone = [tg.tensor(f[:, b : b + 1]) for f in first]
        if not steps.any():
            for got, f in zip(states(last), first, strict=True):
                np.testing.assert_array_equal(got[:, b], f[:, b])
            continue
        one, end = layer(tg.tensor(x[steps, b : b + 1]), tuple(alone) if len(alone) == 2 else alone[0])
        np.testing.assert_allclose(found[steps, b], one.numpy()[:, 0], rtol=1e-12)
        for got, f in zip(states(last), states(end), strict=True):
            np.testing.assert_allclose(got[:, b], f[:, 0], rtol=1e-12)
        ((one * one).sum() + sum((s * s).sum() for s in (end if isinstance(end, tuple) else (end,)))).backward()
    for n, p in layer.named_parameters():
        np.testing.assert_allclose(grads[n], p.grad.numpy(), rtol=1e-9, atol=1e-12, err_msg=n)
    got = given.grad.numpy().swapaxes(0, 1) if batch_first else given.grad.numpy()
    assert (got[~real] == 0).all() and np.isfinite(got).all()


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_in_a_session_are_data(kind):
    """Other lengths are no new recording."""

    def passes(session):
        tg.seed(2)
        layer, seen = kind(3, 4, bidirectional=True), []
        x = tg.normal(size=(5, 3, 3))
        for i in range(5):
            lengths = np.array([5, 1 + i % 3, i])
            with session:
                layer.zero_grad()
                out, _ = layer(x, lengths=lengths)
                (out * out).sum().backward()
            seen.append([out.numpy(), *[p.grad.numpy() for p in layer.parameters()]])
        return seen

    class Eager:
        def __enter__(self):
            pass

        def __exit__(self, *_):
            pass

    session = tg.Session()
    for got, wanted in zip(passes(session), passes(Eager()), strict=True):
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert session.stats.recordings == 1 and session.stats.replays == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_carried_state_goes_on(kind):
    layer = kind(3, 4, 2, dtype="float64")
    x = tg.normal(size=(8, 2, 3), dtype="float64")
    whole, last = layer(x)
    first, state = layer(x[:5])
    second, end = layer(x[5:], state)
    np.testing.assert_allclose(np.concatenate([first.numpy(), second.numpy()]), whole.numpy(), rtol=1e-13)
    for a, b in zip(states(end), states(last), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)


def test_a_carried_state_in_a_session():
    """Truncated backpropagation: the state of one pass, detached, starts the next."""
    pieces = [tg.normal(size=(5, 2, 3)) for _ in range(6)]

    def passes(make):
        tg.seed(4)
        layer, state, seen, session = nn.LSTM(3, 4), None, [], make()
        for i in range(6):
            if session is None:
                state = advance(layer, pieces[i], state)
            else:
                with session:
                    state = advance(layer, pieces[i], state)
            seen.append([s.numpy() for s in state] + [p.grad.numpy() for p in layer.parameters()])
        return seen, session

    def advance(layer, x, state):
        if state is None:
            state = (tg.zeros((1, 2, 4)), tg.zeros((1, 2, 4)))
        layer.zero_grad()
        out, last = layer(x, state)
        (out * out).mean().backward()
        return tuple(s.detach() for s in last)

    (wanted, _), (got, session) = passes(lambda: None), passes(tg.Session)
    for a, b in zip(got, wanted, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
    assert session.stats.replays >= 3


@pytest.mark.parametrize("cell, kind", [(nn.RNNCell, nn.RNN), (nn.GRUCell, nn.GRU), (nn.LSTMCell, nn.LSTM)])
def test_cells_step_by_step_are_the_layer(cell, kind):
    layer, one = kind(3, 4, dtype="float64"), cell(3, 4, dtype="float64")
    one.load_state_dict({n.removesuffix("_l0"): v for n, v in layer.state_dict().items()})
    x = tg.normal(size=(5, 2, 3), dtype="float64")
    out, _ = layer(x)
    state = None
    for t in range(5):
        state = one(x[t], state)
        h = state[0] if isinstance(state, tuple) else state
        np.testing.assert_allclose(h.numpy(), out[t].numpy(), rtol=1e-13)


def test_dropout_between_layers_is_for_training():
    layer = nn.GRU(3, 4, 2, dropout=0.5)
    x = tg.normal(size=(5, 2, 3))
    assert not np.array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())
    layer.eval()
    assert np.array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())
    one = nn.GRU(3, 4, 1, dropout=0.5)
    assert np.array_equal(one(x)[0].numpy(), one(x)[0].numpy())  # no layer behind it to drop for


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_of_both_orders(kind):
    layer = kind(2, 3, bidirectional=True, dtype="float64")
    names = [n for n, _ in layer.named_parameters()]

    def f(x, *values):
        for name, value in zip(names, values, strict=True):
            object.__setattr__(layer, name, value)  # past the parameters' room
        out, last = layer(x, lengths=[3, 2])
        return (out * out).sum() + sum((s * s * s).sum() for s in (last if isinstance(last, tuple) else (last,)))

    values = [p.numpy() for p in layer.parameters()]
    check_grads(f, np.random.default_rng(1).normal(size=(3, 2, 2)), *values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (3, 33, 5, 17), (2, 9, 40, 64)])
def test_threads_do_not_change_a_bit(kind, sizes):
    steps, batch, inputs, hidden = sizes
    layer, x = kind(inputs, hidden), tg.normal(size=(steps, batch, inputs))
    before, found = tg.get_num_threads(), []
    try:
        for threads in (1, 2):
            tg.set_num_threads(threads)
            layer.zero_grad()
            out, _ = layer(x)
            out.sum().backward()
            found.append([out.numpy(), layer.weight_hh_l0.grad.numpy()])
    finally:
        tg.set_num_threads(before)
    assert found[0][0].tobytes() == found[1][0].tobytes()
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [-200.0, 200.0, 1e-20, -1e-20, 0.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gates_of_extreme_inputs(value, dtype):
    """Neither overflow nor cancellation: tanh is as exact as NumPy's near 0 too."""
    w = tg.tensor([[0.0], [0.0], [1.0], [0.0]], dtype=dtype)
    x = tg.full((1, 1, 1), value, dtype=dtype)
    zero = tg.zeros((1, 1), dtype=dtype)
    hs, cs = F.lstm(x, zero, zero, w, tg.zeros((4, 1), dtype=dtype))
    c = 0.5 * np.tanh(np.array(value, dtype))
    np.testing.assert_allclose(cs.numpy().item(), c, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(hs.numpy().item(), 0.5 * np.tanh(c), rtol=8 * np.finfo(dtype).eps)


def test_tanh_is_exact_to_some_ulps():
    for dtype in ("float32", "float64"):
        x = np.concatenate(
            [np.linspace(-12, 12, 4001), np.geomspace(1e-30, 1, 2000), -np.geomspace(1e-30, 1, 2000)]
        ).astype(dtype)
        n = x.size
        out = F.rnn(
            tg.tensor(x.reshape(1, n, 1)),
            tg.zeros((n, 1), dtype=dtype),
            tg.ones((1, 1), dtype=dtype),
            tg.zeros((1, 1), dtype=dtype),
        )
        wanted = np.tanh(x.astype(np.longdouble))
        off = np.abs(out.numpy().ravel() - wanted) / np.spacing(np.abs(wanted).astype(dtype))
        assert off.max() < 4, (dtype, off.max())


def test_names_and_repr():
    layer = nn.LSTM(3, 4, 2, bidirectional=True, bias=False)
    assert [n for n, _ in layer.named_parameters()] == [
        f"weight_{kind}_l{i}{way}" for i in (0, 1) for way in ("", "_reverse") for kind in ("ih", "hh")
    ]
    assert repr(layer) == "LSTM(3, 4, num_layers=2, bias=False, bidirectional=True)"
    assert repr(nn.GRUCell(3, 4)) == "GRUCell(3, 4)"


X, H = tg.ones((5, 2, 3)), tg.ones((2, 4))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: nn.LSTM(3, 0), "LSTM: hidden_size is a whole number from 1, not 0"),
        (lambda: nn.GRU(3, 4, dropout=1.5), "GRU: dropout is a probability between 0 and 1, not 1.5"),
        (lambda: nn.RNN(3, 4, nonlinearity="sin"), 'RNN: nonlinearity is "tanh" or "relu", not \'sin\''),
        (lambda: nn.LSTM(4, 2)(X), r"LSTM: input has shape \(5, 2, 3\), wanted \(time, batch, 4\), or \(time, 4\)"),
        (lambda: nn.LSTM(4, 2, batch_first=True)(X), r"wanted \(batch, time, 4\)"),
        (lambda: nn.LSTM(3, 4)(X, tg.zeros((1, 2, 4))), r"hx is Tensor, wanted a pair \(h0, c0\), each of shape \(1, 2, 4\)"),
        (lambda: nn.GRU(3, 4)(X, tg.zeros((1, 3, 4))), r"hx is \[\(1, 3, 4\)\], wanted a tensor of shape \(1, 2, 4\)"),
        (lambda: nn.GRU(3, 4)(X, lengths=[6, 1]), "lengths from 1 to 6 came; the input has 5 steps, so they are 0 to 5"),
        (lambda: nn.GRU(3, 4)(X, lengths=[1]), r"lengths has shape \(1,\) and dtype int64, wanted \(2,\) of integers"),
        (lambda: nn.GRU(3, 4)(X, lengths=[1.0, 2.0]), "lengths has shape .* of integers"),
        (lambda: nn.GRU(3, 4)(X, mask=np.ones((2, 5), bool)), r"mask has shape \(2, 5\) and dtype bool, wanted \(5, 2\) of bool"),
        (lambda: nn.GRU(3, 4)(X, mask=np.ones((5, 2))), "dtype float64, wanted .* of bool, True where a step is real"),
        (lambda: nn.GRU(3, 4)(X, lengths=[1, 2], mask=np.ones((5, 2), bool)), "give lengths or mask, one of them"),
        (lambda: nn.GRU(3, 4)(tg.ones((5, 3)), lengths=[1]), "with a batch of sequences"),
        (lambda: nn.LSTMCell(3, 4)(tg.ones((2, 4))), r"LSTMCell: input has shape \(2, 4\), wanted \(batch, 3\) or \(3,\)"),
        (lambda: nn.LSTMCell(3, 4)(tg.ones((2, 3)), (tg.ones((2, 4)), tg.ones((2, 3)))), r"wanted a pair \(h, c\), each of shape \(2, 4\)"),
        (lambda: nn.GRUCell(3, 4)(tg.ones((2, 3)), tg.ones((1, 4))), r"hx has shape \(1, 4\), wanted a tensor of shape \(2, 4\)"),
        (lambda: nn.RNNCell(3, 4, nonlinearity="x"), "RNNCell: nonlinearity"),
        (lambda: F.lstm(X, H, H, tg.ones((16, 3)), tg.ones((12, 4))), r"lstm: weight_hh has shape \(12, 4\), wanted \(4 \* hidden"),
        (lambda: F.lstm(X, H, H, tg.ones((12, 3)), tg.ones((16, 4))), r"lstm: weight_ih has shape \(12, 3\), wanted \(16, inputs\)"),
        (lambda: F.gru(X[0], H, tg.ones((12, 3)), tg.ones((12, 4))), r"gru: input has shape \(2, 3\), wanted \(time, batch, 3\)"),
        (lambda: F.gru(X[:0], tg.ones((2, 4)), tg.ones((12, 3)), tg.ones((12, 4))), "there must be one time step at least"),
        (lambda: F.gru(X, tg.ones((1, 4)), tg.ones((12, 3)), tg.ones((12, 4))), r"gru: h0 has shape \(1, 4\), wanted \(2, 4\)"),
        (lambda: F.gru(X, tg.ones((2, 4)), tg.ones((12, 3)), tg.ones((12, 4)), tg.ones(12)), "gru: one bias came alone"),
        (lambda: F.rnn(X, tg.ones((2, 4)), tg.ones((4, 3)), tg.ones((4, 4)), None, "x"), 'rnn: nonlinearity is "tanh" or "relu"'),
    ],
)  # fmt: skip
def test_sentences(wrong, message):
    with pytest.raises(ShapeError, match=message):
        wrong()
