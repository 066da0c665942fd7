"""Convolution (cross-correlation, NCHW), without im2col; its transpose is in `conv_input.py`.

An image is copied once with zeros around it, into scratch that stays in the L2 cache. In that copy every tap of the
filter is a constant offset: out[o, p] = sum over taps t of w[o, t] * image[p + table[t]], p counting through the copy's
rows. The register tile of `tiles.py` reads the image through that table. The few columns at the end of each row that
belong to no output are computed and dropped. A stride deals the image out into stride_h * stride_w phases, each of
which is read with stride 1.

A 1 x 1 filter with stride 1 is a matrix product and goes to BLAS.
"""

from __future__ import annotations

from dataclasses import replace

from ..layouts import Layout, layout
from .jit import HOST
from .language import T, TypeVar, cast_pointer, fill_zero, inline, lanes_of, offset, tile
from .launch import BUILDERS, Step, kernel
from .skeleton import skeleton

R = TypeVar("R")  # rows of the register tile
SCRATCH_BYTES = 1 << 19  # image and sums of one piece: half of a 1 MiB L2 cache
TAP_BLOCK = 512  # taps summed in one go: the image's lines that a tile reads then stay in the L1 cache
GRAIN_FLOPS = 1_000_000
SMALL_BATCH = 16  # with fewer pieces than this, output channels are split as well


@inline
def spread(to, source, channels, height, width, top, left, sh, sw, phases_h, phases_w, rows, columns):
    """Copy `channels` images, `top` and `left` zeros before them, into phases of `rows` x `columns` elements.

    Row q, column s of phase (i, j) is row q * sh + i, column s * sw + j of the padded image.
    """
    at = 0
    for c in range(channels):
        for i in range(phases_h):
            for j in range(phases_w):
                low = min(max(-((j - left) // sw), 0), columns)
                high = max(min((width - 1 + left - j) // sw + 1, columns), low)
                for q in range(rows):
                    line = offset(to, at)
                    at += columns
                    y = q * sh + i - top
                    if y < 0 or y >= height:
                        fill_zero(line, columns)
                        continue
                    pixels = offset(source, (c * height + y) * width + j - left)
                    for s in range(low):
                        line[s] = T(0)
                    if sw == 1:
                        for s in range(low, high):
                            line[s] = pixels[s]
                    else:
                        for s in range(low, high):
                            line[s] = pixels[s * sw]
                    for s in range(high, columns):
                        line[s] = T(0)


@inline
def multiply(weights, taps, table, image, sums, sums_row, channels, positions):
    """sums[o, p] = sum over t of weights[o, t] * image[p + table[t]] for all channels o and positions p."""
    lanes = lanes_of(image)
    done = 0
    while done < taps or done == 0:
        count = min(taps - done, TAP_BLOCK)
        for p in range(0, positions, 2 * lanes):
            rest = positions - p
            b = offset(image, p)
            steps = offset(table, done)
            o = 0
            while o + R <= channels:
                a = offset(weights, o * taps + done)
                tile(R, 2, a, taps, 1, b, steps, offset(sums, o * sums_row + p), sums_row, count, rest, done)
                o += R
            while o + 2 <= channels:
                a = offset(weights, o * taps + done)
                tile(2, 2, a, taps, 1, b, steps, offset(sums, o * sums_row + p), sums_row, count, rest, done)
                o += 2
            if o < channels:
                a = offset(weights, o * taps + done)
                tile(1, 2, a, taps, 1, b, steps, offset(sums, o * sums_row + p), sums_row, count, rest, done)
        done += max(count, 1)


@skeleton(
    "x: *T, w: *T, out: *T, work: *int64, groups: int, channels: int, height: int, width: int, filters: int, "
    "out_h: int, out_w: int, kh: int, kw: int, sh: int, sw: int, dh: int, dw: int, top: int, left: int, "
    "whole: int, band: int, bands: int, block: int, blocks: int, rows: int, columns: int",
    unroll=False,
)
def conv2d_forward(
    x,
    w,
    out,
    work,
    groups,
    channels,
    height,
    width,
    filters,
    out_h,
    out_w,
    kh,
    kw,
    sh,
    sw,
    dh,
    dw,
    top,
    left,
    whole,
    band,
    bands,
    block,
    blocks,
    rows,
    columns,
    begin,
    end,
):
    """Pieces begin..end of a convolution. A piece: one image, one group, a band of output rows, a block of filters.

    `whole`: the image needs no copy. `rows` x `columns` is one phase of the copied band.
    """
    phases_h, phases_w = min(sh, 1 + (kh - 1) * sh), min(sw, 1 + (kw - 1) * sw)
    plane = height * width if whole else phases_h * phases_w * rows * columns
    taps = channels * kh * kw
    t = 0
    for c in range(channels):
        for i in range(kh):
            for j in range(kw):
                phase = (i * dh % sh) * phases_w + j * dw % sw
                work[t] = c * plane + (phase * rows + i * dh // sh) * columns + j * dw // sw
                t += 1
    scratch = cast_pointer(offset(work, taps), x)
    sums = scratch if whole else offset(scratch, channels * plane)
    ready = -1
    for piece in range(begin, end):
        place = piece // blocks
        first = (piece - place * blocks) * block
        image_index = place // bands
        start = (place - image_index * bands) * band
        lines = min(band, out_h - start)
        image = scratch
        pixels = offset(x, image_index * channels * height * width)
        if whole:
            image = offset(pixels, start * width)
        elif place != ready:
            spread(
                scratch,
                pixels,
                channels,
                height,
                width,
                top - start * sh,
                left,
                sh,
                sw,
                phases_h,
                phases_w,
                rows,
                columns,
            )
            ready = place
        many = min(block, filters - first)
        weights = offset(w, (image_index % groups * filters + first) * taps)
        y = offset(out, (image_index * filters + first) * out_h * out_w + start * out_w)
        direct = columns == out_w or lines == 1
        positions = (lines - 1) * columns + out_w
        row = out_h * out_w if direct else positions
        multiply(weights, taps, work, image, y if direct else sums, row, many, positions)
        if not direct:
            for o in range(many):
                for q in range(lines):
                    line, source = offset(y, (o * out_h + q) * out_w), offset(sums, o * row + q * columns)
                    for s in range(out_w):
                        line[s] = source[s]
    return 0


def tile_rows() -> int:
    """Rows of the register tile: 8 x 2 sums fit into 32 registers, 4 x 2 into 16."""
    return 8 if HOST.vector_bits == 512 else 4


def bands_of(lines: int, per_line: int, fixed: int, itemsize: int) -> int:
    """Output rows per piece, in bands of about equal height whose scratch stays in the cache.

    A line costs `per_line` elements of scratch, and the band's first one `fixed` more.
    """
    fit = max(1, (SCRATCH_BYTES // itemsize - fixed) // max(per_line, 1))
    return -(-lines // -(-lines // fit))


def block_of(channels: int, pieces: int) -> int:
    """Channels per piece: all of them, unless there are few pieces."""
    if pieces >= SMALL_BATCH:
        return channels
    wanted = -(-SMALL_BATCH // max(pieces, 1))
    each = -(-channels // wanted)
    return min(channels, -(-each // 8) * 8)


def pieces_grain(pieces: int, flops: int, multiple: int = 1) -> int:
    """Pieces worth a thread's while, of a step that does `flops` in all; 0 where one thread is enough."""
    least = max(1, -(-GRAIN_FLOPS * pieces // max(flops, 1)))
    least = -(-least // multiple) * multiple
    return least if 2 * least <= pieces else 0


def is_product(attrs: dict, kernel_size: tuple[int, int]) -> bool:
    """Whether a convolution is a plain product of matrices: 1 x 1, stride 1, no padding, one group."""
    return (
        tuple(kernel_size) == (1, 1)
        and tuple(attrs["stride"]) == (1, 1)
        and attrs["groups"] == 1
        and not any(map(sum, attrs["padding"]))
    )


def as_product(filters: Layout, image: Layout, out: Layout) -> tuple[Step, ...]:
    """Steps of out[n] = filters @ image[n], with the convolution's order of operands: the image first."""

    def flat(x: Layout) -> Layout:
        return layout((*x.shape[:2], x.shape[2] * x.shape[3]), x.dtype)

    steps = BUILDERS["matmul"]((filters, flat(image)), (flat(out),), {})
    swap = {0: 1, 1: 0, 2: 2}
    return tuple(replace(s, operands=tuple(swap[i] for i in s.operands)) for s in steps)


@kernel("conv2d", sure=True)
def _(ins, outs, attrs):
    (x, w), (out,) = ins, outs
    n, _, h, width = x.shape
    filters, channels, kh, kw = w.shape
    _, _, out_h, out_w = out.shape
    groups, (sh, sw), (dh, dw) = attrs["groups"], attrs["stride"], attrs["dilation"]
    filters //= groups
    if is_product(attrs, (kh, kw)):
        return as_product(layout((filters, channels), w.dtype), x, out)
    whole = (sh, sw) == (1, 1) and not any(map(sum, attrs["padding"]))
    halo, columns = (kh - 1) * dh // sh, out_w + (kw - 1) * dw // sw
    phases = (sh if kh > 1 else 1) * (sw if kw > 1 else 1)
    size = x.dtype.itemsize
    copied = 0 if whole else channels * phases * columns
    band = bands_of(out_h, copied + filters * columns, copied * halo, size)
    bands = -(-out_h // band)
    block = block_of(filters, n * groups * bands)
    blocks = -(-filters // block)
    rows = band + halo
    work = 8 * channels * kh * kw + size * (copied * rows + block * band * columns)
    extent = n * groups * bands * blocks
    static = (
        groups,
        channels,
        h,
        width,
        filters,
        out_h,
        out_w,
        kh,
        kw,
        sh,
        sw,
        dh,
        dw,
        attrs["padding"][0][0],
        attrs["padding"][1][0],
        int(whole),
        band,
        bands,
        block,
        blocks,
        rows,
        columns,
    )
    code = conv2d_forward.address(T=x.dtype, R=tile_rows())
    grain = pieces_grain(extent, 2 * out.size * channels * kh * kw)
    return (Step(code, (0, 1, 2), static, extent, grain, work, parts=1),)
