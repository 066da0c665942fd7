"""Recurrent layers: all time steps of a plain RNN in one call, its reverse sweep, and what LSTM and GRU share with it.

Each step multiplies the few rows of the hidden state with the same matrix. BLAS would pack that matrix again at every step
(16 x 128 x 512: 30-36 us, of which 10 are arithmetic); here it is packed once a call into panels as wide as the register
tile of `tiles.py`, and read from there at all steps. Rows of the batch know nothing of each other: threads share them.

Loops over hidden units are kept short, because LLVM vectorises loops only where it can check in a few comparisons that
their arrays do not overlap.

Source of the plain RNN: Elman 1990.
"""

from __future__ import annotations

from ..layouts import Layout
from .conv import tile_rows
from .jit import HOST
from .language import T, TypeVar, fast_exp, inline, lanes_of, offset, tile
from .launch import Step, kernel
from .skeleton import skeleton

R = TypeVar("R")  # rows of the register tile
RELU = TypeVar("RELU")  # 1: an RNN of max(x, 0), else of tanh
GRAIN_FLOPS = 4_000_000  # packing the matrix costs each thread some 30 us


@inline
def sigmoid_of(x):
    """1 / (1 + exp(-x)); 0 where exp overflows."""
    return T(1) / (T(1) + fast_exp(-x))


@inline
def tanh_of(x):
    """tanh, to a few ulp also near 0: -e / (2 + e) with e = exp(-2 |x|) - 1, a series where that would cancel."""
    u = T(-2) * abs(x)
    s = T(1.0 / 15)
    s = (T(1) + u * s) * T(1.0 / 14)
    s = (T(1) + u * s) * T(1.0 / 13)
    s = (T(1) + u * s) * T(1.0 / 12)
    s = (T(1) + u * s) * T(1.0 / 11)
    s = (T(1) + u * s) * T(1.0 / 10)
    s = (T(1) + u * s) * T(1.0 / 9)
    s = (T(1) + u * s) * T(1.0 / 8)
    s = (T(1) + u * s) * T(1.0 / 7)
    s = (T(1) + u * s) * T(1.0 / 6)
    s = (T(1) + u * s) * T(1.0 / 5)
    s = (T(1) + u * s) * T(1.0 / 4)
    s = (T(1) + u * s) * T(1.0 / 3)
    s = (T(1) + u * s) * T(1.0 / 2)
    s = T(1) + u * s
    e = s * u if u > T(-0.5) else fast_exp(u) - T(1)  # the series ends where its rest is below 2**-53
    y = -e / (T(2) + e)
    return y if x > T(0) else -y


@inline
def pack(panels, w, rows, columns, width):
    """w (rows, columns) as panels of `width` columns, each of them rows x width."""
    for first in range(0, columns, width):
        wide = min(width, columns - first)
        for k in range(rows):
            source, to = offset(w, k * columns + first), offset(panels, first * rows + k * width)
            for j in range(wide):
                to[j] = source[j]


@inline
def pack_turned(panels, w, rows, columns, width):
    """The transpose of w (columns, rows) as such panels."""
    for first in range(0, columns, width):
        wide = min(width, columns - first)
        for j in range(wide):
            source, to = offset(w, (first + j) * rows), offset(panels, first * rows + j)
            for k in range(rows):
                to[k * width] = source[k]


@inline
def product(a, panels, c, count, inner, columns, width, more):
    """c (count, columns) = a (count, inner) @ the packed matrix, added to what is there where `more` is 1."""
    for first in range(0, columns, width):
        b = offset(panels, first * inner)
        rest = columns - first
        o = 0
        while o + R <= count:
            to = offset(c, o * columns + first)
            tile(R, 2, offset(a, o * inner), inner, 1, b, width, to, columns, inner, rest, more)
            o += R
        while o + 2 <= count:
            to = offset(c, o * columns + first)
            tile(2, 2, offset(a, o * inner), inner, 1, b, width, to, columns, inner, rest, more)
            o += 2
        if o < count:
            tile(
                1,
                2,
                offset(a, o * inner),
                inner,
                1,
                b,
                width,
                offset(c, o * columns + first),
                columns,
                inner,
                rest,
                more,
            )


@inline
def add_to(total, x, n):
    """total += x."""
    for j in range(n):
        total[j] += x[j]


@inline
def zero(x, n):
    """x = 0."""
    for j in range(n):
        x[j] = T(0)


@inline
def sigmoid_gate(gate, x, n):
    """gate = sigmoid(gate + x)."""
    for j in range(n):
        gate[j] = sigmoid_of(gate[j] + x[j])


@inline
def tanh_gate(gate, x, n):
    """gate = tanh(gate + x)."""
    for j in range(n):
        gate[j] = tanh_of(gate[j] + x[j])


def one_step(
    code: int, operands: tuple[int, ...], states: Layout, w: Layout, more: tuple[bool, ...] = ()
) -> tuple[Step]:
    """One step over the rows of the batch, with room for the packed matrix. states: (steps, batch, hidden)."""
    width = 2 * HOST.vector_bits // (8 * w.dtype.itemsize)
    rows, columns = w.shape  # packed as (rows, columns) or turned; either axis may be the one that is padded
    padded = max(rows * -(-columns // width) * width, columns * -(-rows // width) * width)
    steps, batch, n = states.shape
    grain = max(1, -(-GRAIN_FLOPS // max(2 * steps * w.size, 1)))
    static = (steps, batch, n, *map(int, more))
    return (Step(code, operands, static, batch, grain if 2 * grain <= batch else 0, padded * w.dtype.itemsize, 1),)


def places(first: int, given: tuple[bool, ...]) -> tuple[int, ...]:
    """The operands that optional gradients are, from `first` on; the first operand of all where one is not given: not read."""
    return tuple(first + sum(given[:i]) if there else 0 for i, there in enumerate(given))


# RNN


@skeleton("x: *T, h0: *T, w: *T, hs: *T, panels: *T, steps: int, batch: int, n: int", unroll=False)
def rnn_forward(x, h0, w, hs, panels, steps, batch, n, begin, end):
    """hs[t] = f(x[t] + hs[t - 1] w.T) for the rows begin..end; f is tanh or max(., 0)."""
    width = 2 * lanes_of(w)
    pack_turned(panels, w, n, n, width)
    h = offset(h0, begin * n)
    for t in range(steps):
        at = (t * batch + begin) * n
        to, share = offset(hs, at), offset(x, at)
        product(h, panels, to, end - begin, n, n, width, 0)
        if RELU:
            for j in range((end - begin) * n):
                y = to[j] + share[j]
                to[j] = T(0) if y <= T(0) else y
        else:
            tanh_gate(to, share, (end - begin) * n)
        h = to
    return 0


@skeleton("hs: *T, w: *T, gh: *T, dx: *T, dh: *T, panels: *T, steps: int, batch: int, n: int", unroll=False)
def rnn_reverse(hs, w, gh, dx, dh, panels, steps, batch, n, begin, end):
    """From the gradient of hs to dx, of x, and dh0."""
    width = 2 * lanes_of(w)
    count = (end - begin) * n
    pack(panels, w, n, n, width)
    dh = offset(dh, begin * n)
    zero(dh, count)
    for k in range(steps):
        at = ((steps - 1 - k) * batch + begin) * n
        add_to(dh, offset(gh, at), count)
        y, to = offset(hs, at), offset(dx, at)
        if RELU:
            for j in range(count):
                to[j] = T(0) if y[j] <= T(0) else dh[j]
        else:
            for j in range(count):
                to[j] = dh[j] * (T(1) - y[j] * y[j])
        product(to, panels, dh, end - begin, n, n, width, 0)
    return 0


@kernel("rnn", sure=True)
def _(ins, outs, attrs):
    w = ins[2]
    code = rnn_forward.address(T=w.dtype, R=tile_rows(), RELU=int(attrs["relu"]))
    return one_step(code, (0, 1, 2, 3), outs[0], w)


@kernel("rnn_slope", sure=True)
def _(ins, outs, attrs):
    w = ins[1]
    code = rnn_reverse.address(T=w.dtype, R=tile_rows(), RELU=int(attrs["relu"]))
    return one_step(code, (0, 1, 2, 3, 4), ins[0], w)
