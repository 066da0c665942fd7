"""All time steps of a recurrent layer in one launch, and its reverse sweep. A block of threads has a row of the batch.

Before a forward sweep the weight is copied transposed, so that neighbouring threads, which have neighbouring gates, read
neighbouring elements. Gates and sources are those of `kernels/lstm.py`, `gru.py` and `recurrent.py`.
"""

from __future__ import annotations

from typing import Any

from ...layouts import Layout, layout
from ..recurrent import places as places_of
from .elementwise import work
from .movement import COPY
from .names import T, cuda, exp, int64, tanh
from .template import MACHINE, Launch, Steps, Template, Work, cuda_kernel, inline, template

RELU: bool = False  # bound
SIZES = "steps: int, batch: int, n: int"


@inline
def sigmoid(x):
    e = exp(-abs(x))
    return (T(1) if x >= 0 else e) / (T(1) + e)


@inline
def dot(a, a_start, b, b_start, b_step, n):
    """The sum of a[a_start + k] b[b_start + k b_step] for k < n."""
    total = T(0)
    for k in range(n):
        total += a[a_start + k] * b[b_start + k * b_step]
    return total


@inline
def through_time(x, first, states, wt, t, b, batch, n, gates, j):
    """Gate j before its function: its share of the input and of the state before."""
    return x[(t * batch + b) * gates + j] + of_state(first, states, wt, t, b, batch, n, gates, j)


@inline
def of_state(first, states, wt, t, b, batch, n, gates, j):
    """Gate j's share of the state before step t."""
    if t == 0:
        share = dot(first, b * n, wt, j, gates, n)
    else:
        share = dot(states, ((t - 1) * batch + b) * n, wt, j, gates, n)
    return share


@template(f"x: *T, h0: *T, c0: *T, wt: *T, hs: *T, cs: *T, gates: *T, {SIZES}")
def lstm_forward(x, h0, c0, wt, hs, cs, gates, steps, batch, n):
    b = int64(cuda.blockIdx.x)
    while b < batch:
        for t in range(steps):
            row = t * batch + b
            j = int64(cuda.threadIdx.x)
            while j < 4 * n:
                z = through_time(x, h0, hs, wt, t, b, batch, n, 4 * n, j)
                gates[row * 4 * n + j] = tanh(z) if j >= 2 * n and j < 3 * n else sigmoid(z)
                j += cuda.blockDim.x
            cuda.syncthreads()
            j = int64(cuda.threadIdx.x)
            while j < n:
                gate = row * 4 * n + j
                before = c0[b * n + j] if t == 0 else cs[(row - batch) * n + j]
                c = gates[gate + n] * before + gates[gate] * gates[gate + 2 * n]
                cs[row * n + j] = c
                hs[row * n + j] = gates[gate + 3 * n] * tanh(c)
                j += cuda.blockDim.x
            cuda.syncthreads()
        b += cuda.gridDim.x


@template(
    "gates: *T, cs: *T, c0: *T, w: *T, gh: *T, gc: *T, gz: *T, dz: *T, dh: *T, dc: *T,"
    f"{SIZES}, has_h: int, has_c: int, has_z: int"
)
def lstm_reverse(gates, cs, c0, w, gh, gc, gz, dz, dh, dc, steps, batch, n, has_h, has_c, has_z):
    """From gradients of hs, cs and the gates (those that there are) to dz, of the gates before their functions, dh0, dc0."""
    b = int64(cuda.blockIdx.x)
    while b < batch:
        for k in range(steps):
            t = steps - 1 - k
            row = t * batch + b
            j = int64(cuda.threadIdx.x)
            while j < n:
                e = row * n + j
                at = row * 4 * n + j
                own = b * n + j
                i, f, g, o = gates[at], gates[at + n], gates[at + 2 * n], gates[at + 3 * n]
                of_h = dh[own] if k > 0 else T(0)
                of_c = dc[own] if k > 0 else T(0)
                if has_h:
                    of_h += gh[e]
                if has_c:
                    of_c += gc[e]
                y = tanh(cs[e])
                of_c += of_h * o * (T(1) - y * y)
                before = c0[own] if t == 0 else cs[e - batch * n]
                upon_i, upon_f, upon_g, upon_o = of_c * g, of_c * before, of_c * i, of_h * y
                if has_z:
                    upon_i += gz[at]
                    upon_f += gz[at + n]
                    upon_g += gz[at + 2 * n]
                    upon_o += gz[at + 3 * n]
                dz[at] = upon_i * i * (T(1) - i)
                dz[at + n] = upon_f * f * (T(1) - f)
                dz[at + 2 * n] = upon_g * (T(1) - g * g)
                dz[at + 3 * n] = upon_o * o * (T(1) - o)
                dc[own] = of_c * f
                j += cuda.blockDim.x
            cuda.syncthreads()
            j = int64(cuda.threadIdx.x)
            while j < n:
                dh[b * n + j] = dot(dz, row * 4 * n, w, j, n, 4 * n)
                j += cuda.blockDim.x
            cuda.syncthreads()
        b += cuda.gridDim.x


@template(f"x: *T, h0: *T, wt: *T, bias: *T, hs: *T, gates: *T, inner: *T, {SIZES}")
def gru_forward(x, h0, wt, bias, hs, gates, inner, steps, batch, n):
    b = int64(cuda.blockIdx.x)
    while b < batch:
        for t in range(steps):
            row = t * batch + b
            j = int64(cuda.threadIdx.x)
            while j < 3 * n:
                at = row * 3 * n + j
                if j < 2 * n:
                    gates[at] = sigmoid(through_time(x, h0, hs, wt, t, b, batch, n, 3 * n, j))
                else:
                    inner[row * n + j - 2 * n] = bias[j - 2 * n] + of_state(h0, hs, wt, t, b, batch, n, 3 * n, j)
                j += cuda.blockDim.x
            cuda.syncthreads()
            j = int64(cuda.threadIdx.x)
            while j < n:
                at = row * 3 * n + j
                a = tanh(x[at + 2 * n] + gates[at] * inner[row * n + j])
                before = h0[b * n + j] if t == 0 else hs[(row - batch) * n + j]
                gates[at + 2 * n] = a
                hs[row * n + j] = a + gates[at + n] * (before - a)
                j += cuda.blockDim.x
            cuda.syncthreads()
        b += cuda.gridDim.x


@template(
    "gates: *T, inner: *T, hs: *T, h0: *T, w: *T, gh: *T, gz: *T, gi: *T, dx: *T, dq: *T, dh: *T,"
    f"{SIZES}, has_h: int, has_z: int, has_i: int"
)
def gru_reverse(gates, inner, hs, h0, w, gh, gz, gi, dx, dq, dh, steps, batch, n, has_h, has_z, has_i):
    """From gradients of hs, the gates and inner (those that there are) to dx, of x, dq, of h w.T + bias, and dh0."""
    b = int64(cuda.blockIdx.x)
    while b < batch:
        for k in range(steps):
            t = steps - 1 - k
            row = t * batch + b
            j = int64(cuda.threadIdx.x)
            while j < n:
                e = row * n + j
                at = row * 3 * n + j
                own = b * n + j
                r, z, a = gates[at], gates[at + n], gates[at + 2 * n]
                of_h = dh[own] if k > 0 else T(0)
                if has_h:
                    of_h += gh[e]
                before = h0[own] if t == 0 else hs[e - batch * n]
                upon_a, upon_z, upon_r = of_h * (T(1) - z), of_h * (before - a), T(0)
                if has_z:
                    upon_r += gz[at]
                    upon_z += gz[at + n]
                    upon_a += gz[at + 2 * n]
                da = upon_a * (T(1) - a * a)
                dr = (da * inner[e] + upon_r) * r * (T(1) - r)
                du = upon_z * z * (T(1) - z)
                dx[at] = dq[at] = dr
                dx[at + n] = dq[at + n] = du
                dx[at + 2 * n] = da
                of_inner = da * r
                if has_i:
                    of_inner += gi[e]
                dq[at + 2 * n] = of_inner
                dh[own] = of_h * z
                j += cuda.blockDim.x
            cuda.syncthreads()
            j = int64(cuda.threadIdx.x)
            while j < n:
                dh[b * n + j] += dot(dq, row * 3 * n, w, j, n, 3 * n)
                j += cuda.blockDim.x
            cuda.syncthreads()
        b += cuda.gridDim.x


@template(f"x: *T, h0: *T, wt: *T, hs: *T, {SIZES}")
def rnn_forward(x, h0, wt, hs, steps, batch, n):
    """hs[t] = f(x[t] + hs[t - 1] w.T); f is tanh or max(., 0)."""
    b = int64(cuda.blockIdx.x)
    while b < batch:
        for t in range(steps):
            j = int64(cuda.threadIdx.x)
            while j < n:
                z = through_time(x, h0, hs, wt, t, b, batch, n, n, j)
                if RELU:
                    hs[(t * batch + b) * n + j] = T(0) if z <= 0 else z
                else:
                    hs[(t * batch + b) * n + j] = tanh(z)
                j += cuda.blockDim.x
            cuda.syncthreads()
        b += cuda.gridDim.x


@template(f"hs: *T, w: *T, gh: *T, dx: *T, dh: *T, {SIZES}")
def rnn_reverse(hs, w, gh, dx, dh, steps, batch, n):
    """From the gradient of hs to dx, of x, and dh0."""
    b = int64(cuda.blockIdx.x)
    while b < batch:
        for k in range(steps):
            row = (steps - 1 - k) * batch + b
            j = int64(cuda.threadIdx.x)
            while j < n:
                of_h = gh[row * n + j] + (dh[b * n + j] if k > 0 else T(0))
                y = hs[row * n + j]
                if RELU:
                    dx[row * n + j] = T(0) if y <= 0 else of_h
                else:
                    dx[row * n + j] = of_h * (T(1) - y * y)
                j += cuda.blockDim.x
            cuda.syncthreads()
            j = int64(cuda.threadIdx.x)
            while j < n:
                dh[b * n + j] = dot(dx, row * n, w, j, n, n)
                j += cuda.blockDim.x
            cuda.syncthreads()
        b += cuda.gridDim.x


def sweep(body: Template, places, states: Layout, w: Layout, given: tuple[bool, ...] = (), **bound: Any) -> Launch:
    """A launch with a block for each row of the batch. states: (steps, batch, hidden)."""
    steps, batch, n = states.shape
    kernel = body.bind(T=w.dtype, **bound)
    return Launch(
        kernel, max(1, min(batch, MACHINE.blocks)), MACHINE.block, places, (steps, batch, n, *map(int, given))
    )


def forward(body: Template, ins, outs, weight: int, **bound: Any) -> Work:
    """The launches of a forward sweep, whose weight is input number `weight`."""
    w = ins[weight]
    rows, columns = w.shape
    steps = Steps(ins, outs)
    place = steps.temporary(w.nbytes)
    turned = layout((columns, rows), w.dtype, (w.strides[1], w.strides[0]), w.device)
    plain = layout((columns, rows), w.dtype, None, w.device)
    steps.add(*work(COPY, (turned,), (plain,), (weight, place)).launches)
    operands = [place if i == weight else i for i in range(len(ins) + len(outs))]
    steps.add(sweep(body, tuple(operands), outs[0], w, **bound))
    return steps.work()


@cuda_kernel("lstm")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    return forward(lstm_forward, ins, outs, 3)


@cuda_kernel("lstm_slope")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    given, n = attrs["given"], len(ins)
    operands = (0, 1, 2, 3, *places_of(4, given), n, n + 1, n + 2)
    return Work((sweep(lstm_reverse, operands, ins[1], ins[3], given),))


@cuda_kernel("gru")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    return forward(gru_forward, ins, outs, 2)


@cuda_kernel("gru_slope")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    given, n = attrs["given"], len(ins)
    operands = (0, 1, 2, 3, 4, *places_of(5, given), n, n + 1, n + 2)
    return Work((sweep(gru_reverse, operands, ins[2], ins[4], given),))


@cuda_kernel("rnn")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    return forward(rnn_forward, ins, outs, 2, RELU=bool(attrs["relu"]))


@cuda_kernel("rnn_slope")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    return Work((sweep(rnn_reverse, (0, 1, 2, 3, 4), ins[0], ins[1], RELU=bool(attrs["relu"])),))
