"""Better tasks for the same results: what planning changes before it gathers tasks into kernels.

Each rule takes the graph once from end to end. Rules that move a read to another value apply to values that no row assigns.
"""

from __future__ import annotations

from collections.abc import Callable

from ..layouts import layout
from ..ops import expression as ex
from .graph import CALL, MAP, REDUCE, Graph, Task, costly, nodes, slow
from .parts import assemble, in_place, join, read_in_parts
from .products import batched, sums
from .updates import into_place

Rule = Callable[[Graph], None]
COPY = (ex.argument(0),)
ZERO = (0, 0.0)


def rewrite(g: Graph, rules: tuple[Rule, ...]) -> None:
    """Apply rules, each to what those before it left."""
    for rule in rules:
        rule(g)


# copies


def without_copies(g: Graph) -> None:
    """Let the task whose whole result is copied into a value write that value itself."""
    writers = g.writers()
    new: dict[int, int] = {}
    left: list[Task] = []
    for t in g.tasks:
        if t.kind == MAP and t.exprs == COPY and not t.assigns and not t.part:
            (i,), (to,) = t.ins, t.outs
            root = g.roots[i]
            x, y = g.values[root], g.values[to]
            maker = writers.get(root)
            if (
                maker is not None
                and root not in new
                and not x.fixed
                and g.whole(i)
                and x.layout.dtype is y.layout.dtype
                and y.base is None
                and y.layout.contiguous
                and to not in g.mutable
            ):
                maker.outs = tuple([g.view(to, g.values[o].layout, 0) if g.roots[o] == root else o for o in maker.outs])
                maker.rows += t.rows
                new[root], writers[to] = to, maker
                continue
        left.append(t)
    if new:
        g.tasks = left
        for t in left:
            t.ins = tuple([g.rename(i, new) for i in t.ins])


# reductions


def in_stages(g: Graph) -> None:
    """Reduce over first and last axes, with others kept between, in two stages: the last axes belong to the kernel before."""
    writers = g.writers()
    left: list[Task] = []
    for t in g.tasks:
        if t.kind != REDUCE:
            left.append(t)
            continue
        maker, x = writers.get(g.roots[t.ins[0]]), g.values[t.ins[0]].layout
        last = trailing(x.shape, t.axes) if maker is not None and maker.kind != CALL else ()
        if not last:
            left.append(t)
            continue
        lead = len(x.shape) - len(last)
        (out,) = t.outs
        between = g.add(layout(x.shape[:lead], g.values[out].layout.dtype, None, x.device))
        first = Task(REDUCE, t.op, t.ins, (between,), t.rows)
        first.axes = tuple(range(lead, len(x.shape)))
        first.attrs = {"axes": first.axes, "keepdims": False}
        second = Task(REDUCE, t.op, (between,), t.outs, t.rows)
        second.axes = tuple([a for a in t.axes if a < lead])
        second.attrs = {"axes": second.axes, "keepdims": t.attrs["keepdims"]}
        left += [first, second]
    g.tasks = left


def trailing(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """The last axes, all of them reduced, of a reduction whose first axes are reduced as well; none in other cases.

    >>> trailing((8, 3, 5, 5), (0, 2, 3)), trailing((8, 3, 5), (1, 2))
    ((2, 3), ())
    """
    lead = len(shape)
    while lead and (lead - 1 in axes or shape[lead - 1] == 1):
        lead -= 1
    kinds = [a in axes for a in range(lead) if shape[a] != 1]
    if not kinds or lead == len(shape) or kinds != sorted(kinds, reverse=True) or not kinds[0]:
        return ()
    return tuple(range(lead, len(shape)))


# derivatives that can use a result instead of computing it again


class Numbering:
    """Numbers for what expressions compute, equal ones where it is the same function of the same values."""

    def __init__(self) -> None:
        self.known: dict[tuple, int] = {}

    def of(self, exprs: tuple[ex.Node, ...], ins: tuple[int, ...], compute) -> dict[ex.Node, int]:
        """The number of every node."""
        found: dict[ex.Node, int] = {}
        known = self.known
        for n in nodes(exprs):
            if n.kind == "input":
                key: tuple = ("input", ins[n.value])
            elif n.kind == "const":
                key = ("const", n)
            else:
                key = (n.kind, compute, *[found[a] for a in n.args])
            found[n] = known.setdefault(key, len(known))
        return found


def with_results(g: Graph) -> None:
    """Where an expression has a costly part that an earlier task computed, read that task's result.

    The derivative of tanh is then a function of tanh's result, and what tanh read need not be kept for it. relu(x) <= 0
    says the same as x <= 0 (nan included), so its derivative reads the result as well.
    """
    numbers = Numbering()
    results: dict[int, int] = {}  # number of what was computed -> the value that holds it
    positive: dict[int, int] = {}  # value x -> relu(x)
    for t in g.tasks:
        if t.kind != MAP or t.truths:
            continue
        relu = t.exprs == RELU
        clips = not relu and any(i in positive for i in t.ins)
        if not relu and not clips and not costly(t.exprs):
            continue
        found, exprs = numbers.of(t.exprs, t.ins, t.compute), t.exprs
        read_results(g, t, found, results, positive)
        if t.assigns or t.part:
            continue
        for e, o in zip(exprs, t.outs):
            x = g.values[o].layout
            if x.dtype is t.compute and g.roots[o] not in g.mutable and not any(g.roots[i] in g.mutable for i in t.ins):
                results.setdefault(found[e], o)
        if relu and not g.mutable.intersection((g.roots[t.ins[0]], g.roots[t.outs[0]])):
            positive.setdefault(t.ins[0], t.outs[0])


RELU = (ex.select(ex.node("le", ex.argument(0), ex.const(0)), ex.const(0), ex.argument(0)),)


def read_results(
    g: Graph, t: Task, numbers: dict[ex.Node, int], results: dict[int, int], positive: dict[int, int]
) -> None:
    """Rewrite the expressions of a task so that they read results where those are known."""
    new: dict[ex.Node, ex.Node] = {}
    ins = list(t.ins)
    for n in nodes(t.exprs):
        held = results.get(numbers[n]) if n.args and slow(n) else None
        if held is not None and g.values[held].layout.dtype is t.compute:
            if held not in ins:
                ins.append(held)
            new[n] = ex.argument(ins.index(held))
        elif n.kind == "le" and n.args[0].kind == "input" and n.args[1].kind == "const" and n.args[1].value in ZERO:
            y = positive.get(t.ins[n.args[0].value])
            if y is None:
                new[n] = n
            else:
                if y not in ins:
                    ins.append(y)
                new[n] = ex.node("le", ex.argument(ins.index(y)), n.args[1])
        else:
            new[n] = ex.node(n.kind, *[new[a] for a in n.args]) if n.args else n
    exprs = tuple([new[e] for e in t.exprs])
    if exprs == t.exprs:
        return
    reads = ex.inputs_of(exprs)
    shown = ex.substitute(exprs, tuple([ex.argument(reads.index(i) if i in reads else 0) for i in range(len(ins))]))
    t.exprs, t.ins = shown, tuple([ins[i] for i in reads])


# The rules in their order: those for any device, for GPUs, and those that lead to kernels that only the host has.
ANYWHERE: tuple[Rule, ...] = (without_copies, with_results, Graph.live, assemble, join, in_place, read_in_parts)
ON_GPU: tuple[Rule, ...] = (*ANYWHERE[:-1], in_stages, read_in_parts)
ON_HOST: tuple[Rule, ...] = (*ANYWHERE[:-1], sums, batched, into_place, in_stages, read_in_parts)
