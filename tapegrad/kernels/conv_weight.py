"""The gradient of a convolution with respect to its filters.

dw[o, t] = sum over images and output positions p of g[o, p] * image[position(p) + table[t]]. The register tile runs
over taps and, in its vectors, over filters, so g is transposed first, block by block in registers. Each element is
summed in an order that does not depend on how the taps are split among threads: the result is the same for any number.
"""

from __future__ import annotations

from ..layouts import Layout
from .conv import pieces_grain, spread, tile_rows
from .language import TypeVar, add_products, cast_pointer, fill_zero, inline, lanes_of, offset, tile, turn_block
from .launch import Step, kernel
from .skeleton import skeleton

R = TypeVar("R")
LANE_BLOCK = 32  # channels of a depthwise convolution that are summed side by side
SCRATCH_BYTES = 1 << 18  # each of: sums, copied image, transposed gradient
POSITION_BLOCK = 96  # positions summed in registers: 32 columns of g for them are 12 KiB, a third of the L1 cache


@inline
def turn(to, to_row, source, source_row, rows, columns):
    """to[j, i] = source[i, j] for i < rows, j < columns."""
    lanes = lanes_of(to)
    full_rows, full_columns = rows - rows % lanes, columns - columns % lanes
    for i in range(0, full_rows, lanes):
        for j in range(0, full_columns, lanes):
            turn_block(offset(to, j * to_row + i), to_row, offset(source, i * source_row + j), source_row)
    for i in range(rows):
        for j in range(full_columns if i < full_rows else 0, columns):
            to[j * to_row + i] = source[i * source_row + j]


@inline
def gather_taps(image, table, taps, where, turned, filters, count, sums):
    """sums[t, o] += sum over p < count of image[table[t] + where[p]] * turned[p, o]."""
    lanes = lanes_of(image)
    for p in range(0, count, POSITION_BLOCK):
        many = min(POSITION_BLOCK, count - p)
        steps = offset(where, p)
        for o in range(0, filters, 2 * lanes):
            b = offset(turned, p * filters + o)
            t = 0
            while t + R <= taps:
                tile(
                    R,
                    2,
                    image,
                    offset(table, t),
                    steps,
                    b,
                    filters,
                    offset(sums, t * filters + o),
                    filters,
                    many,
                    filters - o,
                    1,
                )
                t += R
            while t < taps:
                tile(
                    1,
                    2,
                    image,
                    offset(table, t),
                    steps,
                    b,
                    filters,
                    offset(sums, t * filters + o),
                    filters,
                    many,
                    filters - o,
                    1,
                )
                t += 1


@skeleton(
    "x: *T, g: *T, out: *T, work: *int64, images: int, groups: int, channels: int, height: int, width: int, "
    "filters: int, out_h: int, out_w: int, kh: int, kw: int, sh: int, sw: int, dh: int, dw: int, top: int, "
    "left: int, "
    "whole: int, chunk: int, some: int, band: int, rows: int, columns: int",
    unroll=False,
)
def conv2d_filters(
    x,
    g,
    out,
    work,
    images,
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
    chunk,
    some,
    band,
    rows,
    columns,
    begin,
    end,
):
    """Filter taps begin..end of the gradient, counted through all groups, `chunk` (of `some` channels) at a time."""
    taps = channels * kh * kw
    where = offset(work, chunk)
    sums = cast_pointer(offset(where, band * out_w), x)
    turned = offset(sums, chunk * filters)
    scratch = offset(turned, band * out_w * filters)
    plane = height * width if whole else rows * columns
    for q in range(band):
        for s in range(out_w):
            where[q * out_w + s] = q * sh * columns + s * sw
    at = begin
    while at < end:
        group = at // taps
        first = at - group * taps
        many = min(chunk, end - at, taps - first)
        channel = first // (kh * kw)
        used = (first + many - 1) // (kh * kw) - channel + 1
        for t in range(many):
            c = (first + t) // (kh * kw)
            i = (first + t) // kw % kh
            j = (first + t) % kw
            work[t] = (c - channel) * plane + i * dh * columns + j * dw
        fill_zero(sums, many * filters)
        for n in range(images):
            pixels = offset(x, ((n * groups + group) * channels + channel) * height * width)
            slope = offset(g, (n * groups + group) * filters * out_h * out_w)
            for start in range(0, out_h, band):
                count = min(band, out_h - start) * out_w
                image = offset(pixels, start * width) if whole else scratch
                if not whole:
                    spread(scratch, pixels, used, height, width, top - start * sh, left, 1, 1, 1, 1, rows, columns)
                turn(turned, filters, offset(slope, start * out_w), out_h * out_w, filters, count)
                gather_taps(image, work, many, where, turned, filters, count, sums)
        for o in range(filters):
            line = offset(out, (group * filters + o) * taps + first)
            for t in range(many):
                line[t] = sums[t * filters + o]
        at += many
    return 0


@skeleton(
    "x: *T, g: *T, out: *T, work: *T, images: int, channels: int, height: int, width: int, out_h: int, "
    "out_w: int, "
    "kh: int, kw: int, sh: int, sw: int, dh: int, dw: int, top: int, left: int, band: int"
)
def depthwise_filters(
    x, g, out, work, images, channels, height, width, out_h, out_w, kh, kw, sh, sw, dh, dw, top, left, band, begin, end
):
    """Channels begin..end of the gradient of a depthwise convolution, LANE_BLOCK channels side by side in vectors."""
    taps = kh * kw
    total, part = work, offset(work, taps * LANE_BLOCK)
    slope = offset(part, taps * LANE_BLOCK)
    image = offset(slope, band * out_w * LANE_BLOCK)
    for at in range(begin, end, LANE_BLOCK):
        many = min(LANE_BLOCK, end - at)
        fill_zero(total, taps * LANE_BLOCK)
        for n in range(images):
            for start in range(0, out_h, band):
                lines = min(band, out_h - start)
                low = max(start * sh - top, 0)
                high = min((start + lines - 1) * sh + (kh - 1) * dh - top + 1, height)
                if high <= low:
                    continue
                plane = n * channels + at
                turn(slope, LANE_BLOCK, offset(g, (plane * out_h + start) * out_w), out_h * out_w, many, lines * out_w)
                turn(
                    image,
                    LANE_BLOCK,
                    offset(x, (plane * height + low) * width),
                    height * width,
                    many,
                    (high - low) * width,
                )
                fill_zero(part, taps * LANE_BLOCK)
                for i in range(kh):
                    for q in range(lines):
                        y = (start + q) * sh + i * dh - top
                        if y >= 0 and y < height:
                            for j in range(kw):
                                first = max(-((j * dw - left) // sw), 0)
                                last = min((width - 1 + left - j * dw) // sw + 1, out_w)
                                pixels = offset(image, ((y - low) * width + first * sw + j * dw - left) * LANE_BLOCK)
                                weights = offset(slope, (q * out_w + first) * LANE_BLOCK)
                                sums = offset(part, (i * kw + j) * LANE_BLOCK)
                                count = last - first
                                add_products(LANE_BLOCK, sums, weights, LANE_BLOCK, pixels, sw * LANE_BLOCK, count)
                for t in range(taps * LANE_BLOCK):
                    total[t] += part[t]
        for c in range(many):
            for t in range(taps):
                out[(at + c) * taps + t] = total[t * LANE_BLOCK + c]
    return 0


@kernel("conv2d_weight", sure=True)
def _(ins, outs, attrs):
    (x, g), (out,) = ins, outs
    n, _, h, width = x.shape
    filters, channels, kh, kw = out.shape
    _, _, out_h, out_w = g.shape
    groups, (sh, sw), (dh, dw) = attrs["groups"], attrs["stride"], attrs["dilation"]
    (top, bottom), (left, right) = attrs["padding"]
    filters //= groups
    size = x.dtype.itemsize
    if filters == channels == 1:
        return depthwise_steps(x, g, out, attrs)
    limit = SCRATCH_BYTES // size
    taps, per_channel = channels * kh * kw, kh * kw
    whole = not (top or bottom or left or right)
    columns = width if whole else (out_w - 1) * sw + (kw - 1) * dw + 1
    chunk = min(taps, max(16, limit // max(filters, 1) // 8 * 8))
    some = min(channels, -(-chunk // per_channel) + 1)  # channels that a chunk's taps may touch
    per_line = max(filters * out_w, 0 if whole else some * sh * columns)
    band = min(out_h, max(1, limit // max(per_line, 1)))
    rows = (band - 1) * sh + (kh - 1) * dh + 1
    copied = 0 if whole else some * rows * columns
    work = 8 * (chunk + band * out_w) + size * (chunk * filters + band * out_w * filters + copied)
    static = (
        n,
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
        top,
        left,
        int(whole),
        chunk,
        some,
        band,
        rows,
        columns,
    )
    code = conv2d_filters.address(T=x.dtype, R=tile_rows())
    extent = groups * taps
    return (Step(code, (0, 1, 2), static, extent, pieces_grain(extent, 2 * g.size * taps, 8), work),)


def depthwise_steps(x: Layout, g: Layout, out: Layout, attrs: dict) -> tuple[Step, ...]:
    """Steps for one filter per channel: there the vectors run over channels."""
    n, channels, h, width = x.shape
    _, _, out_h, out_w = g.shape
    _, _, kh, kw = out.shape
    (sh, sw), (dh, dw) = attrs["stride"], attrs["dilation"]
    (top, _), (left, _) = attrs["padding"]
    size = x.dtype.itemsize
    band = min(out_h, max(1, 2 * SCRATCH_BYTES // (size * LANE_BLOCK * (out_w + sh * width))))
    rows = min(h, (band - 1) * sh + (kh - 1) * dh + 1)
    work = size * LANE_BLOCK * (2 * kh * kw + band * out_w + rows * width)
    static = (n, channels, h, width, out_h, out_w, kh, kw, sh, sw, dh, dw, top, left, band)
    grain = pieces_grain(channels, 2 * g.size * kh * kw, LANE_BLOCK)
    return (Step(depthwise_filters.address(T=x.dtype), (0, 1, 2), static, channels, grain, work),)
