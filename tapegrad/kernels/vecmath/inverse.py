"""arcsin, arccos, arctan, arctan2: odd polynomials on a short interval, reached by one root or one quotient."""

from __future__ import annotations

from ..emit import Emitter, Value
from .forms import function, negative, odd

PI = 3.141592653589793
# arctan q = q + q³ p(q²), |q| <= 1, to 2^-25.3
ATAN_P = (
    -0.3333320915699005,
    0.19994883239269257,
    -0.14219121634960175,
    0.10695163160562515,
    -0.07610297203063965,
    0.043860554695129395,
    -0.01674872264266014,
    0.0030121696181595325,
)
# arcsin w = w + w³ p(w²), |w| <= 1/2, to 2^-27.5
ASIN_P = (0.16666731238365173, 0.07495956867933273, 0.04540151730179787, 0.024475479498505592, 0.041716136038303375)


def _short_arcsin(e: Emitter, x: Value) -> tuple[Value, Value]:
    """i1: is |x| > 1/2; and arcsin w, w being |x| or else √((1 - |x|) / 2), since arcsin|x| = π/2 - 2 arcsin w."""
    a, half = e.abs(x), e.const(0.5, x.type)
    high = e.compare("gt", a, half)
    w = e.select(high, e.sqrt(e.fma(a, e.neg(half), half)), a)
    return high, odd(e, w, ASIN_P)


@function("arcsin", double="asin")
def arcsin(e: Emitter, x: Value) -> Value:
    high, p = _short_arcsin(e, x)
    y = e.select(high, e.fma(p, e.const(-2.0, x.type), e.const(PI / 2, x.type)), p)
    return e.copysign(y, x)


@function("arccos", double="acos")
def arccos(e: Emitter, x: Value) -> Value:
    high, p = _short_arcsin(e, x)
    p = e.copysign(p, x)
    far = e.select(negative(e, x), e.const(PI, x.type), e.const(0.0, x.type))
    base = e.select(high, far, e.const(PI / 2, x.type))
    return e.fma(p, e.select(high, e.const(2.0, x.type), e.const(-1.0, x.type)), base)


@function("arctan", double="atan")
def arctan(e: Emitter, x: Value) -> Value:
    a, one = e.abs(x), e.const(1.0, x.type)
    high = e.compare("gt", a, one)
    q = e.div(e.select(high, e.const(-1.0, x.type), a), e.select(high, a, one))
    y = e.add(odd(e, q, ATAN_P), e.select(high, e.const(PI / 2, x.type), e.const(0.0, x.type)))
    return e.copysign(y, x)


@function("arctan2", double="atan2")
def arctan2(e: Emitter, y: Value, x: Value) -> Value:
    """The angle of the point (x, y), by the quotient of the smaller by the larger of |x| and |y|."""
    a, b = e.abs(x), e.abs(y)
    steep = e.compare("lt", a, b)
    small, large = e.select(steep, a, b), e.select(steep, b, a)
    q = e.div(small, large)

    def slow() -> Value:  # 0/0 counts as 0 and inf/inf as 1
        zero = e.const(0.0, x.type)
        ratio = e.select(e.compare("eq", large, zero), zero, e.const(1.0, x.type))
        return e.select(e.compare("eq", small, large), ratio, q)

    q = e.unlikely(e.compare("ne", q, q), q, slow)
    r = odd(e, q, ATAN_P)
    r = e.select(steep, e.sub(e.const(PI / 2, x.type), r), r)
    r = e.select(negative(e, x), e.sub(e.const(PI, x.type), r), r)
    return e.copysign(r, y)
