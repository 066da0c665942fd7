"""The tasks written in JAX: each step one jitted function whose state is donated.

Dense weights are kept as (in, out), images as (N, height, width, channels) and kernels as (height, width, in, out), which
is how JAX's own libraries keep them and what its CPU kernels are fastest with; results are turned back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ..benchmarks.tasks import BETAS, DROPPED, EPS, EPS_ADAGRAD, EPS_NORM, LR, Arrays, Task, parameters

VERSION = f"JAX {jax.__version__}"


@dataclass
class Made:
    """A task that is ready to run. `results` as in `tasks_tapegrad.Made`."""

    step: Callable[[], object]
    state: dict  # "params" where it trains, otherwise "grads", by the names of the data
    turn_back: Callable[[str, np.ndarray], np.ndarray]
    trains: bool
    start: Arrays = field(default_factory=dict)
    plain: Callable[[], object] | None = None
    last: object = None

    def results(self, steps: int) -> Arrays:
        """The last output, and gradients or movements, after that many steps."""
        step = self.plain or self.step
        if self.trains:
            self.start = self._read("params")
        for _ in range(steps):
            out = step()
        found = {} if out is None else {"output": np.array(out)}
        if self.trains:
            return found | {name: a - self.start[name] for name, a in self._read("params").items()}
        return found | self._read("grads")

    def _read(self, what: str) -> Arrays:
        return {name: self.turn_back(name, np.array(a)) for name, a in self.state[what].items()}

    def wait(self) -> None:
        """Calls return before they have run."""
        jax.block_until_ready(self.state)


def prepare(threads: int) -> None:
    """JAX takes its threads from the CPUs that the process may run on, which `child` has set."""
    del threads
    jax.config.update("jax_default_prng_impl", "rbg")  # on a CPU several times as fast as the default


def build(task: Task) -> Made:
    """The task, jitted."""
    return KINDS[task.kind](task.data(), **task.settings)


def _same(name: str, a: np.ndarray) -> np.ndarray:
    return a


def _transposed(name: str, a: np.ndarray) -> np.ndarray:
    """Dense weights, from one order of axes to the other."""
    return np.ascontiguousarray(a.T) if a.ndim == 2 and name[0] == "w" else a


def _device(arrays: Arrays, turn: Callable = _same) -> dict[str, jax.Array]:
    # float32 and int32 as JAX has them by default; a copy, because what is donated must not be NumPy's memory
    return {name: jnp.array(turn(name, a)) for name, a in arrays.items()}


def _backward(loss: Callable, leaves: dict, turn_back: Callable = _same) -> Made:
    """loss(leaves) and its gradients."""
    run, state = jax.jit(jax.value_and_grad(loss)), {"grads": {}}

    def step():
        value, state["grads"] = run(leaves)
        return value

    return Made(step, state, turn_back, False)


def _adam(p, g, m, v, t):
    m = m + (1 - BETAS[0]) * (g - m)
    v = BETAS[1] * v + (1 - BETAS[1]) * (g * g)
    step_size, root = LR / (1 - BETAS[0] ** t), jnp.sqrt(1 - BETAS[1] ** t)
    return p - step_size * m / (jnp.sqrt(v) / root + EPS), m, v


def _sgd(p, g, m, v, t):
    return p - LR * g, m, v


def _adagrad(p, g, m, v, t):
    v = v + g * g
    return p - LR * g / (jnp.sqrt(v) + EPS_ADAGRAD), m, v


def _state(params: dict, rule: Callable) -> dict:
    """Parameters, moments (empty ones where the rule has none) and the number of steps taken."""
    zeros = lambda used: {n: jnp.zeros(p.shape if used else ()) for n, p in params.items()}  # noqa: E731
    return {"params": params, "m": zeros(rule is _adam), "v": zeros(rule is not _sgd), "t": jnp.float32(0)}


def _jitted(loss: Callable, rule: Callable) -> Callable:
    """A step of training as one function: state, which is donated, and a batch -> state, loss(params, t, *batch)."""

    @partial(jax.jit, donate_argnums=0)
    def run(state, *batch):
        t, new = state["t"] + 1, {"params": {}, "m": {}, "v": {}}
        value, grads = jax.value_and_grad(loss)(state["params"], t, *batch)
        for n, p in state["params"].items():
            new["params"][n], new["m"][n], new["v"][n] = rule(p, grads[n], state["m"][n], state["v"][n], t)
        return new | {"t": t}, value

    return run


def _training(params: dict, batch: tuple, rule: Callable, turn_back: Callable, loss: Callable, plain=None) -> Made:
    """Steps of loss, and of `plain` where results are compared of another one, on one state."""

    def stepping(run):
        def step():
            made.state, value = run(made.state, *batch)
            return value

        return step

    made = Made(stepping(_jitted(loss, rule)), _state(params, rule), turn_back, True)
    made.plain = plain and stepping(_jitted(plain, rule))
    return made


def chain(arrays: Arrays, op: str, backward: bool, length: int) -> Made:
    """One op, again and again, the whole chain in one jitted function: no Python runs per op."""
    x, seed = jnp.array(arrays["x"]), jnp.ones(arrays["x"].shape)
    w = jnp.array(arrays.get(op, arrays["x"]))
    body = {"add": jnp.add, "multiply": jnp.multiply, "matmul": jnp.matmul, "tanh": lambda y, w: jnp.tanh(y)}[op]

    def forward(x, w):
        for _ in range(length):
            x = body(x, w)
        return x

    def both(x, w, seed):
        y, back = jax.vjp(lambda x: forward(x, w), x)
        return y, back(seed)[0]

    run, arguments = (jax.jit(both), (x, w, seed)) if backward else (jax.jit(forward), (x, w))
    state = {"grads": {}}

    def step():
        state["y"] = found = run(*arguments)
        if not backward:
            return found
        state["grads"]["x"] = found[1]
        return found[0]

    return Made(step, state, _same, False)


def _dense(x, params: dict, count: int, drop: Callable = lambda i, x: x):
    for i in range(count):
        x = drop(i, x) @ params[f"w{i}"] + params[f"b{i}"]
        x = jax.nn.relu(x) if i < count - 1 else x
    return x


def _cross_entropy(logits, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()


def mlp(arrays: Arrays, optimizer: str) -> Made:
    """Dense layers with ReLU between them."""
    params = _device(parameters(arrays), _transposed)
    batch, count = (jnp.array(arrays["x"]), jnp.array(arrays["y"])), len(params) // 2

    def entropy(p, t, x, y):
        return _cross_entropy(_dense(x, p, count), y)

    def square(p, t, x, y):
        return jnp.square(_dense(x, p, count) - y).mean()

    rule, loss = (_sgd, entropy) if optimizer == "SGD" else (_adam, square)
    return _training(params, batch, rule, _transposed, loss)


def sigma(arrays: Arrays) -> Made:
    """Dropout before each of three dense layers, Adagrad. Results are compared without dropout."""

    def loss(p, t, x, y):
        keys = jax.random.split(jax.random.key(t.astype(jnp.int32)), 3)  # made here, so that a step is one call

        def drop(i, x):
            return jnp.where(jax.random.bernoulli(keys[i], 1 - DROPPED[i], x.shape), x / (1 - DROPPED[i]), 0.0)

        return _cross_entropy(_dense(x, p, 3, drop), y)

    def plain(p, t, x, y):
        return _cross_entropy(_dense(x, p, 3), y)

    batch = (jnp.array(arrays["x"]), jnp.array(arrays["y"]))
    return _training(_device(parameters(arrays), _transposed), batch, _adagrad, _transposed, loss, plain)


def expression(arrays: Arrays) -> Made:
    """A chain of elementwise functions."""

    def loss(leaves):
        x = leaves["x"]
        return (jnp.tanh(1.5 * x + 0.3) * jax.nn.sigmoid(x) + jnp.exp(-x * x)).sum()

    return _backward(loss, _device(arrays))


def lstm(arrays: Arrays, hidden: int) -> Made:
    """lax.scan over time; the inputs' share of the gates of all times in one product before it."""
    x = jnp.array(arrays["x"])
    start = jnp.zeros((x.shape[1], hidden))

    def loss(p):
        def cell(carried, share):
            h, c = carried
            i, f, g, o = jnp.split(share + h @ p["w1"], 4, 1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        shares = x @ p["w0"] + p["b0"] + p["b1"]
        return jnp.square(jax.lax.scan(cell, (start, start), shares)[1]).mean()

    return _backward(loss, _device(parameters(arrays), _transposed), _transposed)


def _channels_last(name: str, a: np.ndarray) -> np.ndarray:
    """Weights as JAX wants them. w2 reads the flattened images, whose axes turn around, too."""
    if a.ndim == 4:
        return np.ascontiguousarray(a.transpose(2, 3, 1, 0))
    if name == "w2":
        return np.ascontiguousarray(a.reshape(128, 64, 7, 7).transpose(2, 3, 1, 0).reshape(-1, 128))
    return _transposed(name, a)


def _channels_first(name: str, a: np.ndarray) -> np.ndarray:
    if a.ndim == 4:
        return a.transpose(3, 2, 0, 1)
    if name == "w2":
        return a.reshape(7, 7, 64, 128).transpose(3, 2, 0, 1).reshape(128, -1)
    return _transposed(name, a)


def cnn(arrays: Arrays) -> Made:
    """Two 3×3 convolutions, pooling, two dense layers."""
    params = _device(parameters(arrays), _channels_last)
    x, y = jnp.array(arrays["x"].transpose(0, 2, 3, 1)), jnp.array(arrays["y"])

    def pooled(x):  # as a reshape: the gradient of lax.reduce_window takes longer than the convolutions
        n, height, width, channels = x.shape
        return x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))

    def loss(p, t, x, y):
        for i in (0, 1):
            x = jax.lax.conv_general_dilated(x, p[f"w{i}"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = pooled(jax.nn.relu(x + p[f"b{i}"]))
        x = jax.nn.relu(x.reshape(x.shape[0], -1) @ p["w2"] + p["b2"])
        return _cross_entropy(x @ p["w3"] + p["b3"], y)

    return _training(params, (x, y), _adam, _channels_first, loss)


def _layer_norm(x, scale, shift):
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + EPS_NORM) * scale + shift


def block(arrays: Arrays, heads: int) -> Made:
    """A block of a transformer, forward and backward to the input and the parameters."""
    batch, times, width = arrays["x"].shape
    size = width // heads

    def attention(x, p):
        qkv = (x @ p["w0"] + p["b0"]).reshape(batch, times, 3, heads, size)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) / math.sqrt(size))
        return (weights @ v).transpose(0, 2, 1, 3).reshape(batch, times, width) @ p["w1"] + p["b1"]

    def loss(p):
        x = p["x"]
        x = x + attention(_layer_norm(x, p["scale0"], p["shift0"]), p)
        y = _layer_norm(x, p["scale1"], p["shift1"])
        y = jax.nn.gelu(y @ p["w2"] + p["b2"], approximate=False) @ p["w3"] + p["b3"]
        return jnp.square(x + y).mean()

    return _backward(loss, _device(arrays, _transposed), _transposed)


def norm_gelu(arrays: Arrays) -> Made:
    """Layer normalisation, GELU, summed."""

    def loss(p):
        return jax.nn.gelu(_layer_norm(p["x"], p["scale"], p["shift"]), approximate=False).sum()

    return _backward(loss, _device(arrays))


def adam(arrays: Arrays) -> Made:
    """The update alone."""
    g = jnp.array(arrays["g"])

    @partial(jax.jit, donate_argnums=0)
    def run(state, g):
        t = state["t"] + 1
        new = _adam(state["params"]["w"], g, state["m"]["w"], state["v"]["w"], t)
        return dict(zip(("params", "m", "v"), ({"w": a} for a in new), strict=True)) | {"t": t}

    def step():
        made.state = run(made.state, g)

    made = Made(step, _state({"w": jnp.array(arrays["w"])}, _adam), _same, True)
    return made


KINDS: dict[str, Callable[..., Made]] = {
    f.__name__: f for f in (chain, mlp, sigma, expression, lstm, cnn, block, norm_gelu, adam)
}
