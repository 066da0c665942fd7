"""All time steps of an LSTM in one call, and its reverse sweep; how is told in `recurrent.py`.

Gates come in the order input, forget, candidate, output. Sources: Hochreiter & Schmidhuber 1997, Gers et al. 2000.
"""

from __future__ import annotations

from .conv import tile_rows
from .language import T, inline, lanes_of, offset
from .launch import kernel
from .recurrent import add_to, one_step, pack, pack_turned, places, product, sigmoid_gate, tanh_gate, tanh_of, zero
from .skeleton import skeleton


@skeleton(
    "x: *T, h0: *T, c0: *T, w: *T, hs: *T, cs: *T, gates: *T, panels: *T, steps: int, batch: int, n: int",
    unroll=False,
)
def lstm_forward(x, h0, c0, w, hs, cs, gates, panels, steps, batch, n, begin, end):
    """Rows begin..end of all steps. x (steps, batch, 4 n) are the inputs' shares of the gates, w is (4 n, n)."""
    width = 2 * lanes_of(w)
    pack_turned(panels, w, n, 4 * n, width)
    h, c = offset(h0, begin * n), offset(c0, begin * n)
    for t in range(steps):
        at = t * batch + begin
        product(h, panels, offset(gates, at * 4 * n), end - begin, n, 4 * n, width, 0)
        for b in range(at, at + end - begin):
            gate, share = offset(gates, b * 4 * n), offset(x, b * 4 * n)
            sigmoid_gate(gate, share, 2 * n)
            tanh_gate(offset(gate, 2 * n), offset(share, 2 * n), n)
            sigmoid_gate(offset(gate, 3 * n), offset(share, 3 * n), n)
            lstm_state(gate, offset(c, (b - at) * n), offset(cs, b * n), offset(hs, b * n), n)
        h, c = offset(hs, at * n), offset(cs, at * n)
    return 0


@inline
def lstm_state(gate, before, c, h, n):
    """c = f before + i g, h = o tanh(c)."""
    f, g, o = offset(gate, n), offset(gate, 2 * n), offset(gate, 3 * n)
    for j in range(n):
        c[j] = f[j] * before[j] + gate[j] * g[j]
    for j in range(n):
        h[j] = o[j] * tanh_of(c[j])


@skeleton(
    "gates: *T, cs: *T, c0: *T, w: *T, gh: *T, gc: *T, gz: *T, dz: *T, dh: *T, dc: *T, panels: *T, steps: int, "
    "batch: int, n: int, has_h: int, has_c: int, has_z: int",
    unroll=False,
)
def lstm_reverse(gates, cs, c0, w, gh, gc, gz, dz, dh, dc, panels, steps, batch, n, has_h, has_c, has_z, begin, end):
    """From gradients of hs, cs and the gates (those that there are) to dz, of the gates before their functions, and dh0, dc0."""
    width = 2 * lanes_of(w)
    count = end - begin
    pack(panels, w, 4 * n, n, width)
    dh, dc = offset(dh, begin * n), offset(dc, begin * n)
    zero(dh, count * n)
    zero(dc, count * n)
    for k in range(steps):
        t = steps - 1 - k
        at = t * batch + begin
        if has_h:
            add_to(dh, offset(gh, at * n), count * n)
        if has_c:
            add_to(dc, offset(gc, at * n), count * n)
        before = offset(c0, begin * n)
        if t > 0:
            before = offset(cs, (at - batch) * n)
        for b in range(count):
            gate, to = offset(gates, (at + b) * 4 * n), offset(dz, (at + b) * 4 * n)
            row = b * n
            lstm_slopes(gate, offset(cs, (at + b) * n), offset(before, row), offset(dh, row), offset(dc, row), to, n)
            if has_z:
                add_slopes(to, offset(gz, (at + b) * 4 * n), gate, n)
        product(offset(dz, at * 4 * n), panels, dh, count, 4 * n, n, width, 0)
    return 0


@inline
def lstm_slopes(gate, c, before, dh, dc, dz, n):
    """One row of one step: dz from dh and dc, which becomes the gradient of the state before."""
    f, g, o = offset(gate, n), offset(gate, 2 * n), offset(gate, 3 * n)
    for j in range(n):
        y = tanh_of(c[j])
        dc[j] += dh[j] * o[j] * (T(1) - y * y)
    d = offset(dz, 3 * n)
    for j in range(n):
        d[j] = dh[j] * tanh_of(c[j]) * o[j] * (T(1) - o[j])
    for j in range(n):
        dz[j] = dc[j] * g[j] * gate[j] * (T(1) - gate[j])
    d = offset(dz, 2 * n)
    for j in range(n):
        d[j] = dc[j] * gate[j] * (T(1) - g[j] * g[j])
    d = offset(dz, n)
    for j in range(n):
        d[j] = dc[j] * before[j] * f[j] * (T(1) - f[j])
    for j in range(n):
        dc[j] *= f[j]


@inline
def add_slopes(dz, g, gate, n):
    """dz += g times the gates' own slopes."""
    for j in range(2 * n):
        dz[j] += g[j] * gate[j] * (T(1) - gate[j])
    for j in range(2 * n, 3 * n):
        dz[j] += g[j] * (T(1) - gate[j] * gate[j])
    for j in range(3 * n, 4 * n):
        dz[j] += g[j] * gate[j] * (T(1) - gate[j])


@kernel("lstm", sure=True)
def _(ins, outs, attrs):
    w = ins[3]
    return one_step(lstm_forward.address(T=w.dtype, R=tile_rows()), (0, 1, 2, 3, 4, 5, 6), outs[0], w)


@kernel("lstm_slope", sure=True)
def _(ins, outs, attrs):
    w, given, n = ins[3], attrs["given"], len(ins)
    code = lstm_reverse.address(T=w.dtype, R=tile_rows())
    return one_step(code, (0, 1, 2, 3, *places(4, given), n, n + 1, n + 2), ins[1], w, given)
