"""Matrix products, linear algebra, convolutions and pooling."""

from __future__ import annotations

import numpy as np

import tapegrad as tg
import tapegrad.nn.functional as F


def normal(*shape: int, requires_grad: bool = False):
    return tg.tensor(np.random.default_rng(0).standard_normal(shape, dtype=np.float32), requires_grad=requires_grad)


class Matmul:
    """(m, k) @ (k, n), float32."""

    params = (((8, 8, 8), (64, 784, 256), (512, 512, 512), (1024, 1024, 1024)),)
    param_names = ("m, k, n",)

    def setup(self, sizes):
        m, k, n = sizes
        self.a, self.b, self.bt = normal(m, k, requires_grad=True), normal(k, n, requires_grad=True), normal(n, k)
        self.seed = tg.ones((m, n))
        self.time_forward_backward(sizes)
        self.time_transposed(sizes)

    def time_forward(self, sizes):
        self.a @ self.b

    def time_transposed(self, sizes):
        with tg.no_grad():
            self.a @ self.bt.T

    def time_forward_backward(self, sizes):
        self.a.grad = self.b.grad = None
        (self.a @ self.b).backward(self.seed)


class Batched:
    """64 products of 64×64, and a matrix by a vector."""

    def setup(self):
        self.a, self.b = normal(64, 64, 64), normal(64, 64, 64)
        self.matrix, self.vector = normal(1024, 1024), normal(1024)
        self.time_batched()
        self.time_matrix_vector()
        self.time_einsum()

    def time_batched(self):
        self.a @ self.b

    def time_matrix_vector(self):
        self.matrix @ self.vector

    def time_einsum(self):
        tg.einsum("bij,bkj->bik", self.a, self.b)


class Linalg:
    """A well-conditioned 128×128 system, float32."""

    params = ("solve", "inv", "slogdet", "cholesky")
    param_names = ("op",)

    def setup(self, op):
        a = normal(128, 128)
        self.spd = a @ a.T + 128.0 * tg.eye(128)
        self.arguments = (self.spd, normal(128, 4)) if op == "solve" else (self.spd,)
        self.op = getattr(tg.linalg, op)
        self.time_forward(op)

    def time_forward(self, op):
        self.op(*self.arguments)


class Convolution:
    """3×3 with padding, batch 64, float32: the two of the small CNN."""

    params = (((1, 32, 28), (32, 64, 14)),)
    param_names = ("channels in, out, side",)

    def setup(self, case):
        before, after, side = case
        self.x = normal(64, before, side, side, requires_grad=True)
        self.w = normal(after, before, 3, 3, requires_grad=True)
        self.seed = tg.ones((64, after, side, side))
        self.time_forward_backward(case)

    def time_forward(self, case):
        with tg.no_grad():
            F.conv2d(self.x, self.w, padding=1)

    def time_forward_backward(self, case):
        self.x.grad = self.w.grad = None
        F.conv2d(self.x, self.w, padding=1).backward(self.seed)


class Pooling:
    """2×2 windows of 64×32×28×28, forward and backward."""

    params = ("max_pool2d", "avg_pool2d")
    param_names = ("op",)

    def setup(self, op):
        self.op = getattr(F, op)
        self.x = normal(64, 32, 28, 28, requires_grad=True)
        self.seed = tg.ones((64, 32, 14, 14))
        self.time_forward_backward(op)

    def time_forward_backward(self, op):
        self.x.grad = None
        self.op(self.x, 2).backward(self.seed)
