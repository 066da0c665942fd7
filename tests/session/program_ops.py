"""What statements of random programs do with arrays of four columns."""

from __future__ import annotations

import tapegrad as tg

UNARY = {
    "tanh": tg.tanh,
    "sin": tg.sin,
    "exp": lambda x: tg.exp(-x * x),
    "sigmoid": tg.sigmoid,
    "relu": tg.relu,
    "negative": lambda x: -x,
    "flip": lambda x: tg.flip(x, 1),
    "roll": lambda x: tg.roll(x, 1, 1),
    "turned": lambda x: x.T.T,
    "row": lambda x: x[:1],
    "halves": lambda x: tg.concatenate(tg.split(x, 2, 1)[::-1], 1),
    "copy": lambda x: x.copy(),
    "detach": lambda x: x.detach(),
    "where": lambda x: tg.where(x > 0.1, x, 0.5),
    "narrow": lambda x: x.astype(tg.float32).astype(x.dtype),
    "whole": lambda x: (x * 10).astype(tg.int32).astype(x.dtype) * 0.1,
}
SUMMING = {
    "mean": lambda x: x.mean(0, keepdims=True),
    "sum": lambda x: x - x.sum(1, keepdims=True) * 0.1,
    "softmax": lambda x: tg.softmax(x, 1),
    "max": lambda x: x / (x.abs().max() + 1),
}
BINARY = {
    "add": lambda a, b: a + b,
    "multiply": lambda a, b: tg.tanh(a * b),
    "subtract": lambda a, b: a - b * 0.5,
    "divide": lambda a, b: a / (b * b + 1),
    "maximum": tg.maximum,
    "matmul": lambda a, b: tg.tanh(a @ b[:1].T) * b,
}
SCALAR = {
    "times": lambda x, t: tg.tanh(x * t),
    "plus": lambda x, t: t + x,
    "power": lambda x, t: (x * x + 1) ** (-t * 0.1),
    "over": lambda x, t: x / (1.5 + t * t),
}
RESHAPED = {  # to an array of another shape, and what becomes of both
    "column": (lambda x: tg.tanh(x[:, :1]), lambda x, y: x + y * 0.5),
    "number": (lambda x: tg.sin(x[0, 0]), lambda x, y: x * y),
    "cube": (lambda x: x[:, None] * tg.tanh(x[:1, :, None]), lambda x, y: y[:, 1] + x * 0.5),
    "flat": (lambda x: tg.sigmoid(x).reshape(-1), lambda x, y: y.reshape(x.shape) - x),
    "long": (lambda x: tg.sin(tg.concatenate([x, x * 0.5, x], 1)[:, 1:]), lambda x, y: y[:, 3:7] * x),
}
LARGE = {  # to an array with more rows, columns or both
    "long": lambda x: tg.tile(x, (1, 9))[:, 1:34],
    "high": lambda x: tg.tile(x, (11, 1)),
    "block": lambda x: tg.tile(x, (5, 3))[2:],
}
REDUCED = {
    "sum": lambda y, axis: y.sum(axis, keepdims=True) * 0.1,
    "squares": lambda y, axis: (y * y * 0.5).mean(axis, keepdims=True),
    "max": lambda y, axis: y.max(axis, keepdims=True),
    "min": lambda y, axis: (-y).min(axis, keepdims=True),
    "variance": lambda y, axis: y.var(axis, keepdims=True),
    "normal": lambda y, axis: (y - y.mean(axis, keepdims=True)) / (0.1 + y.var(axis, keepdims=True)),
    "logsumexp": lambda y, axis: tg.logsumexp(y, axis, keepdims=True) * 0.1,
    "softmax": lambda y, axis: tg.softmax(y, -1 if axis is None else axis),
}
