"""What a session remembers of a pass: rows in a tree of variants. What they make and read is in `values.py`."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from ..apply import kept
from ..tensor import RELEASED, Leaf, Row
from .values import NEVER, Slot, Value, tensor_of

# kinds of rows
OP, VIEW, ASSIGN, FRESH, DRAW, MODE, SPAN = "op", "view", "assign", "fresh", "draw", "mode", "span"


class Cursor:
    """Where a pass stands. Handles refer to it, so that an operator finds it without asking which session runs."""

    __slots__ = ("next",)

    def __init__(self):
        self.next: Any = None


class End:
    """Stands where no row follows: nothing compares equal to it, so the call goes the long way."""

    __slots__ = ("a", "b", "kind", "op", "plain", "prev", "used")

    def __init__(self, prev):
        self.prev = prev
        self.used = 0
        self.op = self.a = self.b = self.kind = self.plain = None


class SessionRow:
    """One recorded call. While a pass is matched it is also the autograd node of its results.

    `a` and `b` are the first two arguments as the call passes them, for the operators' comparison; `args` all of them;
    `operands` what the kernels read. `next` is the row that followed last time; `children` all that ever did.
    """

    __slots__ = (
        "a",
        "args",
        "attrs",
        "b",
        "children",
        "closing",
        "depth",
        "kind",
        "last",
        "likely",
        "linked",
        "mode",
        "next",
        "note",
        "op",
        "operands",
        "out",
        "outs",
        "place",
        "plain",
        "prev",
        "reads",
        "segments",
        "session",
        "spent",
        "targets",
        "tracked",
    )

    def __init__(self, session, kind: str, op, prev: SessionRow | None, tracked: bool = False):
        self.session, self.kind, self.op, self.prev, self.tracked = session, kind, op, prev, tracked
        self.a: Any = NEVER
        self.b: Any = NEVER
        self.out: Any = None
        self.args: list = []
        self.operands: tuple = ()
        self.attrs: dict | None = None
        self.outs: list[Value] = []
        self.targets: tuple = ()  # of an assignment: slots
        self.mode: Any = None
        self.children: list[SessionRow] = []
        self.next: Any = End(self)
        self.depth: int = 0 if prev is None else prev.depth + 1
        self.segments: dict = {}
        self.spent: Row | None = None
        self.reads: tuple | None = None
        self.place: tuple[str, int] | None = None
        self.note: list | None = None  # of an assignment: what `pool.writes` holds of it
        self.plain = False  # a call with the very same arguments steps over it, and nothing else has to be done
        self.last: SessionRow = self
        self.likely: Any = self  # of the ways that a call went the one that it went last
        self.linked: list[Value | Slot] = []  # what has a use in this row or its args
        self.closing: list[Span] = []  # the calls that end with it

    def link(self, x: Value | Slot, container, key) -> None:
        """Put an operand's tensor into a field of this row, and keep it up to date there."""
        x.use(container, key)
        self.linked.append(x)

    kwargs: Any = MappingProxyType({})
    result: Any = None

    # as an autograd node

    @property
    def parents(self) -> tuple:
        # a row of the pass stands for itself even where its handle has left the session: a sweep knows its rows by identity
        return tuple([x.row if type(x) is Value and x.row.tracked else tensor_of(x).node for x in self.operands])

    @property
    def indices(self) -> tuple[int, ...] | None:
        found = tuple(x.index if type(x) is Value else tensor_of(x).index for x in self.operands)
        return found if any(found) else None

    @property
    def saved(self) -> tuple[tuple[bool, ...], bool]:
        """Which operands, and whether the output, the adjoint reads."""
        if self.reads is None:
            parents = self.parents
            self.reads = self.op.keeps.get(tuple([p is not None for p in parents])) or kept(self.op, parents)
        return self.reads

    @property
    def inputs(self):
        if self.released:
            return RELEASED
        keeps, _ = self.saved
        return tuple(
            tensor_of(x) if k else x.tensor.layout if type(x) is not Value else x.layout
            for x, k in zip(self.operands, keeps)
        )

    @inputs.setter
    def inputs(self, _released) -> None:
        self.session.released.add(self)
        twin = self.session.frozen.get(self)  # the row that a tensor was handed out with in the middle of this pass
        if twin is not None:
            twin.inputs, twin.output = RELEASED, None

    @property
    def output(self):
        return None if self.released or not self.saved[1] else tuple(map(tensor_of, self.outs))

    @output.setter
    def output(self, _released) -> None:
        pass

    @property
    def released(self) -> bool:
        """True where a backward of this pass has given the saved values back."""
        session = self.session
        return self in session.released or any(self in span.releases for span in session.spans)

    @property
    def number(self) -> float:
        """Its place in the order of all rows and writes: after what was before the pass, before what comes after it."""
        return self.session.base + self.depth * STEP

    @property
    def state(self):
        return self.session.state

    @property
    def line(self) -> None:
        return None


class Listed(list):
    """Tensors in a list or tuple that a call was given."""


STEP = 2.0**-30  # rows of one pass lie between two whole order numbers


class Span(SessionRow):
    """A call that records several rows: a composite, a backward, an optimizer's step. Matched as a whole where it may be.

    Where a call goes another way, because of other arguments or another state of things, another span is one more of its
    `cases`. `last` is its last row. Passing over it as a whole, `draws` are made again, `grads` set, `steady` asked to go on; `guards`
    are the gradients that its leaves had before, which must be what they were.
    """

    __slots__ = (
        "assigns",
        "cases",
        "current",
        "draws",
        "fresh",
        "gradients",
        "grads",
        "guards",
        "kwargs",
        "others",
        "reads",
        "releases",
        "result",
        "skippable",
        "slots",
        "start",
        "steady",
        "undoing",
        "version",
    )

    def __init__(self, session, op, prev, args, kwargs):
        super().__init__(session, SPAN, op, prev)
        self.args, self.kwargs = list(args), kwargs
        self.skippable = False
        self.current = True  # the numbers in its rows are those of its arguments
        self.draws: list[SessionRow] = []
        self.grads: list[tuple] = []  # (leaf, value)
        self.gradients: Any = None  # the same, to be set together
        self.guards: list[tuple] = []  # (leaf, None, value or slot)
        self.steady: Any = None  # of an optimizer's step: what it does besides its rows
        self.assigns: list[SessionRow] = []
        self.start: Span = self  # where its rows begin
        self.cases: list[Span] = [
            self
        ]  # ways that the call went: of a call's first row, which is itself the first of them
        self.releases: frozenset = frozenset()  # rows whose saved values it gives back
        self.slots: dict[int, Slot] = {}  # places of arguments that are read here first: other tensors may take them
        self.fresh = False  # a backward before which no leaf had a gradient
        self.reads: Any = (
            None  # of an optimizer's step: the gradients that it reads, where they all come from one backward
        )
        self.others: list[Leaf] = []  # and the leaves that had none
        self.undoing: Any = None  # what is noted when a backward or a step is passed over, to take it back
        self.result: Any = None  # where it returns several: a tuple or list of values
        self.version = 0
