"""What an op costs beside its arithmetic: recording it and sweeping back over it. Times are of `CHAIN` ops."""

from __future__ import annotations

import tapegrad as tg

from .workloads import CHAIN_OPS, Chain


class SmallOps:
    """Chains of 8×8 float32 ops."""

    params = tuple(CHAIN_OPS)
    param_names = ("op",)

    def setup(self, op):
        self.chain = Chain(op)
        self.chain.forward_backward()

    def time_forward_unrecorded(self, op):
        with tg.no_grad():
            self.chain.forward()

    def time_forward(self, op):
        self.chain.forward()

    def time_forward_backward(self, op):
        self.chain.forward_backward()


class LongChain:
    """10,000 rows: a sweep takes the same time per row however long the tape is."""

    rows = 10_000

    def setup(self):
        self.x = tg.tensor(1.0, requires_grad=True)

    def time_forward_backward(self):
        y = self.x
        for _ in range(self.rows):
            y = y * 0.9999
        y.backward()


class Functional:
    """Derivatives of functions, nested or of whole maps."""

    def setup(self):
        self.v = tg.linspace(0.1, 1.0, 8)
        self.second = tg.grad(tg.grad(tg.tanh))
        self.jacobian = tg.jacobian(lambda v: tg.tanh(v) * v.sum())

    def time_second_derivative(self):
        self.second(0.5)

    def time_jacobian(self):
        self.jacobian(self.v)


class Interop:
    """From NumPy and back, of float32; a small batch costs what the call costs, a large one is copied."""

    params = ("16×8", "64×784")
    param_names = ("shape",)

    def setup(self, shape):
        self.t = tg.ones(tuple(map(int, shape.split("×"))))
        self.array = self.t.numpy()

    def time_tensor(self, shape):
        tg.tensor(self.array)

    def time_numpy(self, shape):
        self.t.numpy()

    def time_index(self, shape):
        self.t[3, 4].item()
