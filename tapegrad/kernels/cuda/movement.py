"""Ops that place elements, and outputs made from a few numbers: embed, concatenate, pad, full, arange, tri, eye.

Copies into parts of an output are elementwise chains of no operation, written with the strides of the part.
"""

from __future__ import annotations

from ...dtypes import DType, float64, int64
from ...layouts import Layout, layout
from ...ops import expression as ex
from ..fused import Load, Map
from .elementwise import Chain, work
from .names import A, T, cuda, uint8
from .template import Steps, Work, cuda_kernel, spread, storage, template

COPY = Chain((Load(0),), (0,))


@template("start: *T, step: *T, y: *T, n: int")
def fill_range(start, step, y, n):
    """y[i] = start + i step, from i alone, in float64 for floats, so that errors do not add up."""
    first, width = A(start[0]), A(step[0])
    i = cuda.grid(1)
    while i < n:
        y[i] = T(first + A(i) * width)
        i += cuda.gridsize(1)


@template("y: *uint8, n: int, columns: int, k: int")
def fill_tri(y, n, columns, k):
    """y[i, j] = j <= i + k."""
    i = cuda.grid(1)
    while i < n:
        row = i // columns
        y[i] = uint8(1) if i - row * columns <= row + k else uint8(0)
        i += cuda.gridsize(1)


@template("y: *T, n: int, columns: int, k: int")
def fill_eye(y, n, columns, k):
    """y[i, j] = 1 where j = i + k, else 0."""
    i = cuda.grid(1)
    while i < n:
        row = i // columns
        y[i] = T(1) if i - row * columns == row + k else T(0)
        i += cuda.gridsize(1)


def zeros(dtype: DType) -> Chain:
    return Chain((Map(ex.const(0), (), dtype.compute, dtype),), (0,))


def flat(x: Layout) -> Layout:
    return layout((x.size,), x.dtype, None, x.device)


def copied(x: Layout, place: int, y: Layout, target: int, starts, steps=None) -> tuple:
    """The launches that write x, at `place`, to the part of y, at `target`, from `starts` on in `steps`."""
    if x.size == 0:
        return ()
    strides = tuple(s * t for s, t in zip(y.strides, steps or (1,) * y.ndim, strict=True))
    offset = sum(a * s for a, s in zip(starts, y.strides, strict=True))
    part = layout(x.shape, y.dtype, strides, y.device)
    return work(COPY, (x,), (part,), (place, target), (0, offset)).launches


@cuda_kernel("embed", accepts=lambda x: True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    """Zeros, then the input written to a strided part of them."""
    (x,), (y,) = ins, outs
    zero = work(zeros(y.dtype), (), (flat(y),), (1,)).launches
    return Work((*zero, *copied(x, 0, y, 1, attrs["starts"], attrs["steps"])))


@cuda_kernel("concatenate", accepts=lambda x: True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    axis, out, first = attrs["axis"], outs[0], 0
    steps = Steps(ins, outs)
    for i, x in enumerate(ins):
        starts = tuple(first if a == axis else 0 for a in range(out.ndim))
        steps.add(*copied(x, i, out, len(ins), starts))
        first += x.shape[axis]
    return steps.work()


@cuda_kernel("pad", accepts=lambda x: True)
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    (x, value), (y,) = ins, outs
    edges = work(COPY, (value,), (flat(y),), (1, 2)).launches
    return Work((*edges, *copied(x, 0, y, 2, [before for before, _ in attrs["pads"]])))


@cuda_kernel("full")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    return work(COPY, ins, (flat(outs[0]),))


@cuda_kernel("arange")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    dtype, n = outs[0].dtype, outs[0].size
    kernel = fill_range.bind(T=dtype, A=float64 if dtype.is_float else int64)
    return Work((spread(kernel, n, (0, 1, 2), (n,)),))


@cuda_kernel("tri")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    n, columns = outs[0].size, outs[0].shape[1]
    return Work((spread(fill_tri.bind(), n, (len(ins),), (n, columns, attrs["k"])),))


@cuda_kernel("eye")
def _(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
    n, columns = outs[0].size, outs[0].shape[1]
    return Work((spread(fill_eye.bind(T=storage(outs[0].dtype)), n, (len(ins),), (n, columns, attrs["k"])),))
