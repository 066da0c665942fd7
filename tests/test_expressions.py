"""Random expressions of 1 to 12 ops, with broadcasting: values against NumPy, gradients against finite differences.

The ops are smooth everywhere and tame, so that a chain of a dozen neither overflows nor has kinks.
"""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import tapegrad as tg

UNARY = {
    "sin": (tg.sin, np.sin),
    "cos": (tg.cos, np.cos),
    "tanh": (tg.tanh, np.tanh),
    "arctan": (tg.arctan, np.arctan),
    "sigmoid": (tg.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "erf": (tg.erf, np.vectorize(math.erf, otypes=[float])),
    "softplus": (tg.softplus, lambda x: np.logaddexp(0, x)),
    "scaled": (lambda x: 2.5 - x * 0.5, lambda x: 2.5 - x * 0.5),
    "over": (lambda x: 1.0 / (2.0 + x * x), lambda x: 1.0 / (2.0 + x * x)),
    "sum": (
        lambda x: x.sum(0, keepdims=True) if x.ndim else x.sum(),
        lambda x: x.sum(0, keepdims=True) if x.ndim else x,
    ),
    "mean": (lambda x: x.mean(), np.mean),
    "logsumexp": (lambda x: x.logsumexp(-1) if x.ndim else x, lambda x: np.logaddexp.reduce(x, -1) if x.ndim else x),
    "cumsum": (lambda x: x.cumsum(-1) if x.ndim else x, lambda x: x.cumsum(-1) if x.ndim else x),
    "transpose": (tg.transpose, np.transpose),
    "flip": (tg.flip, np.flip),
    "flatten": (lambda x: x.reshape(-1), lambda x: x.reshape(-1)),
    "every other": (lambda x: x[::2] if x.ndim else x, lambda x: x[::2] if x.ndim else x),
    "last": (lambda x: x[..., -1] if x.ndim else x, lambda x: x[..., -1] if x.ndim else x),
    "twice": (
        lambda x: tg.concatenate([x, x], -1) if x.ndim else x,
        lambda x: np.concatenate([x, x], -1) if x.ndim else x,
    ),
    "new axis": (lambda x: tg.expand_dims(x, 0), lambda x: np.expand_dims(x, 0)),
}
BINARY = {
    "add": (tg.add, np.add),
    "subtract": (tg.subtract, np.subtract),
    "multiply": (lambda x, y: x * tg.tanh(y), lambda x, y: x * np.tanh(y)),
    "divide": (lambda x, y: x / (1.5 + tg.sin(y)), lambda x, y: x / (1.5 + np.sin(y))),
    "power": (lambda x, y: (1.0 + x * x) ** tg.tanh(y), lambda x, y: (1.0 + x * x) ** np.tanh(y)),
    "outer": (lambda x, y: tg.sin(tg.outer(x, y)), lambda x, y: np.sin(np.outer(x, y))),
}
LARGEST = 400  # elements of a value; where an op would pass that, its operand stays as it is


@st.composite
def programs(draw):
    """Input shapes, and steps (name, operand places): a value may be used any number of times."""
    lengths = st.sampled_from([1, 1, 2, 3, 5])
    shapes = draw(st.lists(st.lists(lengths, max_size=3).map(tuple), min_size=1, max_size=3))
    steps = []
    for i in range(draw(st.integers(1, 12))):
        place = st.integers(0, len(shapes) + i - 1)
        if draw(st.booleans()):
            steps.append((draw(st.sampled_from(sorted(UNARY))), draw(place)))
        else:
            steps.append((draw(st.sampled_from(sorted(BINARY))), draw(place), draw(place)))
    return shapes, steps, draw(st.integers(0, 2**16))


def evaluate(steps, values, side: int):
    """Run a program with tapegrad's ops (side 0) or NumPy's (side 1): the sum of the last value and of all unused."""
    values = list(values)
    count = len(values)
    used: set[int] = set()
    for name, *places in steps:
        operands = [values[p] for p in places]
        if len(operands) == 1:
            x = operands[0]
            grows = (name == "twice" and 2 * x.size > LARGEST) or (name == "new axis" and x.ndim > 3)
            made = x if grows else UNARY[name][side](x)
        else:
            x, y = operands
            if name == "outer":
                fits = x.size * y.size <= LARGEST
            else:
                fits = broadcasts(x.shape, y.shape)
            made = BINARY[name][side](x, y) if fits else x
        used.update(places)
        values.append(made)
    total = values[-1].sum()
    for i, v in enumerate(values[count:-1], count):
        if i not in used:
            total = total + v.sum() * 0.5
    return total


def broadcasts(a, b) -> bool:
    try:
        return math.prod(np.broadcast_shapes(a, b)) <= LARGEST
    except ValueError:
        return False


@given(programs())
def test_values_and_gradients(program):
    shapes, steps, seed = program
    rng = np.random.default_rng(seed)
    arrays = [rng.uniform(-1.5, 1.5, s) for s in shapes]
    tensors = [tg.tensor(a, requires_grad=True) for a in arrays]
    y = evaluate(steps, tensors, 0)
    expected = evaluate(steps, arrays, 1)
    np.testing.assert_allclose(y.item(), expected, rtol=1e-10, atol=1e-10)

    single = evaluate(steps, [tg.tensor(a, dtype="float32") for a in arrays], 0)
    np.testing.assert_allclose(single.item(), expected, rtol=1e-3, atol=1e-3 * max(1.0, abs(float(expected))))

    if not y.requires_grad:
        return
    y.backward()
    ways = [rng.standard_normal(s) for s in shapes]
    eps = 1e-6
    ahead, behind = (
        evaluate(steps, [a + sign * eps * v for a, v in zip(arrays, ways, strict=True)], 1) for sign in (1, -1)
    )
    slope = float(ahead - behind) / (2 * eps)
    got = sum(float(np.vdot(t.grad.numpy(), v)) for t, v in zip(tensors, ways, strict=True) if t.grad is not None)
    assert abs(got - slope) <= 1e-4 + 1e-4 * abs(slope)


@given(programs())
def test_second_derivatives(program):
    """Hessian times vector against finite differences of the gradient."""
    shapes, steps, seed = program
    rng = np.random.default_rng(seed)
    arrays = [rng.uniform(-1.5, 1.5, s) for s in shapes]
    ways = [rng.standard_normal(s) for s in shapes]
    places = tuple(range(len(arrays)))

    def f(*xs):
        return evaluate(steps, xs, 0)

    def gradient(points):
        return [g.numpy() for g in tg.grad(f, places)(*map(tg.tensor, points))]

    found = tg.hvp(f, tuple(map(tg.tensor, arrays)), tuple(map(tg.tensor, ways)))
    found = found if isinstance(found, tuple) else (found,)
    eps = 1e-6
    ahead, behind = (gradient([a + sign * eps * v for a, v in zip(arrays, ways, strict=True)]) for sign in (1, -1))
    for h, a, b in zip(found, ahead, behind, strict=True):
        slope = (a - b) / (2 * eps)
        np.testing.assert_allclose(h.numpy(), slope, rtol=1e-3, atol=1e-4 * max(1.0, np.abs(slope).max(initial=0.0)))


@given(programs())
def test_adjoint_identity(program):
    """⟨J v, u⟩ = ⟨v, Jᵀ u⟩, up to rounding."""
    shapes, steps, seed = program
    rng = np.random.default_rng(seed)
    arrays = tuple(tg.tensor(rng.uniform(-1.5, 1.5, s)) for s in shapes)
    ways = tuple(tg.tensor(rng.standard_normal(s)) for s in shapes)

    def f(*xs):
        return evaluate(steps, xs, 0)

    y, forward = tg.jvp(f, arrays, ways)
    value, pull = tg.vjp(f, *arrays)
    u = tg.tensor(rng.standard_normal(y.shape))
    assert value.item() == y.item()
    left = (forward * u).sum().item()
    right = sum((v * g).sum().item() for v, g in zip(ways, pull(u), strict=True))
    size = sum(np.abs((v * g).numpy()).sum() for v, g in zip(ways, pull(u), strict=True))
    assert abs(left - right) <= 1e-9 * max(1.0, size)
