"""Which tasks become one kernel: elementwise chains, with the reductions along rows and columns that belong to them.

Tasks are taken in their order. Each joins the group of a task whose result it reads, where both walk the same space, and
where the group can still run before all that waits for it. Then the other groups that it reads from join as well, where
they can, and at last groups that read the same array. A group has a position; positions are the order in which groups run.
A group may move to a later one as long as nothing that waits for it comes before.
"""

from __future__ import annotations

from typing import NamedTuple

from ..ops import expression as ex
from .graph import CALL, MAP, REDUCE, Graph, Task, nodes
from .spaces import Reduced, Shape, by_rows, cuts, merged, reduced, spread_rows

MOST_NODES = 128  # operations of one kernel
MATH_WEIGHT = 10  # operations that exp, tanh and their like count as: each is a polynomial of some 20 instructions
MOST_OPERANDS = 24
FULL, ROW, OUT = "full", "row", "out"  # where a result is known: at every element, once a row, or not before the end


class Limits(NamedTuple):
    """What fused kernels of a device can do.

    as_row: elements up to which a reduction of a whole array is that of one row, which the kernel can go on with. mixed: one kernel
    can do things row by row and reduce columns. few, long: with fewer rows than that, of more elements, rows are no kernel's
    business, because each belongs to one thread or team.
    """

    as_row: int = 1 << 16
    mixed: bool = True
    few: int = 0
    long: int = 0


class Group:
    """Tasks that one kernel computes."""

    __slots__ = ("fusible", "loads", "made", "pieces", "position", "space", "tasks", "unread", "weight", "writes")

    def __init__(self, position: float, space: Shape, fusible: bool):
        self.tasks: list[Task] = []
        self.position = position
        self.space = space
        self.fusible = fusible
        self.made: dict[int, tuple[Task, int]] = {}  # root -> the task here that wrote it last, and the value it wrote
        self.pieces: dict[int, list[tuple[int, Task]]] = {}  # root -> parts of it that are written here, and by whom
        self.loads: dict[int, set[int]] = {}  # root -> values of it that are read from memory
        self.writes: dict[int, int] = {}  # root of an assigned value -> that value
        self.unread: dict[int, int] = {}  # root of a result -> tasks elsewhere that read it
        self.weight = 0


def apart(a: list[Task], b: list[Task]) -> bool:
    """True where tasks write parts of one value that have no element in common, so that their order does not matter."""
    return bool(a) and bool(b) and not any(t.fills or not t.part for t in (*a, *b))


class Fit(NamedTuple):
    """How a task goes into a group: the group's space from then on, and where the task's result is known."""

    space: Shape
    level: str
    lifts: bool = False  # the group's results so far become one a row


class Fusion:
    """Gathers the tasks of a graph into groups."""

    def __init__(self, g: Graph, limits: Limits = Limits()):  # noqa: B008  a tuple
        self.g = g
        self.values = g.values
        self.limits = limits
        self.last = 0.0
        self.readers = g.readers()

    def run(self) -> list[Group]:
        """The groups, in running order."""
        for t in self.g.tasks:
            if t.kind == CALL or not self.place(t):
                self.alone(t)
        self.siblings()
        return self.groups()

    def groups(self) -> list[Group]:
        """The groups by position."""
        return sorted(dict.fromkeys([t.group for t in self.g.tasks]), key=_position)

    def siblings(self) -> None:
        """Join groups that read the same array, so that it is read once."""
        readers: dict[int, Group] = {}
        for group in self.groups():
            if not group.fusible or not group.tasks:
                continue
            for root, values in list(group.loads.items()):
                if any(self.values[i].layout.size == group.space.size > 1 for i in values):
                    other = readers.get(root)
                    if other is not None and other.tasks and other is not group:
                        early, late = sorted((other, group), key=_position)  # joined groups may have moved
                        self.join(early, late)
                        if not group.tasks:
                            group = late
                    readers[root] = group

    def domain(self, t: Task) -> tuple[int, ...]:
        """The shape that a task walks."""
        return self.values[t.ins[0] if t.kind == REDUCE else t.outs[0]].layout.shape

    def alone(self, t: Task) -> None:
        """Give the task a group of its own, last so far."""
        self.last += 1.0
        space = Shape(()) if t.kind == CALL else Shape(cuts(self.domain(t)))
        group = Group(self.last, space, t.kind != CALL)
        level = FULL
        if t.kind == REDUCE:
            found = reduced(self.domain(t), t.axes)
            fit = None if found is None else self.reduces(space, found)
            if fit is None:
                group.fusible = False
            else:
                group.space, level, _ = fit
        self.enter(t, group, level)

    def place(self, t: Task) -> bool:
        """Let the task join a group, and others join that; False where there is none for it."""
        near = dict.fromkeys([b.group for b in t.before if b.group.fusible])
        if not near:
            return False
        candidates = sorted(near, key=_position, reverse=True)
        for k, group in enumerate(candidates):
            fit = self.fit(t, group)
            if fit is not None and self.settle(t, group):
                if fit.lifts:
                    for member in group.tasks:
                        member.level = ROW
                group.space = fit.space
                self.enter(t, group, fit.level)
                for other in candidates[k + 1 :]:
                    if other.tasks:
                        group = self.join(other, group)
                return True
        return False

    # whether a task fits

    def fit(self, t: Task, group: Group) -> Fit | None:
        """How the task goes into the group, if it does."""
        if group.weight + t.weight > MOST_NODES:
            return None
        size = sum(map(len, group.loads.values())) + sum(1 for r in group.unread if self.kept(group, r))
        if size + len(t.ins) + len(t.outs) > MOST_OPERANDS:
            return None
        found = self.spaces(t, group)
        if found is not None and not self.one_way([self.way(t, found.level, found.lifts), *self.ways(group.tasks)]):
            return None
        if found is None or not all(self.readable(i, t, group, found) for i in t.ins):
            return None
        for o in t.outs:
            r = self.g.roots[o]
            if not t.assigns:
                if r in group.made and not apart([t], [by for _, by in group.pieces.get(r, ())]):
                    return None
            elif group.writes.get(r, o) != o or self.read_otherwise(o, group, found):
                return None
        return found

    def read_otherwise(self, o: int, group: Group, fit: Fit) -> bool:
        """True where tasks of the group read the memory of value `o` in another way than a task writes it that fits so."""
        loads = group.loads.get(self.g.roots[o])
        if not loads:
            return False
        if loads != {o}:
            return True
        rows = [fit.lifts or u.level == ROW if u.kind == MAP else False for u in group.tasks if o in u.ins]
        return any(by_row != (fit.level == ROW) for by_row in rows)

    def kept(self, group: Group, root: int) -> bool:
        """True where a result of the group has to be written to memory."""
        return group.unread[root] > 0 or self.values[root].fixed

    def spaces(self, t: Task, group: Group) -> Fit | None:
        """The space in which both can be walked."""
        shape = self.domain(t)
        c = cuts(shape)
        n = c[-1] if c else 1
        space = group.space
        if n == space.size:
            both = merged(space.cuts, c)
            if both is None:
                return None
            if t.kind == MAP:
                return Fit(Shape(both, space.split), FULL)
            kind = reduced(shape, t.axes)
            return None if kind is None else self.reduces(Shape(both, space.split), kind)
        if t.kind != MAP:
            return None
        if space.split and n * space.split == space.size:
            both = merged(space.cuts, by_rows(c, space.split))
            return None if both is None else Fit(Shape(both, space.split), ROW)
        if not space.split and n > space.size and n % space.size == 0 and all(m.level == FULL for m in group.tasks):
            width = n // space.size
            both = merged(c, by_rows(space.cuts, width))
            if both is not None and any(self.g.roots[i] in group.made for i in t.ins):
                return Fit(Shape(both, width), FULL, lifts=True)
        return None

    def reduces(self, space: Shape, kind: Reduced) -> Fit | None:
        """How a reduction of the whole space fits into it."""
        if kind.over == "all":
            if space.size <= self.limits.as_row and space.split in (0, space.size):
                return Fit(Shape(space.cuts, space.size), ROW)
            return Fit(space, OUT)
        if space.split not in (0, kind.width):
            return None
        both = merged(space.cuts, (kind.width, space.size))
        if both is None or (
            kind.over == "row" and kind.width > self.limits.long and space.size < self.limits.few * kind.width
        ):
            return None
        return Fit(Shape(both, kind.width), ROW if kind.over == "row" else OUT)

    def way(self, t: Task, level: str, lifts: bool = False) -> str:
        """ "row" for what is done row by row, "columns" for a reduction of columns, "" for all else."""
        if level == ROW or lifts:
            return ROW
        kind = reduced(self.domain(t), t.axes) if level == OUT else None
        return "columns" if kind is not None and kind.over == "columns" else ""

    def ways(self, tasks: list[Task]) -> list[str]:
        """The same of tasks in a group; nothing where it does not matter."""
        return [] if self.limits.mixed else [self.way(t, t.level) for t in tasks]

    def one_way(self, ways: list[str]) -> bool:
        """True where one kernel can do all of it."""
        return self.limits.mixed or not (ROW in ways and "columns" in ways)

    def readable(self, i: int, t: Task, group: Group, fit: Fit) -> bool:
        """True where the kernel of the group has value `i` at hand when it comes to the task, or can load it."""
        v = self.values[i]
        root = i if v.base is None else v.base
        if root not in group.made:
            return True
        maker, wrote = group.made[root]
        if maker.part:
            low, high = self.g.span(i)
            for piece, by in group.pieces[root]:
                if piece == i and not by.fills:
                    maker, wrote = by, piece
                    break
                a, b = self.g.span(piece)
                if a < high and low < b:
                    return False
            else:
                return True
        level = ROW if fit.lifts else maker.level
        if level == OUT:
            return False
        domain = ROW if fit.level == ROW and t.kind == MAP else FULL
        if level == domain:
            return i == wrote or (self.g.whole(i) and self.g.whole(wrote))
        if t.kind == REDUCE or level != ROW or v.offset or not self.g.whole(wrote):
            return False
        return spread_rows(v.layout, self.domain(t), fit.space.split)

    # positions

    def settle(self, t: Task, group: Group) -> bool:
        """Make sure that the group runs after all that the task waits for; False where it cannot."""
        latest = max((b.group.position for b in t.before if b.group is not group), default=0.0)
        if latest < group.position:
            return True
        first = self.first_user(group, None)
        if first is None:
            self.last += 1.0
            group.position = self.last
            return True
        if first <= latest:
            return False
        middle = (latest + first) / 2
        if not latest < middle < first:
            return False
        group.position = middle
        return True

    def first_user(self, group: Group, but: Group | None) -> float | None:
        """The position of the first group, except `but`, that waits for this one."""
        found: float | None = None
        for t in group.tasks:
            for u in t.users:
                other = u.group
                if (
                    other is not None
                    and other is not group
                    and other is not but
                    and (found is None or other.position < found)
                ):
                    found = other.position
        return found

    # joining

    def enter(self, t: Task, group: Group, level: str) -> None:
        """Put the task into the group."""
        g = self.g
        group.tasks.append(t)
        t.group, t.level = group, level
        group.weight += t.weight
        for root in dict.fromkeys([g.roots[i] for i in t.ins]):
            if root in group.made:
                group.unread[root] -= 1
        for i in t.ins:
            root = g.roots[i]
            if root not in group.made or (root in group.pieces and all(piece != i for piece, _ in group.pieces[root])):
                group.loads.setdefault(root, set()).add(i)
        for o in t.outs:
            root = g.roots[o]
            group.made[root] = (t, o)
            if t.part:
                group.pieces.setdefault(root, []).append((o, t))
            group.unread[root] = len(self.readers.get(root, ()))
            if t.assigns:
                group.writes[root] = o

    def join(self, a: Group, b: Group) -> Group:
        """Let group `a`, which runs before `b`, become a part of it, or `b` of `a`, where that is possible; the group of both, or b."""
        if a is b or not a.fusible or a.weight + b.weight > MOST_NODES or a.position > b.position:
            return b
        fit = self.together(a, b)
        if fit is None:
            return b
        first = self.first_user(a, b)
        if first is not None and first <= b.position:
            waits = max(
                (x.group.position for t in b.tasks for x in t.before if x.group is not a and x.group is not b),
                default=0.0,
            )
            if waits >= a.position:
                return b
            b.position = a.position
        if fit.lifts:
            for t in a.tasks:
                t.level = ROW
        b.space = fit.space
        b.tasks = sorted([*a.tasks, *b.tasks], key=_number)
        tasks, b.tasks = b.tasks, []
        b.made, b.pieces, b.loads, b.unread, b.weight = {}, {}, {}, {}, 0
        a.tasks = []
        for t in tasks:
            self.enter(t, b, t.level)
        return b

    def together(self, a: Group, b: Group) -> Fit | None:
        """The space of both groups, where all that one reads of the other is at hand."""
        if a.writes or b.writes:
            return None
        for r in a.made:
            if r in b.made and not apart([t for _, t in a.pieces.get(r, ())], [t for _, t in b.pieces.get(r, ())]):
                return None
        loads = {i for part in (*a.loads.values(), *b.loads.values()) for i in part if self.g.roots[i] not in a.made}
        results = sum(1 for x in (a, b) for r in x.unread if self.kept(x, r))
        if len(loads) + results > MOST_OPERANDS:
            return None
        lifts = False
        if not self.one_way(self.ways([*a.tasks, *b.tasks])):
            return None
        if a.space.size == b.space.size:
            if a.space.split and b.space.split and a.space.split != b.space.split:
                return None
            both = merged(a.space.cuts, b.space.cuts)
            split = a.space.split or b.space.split
        elif (
            not a.space.split and b.space.split * a.space.size == b.space.size and all(t.level == FULL for t in a.tasks)
        ):
            if not self.one_way([ROW, *self.ways(b.tasks)]):
                return None
            lifts, split = True, b.space.split
            both = merged(by_rows(a.space.cuts, split), b.space.cuts)
        else:
            return None
        if both is None:
            return None
        space = Shape(both, split)
        for t in b.tasks:
            level = ROW if t.level == ROW and t.kind == MAP else FULL
            if not all(self.readable(i, t, a, Fit(space, level, lifts)) for i in t.ins):
                return None
        return Fit(space, FULL, lifts)


def _position(group: Group) -> float:
    return group.position


def _number(t: Task) -> int:
    return t.number


def weigh(g: Graph) -> None:
    """Note how many operations each task is."""
    weights: dict[tuple, int] = {}
    for t in g.tasks:
        if t.kind != MAP:
            t.weight = 4
            continue
        found = weights.get(t.exprs)
        if found is None:
            found = weights[t.exprs] = sum([MATH_WEIGHT if n.kind in ex.MATH else 1 for n in nodes(t.exprs) if n.args])
        t.weight = found
