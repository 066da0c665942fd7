"""What each primitive computes, as a NumPy function under the name of its kernel builder. Those of networks and of random
numbers are in `reference_networks.py` and `reference_random.py`.

A function gets the inputs (float64, int64 or bool arrays), the layouts of the outputs and the op's attributes.
"""

from __future__ import annotations

from collections.abc import Callable

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
        else log_of_sum(x, axes, keepdims)
    )


def log_of_sum(x, axes, keepdims):
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
