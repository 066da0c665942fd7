"""The tasks written in tapegrad, in a session or eagerly. No benchmark is in this file."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import nn, optim

from .tasks import BETAS, DROPPED, EPS, EPS_ADAGRAD, EPS_NORM, LR, Arrays, Task, layers, parameters


@dataclass
class Made:
    """A task that is ready to run."""

    step: Callable[
        [], object
    ]  # returns the loss, or what else the step computes; whoever calls holds it as a loop would
    leaves: dict[str, tg.Tensor]  # what results are read from, by the names of the data
    trains: bool  # results are how far the leaves moved; otherwise their gradients
    session: object = None
    start: Arrays = field(default_factory=dict)
    plain: Callable[[], object] | None = None  # the step that results are compared of, where `step` draws at random

    def results(self, steps: int) -> Arrays:
        """The last output, and gradients or movements, after that many steps."""
        step = self.plain or self.step
        if self.trains:
            self.start = {name: p.numpy().copy() for name, p in self.leaves.items()}
        for _ in range(steps):
            out = step()
        found = {"output": np.asarray(out.numpy())} if isinstance(out, tg.Tensor) else {}
        for name, p in self.leaves.items():
            found[name] = p.numpy() - self.start[name] if self.trains else p.grad.numpy().copy()
        return found

    def ready(self) -> bool:
        """Whether the latest step ran as planned."""
        stats = self.session.stats
        return stats.replays > 0 and stats.unplanned_bytes > 0


FIGURES = ("iterations", "replays", "recordings", "variants", "rows", "kernels", "fused_rows")
FIGURES += ("planned_bytes", "unplanned_bytes", "allocations")


def figures(made: Made, steps: int = 20) -> dict[str, int]:
    """The session's figures, and "blocks": what the pool asks the system for in so many further steps."""
    before = tg.memory_stats()["allocations"]
    for _ in range(steps):
        held = made.step()
    del held
    found = {"blocks": tg.memory_stats()["allocations"] - before}
    return found | {name: getattr(made.session.stats, name) for name in FIGURES}


def profile(made: Made, rounds: int = 15) -> list[tuple[str, int, float]]:
    """Titles of a step's kernels, how many have that title, and seconds of all of them, each the least of many; longest first."""
    found: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="tapegrad-trace-") as folder:
        path = Path(folder, "trace.json")
        for i in range(rounds):
            held = made.step()
            made.session.trace(path)
            places: Counter = Counter()
            for event in json.loads(path.read_text())["traceEvents"]:
                same = found.setdefault(event["name"], [])
                if i == 0:
                    same.append([])
                same[places[event["name"]]].append(event["dur"] / 1e6)
                places[event["name"]] += 1
    del held
    totals = [(title, len(times), sum(map(min, times))) for title, times in found.items()]
    return sorted(totals, key=lambda total: -total[2])


_device = "cpu"  # where `build` puts data and models


def build(task: Task, session: bool = True, device: str = "cpu") -> Made:
    """The task in a session of its own, or without one."""
    global _device
    _device = device
    held = tg.Session() if session else None
    made = KINDS[task.kind](task.data(), held or nullcontext(), **task.settings)
    made.session = held
    return made


def _place(a: np.ndarray) -> tg.Tensor:
    return tg.tensor(a, device=_device)


def _leaf(a: np.ndarray) -> tg.Tensor:
    return tg.tensor(a, device=_device, requires_grad=True)


def _leaves(arrays: Arrays) -> dict[str, tg.Tensor]:
    return {name: _leaf(a) for name, a in arrays.items()}


def _training(model, lossfn, optimizer, x, y, iteration: AbstractContextManager) -> Callable[[], tg.Tensor]:
    """One step as people write it."""

    def step():
        with iteration:
            loss = lossfn(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss

    return step


def _fill(model: nn.Module, arrays: Arrays) -> dict[str, tg.Tensor]:
    """The data's weights into the model's parameters, which come in the same order."""
    named = parameters(arrays)
    if _device != "cpu":
        model.to(_device)
    leaves = dict(zip(named, model.parameters(), strict=True))
    with tg.no_grad():
        for name, p in leaves.items():
            p.copy_(_place(named[name]))
    return leaves


def chain(arrays: Arrays, iteration: AbstractContextManager, op: str, backward: bool, length: int) -> Made:
    """One op, again and again; forward alone, x requires no gradient."""
    x = tg.tensor(arrays["x"], device=_device, requires_grad=backward)
    seed = tg.ones(arrays["x"].shape, device=_device)
    w = _place(arrays.get(op, arrays["x"]))
    loop = {"add": _adds, "multiply": _multiplies, "matmul": _products, "tanh": _tanhs}[op]

    def step():
        with iteration:
            y = loop(x, w, length)
            if backward:
                x.grad = None
                y.backward(seed)
        return y

    return Made(step, {"x": x} if backward else {}, False)


# The loops of a chain, each written out: a call of a function for every op would be counted as the op's.


def _adds(y, w, length):
    for _ in range(length):
        y = y + w
    return y


def _multiplies(y, w, length):
    for _ in range(length):
        y = y * w
    return y


def _products(y, w, length):
    for _ in range(length):
        y = y @ w
    return y


def _tanhs(y, w, length):
    tanh = tg.tanh
    for _ in range(length):
        y = tanh(y)
    return y


def mlp(arrays: Arrays, iteration: AbstractContextManager, optimizer: str) -> Made:
    """Dense layers with ReLU between them."""
    listed: list[nn.Module] = []
    for w, _ in layers(arrays):
        listed += [nn.Linear(w.shape[1], w.shape[0]), nn.ReLU()]
    model = nn.Sequential(*listed[:-1])
    leaves = _fill(model, arrays)
    x, y = _place(arrays["x"]), _place(arrays["y"])
    made = (
        optim.SGD(model.parameters(), lr=LR)
        if optimizer == "SGD"
        else optim.Adam(model.parameters(), lr=LR, betas=BETAS, eps=EPS)
    )
    lossfn = F.cross_entropy if optimizer == "SGD" else F.mse_loss
    return Made(_training(model, lossfn, made, x, y, iteration), leaves, True)


def sigma(arrays: Arrays, iteration: AbstractContextManager) -> Made:
    """Dropout before each of three dense layers, Adagrad. Results are compared without dropout."""
    drops = [nn.Dropout(p) for p in DROPPED]
    listed: list[nn.Module] = []
    for drop, (w, _) in zip(drops, layers(arrays), strict=True):
        listed += [drop, nn.Linear(w.shape[1], w.shape[0]), nn.ReLU()]
    model = nn.Sequential(*listed[:-1])
    leaves = _fill(model, arrays)
    x, y = _place(arrays["x"]), _place(arrays["y"])
    optimizer = optim.Adagrad(model.parameters(), lr=LR, eps=EPS_ADAGRAD)
    step = _training(model, F.cross_entropy, optimizer, x, y, iteration)

    def plain():
        model.eval()
        loss = step()
        model.train()
        return loss

    return Made(step, leaves, True, plain=plain)


def expression(arrays: Arrays, iteration: AbstractContextManager) -> Made:
    """A chain of elementwise functions."""
    x = _leaf(arrays["x"])
    tanh, sigmoid, exp = tg.tanh, tg.sigmoid, tg.exp

    def step():
        with iteration:
            x.grad = None
            loss = (tanh(1.5 * x + 0.3) * sigmoid(x) + exp(-x * x)).sum()
            loss.backward()
        return loss

    return Made(step, {"x": x}, False)


def lstm(arrays: Arrays, iteration: AbstractContextManager, hidden: int) -> Made:
    """A Python loop over time; the inputs' share of the gates of all times in one product."""
    x = _place(arrays["x"])
    leaves = _leaves(parameters(arrays))
    w0, b0, w1, b1 = leaves.values()
    times, batch = x.shape[:2]
    h0, c0 = (tg.zeros((batch, hidden), device=_device) for _ in range(2))
    everyone = tuple(leaves.values())
    linear, sigmoid, tanh, split, stack = F.linear, tg.sigmoid, tg.tanh, tg.split, tg.stack

    def forward():
        h, c, outs = h0, c0, []
        shares = linear(x, w0, b0)
        for t in range(times):
            i, f, g, o = split(shares[t] + linear(h, w1, b1), 4, 1)
            c = sigmoid(f) * c + sigmoid(i) * tanh(g)
            h = sigmoid(o) * tanh(c)
            outs.append(h)
        return stack(outs).square().mean()

    def step():
        with iteration:
            for p in everyone:
                p.grad = None
            loss = forward()
            loss.backward()
        return loss

    return Made(step, leaves, False)


def cnn(arrays: Arrays, iteration: AbstractContextManager) -> Made:
    """Two 3×3 convolutions, pooling, two dense layers."""
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    leaves = _fill(model, arrays)
    optimizer = optim.Adam(model.parameters(), lr=LR, betas=BETAS, eps=EPS)
    x, y = _place(arrays["x"]), _place(arrays["y"])
    return Made(_training(model, F.cross_entropy, optimizer, x, y, iteration), leaves, True)


def block(arrays: Arrays, iteration: AbstractContextManager, heads: int) -> Made:
    """A block of a transformer, forward and backward to the input and the parameters."""
    leaves = _leaves(arrays)
    everyone = tuple(leaves.values())
    x = leaves["x"]
    batch, times, width = x.shape
    size = (width // heads,)
    linear, norm, softmax, gelu = F.linear, F.layer_norm, F.softmax, F.gelu

    def attention(x):
        qkv = linear(x, leaves["w0"], leaves["b0"]).reshape(batch, times, 3, heads, *size)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = softmax((q * size[0] ** -0.5) @ k.swapaxes(-1, -2), -1)
        mixed = (weights @ v).permute(0, 2, 1, 3).reshape(batch, times, width)
        return linear(mixed, leaves["w1"], leaves["b1"])

    def forward(x):
        x = x + attention(norm(x, (width,), leaves["scale0"], leaves["shift0"], EPS_NORM))
        y = norm(x, (width,), leaves["scale1"], leaves["shift1"], EPS_NORM)
        y = linear(gelu(linear(y, leaves["w2"], leaves["b2"])), leaves["w3"], leaves["b3"])
        return (x + y).square().mean()

    def step():
        with iteration:
            for p in everyone:
                p.grad = None
            loss = forward(x)
            loss.backward()
        return loss

    return Made(step, leaves, False)


def norm_gelu(arrays: Arrays, iteration: AbstractContextManager) -> Made:
    """Layer normalisation, GELU, summed."""
    leaves = _leaves(arrays)
    x, scale, shift = everyone = tuple(leaves.values())
    width = (x.shape[1],)
    norm, gelu = F.layer_norm, F.gelu

    def step():
        with iteration:
            for p in everyone:
                p.grad = None
            loss = gelu(norm(x, width, scale, shift, EPS_NORM)).sum()
            loss.backward()
        return loss

    return Made(step, leaves, False)


def adam(arrays: Arrays, iteration: AbstractContextManager) -> Made:
    """The update alone."""
    w = _leaf(arrays["w"])
    w.grad = _place(arrays["g"])
    optimizer = optim.Adam([w], lr=LR, betas=BETAS, eps=EPS)

    def step():
        with iteration:
            optimizer.step()

    return Made(step, {"w": w}, True)


KINDS: dict[str, Callable[..., Made]] = {
    f.__name__: f for f in (chain, mlp, sigma, expression, lstm, cnn, block, norm_gelu, adam)
}
