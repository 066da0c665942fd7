"""The tasks written in PyTorch, each in the form that is fastest on a CPU: fused optimizers, nn.LSTM, fused attention.

`torch.compile` takes the forward and backward passes; optimizers run as PyTorch's fused kernels in both forms.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..benchmarks.tasks import BETAS, DROPPED, EPS, EPS_ADAGRAD, EPS_NORM, LR, Arrays, Task, layers, parameters

VERSION = f"PyTorch {torch.__version__}"
COMPILES = ("mlp", "sigma", "expression", "cnn", "block", "norm_gelu")  # elsewhere there is nothing for it to compile


@dataclass
class Made:
    """A task that is ready to run; fields as in `tasks_tapegrad.Made`."""

    step: Callable[[], object]
    leaves: dict[str, torch.Tensor]
    trains: bool
    start: Arrays = field(default_factory=dict)
    plain: Callable[[], object] | None = None

    def results(self, steps: int) -> Arrays:
        """The last output, and gradients or movements, after that many steps."""
        step = self.plain or self.step
        if self.trains:
            self.start = {name: _array(p) for name, p in self.leaves.items()}
        for _ in range(steps):
            out = step()
        found = {"output": _array(out)} if isinstance(out, torch.Tensor) else {}
        for name, p in self.leaves.items():
            found[name] = _array(p) - self.start[name] if self.trains else _array(p.grad)
        return found

    def wait(self) -> None:
        """A step is over when it returns."""


def prepare(threads: int) -> None:
    """Set this process's threads."""
    torch.set_num_threads(threads)


def build(task: Task, compiled: bool = False) -> Made:
    """The task, eager or by torch.compile."""
    if not compiled:
        return KINDS[task.kind](task.data(), lambda f: f, **task.settings)
    if task.kind not in COMPILES:
        raise NotImplementedError(WHY_NOT[task.kind])
    torch._dynamo.reset()
    return KINDS[task.kind](task.data(), torch.compile, **task.settings)


WHY_NOT = {
    "chain": "an unrolled chain of 1,000 ops takes minutes",
    "lstm": "it leaves nn.LSTM as it is, and an unrolled loop over time takes minutes",
    "adam": "the fused update is one kernel already",
}


def _array(t: torch.Tensor) -> np.ndarray:
    return t.detach().numpy().copy()


def _leaf(a: np.ndarray) -> torch.Tensor:
    return torch.tensor(a, requires_grad=True)


def _fill(model: nn.Module, arrays: Arrays) -> dict[str, torch.Tensor]:
    named = parameters(arrays)
    leaves = dict(zip(named, model.parameters(), strict=True))
    with torch.no_grad():
        for name, p in leaves.items():
            p.copy_(torch.tensor(named[name]))
    return leaves


def _training(model, lossfn, optimizer, x, y, compiled: Callable) -> Callable[[], torch.Tensor]:
    forward = compiled(lambda: lossfn(model(x), y))

    def step():
        loss = forward()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def _backward(forward: Callable, leaves: dict[str, torch.Tensor], compiled: Callable) -> Made:
    forward, everyone = compiled(forward), tuple(leaves.values())

    def step():
        for p in everyone:
            p.grad = None
        loss = forward()
        loss.backward()
        return loss

    return Made(step, leaves, False)


def chain(arrays: Arrays, compiled: Callable, op: str, backward: bool, length: int) -> Made:
    """One op, again and again; forward alone, x requires no gradient."""
    x, seed = torch.tensor(arrays["x"], requires_grad=backward), torch.ones(arrays["x"].shape)
    w = torch.tensor(arrays.get(op, arrays["x"]))
    tanh, steps = torch.tanh, range(length)

    def forward():
        y = x
        if op == "add":
            for _ in steps:
                y = y + w
        elif op == "multiply":
            for _ in steps:
                y = y * w
        elif op == "matmul":
            for _ in steps:
                y = y @ w
        else:
            for _ in steps:
                y = tanh(y)
        return y

    def step():
        y = forward()
        if backward:
            x.grad = None
            y.backward(seed)
        return y

    return Made(step, {"x": x} if backward else {}, False)


def mlp(arrays: Arrays, compiled: Callable, optimizer: str) -> Made:
    """Dense layers with ReLU between them."""
    listed: list[nn.Module] = []
    for w, _ in layers(arrays):
        listed += [nn.Linear(w.shape[1], w.shape[0]), nn.ReLU()]
    model = nn.Sequential(*listed[:-1])
    leaves = _fill(model, arrays)
    x, y = torch.tensor(arrays["x"]), torch.tensor(arrays["y"])
    if optimizer == "SGD":
        made, lossfn = torch.optim.SGD(model.parameters(), lr=LR, fused=True), F.cross_entropy
    else:
        made = torch.optim.Adam(model.parameters(), lr=LR, betas=BETAS, eps=EPS, fused=True)
        lossfn = F.mse_loss
    return Made(_training(model, lossfn, made, x, y, compiled), leaves, True)


def _fuses_adagrad(device: torch.device) -> bool | None:
    """Whether this PyTorch has Adagrad as one kernel on that device; None, its own choice, where not."""
    p = nn.Parameter(torch.ones(1, device=device))
    p.grad = torch.ones_like(p)
    try:
        torch.optim.Adagrad([p], fused=True).step()
    except RuntimeError:
        return None
    return True


def sigma(arrays: Arrays, compiled: Callable) -> Made:
    """Dropout before each of three dense layers, Adagrad. Results are compared without dropout."""
    listed: list[nn.Module] = []
    for p, (w, _) in zip(DROPPED, layers(arrays), strict=True):
        listed += [nn.Dropout(p), nn.Linear(w.shape[1], w.shape[0]), nn.ReLU()]
    model = nn.Sequential(*listed[:-1])
    leaves = _fill(model, arrays)
    x, y = torch.tensor(arrays["x"]), torch.tensor(arrays["y"])
    fused = _fuses_adagrad(x.device)
    with torch.device("cpu"):  # where it counts steps unless it is fused; elsewhere it would wait for each
        optimizer = torch.optim.Adagrad(model.parameters(), lr=LR, eps=EPS_ADAGRAD, fused=fused)
    step = _training(model, F.cross_entropy, optimizer, x, y, compiled)

    def plain():
        model.eval()
        loss = step()
        model.train()
        return loss

    return Made(step, leaves, True, plain=plain)


def expression(arrays: Arrays, compiled: Callable) -> Made:
    """A chain of elementwise functions."""
    x = _leaf(arrays["x"])
    return _backward(
        lambda: (torch.tanh(1.5 * x + 0.3) * torch.sigmoid(x) + torch.exp(-x * x)).sum(), {"x": x}, compiled
    )


def lstm(arrays: Arrays, compiled: Callable, hidden: int) -> Made:
    """nn.LSTM, which on a CPU is one call of oneDNN or of PyTorch's own loop in C++."""
    x = torch.tensor(arrays["x"])
    model = nn.LSTM(x.shape[2], hidden)
    named = parameters(arrays)
    theirs = (model.weight_ih_l0, model.bias_ih_l0, model.weight_hh_l0, model.bias_hh_l0)
    leaves = dict(zip(named, theirs, strict=True))
    with torch.no_grad():
        for name, p in leaves.items():
            p.copy_(torch.tensor(named[name]))
    return _backward(lambda: model(x)[0].square().mean(), leaves, compiled)


def cnn(arrays: Arrays, compiled: Callable) -> Made:
    """Two 3×3 convolutions, pooling, two dense layers. PEER_LAYOUT=channels_last stores images that way."""
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    leaves = _fill(model, arrays)
    x, y = torch.tensor(arrays["x"]), torch.tensor(arrays["y"])
    if os.environ.get("PEER_LAYOUT") == "channels_last":
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        leaves = dict(zip(leaves, model.parameters(), strict=True))
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, betas=BETAS, eps=EPS, fused=True)
    return Made(_training(model, F.cross_entropy, optimizer, x, y, compiled), leaves, True)


def block(arrays: Arrays, compiled: Callable, heads: int) -> Made:
    """A block of a transformer, forward and backward to the input and the parameters."""
    p = {name: _leaf(a) for name, a in arrays.items()}
    batch, times, width = arrays["x"].shape

    def attention(x):
        qkv = F.linear(x, p["w0"], p["b0"]).reshape(batch, times, 3, heads, width // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, times, width)
        return F.linear(mixed, p["w1"], p["b1"])

    def forward():
        x = p["x"]
        x = x + attention(F.layer_norm(x, (width,), p["scale0"], p["shift0"], EPS_NORM))
        y = F.layer_norm(x, (width,), p["scale1"], p["shift1"], EPS_NORM)
        y = F.linear(F.gelu(F.linear(y, p["w2"], p["b2"])), p["w3"], p["b3"])
        return (x + y).square().mean()

    return _backward(forward, p, compiled)


def norm_gelu(arrays: Arrays, compiled: Callable) -> Made:
    """Layer normalisation, GELU, summed."""
    leaves = {name: _leaf(a) for name, a in arrays.items()}
    x, scale, shift = leaves.values()
    return _backward(lambda: F.gelu(F.layer_norm(x, (x.shape[1],), scale, shift, EPS_NORM)).sum(), leaves, compiled)


def adam(arrays: Arrays, compiled: Callable) -> Made:
    """The update alone."""
    w = _leaf(arrays["w"])
    w.grad = torch.tensor(arrays["g"])
    optimizer = torch.optim.Adam([w], lr=LR, betas=BETAS, eps=EPS, fused=True)
    return Made(lambda: optimizer.step(), {"w": w}, True)


KINDS: dict[str, Callable[..., Made]] = {
    f.__name__: f for f in (chain, mlp, sigma, expression, lstm, cnn, block, norm_gelu, adam)
}
