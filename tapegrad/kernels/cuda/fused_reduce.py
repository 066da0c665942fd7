"""Launches of fused kernels that reduce: what `kernels/fused.py` has for the CPU, by the texts of `reduce_text.py` and
`reduce_row_text.py`.

A reduction of everything, or of columns that one block does not see as a whole, is gathered in scratch memory, one set of
accumulators for each block or each part of the rows, and finished by the kernels of `reduce.py`. How rows are cut depends on
shapes alone, so the same input gives the same bits.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ...layouts import Layout
from .. import fused
from ..elementwise import aligned, merged
from ..fused import Fused, Reduce
from . import blocks
from .elementwise import GROUP, Chain, Written, grouped, words_of
from .reduce import MONOIDS, Monoid, one_pass
from .reduce_row_text import Columns, Rows
from .reduce_text import Everything, Gathered, Gathering, ReduceForm
from .template import MACHINE, Launch, Steps, Work

TURNS = 8  # groups of a row, at most, that a thread keeps in registers
STATEMENTS = 400  # of a kernel's text, about, up to which it does
EACH = 16  # rows, at least, of a thread that has columns: with fewer there is nothing to gain from more blocks

_kernels: dict[str, Written] = {}


def work(f: Fused) -> Work:
    """The launches. Operands: the inputs, the outputs, scratch memories.

    >>> from tapegrad.dtypes import float32
    >>> from tapegrad.kernels.fused import Load
    >>> from tapegrad.layouts import layout
    >>> nodes = (Load(0), Reduce("sum", 0, "all", float32))
    >>> made = work(Fused((1 << 20,), 0, (layout((1 << 20,), float32),), nodes, ((1, layout((), float32)),)))
    >>> [launch.operands for launch in made.launches], len(made.scratch)
    ([(0, 2), (2, 1)], 1)
    """
    ins, outs = f.inputs, tuple([x for _, x in f.outputs])
    steps = Steps(ins, outs)
    if not f.row:
        everything(f, steps)
    elif any(isinstance(n, Reduce) and n.over == "columns" for n in f.nodes):
        columns(f, steps)
    else:
        rows(f, steps)
    return steps.work()


class Parts:
    """What of a kernel is the same for every way to walk: which outputs are elements, which are gathered, and where."""

    def __init__(self, f: Fused):
        self.f = f
        self.gathered: list[tuple[int, Layout, int]] = []  # node, layout of the output, its place
        self.written: list[tuple[int, Layout, int]] = []
        count = len(f.inputs)
        for at, (node, x) in enumerate(f.outputs):
            n = f.nodes[node]
            gathers = isinstance(n, Reduce) and n.over != "row"
            (self.gathered if gathers else self.written).append((node, x, count + at))
        self.chain = Chain(f.nodes, tuple([node for node, _, _ in self.written]))
        self.inputs = tuple([x.dtype for x in f.inputs])
        self.results = tuple([x.dtype for _, x, _ in self.written])
        self.places = (*range(count), *[at for _, _, at in self.written])

    def monoid(self, node: int) -> Monoid:
        n = self.f.nodes[node]
        assert isinstance(n, Reduce)
        arg = self.f.nodes[n.arg]
        return MONOIDS[n.kind](self.f.inputs[arg.operand].dtype if isinstance(arg, fused.Load) else arg.result)

    def over_all(self, node: int) -> bool:
        n = self.f.nodes[node]
        return isinstance(n, Reduce) and n.over == "all"

    def targets(self, steps: Steps, blocks: int, parts: int, width: int) -> list[tuple[int, Gathered]]:
        """Where each reduction is gathered: in the output, or in scratch memory. `blocks` of the grid, `parts` of `width` columns."""
        found = []
        for node, _, at in self.gathered:
            count, size = (blocks, 1) if self.over_all(node) else (parts, width)
            direct = count == 1
            place = at if direct else steps.temporary(count * size * self.monoid(node).dtype.itemsize)
            found.append((place, Gathered(node, direct)))
        return found

    def finish(self, steps: Steps, targets: list[tuple[int, Gathered]], blocks: int, parts: int, width: int) -> None:
        """The launches that finish what lies in scratch memory."""
        for (place, g), (node, x, at) in zip(targets, self.gathered, strict=True):
            if g.direct:
                continue
            count, size = (blocks, 1) if self.over_all(node) else (parts, width)
            monoid = self.monoid(node)
            bound = monoid.bindings(monoid.dtype, False, x.dtype)
            steps.add(one_pass(monoid, bound, (place, at), 1, count, size, (1, count)))


def launch(source: Gathering, grid: int, places: tuple[int, ...], words: tuple[int, ...]) -> Launch:
    """A launch of the kernel with that text; places: of its operands, then of what it gathers."""
    made = Written(source)
    kernel = _kernels.setdefault(f"{made.arguments} {made.text}", made)
    f = source.form
    count = len(f.operands)
    extra = tuple([places[i] for i in f.worded])
    wide = tuple([i for i, m in enumerate(f.moves) if m == "v"])
    return Launch(kernel, grid, MACHINE.block, (*places[:count], *extra, *places[count:]), words, (), None, wide)


def by_groups(plain: Launch, wide: Launch | None) -> Launch:
    """The launch that takes groups, which falls back on the plain one; or the plain one."""
    return plain if wide is None else replace(wide, unaligned=plain)


# everything


def everything(f: Fused, steps: Steps) -> None:
    """Reductions of everything, and elementwise results, where nothing is done by rows."""
    parts = Parts(f)
    walked = [*f.inputs, *[x for _, x, _ in parts.written]]
    extents, strides = merged(f.shape, [aligned(x, f.shape) for x in walked])
    extents, strides = extents or [1], [s or [0] for s in strides]
    count = len(f.inputs)
    last = [s[-1] for s in strides]
    moves = "".join(
        ["s" if s == 0 and i < count else "v" if s == 1 or extents[-1] == 1 else "g" for i, s in enumerate(last)]
    )
    size = prod(extents)
    groups = [GROUP, 1] if grouped(moves, extents, strides, GROUP) else [1]
    grid = MACHINE.grid(-(-size // groups[0]))
    targets = parts.targets(steps, grid, 0, 0)
    places = (*parts.places, *[place for place, _ in targets])
    made = []
    for group in groups:
        whole = (True,) * len(parts.written)
        form = ReduceForm(
            parts.chain,
            parts.inputs,
            parts.results,
            moves,
            len(extents),
            group,
            gathered=tuple([g for _, g in targets]),
            whole=whole,
        )
        made.append(launch(Everything(form), grid, places, words_of(moves, extents, strides, group)))
    steps.add(by_groups(made[-1], made[0] if len(made) > 1 else None))
    parts.finish(steps, targets, grid, 0, 0)


# rows and columns


class Walk:
    """A space of rows: its axes, how each operand goes along them, and the form of a kernel that walks it."""

    def __init__(self, f: Fused, parts: Parts):
        self.cpu = c = fused.Form(f)  # merges axes, finds stages: nothing of it is the host's alone
        self.parts = parts
        count = len(f.inputs)
        self.whole = tuple(c.whole)
        of_rows = {count + k for k, whole in enumerate(self.whole) if not whole}
        self.moves = "".join(["s" if i in of_rows else m for i, m in enumerate(c.moves)])
        self.outer, self.rows = c.extents, prod(c.extents)
        self.inner = [*c.within, c.inner]
        self.width = prod(self.inner)
        self.outside = c.strides
        self.inside = [[*s, last] for s, last in zip(c.inside, c.inner_strides, strict=True)]

    @property
    def groups(self) -> list[int]:
        """How many elements a thread takes at once: groups where these lie side by side, and one for other addresses."""
        if "g" in self.moves or self.inner[-1] % GROUP:
            return [1]
        for m, outside, inside in zip(self.moves, self.outside, self.inside, strict=True):
            if m == "v" and any(s % GROUP for s in (*outside, *inside[:-1])):
                return [1]
        return [GROUP, 1]

    def form(self, group: int, gathered: tuple[Gathered, ...], team: int, turns: int = 0) -> ReduceForm:
        p, c = self.parts, self.cpu
        return ReduceForm(
            p.chain,
            p.inputs,
            p.results,
            self.moves,
            0,
            group,
            gathered=gathered,
            whole=self.whole,
            stages=c.stages,
            constant=c.constant,
            outer=len(self.outer),
            inner=len(self.inner),
            team=team,
            turns=turns,
        )

    def words(self, source: Rows | Columns) -> tuple[int, ...]:
        """What `InRows.words` names."""
        strides = [s for each in self.outside for s in each]
        strides += [s for i in source.placed() for s in self.inside[i]]
        return (self.width, self.rows, *self.outer[1:], *self.inner[1:], *strides)


def rows(f: Fused, steps: Steps) -> None:
    """What is done row by row; and reductions of everything beside that."""
    parts = Parts(f)
    walk = Walk(f, parts)
    team = blocks.team_for(walk.width)
    grid = max(1, min(-(-walk.rows * team // MACHINE.block), MACHINE.blocks))
    targets = parts.targets(steps, grid, 0, 0)
    places = (*parts.places, *[place for place, _ in targets])
    made = []
    for group in walk.groups:
        turns = -(-walk.width // (team * group))
        several = max(walk.cpu.stages) > 0 and any(walk.whole)
        keeps = several and turns <= TURNS and turns * group * len(f.nodes) <= STATEMENTS
        form = walk.form(group, tuple([g for _, g in targets]), team, turns if keeps else 0)
        source = Rows(form)
        made.append(launch(source, grid, places, walk.words(source)))
    steps.add(by_groups(made[-1], made[0] if len(made) > 1 else None))
    parts.finish(steps, targets, grid, 0, 0)


def columns(f: Fused, steps: Steps) -> None:
    """Reductions of columns, and what is computed on the way."""
    parts = Parts(f)
    walk = Walk(f, parts)
    groups = walk.groups
    across, wide, cut = tiles(walk.rows, walk.width, groups[0])
    height = -(-walk.rows // cut)
    cut = -(-walk.rows // height)
    grid = min(across * cut, 4 * MACHINE.blocks)
    targets = parts.targets(steps, grid, cut, walk.width)
    places = (*parts.places, *[place for place, _ in targets])
    made = []
    for group in groups:
        source = Columns(walk.form(group, tuple([g for _, g in targets]), wide))
        words = (*walk.words(source), -(-walk.width // (wide * group)), cut, height)
        made.append(launch(source, grid, places, words))
    steps.add(by_groups(made[-1], made[0] if len(made) > 1 else None))
    parts.finish(steps, targets, grid, cut, walk.width)


def tiles(rows: int, width: int, group: int) -> tuple[int, int, int]:
    """How columns are dealt out: tiles side by side, groups of columns in each, and parts of the rows.

    A tile is 32 groups wide. Where that gives few blocks, and groups are of 16 bytes, it is down to 8, which still are whole
    lines of memory. Rows are cut in parts where a thread still has some of each.
    """
    items = -(-width // group)
    wide = 1
    while wide < min(items, 32, MACHINE.block):
        wide *= 2
    while True:
        across, high = -(-items // wide), MACHINE.block // wide
        cut = max(1, min(-(-MACHINE.blocks // across), rows // (EACH * high)))
        if across * cut >= MACHINE.blocks // 8 or wide <= max(32 // group, 1) or wide <= 8:
            return across, wide, cut
        wide //= 2
