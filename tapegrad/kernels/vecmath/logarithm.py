"""Logarithms, and pow: x = 2^k (1 + f) with f in [√½ - 1, √2 - 1], and a polynomial in f."""

from __future__ import annotations

from collections.abc import Callable

from ..emit import Emitter, Value
from .exponential import EXP2_Q, LN2, scale
from .forms import F32, FORM, clamp, function, horner

# log(1 + f) = f - f²/2 + f³ p(f), to 2^-26.5
LOG_P = (
    0.3333333134651184,
    -0.250008225440979,
    0.20001259446144104,
    -0.16623207926750183,
    0.14200899004936218,
    -0.1316405087709427,
    0.12765511870384216,
    -0.07613713294267654,
)
# the same on [-1/4, 1/2], for log1p, to 2^-26.6
LOG1P_P = (
    0.3333345055580139,
    -0.2500009536743164,
    0.19990848004817963,
    -0.1664726287126541,
    0.14478521049022675,
    -0.13161927461624146,
    0.10463918745517731,
    -0.04507682844996452,
)
# log2(1 + f) = f p(f), to 2^-26
LOG2_P = (
    1.4426950216293335,
    -0.7213472723960876,
    0.48090463876724243,
    -0.36070725321769714,
    0.2882360517978668,
    -0.23910942673683167,
    0.21014125645160675,
    -0.20052765309810638,
    0.15681950747966766,
    -0.05289869382977486,
)
# log10(1 + f) = f p(f), to 2^-25.1
LOG10_P = (
    0.4342944920063019,
    -0.2171471118927002,
    0.14476130902767181,
    -0.10858554393053055,
    0.08705675601959229,
    -0.07216550409793854,
    0.058244142681360245,
    -0.053966276347637177,
    0.07481066137552261,
    -0.06385861337184906,
)
# log(1 + f) = 2 artanh s = 2s + s³ p(s²), s = f / (2 + f), in float64, to 2^-58.6
ARTANH_P = (
    0.666666666666671,
    0.39999999999540176,
    0.2857142871940593,
    0.22222200598972858,
    0.18183471470532042,
    0.15316183457129443,
    0.14776544798651292,
)
LN2_EXACT, LN2_REST = 0.6931471803691238, 1.9082149292705877e-10  # k times the first is exact
LOG10_2_HIGH, LOG10_2_LOW = 0.3010299801826477, 1.5481331772093654e-08
# log2(1 + f) = f p(f) in float64, to 2^-33.2: times any exponent that does not overflow, 2^-26 absolute
POW_P = (
    1.4426950409392885,
    -0.7213475252139652,
    0.4808983207402307,
    -0.3606728005000832,
    0.2885406428730858,
    -0.2405041748175406,
    0.20609627267510308,
    -0.17904695919581926,
    0.15900133658740853,
    -0.15698207155351404,
    0.15485806105782945,
    -0.08634685037471926,
)
# the bits of √½, of the smallest normal number and of infinity
SQRT_HALF = {"f32": 0x3F3504F3, "f64": 0x3FE6A09E667F3BCD}


def split(e: Emitter, x: Value) -> tuple[Value, Value]:
    """k, an integer, and f = x / 2^k - 1, exactly, for a positive normal x."""
    form = FORM[x.type]
    i = e.bitcast(x, form.integer)
    j = e.sub(i, e.const(SQRT_HALF[x.type], form.integer))
    whole = e.and_(j, e.const(-1 << form.mantissa, form.integer))
    f = e.sub(e.bitcast(e.sub(i, whole), x.type), e.const(1.0, x.type))
    return e.ashr(j, e.const(form.mantissa, form.integer)), f


def not_positive_normal(e: Emitter, x: Value) -> Value:
    """i1: is x zero, subnormal, negative, infinite or NaN?"""
    form = FORM[x.type]
    smallest, infinity = 1 << form.mantissa, ((1 << (form.bits - form.mantissa - 1)) - 1) << form.mantissa
    i = e.sub(e.bitcast(x, form.integer), e.const(smallest, form.integer))
    return e.unsigned_le(e.const(infinity - smallest, form.integer), i)


def normalise(e: Emitter, x: Value) -> tuple[Value, Value]:
    """A normal number for a positive subnormal x, and the power of two to add to its exponent."""
    form = FORM[x.type]
    small = e.compare("lt", x, e.const(2.0 ** (1 - form.bias), x.type))
    up = e.mul(x, e.const(2.0**form.mantissa, x.type))
    zero = e.const(0, form.integer)
    return e.select(small, up, x), e.select(small, e.const(-form.mantissa, form.integer), zero)


def _logarithm(e: Emitter, x: Value, value: Callable[[Value, Value], Value]) -> Value:
    """value(k, f), k as a float, with the special values of a logarithm."""
    k, f = split(e, x)

    def slow() -> Value:
        normal, more = normalise(e, x)
        k, f = split(e, normal)
        y = value(e.cast(e.add(k, more), x.type), f)
        inf, zero = e.const(float("inf"), x.type), e.const(0.0, x.type)
        y = e.select(e.compare("lt", x, inf), y, x)  # infinity and NaN stand
        y = e.select(e.compare("lt", x, zero), e.const(float("nan"), x.type), y)
        return e.select(e.compare("eq", x, zero), e.neg(inf), y)

    return e.unlikely(not_positive_normal(e, x), value(e.cast(k, x.type), f), slow)


def _log_f64(e: Emitter, k: Value, f: Value, more: Value | None = None) -> Value:
    """log(2^k (1 + f)) + more in float64, summed as in FreeBSD's e_log.c."""
    square = e.mul(e.mul(f, f), e.const(0.5, f.type))
    s = e.div(f, e.add(f, e.const(2.0, f.type)))
    z = e.mul(s, s)
    p = e.fma(z, horner(e, z, ARTANH_P), square)
    low = e.const(LN2_REST, f.type)
    low = e.fma(s, p, e.mul(k, low) if more is None else e.fma(k, low, more))
    return e.fma(k, e.const(LN2_EXACT, f.type), e.sub(f, e.sub(square, low)))


@function("log")
def log(e: Emitter, x: Value) -> Value:
    def value(k: Value, f: Value) -> Value:
        if x.type == "f64":
            return _log_f64(e, k, f)
        p = e.fma(horner(e, f, LOG_P), f, e.const(-0.5, x.type))
        return e.fma(k, e.const(LN2, x.type), e.fma(e.mul(f, f), p, f))

    return _logarithm(e, x, value)


@function("log2", double="log2")
def log2(e: Emitter, x: Value) -> Value:
    return _logarithm(e, x, lambda k, f: e.fma(f, horner(e, f, LOG2_P), k))


@function("log10", double="log10")
def log10(e: Emitter, x: Value) -> Value:
    def value(k: Value, f: Value) -> Value:
        y = e.fma(k, e.const(LOG10_2_LOW, x.type), e.mul(f, horner(e, f, LOG10_P)))
        return e.fma(k, e.const(LOG10_2_HIGH, x.type), y)

    return _logarithm(e, x, value)


def _log1p_f32(e: Emitter, x: Value) -> Value:
    """1 + x = 2^k (1 + f) with f = 2^-k x + (2^-k - 1), so that what x loses in 1 + x is not lost.

    The reduction is that of N. Juffa's log1pf; f is in [-1/4, 1/2].
    """
    one = e.const(1.0, x.type)
    i = e.bitcast(x, "i32")
    whole = e.sub(e.bitcast(e.add(x, one), "i32"), e.const(0x3F400000, "i32"))
    whole = e.and_(whole, e.const(-1 << F32.mantissa, "i32"))
    four = e.bitcast(e.sub(e.const(0x40800000, "i32"), whole), x.type)  # 4 / 2^k: 2^-k may be subnormal
    f = e.add(e.bitcast(e.sub(i, whole), x.type), e.fma(four, e.const(0.25, x.type), e.neg(one)))
    k = e.cast(e.ashr(whole, e.const(F32.mantissa, "i32")), x.type)
    p = e.fma(horner(e, f, LOG1P_P), f, e.const(-0.5, x.type))
    return e.fma(k, e.const(LN2, x.type), e.fma(e.mul(f, f), p, f))


def _log1p_f64(e: Emitter, x: Value) -> Value:
    """log u + c / u with u + c = 1 + x exactly, as in FreeBSD's s_log1p.c."""
    one = e.const(1.0, x.type)
    u = e.add(x, one)
    c = e.select(e.compare("lt", x, one), e.sub(x, e.sub(u, one)), e.sub(one, e.sub(u, x)))
    k, f = split(e, u)
    return _log_f64(e, e.cast(k, x.type), f, e.div(c, u))


@function("log1p")
def log1p(e: Emitter, x: Value) -> Value:
    minus_one = e.const(-1.0, x.type)
    y = e.copysign(_log1p_f32(e, x) if x.type == "f32" else _log1p_f64(e, x), x)

    def slow() -> Value:  # infinity and NaN stand
        low = e.select(e.compare("lt", x, minus_one), e.const(float("nan"), x.type), x)
        return e.select(e.compare("eq", x, minus_one), e.const(float("-inf"), x.type), low)

    usual = e.and_(e.compare("gt", x, minus_one), e.compare("lt", x, e.const(float("inf"), x.type)))
    return e.unlikely(e.not_(usual), y, slow)


def _power(e: Emitter, k: Value, f: Value, y: Value, special: Callable[[Value], Value] | None = None) -> Value:
    """2^(y log2(2^k (1 + f))), the exponent in float64; `special` may change the logarithm."""
    f = e.cast(f, "f64")
    log2 = e.fma(f, horner(e, f, POW_P), e.cast(k, "f64"))
    t = clamp(e, e.mul(special(log2) if special else log2, e.cast(y, "f64")), -160.0, 140.0)
    n = e.rint(t)
    r = e.cast(e.sub(t, n), "f32")
    return scale(e, horner(e, r, (1.0, *EXP2_Q)), e.add(e.cast(n, "f32"), e.const(F32.magic, "f32")))


@function("pow", double="pow")
def pow_(e: Emitter, x: Value, y: Value) -> Value:
    """x^y with the special cases of C99 (annex F.9.4.4)."""
    inf, one, zero = e.const(float("inf"), "f32"), e.const(1.0, "f32"), e.const(0.0, "f32")

    def slow() -> Value:
        a = e.abs(x)
        normal, more = normalise(e, a)
        k, f = split(e, normal)
        at_zero, at_inf = e.compare("eq", a, zero), e.not_(e.compare("lt", a, inf))

        def special(log2: Value) -> Value:
            log2 = e.select(at_inf, e.cast(a, "f64"), log2)  # infinity or NaN
            return e.select(at_zero, e.const(float("-inf"), "f64"), log2)

        p = _power(e, e.add(k, more), f, y, special)
        whole = e.compare("eq", e.rint(y), y)
        half = e.mul(y, e.const(0.5, "f32"))
        odd = e.and_(whole, e.compare("ne", e.rint(half), half))
        below = e.compare("lt", x, zero)
        undefined = e.and_(e.and_(below, e.compare("lt", a, inf)), e.not_(whole))
        undefined = e.and_(undefined, e.compare("eq", y, y))
        p = e.select(odd, e.copysign(p, x), p)
        p = e.select(undefined, e.const(float("nan"), "f32"), p)
        unit = e.or_(e.compare("eq", y, zero), e.compare("eq", x, one))
        ends = e.and_(e.compare("eq", a, one), e.compare("eq", e.abs(y), inf))
        return e.select(e.or_(unit, ends), one, p)

    k, f = split(e, x)
    rare = e.or_(not_positive_normal(e, x), e.not_(e.compare("lt", e.abs(y), inf)))
    return e.unlikely(rare, _power(e, k, f, y), slow)
