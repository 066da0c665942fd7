"""From a segment to a plan: rows that nobody needs are dropped, the rest become kernel calls over one arena."""

from __future__ import annotations

from collections import Counter

from ..kernels import elementwise as generator
from ..kernels.prepare import Prepared, backend
from ..layouts import Layout, layout
from ..ops import registry
from ..ops.registry import elementwise_dtypes
from .arena import offsets, span_of
from .assemble import assemble
from .chains import Item, fuse, kernel
from .program import Plan, Record
from .segment import Row, Segment, Value


def plan(segment: Segment) -> Plan:
    """The kernel calls that compute a segment's fixed values, in order, and where everything else lies meanwhile."""
    values, rows = list(segment.values), segment.rows
    rows, numbers = assemble(values, rows, without_fills(values, rows, live(segment)))
    items = fuse(values, rows, numbers)
    readers = Counter(r for item in items for r in item.ins)
    records: list[Record] = []
    fused = 0
    for item in items:
        if len(item.rows) == 1:
            records += calls(values, rows[item.rows[0]], item.rows[0])
        else:
            fused += len(item.rows)
            needed = {r for r in item.outs if values[r].fixed or readers[r] > (r in item.ins)}
            records += fused_calls(values, rows, item, needed)
    sizes = {i: v.layout.nbytes for i, v in enumerate(values) if not v.fixed and v.base is None}
    used = lifetimes(values, records)
    places, arena = offsets({i: (sizes[i], *used[i]) for i in used if i in sizes})
    unplanned = sum(span_of(v.layout.nbytes) for v in segment.values if not v.fixed and v.base is None)
    return Plan(values, records, places, arena, unplanned, fused)


def without_fills(values: list[Value], rows: list[Row], numbers: list[int]) -> list[int]:
    """The rows but those that fill an array with one number: what they make is a view of the number."""
    left: list[int] = []
    for number in numbers:
        row = rows[number]
        if row.op.name != "full" or values[row.outs[0]].fixed:
            left.append(number)
            continue
        made, source = row.outs[0], row.ins[0]
        base, offset = root(values, source), values[source].offset
        for v, value in enumerate(values):
            if v == made or value.base == made:
                x = value.layout
                values[v] = Value(layout(x.shape, x.dtype, (0,) * x.ndim, x.device), False, base, offset)
    return left


def fused_calls(values: list[Value], rows: list[Row], item: Item, needed: set[int]) -> list[Record]:
    """The call of a fused kernel."""
    steps, operands = kernel(values, rows, item, needed)
    names = "·".join(rows[n].op.title for n in item.rows[:8]) + ("·…" if len(item.rows) > 8 else "")
    moved = sum(values[v].layout.nbytes for v in operands)
    return [Record(step, operands, f"fused {names} {item.shape}", tuple(item.rows), moved) for step in steps]


def root(values: list[Value], number: int) -> int:
    """The value whose memory a value lies in."""
    base = values[number].base
    return number if base is None else base


def live(segment: Segment) -> list[int]:
    """Numbers of the rows that lead to a fixed value, in order."""
    values = segment.values
    wanted: set[int] = set()
    found: list[int] = []
    for number in range(len(segment.rows) - 1, -1, -1):
        row = segment.rows[number]
        outs = {root(values, v) for v in row.outs}
        if row.assigns or can_fail(row) or not outs.isdisjoint(wanted) or any(values[v].fixed for v in outs):
            found.append(number)
            wanted.update(root(values, v) for v in row.ins)
    found.reverse()
    return found


# kernels that look at indices, and users' own: an error must come even where nobody reads the result
FAIL = frozenset("take take_along_axis index_add scatter_add cross_entropy cross_entropy_slope".split())


def can_fail(row: Row) -> bool:
    """True of rows whose kernel may raise."""
    return row.op.builder in FAIL or row.op.namespace == "linalg" or row.op.kernel is not None


def calls(values: list[Value], row: Row, number: int) -> list[Record]:
    """The kernel calls of one row; `values` grows by the copies that it needs."""
    ins = [values[i].layout for i in row.ins]
    outs = tuple([values[i].layout for i in row.outs])
    prepared = (
        assignment(row, tuple(ins), outs) if row.assigns else backend("cpu").prepare(row.op, tuple(ins), row.attrs)
    )
    numbers = list(row.ins)
    made: list[Record] = []
    for i in prepared.copies:
        x = ins[i]
        plain = layout(x.shape, x.dtype, None, x.device)
        values.append(Value(plain))
        copy = generator.steps(registry.IDENTITY.expression(), (x,), (plain,), x.dtype)
        made += [
            Record(step, (numbers[i], len(values) - 1), f"copy {x.shape}", (number,), 2 * x.nbytes) for step in copy
        ]
        numbers[i] = len(values) - 1
    shapes = ", ".join(str(x.shape) for x in ins)
    moved = sum(x.nbytes for x in (*ins, *outs))
    made += [
        Record(step, (*numbers, *row.outs), f"{row.op.title} {shapes}", (number,), moved) for step in prepared.steps
    ]
    return made


def assignment(row: Row, ins: tuple[Layout, ...], outs: tuple[Layout, ...]) -> Prepared:
    """An elementwise op that writes into existing memory."""
    compute, _ = elementwise_dtypes(row.op, tuple([x.dtype for x in ins]))
    if row.op is registry.IDENTITY:
        compute = outs[0].dtype
    if outs[0].size == 0:
        return Prepared(outs, ())
    return Prepared(outs, generator.steps(row.op.expression(), ins, outs, compute, truths=row.op.truths))


def lifetimes(values: list[Value], records: list[Record]) -> dict[int, tuple[int, int]]:
    """For each value that a record uses, the first and the last record that does."""
    used: dict[int, tuple[int, int]] = {}
    for at, record in enumerate(records):
        for v in record.values:
            r = root(values, v)
            used[r] = (used[r][0] if r in used else at, at)
    return used
