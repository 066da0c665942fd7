"""What threads of a block do together: combine values by teams, and the keys that floats are compared by.

A team is TEAM threads side by side: a power of two, a warp's LANES at most, or a whole BLOCK. All threads of a block call
these functions, whether they have something to add or not.
"""

from __future__ import annotations

from typing import Any

from ...dtypes import DType, bool_, float32, float64, int32, int64, uint8
from ..keys import key_constants, key_limits
from .names import LANES, TEAM, WARPS, A, K, bits, combine, cuda, exchange, from_bits
from .template import MACHINE, Inline, inline

TOP: int = 0  # bound: the greatest key, the least one, the bits of infinity
LOW: int = 0
INFINITY: int = 0
UNORDERED: int = 0  # TOP or LOW


@inline
def team_combine(a):
    """The combination of the values of a team, for all its threads."""
    distance = (TEAM if TEAM < LANES else LANES) // 2
    while distance > 0:
        a = combine(a, exchange(a, distance))
        distance //= 2
    if TEAM > LANES:
        slots = cuda.shared.array(WARPS, A)
        if cuda.threadIdx.x % LANES == 0:
            slots[cuda.threadIdx.x // LANES] = a
        cuda.syncthreads()
        a = slots[0]
        for w in range(1, WARPS):
            a = combine(a, slots[w])
        cuda.syncthreads()
    return a


@inline
def larger(a, b):
    """The larger of two numbers, nan before all."""
    return a if (a > b or a != a) else b


team_maximum = team_combine.renamed("team_maximum", combine="larger", A="T")  # of numbers of dtype T, nan before all


def team_bindings(team: int) -> dict[str, Any]:
    """The names that `team_combine` needs beside A and combine, and `team_maximum` beside T."""
    return {"TEAM": team, "LANES": MACHINE.lanes, "BLOCK": MACHINE.block, "WARPS": MACHINE.block // MACHINE.lanes}


def team_for(n: int) -> int:
    """Threads that share a row of n elements: some four elements each, a block where a warp would take long."""
    if n > 32 * MACHINE.lanes:
        return MACHINE.block
    team = 1
    while team < MACHINE.lanes and team * 4 < n:
        team *= 2
    return team


@inline
def add(a, b):
    return a + b


@inline
def multiply(a, b):
    return A(a * b)


@inline
def greater(a, b):
    return a if a > b else b


@inline
def less(a, b):
    return a if a < b else b


@inline
def either(a, b):
    return A(a | b)


@inline
def both(a, b):
    return A(a & b)


@inline
def as_accumulator(x):
    return A(x)


@inline
def is_true(x):
    return A(1) if x != 0 else A(0)


@inline
def key_of_float(x):
    """Key of a float: -0 below +0, nan of either sign at UNORDERED."""
    pattern = bits(x)
    key = K(pattern) if pattern >= 0 else K(pattern ^ K(TOP))
    return K(UNORDERED) if K(pattern & K(TOP)) > K(INFINITY) else key


key_nan_on_top = key_of_float.renamed("key_nan_on_top", UNORDERED="TOP")
key_nan_at_bottom = key_of_float.renamed("key_nan_at_bottom", UNORDERED="LOW")


@inline
def float_of_key(key):
    """The float of a key; TOP and LOW give nan."""
    return from_bits(K(key) if key >= 0 else K(key ^ K(TOP)))


@inline
def order_of_float(x):
    """Key of a float for finding places: -0 and +0 are equal, nan at UNORDERED."""
    pattern = bits(x)
    magnitude = K(pattern & K(TOP))
    key = magnitude if pattern >= 0 else K(-magnitude)
    return K(UNORDERED) if magnitude > K(INFINITY) else key


order_top = order_of_float.renamed("order_top", UNORDERED="TOP")
order_bottom = order_of_float.renamed("order_bottom", UNORDERED="LOW")


@inline
def order_same(x):
    return K(x)


KEYS = {float32: int32, float64: int64, int32: int32, int64: int64, uint8: int32, bool_: int32}


def key_bindings(dtype: DType) -> dict:
    """The bindings of K, LOW, TOP and INFINITY for values of `dtype`; keys of bytes are int32, which threads can exchange."""
    constants = key_constants(dtype)
    low, top = key_limits(dtype)
    return {"K": KEYS[dtype], "LOW": low, "TOP": top, "INFINITY": constants["INFINITY"]}


def order_key(dtype: DType, nan_last: bool = True) -> Inline:
    """The inline function that gives a value of `dtype` its place; nan above all others, or below."""
    if not dtype.is_float:
        return order_same
    return order_top if nan_last else order_bottom
