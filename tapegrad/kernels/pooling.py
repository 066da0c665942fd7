"""Pooling over windows of images, NCHW. Planes are independent, and a plane is walked one output row at a time."""

from __future__ import annotations

from ..layouts import Layout
from .language import T, TypeVar, all_maxima, clipped_maxima, fill_zero, inline, lanes_of, offset, some_maxima
from .launch import Step, kernel
from .skeleton import skeleton

ROWS, COLUMNS = TypeVar("ROWS"), TypeVar("COLUMNS")  # of a window, where it is compiled for its size; else 0
STEP = TypeVar("STEP")  # columns from one window to the next, where vectors of windows are compiled for it; else 0
UNROLLED = 9  # elements of the largest window with code of its own
PADDED = TypeVar("PADDED")  # 1 where some windows reach over the edge
FARTHEST = 4  # the largest such STEP: as many vectors are loaded for one
GRAIN_ELEMENTS = (
    50_000  # window elements worth a thread's while; of maxima in vectors and of scattered ones, 8 times that
)


@inline
def first_inside(start, step):
    """The first i >= 0 for which start + i * step is not negative."""
    return max(-(start // step), 0)


@inline
def last_inside(start, step, size):
    """One past the last i for which start + i * step is less than `size`."""
    return (size - 1 - start) // step + 1


@inline
def larger(best, at, value, where):
    """The larger of two values and where it is; the first of equals, a NaN before all.

    Without a branch: which element is the largest cannot be predicted.
    """
    better = (not value <= best) & (best == best)
    return value if better else best, where if better else at


@inline
def one_window(image, start, row_step, column_step, i0, i1, j0, j1):
    """The largest element of one window, and where it is: 0 and -1 where the window has none."""
    at = start + i0 * row_step + j0 * column_step if i1 > i0 and j1 > j0 else -1
    best = image[at] if at >= 0 else T(0)
    for i in range(i0, i1):
        for j in range(j0, j1):
            where = start + i * row_step + j * column_step
            best, at = larger(best, at, image[where], where)
    return best, at


@skeleton(
    "x: *T, out: *T, at: *int32, height: int, width: int, out_h: int, out_w: int, kh: int, kw: int, sh: int, "
    "sw: int, dh: int, dw: int, top: int, left: int"
)
def window_maximum(x, out, at, height, width, out_h, out_w, kh, kw, sh, sw, dh, dw, top, left, begin, end):
    """For the planes begin..end, the maximum of each window and its position in the plane; the first of equals, NaN first.

    Zeros around the image are never chosen; a window that has nothing else gives position -1.
    """
    row_step = dh * width
    for plane in range(begin, end):
        image = offset(x, plane * height * width)
        for q in range(out_h):
            line, found = offset(out, (plane * out_h + q) * out_w), offset(at, (plane * out_h + q) * out_w)
            y0 = q * sh - top
            i0, i1 = 0, kh
            if PADDED and (y0 < 0 or y0 + (kh - 1) * dh >= height):
                i0, i1 = first_inside(y0, dh), min(last_inside(y0, dh, height), kh)
            if STEP > 0:
                maxima_of_row(image, line, found, y0, i0, i1, row_step, width, out_w, kh, kw, sw, dw, left)
            else:
                for s in range(out_w):
                    z0 = s * sw - left
                    j0, j1 = 0, kw
                    if PADDED:
                        j0, j1 = first_inside(z0, dw), min(last_inside(z0, dw, width), kw)
                    line[s], found[s] = one_window(image, y0 * width + z0, row_step, dw, i0, i1, j0, j1)
    return 0


@inline
def maxima_of_row(image, line, found, y0, i0, i1, row_step, width, out_w, kh, kw, sw, dw, left):
    """One row of windows, of whose rows i0..i1 exist: a vector of them at a time."""
    lanes = min(lanes_of(line), lanes_of(found))
    rows, columns = (ROWS, COLUMNS) if ROWS > 0 else (kh, kw)  # loops of constant length are unrolled
    s = 0
    while s < out_w:
        many = out_w - s
        if not PADDED and many < lanes and s > 0:
            s, many = out_w - lanes, lanes  # some once more, rather than fewer than a vector holds
        z0 = s * sw - left
        start = y0 * width + i0 * row_step + z0
        pixels, maxima, places = offset(image, start), offset(line, s), offset(found, s)
        if many >= lanes and (
            not PADDED or (i1 - i0 == kh and z0 >= 0 and z0 + (lanes - 1) * sw + (kw - 1) * dw < width)
        ):
            all_maxima(STEP, pixels, row_step, dw, rows, columns, maxima, places, start)
        elif not PADDED:
            some_maxima(STEP, pixels, row_step, dw, rows, columns, maxima, places, start, many)
        elif i1 - i0 == kh:
            clipped_maxima(STEP, pixels, row_step, dw, rows, columns, maxima, places, start, many, -z0, width - z0)
        else:
            clipped_maxima(STEP, pixels, row_step, dw, i1 - i0, kw, maxima, places, start, many, -z0, width - z0)
        s += lanes


@skeleton("g: *T, at: *int32, out: *T, size: int, windows: int")
def spread_maxima(g, at, out, size, windows, begin, end):
    """For the planes begin..end of `size` elements: zeros, with each window's gradient added where its maximum was."""
    for plane in range(begin, end):
        image, places, slope = offset(out, plane * size), offset(at, plane * windows), offset(g, plane * windows)
        fill_zero(image, size)
        for w in range(windows):
            if places[w] >= 0:
                image[places[w]] += slope[w]
    return 0


@skeleton(
    "x: *T, out: *T, height: int, width: int, out_h: int, out_w: int, kh: int, kw: int, sh: int, sw: int, "
    "top: int, "
    "bottom: int, left: int, right: int, padded: int"
)
def window_means(x, out, height, width, out_h, out_w, kh, kw, sh, sw, top, bottom, left, right, padded, begin, end):
    """The mean of each window of the planes begin..end; `padded`: the zeros around the image count as elements."""
    for plane in range(begin, end):
        image = offset(x, plane * height * width)
        for q in range(out_h):
            line = offset(out, (plane * out_h + q) * out_w)
            for s in range(out_w):
                line[s] = T(0)
            low, high = max(q * sh - top, 0), min(q * sh - top + kh, height)
            for y in range(low, high):
                for j in range(kw):
                    start = j - left
                    pixels = offset(image, y * width + start)
                    for s in range(first_inside(start, sw), min(last_inside(start, sw, width), out_w)):
                        line[s] += pixels[s * sw]
            tall = max(high - low, 0)
            if padded:
                tall = min(q * sh - top + kh, height + bottom) - (q * sh - top)
            for s in range(out_w):
                line[s] *= share(tall, s, width, kw, sw, left, right, padded)
    return 0


@inline
def share(tall, s, width, kw, sw, left, right, padded):
    """1 / (number of elements in a window of `tall` rows at column `s`); 0 for an empty one."""
    start = s * sw - left
    wide = min(start + kw, width) - max(start, 0)
    if padded:
        wide = min(start + kw, width + right) - start
    count = tall * wide
    return T(1) / T(count) if count > 0 else T(0)


@skeleton(
    "g: *T, out: *T, height: int, width: int, out_h: int, out_w: int, kh: int, kw: int, sh: int, sw: int, "
    "top: int, "
    "bottom: int, left: int, right: int, padded: int"
)
def spread_means(g, out, height, width, out_h, out_w, kh, kw, sh, sw, top, bottom, left, right, padded, begin, end):
    """The transpose of `window_means`: each window's gradient, shared among its elements."""
    for plane in range(begin, end):
        image = offset(out, plane * height * width)
        for i in range(height * width):
            image[i] = T(0)
        for q in range(out_h):
            line = offset(g, (plane * out_h + q) * out_w)
            low, high = max(q * sh - top, 0), min(q * sh - top + kh, height)
            tall = max(high - low, 0)
            if padded:
                tall = min(q * sh - top + kh, height + bottom) - (q * sh - top)
            for s in range(out_w):
                value = line[s] * share(tall, s, width, kw, sw, left, right, padded)
                for y in range(low, high):
                    for z in range(max(s * sw - left, 0), min(s * sw - left + kw, width)):
                        image[y * width + z] += value
    return 0


def planes(x: Layout, work: int, grain: int = GRAIN_ELEMENTS) -> tuple[int, int]:
    """Extent and grain of a step over the planes of `x`, each of which takes so much work."""
    count = x.shape[0] * x.shape[1]
    least = max(1, grain // max(1, work))
    return count, least if 2 * least <= count else 0


@kernel("max_pool2d", sure=True)
def _(ins, outs, attrs):
    (x,), (out, _) = ins, outs
    (h, w), (out_h, out_w), (kh, kw) = x.shape[2:], out.shape[2:], attrs["kernel"]
    (top, _), (left, _) = attrs["padding"]
    words = (h, w, out_h, out_w, kh, kw, *attrs["stride"], *attrs["dilation"], top, left)
    rows, columns = (kh, kw) if kh * kw <= UNROLLED else (0, 0)
    step = attrs["stride"][1] if attrs["stride"][1] <= FARTHEST else 0
    padded = int(any(map(sum, attrs["padding"])))
    if not step:
        rows = columns = 0
    code = window_maximum.address(T=x.dtype, ROWS=rows, COLUMNS=columns, STEP=step, PADDED=padded)
    return (Step(code, (0, 1, 2), words, *planes(x, kh * kw * out_h * out_w, (8 if step else 1) * GRAIN_ELEMENTS)),)


@kernel("max_pool2d_slope", sure=True)
def _(ins, outs, attrs):
    (g, _), (out,) = ins, outs
    size, windows = out.shape[2] * out.shape[3], g.shape[2] * g.shape[3]
    work = 4 * windows + size
    return (Step(spread_maxima.address(T=g.dtype), (0, 1, 2), (size, windows), *planes(out, work, 8 * GRAIN_ELEMENTS)),)


def mean_step(code: int, image: Layout, pooled: Layout, attrs: dict) -> tuple[Step, ...]:
    """The step of a mean over windows or of its transpose."""
    (h, w), (out_h, out_w), (kh, kw) = image.shape[2:], pooled.shape[2:], attrs["kernel"]
    (top, bottom), (left, right) = attrs["padding"]
    words = (h, w, out_h, out_w, kh, kw, *attrs["stride"], top, bottom, left, right, int(attrs["count_include_pad"]))
    return (Step(code, (0, 1), words, *planes(image, kh * kw * out_h * out_w)),)


@kernel("avg_pool2d", sure=True)
def _(ins, outs, attrs):
    return mean_step(window_means.address(T=ins[0].dtype), ins[0], outs[0], attrs)


@kernel("avg_pool2d_input", sure=True)
def _(ins, outs, attrs):
    return mean_step(spread_means.address(T=ins[0].dtype), outs[0], ins[0], attrs)
