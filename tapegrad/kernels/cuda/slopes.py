"""Slopes of the functions that users' scalar functions may call, each a scalar function that is differentiated in its turn."""

from __future__ import annotations

import math
from collections.abc import Callable

FLAT = frozenset(
    ("int", "bool", "round", "floor", "ceil", "trunc", "rint", "sign", "isnan", "isinf", "isfinite", "range", "len")
)
PASSING = frozenset(("float", "float32", "float64"))


def scaled(slope, tangent):
    """slope · tangent, and 0 where the tangent is, beside any slope."""
    return slope * tangent if tangent != 0.0 else 0.0


def power_by_base(a, b):
    """b · a ** (b - 1), and 0 for b = 0."""
    return b * a ** (b - 1.0) if b != 0.0 else 0.0


def power_by_exponent(a, b):
    """log(a) · a ** b, and 0 where a = 0."""
    return math.log(a) * a**b if a != 0.0 else 0.0


def remainder_by_divisor(a, b):
    return -math.floor(a / b)


def exp_slope(x):
    return math.exp(x)


def expm1_slope(x):
    return math.exp(x)


def exp2_slope(x):
    return math.exp(0.6931471805599453 * x) * 0.6931471805599453


def log_slope(x):
    return 1.0 / x


def log1p_slope(x):
    return 1.0 / (1.0 + x)


def log2_slope(x):
    return 1.4426950408889634 / x


def log10_slope(x):
    return 0.4342944819032518 / x


def sin_slope(x):
    return math.cos(x)


def cos_slope(x):
    return -math.sin(x)


def tan_slope(x):
    return 1.0 + math.tan(x) * math.tan(x)


def asin_slope(x):
    return 1.0 / math.sqrt((1.0 - x) * (1.0 + x))


def acos_slope(x):
    return -1.0 / math.sqrt((1.0 - x) * (1.0 + x))


def atan_slope(x):
    return 1.0 / (1.0 + x * x)


def sinh_slope(x):
    return math.cosh(x)


def cosh_slope(x):
    return math.sinh(x)


def tanh_slope(x):
    return (1.0 - math.tanh(x)) * (1.0 + math.tanh(x))


def asinh_slope(x):
    return 1.0 / math.sqrt(x * x + 1.0)


def acosh_slope(x):
    return 1.0 / math.sqrt((x - 1.0) * (x + 1.0))


def atanh_slope(x):
    return 1.0 / ((1.0 - x) * (1.0 + x))


def sqrt_slope(x):
    return 0.5 / math.sqrt(x)


def abs_slope(x):
    return 1.0 if x > 0.0 else (-1.0 if x < 0.0 else 0.0)


def erf_slope(x):
    return 1.1283791670955126 * math.exp(-(x * x))


def erfc_slope(x):
    return -1.1283791670955126 * math.exp(-(x * x))


def square_slope(x):
    return 2.0 * x


def atan2_by_first(a, b):
    return b / (a * a + b * b)


def atan2_by_second(a, b):
    return -a / (a * a + b * b)


def hypot_by_first(a, b):
    return a / math.hypot(a, b) if a != 0.0 or b != 0.0 else 0.0


def hypot_by_second(a, b):
    return b / math.hypot(a, b) if a != 0.0 or b != 0.0 else 0.0


def copysign_by_first(a, b):
    return 1.0 if (a >= 0.0) == (math.copysign(1.0, b) > 0.0) else -1.0


_ONE = (
    exp_slope, expm1_slope, exp2_slope, log_slope, log1p_slope, log2_slope, log10_slope, sin_slope, cos_slope, tan_slope,
    asin_slope, acos_slope, atan_slope, sinh_slope, cosh_slope, tanh_slope, asinh_slope, acosh_slope, atanh_slope, sqrt_slope,
    abs_slope, erf_slope, erfc_slope, square_slope,
)  # fmt: skip
SLOPES: dict[str, tuple[Callable | None, ...]] = {fn.__name__.removesuffix("_slope"): (fn,) for fn in _ONE}
SLOPES |= {"arc" + name[1:]: SLOPES[name] for name in ("asin", "acos", "atan", "asinh", "acosh", "atanh")}
SLOPES |= {"fabs": (abs_slope,), "absolute": (abs_slope,)}
SLOPES |= {"atan2": (atan2_by_first, atan2_by_second), "hypot": (hypot_by_first, hypot_by_second)}
SLOPES |= {"pow": (power_by_base, power_by_exponent), "copysign": (copysign_by_first, None)}
SLOPES |= {"arctan2": SLOPES["atan2"], "power": SLOPES["pow"]}
