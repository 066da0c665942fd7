"""Reductions, scans, softmax, sorting and indexing of 1024×1024 float32."""

from __future__ import annotations

import numpy as np

import tapegrad as tg
import tapegrad.nn.functional as F

SIDE = 1024

ALONG_ROWS = {
    "softmax": lambda x: tg.softmax(x).sum(),
    "log_softmax": lambda x: tg.log_softmax(x).sum(),
    "cumsum": lambda x: tg.cumsum(x, 1).sum(),
    "cross_entropy": lambda x: F.cross_entropy(x, tg.arange(SIDE)),
    "sort": lambda x: tg.sort(x, 1).sum(),
    "take": lambda x: tg.take(x, tg.arange(SIDE - 1, -1, -1), 0).sum(),
    "permute, copied": lambda x: x.T.contiguous().sum(),
}


class Reduce:
    """Over all elements, the rows' elements, or the columns' elements."""

    params = (("sum", "mean", "max", "var", "logsumexp", "argmax", "norm"), (None, 1, 0))
    param_names = ("op", "axis")

    def setup(self, op, axis):
        self.op = getattr(tg, op)
        self.x = tg.tensor(np.random.default_rng(0).standard_normal((SIDE, SIDE), dtype=np.float32))
        self.op(self.x, axis)

    def time_forward(self, op, axis):
        self.op(self.x, axis)


class Rows:
    """Ops along the last axis, forward and backward."""

    params = tuple(ALONG_ROWS)
    param_names = ("op",)

    def setup(self, op):
        self.op = ALONG_ROWS[op]
        self.x = tg.tensor(np.random.default_rng(0).standard_normal((SIDE, SIDE), dtype=np.float32), requires_grad=True)
        self.time_forward_backward(op)

    def time_forward_backward(self, op):
        self.x.grad = None
        self.op(self.x).backward()


class Random:
    """2^20 draws of the counter-based generator."""

    params = ("normal", "uniform")
    param_names = ("distribution",)

    def setup(self, distribution):
        self.draw = getattr(tg, distribution)
        self.draw(size=(1 << 20,))

    def time_draw(self, distribution):
        self.draw(size=(1 << 20,))
