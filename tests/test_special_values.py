"""Every elementwise op at the numbers where formulas break, against NumPy: the same nan, the same inf, close values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from registry_cases import elementwise

import tapegrad as tg

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -3.0, math.inf, -math.inf, math.nan, 1e30, -1e30, 1e-30, -1e-30]
SUBNORMAL = {"float32": [1e-45, -1e-45, 1.1e-38, -1.1e-38], "float64": [5e-324, -5e-324, 2.2e-308, -2.2e-308]}
LARGEST = {
    "float32": [3.4028235e38, -3.4028235e38, 88.0, 89.5, -104.5, 8388607.5],
    "float64": [1.7e308, -1.7e308, 709.0, 710.5, -746.0, 4503599627370495.5],
}

RTOL = {"float32": 3e-6, "float64": 1e-11}
CANCELS = {
    "gelu_erf": 1e-7,
    "gelu_tanh": 1e-7,
}  # 1 + erf(x) loses the digits of small results: absolute slack, in float32 units


def numbers(dtype: str) -> np.ndarray:
    return np.array(SPECIAL + SUBNORMAL[dtype] + LARGEST[dtype], dtype)


def arguments(op, dtype: str) -> list[np.ndarray]:
    """All combinations for one and two inputs; a few values of further inputs, and of parameters with defaults."""
    xs = numbers(dtype)
    optional = any(p.default is not p.empty for p in op.signature.parameters.values())
    if op.arity <= 2 and not optional:
        return [np.array(a, dtype) for a in zip(*itertools.product(xs, repeat=op.arity), strict=True)]
    few = np.array([0.0, -1.5, 2.5, math.nan] + [math.inf] * (not optional), dtype)
    return [np.array(a, dtype) for a in zip(*itertools.product(xs, *[few] * (op.arity - 1)), strict=True)]


def rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    """The float64 result in the dtype of the op."""
    with np.errstate(all="ignore"):
        return np.asarray(x).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in elementwise()])
def test_special_values(op, dtype):
    xs = arguments(op, dtype)
    got = op(*map(tg.tensor, xs)).numpy()
    with np.errstate(all="ignore"):
        expected = op.reference(*(x.astype(np.float64) for x in xs))
    expected = rounded(expected, got.dtype.name)
    same = (got == expected) | (np.isnan(got) & np.isnan(expected)) if got.dtype.kind == "f" else got == expected
    if got.dtype.kind == "f":
        finite = np.isfinite(got) & np.isfinite(expected)
        tiny = np.finfo(dtype).smallest_normal
        with np.errstate(all="ignore"):
            gap = np.abs(got.astype(float) - expected)
        same |= finite & (gap <= RTOL[dtype] * np.abs(expected.astype(float)) + 4 * tiny + CANCELS.get(op.name, 0.0))
    wrong = np.flatnonzero(~same)
    assert wrong.size == 0, [(*(float(x[i]) for x in xs), f"got {got[i]} wanted {expected[i]}") for i in wrong[:12]]


@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in elementwise() if op.arity == 1])
def test_the_sign_of_zero(op):
    """Where NumPy gives a signed zero at a signed zero, so does the op."""
    x = np.array([0.0, -0.0], np.float32)
    got = op(tg.tensor(x)).numpy()
    if got.dtype.kind != "f" or op.name == "sign":  # sign keeps that of its zero; NumPy's does not
        return
    with np.errstate(all="ignore"):
        expected = np.asarray(op.reference(x))
    zero = expected == 0
    assert (np.signbit(got) == np.signbit(expected))[zero].all(), (got, expected)


@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in elementwise() if op.arity == 1])
def test_vector_and_tail_agree(op):
    """An element has the same value alone, in a full vector, and in the tail behind it."""
    rng = np.random.default_rng(0)
    low, high = (op.samples or [{}])[0].get("domain", (-2.0, 2.0))
    x = rng.uniform(low, high, 67).astype(np.float32)
    whole = op(tg.tensor(x)).numpy()
    alone = [op(tg.tensor(v)).numpy() for v in x[:3]] + [op(tg.tensor(x[60 + i : 61 + i])).numpy()[0] for i in range(7)]
    np.testing.assert_array_equal(np.concatenate([whole[:3], whole[60:67]]), np.array(alone))


SATURATED = {
    "sigmoid": ([-1000.0, 1000.0], [0.0, 0.0]),
    "tanh": ([-50.0, 50.0], [0.0, 0.0]),
    "softplus": ([-1000.0, 1000.0], [0.0, 1.0]),
    "erf": ([-20.0, 20.0], [0.0, 0.0]),
    "silu": ([-1000.0, 1000.0], [0.0, 1.0]),
    "gelu_erf": ([-100.0, 100.0], [0.0, 1.0]),
    "relu": ([-math.inf, 0.0, math.inf], [0.0, 0.0, 1.0]),
    "exp": ([-math.inf, -1000.0], [0.0, 0.0]),
    "abs": ([0.0, -2.0, -math.inf], [0.0, -1.0, -1.0]),
    "elu": ([-1000.0, 1000.0], [0.0, 1.0]),
}


@pytest.mark.parametrize("name", SATURATED)
def test_derivatives_where_functions_are_flat(name):
    """No nan from 0 times inf in a derivative."""
    xs, slopes = SATURATED[name]
    op = next(op for op in elementwise() if op.name == name)
    x = tg.tensor(xs, requires_grad=True)
    (op(x) if op.arity == 1 else op(x, 1.0)).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), slopes)


def test_the_branch_not_taken_gives_no_nan():
    x = tg.tensor([0.0, 4.0, -1.0], requires_grad=True)
    tg.where(x > 0, tg.sqrt(x), 0.0).sum().backward()
    with np.errstate(all="ignore"):
        assert x.grad.numpy()[1] == 0.25


@pytest.mark.parametrize("limits", [{"min": -1.0}, {"max": 2.0}, {"min": -1.0, "max": 2.0}])
def test_clip_passes_the_gradient_at_its_limits(limits):
    x = tg.tensor([-5.0, -1.0, 0.0, 2.0, 5.0], requires_grad=True)
    x.clip(**limits).sum().backward()
    inside = (x.numpy() >= limits.get("min", -9.0)) & (x.numpy() <= limits.get("max", 9.0))
    np.testing.assert_array_equal(x.grad.numpy(), inside)
