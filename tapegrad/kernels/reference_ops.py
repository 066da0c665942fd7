"""What each primitive computes, as a NumPy function under the name of its kernel builder.

A function gets the inputs (float64, int64 or bool arrays), the layouts of the outputs and the op's attributes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from ..errors import IndexOutOfRange, KernelError
from .status import INDEX, NOT_POSITIVE_DEFINITE, SENTENCES, SINGULAR

FUNCTIONS: dict[str, Callable] = {}


def reference(fn: Callable) -> Callable:
    FUNCTIONS[fn.__name__.rstrip("_")] = fn
    return fn


# reductions


def _reduction(fn: Callable) -> Callable:
    return lambda x, outs, axes, keepdims: fn(x, axis=axes, keepdims=keepdims)


FUNCTIONS["sum"] = _reduction(np.sum)
FUNCTIONS["prod"] = _reduction(np.prod)
FUNCTIONS["max"] = _reduction(np.max)
FUNCTIONS["min"] = _reduction(np.min)
FUNCTIONS["any"] = _reduction(np.any)
FUNCTIONS["all"] = _reduction(np.all)


@reference
def logsumexp(x, outs, axes, keepdims):
    return (
        np.logaddexp.reduce(x, axis=axes, keepdims=keepdims, initial=-np.inf)
        if x.size == 0
        else _logsumexp(x, axes, keepdims)
    )


def _logsumexp(x, axes, keepdims):
    peak = np.max(x, axis=axes, keepdims=True)
    safe = np.where(np.isfinite(peak), peak, 0.0)
    total = np.log(np.sum(np.exp(x - safe), axis=axes, keepdims=True)) + safe
    return total if keepdims else np.squeeze(total, axes)


@reference
def argmax(x, outs, axis, keepdims):
    return np.argmax(x, axis, keepdims=keepdims)


@reference
def argmin(x, outs, axis, keepdims):
    return np.argmin(x, axis, keepdims=keepdims)


@reference
def cumsum(x, outs, axis):
    return np.cumsum(x, axis)


# movement and creation


@reference
def full(value, outs, shape):
    return np.full(shape, value)


@reference
def arange(start, step, outs, count):
    return start + np.arange(count) * step


@reference
def tri(outs, rows, columns, k, device):
    return np.tri(rows, columns, k, dtype=bool)


@reference
def embed(x, outs, shape, starts, steps):
    y = np.zeros(shape, x.dtype)
    y[np.ix_(*(a + np.arange(n) * t for a, n, t in zip(starts, x.shape, steps, strict=True)))] = x
    return y


@reference
def concatenate(*xs, outs, axis):
    return np.concatenate(xs, axis)


@reference
def pad(x, value, outs, pads):
    y = np.full(outs[0].shape, value)
    y[tuple(slice(a, a + n) for (a, _), n in zip(pads, x.shape, strict=True))] = x
    return y


# indexing


def _wrapped(indices: np.ndarray, n: int) -> np.ndarray:
    if np.any((indices < -n) | (indices >= n)):
        raise IndexOutOfRange(SENTENCES[INDEX])
    return np.where(indices < 0, indices + n, indices)


def _grid(indices: np.ndarray, axis: int) -> tuple[np.ndarray, ...]:
    """Index arrays of every axis, with `indices` along one of them."""
    grid: list[np.ndarray] = list(np.indices(indices.shape))
    grid[axis] = indices
    return tuple(grid)


@reference
def take(x, indices, outs, axis):
    return np.take(x, _wrapped(indices, x.shape[axis]), axis)


@reference
def index_add(values, indices, outs, axis, size):
    y = np.zeros(outs[0].shape, values.dtype)
    flat = values.reshape(*values.shape[:axis], -1, *values.shape[axis + indices.ndim :]) if values.size else values
    if values.size:
        np.add.at(np.moveaxis(y, axis, 0), _wrapped(indices, size).ravel(), np.moveaxis(flat, axis, 0))
    return y


@reference
def take_along_axis(x, indices, outs, axis):
    return x[_grid(_wrapped(indices, x.shape[axis]), axis)]


@reference
def scatter_add(values, indices, outs, axis, size):
    y = np.zeros(outs[0].shape, values.dtype)
    np.add.at(y, _grid(_wrapped(indices, size), axis), values)
    return y


@reference
def argsort(x, outs, axis, descending):
    return np.argsort((-x if x.dtype.kind != "b" else ~x) if descending else x, axis, stable=True)


@reference
def nonzero_flat(mask, outs):
    found = np.flatnonzero(mask)
    return np.pad(found, (0, mask.size - found.size)), np.array([found.size])


# linear algebra


def _solved(fn: Callable, *xs):
    try:
        return fn(*xs)
    except np.linalg.LinAlgError:
        status = NOT_POSITIVE_DEFINITE if fn is np.linalg.cholesky else SINGULAR
        raise KernelError(SENTENCES[status]) from None


@reference
def matmul(a, b, outs, turned=False, order=None):
    y = np.matmul(a, np.swapaxes(b, -1, -2) if turned else b)
    return y if order is None else np.transpose(y, order)


@reference
def solve(a, b, outs):
    return _solved(np.linalg.solve, a, b)


@reference
def triangular_solve(a, b, outs, lower, transpose):
    a = np.tril(a) if lower else np.triu(a)
    return _solved(np.linalg.solve, np.swapaxes(a, -1, -2) if transpose else a, b)


@reference
def slogdet(a, outs):
    return tuple(np.linalg.slogdet(a))


@reference
def cholesky(a, outs):
    return _solved(np.linalg.cholesky, a)


# networks


@reference
def softmax(x, outs, axis):
    return np.exp(log_softmax(x, outs, axis))


@reference
def log_softmax(x, outs, axis):
    return x - _logsumexp(x, (axis,), True) if x.size else x


@reference
def softmax_slope(g, y, outs, axis):
    return y * (g - np.sum(g * y, axis, keepdims=True))


@reference
def log_softmax_slope(g, y, outs, axis):
    return g - np.exp(y) * np.sum(g, axis, keepdims=True)


@reference
def cross_entropy(logits, target, outs, ignore_index):
    counted = target != ignore_index
    at = np.where(counted, target, 0)
    if np.any((at < 0) | (at >= logits.shape[1])):
        raise IndexOutOfRange(SENTENCES[INDEX])
    losses = -np.take_along_axis(log_softmax(logits, outs, 1), at[:, None], 1)[:, 0]
    return np.where(counted, losses, 0.0)


@reference
def cross_entropy_slope(logits, target, g, outs, ignore_index):
    share = np.exp(log_softmax(logits, outs, 1)) - (target[:, None] == np.arange(logits.shape[1]))
    return np.where(target[:, None] != ignore_index, g[:, None] * share, 0.0)


def _windows(size, kernel, stride, dilation=(1, 1)) -> Iterator[tuple[int, int, tuple]]:
    """For each place (i, j) in a window: the padded image's elements that it meets, one for each of `size` windows."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = i * dilation[0] + stride[0] * np.arange(size[0])
            columns = j * dilation[1] + stride[1] * np.arange(size[1])
            yield i, j, (..., rows[:, None], columns[None, :])


def _padded(x, padding, value=0.0):
    return np.pad(x, ((0, 0), (0, 0), *padding), constant_values=value)


def _cut(x, padding):
    """x without its padding."""
    (top, bottom), (left, right) = padding
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def _grouped(x, groups: int, axis: int):
    return x.reshape(*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1 :])


@reference
def conv2d(x, w, outs, stride, padding, dilation, groups):
    shape = outs[0].shape
    x, w = _grouped(_padded(x, padding), groups, 1), _grouped(w, groups, 0)
    y = sum(
        np.einsum("ngchw,goc->ngohw", x[at], w[..., i, j])
        for i, j, at in _windows(shape[2:], w.shape[-2:], stride, dilation)
    )
    return y.reshape(shape)


@reference
def conv2d_input(g, w, outs, input_size, stride, padding, dilation, groups):
    shape, size = outs[0].shape, g.shape[2:]
    g, w = _grouped(g, groups, 1), _grouped(w, groups, 0)
    x = _grouped(_padded(np.zeros(shape), padding), groups, 1)
    for i, j, at in _windows(size, w.shape[-2:], stride, dilation):
        np.add.at(x, at, np.einsum("ngohw,goc->ngchw", g, w[..., i, j]))
    return _cut(x, padding).reshape(shape)


@reference
def conv2d_weight(x, g, outs, kernel_size, stride, padding, dilation, groups):
    x, size = _grouped(_padded(x, padding), groups, 1), g.shape[2:]
    g = _grouped(g, groups, 1)
    w = np.zeros((groups, g.shape[2], x.shape[2], *kernel_size))
    for i, j, at in _windows(size, kernel_size, stride, dilation):
        w[..., i, j] = np.einsum("ngohw,ngchw->goc", g, x[at])
    return w.reshape(outs[0].shape)


@reference
def max_pool2d(image, outs, kernel, stride, padding, dilation):
    height, width = image.shape[2:]
    place = _padded(np.arange(height * width).reshape(1, 1, height, width), padding, -1)
    x = _padded(image.astype(float), padding)
    place = np.broadcast_to(place, x.shape)
    best = np.full(outs[0].shape, -1)
    top = np.full(outs[0].shape, -np.inf)
    for _, _, at in _windows(outs[0].shape[2:], kernel, stride, dilation):
        here = (place[at] >= 0) & ((best < 0) | (x[at] > top) | (np.isnan(x[at]) & ~np.isnan(top)))
        best, top = np.where(here, place[at], best), np.where(here, x[at], top)
    plane = image.reshape(*image.shape[:2], height * width)
    return np.take_along_axis(plane, best.reshape(*best.shape[:2], -1), 2).reshape(best.shape), best


@reference
def max_pool2d_slope(g, at, outs, input_size):
    y = np.zeros((*g.shape[:2], math.prod(input_size)))
    n, c = np.ogrid[: g.shape[0], : g.shape[1]]
    np.add.at(y, (n[..., None, None], c[..., None, None], at), g)
    return y


def _counts(input_size, size, kernel, stride, padding, count_include_pad):
    """How many elements each window's mean is over."""
    inside = _padded(np.ones((1, 1, *input_size)), padding, 1.0 if count_include_pad else 0.0)
    return sum(inside[at] for _, _, at in _windows(size, kernel, stride))


@reference
def avg_pool2d(x, outs, kernel, stride, padding, count_include_pad):
    size = outs[0].shape[2:]
    counts = _counts(x.shape[2:], size, kernel, stride, padding, count_include_pad)
    return sum(_padded(x, padding)[at] for _, _, at in _windows(size, kernel, stride)) / counts


@reference
def avg_pool2d_input(g, outs, input_size, kernel, stride, padding, count_include_pad):
    share = g / _counts(input_size, g.shape[2:], kernel, stride, padding, count_include_pad)
    x = _padded(np.zeros(outs[0].shape), padding)
    for _, _, at in _windows(g.shape[2:], kernel, stride):
        np.add.at(x, at, share)
    return _cut(x, padding)


# random numbers: Philox 4x32-10, Salmon et al. 2011


def philox(state: np.ndarray, count: int) -> np.ndarray:
    """Four uint64 columns of 32-bit words, one row for each of `count` blocks."""
    mask, low = np.uint64(0xFFFFFFFF), np.uint64(32)
    seed, offset = (np.uint64(int(v) % 2**64) for v in state)
    block = np.arange(count, dtype=np.uint64)
    c = [block & mask, block >> low, np.full(count, offset & mask), np.full(count, offset >> low)]
    k0, k1 = seed & mask, seed >> low
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(p1 >> low) ^ c[1] ^ k0, p1 & mask, (p0 >> low) ^ c[3] ^ k1, p0 & mask]
        k0, k1 = np.uint64((int(k0) + 0x9E3779B9) % 2**32), np.uint64((int(k1) + 0xBB67AE85) % 2**32)
    return np.stack(c, 1)


def _drawn(state, shape, each: int, fn: Callable) -> np.ndarray:
    """fn(w0, w1, w2, w3) gives `each` elements of every block."""
    count = math.prod(shape)
    words = philox(state, -(-count // each)).astype(np.float64)
    return np.stack(fn(*words.T), -1).ravel()[:count].reshape(shape)


def _integers(state, count: int, spans) -> list[int]:
    """For each element i, the upper 64 bits of a 64-bit draw times spans[i]: an integer from 0 to spans[i] - 1."""
    words = philox(state, count).tolist()
    return [((w[1] << 32) + w[0]) * span >> 64 for w, span in zip(words, spans, strict=True)]


@reference
def uniform(state, outs, shape, dtype):
    if dtype.itemsize == 4:
        return _drawn(state, shape, 4, lambda *w: [np.floor(x / 2**8) * 2.0**-24 for x in w])
    return _drawn(
        state,
        shape,
        2,
        lambda *w: [np.floor(w[i] / 2**5) * 2.0**-27 + np.floor(w[i + 1] / 2**6) * 2.0**-53 for i in (0, 2)],
    )


@reference
def normal(state, outs, shape, dtype):
    def polar(u, angle):  # Box & Muller 1958
        radius = np.sqrt(-2.0 * np.log(u))
        return [radius * np.cos(angle), radius * np.sin(angle)]

    turn = 2.0 * np.pi
    if dtype.itemsize == 4:
        return _drawn(
            state,
            shape,
            4,
            lambda a, b, c, d: (
                polar((a + 0.5) * 2.0**-32, turn * b * 2.0**-32) + polar((c + 0.5) * 2.0**-32, turn * d * 2.0**-32)
            ),
        )
    return _drawn(
        state,
        shape,
        2,
        lambda a, b, c, d: polar(
            a * 2.0**-32 + (np.floor(b / 2**11) + 0.5) * 2.0**-53,
            turn * (c * 2.0**-32 + np.floor(d / 2**11) * 2.0**-53),
        ),
    )


@reference
def bernoulli(state, p, outs, shape, dtype):
    return _drawn(state, shape, 4, lambda *w: [x < np.floor(p * 2.0**32 + 0.5) for x in w])


@reference
def randint(state, low, high, outs, shape, dtype):
    count, span = math.prod(shape), int(high) - int(low)
    words = philox(state, -(-count // 2)).reshape(-1, 2).tolist()[:count]
    return np.array([int(low) + (((b << 32) + a) * span >> 64) for a, b in words], np.int64).reshape(shape)


@reference
def permutation(state, outs, shape, dtype):
    y: list[int] = []
    for i, j in enumerate(_integers(state, shape[0], range(1, shape[0] + 1))):
        y.append(i)
        y[i], y[j] = y[j], i
    return np.array(y, np.int64)


# recurrent layers: x holds the inputs' shares of the gates


def _sigmoid(x):
    return np.exp(-np.logaddexp(0.0, -x))


@reference
def lstm(x, h, c, w, outs):
    made = []
    for share in x:
        i, f, a, o = np.split(share + h @ w.T, 4, 1)
        gates = np.concatenate([_sigmoid(i), _sigmoid(f), np.tanh(a), _sigmoid(o)], 1)
        i, f, a, o = np.split(gates, 4, 1)
        c = f * c + i * a
        h = o * np.tanh(c)
        made.append((h, c, gates))
    return tuple(np.array(part) for part in zip(*made))


def _given(g, given):
    there = iter(g)
    return [next(there) if is_there else None for is_there in given]


@reference
def lstm_slope(gates, cs, c0, w, *g, outs, given):
    gh, gc, gz = _given(g, given)
    dh, dc, dz = np.zeros_like(c0), np.zeros_like(c0), np.zeros_like(gates)
    for t in reversed(range(len(gates))):
        i, f, a, o = np.split(gates[t], 4, 1)
        y = np.tanh(cs[t])
        dh = dh + (0.0 if gh is None else gh[t])
        dc = dc + (0.0 if gc is None else gc[t]) + dh * o * (1 - y * y)
        upon = [dc * a, dc * (cs[t - 1] if t else c0), dc * i, dh * y]
        upon = np.concatenate(upon, 1) + (0.0 if gz is None else gz[t])
        dz[t] = upon * np.concatenate([i * (1 - i), f * (1 - f), 1 - a * a, o * (1 - o)], 1)
        dh, dc = dz[t] @ w, dc * f
    return dz, dh, dc


@reference
def gru(x, h, w, bias, outs):
    made, n = [], h.shape[1]
    for share in x:
        q = h @ w.T
        inner = q[:, 2 * n :] + bias
        r, z = np.split(_sigmoid(share[:, : 2 * n] + q[:, : 2 * n]), 2, 1)
        a = np.tanh(share[:, 2 * n :] + r * inner)
        h = a + z * (h - a)
        made.append((h, np.concatenate([r, z, a], 1), inner))
    return tuple(np.array(part) for part in zip(*made))


@reference
def gru_slope(gates, inner, hs, h0, w, *g, outs, given):
    gh, gz, gi = _given(g, given)
    dh, dx, dq = np.zeros_like(h0), np.zeros_like(gates), np.zeros_like(gates)
    for t in reversed(range(len(gates))):
        r, z, a = np.split(gates[t], 3, 1)
        gr, gu, ga = (0.0, 0.0, 0.0) if gz is None else np.split(gz[t], 3, 1)
        dh = dh + (0.0 if gh is None else gh[t])
        da = (dh * (1 - z) + ga) * (1 - a * a)
        du = (dh * ((hs[t - 1] if t else h0) - a) + gu) * z * (1 - z)
        dr = (da * inner[t] + gr) * r * (1 - r)
        dx[t] = np.concatenate([dr, du, da], 1)
        dq[t] = np.concatenate([dr, du, da * r + (0.0 if gi is None else gi[t])], 1)
        dh = dh * z + dq[t] @ w
    return dx, dq, dh


@reference
def rnn(x, h, w, outs, relu):
    made = []
    for share in x:
        h = share + h @ w.T
        h = np.maximum(h, 0) if relu else np.tanh(h)
        made.append(h)
    return np.array(made)


@reference
def rnn_slope(hs, w, g, outs, relu):
    dh, dx = np.zeros_like(hs[0]), np.zeros_like(hs)
    for t in reversed(range(len(hs))):
        dh = dh + g[t]
        dx[t] = np.where(hs[t] <= 0, 0.0, dh) if relu else dh * (1 - hs[t] * hs[t])
        dh = dx[t] @ w
    return dx, dh
