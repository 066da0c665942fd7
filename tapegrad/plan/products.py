"""Fewer and larger matrix products: those that are added up become one, and so do those that share their right operand.

A loop over time gives the gradient of a weight as Σ AₜᵀBₜ. If the Aₜ lie one behind the other in memory, and so do the Bₜ,
that is one product with a long inner axis. Where they do not lie so, but are results without a place of their own, they
are given such places.
"""

from __future__ import annotations

from collections.abc import Callable
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
    if t.kind != CALL or t.builder != "matmul" or t.attrs:
        return None
    (a, b), values = t.ins, g.values
    x, y = values[a].layout, values[b].layout
    if x.ndim != 2 or y.ndim != 2 or not x.dtype.is_float or not y.contiguous:
        return None
    (m, k), n = x.shape, y.shape[1]
    if k * (m + n) > LONG * m * n or (m > 1 and x.strides[0] != 1) or (k > 1 and x.strides[1] != m):
        return None
    turned = g.view(g.roots[a], layout((k, m), x.dtype, None, x.device), values[a].offset)
    return Term(t, (turned, b))


def column_term(g: Graph, t: Task) -> Term | None:
    """The sum over the first axes of a block."""
    if t.kind != REDUCE or t.builder != "sum":
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
        t, (g.view(g.roots[i], layout((x.size // columns, columns), x.dtype, None, x.device), g.values[i].offset),)
    )


def merge(g: Graph, kind: Callable[[Graph, Task], Term | None]) -> None:
    """Where results of one kind are added up, let one task compute the sum of those that can be had together."""
    readers, writers = g.readers(), g.writers()
    drop: set[Task] = set()
    moves = Moves(g)
    new: dict[Task, list[Task]] = {}
    for t, (addends, tasks) in added_up(g, readers).items():
        rest: list[int] = []
        terms: list[Term] = []
        for i in addends:
            maker = writers.get(i)
            free = maker is not None and not g.values[i].fixed and len(readers[i]) == 1
            term = kind(g, maker) if maker is not None and free else None
            if term is None or any(g.roots[v] in g.mutable for v in term.task.ins):
                rest.append(i)
            else:
                terms.append(term)
        runs = [run for run in moves.runs(terms) if len(run) > 1]
        if not runs:
            continue
        merged = {term.task for run in runs for term in run}
        rest += [term.task.outs[0] for term in terms if term.task not in merged]
        drop.update(merged, tasks)
        rows = tuple([r for u in (*tasks, *merged) for r in u.rows])
        new[t] = total(g, t, [one(g, run) for run in runs], rest, rows)
    g.tasks = [u for t in g.tasks for u in new.get(t, () if t in drop else (t,))]
    moves.apply()


def added_up(g: Graph, readers: dict[int, list[Task]]) -> dict[Task, tuple[list[int], list[Task]]]:
    """The last task of each chain of additions of three values or more: what is added up, and all tasks of the chain."""
    inner: dict[int, tuple[list[int], list[Task]]] = {}  # a sum that only another addition reads -> its chain so far
    found: dict[Task, tuple[list[int], list[Task]]] = {}
    for t in g.tasks:
        if not adds(g, t):
            continue
        (out,) = t.outs
        addends: list[int] = []
        tasks = [t]
        for i in t.ins:
            below, by = inner.pop(i, ([i], []))
            addends += below
            tasks += by
        users = readers.get(out, ())
        if len(users) == 1 and not g.values[out].fixed and adds(g, users[0]) and out in users[0].ins:
            inner[out] = addends, tasks
        elif len(addends) > 2:
            found[t] = addends, tasks
    return found


def adds(g: Graph, t: Task) -> bool:
    """True where a task adds two different arrays of one shape and dtype and gives a new one."""
    if t.kind != MAP or t.exprs != ADD or t.assigns or t.part or t.ins[0] == t.ins[1]:
        return False
    v = g.values[t.outs[0]]
    x = v.layout
    return v.base is None and all(
        g.values[i].layout.shape == x.shape and g.values[i].layout.dtype is x.dtype for i in t.ins
    )


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
        turned = g.view(g.roots[blocks[0]], layout((m, k), x.dtype, (1, m), x.device), a.offset)
        return Task(CALL, first.task.op, (turned, blocks[1]), (out,), ())
    made = Task(REDUCE, REGISTRY["sum"], (blocks[0],), (out,), ())
    made.axes, made.attrs = (0,), {"axes": (0,), "keepdims": False}
    return made


def stretch(g: Graph, block: int, count: int) -> int:
    """The block and those behind it, as one array."""
    v = g.values[block]
    x = v.layout
    return g.view(g.roots[block], layout((count * x.shape[0], *x.shape[1:]), x.dtype, None, x.device), v.offset)


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
            roots = {g.roots[term.blocks[side]] for term in terms}
            if len(roots) < len(terms):  # they lie together already
                terms.sort(key=lambda term: (g.roots[term.blocks[side]], g.values[term.blocks[side]].offset))
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
        return g.roots[a] == g.roots[b] and g.values[a].offset + g.values[a].layout.size == g.values[b].offset

    def stack(self, blocks: list[int]) -> None:
        """Give those of the blocks that are results without a place a place behind each other."""
        g = self.g
        free = [b for b in dict.fromkeys(blocks) if self.free(b)]
        if len(free) < 2:
            return
        x = g.values[free[0]].layout
        stack = g.add(layout((len(free) * x.shape[0], *x.shape[1:]), x.dtype, None, x.device))
        for n, b in enumerate(free):
            root = g.roots[b]
            self.new[root] = move(g, self.makers, root, stack, n * x.size)

    def free(self, block: int) -> bool:
        """True where the block is all of a result that can lie anywhere."""
        g, root = self.g, self.g.roots[block]
        mine = self.makers.get(root, ())
        v = g.values[root]
        return (
            bool(mine) and not v.fixed and g.whole(block) and not any(m.assigns for m in mine) and root not in self.new
        )

    def apply(self) -> None:
        """Let all tasks read from the new places."""
        if not self.new:
            return
        for t in self.g.tasks:
            t.ins = tuple([self.g.rename(i, self.new) for i in t.ins])


# products with one right operand


def batched(g: Graph) -> None:
    """Compute products of neighbouring blocks of rows with one right operand together."""
    readers, place = g.readers(), {t: n for n, t in enumerate(g.tasks)}
    written = makers_of(g)
    moves = Moves(g)
    instead: dict[Task, Task] = {}
    drop: set[Task] = set()
    for (b, root, _), tasks in alike(g).items():
        for run in neighbours(g, moves, tasks):
            first, last = min(run, key=place.__getitem__), max(run, key=place.__getitem__)
            reads = [place[u] for t in run for u in readers.get(t.outs[0], ())]
            if root not in written and g.roots[b] not in written:
                at = first
            elif min(reads, default=0) > place[last]:
                at = last
            else:
                continue
            moves.stack([t.outs[0] for t in run])
            (out,) = {g.roots[t.outs[0]] for t in run}
            rows = tuple([r for t in run for r in t.rows])
            instead[at] = Task(CALL, at.op, (stretch(g, run[0].ins[0], len(run)), b), (out,), rows)
            drop.update(run)
    if drop:
        g.tasks = [instead.get(t, t) for t in g.tasks if t not in drop or t in instead]
        moves.apply()


def alike(g: Graph) -> dict[tuple, list[Task]]:
    """The products of blocks of one array with one right operand, by that, the array and the block's layout."""
    found: dict[tuple, list[Task]] = {}
    for t in g.tasks:
        if t.kind != CALL or t.builder != "matmul" or t.attrs or t.part:
            continue
        a, b = t.ins
        x = g.values[a].layout
        if (
            x.ndim == 2
            and x.contiguous
            and g.values[b].layout.ndim == 2
            and g.mutable.isdisjoint((g.roots[a], g.roots[b]))
        ):
            found.setdefault((b, g.roots[a], x), []).append(t)
    return found


def neighbours(g: Graph, moves: Moves, tasks: list[Task]) -> list[list[Task]]:
    """Those whose results can lie anywhere, in runs of two or more whose blocks follow each other."""
    runs: list[list[Task]] = []
    for t in sorted(tasks, key=lambda t: g.values[t.ins[0]].offset):
        if not moves.free(t.outs[0]):
            continue
        if runs and moves.follows(runs[-1][-1].ins[0], t.ins[0]):
            runs[-1].append(t)
        else:
            runs.append([t])
    return [run for run in runs if len(run) > 1]
