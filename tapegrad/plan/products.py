"""Fewer and larger matrix products: those that are added up become one, and so do those that share their right operand.

A loop over time gives the gradient of a weight as Σ AₜᵀBₜ. If the Aₜ lie one behind the other in memory, and so do the Bₜ,
that is one product with a long inner axis. Where they do not lie so, but are results without a place of their own, they
are given such places.
"""

from __future__ import annotations

from typing import NamedTuple

from ..layouts import layout
from ..ops.registry import REGISTRY
from .graph import CALL, MAP, REDUCE, Graph, Task
from .parts import ADD, makers_of, move

LONG = 2  # k·(m + n) up to this many times m·n: then adding up m×n results costs more than keeping the operands


class Term(NamedTuple):
    """One summand: the task that computes it, and the values that lie in blocks, of which its inputs are views."""

    task: Task
    blocks: tuple[int, ...]


def sums(g: Graph) -> None:
    """Merge the products, and then the sums of columns, that are added up."""
    for kind in (product_term, column_term):
        merge(g, kind)


def product_term(g: Graph, t: Task) -> Term | None:
    """AᵀB with A and B in blocks, each element of the memory after the one before."""
    if t.kind != CALL or t.op.builder != "matmul":
        return None
    (a, b), values = t.ins, g.values
    x, y = values[a].layout, values[b].layout
    if x.ndim != 2 or y.ndim != 2 or not x.dtype.is_float or not y.contiguous:
        return None
    (m, k), n = x.shape, y.shape[1]
    if k * (m + n) > LONG * m * n or (m > 1 and x.strides[0] != 1) or (k > 1 and x.strides[1] != m):
        return None
    turned = g.view(g.root(a), layout((k, m), x.dtype, None, x.device), values[a].offset)
    return Term(t, (turned, b))


def column_term(g: Graph, t: Task) -> Term | None:
    """The sum over the first axes of a block."""
    if t.kind != REDUCE or t.op.builder != "sum":
        return None
    (i,) = t.ins
    x = g.values[i].layout
    lead = len(t.axes)
    if not x.contiguous or not x.dtype.is_float or t.axes != tuple(range(lead)) or lead == x.ndim:
        return None
    columns = 1
    for n in x.shape[lead:]:
        columns *= n
    return Term(
        t, (g.view(g.root(i), layout((x.size // columns, columns), x.dtype, None, x.device), g.values[i].offset),)
    )


def merge(g: Graph, kind) -> None:
    """Where results of one kind are added up, let one task compute the sum of those that can be had together."""
    readers, writers = g.readers(), g.writers()
    chains: dict[int, list[int]] = {}  # a sum that only another sum reads -> what is added up
    inner: dict[int, list[Task]] = {}  # and the tasks that add
    drop: set[Task] = set()
    last: dict[Task, tuple[list[int], list[Task]]] = {}
    for t in g.tasks:
        if t.kind != MAP or t.exprs != ADD or t.assigns or t.part or g.values[t.outs[0]].base is not None:
            continue
        (out,) = t.outs
        x = g.values[out].layout
        if any(g.values[i].layout.shape != x.shape or g.values[i].layout.dtype is not x.dtype for i in t.ins):
            continue
        terms: list[int] = []
        tasks = [t]
        for i in t.ins:
            terms += chains.pop(i, [i])
            tasks += inner.pop(i, [])
        found = readers.get(out, ())
        if (
            len(found) == 1
            and not g.values[out].fixed
            and found[0].kind == MAP
            and found[0].exprs == ADD
            and out in found[0].ins
        ):
            chains[out], inner[out] = terms, tasks
        elif len(terms) > 2:
            last[t] = (terms, tasks)
    moves = Moves(g)
    new: dict[Task, list[Task]] = {}
    for t, (terms, tasks) in last.items():
        rest, found_terms = [], []
        for i in terms:
            maker = writers.get(i)
            term = None if maker is None or g.values[i].fixed or len(readers[i]) > 1 else kind(g, maker)
            if term is None or any(g.root(v) in g.mutable for v in maker.ins):
                rest.append(i)
            else:
                found_terms.append(term)
        runs = [run for run in moves.runs(found_terms) if len(run) > 1]
        if not runs:
            continue
        merged = {term.task for run in runs for term in run}
        rest += [term.task.outs[0] for term in found_terms if term.task not in merged]
        drop.update(merged, tasks)
        rows = tuple([r for u in (*tasks, *merged) for r in u.rows])
        new[t] = total(g, t, [one(g, run) for run in runs], rest, rows)
    if new:
        g.tasks = [u for t in g.tasks for u in new.get(t, () if t in drop else (t,))]
        moves.apply()


def total(g: Graph, t: Task, parts: list[Task], rest: list[int], rows: tuple[int, ...]) -> list[Task]:
    """Tasks that give t's output as the sum of what the parts compute and the values in rest."""
    (out,), made = t.outs, list(parts)
    for part in parts:
        part.rows = rows
    addends = [*rest, *[part.outs[0] for part in parts]]
    if len(addends) == 1:
        parts[0].outs = (out,)
        return made
    x = g.values[out].layout
    while len(addends) > 1:
        to = out if len(addends) == 2 else g.add(x)
        add = Task(MAP, t.op, (addends[0], addends[1]), (to,), rows)
        add.exprs, add.compute = ADD, t.compute
        made.append(add)
        addends[:2] = [to]
    return made


def one(g: Graph, run: list[Term]) -> Task:
    """The task that computes the sum of a run of terms."""
    first = run[0]
    blocks = [stretch(g, b, len(run)) for b in first.blocks]
    out = g.add(g.values[first.task.outs[0]].layout)
    if first.task.kind == CALL:
        a = g.values[blocks[0]]
        (k, m), x = a.layout.shape, a.layout
        turned = g.view(g.root(blocks[0]), layout((m, k), x.dtype, (1, m), x.device), a.offset)
        return Task(CALL, first.task.op, (turned, blocks[1]), (out,), ())
    made = Task(REDUCE, REGISTRY["sum"], (blocks[0],), (out,), ())
    made.axes, made.attrs = (0,), {"axes": (0,), "keepdims": False}
    return made


def stretch(g: Graph, block: int, count: int) -> int:
    """The block and those behind it, as one array."""
    v = g.values[block]
    x = v.layout
    return g.view(g.root(block), layout((count * x.shape[0], *x.shape[1:]), x.dtype, None, x.device), v.offset)


class Moves:
    """Results that get a place in a stack, each behind the one before."""

    def __init__(self, g: Graph):
        self.g = g
        self.makers = makers_of(g)
        self.new: dict[int, int] = {}  # root -> its place in a stack

    def at(self, block: int) -> int:
        """A block, where it lies by now."""
        return self.g.rename(block, self.new)

    def runs(self, terms: list[Term]) -> list[list[Term]]:
        """The terms in runs whose blocks follow each other, as far as that can be had."""
        if len(terms) < 2:
            return []
        g, count = self.g, len(terms[0].blocks)
        shapes = [tuple([g.values[b].layout.shape for b in term.blocks]) for term in terms]
        terms = [term for term, s in zip(terms, shapes) if s == shapes[0]]
        terms = [Term(term.task, tuple(map(self.at, term.blocks))) for term in reversed(terms)]
        for side in range(count):
            roots = {g.root(term.blocks[side]) for term in terms}
            if len(roots) < len(terms):  # they lie together already
                terms.sort(key=lambda term: (g.root(term.blocks[side]), g.values[term.blocks[side]].offset))
                break
        for side in range(count):
            self.stack([term.blocks[side] for term in terms])
        terms = [Term(term.task, tuple(map(self.at, term.blocks))) for term in terms]
        found: list[list[Term]] = []
        for term in terms:
            if found and all(map(self.follows, found[-1][-1].blocks, term.blocks)):
                found[-1].append(term)
            else:
                found.append([term])
        return found

    def follows(self, a: int, b: int) -> bool:
        """True where block b begins where block a ends."""
        g = self.g
        return g.root(a) == g.root(b) and g.values[a].offset + g.values[a].layout.size == g.values[b].offset

    def stack(self, blocks: list[int]) -> None:
        """Give those of the blocks that are results without a place a place behind each other."""
        g = self.g
        free = [b for b in dict.fromkeys(blocks) if self.free(b)]
        if len(free) < 2:
            return
        x = g.values[free[0]].layout
        stack = g.add(layout((len(free) * x.shape[0], *x.shape[1:]), x.dtype, None, x.device))
        for n, b in enumerate(free):
            root = g.root(b)
            self.new[root] = move(g, self.makers, root, stack, n * x.size)

    def free(self, block: int) -> bool:
        """True where the block is all of a result that can lie anywhere."""
        g, root = self.g, self.g.root(block)
        mine = self.makers.get(root, ())
        v = g.values[root]
        return (
            bool(mine) and not v.fixed and g.whole(block) and not any(m.assigns for m in mine) and root not in self.new
        )

    def apply(self) -> None:
        """Let all tasks read from the new places."""
        for t in self.g.tasks:
            t.ins = tuple([self.g.rename(i, self.new) for i in t.ins])


# products with one right operand


def batched(g: Graph) -> None:
    """Compute products of neighbouring blocks of rows with one right operand together."""
    readers, place = g.readers(), {t: n for n, t in enumerate(g.tasks)}
    written = makers_of(g)
    found: dict[tuple, list[Task]] = {}
    for t in g.tasks:
        if t.kind == CALL and t.op.builder == "matmul" and len(t.outs) == 1 and not t.part:
            a, b = t.ins
            x = g.values[a].layout
            if (
                x.ndim == 2
                and x.contiguous
                and g.values[b].layout.ndim == 2
                and g.root(b) not in g.mutable
                and g.root(a) not in g.mutable
            ):
                found.setdefault((b, g.root(a), x), []).append(t)
    moves = Moves(g)
    instead: dict[Task, Task] = {}
    drop: set[Task] = set()
    for (b, root, _), tasks in found.items():
        tasks.sort(key=lambda t: g.values[t.ins[0]].offset)
        runs: list[list[Task]] = []
        for t in tasks:
            if runs and moves.follows(runs[-1][-1].ins[0], t.ins[0]) and moves.free(t.outs[0]):
                runs[-1].append(t)
            elif moves.free(t.outs[0]):
                runs.append([t])
        for run in runs:
            if len(run) < 2:
                continue
            first, last = min(run, key=place.__getitem__), max(run, key=place.__getitem__)
            reads = [place[u] for t in run for u in readers.get(t.outs[0], ())]
            if root not in written and g.root(b) not in written:
                at = first
            elif min(reads, default=0) > place[last]:
                at = last
            else:
                continue
            moves.stack([t.outs[0] for t in run])
            (out,) = {g.root(t.outs[0]) for t in run}
            made = Task(
                CALL, at.op, (stretch(g, run[0].ins[0], len(run)), b), (out,), tuple([r for t in run for r in t.rows])
            )
            instead[at] = made
            drop.update(run)
    if drop:
        g.tasks = [instead.get(t, t) for t in g.tasks if t not in drop or t in instead]
        moves.apply()
