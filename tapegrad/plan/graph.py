"""A segment as a graph that planning may change: tasks on values, and which task has to wait for which.

Map: `Graph` holds values and tasks. `lower.py` makes it from a segment, `rewrite.py` improves it, `live()` drops what nobody
needs, `order()` notes the dependencies, `fusion.py` gathers tasks into kernels.
"""

from __future__ import annotations

from typing import Any

from ..dtypes import DType
from ..kernels.launch import SURE
from ..layouts import Layout, layout
from ..ops import expression as ex
from ..ops.registry import Op
from .segment import Value

MAP, REDUCE, CALL = "map", "reduce", "call"


class Task:
    """One thing to compute: a row of the segment, or what rewriting made of some.

    kind: MAP has `exprs`, one per output, computed in `compute`; REDUCE has `op` and `axes` of its input; CALL is a kernel
    of its own. `rows` are the segment's rows that it stands for. `part`: it writes `written` elements of a value whose other
    parts other tasks write. `fallible`: its kernel may report a failure. `before` are the tasks that it waits for, `users`
    those that wait for it.
    """

    __slots__ = (
        "assigns",
        "attrs",
        "axes",
        "before",
        "builder",
        "compute",
        "exprs",
        "fallible",
        "group",
        "ins",
        "kind",
        "level",
        "number",
        "op",
        "outs",
        "part",
        "rows",
        "title",
        "truths",
        "users",
        "weight",
        "written",
    )

    def __init__(self, kind: str, op: Op, ins: tuple[int, ...], outs: tuple[int, ...], rows: tuple[int, ...]):
        self.kind, self.op, self.ins, self.outs, self.rows = kind, op, ins, outs, rows
        self.builder = builder_of(op)
        self.fallible = kind == CALL and self.builder not in SURE
        self.attrs: dict = {}
        self.exprs: tuple[ex.Node, ...] = ()
        self.compute: DType | None = None
        self.truths: tuple[int, ...] = ()
        self.axes: tuple[int, ...] = ()
        self.assigns = self.part = False
        self.number = self.written = 0
        self.before: list[Task] = []
        self.users: list[Task] = []
        self.group: Any = None  # of fusion.py
        self.level = ""
        self.weight = 0
        self.title = op.title

    @property
    def fills(self) -> bool:
        """True where it writes one number everywhere, and parts of its output are then written over."""
        return self.kind == MAP and not self.ins

    def __repr__(self) -> str:
        return f"<{self.title} {self.ins} -> {self.outs}>"


def builder_of(op: Op) -> str:
    """The name of the library's kernel that computes an op; "" for elementwise ops and users' kernels, whatever they are called."""
    return op.builder if op.kind == "primitive" and op.kernel is None else ""


class Graph:
    """Values, tasks in an order that is right, and who reads and writes which value."""

    def __init__(self, values: list[Value]):
        self.values = values
        self.roots = [n if v.base is None else v.base for n, v in enumerate(values)]  # whose memory each value lies in
        self.tasks: list[Task] = []
        self.views: dict[tuple, int] = {}  # (root, offset, layout) -> the value that stands for all equal views
        self.mutable: set[int] = set()  # roots that an assigning row writes

    # values

    def add(self, x: Layout) -> int:
        """A new value with memory of its own."""
        self.values.append(Value(x))
        self.roots.append(len(self.values) - 1)
        return len(self.values) - 1

    def view(self, root: int, x: Layout, offset: int) -> int:
        """The value that shows root's memory from element `offset` on as `x`."""
        if offset == 0 and x is self.values[root].layout:
            return root
        key = (root, offset, x)
        found = self.views.get(key)
        if found is None:
            self.values.append(Value(x, False, root, offset))
            self.roots.append(root)
            found = self.views[key] = len(self.values) - 1
        return found

    def whole(self, number: int) -> bool:
        """True where a value is all elements of its root, in the root's order."""
        v = self.values[number]
        if v.base is None:
            return True
        r = self.values[v.base].layout
        return v.offset == 0 and v.layout.contiguous and r.contiguous and v.layout.size == r.size

    def rename(self, number: int, new: dict[int, int]) -> int:
        """The value, or where its root was replaced by another value of the same elements, the same view of that.

        The other value has its elements side by side in the same order, or is one number spread with strides of 0.
        """
        v = self.values[number]
        while (root := number if v.base is None else v.base) in new:
            w = self.values[new[root]]
            x = v.layout if w.layout.contiguous else spread(v.layout)
            number = self.view(self.roots[new[root]], x, w.offset + (v.offset if w.layout.contiguous else 0))
            v = self.values[number]
        return number

    # who reads what

    def readers(self) -> dict[int, list[Task]]:
        """Root -> the tasks that read it, each once."""
        found: dict[int, list[Task]] = {}
        roots = self.roots
        for t in self.tasks:
            for r in {roots[i] for i in t.ins}:
                if r in found:
                    found[r].append(t)
                else:
                    found[r] = [t]
        return found

    def writers(self) -> dict[int, Task]:
        """Root -> the task that writes it, of those that one task writes as a whole."""
        found: dict[int, Task | None] = {}
        for t in self.tasks:
            for o in t.outs:
                r = self.roots[o]
                found[r] = None if r in found or t.part or t.assigns else t
        return {r: t for r, t in found.items() if t is not None}

    def live(self) -> None:
        """Drop the tasks that lead to no fixed value and cannot fail."""
        roots = self.roots
        wanted = {n for n, v in enumerate(self.values) if v.fixed}
        found: list[Task] = []
        for t in reversed(self.tasks):
            if t.assigns or not wanted.isdisjoint([roots[o] for o in t.outs]) or t.fallible:
                found.append(t)
                wanted.update([roots[i] for i in t.ins])
        found.reverse()
        self.tasks = found

    def span(self, number: int) -> tuple[int, int]:
        """The elements of its root among which a value's lie: from the first to behind the last."""
        v = self.values[number]
        if v.base is None:
            return 0, v.layout.size
        low = high = v.offset
        for n, s in zip(v.layout.shape, v.layout.strides):
            if s > 0:
                high += (n - 1) * s
            else:
                low += (n - 1) * s
        return low, high + 1

    def order(self) -> None:
        """Number the tasks and note for each which tasks it has to wait for.

        Reads wait for the writes before them, and writes of what was there for the reads and writes before them. A task that
        may fail waits for all earlier ones that write fixed values, and assigning tasks wait for it, so that whatever was
        recorded before a failure has happened, and nothing after it.
        """
        memory: dict[int, Access] = {}
        fallible: Task | None = None
        seen: list[Task] = []  # that write fixed values, since the last that may fail
        values = self.values
        for number, t in enumerate(self.tasks):
            t.number = number
            before: dict[Task, None] = {}
            fixed = False
            for i in t.ins:
                memory.setdefault(self.roots[i], Access()).read(*self.span(i), values[i].layout.size, t, before)
            for o in t.outs:
                r = self.roots[o]
                fixed = fixed or values[r].fixed
                low, high = self.span(o)
                memory.setdefault(r, Access()).write(low, high, high - low >= values[r].layout.size, t, before)
            if t.fallible:
                before.update(dict.fromkeys(seen))
                if fallible is not None:
                    before[fallible] = None
                fallible, seen = t, []
            elif t.assigns and fallible is not None:
                before[fallible] = None
            if fixed:
                seen.append(t)
            before.pop(t, None)
            t.before, t.users = list(before), []
            for b in t.before:
                b.users.append(t)


class Access:
    """Who has written and read which elements of one value."""

    __slots__ = ("fills", "reads", "writes")

    def __init__(self) -> None:
        self.fills: list[tuple[int, int, Task]] = []  # writes that parts are written over
        self.writes: list[tuple[int, int, Task]] = []
        self.reads: list[tuple[int, int, Task]] = []

    def read(self, low: int, high: int, size: int, t: Task, before: dict[Task, None]) -> None:
        """Task t reads `size` elements between low and high: it waits for those who wrote there."""
        left = size
        for a, b, w in reversed(self.writes):
            if a < high and low < b:
                before[w] = None
                if a <= low and high <= b and not w.part:
                    break
                if (
                    w.part and not w.assigns and not w.fills and low <= a and b <= high
                ):  # parts lie apart, so their sizes add up
                    left -= w.written
                    if left == 0:
                        break
        self.reads.append((low, high, t))

    def write(self, low: int, high: int, whole: bool, t: Task, before: dict[Task, None]) -> None:
        """Task t writes between low and high: over what was there, unless it is one of the parts of something new."""
        if t.assigns or not t.part:
            before.update([(w, None) for a, b, w in self.writes if a < high and low < b])
            before.update([(r, None) for a, b, r in self.reads if a < high and low < b])
            if whole:
                self.writes, self.reads, self.fills = [], [], []
        else:
            before.update([(w, None) for a, b, w in self.fills if a < high and low < b])
        self.writes.append((low, high, t))
        if t.fills:
            self.fills.append((low, high, t))


def spread(x: Layout) -> Layout:
    """The layout of one number shown as an array like x."""
    return layout(x.shape, x.dtype, (0,) * x.ndim, x.device)


def turned(x: Layout) -> Layout:
    """x with its last two axes exchanged."""
    shape, strides = x.shape, x.strides
    return layout((*shape[:-2], shape[-1], shape[-2]), x.dtype, (*strides[:-2], strides[-1], strides[-2]), x.device)


_nodes: dict[tuple[ex.Node, ...], tuple[ex.Node, ...]] = {}
_costly: dict[tuple[ex.Node, ...], bool] = {}


def nodes(exprs: tuple[ex.Node, ...]) -> tuple[ex.Node, ...]:
    """All nodes of expressions, each behind its arguments."""
    found = _nodes.get(exprs)
    if found is None:
        found = _nodes[exprs] = tuple(ex.walk(exprs))
    return found


def costly(exprs: tuple[ex.Node, ...]) -> bool:
    """True where computing the expressions takes more than reading their result."""
    found = _costly.get(exprs)
    if found is None:
        found = _costly[exprs] = any(map(slow, nodes(exprs)))
    return found


def slow(n: ex.Node) -> bool:
    """True of a node that takes more to compute than to load."""
    return n.kind in ex.MATH or n.kind in ("sqrt", "div")
