"""Fusion: elementwise rows over one space, computed in one dtype, become one kernel.

Rows are taken in their order. Each becomes an item; then the items that made its inputs are drawn into it, where nothing
between needs them, or it is drawn into one of them, where everything it needs is there by then. A kernel rounds where the
separate ones did, so results are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..dtypes import DType, bool_
from ..kernels import elementwise as generator
from ..kernels.launch import Step
from ..kernels.prepare import infer
from ..ops import expression as ex
from ..ops import registry
from ..ops.reader import Unreadable
from ..ops.registry import elementwise_dtypes
from .segment import Row, Value

# A kernel of 100 nodes compiles in some 5 ms; beyond that registers spill.
MOST_NODES, MOST_MATH, MOST_OPERANDS = 100, 10, 28


@dataclass(eq=False, slots=True)
class Item:
    """What becomes one kernel, or one row that does not fuse."""

    at: int
    rows: list[int]
    ins: set[int]  # values read, by their roots
    outs: set[int]  # values written, by their roots
    shape: tuple[int, ...] = ()
    compute: DType | None = None  # None: not elementwise
    nodes: int = 0
    math: int = 0
    assigns: set[int] = field(default_factory=set)  # roots that it overwrites


class Fusion:
    """The items of a segment."""

    def __init__(self, values: list[Value], rows: list[Row]):
        self.values, self.rows = values, rows
        self.items: list[Item | None] = []
        self.makers: dict[int, Item] = {}  # root -> who wrote it last
        self.readers: dict[int, set[Item]] = {}
        self.writers: dict[int, set[Item]] = {}

    def root(self, number: int) -> int:
        base = self.values[number].base
        return number if base is None else base

    def add(self, number: int) -> None:
        """Take the next row, and fuse it with what made its inputs."""
        row = self.rows[number]
        ins, outs = {self.root(v) for v in row.ins}, {self.root(v) for v in row.outs}
        item = Item(len(self.items), [number], ins, outs)
        kind = elementwise(self.values, row)
        if kind is not None:
            item.shape, item.compute = self.values[row.outs[0]].layout.shape, kind
            item.nodes, item.math = cost(row)
        if row.assigns:
            item.assigns = set(outs)
        makers = {m for r in ins if (m := self.makers.get(r)) is not None}
        self.items.append(item)
        for r in ins:
            self.readers.setdefault(r, set()).add(item)
        for r in outs:
            self.writers.setdefault(r, set()).add(item)
        if item.compute is not None:
            for maker in sorted(makers, key=lambda m: -m.at):
                if self.alike(maker, item):
                    if self.sinks(maker, item):
                        self.merge(maker, item)
                    elif self.rises(item, maker):
                        self.merge(item, maker)
                        item = maker
        for r in outs:
            self.makers[r] = item

    def alike(self, a: Item, b: Item) -> bool:
        """True where two items may be one kernel, if they may be next to each other."""
        if a is b or a.compute is not b.compute or a.compute is None or a.shape != b.shape:
            return False
        if (
            a.nodes + b.nodes > MOST_NODES
            or a.math + b.math > MOST_MATH
            or len(a.ins | b.ins | a.outs | b.outs) > MOST_OPERANDS
        ):
            return False
        numbers = [v for n in (*a.rows, *b.rows) for v in (*self.rows[n].ins, *self.rows[n].outs)]
        made = {v for n in (*a.rows, *b.rows) for v in self.rows[n].outs}
        touched = {self.root(v) for v in made}
        # what one writes the other may read only element by element
        return all(self.same_elements(v, made) for v in numbers if self.root(v) in touched and v not in made)

    def same_elements(self, v: int, made: set[int]) -> bool:
        """True where v shows just the elements of a value that is made, in their order."""
        value = self.values[v]
        return any(
            self.root(m) == self.root(v)
            and self.values[m].layout is value.layout
            and self.values[m].offset == value.offset
            for m in made
        )

    def sinks(self, early: Item, late: Item) -> bool:
        """True where `early` may run as late as `late`."""
        if any(r is not early and r is not late for out in early.outs for r in self.readers.get(out, ())):
            return False
        touched = early.ins | early.outs
        return not any(
            w is not early and w is not late and w.at > early.at for r in touched for w in self.writers.get(r, ())
        )

    def rises(self, late: Item, early: Item) -> bool:
        """True where `late` may run as early as `early`."""
        for r in late.ins:
            if any(w is not early and w is not late and w.at > early.at for w in self.writers.get(r, ())):
                return False
        return not any(
            x is not early and x is not late and x.at > early.at
            for r in late.outs
            for x in (*self.readers.get(r, ()), *self.writers.get(r, ()))
        )

    def merge(self, gone: Item, into: Item) -> None:
        """Make one item of two, where `into` stands."""
        into.rows = sorted(into.rows + gone.rows)
        for table, roots in ((self.readers, gone.ins), (self.writers, gone.outs)):
            for r in roots:
                table[r].discard(gone)
                table[r].add(into)
        into.ins |= gone.ins
        into.outs |= gone.outs
        into.assigns |= gone.assigns
        into.nodes += gone.nodes
        into.math += gone.math
        for r in gone.outs:
            if self.makers.get(r) is gone:
                self.makers[r] = into
        self.items[gone.at] = None


def fuse(values: list[Value], rows: list[Row], numbers: Iterable[int]) -> list[Item]:
    """The rows named, as items in running order."""
    fusion = Fusion(values, rows)
    for number in numbers:
        fusion.add(number)
    return [item for item in fusion.items if item is not None]


def elementwise(values: list[Value], row: Row) -> DType | None:
    """The dtype that an elementwise row computes in; None where it cannot be fused."""
    if row.op.kind != "elementwise" or not row.outs:
        return None
    outs = [values[v].layout for v in row.outs]
    if outs[0].size == 0 or outs[0].device != "cpu" or any(x.shape != outs[0].shape for x in outs):
        return None
    try:
        row.op.expression()
    except Unreadable:
        return None
    ins = tuple([values[v].layout for v in row.ins])
    if row.assigns:
        compute, _ = elementwise_dtypes(row.op, tuple([x.dtype for x in ins]))
        compute = outs[0].dtype if row.op is registry.IDENTITY else compute
    else:
        _, found, _ = infer(row.op, ins, row.attrs)
        if found is None:
            return None
        compute = found
    return compute if all(x.dtype is compute or (x.dtype is bool_ and not row.assigns) for x in outs) else None


def cost(row: Row) -> tuple[int, int]:
    """Nodes of a row's expression, and those of them that are transcendental."""
    nodes = list(ex.walk(row.op.expression()))
    return len(nodes), sum(n.kind in ex.MATH for n in nodes)


def kernel(
    values: list[Value], rows: list[Row], item: Item, needed: set[int]
) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    """The steps of a fused item, and the values that they take: inputs, then outputs. `needed`: roots that are read elsewhere."""
    inputs: list[int] = []
    places: dict[tuple[int, bool], ex.Node] = {}
    truths: list[int] = []
    nodes: dict[int, ex.Node] = {}
    shown: dict[tuple, int] = {}  # (root, layout, offset) -> the value that was made there

    def place_of(v: int) -> tuple:
        value = values[v]
        return (v if value.base is None else value.base, id(value.layout), value.offset)

    def argument(v: int, truth: bool) -> ex.Node:
        v = shown.get(place_of(v), v)
        if v in nodes:
            return nodes[v]
        found = places.get((v, truth))
        if found is None:
            found = places[v, truth] = ex.argument(len(inputs))
            if truth:
                truths.append(len(inputs))
            inputs.append(v)
        return found

    for number in item.rows:
        row = rows[number]
        given = tuple([argument(v, i in row.op.truths) for i, v in enumerate(row.ins)])
        for v, node in zip(row.outs, ex.substitute(row.op.expression(), given), strict=True):
            shown[place_of(v)] = v
            # rounded as by the kernel of its own, whatever is added to it here
            nodes[v] = ex.node("product", *node.args) if node.kind == "mul" else node
    outs = [v for v in nodes if (v if values[v].base is None else values[v].base) in needed]
    steps = generator.steps(
        tuple([nodes[v] for v in outs]),
        tuple([values[v].layout for v in inputs]),
        tuple([values[v].layout for v in outs]),
        item.compute,  # type: ignore[arg-type]
        truths=tuple(truths),
    )
    return steps, (*inputs, *outs)
