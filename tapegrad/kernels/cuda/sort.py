"""Stable argsort along one axis, nan last: tiles are sorted by counting, then runs are merged in passes over all lines.

Values become integer keys in the wanted order, as on the CPU. In a tile, as long as a block has threads, the place of an
element is the number of elements before it. In a merge, it is its place in its own run and, found by bisection, the number of
elements of the other run that come before it: every thread writes one element, and nothing depends on the order of threads.
"""

from __future__ import annotations

from math import prod

from ...dtypes import DType
from ...layouts import Layout
from ..keys import key_limits
from .blocks import key_bindings, order_key
from .names import BLOCK, K, cuda, load
from .template import MACHINE, Launch, Steps, Work, cuda_kernel, spread, storage, template

DESCENDING: bool = False  # bound
MIRROR: int = 0  # bound: the sum of the least and the greatest key


@template("x: *T, keys: *K, order: *int64, tiles: int, per_line: int, n: int, inner: int")
def sort_tiles(x, keys, order, tiles, per_line, n, inner):
    """Sorts each tile of the lines x[o, :, j]; keys and order are (lines, n)."""
    shared = cuda.shared.array(BLOCK, K)
    me = cuda.threadIdx.x
    tile = cuda.blockIdx.x
    while tile < tiles:
        line = tile // per_line
        first = (tile - line * per_line) * BLOCK
        i = first + me
        o = line // inner
        mine = K(0)
        if i < n:
            mine = K(load(x[(o * n + i) * inner + (line - o * inner)]))
            if DESCENDING:
                mine = K(MIRROR - mine)
            shared[me] = mine
        cuda.syncthreads()
        if i < n:
            place = first
            for j in range(min(BLOCK, n - first)):
                other = shared[j]
                if other < mine or (other == mine and j < me):
                    place += 1
            keys[line * n + place] = mine
            order[line * n + place] = i
        cuda.syncthreads()
        tile += cuda.gridDim.x


@template("keys: *K, order: *int64, to_keys: *K, to_order: *int64, items: int, n: int, width: int")
def merge_runs(keys, order, to_keys, to_order, items, n, width):
    """Merges pairs of sorted runs of `width` elements of each line."""
    item = cuda.grid(1)
    while item < items:
        line = item // n
        base = line * n
        i = item - base
        run = i // width
        mine = keys[item]
        second = run % 2
        first = (run - second) * width
        low = first if second else min(first + width, n)
        high = min(first + width, n) if second else min(first + 2 * width, n)
        start = low
        while low < high:  # the elements of the other run that come before this one
            middle = (low + high) // 2
            other = keys[base + middle]
            if other < mine or (second and other == mine):
                low = middle + 1
            else:
                high = middle
        to = base + i + low - start - (width if second else 0)
        to_keys[to] = mine
        to_order[to] = order[item]
        item += cuda.gridsize(1)


@template("order: *int64, y: *int64, items: int, n: int, inner: int")
def place_lines(order, y, items, n, inner):
    """y[o, i, j] = order[o, j, i]."""
    item = cuda.grid(1)
    while item < items:
        row = item // inner
        o = row // n
        y[item] = order[(o * inner + (item - row * inner)) * n + (row - o * n)]
        item += cuda.gridsize(1)


def sort_lines(
    steps: Steps, x: int, dtype: DType, sides: tuple[int, int, int], descending: bool = False, y: int | None = None
) -> tuple[int, int]:
    """Adds the launches that sort the lines of (outer, n, inner) elements at place x; the places of sorted keys and order.

    These are (outer * inner, n). y: where the order is wanted, if inner is 1.
    """
    outer, n, inner = sides
    lines, items = outer * inner, outer * n * inner
    bound = key_bindings(dtype)
    size = bound["K"].itemsize
    passes, width = 0, MACHINE.block
    while width < n:
        passes, width = passes + 1, 2 * width
    pairs = [(steps.temporary(items * size), steps.temporary(items * 8)) for _ in range(2 if passes else 1)]
    if y is not None:
        last = passes % 2
        pairs[last] = (pairs[last][0], y)
    low, top = key_limits(dtype)
    bound |= {"T": storage(dtype), "load": order_key(dtype, nan_last=not descending)}
    bound |= {"BLOCK": MACHINE.block, "DESCENDING": descending, "MIRROR": low + top}
    per_line = -(-n // MACHINE.block)
    tiles = lines * per_line
    kernel = sort_tiles.bind(**bound)
    grid = max(1, min(tiles, MACHINE.blocks))
    steps.add(Launch(kernel, grid, MACHINE.block, (x, *pairs[0]), (tiles, per_line, n, inner)))
    width = MACHINE.block
    for k in range(passes):
        here, there = pairs[k % 2], pairs[(k + 1) % 2]
        steps.add(spread(merge_runs.bind(K=bound["K"]), items, (*here, *there), (items, n, width)))
        width *= 2
    return pairs[passes % 2]


@cuda_kernel("argsort")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    x, axis = ins[0], attrs["axis"]
    shape = x.shape or (1,)
    sides = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    if axis < 0:
        axis += len(shape)
        sides = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    steps = Steps(ins, outs)
    _, order = sort_lines(steps, 0, x.dtype, sides, bool(attrs["descending"]), 1 if sides[2] == 1 else None)
    if sides[2] > 1:
        steps.add(spread(place_lines.bind(), x.size, (order, 1), (x.size, sides[1], sides[2])))
    return steps.work()
