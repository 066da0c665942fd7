"""sin, cos and tan: x = n π/2 + r with |r| <= π/4, n π/2 taken off in three parts, polynomials in r."""

from __future__ import annotations

from ..emit import Emitter, Value
from .forms import FORM, function, horner, libm, odd

# π/2 in three parts of 24 or 53 bits, each cut off, not rounded, so that all are positive (r = -0 for x = -0)
HALF_PI = {
    "f32": (1.570796251296997, 7.549789415861596e-08, 5.390302529957765e-15),
    "f64": (1.5707963267948966, 6.123233995736765e-17, 1.0828566739219139e-32),
}
# sin r = r + r³ p(r²), |r| <= 0.79, to 2^-27.8 and 2^-57.7
SIN_P = {
    "f32": (-0.16666653752326965, 0.008332106284797192, -0.00019507846445776522),
    "f64": (
        -0.16666666666666638,
        0.008333333333323192,
        -0.00019841269830126148,
        2.755731373551894e-06,
        -2.50507576597953e-08,
        1.5896455702319815e-10,
    ),
}
# cos r = 1 - r²/2 + r⁴ p(r²), |r| <= 0.79, to 2^-32 and 2^-63
COS_P = {
    "f32": (0.041666653007268906, -0.0013887601671740413, 2.4460156055283733e-05),
    "f64": (
        0.04166666666666665,
        -0.001388888888888118,
        2.48015872931206e-05,
        -2.7557315239682247e-07,
        2.0875826730710135e-09,
        -1.1364296272413772e-11,
    ),
}
# tan r = r + r³ p(r²), |r| <= 0.789, to 2^-25.4
TAN_P = (
    0.3333318829536438,
    0.13337913155555725,
    0.053476475179195404,
    0.02423178218305111,
    0.0033883170690387487,
    0.009251791052520275,
)
LARGE = {"f32": 1e5, "f64": 1e9}  # beyond, n as a float is too rough: libm reduces such arguments


def _reduce(e: Emitter, x: Value) -> tuple[Value, Value]:
    """n, an integer in its low bits, and r. The first step is exact, the other two round once each."""
    form = FORM[x.type]
    magic = e.const(form.magic, x.type)
    t = e.fma(x, e.const(2 / 3.141592653589793, x.type), magic)
    n, r = e.sub(t, magic), x
    for part in HALF_PI[x.type]:
        r = e.fma(n, e.const(-part, x.type), r)
    return e.bitcast(t, form.integer), r


def _is_odd(e: Emitter, n: Value) -> Value:
    return e.compare("ne", e.and_(n, e.const(1, n.type)), e.const(0, n.type))


def _sine(e: Emitter, n: Value, r: Value) -> Value:
    """sin(n π/2 + r): by the quadrant, sin r, cos r, -sin r or -cos r."""
    z = e.mul(r, r)
    sin = e.copysign(e.fma(e.mul(z, r), horner(e, z, SIN_P[r.type]), r), r)  # for the sake of -0
    cos = horner(e, z, (1.0, -0.5, *COS_P[r.type]))
    y = e.bitcast(e.select(_is_odd(e, n), cos, sin), n.type)
    sign = e.shl(e.and_(n, e.const(2, n.type)), e.const(FORM[r.type].bits - 2, n.type))
    return e.bitcast(e.xor(y, sign), r.type)


def _unless_large(e: Emitter, name: str, x: Value, y: Value) -> Value:
    return e.unlikely(e.compare("gt", e.abs(x), e.const(LARGE[x.type], x.type)), y, lambda: libm(e, name, x))


@function("sin")
def sin(e: Emitter, x: Value) -> Value:
    return _unless_large(e, "sin", x, _sine(e, *_reduce(e, x)))


@function("cos")
def cos(e: Emitter, x: Value) -> Value:
    n, r = _reduce(e, x)
    return _unless_large(e, "cos", x, _sine(e, e.add(n, e.const(1, n.type)), r))


@function("tan", double="tan")
def tan(e: Emitter, x: Value) -> Value:
    """tan r for even n, -1 / tan r for odd n."""
    n, r = _reduce(e, x)
    y = e.copysign(odd(e, r, TAN_P), r)
    cot = _is_odd(e, n)
    y = e.div(e.select(cot, e.const(-1.0, x.type), y), e.select(cot, y, e.const(1.0, x.type)))
    return _unless_large(e, "tan", x, y)
