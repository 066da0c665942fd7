"""Fused kernels: elementwise expressions and reductions of rows, of columns and of everything, in one walk of memory.

Map: `Fused` says what a kernel computes, `steps()` is the builder, `Form` is what its code depends on, `fused_code.py`
writes that code. A kernel walks a space row by row. Each reduction of a row that others wait for takes a pass over the
row, which by then lies in cache: a layer norm takes three. Reductions of columns and of everything are gathered in
accumulators; there is one set of these for each chunk of the rows, so that the result does not depend on the number of
threads, and a second step adds up the chunks.

Each expression is computed and rounded as by an elementwise kernel of its own, so its bits are the same. Sums are
accumulated in float64 (int64 for integers) as in `reduce.py`, but in another order.

Static words: as in `elementwise.py`; then the rows of a chunk and of all, the bytes of a chunk's accumulators, the extents
of the axes of a row but the innermost, and operand by operand its strides along these.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

from ..dtypes import DType
from ..layouts import Layout
from ..ops import expression as ex
from .access import ELEMENT
from .elementwise import GRAIN, LIGHT_BITS, aligned, merged
from .jit import HOST, load
from .launch import Step

CHUNK = 16_384  # elements of a chunk, at least
CHUNK_ROWS = 32  # rows of a chunk, at least: each chunk has accumulators of its own
MOST_CHUNKS = 64
LINE = 64


@dataclass(frozen=True, slots=True)
class Load:
    """The element of input `operand`."""

    operand: int


@dataclass(frozen=True, slots=True)
class Map:
    """A scalar expression of other nodes, `args`, computed in `compute` and given as `result`.

    Arguments whose number is in `truths` are read as truth values.
    """

    expression: ex.Node
    args: tuple[int, ...]
    compute: DType
    result: DType
    truths: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Reduce:
    """The "sum", "max" or "min" of node `arg`, over its "row", its "columns" or "all".

    The value of a row can be used by later nodes; those of columns and of all are outputs only.
    """

    kind: str
    arg: int
    over: str
    result: DType


Node = Load | Map | Reduce


@dataclass(frozen=True, slots=True)
class Fused:
    """What a kernel computes.

    shape: the space that it walks; no axis has length 0. row: how many of the last axes are a row, 0 where nothing is done
    by rows. inputs: layouts that broadcast to `shape`. nodes: in order; their arguments are earlier ones. outputs: a node
    and the layout of its result: of the space, of the space without the row's axes, of the row's axes (a reduction of
    columns) or of one element (of all); the latter two contiguous.

    An output may be the same memory as an input that is walked in the same way: elements are read before they are written.
    """

    shape: tuple[int, ...]
    row: int
    inputs: tuple[Layout, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[int, Layout], ...]


class Accumulator(NamedTuple):
    """Where a chunk gathers a reduction: one element for each column, or a vector of lane type `kind` for all elements."""

    node: int
    arg: int
    reduction: str
    kind: str
    columns: bool


class Result(NamedTuple):
    """An output: its node, its layout and its place among the operands."""

    node: int
    layout: Layout
    operand: int


class Form:
    """What the code of a kernel depends on."""

    def __init__(self, f: Fused):
        self.nodes = f.nodes
        outer = len(f.shape) - f.row
        results = [Result(node, x, len(f.inputs) + k) for k, (node, x) in enumerate(f.outputs)]
        self.written = [r for r in results if not self.gathers(r.node)]
        self.gathered = [r for r in results if self.gathers(r.node)]
        walked = [aligned(x, f.shape) for x in f.inputs]
        for _, x, _ in self.written:
            walked.append(x.strides if x.ndim == len(f.shape) else (*x.strides, *[0] * f.row))
        self.whole = [x.ndim == len(f.shape) for _, x, _ in self.written]  # an element each, or one a row
        if f.row:
            self.extents, self.strides = merged(f.shape[:outer], [s[:outer] for s in walked])
            self.within, inside = merged(f.shape[outer:], [s[outer:] for s in walked])
            if not self.extents:
                self.extents, self.strides = [1], [[0] for _ in walked]
        else:
            self.extents, inside = merged(f.shape, walked)
            self.within = [self.extents.pop()] if self.extents else []
            self.strides, inside = [s[:-1] for s in inside], [s[-1:] for s in inside]
        self.inner = self.within.pop() if self.within else 1
        self.inner_strides = [s.pop() if s else 0 for s in inside]
        self.inside = inside  # strides along the axes of a row but the innermost
        self.by_rows = f.row > 0
        self.inputs = [ELEMENT[x.dtype.name] for x in f.inputs]
        self.results = [ELEMENT[x.dtype.name] for _, x, _ in self.written]
        self.moves = "".join(map(self.move, range(len(walked))))
        self.width = max(self.vector_bits // (8 * self.widest), 2)

    def gathers(self, node: int) -> bool:
        """True of reductions that are known only at the end."""
        n = self.nodes[node]
        return isinstance(n, Reduce) and n.over != "row"

    def move(self, i: int) -> str:
        """How operand i moves along a row: v contiguous, g with any stride, s not at all, o only along its outer axes."""
        stride = self.inner_strides[i]
        if i < len(self.inputs) and (stride == 0 or self.inner == 1):
            return "o" if any(self.inside[i]) else "s"
        return "v" if stride == 1 or self.inner == 1 else "g"

    @property
    def widest(self) -> int:
        """Bytes of the widest elements that the kernel computes with."""
        computed = [n.compute for n in self.nodes if isinstance(n, Map)]
        floats = [n.result for n in self.nodes if not isinstance(n, Load) and n.result.is_float]
        return max([4, *[d.itemsize for d in computed + floats]])

    @cached_property
    def costs(self) -> int:
        """How many times as long as a copy an element takes, roughly."""
        return 1 + sum(
            4 for n in self.nodes if isinstance(n, Map) for m in ex.walk((n.expression,)) if m.kind in ex.MATH
        )

    @property
    def vector_bits(self) -> int:
        light = self.costs == 1 and not any(isinstance(n, Reduce) for n in self.nodes)
        return min(HOST.vector_bits, LIGHT_BITS) if light else HOST.vector_bits

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The lane type of each node."""
        return tuple([self.inputs[n.operand] if isinstance(n, Load) else ELEMENT[n.result.name] for n in self.nodes])

    def accumulates(self, n: Reduce) -> str:
        """The lane type that a reduction is accumulated in."""
        kind = self.kinds[n.arg]
        if n.kind == "sum":
            return "f64" if kind in ("f32", "f64") else "i64"
        return "u8" if kind == "i1" else kind

    @cached_property
    def constant(self) -> tuple[bool, ...]:
        """Which nodes are the same all along a row."""
        found: list[bool] = []
        for n in self.nodes:
            if isinstance(n, Load):
                found.append(self.moves[n.operand] == "s")
            elif isinstance(n, Map):
                found.append(all(found[a] for a in n.args))
            else:
                found.append(True)
        return tuple(found)

    @cached_property
    def stages(self) -> tuple[int, ...]:
        """After how many passes over the row each node can be computed."""
        found: list[int] = []
        for n in self.nodes:
            if isinstance(n, Load):
                found.append(0)
            elif isinstance(n, Map):
                found.append(max([found[a] for a in n.args], default=0))
            else:
                found.append(found[n.arg] + 1)
        return tuple(found)

    @cached_property
    def accumulators(self) -> tuple[Accumulator, ...]:
        """What the reductions of columns and of everything are gathered in."""
        found = []
        for node, _, _ in self.gathered:
            n = self.nodes[node]
            assert isinstance(n, Reduce)
            found.append(Accumulator(node, n.arg, n.kind, self.accumulates(n), n.over == "columns"))
        return tuple(found)

    # places of words behind the walk's

    @property
    def first_extent(self) -> int:
        """Of the extents of a row's axes, and, behind them, all strides along these."""
        return 3 + 2 * len(self.accumulators)

    @property
    def first_line(self) -> int:
        """Of the places in the workspace of the rows that are kept."""
        return self.first_extent + len(self.within) * (1 + len(self.moves))

    @cached_property
    def stored(self) -> tuple[int, ...]:
        """Nodes that are costly and needed in several passes: a row of each is kept in the workspace."""
        if max(self.stages) == 0:
            return ()
        passes: dict[int, set[int]] = {}
        for stage, roots in enumerate(self.passes):
            for node in self.reached(roots):
                passes.setdefault(node, set()).add(stage)
        return tuple(sorted([n for n, where in passes.items() if len(where) > 1 and self.costly(n)]))

    def costly(self, node: int) -> bool:
        """True of a node that takes more to compute than to load."""
        n = self.nodes[node]
        return isinstance(n, Map) and any(m.kind in ex.MATH or m.kind == "div" for m in ex.walk((n.expression,)))

    def reached(self, roots: list[int]) -> set[int]:
        """The nodes that differ along a row and lead to any of `roots`."""
        found: set[int] = set()
        left = [r for r in roots if not self.constant[r]]
        while left:
            node = left.pop()
            n = self.nodes[node]
            if node in found:
                continue
            found.add(node)
            if isinstance(n, Map):
                left += [a for a in n.args if not self.constant[a]]
        return found

    @cached_property
    def passes(self) -> tuple[list[int], ...]:
        """For each pass the nodes that it has to compute along the row: what it reduces, or at last what it writes."""
        last = [r.node for r, whole in zip(self.written, self.whole, strict=True) if whole]
        for a in self.accumulators:
            n = self.nodes[a.node]
            assert isinstance(n, Reduce)
            last.append(n.arg)
        ends = [self.stages[n] for n in (*last, *[r.node for r in self.written])]
        count = max(ends, default=0)
        found: list[list[int]] = [[] for _ in range(count + 1)]
        for n in self.nodes:
            if isinstance(n, Reduce) and n.over == "row" and self.stages[n.arg] < count:
                found[self.stages[n.arg]].append(n.arg)
        found[-1] += last
        return tuple(found)

    @property
    def key(self) -> str:
        """A text that names the code completely."""
        parts = [
            f"{n.operand}" if isinstance(n, Load)
            else f"{ex.text((n.expression,))}:{n.args}:{n.compute.name}:{n.result.name}:{n.truths}" if isinstance(n, Map)
            else f"{n.kind}:{n.arg}:{n.over}:{n.result.name}"
            for n in self.nodes
        ]  # fmt: skip
        written = [f"{r.node}{'f' if whole else 'r'}" for r, whole in zip(self.written, self.whole, strict=True)]
        gathered = [f"{a.node}{'c' if a.columns else 'a'}" for a in self.accumulators]
        heads = [self.moves, ",".join(self.inputs + self.results), *written, *gathered]
        return "|".join([*parts, *heads, str(len(self.within)), str(self.by_rows), str(self.width)])


SIZES = {"f32": 4, "f64": 8, "i32": 4, "i64": 8, "u8": 1, "f16": 2, "bf16": 2}
_forms: dict[Fused, tuple[tuple[Step, ...], int]] = {}


def steps(f: Fused) -> tuple[tuple[Step, ...], int]:
    """The kernel calls, and the bytes of scratch that they share.

    Operands: the inputs, the outputs, and, where there is scratch, its address.

    >>> from tapegrad.dtypes import float32
    >>> from tapegrad.layouts import layout
    >>> square = ex.node("mul", ex.argument(0), ex.argument(0))
    >>> nodes = (Load(0), Map(square, (0,), float32, float32), Reduce("sum", 1, "row", float32))
    >>> f = Fused((3, 5), 1, (layout((3, 5), float32),), nodes, ((2, layout((3,), float32)),))
    >>> [(step.operands, step.extent) for step in steps(f)[0]]
    [((0, 1), 3)]
    """
    found = _forms.get(f)
    if found is None:
        found = _forms[f] = _steps(f)
    return found


def _steps(f: Fused) -> tuple[tuple[Step, ...], int]:
    from . import fused_code

    form = Form(f)
    operands = [*range(len(f.inputs)), *[r.operand for r in form.written]]
    row = prod(form.within) * form.inner
    items, each = (prod(form.extents), row) if form.extents else (form.inner, 1)
    grain = max(GRAIN // (form.costs * each), 1 if form.extents else 4096)
    chunk, starts, nbytes = 0, [], 0
    for a in form.accumulators:
        starts.append(nbytes)
        nbytes += lines(vectors(a, form, row) * form.width * SIZES[a.kind])
    if starts:
        chunk = max(-(-CHUNK // each), -(-items // MOST_CHUNKS), CHUNK_ROWS if form.extents else 1)
    kept, workspace = [], 0
    for n in form.stored:
        kept.append(workspace)
        workspace += lines(row * SIZES[in_memory(form.kinds[n])])
    words = (
        form.inner,
        len(form.extents),
        *(0,) * len(operands),
        *form.inner_strides,
        *form.extents,
        *(t for s in form.strides for t in s),
        chunk,
        items,
        nbytes,
        *starts,
        *(vectors(a, form, row) for a in form.accumulators),
        *form.within,
        *(t for s in form.inside for t in s),
        *kept,
    )
    address = load("fused", form.key, lambda: fused_code.module(form, "fused"))
    if not chunk:
        return (Step(address, tuple(operands), words, items, grain, workspace),), 0
    scratch = len(f.inputs) + len(f.outputs)
    chunks = -(-items // chunk)
    made = [Step(address, (*operands, scratch), words, chunks, max(grain // chunk, 1), workspace)]
    for a, start, r in zip(form.accumulators, starts, form.gathered, strict=True):
        finish = fused_code.finish(a.reduction, a.kind, ELEMENT[r.layout.dtype.name], a.columns, form.width)
        extent = row if a.columns else 1
        made.append(Step(finish, (scratch, r.operand), (chunks, nbytes, start), extent, max(GRAIN // (4 * chunks), 64)))
    return tuple(made), chunks * nbytes


def lines(nbytes: int) -> int:
    """Bytes rounded up to whole cache lines."""
    return -(-nbytes // LINE) * LINE


def vectors(a: Accumulator, form: Form, row: int) -> int:
    """How many vectors an accumulator is."""
    return -(-row // form.width) if a.columns else 1


def in_memory(kind: str) -> str:
    """The lane type that elements of a kind are kept in."""
    return "u8" if kind == "i1" else kind
