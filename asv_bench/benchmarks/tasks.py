"""What tapegrad and its peers are compared on: sizes, data, initial weights, as NumPy arrays. No benchmark is in this file.

A weight is stored as PyTorch stores it: `w0` (out, in) and `b0` (out,), a convolution (out, in, height, width). A task's
`kind` names the function that a library's contender builds it with: `tasks_tapegrad.py` here, others in `asv_bench/peers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]

LR = 1e-3
BETAS = (0.9, 0.999)
EPS = 1e-8  # Adam's
EPS_ADAGRAD = 1e-10
OUTPUT = 1e-4  # tolerance of a task's output, usually the loss
# Of training steps with ReLU: one pre-activation of 200,000 whose sign is within rounding moves a layer's gradient by 1e-3,
# in float32 beside float64 as between two libraries; and Adam makes steps of the noise of small gradients.
TRAINED = 1e-2
EPS_NORM = 1e-5  # layer normalisation's
DROPPED = (0.2, 0.4, 0.4)  # of the inputs and of the two hidden layers


@dataclass(frozen=True)
class Task:
    """One row of the comparison."""

    name: str
    kind: str
    data: Callable[[], Arrays]
    settings: dict[str, Any] = field(default_factory=dict)
    steps: int = 1  # steps taken before results are compared
    ops: int = 1  # a step's time is divided by this
    flops: float = 0.0  # of the matrix products of a step, forward and backward
    moved: float = 0.0  # bytes that a step cannot but read or write
    tolerance: float = 1e-4  # of ‖a - b‖ / ‖b‖ for each gradient, or for how far each parameter moved


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """float32 from the normal distribution."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32) * np.float32(scale)


def layer(index: int, out: int, *fan: int) -> Arrays:
    """A weight and a bias, even over ±1/√(fan in)."""
    bound = np.prod(fan) ** -0.5
    rng = np.random.default_rng([7, index])
    weight, bias = (rng.uniform(-bound, bound, s).astype(np.float32) for s in ((out, *fan), (out,)))
    return {f"w{index}": weight, f"b{index}": bias}


def layers(arrays: Arrays) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """w0 and b0, w1 and b1, …."""
    for i in range(sum(name[0] == "w" for name in arrays)):
        yield arrays[f"w{i}"], arrays[f"b{i}"]


def parameters(arrays: Arrays) -> Arrays:
    """What is trained: every array that is no input."""
    return {name: a for name, a in arrays.items() if name not in ("x", "y")}


# data


def chain_data(side: int = 8) -> Arrays:
    """x, and operands that keep a chain of a thousand from growing or vanishing."""
    turn = np.linalg.qr(draw(side, side, seed=1).astype(np.float64))[0].astype(np.float32)
    rng = np.random.default_rng(2)
    near = [rng.uniform(a, b, (side, side)).astype(np.float32) for a, b in ((-1e-3, 1e-3), (0.999, 1.001))]
    return {"x": draw(side, side), "add": near[0], "multiply": near[1], "matmul": turn}


def mlp_data(sizes: tuple[int, ...], batch: int, classes: bool = False) -> Arrays:
    """A batch, and dense layers. y is real, (batch, out), or of classes."""
    y = np.random.default_rng(3).integers(0, sizes[-1], batch) if classes else draw(batch, sizes[-1], seed=3)
    arrays = {"x": draw(batch, sizes[0]), "y": y}
    for i, (a, b) in enumerate(pairwise(sizes)):
        arrays |= layer(i, b, a)
    return arrays


def cnn_data(batch: int = 64) -> Arrays:
    """Images of one channel, two convolutions, two dense layers."""
    arrays = {"x": draw(batch, 1, 28, 28), "y": np.random.default_rng(3).integers(0, 10, batch)}
    for i, (out, *fan) in enumerate(((32, 1, 3, 3), (64, 32, 3, 3), (128, 64 * 7 * 7), (10, 128))):
        arrays |= layer(i, out, *fan)
    return arrays


def lstm_data(time: int, batch: int, inputs: int, hidden: int) -> Arrays:
    """A sequence (time, batch, inputs); gates in the order of PyTorch: input, forget, cell, output."""
    return {"x": draw(time, batch, inputs), **layer(0, 4 * hidden, inputs), **layer(1, 4 * hidden, hidden)}


def block_data(batch: int = 8, time: int = 64, width: int = 128) -> Arrays:
    """A block of a transformer, normalisation first: queries, keys and values in one product, then 4 × width, GELU."""
    arrays = {"x": draw(batch, time, width)}
    for i, (out, fan) in enumerate(((3 * width, width), (width, width), (4 * width, width), (width, 4 * width))):
        arrays |= layer(i, out, fan)
    for name, value in (("scale", 1.0), ("shift", 0.0)):
        for i in (0, 1):
            arrays[f"{name}{i}"] = (value + draw(width, seed=5 + i, scale=0.1)).astype(np.float32)
    return arrays


def norm_data(rows: int = 4096, width: int = 1024) -> Arrays:
    """x, and the scale and shift of a layer normalisation."""
    return {
        "x": draw(rows, width),
        "scale": 1 + draw(width, seed=5, scale=0.1),
        "shift": draw(width, seed=6, scale=0.1),
    }


def adam_data(count: int = 10_000_000) -> Arrays:
    """One parameter and its gradient."""
    return {"w": draw(count), "g": draw(count, seed=1)}


# sizes


def dense_flops(sizes: tuple[int, ...], batch: int) -> float:
    """Multiplications and additions of a step: forward, to the weights, to the inputs of all layers but the first."""
    products = [a * b for a, b in pairwise(sizes)]
    return 2.0 * batch * (3 * sum(products) - products[0])


def mlp(sizes: tuple[int, ...], batch: int, optimizer: str = "Adam") -> Task:
    """Dense layers with ReLU between them; mean square loss with Adam, cross entropy with SGD."""
    classes = optimizer == "SGD"
    name = f"MLP {'-'.join(map(str, sizes))}, batch {batch}, {optimizer}"
    data = lambda: mlp_data(sizes, batch, classes)  # noqa: E731
    return Task(name, "mlp", data, {"optimizer": optimizer}, 10, 1, dense_flops(sizes, batch), 0.0, TRAINED)


def lstm(time: int, batch: int, inputs: int, hidden: int) -> Task:
    """Forward and backward to the parameters."""
    flops = 2.0 * time * batch * 4 * hidden * (2 * inputs + 3 * hidden)
    name = f"LSTM T={time} B={batch} I={inputs} H={hidden}"
    return Task(name, "lstm", lambda: lstm_data(time, batch, inputs, hidden), {"hidden": hidden}, flops=flops)


def chain(op: str, sign: str, backward: bool) -> Task:
    """1,000 times one op on 8×8; the operand, where there is one, needs no gradient."""
    name = f"chain of 1,000 {sign}, 8×8, forward{'+backward' if backward else ''}, per op"
    return Task(name, "chain", chain_data, {"op": op, "backward": backward, "length": 1000}, ops=1000)


SIGMA = (784, 1000, 800, 10)
MILLION = 1 << 20

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *(
            chain(op, sign, backward)
            for backward in (False, True)
            for op, sign in (("add", "y + w"), ("multiply", "y * w"), ("tanh", "tanh"), ("matmul", "y @ w"))
        ),
        mlp((8, 16, 16, 1), 16),
        mlp((32, 64, 64, 1), 32),
        mlp((64, 256, 256, 1), 128),
        mlp((784, 512, 512, 1), 128),
        mlp((784, 1024, 1024, 10), 100, "SGD"),
        Task(
            "Sigma's net 784-1000-800-10, batch 100, Adagrad, dropout .2/.4/.4",
            "sigma",
            lambda: mlp_data(SIGMA, 100, classes=True),
            steps=10,
            flops=dense_flops(SIGMA, 100),
            tolerance=TRAINED,
        ),
        Task(
            "tanh(1.5x+.3)·σ(x)+exp(-x²) summed, 1 M, forward+backward",
            "expression",
            lambda: {"x": draw(MILLION)},
            moved=8.0 * MILLION,
        ),
        lstm(64, 16, 64, 128),
        lstm(64, 1, 32, 64),
        Task(
            "CNN conv 32-64 3×3, pool, 128, 10, batch 64, Adam",
            "cnn",
            cnn_data,
            steps=5,
            # convolutions: multiplications at 28² and 14² places; no gradient of the images
            flops=2.0 * 64 * (2 * 784 * 9 * 32 + 3 * 196 * 9 * 32 * 64 + 3 * (3136 * 128 + 128 * 10)),
            tolerance=TRAINED,
        ),
        Task(
            "transformer block d=128, 4 heads, T=64, B=8, forward+backward",
            "block",
            block_data,
            {"heads": 4},
            # 12 d² of weights at 512 places, and scores and mixtures of 64 × 64 by 128
            flops=6.0 * (512 * 12 * 128**2 + 2 * 8 * 64 * 64 * 128),
        ),
        Task(
            "layer norm + GELU over 4096×1024, forward+backward",
            "norm_gelu",
            norm_data,
            moved=8.0 * 4096 * 1024,
            tolerance=2e-4,
        ),
        Task("Adam over 10 M parameters", "adam", adam_data, steps=3, moved=28e6 * 10),
    )
}
