"""Values that are put together of parts, or read in parts: each part is computed where it belongs, or only where it is read.

The adjoint of a slice is an array of zeros with the gradient at one place (`embed`), and the gradients of several slices are
added up. Where the places are apart, the sum is written part by part, without zeros and without adding.
"""

from __future__ import annotations

from typing import NamedTuple

from ..layouts import Layout, layout, row_major
from ..ops import expression as ex
from ..ops import registry
from .graph import CALL, MAP, REDUCE, Graph, Task, costly

COPY = (ex.argument(0),)
ADD = (ex.node("add", ex.argument(0), ex.argument(1)),)
MOST_PARTS = 128


class Part(NamedTuple):
    """A value and its place: every `steps[a]`-th position of axis a from `starts[a]`."""

    value: int
    starts: tuple[int, ...]
    steps: tuple[int, ...]
    sizes: tuple[int, ...]

    def apart(self, other: Part) -> bool:
        """True where the boxes around both have no element in common."""
        for a, s, n, b, t, m in zip(self.starts, self.steps, self.sizes, other.starts, other.steps, other.sizes):
            mine, theirs = (a, a + (n - 1) * s), (b, b + (m - 1) * t)  # first and last; a step may be negative
            if max(mine) < min(theirs) or max(theirs) < min(mine):
                return True
        return False


class Whole(NamedTuple):
    """Parts of one array that are still to be written, and the rows that asked for it."""

    parts: tuple[Part, ...]
    rows: tuple[int, ...]
    task: Task | None = None  # the embedding, where there is one part


def assemble(g: Graph) -> None:
    """Write sums of embedded arrays part by part."""
    readers = g.readers()
    waiting: dict[int, Whole] = {}
    left: list[Task] = []

    def sole(out: int) -> Task | None:
        """The one reader of a value that nobody keeps."""
        found = readers.get(out, ())
        return found[0] if len(found) == 1 and not g.values[out].fixed and g.values[out].base is None else None

    for t in g.tasks:
        whole = _sum(g, t, waiting)
        if whole is not None:
            for i in t.ins:
                del waiting[i]
        elif (
            t.kind == CALL
            and t.builder == "embed"
            and g.values[t.ins[0]].layout.size
            and g.roots[t.ins[0]] not in g.mutable
        ):
            whole = Whole(
                (Part(t.ins[0], t.attrs["starts"], t.attrs["steps"], g.values[t.ins[0]].layout.shape),), t.rows, t
            )
        elif t.kind == MAP and t.exprs == COPY and not t.assigns and g.roots[t.ins[0]] in waiting:
            strides = _turned(g, t)
            if strides is not None:
                left += _written(g, waiting.pop(g.roots[t.ins[0]]), t.outs[0], strides, t.rows)
                continue
        if whole is not None:
            (out,) = t.outs
            reader = sole(out)
            if (
                reader is not None
                and reader.kind == MAP
                and (reader.exprs == COPY or (out in reader.ins and reader.exprs == ADD))
            ):
                waiting[out] = whole
                continue
            left += _written(g, whole, out, g.values[out].layout.strides, ())
            continue
        for r in dict.fromkeys([g.roots[i] for i in t.ins]):
            if r in waiting:
                left += _written(g, waiting.pop(r), r, g.values[r].layout.strides, ())
        left.append(t)
    g.tasks = left


def _sum(g: Graph, t: Task, waiting: dict[int, Whole]) -> Whole | None:
    """What a task adds up of parts that lie apart."""
    if t.kind != MAP or t.exprs != ADD or t.assigns or t.ins[0] == t.ins[1]:
        return None
    a, b = waiting.get(t.ins[0]), waiting.get(t.ins[1])
    if a is None or b is None or len(a.parts) + len(b.parts) > MOST_PARTS:
        return None
    x, y, z = (g.values[v].layout for v in (*t.ins, *t.outs))
    if x.shape != y.shape or x.dtype is not y.dtype or z.dtype is not x.dtype:
        return None
    if not all(p.apart(q) for p in a.parts for q in b.parts):
        return None
    return Whole(a.parts + b.parts, a.rows + b.rows + t.rows)


def _turned(g: Graph, t: Task) -> tuple[int, ...] | None:
    """Where a task copies a value with its axes in another order: the strides that the value's own axes have in the copy."""
    v, out = g.values[t.ins[0]], g.values[t.outs[0]].layout
    root = g.values[g.roots[t.ins[0]]].layout
    if v.offset or v.layout.size != root.size or out.dtype is not root.dtype:
        return None
    place = {s: a for a, (n, s) in enumerate(zip(v.layout.shape, v.layout.strides)) if n != 1}
    strides = []
    for n, s in zip(root.shape, root.strides):
        if n == 1:
            strides.append(0)
        elif s in place and v.layout.shape[place[s]] == n:
            strides.append(out.strides[place[s]])
        else:
            return None
    return tuple(strides)


def _written(g: Graph, whole: Whole, out: int, strides: tuple[int, ...], rows: tuple[int, ...]) -> list[Task]:
    """The tasks that write the parts into `out`, in which the array's axes have the strides given."""
    root, base = g.roots[out], g.values[out].offset
    x = g.values[out].layout
    if whole.task is not None and out == whole.task.outs[0]:
        return [whole.task]
    made: list[Task] = []
    rows = (*whole.rows, *rows)
    if sum(g.values[p.value].layout.size for p in whole.parts) < x.size:
        fill = Task(MAP, registry.IDENTITY, (), (out,), rows)
        fill.exprs, fill.compute, fill.title = (ex.const(0),), x.dtype, "zeros"
        made.append(fill)
    for p in whole.parts:
        place = layout(p.sizes, x.dtype, tuple([s * k for s, k in zip(strides, p.steps)]), x.device)
        offset = base + sum([a * s for a, s in zip(p.starts, strides)])
        t = Task(MAP, registry.IDENTITY, (p.value,), (g.view(root, place, offset),), rows)
        t.exprs, t.compute, t.part, t.written = COPY, x.dtype, True, place.size
        made.append(t)
    return made


# joined arrays


def join(g: Graph) -> None:
    """Write joined arrays part by part, where some of these are computed here."""
    writers = g.writers()
    left: list[Task] = []
    for t in g.tasks:
        if t.kind != CALL or t.builder != "concatenate" or not any(g.roots[i] in writers and g.whole(i) for i in t.ins):
            left.append(t)
            continue
        (out,), axis, at, parts = t.outs, t.attrs["axis"], 0, []
        for i in t.ins:
            x = g.values[i].layout
            if x.size:
                starts = tuple([at if a == axis else 0 for a in range(x.ndim)])
                parts.append(Part(i, starts, (1,) * x.ndim, x.shape))
            at += x.shape[axis]
        left += _written(g, Whole(tuple(parts), t.rows), out, g.values[out].layout.strides, ())
    g.tasks = left


def in_place(g: Graph) -> None:
    """Let results that are copied into one stretch of another value be computed there."""
    filled = {g.roots[o] for t in g.tasks if t.kind == MAP and not t.ins for o in t.outs}
    makers = makers_of(g)
    new: dict[int, int] = {}
    left: list[Task] = []
    for t in g.tasks:
        if t.part and not t.assigns and t.exprs == COPY:
            (i,), (to,) = t.ins, t.outs
            root = g.roots[i]
            x, y = g.values[root], g.values[to]
            mine = makers.get(root, ())
            if (
                mine
                and root not in new
                and not x.fixed
                and g.whole(i)
                and x.layout.dtype is y.layout.dtype
                and y.layout.contiguous
                and g.roots[to] not in filled
                and not any(m.assigns or m is t for m in mine)
            ):
                for m in mine:
                    m.rows += t.rows
                new[root] = move(g, makers, root, g.roots[to], y.offset)
                continue
        left.append(t)
    if new:
        g.tasks = left
        for t in left:
            t.ins = tuple([g.rename(i, new) for i in t.ins])


def makers_of(g: Graph) -> dict[int, list[Task]]:
    """Root -> the tasks that write it or a part of it."""
    found: dict[int, list[Task]] = {}
    for t in g.tasks:
        for o in t.outs:
            found.setdefault(g.roots[o], []).append(t)
    return found


def move(g: Graph, makers: dict[int, list[Task]], root: int, into: int, offset: int) -> int:
    """Let a result be computed in `into`, from element `offset` on: the view that takes its place."""
    for t in makers[root]:
        t.outs = tuple(
            [g.view(into, g.values[o].layout, g.values[o].offset + offset) if g.roots[o] == root else o for o in t.outs]
        )
        t.written = sum([g.values[o].layout.size for o in t.outs if g.roots[o] == into])
        t.part = True
    makers.setdefault(into, []).extend(makers[root])
    return g.view(into, g.values[root].layout, offset)


# reading parts


def read_in_parts(g: Graph) -> None:
    """Where a cheap result is only read in parts, each element in at most one, compute every part by itself.

    Each part is computed before its first reader, to whose kernel it will belong.
    """
    readers = g.readers()
    place = {t: (k, 0) for k, t in enumerate(g.tasks)}
    gone: set[Task] = set()
    for t in reversed(g.tasks):
        _part(g, t, readers, place, gone)
    g.tasks = sorted([t for t in place if t not in gone], key=place.__getitem__)


def _part(
    g: Graph, t: Task, readers: dict[int, list[Task]], place: dict[Task, tuple[int, int]], gone: set[Task]
) -> None:
    """Replace a task by one for each part that is read of its result, where that can be.

    place: where each task comes. A part comes just before its first reader, and before the parts made so far that do.
    """
    boxes = _boxes(g, t, readers)
    if boxes is None:
        return
    (out,) = t.outs
    shape = g.values[out].layout.shape
    for i, seen in boxes.items():
        x = g.values[i].layout
        to = g.add(layout(x.shape, x.dtype, None, x.device))
        part = Task(MAP, t.op, tuple([seen.of(g, v, shape) for v in t.ins]), (to,), t.rows)
        part.exprs, part.compute, part.truths, part.attrs = t.exprs, t.compute, t.truths, t.attrs
        mine = [u for u in readers[out] if i in u.ins]
        for u in mine:
            u.ins = tuple([to if v == i else v for v in u.ins])
        readers[to] = mine
        place[part] = (min(place[u] for u in mine)[0], -len(place))
        for r in dict.fromkeys([g.roots[v] for v in part.ins]):
            readers.setdefault(r, []).append(part)
    for r in dict.fromkeys([g.roots[v] for v in t.ins]):
        readers[r].remove(t)
    gone.add(t)


class Box(NamedTuple):
    """A view of a contiguous array, as positions along the array's axes."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]  # for each axis of the view, the array's axis that it runs along; -1 where its length is 1
    steps: tuple[int, ...]  # and how many positions at a time
    starts: tuple[int, ...]  # for each axis of the array

    def of(self, g: Graph, i: int, shape: tuple[int, ...]) -> int:
        """The same positions of value i, broadcast to the array's shape."""
        v = g.values[i]
        x, lead = v.layout, len(shape) - v.layout.ndim
        strides = (0,) * lead + tuple([0 if n == 1 else s for n, s in zip(x.shape, x.strides)])
        seen = tuple([0 if a < 0 else k * strides[a] for a, k in zip(self.axes, self.steps)])
        offset = v.offset + sum([a * s for a, s in zip(self.starts, strides)])
        return g.view(g.roots[i], layout(self.shape, x.dtype, seen, x.device), offset)


def box(x: Layout, view: Layout, offset: int) -> Box | None:
    """The positions that a view shows of a contiguous array x; None where it does not run along x's axes.

    >>> from tapegrad.dtypes import float32
    >>> box(layout((4, 8), float32), layout((4, 2), float32, (8, 1)), 2)
    Box(shape=(4, 2), axes=(0, 1), steps=(1, 1), starts=(0, 2))
    """
    own = row_major(x.shape)
    starts = tuple([offset // s % n for n, s in zip(x.shape, own)])
    axes, steps = [], []
    for n, s in zip(view.shape, view.strides):
        if n == 1:
            axes.append(-1)
            steps.append(0)
            continue
        for a, (m, t) in enumerate(zip(x.shape, own)):
            if m != 1 and s >= t and s % t == 0 and starts[a] + (n - 1) * (s // t) < m and a not in axes:
                axes.append(a)
                steps.append(s // t)
                break
        else:
            return None
    return Box(view.shape, tuple(axes), tuple(steps), starts)


def _boxes(g: Graph, t: Task, readers: dict[int, list[Task]]) -> dict[int, Box] | None:
    """The views through which a cheap result is read, where it is read in no other way and no more than once."""
    if t.kind != MAP or t.assigns or t.part or len(t.outs) != 1 or not t.ins or costly(t.exprs):
        return None
    (out,) = t.outs
    v = g.values[out]
    found: dict[int, Box] = {}
    if v.fixed or v.base is not None or not g.mutable.isdisjoint([g.roots[i] for i in t.ins]):
        return None
    total = 0
    for reader in readers.get(out, ()):
        if reader.kind not in (MAP, REDUCE):
            return None
        for i in reader.ins:
            if g.roots[i] != out or i in found:
                continue
            if i == out:
                return None
            w = g.values[i]
            total += w.layout.size
            seen = box(v.layout, w.layout, w.offset) if total <= v.layout.size and not g.whole(i) else None
            if seen is None:
                return None
            found[i] = seen
    return found or None
