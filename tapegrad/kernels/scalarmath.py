"""exp and log that loops over them vectorise: polynomials without tables, branches or calls, for float32 and float64.

Argument reduction as in Cephes (Moshier) and fdlibm (Sun, 1993); 2**n is built from integer bits. These functions are
compiled without "reassoc": the two-part constant of ln 2 gives nothing if its parts are added first.
"""

# mypy: ignore-errors
# Numba calls and types these functions, by its own rules
from __future__ import annotations

import math

import numpy as np
from numba.core import types
from numba.extending import overload

from .intrinsics import bits_to_float, float_to_bits

EXACT = {"error_model": "numpy", "fastmath": {"contract", "nsz"}, "forceinline": True, "boundscheck": False}
_s, _d, _i = np.float32, np.float64, np.int32


def fast_exp(x):
    """e**x; the whole range, with inf, nan and subnormal results."""
    return math.exp(x)


def fast_log(x):
    """The natural logarithm; subnormal arguments, 0, inf, nan and negative numbers as in C."""
    return math.log(x)


@overload(fast_exp, jit_options=EXACT)
def _fast_exp(x):
    return {types.float32: exp_single, types.float64: exp_double}.get(x)


@overload(fast_log, jit_options=EXACT)
def _fast_log(x):
    return {types.float32: log_single, types.float64: log_double}.get(x)


def exp_single(x):
    """2**n * p(r) with x = n ln 2 + r; 2**n in two halves, so that results below 2**-126 come out right."""
    v = x
    if v > _s(89.0):
        v = _s(89.0)
    if v < _s(-104.0):  # a nan passes both
        v = _s(-104.0)
    t = v * _s(1.44269504) + _s(12582912.0)  # 1.5 * 2**23: the integer nearest to v / ln 2 is in the low bits
    n = _i(float_to_bits(t) - _i(0x4B400000))  # Numba widens int32 to int64 in every operation
    f = t - _s(12582912.0)
    r = (v - f * _s(0.693359375)) + f * _s(2.12194440e-4)
    p = _s(1.9875691500e-4)
    p = p * r + _s(1.3981999507e-3)
    p = p * r + _s(8.3334519073e-3)
    p = p * r + _s(4.1665795894e-2)
    p = p * r + _s(1.6666665459e-1)
    p = p * r + _s(5.0000001201e-1)
    p = (p * (r * r) + r) + _s(1.0)
    half = _i(n >> _i(1))
    low = bits_to_float(_i((half + _i(127)) << _i(23)))
    high = bits_to_float(_i((n - half + _i(127)) << _i(23)))
    return p * low * high


def exp_double(x):
    """As exp_single, with the Taylor polynomial of degree 13 (error 4e-18 at |r| = ln 2 / 2)."""
    v = x
    if v > 710.0:
        v = 710.0
    if v < -746.0:
        v = -746.0
    t = v * 1.4426950408889634 + 6755399441055744.0  # 1.5 * 2**52
    n = float_to_bits(t) - 0x4338000000000000
    f = t - 6755399441055744.0
    r = (v - f * 6.93147180369123816490e-01) - f * 1.90821492927058770002e-10
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = (p * (r * r) + r) + 1.0
    half = n >> 1
    return p * bits_to_float((half + 1023) << 52) * bits_to_float((n - half + 1023) << 52)


def log_single(x):
    """k ln 2 + log(1 + f) with 1 + f in [sqrt(1/2), sqrt(2))."""
    v = x
    shift = _s(0.0)
    if x < _s(1.17549435e-38):
        v = x * _s(8388608.0)
        shift = _s(23.0)
    bits = float_to_bits(v)
    k = _i(_i(bits - _i(0x3F3504F3)) >> _i(23))
    f = bits_to_float(_i(bits - (k << _i(23)))) - _s(1.0)
    e = _s(k) - shift
    z = f * f
    p = _s(7.0376836292e-2)
    p = p * f - _s(1.1514610310e-1)
    p = p * f + _s(1.1676998740e-1)
    p = p * f - _s(1.2420140846e-1)
    p = p * f + _s(1.4249322787e-1)
    p = p * f - _s(1.6668057665e-1)
    p = p * f + _s(2.0000714765e-1)
    p = p * f - _s(2.4999993993e-1)
    p = p * f + _s(3.3333331174e-1)
    y = f * z * p - e * _s(2.12194440e-4)
    y = (f + (y - _s(0.5) * z)) + e * _s(0.693359375)
    if x == _s(0.0):
        y = _s(-np.inf)
    if x == _s(np.inf):
        y = _s(np.inf)
    if not x >= _s(0.0):
        y = _s(np.nan)
    return y


def log_double(x):
    """fdlibm's __ieee754_log, without its branches."""
    v = x
    shift = 0.0
    if x < 2.2250738585072014e-308:
        v = x * 4503599627370496.0
        shift = 52.0
    bits = float_to_bits(v)
    # the biased exponent, and its conversion to double through the bits of 2**52 + k: AVX2 has neither instruction
    k = (bits + (0x3FF0000000000000 - 0x3FE6A09E667F3BCD)) >> 52
    e = bits_to_float(k + 0x4330000000000000) - (4503599627370496.0 + 1023.0) - shift
    f = bits_to_float(bits - ((k - 1023) << 52)) - 1.0
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    even = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01))
    odd = z * (
        6.666666666666735130e-01
        + w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01))
    )
    half = 0.5 * f * f
    y = e * 6.93147180369123816490e-01 - ((half - (s * (half + even + odd) + e * 1.90821492927058770002e-10)) - f)
    if x == 0.0:
        y = -np.inf
    if x == np.inf:
        y = np.inf
    if not x >= 0.0:
        y = np.nan
    return y
