"""The gradients that a matched backward sets: all at once, and as long as nobody asks for one, without touching the leaves."""

from __future__ import annotations

from operator import attrgetter

from ..tensor import Leaf, Tensor
from .keep import HELD, OWN, release, unpark
from .values import Value, refs

BUFFER, PARKED = attrgetter("buffer"), attrgetter("parked")
LOOKED = 8  # passes in which gradients that were looked at are given to their leaves one by one


class Cover:
    """What leaves have in place of their gradients, which a session's backward sets together, until somebody asks for one.

    Whether they have a gradient is then said once for all of them: `gradients` is None where not. `pending` is true from the
    backward to the run that computes them. A leaf that is asked for its gradient lifts the cover, which leaves everything as
    if there had been none.
    """

    __slots__ = ("gradients", "leaves", "listed", "on", "others", "pending")

    def __init__(self, leaves: list[Leaf]):
        self.leaves = leaves
        self.gradients: Gradients | None = None
        self.on = self.pending = False
        self.listed: list[
            Leaf
        ] = []  # leaves that were dropped together last, and those among them that are not covered
        self.others: list[Leaf] = []

    def lift(self) -> None:
        """Let each leaf hold its gradient itself."""
        if not self.on:
            return
        self.on = False
        gradients, pending, self.gradients, self.pending = self.gradients, self.pending, None, False
        for leaf in self.leaves:
            leaf.cover = leaf.own = None
        if gradients is not None:
            gradients.lay_open(pending)

    def drop(self, leaves: list[Leaf], session) -> bool:
        """Set all of them to None, where `leaves` are theirs, and others that have none; False where that takes a closer look."""
        if leaves != self.listed:
            mine = set(self.leaves)
            if not mine.issubset(leaves):
                return False
            self.listed, self.others = list(leaves), [leaf for leaf in leaves if leaf not in mine]
        for leaf in self.others:
            if leaf.own is not None or leaf.cover is not None:
                return False
        gradients = self.gradients
        if gradients is not None:
            s = gradients.session
            if self.pending or (session is not None and session is not s):
                return False
            self.gradients = None
            if session is not None and s.replaying:
                s.undo.append((s.cursor.next.prev, s.take_back, gradients.were))
        return True


class Gradients:
    """The gradients that a backward sets. Between passes their leaves hold them; a step neither moves nor looks at them singly.

    `free` and `own` are what getrefcount says of handles and buffers, one by one, when nobody else refers to them.
    """

    __slots__ = ("cover", "free", "handles", "leaves", "own", "parked", "session", "values", "wait", "were")

    def __init__(self, session, grads: list[tuple[Leaf, Value]]):
        self.session = session
        self.wait = 0  # ends of passes to go before they are covered
        self.were = list(grads)  # the gradients of a pass, as `take_back` gives them back
        self.leaves = [leaf for leaf, _ in grads]
        self.cover = Cover(self.leaves)
        self.values = [v for _, v in grads]
        self.handles: list[Tensor] = [v.handle for v in self.values]
        for i, v in enumerate(self.values):
            v.use(self.handles, i)
        self.parked = False
        self.free: list[int] = []
        self.own: list[int] = []

    def forget(self) -> None:
        """Take back the uses of a backward that is forgotten."""
        self.cover.lift()
        for v in self.values:
            v.uses = [(c, k) for c, k in v.uses if c is not self.handles]

    def cover_leaves(self) -> None:
        """Stand for the leaves' own references to the handles, which are the only ones."""
        cover = self.cover
        for leaf in self.leaves:
            leaf.own, leaf.cover = None, cover
        cover.on, cover.gradients = True, self

    def lay_open(self, pending: bool) -> None:
        """The cover was lifted: every leaf has its handle, which is `pending` or shows what the last run computed."""
        self.wait = LOOKED
        self.parked = not pending
        for leaf, v, h in zip(self.leaves, self.values, self.handles):
            leaf.own = h
            if pending:
                v.parked = False
                del h.address
        if pending:
            self.session.usual = False

    def give(self, s) -> None:
        """A backward sets them anew: in the memory that they had, where nobody else looks at it."""
        self.cover.lift()
        handles = self.handles
        if (
            self.parked
            and all(map(PARKED, self.values))  # none was handed out since, as the operand of an op
            and list(map(refs, handles)) == self.free
            and list(map(refs, map(BUFFER, self.values))) == self.own
        ):
            self.parked = False
            for leaf, v, h in zip(self.leaves, self.values, handles):
                leaf.grad = h
                v.parked = False
                del h.address
            return
        self.parked = False
        for leaf, v in zip(self.leaves, self.values):
            if v.parked:
                unpark(s, v)
            leaf.grad = v.handle

    def finish(self, s) -> None:
        """The end of a pass: they stay where they are, unless somebody but the leaves holds one."""
        self.cover.lift()
        values = self.values
        if self.free and list(map(refs, self.handles)) == [n + 1 for n in self.free]:
            if all(leaf.grad is h for leaf, h in zip(self.leaves, self.handles)):
                self.parked = True
                for v in values:
                    v.parked = True
                if self.wait:
                    self.wait -= 1
                elif list(map(refs, map(BUFFER, values))) == self.own:
                    self.cover_leaves()
                return
        for leaf, v in zip(self.leaves, values):
            if v.made_by is not None and v.made_by.stamp == s.stamp:
                v.parked = leaf.grad is v.handle and refs(v.handle) == len(v.uses) + HELD
                if not v.parked:
                    release(s, v)
        self.parked = all(v.parked for v in values)
        if self.parked:
            self.free = [v.idle for v in values]
            self.own = list(map(refs, map(BUFFER, values)))
            if any(refs(v.buffer) > OWN + 1 for v in values):
                self.own = []
