"""erf, and the reciprocal square root."""

from __future__ import annotations

from ..emit import Emitter, Value
from .exponential import LN2, LOG2E, exp_polynomial, power_of_two
from .forms import F32, function, horner

CUT = 0.93
# erf x = x + x p(x²), |x| <= 0.93, to 2^-25.7
ERF_P = (
    0.12837915122509003,
    -0.37612488865852356,
    0.11281730234622955,
    -0.026762915775179863,
    0.0049872491508722305,
    -0.0005958940600976348,
)
# erf x = 1 - exp(-x g(x)), 0.92 <= x <= 3.95, to 2^-27.5
ERF_G = (
    1.1286485195159912,
    0.6351512670516968,
    0.10623696446418762,
    -0.023762131109833717,
    0.003642489667981863,
    -0.0003228111600037664,
    1.1232035831199028e-05,
)


@function("erf", double="erf")
def erf(e: Emitter, x: Value) -> Value:
    """A polynomial near 0, 1 - exp(polynomial) further out, as in N. Juffa's erff."""
    a, end = e.abs(x), e.const(3.95, x.type)
    near = e.fma(a, horner(e, e.mul(a, a), ERF_P), a)
    c = e.select(e.compare("lt", end, a), end, a)
    g = e.mul(e.neg(c), horner(e, c, ERF_G))
    magic = e.const(F32.magic + F32.bias, x.type)
    t = e.fma(g, e.const(LOG2E, x.type), magic)
    r = e.fma(e.sub(t, magic), e.const(-LN2, x.type), g)
    far = e.fma(exp_polynomial(e, r), e.neg(power_of_two(e, t)), e.const(1.0, x.type))
    return e.copysign(e.select(e.compare("gt", a, e.const(CUT, x.type)), far, near), x)


@function("rsqrt")
def rsqrt(e: Emitter, x: Value) -> Value:
    return e.div(e.const(1.0, x.type), e.sqrt(x))
