"""What the primitives of networks compute, as NumPy functions: softmax, convolution, pooling, recurrence; see `reference_ops.py`.

Of recurrent layers x holds the inputs' shares of the gates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ..errors import IndexOutOfRange
from .reference_ops import log_of_sum, reference
from .status import INDEX, SENTENCES


@reference
def softmax(x, outs, axis):
    return np.exp(log_softmax(x, outs, axis))


@reference
def log_softmax(x, outs, axis):
    return x - log_of_sum(x, (axis,), True) if x.size else x


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
