"""From groups of tasks to kernel calls."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, Protocol

from ..dtypes import bool_, float64
from ..kernels import elementwise as generator
from ..kernels.launch import Step
from ..kernels.prepare import backend
from ..layouts import Layout, layout
from ..ops import expression as ex
from .fusion import FULL, ROW, Group, Limits
from .graph import MAP, REDUCE, Graph, Task
from .program import Record
from .rewrite import ON_HOST, Rule
from .spaces import reduced

COPY = (ex.argument(0),)
Overlay = tuple[int, int]  # an input and an output that may be the same memory, if the input is not needed afterwards


class Target(Protocol):
    """What planning asks of a device."""

    rules: tuple[Rule, ...]  # that rewrite its graphs
    limits: Limits  # of its fused kernels

    def single(self, g: Graph, t: Task) -> list[Record]:
        """The kernel calls of a task by itself."""

    def fused(self, g: Graph, group: Group) -> tuple[list[Record], list[Overlay]]:
        """The kernel calls of several, and what the first can compute in place."""

    def together(
        self, g: Graph, made: list[Record], overlays: dict[int, list[Overlay]]
    ) -> tuple[list[Record], dict[int, list[Overlay]]]:
        """All kernel calls, with what can be one call as one."""


def records(g: Graph, groups: list[Group], target: Target) -> tuple[list[Record], dict[int, list[Overlay]]]:
    """The kernel calls of the groups in their order, and by the place of a call, what it can compute in place."""
    made: list[Record] = []
    overlays: dict[int, list[Overlay]] = {}
    for group in groups:
        if len(group.tasks) > 1:
            new, pairs = target.fused(g, group)
        else:
            t = group.tasks[0]
            new, pairs = target.single(g, t), elementwise_overlays(g, t)
        if pairs and (len(new) == 1 or len(group.tasks) > 1):
            overlays[len(made)] = pairs
        made += new
    return made, overlays


def elementwise_overlays(g: Graph, t: Task) -> list[Overlay]:
    """Inputs of an elementwise task that are walked as its outputs are, or that a product is added to."""
    if t.kind != MAP:
        return [(t.ins[2], t.outs[0])] if t.builder == "matmul_added" else []
    values = g.values
    return [(i, o) for o in t.outs for i in t.ins if alike(values[i].layout, values[o].layout)]


def alike(x: Layout, y: Layout) -> bool:
    """True where both are walked in the same steps of bytes."""
    return x.shape == y.shape and x.strides == y.strides and x.dtype.itemsize == y.dtype.itemsize


# one task


def single(g: Graph, t: Task) -> list[Record]:
    """The kernel calls of a task by itself."""
    values = g.values
    ins, outs = tuple([values[i].layout for i in t.ins]), tuple([values[o].layout for o in t.outs])
    title = f"{t.title} {' '.join([shape_of(x) for x in ins])}"
    if t.kind == MAP:
        assert t.compute is not None
        return calls(generator.steps(t.exprs, ins, outs, t.compute, truths=t.truths), t.ins, t.outs, title, t.rows, g)
    if not any(x.size for x in outs):
        return []
    prepared = backend("cpu").prepare(t.op, ins, t.attrs)
    numbers, made = list(t.ins), []
    for i in prepared.copies:
        x = ins[i]
        plain = layout(x.shape, x.dtype, None, x.device)
        to = g.add(plain)
        made += calls(
            generator.steps(COPY, (x,), (plain,), x.dtype), (numbers[i],), (to,), f"copy {shape_of(x)}", t.rows, g
        )
        numbers[i] = to
    return made + calls(prepared.steps, tuple(numbers), t.outs, title, t.rows, g)


def calls(
    steps: tuple[Step, ...], ins: tuple[int, ...], outs: tuple[int, ...], title: str, rows: tuple[int, ...], g: Graph
) -> list[Record]:
    """Records of steps that share one list of operands."""
    moved = sum(distinct(g.values[i].layout) for i in (*dict.fromkeys(ins), *outs)) // max(len(steps), 1)
    return [Record(step, (*ins, *outs), title, rows, moved, len(outs)) for step in steps]


def distinct(x: Layout) -> int:
    """The bytes of the elements of x, those at one place counted once."""
    size = x.dtype.itemsize
    for n, s in zip(x.shape, x.strides):
        if s:
            size *= n
    return size if x.size else 0


def shape_of(x: Layout) -> str:
    """A shape for people.

    >>> from tapegrad.dtypes import float32
    >>> shape_of(layout((2, 3), float32)), shape_of(layout((), float32))
    ('2×3', '1')
    """
    return "×".join(map(str, x.shape)) or "1"


# several


def plain(g: Graph, group: Group) -> bool:
    """True where everything is computed at every element and in one dtype: the elementwise generator's kind of kernel."""
    compute = group.tasks[0].compute
    for t in group.tasks:
        if t.kind != MAP or t.level != FULL or t.compute is not compute:
            return False
        for o in t.outs:
            x = g.values[o].layout
            if x.dtype is not compute and (t.assigns or x.dtype is not bool_):
                return False
    return True


def used(nodes: list, roots: list[int]) -> tuple[tuple, dict[int, int]]:
    """The nodes of a fused kernel that lead to the roots, and their new numbers.

    Others are there where a result is written over in the same kernel before anything reads it.
    """
    from ..kernels.fused import Load, Reduce

    wanted = set(roots)
    for k in range(len(nodes) - 1, -1, -1):
        n = nodes[k]
        if k in wanted and not isinstance(n, Load):
            wanted.update((n.arg,) if isinstance(n, Reduce) else n.args)
    numbers: dict[int, int] = {k: k for k in wanted}
    if len(wanted) == len(nodes):
        return tuple(nodes), numbers
    numbers = {k: at for at, k in enumerate(sorted(wanted))}
    kept: list = []
    for k in numbers:
        n = nodes[k]
        if isinstance(n, Reduce):
            n = replace(n, arg=numbers[n.arg])
        elif not isinstance(n, Load):
            n = replace(n, args=tuple([numbers[a] for a in n.args]))
        kept.append(n)
    return tuple(kept), numbers


def gathered(
    steps: tuple[Step, ...], operands: tuple[int, ...], inputs: int, title: str, rows: tuple[int, ...], moved: int
) -> list[Record]:
    """Records of a kernel that gathers reductions in scratch, the last operand, and of the steps that finish these.

    Each names only the operands that its step uses, so that the inputs are free when the first is done.
    """
    made = []
    for n, step in enumerate(steps):
        used = sorted(set(step.operands), key=lambda o: (o >= inputs, o))
        if n:  # scratch is what a finishing step reads
            used = sorted(used, key=lambda o: o != len(operands) - 1)
        place = {o: k for k, o in enumerate(used)}
        values = tuple([operands[o] for o in used])
        outputs = len(used) - (1 if n else sum([1 for o in used if o < inputs]))
        own = replace(step, operands=tuple([place[o] for o in step.operands]))
        made.append(Record(own, values, f"{title}, finished" if n else title, rows, 0 if n else moved, outputs))
    return made


class Gathered(NamedTuple):
    """A fused kernel: values read and written, layouts in which they are read, (node, layout) of those written; for people, the rest."""

    values: tuple[int, ...]
    inputs: tuple[Layout, ...]
    outputs: tuple[tuple[int, Layout], ...]
    title: str
    rows: tuple[int, ...]
    moved: int


class Kernel:
    """The kernel of a group, as it is put together; `in_nodes`: by the nodes of kernels/fused.py in any case."""

    def __init__(self, g: Graph, group: Group, in_nodes: bool = False):
        self.g, self.values, self.group = g, g.values, group
        space, split = group.space
        bounds = (1, *space)
        lengths = [n // m for m, n in zip(bounds, bounds[1:])]
        self.shape = tuple(reversed(lengths))
        self.row = next((i + 1 for i, n in enumerate(space) if n == split), 0) if split else 0
        self.plain = not in_nodes and plain(g, group)
        self.nodes: list = []  # of kernels/fused.py
        self.known: dict[int, int] = {}  # root, or part, that was computed -> its node
        self.loaded: dict[tuple, int] = {}  # (value, strides, whether as a truth value) -> its node
        self.truths: list[int] = []  # inputs read as truth values, in plain kernels
        self.inputs: list[tuple[int, Layout]] = []
        self.walks: dict[tuple, tuple[int, ...]] = {}
        self.overlays: list[Overlay] = []

    def gather(self) -> Gathered:
        """What the tasks come to together."""
        g, group = self.g, self.group
        made: dict[int, tuple[int, Layout]] = {}  # value -> its node, and how it is written
        for t in group.tasks:
            found = self.map(t) if t.kind == MAP else (self.reduce(t),)
            for o, node in zip(t.outs, found):
                self.known[o if t.part else g.roots[o]] = node
                written = t.part or t.assigns or group.unread[g.roots[o]] > 0 or self.values[g.roots[o]].fixed
                if written:
                    made[o] = (node, self.target(o, t))
                elif o in made:
                    del made[o]
        ins = tuple([i for i, _ in self.inputs])
        once = [(i, x) for i, x in self.inputs if ins.count(i) == 1]
        self.overlays = [(i, o) for o, (_, y) in made.items() for i, x in once if alike(x, y)]
        inputs, outputs = tuple([x for _, x in self.inputs]), tuple(made.values())
        moved = sum(distinct(x) for _, x in self.inputs) + sum(distinct(x) for _, x in outputs)
        names = "·".join(dict.fromkeys([t.title for t in group.tasks]))
        title = f"fused {'×'.join(map(str, self.shape)) or '1'} {names}"
        rows = tuple(sorted({r for t in group.tasks for r in t.rows}))
        return Gathered((*ins, *made), inputs, outputs, title, rows, moved)

    def records(self) -> list[Record]:
        """The kernel call."""
        values, inputs, outputs, title, rows, moved = self.gather()
        count = len(outputs)
        if self.plain:
            steps = self.elementwise(inputs, outputs)
            return [Record(step, values, title, rows, moved // len(steps), count) for step in steps]
        steps, scratch = self.mixed(inputs, outputs)
        if not scratch:
            return [Record(step, values, title, rows, moved, count) for step in steps]
        room = self.g.add(layout((scratch // 8,), float64))
        return gathered(steps, (*values, room), len(inputs), title, rows, moved)

    def elementwise(self, inputs: tuple[Layout, ...], outputs: tuple[tuple[int, Layout], ...]) -> tuple[Step, ...]:
        """The steps of one kernel of the elementwise generator."""
        compute = self.group.tasks[0].compute
        assert compute is not None
        exprs, layouts = tuple([self.nodes[node] for node, _ in outputs]), tuple([x for _, x in outputs])
        return generator.steps(exprs, inputs, layouts, compute, truths=tuple(self.truths))

    def mixed(
        self, inputs: tuple[Layout, ...], outputs: tuple[tuple[int, Layout], ...]
    ) -> tuple[tuple[Step, ...], int]:
        """The steps of a kernel that reduces, or computes in several dtypes, and the bytes of scratch that they share."""
        from ..kernels import fused

        nodes, numbers = used(self.nodes, [node for node, _ in outputs])
        written = tuple([(numbers[node], x) for node, x in outputs])
        return fused.steps(fused.Fused(self.shape, self.row, inputs, nodes, written))

    def map(self, t: Task) -> list[int]:
        """The nodes of an elementwise task, one for each result."""
        args = tuple([self.argument(i, t, n in t.truths) for n, i in enumerate(t.ins)])
        assert t.compute is not None
        first = len(self.nodes)
        if self.plain:
            for e in ex.substitute(t.exprs, tuple([self.nodes[a] for a in args])):
                # rounded as by a kernel of its own, whatever is added to it here
                self.nodes.append(ex.node("product", *e.args) if e.kind == "mul" else e)
        else:
            from ..kernels.fused import Map

            for e, o in zip(t.exprs, t.outs):
                self.nodes.append(Map(e, args, t.compute, self.values[o].layout.dtype, t.truths))
        return list(range(first, len(self.nodes)))

    def reduce(self, t: Task) -> int:
        """The node of a reduction."""
        from ..kernels.fused import Reduce

        arg = self.argument(t.ins[0], t)
        kind = reduced(self.values[t.ins[0]].layout.shape, t.axes)
        assert kind is not None
        over = "row" if t.level == ROW else kind.over
        self.nodes.append(Reduce(t.builder, arg, over, self.values[t.outs[0]].layout.dtype))
        return len(self.nodes) - 1

    def argument(self, i: int, t: Task, truth: bool = False) -> int:
        """The node of value `i` as the task reads it."""
        at = i if i in self.known else self.g.roots[i]
        if at in self.known:
            return self.known[at]
        domain = self.values[t.ins[0] if t.kind == REDUCE else t.outs[0]].layout.shape
        x = self.values[i].layout
        strides = self.walk(x, domain, t.level == ROW and t.kind == MAP)
        key = (i, strides, truth and self.plain)
        if key not in self.loaded:
            n = len(self.inputs)
            self.inputs.append((i, layout(self.shape, x.dtype, strides, x.device)))
            if self.plain:
                self.nodes.append(ex.argument(n))
                if truth:
                    self.truths.append(n)
            else:
                from ..kernels.fused import Load

                self.nodes.append(Load(n))
            self.loaded[key] = len(self.nodes) - 1
        return self.loaded[key]

    def walk(self, x: Layout, domain: tuple[int, ...], once_a_row: bool) -> tuple[int, ...]:
        """Strides with which x, broadcast to `domain`, is walked along the axes of the kernel's space."""
        key = (x, domain, once_a_row)
        found = self.walks.get(key)
        if found is None:
            found = self.walks[key] = self._walk(x, domain, once_a_row)
        return found

    def _walk(self, x: Layout, domain: tuple[int, ...], once_a_row: bool) -> tuple[int, ...]:
        lead = len(domain) - x.ndim
        axes = []  # (elements of the domain below this axis, its stride), innermost first
        below = self.group.space.split if once_a_row else 1
        for a in range(len(domain) - 1, -1, -1):
            if domain[a] != 1:
                n, s = (1, 0) if a < lead else (x.shape[a - lead], x.strides[a - lead])
                axes.append((below, 0 if n == 1 else s))
                below *= domain[a]
        strides, at, low = [], 0, 1
        for n in self.group.space.cuts:
            while at + 1 < len(axes) and axes[at + 1][0] <= low:
                at += 1
            if not axes or low < axes[0][0]:
                strides.append(0)
            else:
                strides.append(axes[at][1] * (low // axes[at][0]))
            low = n
        return tuple(reversed(strides))

    def target(self, o: int, t: Task) -> Layout:
        """The layout in which a result is written: that of the space, or of what is left of it."""
        x = self.values[o].layout
        if t.level == FULL and t.kind == MAP:
            return layout(self.shape, x.dtype, self.walk(x, x.shape, False), x.device)
        if t.level == ROW:
            outer = self.shape[: len(self.shape) - self.row]
            if t.kind == REDUCE:
                return layout(outer, x.dtype, None, x.device)
            return layout(outer, x.dtype, self.walk(x, x.shape, True)[: len(outer)], x.device)
        kind = reduced(self.values[t.ins[0]].layout.shape, t.axes)
        shape = self.shape[len(self.shape) - self.row :] if kind is not None and kind.over == "columns" else ()
        return layout(shape, x.dtype, None, x.device)


class Host:
    """The CPU: every rule, and fused kernels that reduce."""

    rules, limits = ON_HOST, Limits()

    def single(self, g: Graph, t: Task) -> list[Record]:
        """The kernel calls of a task by itself."""
        return single(g, t)

    def fused(self, g: Graph, group: Group) -> tuple[list[Record], list[Overlay]]:
        """One kernel."""
        kernel = Kernel(g, group)
        return kernel.records(), kernel.overlays

    def together(
        self, g: Graph, made: list[Record], overlays: dict[int, list[Overlay]]
    ) -> tuple[list[Record], dict[int, list[Overlay]]]:
        """As they are: here a call costs next to nothing."""
        return made, overlays


HOST = Host()
