"""Pooling over windows of images, NCHW. Planes are independent, and a plane is walked one output row at a time."""

from __future__ import annotations

from ..layouts import Layout
from .language import T, TypeVar, inline, offset
from .launch import Step, kernel
from .skeleton import skeleton

ROWS, COLUMNS = TypeVar("ROWS"), TypeVar("COLUMNS")  # of a window, where it is compiled for its size; else 0
UNROLLED = 9  # elements of the largest window with code of its own: 2 times faster
GRAIN_ELEMENTS = 50_000  # window elements worth a thread's while


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


@skeleton(
    "x: *T, out: *int64, height: int, width: int, out_h: int, out_w: int, kh: int, kw: int, sh: int, sw: int, "
    "dh: int, "
    "dw: int, top: int, left: int"
)
def max_positions(x, out, height, width, out_h, out_w, kh, kw, sh, sw, dh, dw, top, left, begin, end):
    """For the planes begin..end, where the maximum of each window lies; the first of equals, NaN before all.

    Zeros around the image are never chosen; a window that has nothing else gives -1.
    """
    for plane in range(begin, end):
        image = offset(x, plane * height * width)
        for q in range(out_h):
            found = offset(out, (plane * out_h + q) * out_w)
            y0 = q * sh - top
            i0, i1 = first_inside(y0, dh), min(last_inside(y0, dh, height), kh)
            for s in range(out_w):
                z0 = s * sw - left
                start = y0 * width + z0
                inside = i1 - i0 == kh and z0 >= 0 and z0 + (kw - 1) * dw < width
                if ROWS > 0 and inside:  # the loops have constant lengths and are unrolled
                    best, at = image[start], start
                    for i in range(ROWS):
                        for j in range(COLUMNS):
                            where = start + i * dh * width + j * dw
                            best, at = larger(best, at, image[where], where)
                else:
                    j0, j1 = first_inside(z0, dw), min(last_inside(z0, dw, width), kw)
                    at = start + i0 * dh * width + j0 * dw if i1 > i0 and j1 > j0 else -1
                    best = image[max(at, 0)]
                    for i in range(i0, i1):
                        for j in range(j0, j1):
                            where = start + i * dh * width + j * dw
                            best, at = larger(best, at, image[where], where)
                found[s] = at
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


def planes(x: Layout, window: int, outputs: int) -> tuple[int, int]:
    """Extent and grain of a step over the planes of `x`."""
    count = x.shape[0] * x.shape[1]
    least = max(1, GRAIN_ELEMENTS // max(1, window * outputs))
    return count, least if 2 * least <= count else 0


@kernel("max_pool2d_index")
def _(ins, outs, attrs):
    (x,), (out,) = ins, outs
    (h, w), (out_h, out_w), (kh, kw) = x.shape[2:], out.shape[2:], attrs["kernel"]
    (top, _), (left, _) = attrs["padding"]
    words = (h, w, out_h, out_w, kh, kw, *attrs["stride"], *attrs["dilation"], top, left)
    extent, least = planes(x, kh * kw, out_h * out_w)
    rows, columns = (kh, kw) if kh * kw <= UNROLLED else (0, 0)
    code = max_positions.address(T=x.dtype, ROWS=rows, COLUMNS=columns)
    return (Step(code, (0, 1), words, extent, least),)


def mean_step(code: int, image: Layout, pooled: Layout, attrs: dict) -> tuple[Step, ...]:
    """The step of a mean over windows or of its transpose."""
    (h, w), (out_h, out_w), (kh, kw) = image.shape[2:], pooled.shape[2:], attrs["kernel"]
    (top, bottom), (left, right) = attrs["padding"]
    words = (h, w, out_h, out_w, kh, kw, *attrs["stride"], top, bottom, left, right, int(attrs["count_include_pad"]))
    return (Step(code, (0, 1), words, *planes(image, kh * kw, out_h * out_w)),)


@kernel("avg_pool2d")
def _(ins, outs, attrs):
    return mean_step(window_means.address(T=ins[0].dtype), ins[0], outs[0], attrs)


@kernel("avg_pool2d_input")
def _(ins, outs, attrs):
    return mean_step(spread_means.address(T=ins[0].dtype), outs[0], ins[0], attrs)
