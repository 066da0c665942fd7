"""Stable argsort along one axis, NaN last: merge sort for short lines, radix sort for long ones.

Values become integer keys in the wanted order (`keys.py`), so both sorts only know int64 keys and their places. The
radix sort goes byte by byte from the least significant one and leaves out bytes that are the same in all keys.
"""

from __future__ import annotations

from math import prod

from ..layouts import Layout
from .keys import KEY_DTYPE, key_constants, key_limits, order_key
from .language import TypeVar, fill_zero, inline, offset
from .launch import Step, kernel
from .reduce import WORK, storage
from .skeleton import skeleton

key, DESCENDING, BYTES, SIGNED, MIRROR = map(TypeVar, ("key", "DESCENDING", "BYTES", "SIGNED", "MIRROR"))
RUN = 8  # elements sorted by insertion before the merges
MERGE_LIMIT = 768  # longer lines are radix-sorted; the crossing measured for float32
COST = 20  # one sorted element against one added element


@inline
def sort_run(k, p, first, last):
    """Insertion sort of the keys and places first..last."""
    for i in range(first + 1, last):
        this, place = k[i], p[i]
        j = i
        while j > first and k[j - 1] > this:
            k[j] = k[j - 1]
            p[j] = p[j - 1]
            j -= 1
        k[j] = this
        p[j] = place


@inline
def merge(k, p, to_k, to_p, first, middle, last):
    """Merge the sorted first..middle and middle..last; the left one goes first where keys are equal."""
    a, b = first, middle
    for t in range(first, last):
        if b >= last or (a < middle and k[a] <= k[b]):
            to_k[t] = k[a]
            to_p[t] = p[a]
            a += 1
        else:
            to_k[t] = k[b]
            to_p[t] = p[b]
            b += 1


@inline
def merge_sort(k, p, other_k, other_p, n):
    """Sort; 1 if the result lies in the other arrays."""
    for first in range(0, n, RUN):
        sort_run(k, p, first, min(first + RUN, n))
    width, swapped = RUN, 0
    while width < n:
        for first in range(0, n, 2 * width):
            merge(k, p, other_k, other_p, first, min(first + width, n), min(first + 2 * width, n))
        k, other_k = other_k, k
        p, other_p = other_p, p
        swapped = 1 - swapped
        width *= 2
    return swapped


@inline
def digit(k, b):
    """Byte b of a key, the sign bit of the highest byte flipped, so that negative keys come first."""
    d = (k >> (8 * b)) & 255
    return d ^ 128 if SIGNED and b == BYTES - 1 else d


@inline
def radix_sort(k, p, other_k, other_p, counts, n):
    """Sort; 1 if the result lies in the other arrays. `counts` has room for 256 numbers per byte."""
    fill_zero(counts, 256 * BYTES)
    for i in range(n):
        for b in range(BYTES):
            counts[256 * b + digit(k[i], b)] += 1
    swapped = 0
    for b in range(BYTES):
        count = offset(counts, 256 * b)
        if count[digit(k[0], b)] == n:
            continue
        at = 0
        for d in range(256):
            c = count[d]
            count[d] = at
            at += c
        for i in range(n):
            d = digit(k[i], b)
            to = count[d]
            count[d] = to + 1
            other_k[to] = k[i]
            other_p[to] = p[i]
        k, other_k = other_k, k
        p, other_p = other_p, p
        swapped = 1 - swapped
    return swapped


@skeleton("x: *T, y: *int64, scratch: *int64, n: int, inner: int")
def argsort_lines(x, y, scratch, n, inner, begin, end):
    """y[o, :, j] = the order of x[o, :n, j]; an item is a pair (o, j)."""
    k, p = scratch, offset(scratch, n)
    other_k, other_p = offset(scratch, 2 * n), offset(scratch, 3 * n)
    for item in range(begin, end):
        o = item // inner
        line = o * n * inner + item - o * inner
        for i in range(n):
            this = int(key(x[line + i * inner]))
            k[i] = MIRROR - this if DESCENDING else this
            p[i] = i
        if n <= MERGE_LIMIT:
            swapped = merge_sort(k, p, other_k, other_p, n)
        else:
            swapped = radix_sort(k, p, other_k, other_p, offset(scratch, 4 * n), n)
        result = other_p if swapped else p
        for i in range(n):
            y[line + i * inner] = result[i]
    return 0


@kernel("argsort", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    x, axis, descending = ins[0], attrs["axis"], bool(attrs["descending"])
    shape = x.shape or (1,)
    n, inner = shape[axis], prod(shape[axis + 1 :])
    outer = prod(shape[:axis])
    low, top = key_limits(x.dtype)
    bound = key_constants(x.dtype) if x.dtype.is_float else {"K": KEY_DTYPE[x.dtype]}
    address = argsort_lines.address(
        T=storage(x.dtype), key=order_key(x.dtype, nan_last=not descending), DESCENDING=int(descending),
        BYTES=KEY_DTYPE[x.dtype].itemsize, SIGNED=int(low < 0), MIRROR=low + top, **bound,
    )  # fmt: skip
    words = 4 * n + 256 * 8
    return (Step(address, (0, 1), (n, inner), outer * inner, max(1, WORK // (COST * max(n, 1))), 8 * words),)
