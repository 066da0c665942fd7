"""Random draws by counter: Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011). `docs/design/randomness.md` says how counters and words are used.

The state is (seed, offset): the key and the upper half of the counter. The lower half is the number of a block of four
32-bit words. An item of a kernel is a whole group of blocks, computed in scratch even where the output ends within it:
so an element is always computed by the same instructions, and no split changes its last bit. Words are held in int64:
the product of two of them keeps its low 64 bits there, and Numba would turn uint64 beside int64 into float64.
"""

from __future__ import annotations

from math import sqrt

from ..dtypes import float32, int32, int64
from ..layouts import Layout
from .language import Inline, TypeVar, fast_log, inline
from .launch import Step, kernel
from .reduce import WORK, storage
from .skeleton import skeleton
from .status import INDEX

R = TypeVar("R")  # the dtype of the result
P = TypeVar("P")  # the dtype of the parameters
draw, prepare = map(TypeVar, ("draw", "prepare"))
MASK = 0xFFFFFFFF
M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
GROUP = 32  # blocks of one item
COST = 8  # one word against one added element


@inline
def philox(block, offset, seed):
    """The four words of a block."""
    c0, c1 = block & MASK, (block >> 32) & MASK
    c2, c3 = offset & MASK, (offset >> 32) & MASK
    k0, k1 = seed & MASK, (seed >> 32) & MASK
    for _ in range(ROUNDS):
        p0, p1 = M0 * c0, M1 * c2
        c0, c1, c2, c3 = ((p1 >> 32) & MASK) ^ c1 ^ k0, p1 & MASK, ((p0 >> 32) & MASK) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return c0, c1, c2, c3


@inline
def as_double(word):
    """A word as float64, by way of int32: that conversion vectorises everywhere."""
    return float(int32(word - 0x80000000)) + 2147483648.0


@inline
def unit32(word):
    """24 bits of a word as a float32 in [0, 1)."""
    return float32(int32(word >> 8)) * float32(2.0**-24)


@inline
def unit64(high, low):
    """53 bits of two words as a float64 in [0, 1)."""
    return float(int32(high >> 5)) * 2.0**-27 + float(int32(low >> 6)) * 2.0**-53


@inline
def multiply_high(a0, a1, b):
    """The upper 64 bits of (a1 2**32 + a0) b, all unsigned."""
    b0, b1 = b & MASK, (b >> 32) & MASK
    low = (a0 * b0 >> 32) & MASK
    first = a1 * b0 + low
    second = a0 * b1 + (first & MASK)
    return a1 * b1 + ((first >> 32) & MASK) + ((second >> 32) & MASK)


@inline(reassoc=False)
def sine_cosine(quarter, rest):
    """sin and cos of (quarter + rest) pi/2 for rest in [-1/2, 1/2]: the polynomials of fdlibm, 1 ulp."""
    a = rest * 1.5707963267948966
    z = a * a
    s = -2.50507602534068634195e-08 + z * 1.58969099521155010221e-10
    s = -1.98412698298579493134e-04 + z * (2.75573137070700676789e-06 + z * s)
    s = a + a * z * (-1.66666666666666324348e-01 + z * (8.33333333332248946124e-03 + z * s))
    c = 2.08757232129817482790e-09 - z * 1.13596475577881948265e-11
    c = 2.48015872894767294178e-05 + z * (-2.75573143513906633035e-07 + z * c)
    c = 1.0 - z * (0.5 - z * (4.16666666666666019037e-02 + z * (-1.38888888888741095749e-03 + z * c)))
    odd = (quarter & 1) != 0
    sine = c if odd else s
    cosine = s if odd else c
    return (-sine if (quarter & 2) != 0 else sine), (-cosine if ((quarter + 1) & 2) != 0 else cosine)


@inline(reassoc=False)
def normal_pair32(w0, w1):
    """Two normal draws from two words (Box and Muller 1958): the tails end at 6.8."""
    radius = sqrt(-2.0 * fast_log((as_double(w0) + 0.5) * 2.0**-32))
    quarter = (w1 + 0x20000000) >> 30
    s, c = sine_cosine(quarter, float(int32(w1 - (quarter << 30))) * 2.0**-30)
    return radius * c, radius * s


@inline(reassoc=False)
def normal_pair64(w0, w1, w2, w3):
    """Two normal draws from four words: 53-bit uniforms, the tails end at 8.7."""
    u = as_double(w0) * 2.0**-32 + (float(int32(w1 >> 11)) + 0.5) * 2.0**-53
    radius = sqrt(-2.0 * fast_log(u))
    quarter = (w2 + 0x20000000) >> 30
    s, c = sine_cosine(quarter, float(int32(w2 - (quarter << 30))) * 2.0**-30 + float(int32(w3 >> 11)) * 2.0**-51)
    return radius * c, radius * s


@inline
def nothing(first, second):
    return 0, 1


@inline
def threshold(p, second):
    """How many of the 2**32 words mean true; a valid mark."""
    q = float(p)
    return (int(q * 4294967296.0 + 0.5), 1) if 0.0 <= q <= 1.0 else (0, 0)


@inline
def bounds(low, high):
    """The least value and the number of values."""
    return (low, high - low) if low < high else (0, 0)


@inline
def uniforms32(w0, w1, w2, w3, a, b):
    return unit32(w0), unit32(w1), unit32(w2), unit32(w3)


@inline
def uniforms64(w0, w1, w2, w3, a, b):
    return unit64(w0, w1), unit64(w2, w3)


@inline
def normals32(w0, w1, w2, w3, a, b):
    x0, x1 = normal_pair32(w0, w1)
    x2, x3 = normal_pair32(w2, w3)
    return x0, x1, x2, x3


@inline
def normals64(w0, w1, w2, w3, a, b):
    return normal_pair64(w0, w1, w2, w3)


@inline
def trials(w0, w1, w2, w3, a, b):
    return w0 < a, w1 < a, w2 < a, w3 < a


@inline
def integers(w0, w1, w2, w3, a, b):
    return a + multiply_high(w0, w1, b), a + multiply_high(w2, w3, b)


@inline
def words(w0, w1, w2, w3, a, b):
    return w0, w1, w2, w3


PAIRS = (uniforms64, normals64, integers)  # two elements from a block, the others draw four


@inline
def copy_group(y, scratch, at, n, count):
    """Hand out a group's elements, less where the output ends."""
    for i in range(min(count, n - at)):
        y[at + i] = scratch[i]


@skeleton("state: *int64, first: *P, second: *P, y: *R, scratch: *R, n: int", reassoc=False)
def draw_fours(state, first, second, y, scratch, n, begin, end):
    """Four elements from each block."""
    seed, offset = state[0], state[1]
    a, b = prepare(first[0], second[0])
    if b == 0:
        return INDEX
    for group in range(begin, end):
        for i in range(GROUP):
            w0, w1, w2, w3 = philox(group * GROUP + i, offset, seed)
            x0, x1, x2, x3 = draw(w0, w1, w2, w3, a, b)
            scratch[4 * i] = R(x0)
            scratch[4 * i + 1] = R(x1)
            scratch[4 * i + 2] = R(x2)
            scratch[4 * i + 3] = R(x3)
        copy_group(y, scratch, group * 4 * GROUP, n, 4 * GROUP)
    return 0


@skeleton("state: *int64, first: *P, second: *P, y: *R, scratch: *R, n: int", reassoc=False)
def draw_pairs(state, first, second, y, scratch, n, begin, end):
    """Two elements from each block, 64 bits for each."""
    seed, offset = state[0], state[1]
    a, b = prepare(first[0], second[0])
    if b == 0:
        return INDEX
    for group in range(begin, end):
        for i in range(GROUP):
            w0, w1, w2, w3 = philox(group * GROUP + i, offset, seed)
            x0, x1 = draw(w0, w1, w2, w3, a, b)
            scratch[2 * i] = R(x0)
            scratch[2 * i + 1] = R(x1)
        copy_group(y, scratch, group * 2 * GROUP, n, 2 * GROUP)
    return 0


@skeleton("state: *int64, y: *int64, n: int")
def shuffle(state, y, n, begin, end):
    """A permutation, each as likely as any other (Fisher and Yates, inside out). Block i draws for element i."""
    for i in range(n):
        w0, w1, _, _ = philox(i, state[1], state[0])
        j = multiply_high(w0, w1, i + 1)
        y[i] = y[j]
        y[j] = i
    return 0


def _draws(
    draw: Inline, result: Layout, operands: tuple[int, ...] = (0, 0, 0, 1), prepare: Inline = nothing, parameter=int64
) -> tuple[Step, ...]:
    """The step that fills `result`; `operands` are the state, two parameters (or what stands for them), the output."""
    loop, each = (draw_pairs, 2) if draw in PAIRS else (draw_fours, 4)
    address = loop.address(draw=draw, prepare=prepare, P=parameter, R=storage(result.dtype))
    count = each * GROUP
    groups, grain = -(-result.size // count), WORK // (4 * COST * GROUP)
    return (Step(address, operands, (result.size,), groups, grain, count * result.dtype.itemsize),)


@kernel("uniform", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    return _draws(uniforms32 if outs[0].dtype is float32 else uniforms64, outs[0])


@kernel("normal", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    return _draws(normals32 if outs[0].dtype is float32 else normals64, outs[0])


@kernel("bernoulli")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    return _draws(trials, outs[0], (0, 1, 1, 2), threshold, ins[1].dtype)


@kernel("randint")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    return _draws(integers, outs[0], (0, 1, 2, 3), bounds)


@kernel("permutation", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    return (Step(shuffle.address(), (0, 1), (outs[0].size,)),)


@kernel("random_words", sure=True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
    return _draws(words, outs[0])
