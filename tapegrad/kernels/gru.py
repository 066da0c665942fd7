"""All time steps of a GRU in one call, and its reverse sweep; how is told in `recurrent.py`.

Gates come in the order reset, update, candidate. Source: Cho et al. 2014, in the variant whose reset gate comes after the
matrix product, as in cuDNN and PyTorch.
"""

from __future__ import annotations

from .conv import tile_rows
from .language import T, inline, lanes_of, offset
from .launch import kernel
from .recurrent import add_to, one_step, pack, pack_turned, places, product, sigmoid_gate, tanh_of, zero
from .skeleton import skeleton


@skeleton(
    "x: *T, h0: *T, w: *T, bias: *T, hs: *T, gates: *T, inner: *T, panels: *T, steps: int, batch: int, n: int",
    unroll=False,
)
def gru_forward(x, h0, w, bias, hs, gates, inner, panels, steps, batch, n, begin, end):
    """Rows begin..end of all steps. x (steps, batch, 3 n) are the inputs' shares of the gates, w is (3 n, n).

    `inner` gets the candidate's share of the hidden state, its bias (n) included, before the reset gate.
    """
    width = 2 * lanes_of(w)
    pack_turned(panels, w, n, 3 * n, width)
    h = offset(h0, begin * n)
    for t in range(steps):
        at = t * batch + begin
        product(h, panels, offset(gates, at * 3 * n), end - begin, n, 3 * n, width, 0)
        for b in range(at, at + end - begin):
            gate, share, share_h = offset(gates, b * 3 * n), offset(x, b * 3 * n), offset(inner, b * n)
            sigmoid_gate(gate, share, 2 * n)
            gru_state(gate, offset(share, 2 * n), share_h, bias, offset(h, (b - at) * n), offset(hs, b * n), n)
        h = offset(hs, at * n)
    return 0


@inline
def gru_state(gate, x, inner, bias, before, h, n):
    """The candidate a = tanh(x + r (w h + bias)), then h = a + z (before - a)."""
    z, a = offset(gate, n), offset(gate, 2 * n)
    for j in range(n):
        inner[j] = a[j] + bias[j]
    for j in range(n):
        a[j] = tanh_of(x[j] + gate[j] * inner[j])
    for j in range(n):
        h[j] = a[j] + z[j] * (before[j] - a[j])


@skeleton(
    "gates: *T, inner: *T, hs: *T, h0: *T, w: *T, gh: *T, gz: *T, gi: *T, dx: *T, dq: *T, dh: *T, panels: *T, "
    "steps: int, batch: int, n: int, has_h: int, has_z: int, has_i: int",
    unroll=False,
)
def gru_reverse(
    gates, inner, hs, h0, w, gh, gz, gi, dx, dq, dh, panels, steps, batch, n, has_h, has_z, has_i, begin, end
):
    """From gradients of hs, the gates and inner (those that there are) to dx, of x, dq, of h w.T + bias, and dh0."""
    width = 2 * lanes_of(w)
    count = end - begin
    pack(panels, w, 3 * n, n, width)
    dh = offset(dh, begin * n)
    zero(dh, count * n)
    for k in range(steps):
        t = steps - 1 - k
        at = t * batch + begin
        if has_h:
            add_to(dh, offset(gh, at * n), count * n)
        before = offset(h0, begin * n)
        if t > 0:
            before = offset(hs, (at - batch) * n)
        for b in range(count):
            gate, at_x, at_q = (
                offset(gates, (at + b) * 3 * n),
                offset(dx, (at + b) * 3 * n),
                offset(dq, (at + b) * 3 * n),
            )
            row = b * n
            gru_slopes(gate, offset(before, row), offset(dh, row), at_x, n)
            if has_z:
                add_gru_slopes(at_x, offset(gz, (at + b) * 3 * n), gate, n)
            gru_inner_slopes(gate, offset(inner, (at + b) * n), at_x, at_q, n)
            if has_i:
                add_to(offset(at_q, 2 * n), offset(gi, (at + b) * n), n)
        product(offset(dq, at * 3 * n), panels, dh, count, 3 * n, n, width, 1)
    return 0


@inline
def gru_slopes(gate, before, dh, dx, n):
    """One row: the update gate's and the candidate's gradients from dh, which becomes its share of the state before.

    The reset gate's gradient is 0 as yet.
    """
    z, a = offset(gate, n), offset(gate, 2 * n)
    d = offset(dx, 2 * n)
    for j in range(n):
        d[j] = dh[j] * (T(1) - z[j]) * (T(1) - a[j] * a[j])
    d = offset(dx, n)
    for j in range(n):
        d[j] = dh[j] * (before[j] - a[j]) * z[j] * (T(1) - z[j])
    for j in range(n):
        dh[j] *= z[j]
    zero(dx, n)


@inline
def add_gru_slopes(dx, g, gate, n):
    """Add the gates' own gradients."""
    for j in range(2 * n):
        dx[j] += g[j] * gate[j] * (T(1) - gate[j])
    for j in range(2 * n, 3 * n):
        dx[j] += g[j] * (T(1) - gate[j] * gate[j])


@inline
def gru_inner_slopes(gate, inner, dx, dq, n):
    """The reset gate's gradient, and all three as the hidden state's share has them."""
    d, e = offset(dx, 2 * n), offset(dq, 2 * n)
    for j in range(n):
        e[j] = d[j] * gate[j]
    for j in range(n):
        dx[j] += d[j] * inner[j] * gate[j] * (T(1) - gate[j])
    for j in range(2 * n):
        dq[j] = dx[j]


@kernel("gru", sure=True)
def _(ins, outs, attrs):
    w = ins[2]
    return one_step(gru_forward.address(T=w.dtype, R=tile_rows()), (0, 1, 2, 3, 4, 5, 6), outs[0], w)


@kernel("gru_slope", sure=True)
def _(ins, outs, attrs):
    w, given, n = ins[4], attrs["given"], len(ins)
    code = gru_reverse.address(T=w.dtype, R=tile_rows())
    return one_step(code, (0, 1, 2, 3, 4, *places(5, given), n, n + 1, n + 2), ins[2], w, given)
