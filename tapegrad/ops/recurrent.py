"""Recurrent layers: one layer, one direction, all time steps in one op.

The inputs' shares of the gates are one matrix product over all steps, and so are the gradients of both weights. What
remains in the recurrence is the product with the hidden state and the gates, one kernel for all steps. Its reverse sweep is
another one. Second derivatives are those of the same sweep written in elementary ops, step by step.
"""

from __future__ import annotations

import numpy as np

from ..dtypes import promote
from ..errors import ShapeError
from .creation import arange
from .elementwise import tanh, where
from .indexing import index
from .joining import concatenate, stack
from .linalg import matmul
from .movement import astype, expand_dims, floating, permute_view, reshape
from .network import linear
from .reduce import sum_ as sum_over
from .registry import Tensor, composite, differentiate, primitive, run_with


def _steps_before(first, states):
    """The states (T, B, H) that each step starts from: `first` (B, H), then all but the last."""
    if states.shape[0] == 1:
        return expand_dims(first, 0)
    return concatenate([expand_dims(first, 0), index(states, slice(None, -1))], 0)


def _weight_gradient(dz, before):
    """The sum over steps and rows of outer products: (T, B, G) and (T, B, H) -> (G, H)."""
    steps, batch, gates = dz.shape
    rows = reshape(dz, (steps * batch, gates))
    return matmul(run_with(permute_view, (rows,), axes=(1, 0)), reshape(before, (steps * batch, before.shape[2])))


def _one_dtype(*tensors):
    meet = floating(tensors[0]).dtype
    for t in tensors[1:]:
        meet = promote(meet, floating(t).dtype)
    return tuple(astype(t, meet) for t in tensors)


def _check_layer(name: str, gates: int, input, weight_ih, weight_hh, **states) -> None:
    """Shapes that fit, or a sentence."""
    if weight_hh.ndim != 2 or weight_hh.shape[0] != gates * weight_hh.shape[1]:
        raise ShapeError(f"{name}: weight_hh has shape {weight_hh.shape}, wanted ({gates} * hidden, hidden)")
    rows, hidden = weight_hh.shape
    if weight_ih.ndim != 2 or weight_ih.shape[0] != rows:
        raise ShapeError(
            f"{name}: weight_ih has shape {weight_ih.shape}, wanted ({rows}, inputs), as weight_hh has {rows} rows"
        )
    if input.ndim != 3 or input.shape[2] != weight_ih.shape[1]:
        raise ShapeError(f"{name}: input has shape {input.shape}, wanted (time, batch, {weight_ih.shape[1]})")
    if not input.shape[0]:
        raise ShapeError(f"{name}: input has shape {input.shape}; there must be one time step at least")
    for state, x in states.items():
        if x.shape != (input.shape[1], hidden):
            raise ShapeError(f"{name}: {state} has shape {x.shape}, wanted {(input.shape[1], hidden)} (batch, hidden)")


def _sigmoid(x):
    return np.exp(-np.logaddexp(0, -x))


# LSTM


@primitive(public=False, builder="lstm", outputs=3)
def lstm_kernel(x: Tensor, h0: Tensor, c0: Tensor, w: Tensor):
    """Hidden states, cell states and gates (T, B, 4 H) of all steps; x (T, B, 4 H) are the inputs' shares of the gates."""
    return (x, h0, c0, w), {}


@lstm_kernel.shape
def _(x, h0, c0, w):
    states = (x.shape[0], *h0.shape)
    return [(states, x.dtype), (states, x.dtype), (x.shape, x.dtype)]


@lstm_kernel.adjoint(None, saves=(1, 2, 3, "y"))
def _(g, y, x, h0, c0, w):
    hs, cs, gates = y
    given = tuple(part is not None for part in g)
    there = [part for part in g if part is not None]
    dz, dh, dc = lstm_slope(gates, cs, c0, w, *there, given=given)
    return dz, dh, dc, _weight_gradient(dz, _steps_before(h0, hs))


@primitive(public=False, outputs=3)
def lstm_slope(gates: Tensor, cs: Tensor, c0: Tensor, w: Tensor, *g, given):
    """The reverse sweep: gradients of the gates before their functions, of h0 and of c0.

    g: the gradients of the hidden states, of the cell states and of the gates; `given` says which of them there are.
    """
    return (gates, cs, c0, w, *g), {"given": given}


@lstm_slope.shape
def _(gates, cs, c0, w, *g, given):
    return [(gates.shape, gates.dtype), (c0.shape, c0.dtype), (c0.shape, c0.dtype)]


@lstm_slope.adjoint
def _(h, y, *inputs, given):
    return differentiate(lambda *xs: _lstm_slope(*xs, given=given), inputs, h)


def _lstm_slope(gates, cs, c0, w, *g, given):
    """What lstm_slope computes, in elementary ops."""
    there = iter(g)
    gh, gc, gz = (next(there) if is_there else None for is_there in given)
    n = c0.shape[1]
    dh, dc, made = None, None, []
    for t in reversed(range(gates.shape[0])):
        i, f, a, o = (gates[t, :, k * n : (k + 1) * n] for k in range(4))
        y = tanh(cs[t])
        dh = _plus(dh, None if gh is None else gh[t], c0)
        dc = _plus(dc, None if gc is None else gc[t], c0) + dh * o * (1.0 - y * y)
        before = cs[t - 1] if t else c0
        dz = concatenate(
            [
                dc * a * i * (1.0 - i),
                dc * before * f * (1.0 - f),
                dc * i * (1.0 - a * a),
                dh * y * o * (1.0 - o),
            ],
            1,
        )
        if gz is not None:
            slopes = concatenate([i * (1.0 - i), f * (1.0 - f), 1.0 - a * a, o * (1.0 - o)], 1)
            dz = dz + gz[t] * slopes
        made.append(dz)
        dh, dc = matmul(dz, w), dc * f
    return stack(made[::-1], 0), dh, dc


def _plus(a, b, like):
    """a + b, of which either may be None; zeros like `like` where both are."""
    if a is None or b is None:
        return like * 0.0 if a is None and b is None else a if b is None else b
    return a + b


def _lstm(x, h0, c0, w_ih, w_hh, bias=0.0):
    hs, cs = [h0], [c0]
    for row in x:
        i, f, a, o = np.split(row @ w_ih.T + hs[-1] @ w_hh.T + (0.0 if bias is None else bias), 4, 1)
        cs.append(_sigmoid(f) * cs[-1] + _sigmoid(i) * np.tanh(a))
        hs.append(_sigmoid(o) * np.tanh(cs[-1]))
    return np.array(hs[1:]).reshape(-1, *h0.shape), np.array(cs[1:]).reshape(-1, *h0.shape)


@composite(
    namespace="nn",
    reference=_lstm,
    samples=[
        dict(shapes=((3, 2, 3), (2, 2), (2, 2), (8, 3), (8, 2), (8,))),
        dict(shapes=((1, 3, 2), (3, 1), (3, 1), (4, 2), (4, 1))),
    ],
)
def lstm(input: Tensor, h0: Tensor, c0: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias=None):
    """The hidden and cell states (T, B, H) of a long short-term memory after each step (Hochreiter & Schmidhuber 1997).

    input (T, B, I); h0, c0 (B, H), the states to start from; weight_ih (4 H, I), weight_hh (4 H, H) and bias (4 H,) hold
    the input, forget, candidate and output gates.
    """
    _check_layer("lstm", 4, input, weight_ih, weight_hh, h0=h0, c0=c0)
    input, h0, c0, weight_ih, weight_hh = _one_dtype(input, h0, c0, weight_ih, weight_hh)
    hs, cs, _ = lstm_kernel(linear(input, weight_ih, bias), h0, c0, weight_hh)
    return hs, cs


# GRU


@primitive(public=False, builder="gru", outputs=3)
def gru_kernel(x: Tensor, h0: Tensor, w: Tensor, bias: Tensor):
    """Hidden states, gates (T, B, 3 H) and the candidate's share of the hidden state (T, B, H), with its bias (H,).

    x (T, B, 3 H) are the inputs' shares of the gates, the hidden state's biases of the other two gates included.
    """
    return (x, h0, w, bias), {}


@gru_kernel.shape
def _(x, h0, w, bias):
    states = (x.shape[0], *h0.shape)
    return [(states, x.dtype), (x.shape, x.dtype), (states, x.dtype)]


@gru_kernel.adjoint(None, saves=(1, 2, "y"))
def _(g, y, x, h0, w, bias):
    hs, gates, inner = y
    given = tuple(part is not None for part in g)
    there = [part for part in g if part is not None]
    dx, dq, dh = gru_slope(gates, inner, hs, h0, w, *there, given=given)
    n = h0.shape[1]
    return dx, dh, _weight_gradient(dq, _steps_before(h0, hs)), sum_over(index(dq, (..., slice(2 * n, None))), (0, 1))


@primitive(public=False, outputs=3)
def gru_slope(gates: Tensor, inner: Tensor, hs: Tensor, h0: Tensor, w: Tensor, *g, given):
    """The reverse sweep: gradients of x, of the product with w, and of h0.

    g: the gradients of the hidden states, of the gates and of `inner`; `given` says which of them there are.
    """
    return (gates, inner, hs, h0, w, *g), {"given": given}


@gru_slope.shape
def _(gates, inner, hs, h0, w, *g, given):
    return [(gates.shape, gates.dtype), (gates.shape, gates.dtype), (h0.shape, h0.dtype)]


@gru_slope.adjoint
def _(h, y, *inputs, given):
    return differentiate(lambda *xs: _gru_slope(*xs, given=given), inputs, h)


def _gru_slope(gates, inner, hs, h0, w, *g, given):
    """What gru_slope computes, in elementary ops."""
    there = iter(g)
    gh, gz, gi = (next(there) if is_there else None for is_there in given)
    n = h0.shape[1]
    dh, made_x, made_q = None, [], []
    for t in reversed(range(gates.shape[0])):
        r, z, a = (gates[t, :, k * n : (k + 1) * n] for k in range(3))
        gr, gu, ga = (None if gz is None else gz[t, :, k * n : (k + 1) * n] for k in range(3))
        dh = _plus(dh, None if gh is None else gh[t], h0)
        before = hs[t - 1] if t else h0
        da = _plus(dh * (1.0 - z), ga, h0) * (1.0 - a * a)
        du = _plus(dh * (before - a), gu, h0) * z * (1.0 - z)
        dr = _plus(da * inner[t], gr, h0) * r * (1.0 - r)
        di = _plus(da * r, None if gi is None else gi[t], h0)
        made_x.append(concatenate([dr, du, da], 1))
        made_q.append(concatenate([dr, du, di], 1))
        dh = dh * z + matmul(made_q[-1], w)
    return stack(made_x[::-1], 0), stack(made_q[::-1], 0), dh


def _gru(x, h0, w_ih, w_hh, b_ih=None, b_hh=None):
    n, hs = h0.shape[1], [h0]
    for row in x:
        share = row @ w_ih.T + (0.0 if b_ih is None else b_ih)
        inner = hs[-1] @ w_hh.T + (0.0 if b_hh is None else b_hh)
        r, z = np.split(_sigmoid(share[:, : 2 * n] + inner[:, : 2 * n]), 2, 1)
        a = np.tanh(share[:, 2 * n :] + r * inner[:, 2 * n :])
        hs.append((1 - z) * a + z * hs[-1])
    return np.array(hs[1:])


@composite(
    namespace="nn",
    reference=_gru,
    samples=[
        dict(shapes=((3, 2, 3), (2, 2), (6, 3), (6, 2), (6,), (6,))),
        dict(shapes=((1, 3, 2), (3, 1), (3, 2), (3, 1))),
    ],
)
def gru(input: Tensor, h0: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih=None, bias_hh=None):
    """The hidden states (T, B, H) of a gated recurrent unit after each step (Cho et al. 2014).

    input (T, B, I); h0 (B, H), the state to start from; weight_ih (3 H, I), weight_hh (3 H, H) and the biases (3 H,) hold
    the reset, update and candidate gates. The reset gate multiplies the hidden state's share of the candidate, its bias
    included, after the matrix product, as in PyTorch. Give both biases or neither.
    """
    _check_layer("gru", 3, input, weight_ih, weight_hh, h0=h0)
    if (bias_ih is None) != (bias_hh is None):
        raise ShapeError("gru: one bias came alone; give bias_ih and bias_hh, or neither")
    input, h0, weight_ih, weight_hh = _one_dtype(input, h0, weight_ih, weight_hh)
    n = h0.shape[1]
    if bias_hh is None:
        bias, inner = None, arange(n, device=weight_hh.device) * 0
    else:
        # the candidate's share of the hidden state, with its bias, is behind the reset gate
        bias = concatenate([bias_ih[: 2 * n] + bias_hh[: 2 * n], bias_ih[2 * n :]], 0)
        inner = bias_hh[2 * n :]
    return gru_kernel(linear(input, weight_ih, bias), h0, weight_hh, astype(inner, weight_hh.dtype))[0]


# RNN


@primitive(public=False, builder="rnn")
def rnn_kernel(x: Tensor, h0: Tensor, w: Tensor, relu):
    """Hidden states of all steps; x (T, B, H) are the inputs' shares."""
    return (x, h0, w), {"relu": relu}


@rnn_kernel.shape
def _(x, h0, w, relu):
    return x.shape, x.dtype


@rnn_kernel.adjoint(None, saves=(1, 2, "y"))
def _(g, y, x, h0, w, relu):
    dx, dh = rnn_slope(y, w, g, relu=relu)
    return dx, dh, _weight_gradient(dx, _steps_before(h0, y))


@primitive(public=False, outputs=2)
def rnn_slope(hs: Tensor, w: Tensor, g: Tensor, relu):
    """The reverse sweep: gradients of x and of h0."""
    return (hs, w, g), {"relu": relu}


@rnn_slope.shape
def _(hs, w, g, relu):
    return [(hs.shape, hs.dtype), (hs.shape[1:], hs.dtype)]


@rnn_slope.adjoint
def _(h, y, *inputs, relu):
    return differentiate(lambda hs, w, g: _rnn_slope(hs, w, g, relu), inputs, h)


def _rnn_slope(hs, w, g, relu):
    """What rnn_slope computes, in elementary ops."""
    dh, made = None, []
    for t in reversed(range(hs.shape[0])):
        dh = _plus(dh, g[t], hs)
        made.append(where(hs[t] <= 0.0, 0.0, dh) if relu else dh * (1.0 - hs[t] * hs[t]))
        dh = matmul(made[-1], w)
    return stack(made[::-1], 0), dh


def _rnn(x, h0, w_ih, w_hh, bias=None, nonlinearity="tanh"):
    hs = [h0]
    for row in x:
        y = row @ w_ih.T + hs[-1] @ w_hh.T + (0.0 if bias is None else bias)
        hs.append(np.tanh(y) if nonlinearity == "tanh" else np.maximum(y, 0))
    return np.array(hs[1:])


@composite(
    namespace="nn",
    reference=_rnn,
    samples=[
        dict(shapes=((3, 2, 3), (2, 2), (2, 3), (2, 2), (2,))),
        dict(shapes=((2, 2, 3), (2, 2), (2, 3), (2, 2)), domain=(0.2, 1.0), attrs=dict(nonlinearity="relu")),
    ],
)
def rnn(input: Tensor, h0: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias=None, nonlinearity="tanh"):
    """The hidden states (T, B, H) of h = f(input weight_ih.T + h weight_hh.T + bias) after each step (Elman 1990).

    input (T, B, I); h0 (B, H), the state to start from; weight_ih (H, I), weight_hh (H, H), bias (H,); nonlinearity is
    "tanh" or "relu".
    """
    _check_layer("rnn", 1, input, weight_ih, weight_hh, h0=h0)
    if nonlinearity not in ("tanh", "relu"):
        raise ShapeError(f'rnn: nonlinearity is "tanh" or "relu", not {nonlinearity!r}')
    input, h0, weight_ih, weight_hh = _one_dtype(input, h0, weight_ih, weight_hh)
    return rnn_kernel(linear(input, weight_ih, bias), h0, weight_hh, relu=nonlinearity == "relu")
