"""From a segment's rows to the tasks of a graph. Equal rows become one task; an array filled with one number, a view of it."""

from __future__ import annotations

from ..layouts import layout
from ..ops import registry
from ..ops.reader import Unreadable
from ..ops.registry import REGISTRY, elementwise_dtypes
from .graph import CALL, MAP, REDUCE, Graph, Task, builder_of, spread, turned
from .segment import Row, Segment

REDUCTIONS = ("sum", "max", "min")


def lower(segment: Segment) -> Graph:
    """The segment's rows as tasks, equal ones merged."""
    g = Graph(list(segment.values))
    values = g.values
    for n, v in enumerate(values):
        if v.base is not None:
            g.views.setdefault((v.base, v.offset, v.layout), n)
    g.mutable = {g.roots[o] for row in segment.rows if row.assigns for o in row.outs}
    new: dict[int, int] = {}
    version: dict[int, int] = {}
    made: dict[tuple, Task] = {}
    for number, row in enumerate(segment.rows):
        ins = tuple([_same_view(g, g.rename(i, new)) for i in row.ins])
        if not row.assigns and builder_of(row.op) == "full" and _spreads(g, row, ins[0], new):
            continue
        if row.assigns:
            ins = tuple([_apart(g, i, row.outs, number) for i in ins])
        t = task(g, row, ins, number)
        if row.assigns:
            for o in row.outs:
                r = g.roots[o]
                version[r] = version.get(r, 0) + 1
        else:
            key = _key(g, t, version)
            same = made.setdefault(key, t) if key is not None else t
            if same is not t and not any(values[o].fixed for o in t.outs) and g.mutable.isdisjoint(same.outs):
                new.update(zip(t.outs, same.outs, strict=True))
                continue
        g.tasks.append(t)
    return g


def _apart(g: Graph, i: int, targets: tuple[int, ...], number: int) -> int:
    """Value i, or a copy where it overlaps a target without being the very same elements."""
    for o in targets:
        if g.roots[i] == g.roots[o] and i != o:
            x = g.values[i].layout
            to = g.add(layout(x.shape, x.dtype, None, x.device))
            g.tasks.append(task(g, Row(registry.IDENTITY, (i,), (to,), {}), (i,), number))
            return to
    return i


def _same_view(g: Graph, number: int) -> int:
    v = g.values[number]
    return number if v.base is None else g.view(v.base, v.layout, v.offset)


def _spreads(g: Graph, row: Row, value: int, new: dict[int, int]) -> bool:
    """Make an array filled with one number a view of it, where the number does not change and nobody keeps the array."""
    (out,) = row.outs
    x, v = g.values[out].layout, g.values[value]
    root = g.roots[value]
    if g.values[out].fixed or root in g.mutable or x.size == 0 or v.layout.size != 1:
        return False
    new[out] = g.view(root, spread(x), v.offset)
    return True


def task(g: Graph, row: Row, ins: tuple[int, ...], number: int) -> Task:
    """A row as a task."""
    op, values = row.op, g.values
    t = Task(CALL, op, ins, row.outs, (number,))
    t.attrs, t.assigns = row.attrs, row.assigns
    if not any(values[o].layout.size for o in row.outs):
        t.fallible = False  # nothing is run
    elif op.kind == "elementwise":
        _as_map(g, t)
    elif t.builder == "matmul" and row.attrs.get("turned"):
        a, b = ins
        b = g.view(g.roots[b], turned(values[b].layout), values[b].offset)
        t.op, t.ins = REGISTRY["matmul_kernel"], (a, b)
        t.attrs = {name: value for name, value in row.attrs.items() if name != "turned"}
    elif t.builder in REDUCTIONS and values[ins[0]].layout.size:
        t.kind, t.axes = REDUCE, row.attrs["axes"]
    return t


def _as_map(g: Graph, t: Task) -> None:
    """Make an elementwise task a MAP, if its expression can be read; if not, Numba compiles a kernel of its own."""
    try:
        t.exprs = t.op.expression()
    except Unreadable:
        return
    t.kind, t.fallible, t.truths = MAP, False, t.op.truths
    if t.assigns and t.op is registry.IDENTITY:
        t.compute = g.values[t.outs[0]].layout.dtype
    else:
        dtypes = tuple([g.values[i].layout.dtype for i in t.ins])
        t.compute = t.attrs.get("dtype") or elementwise_dtypes(t.op, dtypes)[0]


def _key(g: Graph, t: Task, version: dict[int, int]) -> tuple | None:
    """What two tasks have in common that compute the same; None where that is not known."""
    if t.op.kernel is not None or (t.kind == CALL and t.op.kind == "elementwise"):
        return None
    ins = tuple([(i, version.get(g.roots[i], 0)) for i in t.ins])
    if t.kind == MAP:
        return (t.exprs, ins, t.compute, t.truths, *[g.values[o].layout for o in t.outs])
    try:
        key = (t.op, ins, *[(k, v) for k, v in t.attrs.items()])
        hash(key)
    except TypeError:
        return None
    return key
