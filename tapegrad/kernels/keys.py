"""Floats as integers in the same order, so that comparing vectorises and NaN has a place in it.

A float's bits, read as an integer, rise with its value where the sign bit is clear and fall where it is set. Flipping
the other bits of negative numbers makes one rising order. NaN gets the top of the integer range, beyond infinity, or
the bottom. Integers are their own keys.
"""

from __future__ import annotations

from ..dtypes import DType, bool_, float32, float64, int32, int64, uint8
from .language import Inline, TypeVar, bits_to_float, float_to_bits, inline

K = TypeVar("K")  # the dtype of the key
LOW = TypeVar("LOW")  # least and greatest key
TOP = TypeVar("TOP")
INFINITY = TypeVar("INFINITY")  # the bits of float infinity


@inline
def nan_on_top(x):
    """Key of a float: -0 below +0, NaN of either sign at TOP."""
    bits = float_to_bits(x)
    magnitude = K(bits & K(TOP))
    key = bits if bits >= K(0) else K(bits ^ K(TOP))
    return K(TOP) if magnitude > K(INFINITY) else key


@inline
def nan_at_bottom(x):
    """Key of a float: -0 below +0, NaN of either sign at LOW."""
    bits = float_to_bits(x)
    magnitude = K(bits & K(TOP))
    key = bits if bits >= K(0) else K(bits ^ K(TOP))
    return K(LOW) if magnitude > K(INFINITY) else key


@inline
def float_of(key):
    """The float of a key; TOP and LOW give NaN."""
    return bits_to_float(key if key >= K(0) else K(key ^ K(TOP)))


@inline
def order_top(x):
    """Key of a float for finding places: -0 and +0 are equal, NaN at TOP."""
    bits = float_to_bits(x)
    magnitude = K(bits & K(TOP))
    key = magnitude if bits >= K(0) else K(-magnitude)
    return K(TOP) if magnitude > K(INFINITY) else key


@inline
def order_bottom(x):
    """Key of a float for finding places: -0 and +0 are equal, NaN at LOW."""
    bits = float_to_bits(x)
    magnitude = K(bits & K(TOP))
    key = magnitude if bits >= K(0) else K(-magnitude)
    return K(LOW) if magnitude > K(INFINITY) else key


@inline
def same(x):
    """Key of an integer: itself."""
    return K(x)


KEY_DTYPE = {float32: int32, float64: int64, int32: int32, int64: int64, uint8: uint8, bool_: uint8}
_LIMITS = {uint8: (0, 255), int32: (-(2**31), 2**31 - 1), int64: (-(2**63), 2**63 - 1)}
_INFINITIES = {float32: 0x7F800000, float64: 0x7FF0000000000000}


def key_limits(dtype: DType) -> tuple[int, int]:
    """The least and the greatest key of values of `dtype`."""
    return _LIMITS[KEY_DTYPE[dtype]]


def key_constants(dtype: DType) -> dict[str, DType | int]:
    """The bindings of K, LOW, TOP and INFINITY for values of `dtype`."""
    low, top = key_limits(dtype)
    return {"K": KEY_DTYPE[dtype], "LOW": low, "TOP": top, "INFINITY": _INFINITIES.get(dtype, top)}


def order_key(dtype: DType, nan_last: bool = True) -> Inline:
    """The inline function that gives a value of `dtype` its place; NaN above all others, or below."""
    if not dtype.is_float:
        return same
    return order_top if nan_last else order_bottom
