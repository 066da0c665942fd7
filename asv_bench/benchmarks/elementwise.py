"""Elementwise kernels on large tensors, forward and with their gradient."""

from __future__ import annotations

import numpy as np

import tapegrad as tg

OPS = {
    "add": lambda x, y: x + y,
    "divide": lambda x, y: x / y,
    "exp": lambda x, y: tg.exp(x),
    "log": lambda x, y: tg.log(x),
    "tanh": lambda x, y: tg.tanh(x),
    "sigmoid": lambda x, y: tg.sigmoid(x),
    "sin": lambda x, y: tg.sin(x),
    "erf": lambda x, y: tg.erf(x),
    "gelu": lambda x, y: tg.gelu(x),
    "power": lambda x, y: x**y,
    "where": lambda x, y: tg.where(x > y, x, y),
    "compound": lambda x, y: tg.tanh(1.5 * x + 0.3) * tg.sigmoid(x) + tg.exp(-x * x),
}


def operands(dtype: str, requires_grad: bool, size: int = 1 << 20):
    """Two tensors of `size` elements between 0.1 and 2."""
    draws = np.random.default_rng(0).uniform(0.1, 2.0, (2, size)).astype(dtype)
    return [tg.tensor(draw, requires_grad=requires_grad) for draw in draws]


class Million:
    """2^20 elements."""

    params = (tuple(OPS), ("float32", "float64"))
    param_names = ("op", "dtype")

    def setup(self, op, dtype):
        self.op = OPS[op]
        self.x, self.y = operands(dtype, False)
        self.op(self.x, self.y)

    def time_forward(self, op, dtype):
        self.op(self.x, self.y)


class MillionGradient:
    """2^20 float32 elements, forward and backward."""

    params = tuple(OPS)
    param_names = ("op",)

    def setup(self, op):
        self.op = OPS[op]
        self.x, self.y = operands("float32", True)
        self.time_forward_backward(op)

    def time_forward_backward(self, op):
        self.x.grad = self.y.grad = None
        self.op(self.x, self.y).sum().backward()


class Layouts:
    """Adding what is not contiguous: 1024×1024 float32."""

    params = ("contiguous", "transposed", "row", "column", "strided")
    param_names = ("second_operand",)

    def setup(self, second_operand):
        square = tg.ones((1024, 1024))
        self.x = square
        self.y = {
            "contiguous": square,
            "transposed": square.T,
            "row": tg.ones((1024,)),
            "column": tg.ones((1024, 1)),
            "strided": tg.ones((1024, 2048))[:, ::2],
        }[second_operand]
        self.time_add(second_operand)

    def time_add(self, second_operand):
        self.x + self.y
