"""Convolution of images NCHW, its transpose and its weight's gradient as matrix products that are never written down.

Each is the product of `matmul.py` by tiles; what would be elements of the two matrices is read from the images and filters
where they lie (`left_of`, `right_of`). The product for the weight has a long inner axis and few results, so it is cut in
parts along that axis, which a second launch adds up, in order.

    output     (filters, taps) @ (taps, images x windows)         taps: channels x rows x columns of the filter
    image      (channels, taps) @ (taps, images x pixels)         taps: filters x rows x columns
    weight     (filters, images x windows) @ (images x windows, taps)
"""

from __future__ import annotations

from math import isqrt
from typing import Any

from ...dtypes import DType
from ...layouts import Layout
from .blocks import add
from .matmul import MICRO, sides
from .names import T, cuda
from .reduce import arithmetic, one_pass
from .template import MACHINE, Inline, Launch, Steps, Work, cuda_kernel, inline, template

S: int = 16  # bound: the side of a block
M: int = MICRO  # bound
SHARED: int = S * S * M  # bound, as sizes of arrays must be
OWN: int = M * M
LEFT_ROWS: bool = True  # bound: whether neighbours in a row of the left matrix lie side by side
RIGHT_ROWS: bool = True
left_of = right_of = place_of = inline(lambda: None)  # bound
WINDOWS_OF_PART = 256  # windows that one part of a weight's gradient adds up, at least

# The geometry, in this order: groups, channels and filters (D) of a group, height and width of the image and of the output, rows
# and columns of the filter, stride, dilation, padding at the top and left.
GEOMETRY = (
    "G: int, C: int, D: int, H: int, W: int, P: int, Q: int, kh: int, kw: int, sh: int, sw: int, dh: int, dw: int,"
    "top: int, left: int"
)


@inline
def pixel(x, g, n, c, p, r, G, C, H, W, Q, kw, sh, sw, dh, dw, top, left):
    """The pixel of channel c that window p of image n has at place r of the filter; 0 outside the image."""
    ky = r // kw
    row = (p // Q) * sh + ky * dh - top
    column = (p - (p // Q) * Q) * sw + (r - ky * kw) * dw - left
    value = T(0)
    if row >= 0 and row < H and column >= 0 and column < W:
        value = x[((n * G + g) * C + c) * H * W + row * W + column]
    return value


@inline
def output_left(w, g, i, q, G, C, D, H, W, P, Q, kh, kw, sh, sw, dh, dw, top, left):
    return w[(g * D + i) * C * kh * kw + q]


@inline
def output_right(x, g, q, j, G, C, D, H, W, P, Q, kh, kw, sh, sw, dh, dw, top, left):
    c = q // (kh * kw)
    n = j // (P * Q)
    return pixel(x, g, n, c, j - n * P * Q, q - c * kh * kw, G, C, H, W, Q, kw, sh, sw, dh, dw, top, left)


@inline
def output_place(g, i, j, G, C, D, H, W, P, Q, kh, kw):
    n = j // (P * Q)
    return ((n * G + g) * D + i) * P * Q + j - n * P * Q


@inline
def image_left(w, g, i, q, G, C, D, H, W, P, Q, kh, kw, sh, sw, dh, dw, top, left):
    o = q // (kh * kw)
    return w[((g * D + o) * C + i) * kh * kw + q - o * kh * kw]


@inline
def image_right(y, g, q, j, G, C, D, H, W, P, Q, kh, kw, sh, sw, dh, dw, top, left):
    """The output's gradient in the window that has pixel j at the filter's place that q says; 0 where there is none."""
    o = q // (kh * kw)
    r = q - o * kh * kw
    n = j // (H * W)
    p = j - n * H * W
    row = p // W + top - (r // kw) * dh
    column = p - (p // W) * W + left - (r - (r // kw) * kw) * dw
    value = T(0)
    if row >= 0 and column >= 0 and row % sh == 0 and column % sw == 0 and row < P * sh and column < Q * sw:
        value = y[((n * G + g) * D + o) * P * Q + row // sh * Q + column // sw]
    return value


@inline
def image_place(g, i, j, G, C, D, H, W, P, Q, kh, kw):
    n = j // (H * W)
    return ((n * G + g) * C + i) * H * W + j - n * H * W


@inline
def weight_left(y, g, i, q, G, C, D, H, W, P, Q, kh, kw, sh, sw, dh, dw, top, left):
    n = q // (P * Q)
    return y[((n * G + g) * D + i) * P * Q + q - n * P * Q]


@inline
def weight_right(x, g, q, j, G, C, D, H, W, P, Q, kh, kw, sh, sw, dh, dw, top, left):
    c = j // (kh * kw)
    n = q // (P * Q)
    return pixel(x, g, n, c, q - n * P * Q, j - c * kh * kw, G, C, H, W, Q, kw, sh, sw, dh, dw, top, left)


@inline
def weight_place(g, i, j, G, C, D, H, W, P, Q, kh, kw):
    return (g * D + i) * C * kh * kw + j


@template(f"a: *T, b: *T, y: *T, blocks: int, m: int, k: int, n: int, parts: int, width: int, size: int, {GEOMETRY}")
def conv_tiles(
    a, b, y, blocks, m, k, n, parts, width, size, G, C, D, H, W, P, Q, kh, kw, sh, sw, dh, dw, top, left
):  # fmt: skip
    """y[part] = the product of group after group over `width` of the inner axis; a part of y has `size` elements."""
    rows = cuda.shared.array(SHARED, T)
    columns = cuda.shared.array(SHARED, T)
    total = cuda.local.array(OWN, T)
    me = cuda.threadIdx.x
    down = me // S
    across = me - down * S
    wide = (n + S * M - 1) // (S * M)
    tall = (m + S * M - 1) // (S * M)
    block = cuda.blockIdx.x
    while block < blocks:
        part = block // (G * tall * wide)
        rest = block - part * (G * tall * wide)
        g = rest // (tall * wide)
        tile = rest - g * (tall * wide)
        row0 = (tile // wide) * (S * M)
        col0 = (tile - (tile // wide) * wide) * (S * M)
        for e in range(M * M):
            total[e] = T(0)
        inner = part * width
        stop = min(inner + width, k)
        while inner < stop:
            for r in range(M):
                e = me + r * (S * S)
                i = e // S if LEFT_ROWS else e % (S * M)
                p = e % S if LEFT_ROWS else e // (S * M)
                value = T(0)
                if row0 + i < m and inner + p < stop:
                    value = left_of(
                        a, g, row0 + i, inner + p, G, C, D, H, W, P, Q, kh, kw, sh, sw, dh, dw, top, left
                    )  # fmt: skip
                rows[p * (S * M) + i] = value
                j = e % (S * M) if RIGHT_ROWS else e // S
                q = e // (S * M) if RIGHT_ROWS else e % S
                value = T(0)
                if col0 + j < n and inner + q < stop:
                    value = right_of(
                        b, g, inner + q, col0 + j, G, C, D, H, W, P, Q, kh, kw, sh, sw, dh, dw, top, left
                    )  # fmt: skip
                columns[q * (S * M) + j] = value
            cuda.syncthreads()
            for p in range(S):
                for r in range(M):
                    x = rows[p * (S * M) + r * S + down]
                    for c in range(M):
                        total[r * M + c] += x * columns[p * (S * M) + c * S + across]
            cuda.syncthreads()
            inner += S
        for r in range(M):
            i = row0 + r * S + down
            for c in range(M):
                j = col0 + c * S + across
                if i < m and j < n:
                    y[part * size + place_of(g, i, j, G, C, D, H, W, P, Q, kh, kw)] = total[r * M + c]
        block += cuda.gridDim.x


def geometry(image: Layout, weight: Layout, output: Layout, attrs: dict) -> tuple[int, ...]:
    groups = attrs["groups"]
    (top, _), (left, _) = attrs["padding"]
    sides = (*image.shape[2:], *output.shape[2:], *weight.shape[2:])
    return (groups, weight.shape[1], weight.shape[0] // groups, *sides, *attrs["stride"], *attrs["dilation"], top, left)


def tiles(
    hooks: tuple[Inline, Inline, Inline], rows: tuple[bool, bool], sizes, words, dtype: DType, places, cut, size: int
) -> Launch:
    """The launch of a product of `sizes` (m, k, n) in `cut` (parts, width) of the inner axis."""
    m, k, n = sizes
    side = isqrt(MACHINE.block)
    micro = MICRO if side > 2 else 2
    bound: dict[str, Any] = {"T": dtype, "LEFT_ROWS": rows[0], "RIGHT_ROWS": rows[1], **sides(side, micro)}
    kernel = conv_tiles.bind(left_of=hooks[0], right_of=hooks[1], place_of=hooks[2], **bound)
    tile = side * micro
    blocks = cut[0] * words[0] * -(-m // tile) * -(-n // tile)
    return Launch(
        kernel, max(1, min(blocks, MACHINE.blocks)), side * side, places, (blocks, m, k, n, *cut, size, *words)
    )


@cuda_kernel("conv2d")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    (x, w), (y,) = ins, outs
    words = geometry(x, w, y, attrs)
    k = w.size // max(w.shape[0], 1)
    sizes = (words[2], k, x.shape[0] * y.shape[2] * y.shape[3])
    hooks = output_left, output_right, output_place
    return Work((tiles(hooks, (True, True), sizes, words, y.dtype, (1, 0, 2), (1, k), 0),))


@cuda_kernel("conv2d_input")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    (g, w), (x,) = ins, outs
    words = geometry(x, w, g, attrs)
    k = words[2] * w.shape[2] * w.shape[3]
    sizes = (words[1], k, x.shape[0] * x.shape[2] * x.shape[3])
    hooks = image_left, image_right, image_place
    return Work((tiles(hooks, (True, True), sizes, words, x.dtype, (1, 0, 2), (1, k), 0),))


@cuda_kernel("conv2d_weight")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    (x, g), (w,) = ins, outs
    words = geometry(x, w, g, attrs)
    k = x.shape[0] * g.shape[2] * g.shape[3]
    sizes = (words[2], k, w.size // max(w.shape[0], 1))
    hooks = weight_left, weight_right, weight_place
    least = min(WINDOWS_OF_PART, 8 * MACHINE.block)
    parts = max(1, min(k // least, MACHINE.blocks))
    width = max(1, -(-k // parts))
    parts = max(1, -(-k // width))
    steps = Steps(ins, outs)
    target = 2 if parts == 1 else steps.temporary(parts * w.nbytes)
    steps.add(tiles(hooks, (True, False), sizes, words, w.dtype, (1, 0, target), (parts, width), w.size))
    if parts > 1:
        monoid = arithmetic(w.dtype, 0, add)
        bound = monoid.bindings(w.dtype, True, w.dtype)
        steps.add(one_pass(monoid, bound, (target, 2), 1, parts, w.size, (1, parts)))
    return steps.work()
