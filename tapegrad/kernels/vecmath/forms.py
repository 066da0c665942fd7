"""What the vector functions share: the registry, Horner's rule, and the formats of the two float types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps

from ..emit import Emitter, Value

# name -> function(e, *values) -> Value; every operand of one type, "f32" or "f64"
MATH: dict[str, Callable[..., Value]] = {}


class Form:
    """The layout of a float type, and the constants that reading or building an exponent needs."""

    __slots__ = ("bias", "bits", "integer", "magic", "mantissa", "type")

    def __init__(self, type: str, integer: str, bits: int, mantissa: int):
        self.type = type
        self.integer = integer  # the integer type of the same size
        self.bits = bits
        self.mantissa = mantissa  # stored bits of the significand
        self.bias = (1 << (bits - mantissa - 2)) - 1
        self.magic = 1.5 * 2.0**mantissa  # a float this large has no fraction: adding it rounds, and its low bits count


F32 = Form("f32", "i32", 32, 23)
F64 = Form("f64", "i64", 64, 52)
FORM = {"f32": F32, "f64": F64}


def function(name: str, double: str = "") -> Callable:
    """Register a vector function under `name`; its arithmetic is emitted without fast-math flags.

    double: the libm function that stands in for it in float64.
    """

    def register(f: Callable[..., Value]) -> Callable[..., Value]:
        @wraps(f)
        def exactly(e: Emitter, *values: Value) -> Value:
            if double and values[0].type == "f64":
                return e.libm(double, *values)
            with e.exact():
                return f(e, *values)

        MATH[name] = exactly
        return exactly

    return register


def horner(e: Emitter, x: Value, coefficients: Sequence[float]) -> Value:
    """c0 + c1 x + c2 x² + … by fused multiply-adds, coefficients from the lowest degree up."""
    c = [e.const(v, x.type) for v in coefficients]
    p = c[-1]
    for lower in reversed(c[:-1]):
        p = e.fma(p, x, lower)
    return p


def clamp(e: Emitter, x: Value, low: float, high: float) -> Value:
    """x held within [low, high]; NaN stays NaN, because the constant is the first operand of minps and maxps."""
    lo, hi = e.const(low, x.type), e.const(high, x.type)
    x = e.select(e.compare("lt", hi, x), hi, x)
    return e.select(e.compare("gt", lo, x), lo, x)


def odd(e: Emitter, r: Value, coefficients: Sequence[float]) -> Value:
    """r + r³ (c0 + c1 r² + …): an odd function with slope 1 at 0, exact for the smallest r, -0 excepted."""
    z = e.mul(r, r)
    return e.fma(e.mul(z, r), horner(e, z, coefficients), r)


def negative(e: Emitter, x: Value) -> Value:
    """i1: is the sign bit of x set?"""
    integer = FORM[x.type].integer
    return e.compare("lt", e.bitcast(x, integer), e.const(0, integer))


def libm(e: Emitter, name: str, *values: Value) -> Value:
    """The libm function for the type of the values: sinf or sin."""
    return e.libm(name + "f" * (values[0].type == "f32"), *values)
