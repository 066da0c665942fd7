"""Pooling over windows of images, NCHW. A thread computes an output; where outputs add up, each is added up by one thread."""

from __future__ import annotations

from ...layouts import Layout
from .names import T, cuda, int32
from .template import Work, cuda_kernel, inline, spread, template

WINDOW = "H: int, W: int, P: int, Q: int, kh: int, kw: int, sh: int, sw: int"


@inline
def share(start, size, kernel, after, padded):
    """The number of a window's rows (or columns) that count, for a window that begins at `start`."""
    if padded:
        return min(start + kernel, size + after) - start
    return min(start + kernel, size) - max(start, 0)


@template(f"x: *T, out: *T, at: *int32, items: int, {WINDOW}, dh: int, dw: int, top: int, left: int")
def window_maximum(x, out, at, items, H, W, P, Q, kh, kw, sh, sw, dh, dw, top, left):
    """The maximum of each window and its position in the plane: the first of equals, nan before all; -1 if it is empty."""
    item = cuda.grid(1)
    while item < items:
        row = item // Q
        plane = row // P
        y0 = (row - plane * P) * sh - top
        x0 = (item - row * Q) * sw - left
        best = T(0)
        place = int32(-1)
        for i in range(kh):
            y = y0 + i * dh
            for j in range(kw):
                z = x0 + j * dw
                if y >= 0 and y < H and z >= 0 and z < W:
                    value = x[(plane * H + y) * W + z]
                    if place < 0 or (not value <= best and best == best):
                        best = value
                        place = int32(y * W + z)
        out[item] = best
        at[item] = place
        item += cuda.gridsize(1)


@template("g: *T, at: *int32, out: *T, planes: int, size: int, windows: int")
def spread_maxima(g, at, out, planes, size, windows):
    """Zeros, with each window's gradient added where its maximum was; a thread has a plane."""
    plane = cuda.grid(1)
    while plane < planes:
        for i in range(size):
            out[plane * size + i] = T(0)
        for w in range(windows):
            place = at[plane * windows + w]
            if place >= 0:
                out[plane * size + place] += g[plane * windows + w]
        plane += cuda.gridsize(1)


@template(f"x: *T, out: *T, items: int, {WINDOW}, top: int, bottom: int, left: int, right: int, padded: int")
def window_means(x, out, items, H, W, P, Q, kh, kw, sh, sw, top, bottom, left, right, padded):
    """The mean of each window; `padded`: the zeros around the image count as elements. An empty window gives 0."""
    item = cuda.grid(1)
    while item < items:
        row = item // Q
        plane = row // P
        y0 = (row - plane * P) * sh - top
        x0 = (item - row * Q) * sw - left
        total = T(0)
        for y in range(max(y0, 0), min(y0 + kh, H)):
            for z in range(max(x0, 0), min(x0 + kw, W)):
                total += x[(plane * H + y) * W + z]
        count = share(y0, H, kh, bottom, padded) * share(x0, W, kw, right, padded)
        out[item] = total / T(count) if count > 0 else T(0)
        item += cuda.gridsize(1)


@template(f"g: *T, out: *T, items: int, {WINDOW}, top: int, bottom: int, left: int, right: int, padded: int")
def spread_means(g, out, items, H, W, P, Q, kh, kw, sh, sw, top, bottom, left, right, padded):
    """The transpose: each pixel gets its share of the gradients of the windows that have it."""
    item = cuda.grid(1)
    while item < items:
        row = item // W
        plane = row // H
        y = row - plane * H
        z = item - row * W
        total = T(0)
        for q in range(max((y + top - kh) // sh + 1, 0), min((y + top) // sh + 1, P)):
            for s in range(max((z + left - kw) // sw + 1, 0), min((z + left) // sw + 1, Q)):
                count = share(q * sh - top, H, kh, bottom, padded) * share(s * sw - left, W, kw, right, padded)
                if count > 0:
                    total += g[(plane * P + q) * Q + s] / T(count)
        out[item] = total
        item += cuda.gridsize(1)


@cuda_kernel("max_pool2d")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    (x,), (out, _) = ins, outs
    (top, _), (left, _) = attrs["padding"]
    words = (out.size, *x.shape[2:], *out.shape[2:], *attrs["kernel"], *attrs["stride"], *attrs["dilation"], top, left)
    return Work((spread(window_maximum.bind(T=x.dtype), out.size, (0, 1, 2), words),))


@cuda_kernel("max_pool2d_slope")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    (g, _), (out,) = ins, outs
    planes = out.shape[0] * out.shape[1]
    words = (planes, out.shape[2] * out.shape[3], g.shape[2] * g.shape[3])
    return Work((spread(spread_maxima.bind(T=g.dtype), planes, (0, 1, 2), words),))


def _mean_words(items: int, image: Layout, pooled: Layout, attrs: dict) -> tuple[int, ...]:
    (top, bottom), (left, right) = attrs["padding"]
    sides = (*image.shape[2:], *pooled.shape[2:], *attrs["kernel"], *attrs["stride"])
    return (items, *sides, top, bottom, left, right, int(attrs["count_include_pad"]))


@cuda_kernel("avg_pool2d")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    words = _mean_words(outs[0].size, ins[0], outs[0], attrs)
    return Work((spread(window_means.bind(T=ins[0].dtype), outs[0].size, (0, 1), words),))


@cuda_kernel("avg_pool2d_input")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    words = _mean_words(outs[0].size, outs[0], ins[0], attrs)
    return Work((spread(spread_means.bind(T=ins[0].dtype), outs[0].size, (0, 1), words),))
