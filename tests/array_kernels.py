"""Array kernels with a body for the CPU and one for CUDA: what the tests of both run."""

from __future__ import annotations

import math

from numba import cuda

import tapegrad as tg

TILE = 4


@tg.kernel("(n),(k)->(k)")
def sampled(x, at, out):
    """x between its elements, by linear interpolation at places from 0 to n - 1."""
    for i in range(at.shape[0]):
        j = min(max(int(at[i]), 0), x.shape[0] - 2)
        out[i] = x[j] + (at[i] - j) * (x[j + 1] - x[j])


@sampled.cuda
def _(x, at, out):
    i = cuda.grid(1)
    if i < out.shape[0]:
        j = left(at[i], x.shape[0])
        out[i] = x[j] + (at[i] - j) * (x[j + 1] - x[j])


def left(place, n):
    return min(max(int(place), 0), n - 2)


@tg.kernel("(k),(k),(n),(k)->(n),(k)")
def sampled_slope(g, y, x, at, gx, gat):
    gx[:] = 0
    for i in range(at.shape[0]):
        j = min(max(int(at[i]), 0), x.shape[0] - 2)
        gx[j] += g[i] * (1 - (at[i] - j))
        gx[j + 1] += g[i] * (at[i] - j)
        gat[i] = g[i] * (x[j + 1] - x[j])


@sampled_slope.cuda(zeroed=True, threads=lambda k: k, block=2)
def _(g, y, x, at, gx, gat):
    i = cuda.grid(1)
    while i < at.shape[0]:
        j = left(at[i], x.shape[0])
        f = at[i] - j
        cuda.atomic.add(gx, j, g[i] * (1 - f))
        cuda.atomic.add(gx, j + 1, g[i] * f)
        gat[i] = g[i] * (x[j + 1] - x[j])
        i += cuda.gridsize(1)


sampled.adjoint(sampled_slope)


@tg.kernel("(m,n)->(m,n)")
def smoothed(x, out):
    """The mean of each element and its neighbours."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            total, count = x[i, j] * 0, 0
            for k, l in ((i, j), (i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):  # noqa: E741
                if 0 <= k < x.shape[0] and 0 <= l < x.shape[1]:
                    total += x[k, l]
                    count += 1
            out[i, j] = total / count


@smoothed.cuda(threads=lambda m, n: (n, m))
def _(x, out):
    j, i = cuda.grid(2)
    if i >= x.shape[0] or j >= x.shape[1]:
        return
    total, count = x[i, j], 1
    if i > 0:
        total += x[i - 1, j]
        count += 1
    if i + 1 < x.shape[0]:
        total += x[i + 1, j]
        count += 1
    if j > 0:
        total += x[i, j - 1]
        count += 1
    if j + 1 < x.shape[1]:
        total += x[i, j + 1]
        count += 1
    out[i, j] = total / count


@tg.kernel("(n)->()")
def total(x, out):
    out[0] = 0
    for i in range(x.shape[0]):
        out[0] += x[i]


@total.adjoint
def _(g, y, x):
    return tg.expand_dims(g, -1) + tg.zeros_like(x)


@total.cuda(threads=TILE, block=TILE)
def _(x, out):
    """Sums of each thread in shared memory, which are halved until one is left."""
    sums = cuda.shared.array(TILE, x.dtype)
    me = cuda.threadIdx.x
    mine = x.dtype.type(0)
    for i in range(me, x.shape[0], TILE):
        mine += x[i]
    sums[me] = mine
    half = TILE // 2
    while half > 0:
        cuda.syncthreads()
        if me < half:
            sums[me] += sums[me + half]
        half //= 2
    if me == 0:
        out[0] = sums[0]


@tg.kernel("(n,2),(m,2)->()")
def chamfer(a, b, out):
    """The mean squared distance of each point of a to the nearest point of b."""
    out[0] = 0
    for i in range(a.shape[0]):
        nearest = math.inf
        for j in range(b.shape[0]):
            nearest = min(nearest, (a[i, 0] - b[j, 0]) ** 2 + (a[i, 1] - b[j, 1]) ** 2)
        out[0] += nearest / a.shape[0]


@tg.kernel("(),(),(n,2),(m,2)->(n,2),(m,2)")
def chamfer_slope(g, y, a, b, ga, gb):
    gb[:] = 0
    for i in range(a.shape[0]):
        nearest, at = math.inf, 0
        for j in range(b.shape[0]):
            square = (a[i, 0] - b[j, 0]) ** 2 + (a[i, 1] - b[j, 1]) ** 2
            if square < nearest:
                nearest, at = square, j
        for k in range(2):
            ga[i, k] = 2 * g * (a[i, k] - b[at, k]) / a.shape[0]
            gb[at, k] -= ga[i, k]


chamfer.adjoint(chamfer_slope)
chamfer.cuda(chamfer.fn, serial=True)
chamfer_slope.cuda(chamfer_slope.fn, serial=True)


@tg.kernel("(n),(k),(n)->(k),(),(n)", dtypes=(None, tg.int64, tg.bool))
def picked(x, places, mask, out, largest, flipped):
    """Elements by index; the largest index; the mask turned over."""
    largest[0] = places[0]
    for i in range(places.shape[0]):
        out[i] = x[places[i]] if mask[places[i]] else 0
        largest[0] = max(largest[0], places[i])
    for i in range(mask.shape[0]):
        flipped[i] = not mask[i]


@picked.cuda
def _(x, places, mask, out, largest, flipped):
    i = cuda.grid(1)
    if i < places.shape[0]:
        out[i] = x[places[i]] if mask[places[i]] else 0
    if i < mask.shape[0]:
        flipped[i] = not mask[i]
    if i == 0:
        best = places[0]
        for k in range(1, places.shape[0]):
            best = max(best, places[k])
        largest[0] = best


def positive(x):
    for _ in range(3):
        if x <= 0.0:
            raise ValueError("not positive")
    return x
