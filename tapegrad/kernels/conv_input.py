"""The slope of a convolution by its image, which is the transposed convolution.

Each phase of the result is a sum over the taps that reach it, by the tile of `conv.py`.
"""

from __future__ import annotations

from ..layouts import layout
from .conv import (
    as_product,
    bands_of,
    block_of,
    is_product,
    multiply,
    pieces_grain,
    spread,
    tile_rows,
)
from .language import cast_pointer, inline, offset
from .launch import Step, kernel
from .skeleton import skeleton


@skeleton(
    "g: *T, w: *T, out: *T, work: *int64, groups: int, channels: int, height: int, width: int, filters: int, "
    "g_h: int, g_w: int, kh: int, kw: int, sh: int, sw: int, dh: int, dw: int, top: int, left: int, "
    "band: int, bands: int, block: int, blocks: int, rows: int, columns: int, across: int, total: int",
    unroll=False,
)
def conv2d_transposed(
    g,
    w,
    out,
    work,
    groups,
    channels,
    height,
    width,
    filters,
    g_h,
    g_w,
    kh,
    kw,
    sh,
    sw,
    dh,
    dw,
    top,
    left,
    band,
    bands,
    block,
    blocks,
    rows,
    columns,
    across,
    total,
    begin,
    end,
):
    """Pieces begin..end of a transposed convolution. A piece: an image, a group, a band of rows, a block of channels.

    Padded output row u = a * sh + phase gets filter row i where i * dh % sh is the phase, from row a - i * dh // sh of
    g. A band is `band` consecutive a of `total`; `across` is the number of such columns; `rows` x `columns` is g's
    copied band.
    """
    taps = filters * kh * kw
    up, over = rows - band, columns - across
    weights = cast_pointer(offset(work, taps), g)
    image = offset(weights, taps * channels)
    sums = offset(image, filters * rows * columns)
    ready, group = -1, -1
    for piece in range(begin, end):
        place = piece // blocks
        first = (piece - place * blocks) * block
        image_index = place // bands
        start = (place - image_index * bands) * band
        a0, b0 = top // sh + start, left // sw
        lines = min(band, total - start)
        many = min(block, channels - first)
        if image_index % groups != group:
            group = image_index % groups
            turn_filters(
                weights,
                work,
                offset(w, group * taps * channels),
                channels,
                filters,
                kh,
                kw,
                sh,
                sw,
                dh,
                dw,
                rows,
                columns,
                up,
                over,
            )
        if place != ready:
            pixels = offset(g, image_index * filters * g_h * g_w)
            spread(image, pixels, filters, g_h, g_w, up - a0, over - b0, 1, 1, 1, 1, rows, columns)
            ready = place
        positions = (lines - 1) * columns + across
        done = 0
        for i in range(sh):
            for j in range(sw):
                count = filters * matching(kh, dh, sh, i) * matching(kw, dw, sw, j)
                chosen = offset(weights, done * channels + first * count)
                multiply(chosen, count, offset(work, done), image, sums, positions, many, positions)
                done += count
                low = min(max(-((b0 * sw + j - left) // sw), 0), across)
                high = max(min((width - 1 + left - j) // sw + 1 - b0, across), low)
                for c in range(many):
                    for q in range(lines):
                        y = (a0 + q) * sh + i - top
                        if y >= 0 and y < height:
                            plane = image_index * channels + first + c
                            line = offset(out, (plane * height + y) * width + b0 * sw + j - left)
                            source = offset(sums, c * positions + q * columns)
                            if sw == 1:
                                for s in range(low, high):
                                    line[s] = source[s]
                            else:
                                for s in range(low, high):
                                    line[s * sw] = source[s]
    return 0


@inline
def matching(size, dilation, stride, phase):
    """How many of a filter's `size` rows reach a phase."""
    n = 0
    for i in range(size):
        if i * dilation % stride == phase:
            n += 1
    return n


@inline
def turn_filters(to, table, w, channels, filters, kh, kw, sh, sw, dh, dw, rows, columns, up, over):
    """For each phase, the taps that reach it: their offsets to `table`, and per channel their weights to `to`."""
    done = 0
    for a in range(sh):
        for b in range(sw):
            count = filters * matching(kh, dh, sh, a) * matching(kw, dw, sw, b)
            t = 0
            for o in range(filters):
                for i in range(kh):
                    if i * dh % sh == a:
                        for j in range(kw):
                            if j * dw % sw == b:
                                table[done + t] = (o * rows + up - i * dh // sh) * columns + over - j * dw // sw
                                source = offset(w, (o * channels * kh + i) * kw + j)
                                into = offset(to, done * channels + t)
                                for c in range(channels):
                                    into[c * count] = source[c * kh * kw]
                                t += 1
            done += count


@kernel("conv2d_input", sure=True)
def _(ins, outs, attrs):
    (g, w), (out,) = ins, outs
    n, _, g_h, g_w = g.shape
    filters, channels, kh, kw = w.shape
    _, _, h, width = out.shape
    groups, (sh, sw), (dh, dw) = attrs["groups"], attrs["stride"], attrs["dilation"]
    filters //= groups
    if is_product(attrs, (kh, kw)):
        return as_product(layout((channels, filters), w.dtype, (1, channels)), g, out)
    (top, _), (left, _) = attrs["padding"]
    total, across = (top + h - 1) // sh - top // sh + 1, (left + width - 1) // sw - left // sw + 1
    halo, columns = (kh - 1) * dh // sh, across + (kw - 1) * dw // sw
    size = g.dtype.itemsize
    band = bands_of(total, (filters + channels) * columns, filters * columns * halo, size)
    bands = -(-total // band)
    block = block_of(channels, n * groups * bands)
    blocks = -(-channels // block)
    rows = band + halo
    taps = filters * kh * kw
    work = 8 * taps + size * (taps * channels + filters * rows * columns + block * band * columns)
    extent = n * groups * bands * blocks
    static = (
        groups,
        channels,
        h,
        width,
        filters,
        g_h,
        g_w,
        kh,
        kw,
        sh,
        sw,
        dh,
        dw,
        top,
        left,
        band,
        bands,
        block,
        blocks,
        rows,
        columns,
        across,
        total,
    )
    code = conv2d_transposed.address(T=g.dtype, R=tile_rows())
    grain = pieces_grain(extent, 2 * g.size * channels * kh * kw)
    return (Step(code, (0, 1, 2), static, extent, grain, work, parts=1),)
