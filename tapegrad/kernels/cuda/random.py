"""Random draws by counter, Philox4x32-10, with the same words as on the CPU (`kernels/random.py`, which has the source).

A thread computes a block of four 32-bit words and hands out its two or four elements. Integers and uniform numbers have the
CPU's bits; normal ones are the CPU's formulas, whose logarithm may differ in the last digit of float64. A permutation is
drawn by one thread, since each of its exchanges depends on those before.
"""

from __future__ import annotations

from ...dtypes import DType, int64
from ...layouts import Layout
from ..random import M0, M1, ROUNDS, W0, W1
from ..status import INDEX
from .names import R, cuda, float32, float64, fma_f64, int32, log_f64, multiply_high, sqrt_f64, uint64
from .template import STATUS, Inline, Launch, Work, cuda_kernel, inline, spread, storage, template

draw = prepare = inline(lambda: None)  # bound
EACH: int = 4  # bound: elements of a block


@inline
def philox(block, offset, seed):
    """The four words of a block, in uint64."""
    low = uint64(0xFFFFFFFF)
    half = uint64(32)
    c0, c1 = block & low, block >> half
    c2, c3 = offset & low, offset >> half
    k0, k1 = seed & low, seed >> half
    for _ in range(ROUNDS):
        p0 = uint64(M0) * c0
        p1 = uint64(M1) * c2
        c0 = (p1 >> half) ^ c1 ^ k0
        c1 = p1 & low
        c2 = (p0 >> half) ^ c3 ^ k1
        c3 = p0 & low
        k0 = (k0 + uint64(W0)) & low
        k1 = (k1 + uint64(W1)) & low
    return c0, c1, c2, c3


@inline
def number(word):
    """A word as float64, exactly."""
    return float64(int64(word))


@inline
def sine_cosine(quarter, rest):
    """sin and cos of (quarter + rest) pi/2 for rest in [-1/2, 1/2]: the polynomials of fdlibm, 1 ulp."""
    a = rest * 1.5707963267948966
    z = a * a
    s = fma_f64(z, 1.58969099521155010221e-10, -2.50507602534068634195e-08)
    s = fma_f64(z, fma_f64(z, s, 2.75573137070700676789e-06), -1.98412698298579493134e-04)
    s = fma_f64(z, fma_f64(z, s, 8.33333333332248946124e-03), -1.66666666666666324348e-01)
    s = fma_f64(a * z, s, a)
    c = fma_f64(z, -1.13596475577881948265e-11, 2.08757232129817482790e-09)
    c = fma_f64(z, fma_f64(z, c, -2.75573143513906633035e-07), 2.48015872894767294178e-05)
    c = fma_f64(z, fma_f64(z, c, -1.38888888888741095749e-03), 4.16666666666666019037e-02)
    c = 1.0 - z * (0.5 - z * c)
    odd = (quarter & 1) != 0
    sine = c if odd else s
    cosine = s if odd else c
    return (-sine if (quarter & 2) != 0 else sine), (-cosine if ((quarter + 1) & 2) != 0 else cosine)


@inline
def polar(u, quarter, rest):
    """Two normal draws from a uniform one and an angle (Box and Muller 1958)."""
    radius = sqrt_f64(-2.0 * log_f64(u))
    sine, cosine = sine_cosine(quarter, rest)
    return radius * cosine, radius * sine


@inline
def normal_pair32(w0, w1):
    """From two words: the tails end at 6.8."""
    angle = int64(w1)
    quarter = (angle + 0x20000000) >> 30
    rest = float64(angle - (quarter << 30)) * 2.0**-30
    return polar((number(w0) + 0.5) * 2.0**-32, quarter, rest)


@inline
def normal_pair64(w0, w1, w2, w3):
    """From four words: 53-bit uniforms, the tails end at 8.7."""
    u = number(w0) * 2.0**-32 + (float64(int64(w1) >> 11) + 0.5) * 2.0**-53
    angle = int64(w2)
    quarter = (angle + 0x20000000) >> 30
    rest = float64(angle - (quarter << 30)) * 2.0**-30 + float64(int64(w3) >> 11) * 2.0**-51
    return polar(u, quarter, rest)


@inline
def unit32(word):
    """24 bits of a word as a float32 in [0, 1)."""
    return float32(int64(word) >> 8) * float32(2.0**-24)


@inline
def unit64(high, low):
    """53 bits of two words as a float64 in [0, 1)."""
    return float64(int64(high) >> 5) * 2.0**-27 + float64(int64(low) >> 6) * 2.0**-53


@inline
def uniforms32(w0, w1, w2, w3, a, b):
    return unit32(w0), unit32(w1), unit32(w2), unit32(w3)


@inline
def uniforms64(w0, w1, w2, w3, a, b):
    x, z = unit64(w0, w1), unit64(w2, w3)
    return x, z, z, z


@inline
def normals32(w0, w1, w2, w3, a, b):
    x0, x1 = normal_pair32(w0, w1)
    x2, x3 = normal_pair32(w2, w3)
    return x0, x1, x2, x3


@inline
def normals64(w0, w1, w2, w3, a, b):
    x, z = normal_pair64(w0, w1, w2, w3)
    return x, z, z, z


@inline
def trials(w0, w1, w2, w3, a, b):
    return int64(w0) < a, int64(w1) < a, int64(w2) < a, int64(w3) < a


@inline
def integers(w0, w1, w2, w3, a, b):
    half = uint64(32)
    x = a + int64(multiply_high((w1 << half) | w0, uint64(b)))
    z = a + int64(multiply_high((w3 << half) | w2, uint64(b)))
    return x, z, z, z


@inline
def words(w0, w1, w2, w3, a, b):
    return int64(w0), int64(w1), int64(w2), int64(w3)


PAIRS = (uniforms64, normals64, integers)  # two elements from a block, the others draw four


@inline
def nothing(first, second):
    return int64(0), int64(1)


@inline
def threshold(p, second):
    """How many of the 2**32 words mean true; a valid mark."""
    q = float64(p)
    valid = q >= 0.0 and q <= 1.0
    return int64(q * 4294967296.0 + 0.5) if valid else int64(0), int64(1) if valid else int64(0)


@inline
def bounds(low, high):
    """The least value and the number of values."""
    return int64(low), int64(high - low) if low < high else int64(0)


@template("state: *int64, first: *P, second: *P, y: *R, status: *int32, n: int")
def draws(state, first, second, y, status, n):
    """EACH elements from each block of words."""
    seed, offset = uint64(state[0]), uint64(state[1])
    a, b = prepare(first[0], second[0])
    if b == 0:
        status[0] = int32(INDEX)
        return
    block = cuda.grid(1)
    while block * EACH < n:
        w0, w1, w2, w3 = philox(uint64(block), offset, seed)
        x0, x1, x2, x3 = draw(w0, w1, w2, w3, a, b)
        at = block * EACH
        y[at] = R(x0)
        if at + 1 < n:
            y[at + 1] = R(x1)
        if EACH == 4:
            if at + 2 < n:
                y[at + 2] = R(x2)
            if at + 3 < n:
                y[at + 3] = R(x3)
        block += cuda.gridsize(1)


@template("state: *int64, y: *int64, n: int")
def shuffle(state, y, n):
    """A permutation, each as likely as any other (Fisher and Yates, inside out). Block i draws for element i."""
    if cuda.grid(1) == 0:
        seed, offset = uint64(state[0]), uint64(state[1])
        half = uint64(32)
        for i in range(n):
            w0, w1, _, _ = philox(uint64(i), offset, seed)
            j = int64(multiply_high((w1 << half) | w0, uint64(i + 1)))
            y[i] = y[j]
            y[j] = i


def _draws(
    draw: Inline,
    result: Layout,
    operands: tuple[int, ...] = (0, 0, 0, 1),
    prepare: Inline = nothing,
    parameter: DType = int64,
) -> Work:
    """The launch that fills `result`; `operands` are the state, two parameters (or what stands for them), the output."""
    each = 2 if draw in PAIRS else 4
    kernel = draws.bind(draw=draw, prepare=prepare, P=parameter, R=storage(result.dtype), EACH=each)
    return Work((spread(kernel, -(-result.size // each), (*operands, STATUS), (result.size,)),))


@cuda_kernel("uniform")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    return _draws(uniforms32 if outs[0].dtype.itemsize == 4 else uniforms64, outs[0])


@cuda_kernel("normal")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    return _draws(normals32 if outs[0].dtype.itemsize == 4 else normals64, outs[0])


@cuda_kernel("bernoulli")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    return _draws(trials, outs[0], (0, 1, 1, 2), threshold, ins[1].dtype)


@cuda_kernel("randint")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    return _draws(integers, outs[0], (0, 1, 2, 3), bounds)


@cuda_kernel("permutation")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    return Work((Launch(shuffle.bind(), 1, 1, (0, 1), (outs[0].size,)),))


@cuda_kernel("random_words")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    return _draws(words, outs[0])
