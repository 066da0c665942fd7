"""Launches of the same elementwise kernel become one: the updates of all parameters, say.

Launches are taken in their order. One that computes the same chain as others before it, on arrays of any length, joins these where
they can wait for it: nothing between them writes what they read or write, or reads what they write, be it through views. The
launch of all then stands where the last one stood, and memory is placed for that order.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..kernels.cuda.elementwise import Form, Source, Written
from ..kernels.cuda.segments import Segment, launches
from ..kernels.cuda.template import Launch
from .graph import Graph
from .program import Record

Overlays = dict[int, list[tuple[int, int]]]


class Footprint:
    """What memory is read and written: by value that owns it, ranges of elements."""

    def __init__(self) -> None:
        self.reads: dict[int, list[tuple[int, int]]] = {}
        self.writes: dict[int, list[tuple[int, int]]] = {}

    def add(self, g: Graph, r: Record) -> None:
        """What a record reads and writes."""
        inner = len(r.values) - r.outputs
        for n, v in enumerate(r.values):
            kind = self.reads if n < inner else self.writes
            kind.setdefault(g.roots[v], []).append(g.span(v))

    def meets(self, other: Footprint) -> bool:
        """True where one writes what the other reads or writes."""
        return (
            overlap(self.writes, other.writes) or overlap(self.writes, other.reads) or overlap(self.reads, other.writes)
        )


def overlap(a: dict[int, list[tuple[int, int]]], b: dict[int, list[tuple[int, int]]]) -> bool:
    """True where ranges of one value have elements in common."""
    for root, spans in a.items():
        for low, high in b.get(root, ()):
            if any(x < high and low < y for x, y in spans):
                return True
    return False


class Batch:
    """Records of one chain that can be one launch. `moves`: of the operands; "" while every array has one element."""

    def __init__(self) -> None:
        self.members: list[int] = []
        self.footprint = Footprint()
        self.moves = ""

    def takes(self, moves: str, uses: Footprint) -> bool:
        """True where one that moves so through its operands can join."""
        return (not moves or not self.moves or moves == self.moves) and not self.footprint.meets(uses)


def form_of(g: Graph, r: Record) -> Form | None:
    """What an elementwise launch computes that can be one of several segments; None of any other record."""
    step = r.step
    if not isinstance(step, Launch) or not isinstance(step.kernel, Written):
        return None
    if type(step.kernel.source) is not Source:
        return None
    form = step.kernel.form
    count = len(form.operands)
    if form.axes != 1 or "g" in form.moves or any(step.offsets) or len(r.values) != count:
        return None
    if step.operands[:count] != tuple(range(count)) or r.outputs != len(form.results):
        return None
    return form


def batches(g: Graph, made: list[Record]) -> list[Batch]:
    """The batches of at least two records."""
    waiting: dict[tuple, Batch] = {}
    found: list[Batch] = []
    for at, r in enumerate(made):
        uses = Footprint()
        uses.add(g, r)
        form, joined = form_of(g, r), None
        if form is not None:
            key = (form.chain.text(), form.inputs, form.results)
            moves = form.moves if r.step.static[0] > 1 else ""
            joined = waiting.get(key)
            if joined is None or not joined.takes(moves, uses):
                joined = waiting[key] = Batch()
                found.append(joined)
            joined.members.append(at)
            joined.moves = joined.moves or moves
        for key, batch in list(waiting.items()):
            if batch is not joined and batch.footprint.meets(uses):
                del waiting[key]
        if joined is not None:
            joined.footprint.add(g, r)
    return [b for b in found if len(b.members) > 1]


def together(g: Graph, made: list[Record], overlays: Overlays) -> tuple[list[Record], Overlays]:
    """The records with those of each batch as one launch, or a few where there are too many operands; and what these do in place."""
    of = {at: b for b in batches(g, made) for at in b.members}
    records: list[Record] = []
    pairs: Overlays = {}
    for at, r in enumerate(made):
        batch = of.get(at)
        if batch is None:
            if at in overlays:
                pairs[len(records)] = overlays[at]
            records.append(r)
        elif at == batch.members[-1]:
            some = [made[k] for k in batch.members]
            inner = {id(made[k]): overlays.get(k, []) for k in batch.members}
            for record, of_it in joint(batch, some):
                pairs[len(records)] = alone(g, of_it, [p for m in of_it for p in inner[id(m)]])
                records.append(record)
    return records, pairs


def alone(g: Graph, some: Iterable[Record], pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those pairs of an input and an output whose input only one of the records reads."""
    reads = [root for m in some for root in {g.roots[v] for v in m.values[: len(m.values) - m.outputs]}]
    return [(i, o) for i, o in pairs if reads.count(g.roots[i]) == 1]


def joint(batch: Batch, some: list[Record]) -> list[tuple[Record, list[Record]]]:
    """The records of a batch's launches, and which records each one stands for."""
    form: Form = some[0].step.kernel.form
    segments = [Segment(m.step.static[0], m.values) for m in some]
    found, start = [], 0
    for launch, part in launches(form.chain, form.inputs, form.results, batch.moves or form.moves, segments):
        members = some[start : start + len(part)]
        start += len(part)
        found.append((record(launch, members) if len(members) > 1 else members[0], members))
    return found


def record(launch: Launch, members: list[Record]) -> Record:
    """The record of a launch whose operands are named by value numbers."""
    ins = tuple(dict.fromkeys([v for m in members for v in m.values[: len(m.values) - m.outputs]]))
    outs = tuple([v for m in members for v in m.values[len(m.values) - m.outputs :]])
    values = (*ins, *outs)
    places = {v: at for at, v in reversed(list(enumerate(values)))}
    title = f"{members[0].title}, and {len(members) - 1} more"
    rows = tuple(sorted({r for m in members for r in m.rows}))
    return Record(renamed(launch, places), values, title, rows, sum([m.moved for m in members]), len(outs))


def renamed(launch: Launch, places: dict[int, int]) -> Launch:
    """The launch with its operands at other places."""
    unaligned = None if launch.unaligned is None else renamed(launch.unaligned, places)
    operands = tuple([places[v] for v in launch.operands])
    return Launch(launch.kernel, launch.grid, launch.block, operands, launch.static, (), unaligned, launch.wide)
