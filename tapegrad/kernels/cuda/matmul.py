"""Matrix products by tiles in shared memory, for all dtypes and strides: what runs where no library does.

A block of S x S threads computes a tile of S M x S M elements, each thread M x M of them, in steps of S along the inner axis.
Floats are accumulated in their own dtype, as BLAS does, integers in int64. Up to three batch axes go in one launch; further
ones, after merging, in a launch each.
"""

from __future__ import annotations

import itertools
from math import isqrt, prod
from typing import Any

from ...dtypes import int64
from ...layouts import Layout
from .names import A, T, cuda
from .template import MACHINE, Launch, Work, cuda_kernel, storage, template

MICRO = 4  # rows and columns that a thread computes
S: int = 16  # bound: the side of a block
M: int = MICRO  # bound
SHARED: int = S * S * M  # bound, as sizes of arrays must be
OWN: int = M * M
LEFT_ROWS: bool = True  # bound: whether neighbours in a row lie side by side
RIGHT_ROWS: bool = True
AXES = 3


@template(
    "a: *T, b: *T, y: *T, blocks: int, m: int, k: int, n: int, a_row: int, a_col: int, b_row: int, b_col: int, y_row: int,"
    "y_col: int, l1: int, l2: int, a0: int, a1: int, a2: int, b0: int, b1: int, b2: int, y0: int, y1: int, y2: int"
)
def product_tiles(
    a, b, y, blocks, m, k, n, a_row, a_col, b_row, b_col, y_row, y_col, l1, l2, a0, a1, a2, b0, b1, b2, y0, y1, y2
):  # fmt: skip
    left = cuda.shared.array(SHARED, T)
    right = cuda.shared.array(SHARED, T)
    total = cuda.local.array(OWN, A)
    me = cuda.threadIdx.x
    down = me // S
    across = me - down * S
    wide = (n + S * M - 1) // (S * M)
    tall = (m + S * M - 1) // (S * M)
    block = cuda.blockIdx.x
    while block < blocks:
        batch = block // (tall * wide)
        tile = block - batch * (tall * wide)
        row0 = (tile // wide) * (S * M)
        col0 = (tile - (tile // wide) * wide) * (S * M)
        i2 = batch % l2
        rest = batch // l2
        i1 = rest % l1
        i0 = rest // l1
        from_a = i0 * a0 + i1 * a1 + i2 * a2
        from_b = i0 * b0 + i1 * b1 + i2 * b2
        for e in range(M * M):
            total[e] = A(0)
        inner = 0
        while inner < k:
            for r in range(M):
                e = me + r * (S * S)
                i = e // S if LEFT_ROWS else e % (S * M)
                p = e % S if LEFT_ROWS else e // (S * M)
                inside = row0 + i < m and inner + p < k
                left[p * (S * M) + i] = a[from_a + (row0 + i) * a_row + (inner + p) * a_col] if inside else T(0)
                j = e % (S * M) if RIGHT_ROWS else e // S
                q = e // (S * M) if RIGHT_ROWS else e % S
                within = col0 + j < n and inner + q < k
                right[q * (S * M) + j] = b[from_b + (inner + q) * b_row + (col0 + j) * b_col] if within else T(0)
            cuda.syncthreads()
            for p in range(S):
                for r in range(M):
                    x = A(left[p * (S * M) + r * S + down])
                    for c in range(M):
                        total[r * M + c] += x * A(right[p * (S * M) + c * S + across])
            cuda.syncthreads()
            inner += S
        for r in range(M):
            row = row0 + r * S + down
            for c in range(M):
                col = col0 + c * S + across
                if row < m and col < n:
                    y[i0 * y0 + i1 * y1 + i2 * y2 + row * y_row + col * y_col] = T(total[r * M + c])
        block += cuda.gridDim.x


def merged_batches(lengths: tuple[int, ...], strides: list[tuple[int, ...]]) -> tuple[list[int], list[list[int]]]:
    """Batch axes with neighbours joined where all operands allow."""
    from ..elementwise import merged

    extents, steps = merged(lengths, strides)
    return extents, [list(s) for s in steps]


def lead_strides(x: Layout, lengths: tuple[int, ...]) -> tuple[int, ...]:
    """Strides with which the batch axes of x are walked, broadcast to `lengths`."""
    missing = len(lengths) - (x.ndim - 2)
    own = tuple(0 if n == 1 else s for n, s in zip(x.shape[:-2], x.strides[:-2], strict=True))
    return (0,) * missing + own


def sides(side: int, micro: int) -> dict[str, int]:
    """The bindings of a block of side x side threads, each of which computes micro x micro elements."""
    return {"S": side, "M": micro, "SHARED": side * side * micro, "OWN": micro * micro}


def product(
    a: tuple[int, int],
    b: tuple[int, int],
    y: tuple[int, int],
    sizes: tuple[int, int, int],
    batches,
    dtype,
    places,
    starts=(0, 0, 0),
) -> list[Launch]:
    """Launches for y (m, n) = a (m, k) @ b (k, n), each given by its two strides. batches: lengths, and strides by operand."""
    m, k, n = sizes
    lengths, strides = batches
    size, made = storage(dtype).itemsize, []
    outer, within = lengths[:-AXES], lengths[-AXES:]
    fill = AXES - len(within)
    batch = [1] * fill + list(within)
    steps = [[0] * fill + s[-AXES:] if within else [0] * AXES for s in strides]
    side = isqrt(MACHINE.block)
    micro = MICRO if side > 2 else 2
    bound: dict[str, Any] = {"T": storage(dtype), "A": dtype if dtype.is_float else int64, **sides(side, micro)}
    kernel = product_tiles.bind(LEFT_ROWS=a[1] == 1 or k == 1, RIGHT_ROWS=b[1] == 1 or n == 1, **bound)
    tile = side * micro
    blocks = prod(batch) * -(-m // tile) * -(-n // tile)
    for index in itertools.product(*map(range, outer)):
        offsets = [
            start + sum(i * t for i, t in zip(index, s[: len(outer)], strict=True))
            for start, s in zip(starts, strides, strict=True)
        ]
        words = (blocks, m, k, n, *a, *b, *y, batch[1], batch[2], *(t for s in steps for t in s))
        grid = max(1, min(blocks, MACHINE.blocks))
        made.append(Launch(kernel, grid, side * side, places, words, tuple(o * size for o in offsets)))
    return made


def turned(x: Layout) -> tuple[int, int, tuple[int, int]]:
    """Rows, columns and strides of the transpose of the last two axes."""
    return x.shape[-1], x.shape[-2], (x.strides[-1], x.strides[-2])


@cuda_kernel("matmul", accepts=lambda x: True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    """attrs: `turned`: b is given transposed; `order`: the result's axes as they lie in memory."""
    (a, b), (out,) = ins, outs
    _, n, by_b = turned(b) if attrs.get("turned") else (*b.shape[-2:], b.strides[-2:])
    order = attrs.get("order") or tuple(range(out.ndim))
    at = [order.index(axis) for axis in range(out.ndim)]
    shape, strides = [out.shape[i] for i in at], [out.strides[i] for i in at]
    lengths = tuple(shape[:-2])
    lead = [lead_strides(a, lengths), lead_strides(b, lengths), tuple(strides[:-2])]
    batches = merged_batches(lengths, lead)
    sizes = (a.shape[-2], a.shape[-1], n)
    launches = product(a.strides[-2:], by_b, tuple(strides[-2:]), sizes, batches, out.dtype, (0, 1, 2))  # type: ignore[arg-type]
    return Work(tuple(launches))
