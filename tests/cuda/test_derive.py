"""Derivatives of users' functions by rewriting them: against central differences, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import njit

from tapegrad.errors import KernelError
from tapegrad.kernels.cuda.derive import derivative
from tapegrad.kernels.cuda.slopes import SLOPES

STEP = 1e-6
SCALE = 1.5
TABLE = (1.0, 4.0, 9.0)


def newton(x):
    y = x
    for _ in range(20):
        if abs(y * y - x) < 1e-12 * x:
            return y
        y = half_of(y + x / y)
    return y


def half_of(x):
    return x * 0.5


def loops(x, y):
    """Assignments of several names, a while loop, maxima, powers."""
    a, b = x * y, x - y
    while a < 10:
        a, b = b * b + a + 1, a
    return math.sin(a) ** 2 + max(x, b, y) * math.atan2(a, b) + x**y


@njit
def jitted(x, y):
    return x / (1.0 + y * y)


def calls(x, y):
    """A jitted function, a table, numbers from outside, an annotated and an augmented assignment."""
    total: float = 0.0
    for k in range(3):
        total += TABLE[k] * jitted(x, y) * SCALE
        if k == 1:
            continue
        total -= np.tanh(x) if x > y else -float(y) % 0.3
    return total + np.minimum(x, y) - np.hypot(x, y)


def polynomial(x):
    """Horner's rule."""
    total = 0.0
    for c in (3.0, -2.0, 0.5):
        total = total * x + c
    return total


PROGRAMS = {
    "newton": (newton, (2.3,)),
    "loops": (loops, (1.3, 0.7)),
    "calls": (calls, (0.95, 0.4)),
    "calls the other way": (calls, (0.4, 0.95)),
    "polynomial": (polynomial, (0.7,)),
}


def difference(f, index: int, at: tuple) -> float:
    up, down = list(at), list(at)
    up[index] += STEP
    down[index] -= STEP
    return (plain(f)(*up) - plain(f)(*down)) / (2 * STEP)


def plain(f):
    return getattr(f, "py_func", f)


@pytest.mark.parametrize("name", PROGRAMS)
def test_first_and_second_derivatives(name):
    f, at = PROGRAMS[name]
    for i in range(len(at)):
        first = derivative(f, i)
        assert first(*at) == pytest.approx(difference(f, i, at), rel=1e-6, abs=1e-8)
        for j in range(len(at)):
            assert derivative(first, j)(*at) == pytest.approx(difference(first, j, at), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", sorted(SLOPES))
def test_the_table_of_slopes(name):
    function = getattr(math, name, None) or getattr(np, name, None)
    if function is None:
        pytest.skip(f"neither math nor NumPy has {name} in this version")
    at = (1.7, 0.6)[: len(SLOPES[name])] if "cosh" in name else (0.6, 0.45)[: len(SLOPES[name])]
    for i, slope in enumerate(SLOPES[name]):
        if slope is not None:
            assert slope(*at) == pytest.approx(difference(function, i, at), rel=1e-6, abs=1e-8)


def test_zero_is_strong():
    def guarded(x):
        y = math.sqrt(x) if x > 0 else 0.0
        for _ in range(2):
            y = y * 1.0
        return y

    assert derivative(guarded, 0)(-1.0) == derivative(guarded, 0)(0.0) == 0.0


def test_a_component_of_several():
    def both(x, y):
        return x * y, x - y

    assert derivative(both, 0, 0)(2.0, 3.0) == 3.0 and derivative(both, 1, 1)(2.0, 3.0) == -1.0


def lists(x):
    y = [x, x]
    return y[0]


def unknown(x):
    return math.gamma(x)


def stars(x):
    return max(*(x, x))


def shifted(x):
    return x << 1


def asserting(x):
    assert x > 0
    return x


REFUSED = {
    lists: r"lists, at line \d+: `\[x, x\]`: a List expression has no derivative in CUDA kernels",
    unknown: r"unknown, at line \d+: `math.gamma\(x\)`: math.gamma has no derivative",
    stars: r"stars, at line \d+: .*a call with keywords",
    shifted: r"shifted, at line \d+: `x << 1`: the operator LShift",
    asserting: r"asserting, at line \d+: .*a Assert statement",
}


@pytest.mark.parametrize("f", REFUSED, ids=lambda f: f.__name__)
def test_what_is_refused_names_the_line(f):
    with pytest.raises(KernelError, match=REFUSED[f]) as caught:
        derivative(f, 0)
    assert ".derivative" in str(caught.value)


def test_without_source():
    scope: dict = {}
    exec("def made(x):\n    return x * x", scope)
    with pytest.raises(KernelError, match="the source of made is not available"):
        derivative(scope["made"], 0)
