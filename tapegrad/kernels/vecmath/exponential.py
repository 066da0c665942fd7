"""exp and its kin: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial in r, and 2^n built from integer bits."""

from __future__ import annotations

from ..emit import Emitter, Value
from .forms import F32, FORM, clamp, function, horner, odd

LOG2E = 1.4426950408889634
LN2 = 0.6931471824645996  # off by 2^-29 only, which will do in float32 where n is small
# ln 2 in two parts, good to 2^-45 and 2^-108
LN2_PARTS = {"f32": (0.693145751953125, 1.428606765330187e-06), "f64": (0.6931471805599453, 2.3190468138462996e-17)}
# e^r = 1 + r + r² q(r), to 2^-28.2 and 2^-57.6 of e^r
EXP_Q = {
    "f32": (0.4999999403953552, 0.16666516661643982, 0.041668105870485306, 0.008369162678718567, 0.0013837397564202547),
    "f64": (
        0.5000000000000011,
        0.16666666666666205,
        0.041666666666523064,
        0.008333333333638676,
        0.0013888888946060774,
        0.00019841269174072557,
        2.480149013657326e-05,
        2.7557898656265426e-06,
        2.763143056643622e-07,
        2.489705825695557e-08,
    ),
}
# e^r - 1 = r + r² q(r), to 2^-26.1 and 2^-60.8 of itself
EXPM1_Q = {
    "f32": (0.4999999701976776, 0.16666539013385773, 0.041667740792036057, 0.008367032743990421, 0.0013840475585311651),
    "f64": (
        0.5,
        0.16666666666666677,
        0.0416666666666667,
        0.008333333333321716,
        0.0013888888888871258,
        0.00019841269884990324,
        2.480158732182518e-05,
        2.7557246023687895e-06,
        2.755730335696663e-07,
        2.5108250467977583e-08,
        2.089834930017533e-09,
    ),
}
# 2^r = 1 + r q(r), |r| <= 1/2, to 2^-26.1
EXP2_Q = (
    0.6931471824645996,
    0.24022594094276428,
    0.055503662675619125,
    0.009625395759940147,
    0.001338773057796061,
    0.0001334201660938561,
)
# sinh r = r + r³ p(r²), |r| <= 1, to 2^-25.2
SINH_P = (0.16666719317436218, 0.00833014864474535, 0.00020383871742524207)
# beyond these, e^x is 0 or infinite
RANGE = {"f32": (-104.0, 89.0), "f64": (-746.0, 710.0)}
# beyond these, e^x - 1 is -1, and tanh x is 1
EXPM1_LOW, TANH_HIGH = {"f32": -18.0, "f64": -38.0}, {"f32": 9.1, "f64": 19.1}


def reduce(e: Emitter, x: Value, offset: int = 0) -> tuple[Value, Value]:
    """t and r with x = n ln 2 + r: t is n + offset + magic, so that its low bits are n + offset."""
    magic = e.const(FORM[x.type].magic + offset, x.type)
    t = e.fma(x, e.const(LOG2E, x.type), magic)
    n = e.sub(t, magic)
    r = x
    for part in LN2_PARTS[x.type]:
        r = e.fma(n, e.const(-part, x.type), r)
    return t, r


def power_of_two(e: Emitter, t: Value) -> Value:
    """2^n from t = n + bias + magic, where 2^n is a normal number: the low bits shifted into the exponent."""
    form = FORM[t.type]
    i = e.bitcast(t, form.integer)
    return e.bitcast(e.shl(i, e.const(form.mantissa, form.integer)), t.type)


def scale(e: Emitter, p: Value, t: Value) -> Value:
    """p 2^n from t = n + magic, for any n: to infinity, to subnormals (rounded once) and to zero.

    2^n itself may not be a number, so it goes in two halves.
    """
    form = FORM[t.type]
    shift = e.const(form.mantissa, form.integer)
    one = e.const(form.bias << form.mantissa, form.integer)
    i = e.bitcast(t, form.integer)
    whole = e.shl(i, shift)
    half = e.shl(e.lshr(i, e.const(1, form.integer)), shift)
    p = e.mul(p, e.bitcast(e.add(half, one), t.type))
    return e.mul(p, e.bitcast(e.add(e.sub(whole, half), one), t.type))


def exp_polynomial(e: Emitter, r: Value) -> Value:
    """e^r, |r| <= ln 2 / 2."""
    return horner(e, r, (1.0, 1.0, *EXP_Q[r.type]))


@function("exp")
def exp(e: Emitter, x: Value) -> Value:
    t, r = reduce(e, clamp(e, x, *RANGE[x.type]))
    return scale(e, exp_polynomial(e, r), t)


@function("exp2", double="exp2")
def exp2(e: Emitter, x: Value) -> Value:
    x = clamp(e, x, -151.0, 129.0)
    magic = e.const(F32.magic, x.type)
    t = e.add(x, magic)
    r = e.sub(x, e.sub(t, magic))
    return scale(e, horner(e, r, (1.0, *EXP2_Q)), t)


@function("expm1")
def expm1(e: Emitter, x: Value) -> Value:
    """s (1 + p) - 1 as s p + (s - 1), halved so that the highest power of two is no infinity yet."""
    t, r = reduce(e, clamp(e, x, EXPM1_LOW[x.type], RANGE[x.type][1]), FORM[x.type].bias - 1)
    s = power_of_two(e, t)
    p = e.fma(e.mul(r, r), horner(e, r, EXPM1_Q[x.type]), r)
    h = e.fma(s, p, e.sub(s, e.const(0.5, x.type)))
    return e.copysign(e.add(h, h), x)


@function("sigmoid")
def sigmoid(e: Emitter, x: Value) -> Value:
    """1 / (1 + e^-x), by z = e^-|x| so that nothing overflows.

    With q = z / (1 + z), the results are q = z - z q and 1 - q: the errors of the quotient count half or less.
    z may be subnormal; 2^64 z is not, and has one factor 2^n.
    """
    one, low = e.const(1.0, x.type), e.const(RANGE[x.type][0], x.type)
    c = e.neg(e.abs(x))
    t, r = reduce(e, e.select(e.compare("gt", low, c), low, c), FORM[x.type].bias + 64)
    z = e.mul(e.mul(exp_polynomial(e, r), power_of_two(e, t)), e.const(2.0**-64, x.type))
    q = e.div(z, e.add(z, one))
    top = e.select(e.compare("lt", x, e.const(0.0, x.type)), z, one)
    return e.fma(e.neg(top), q, top)


@function("tanh")
def tanh(e: Emitter, x: Value) -> Value:
    """-tanh|x| = h / (1 + h) with h = expm1(-2|x|) / 2, so that nothing cancels near 0.

    As h - h q, q being that quotient, the errors of q count half or less. With 2x = n ln 2 + 2r and s = 2^n,
    h = s p + (s - 1) / 2 where p = expm1(2r) / 2; 1 + h is computed beside it, not from it, to round but once.
    """
    form = FORM[x.type]
    half, end = e.const(0.5, x.type), e.const(-TANH_HIGH[x.type], x.type)
    c = e.neg(e.abs(x))
    c = e.select(e.compare("gt", end, c), end, c)
    magic = e.const(form.magic + form.bias, x.type)
    t = e.fma(c, e.const(2 * LOG2E, x.type), magic)
    n = e.sub(t, magic)
    high, low = (LN2, 0.0) if x.type == "f32" else LN2_PARTS["f64"]
    r = e.fma(n, e.const(-0.5 * high, x.type), c)  # exact
    s = power_of_two(e, t)
    p = horner(e, r, [c * 2.0 ** (k + 1) for k, c in enumerate(EXPM1_Q[x.type])])
    square = e.mul(r, r)
    if low:  # what r lacks, added last
        p = e.add(r, e.fma(square, p, e.mul(n, e.const(-0.5 * low, x.type))))
    else:
        p = e.fma(square, p, r)
    h = e.fma(s, p, e.fma(s, half, e.neg(half)))
    q = e.div(h, e.fma(s, p, e.fma(s, half, half)))
    return e.copysign(e.fma(e.neg(h), q, h), x)


def _quarter_exp(e: Emitter, x: Value) -> Value:
    """e^|x| / 4, finite as far as cosh x is."""
    high = e.const(90.0, x.type)
    a = e.abs(x)
    t, r = reduce(e, e.select(e.compare("lt", high, a), high, a), F32.bias - 2)
    return e.mul(exp_polynomial(e, r), power_of_two(e, t))


@function("cosh", double="cosh")
def cosh(e: Emitter, x: Value) -> Value:
    h = _quarter_exp(e, x)
    h = e.add(h, e.div(e.const(0.0625, x.type), h))
    return e.add(h, h)


@function("sinh", double="sinh")
def sinh(e: Emitter, x: Value) -> Value:
    h = _quarter_exp(e, x)
    h = e.sub(h, e.div(e.const(0.0625, x.type), h))
    a = e.abs(x)
    y = e.select(e.compare("lt", a, e.const(1.0, x.type)), odd(e, a, SINH_P), e.add(h, h))
    return e.copysign(y, x)
