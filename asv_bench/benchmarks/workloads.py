"""What is timed, shared by asv's benchmarks and `asv_bench.figures`. No benchmark is in this file."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import nn, optim

CHAIN = 100  # ops in a row, so that starting a sweep does not count as part of an op

# Small ops as a chain runs them: y is the chain's last value, w an operand that requires a gradient and is used once.
CHAIN_OPS: dict[str, Callable] = {
    "y + w": lambda y, w: y + w,
    "y * w": lambda y, w: y * w,
    "y * 0.5": lambda y, w: y * 0.5,
    "tanh": lambda y, w: tg.tanh(y),
    "matmul": lambda y, w: y @ w,
    "softmax": lambda y, w: tg.softmax(y),
    "transpose": lambda y, w: y.T,
}


class Chain:
    """One op on 8×8 float32, `CHAIN` times in a row."""

    def __init__(self, name: str, side: int = 8):
        self.op = CHAIN_OPS[name]
        rng = np.random.default_rng(0)
        draws = rng.uniform(0.5, 1.0, (CHAIN + 1, side, side)).astype(np.float32) / (side if name == "matmul" else 1)
        self.first, *self.operands = [tg.tensor(draw, requires_grad=True) for draw in draws]
        self.seed = tg.ones((side, side))

    def forward(self):
        """Compute and record."""
        y, op = self.first, self.op
        for w in self.operands:
            y = op(y, w)
        return y

    def forward_backward(self) -> None:
        """Compute, record, and sweep back to every leaf."""
        self.first.grad = None
        for w in self.operands:
            w.grad = None
        self.forward().backward(self.seed)


class Training:
    """A network, an optimizer and one batch; a call runs one training step and returns the loss."""

    def __init__(self, model: nn.Module, shape: tuple[int, ...], classes: int = 10, optimizer: Callable = optim.Adam):
        rng = np.random.default_rng(0)
        self.model = model
        self.optimizer = optimizer(model.parameters(), lr=1e-3)
        self.x = rng.standard_normal(shape, dtype=np.float32)
        self.y = rng.integers(0, classes, shape[0])

    def __call__(self):
        loss = self.loss()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def loss(self):
        """The forward part, from the batch as NumPy arrays."""
        return F.cross_entropy(self.model(tg.tensor(self.x)), tg.tensor(self.y))


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn() -> nn.Sequential:
    """Two 3×3 convolutions of 32 and 64 channels, pooling, two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def sgd(params, lr: float) -> optim.SGD:
    """SGD with momentum."""
    return optim.SGD(params, lr=lr, momentum=0.9)


TRAININGS: dict[str, Callable[[], Training]] = {
    "MLP 8-16-16-2, batch 16, Adam": lambda: Training(mlp(8, 16, 16, 2), (16, 8), 2),
    "MLP 64-256-256-10, batch 128, Adam": lambda: Training(mlp(64, 256, 256, 10), (128, 64)),
    "MLP 784-256-10, batch 64, Adam": lambda: Training(mlp(784, 256, 10), (64, 784)),
    "MLP 784-1024-1024-10, batch 100, SGD": lambda: Training(mlp(784, 1024, 1024, 10), (100, 784), optimizer=sgd),
    "CNN 32-64 3×3, batch 64, Adam": lambda: Training(cnn(), (64, 1, 28, 28)),
}
