"""Following a pass: what the tape asks of an open session, op by op. Ops, leaves, writes and reads are matched, or recorded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import TapeError
from ...layouts import Layout
from ...ops import random
from ...ops.registry import Op
from .. import apply as eager
from .. import assign
from ..create import fill_from
from ..state import local, order
from ..tensor import CONSTANT, Leaf, Made, Tensor, leaf_changes
from . import keep, match, record, run
from .gradients import Gradients
from .rows import DRAW, FRESH, MODE, OP, STEP, VIEW, Cursor, End, SessionRow, Span
from .stats import Counts
from .values import Slot, Value


class Following:
    """A session in the eyes of the tape: where the pass stands, and what it has met so far."""

    def __init__(self):
        self.cursor = Cursor()
        self.lock = threading.Lock()
        self.state: Any = None
        self.depth = 0  # how often it was entered
        self.absorbed = 0  # of these, how often inside another session, which covers it
        self.counts = Counts()
        self.reset()

    def reset(self) -> None:
        self.root = SessionRow(self, "root", None, None)
        self.tail = self.settled = self.root
        self.cursor.next = self.nowhere = End(None)  # where it stands outside of passes
        self.ends: list[End] = []
        self.slots: list[Slot] = []
        self.slots_here: dict[int, Slot] = {}
        # ids of the buffers that recorded rows write into, which their slots keep alive
        self.written: set[int] | None = None
        self.seen_changes = leaf_changes[0]
        self.slots_changed = False
        self.graph_changes = 0
        self.stamp = self.first_pass = 0
        self.base = 0
        self.arenas: dict[str, Arena] = {}  # by device
        self.executions: list = []  # of the latest pass that was matched
        self.routine: Any = None  # how to end a pass that goes like the latest
        self.begin()

    def begin(self) -> None:
        """Forget what belongs to one pass."""
        self.replaying = False
        self.span: Span | None = None
        self.span_opaque = False
        self.inside = 0
        self.entered = False
        self.spans: list[Span] = []
        self.released: set[SessionRow] = set()
        self.computed: list[Value] = []
        self.fresh_values: list[Value] = []
        self.parted: list[Value] = []  # values of the matched part of a pass that is recorded now
        self.frozen: dict = {}
        self.gradients: list[Gradients] = []  # of backwards that were matched as a whole
        self.collected: dict[Leaf, Any] = {}
        self.pass_rows = 0
        self.lost: list[SessionRow] = []
        self.looked = False  # the call that is matched row by row read elements
        self.below = False  # the call goes through rows that were recorded before the pass
        self.entering: Span | None = None  # a call whose rows are matched one by one
        self.undo: list[tuple] = []  # (last row before it, what a matched call did besides computing, with what)
        self.renamed: list[Tensor] = []  # handles that the code made leaves of
        self.rebound: list[Slot] = []  # slots that another tensor took
        self.usual = True  # nothing happened that the end of a pass like the one before has to look into
        self.ran: list = []
        self.planned = False

    # recording

    def record_from(self, tail: SessionRow) -> None:
        """Write down what comes from here on."""
        self.replaying = False
        self.tail = tail
        self.cursor.next = End(None)
        self.slots_here = {}
        row: Any = tail
        path: set[SessionRow] = set()
        while row is not None:
            path.add(row)
            row = row.prev
        for slot in self.slots:
            if slot.first in path and slot.tensor.value is not CONSTANT:
                other = self.slots_here.setdefault(id(slot.tensor), slot)
                if (
                    other is not slot
                ):  # which of them a later row, or a backward, means cannot be told: they stay one tensor
                    other.bindable = slot.bindable = False

    def diverge(self) -> None:
        """The pass differs from what was recorded: run what was matched, and record the rest."""
        tail = self.cursor.next.prev
        run.sync(self)
        keep.freeze(self, self.computed)
        set_together = [
            v for g in self.gradients for v in g.values if v.made_by is not None and v.made_by.stamp == self.stamp
        ]
        for v in (*self.computed, *self.fresh_values, *set_together):
            v.now = v.handle
            keep.part_with(self, v, Made(v, self))
            self.parted.append(v)
        self.computed, self.fresh_values, self.gradients = [], [], []
        self.record_from(tail)
        if self.entering is not None:
            self.span, self.span_opaque = self.entering, False

    def alone(self, fn: Callable, *args):
        """Run something eagerly, unrecorded."""
        state = self.state
        state.session = None
        try:
            return fn(*args)
        finally:
            state.session = self

    # what the tape asks

    def elementwise(self, op: Op, args: tuple):
        """An elementwise op on tensors and numbers."""
        row = self.cursor.next
        if row.op is op and row.plain and not row.attrs and stands_at(row, args):
            self.cursor.next = row.next
            return row.out
        for a in args:
            if type(a) is not Tensor and type(a) not in match.NUMBERS:
                args = self.converted(op, args)
                break
        if self.replaying:
            row = match.op_match(self, OP, op, args, None)
            if row is not None:
                return self.give(row)
            self.diverge()
        inputs = self.coerced(op, args)
        result = self.alone(eager.elementwise, op, inputs)
        record.op_row(self, op, args, inputs, None, result, OP)
        return result

    def converted(self, op: Op, args: tuple) -> tuple:
        """Arrays and lists among the arguments as tensors."""
        device = next((a.layout.device for a in args if type(a) is Tensor), "cpu")
        made: list = []
        for a in args:
            if isinstance(a, eager.SCALARS) and type(a) not in match.NUMBERS:
                a = float(a) if isinstance(a, float) else int(a)
            made.append(a if type(a) is Tensor or type(a) in match.NUMBERS else eager.as_tensor(a, op.name, device))
        return tuple(made)

    def coerced(self, op: Op, args: tuple) -> tuple[Tensor, ...]:
        """Numbers among the arguments as tensors that stand for what later passes write."""
        for a in args:
            if type(a) is not Tensor:
                made = self.alone(eager.coerce, op, args)
                return tuple(
                    [t if type(a) is Tensor else record.number(self, a, t) for a, t in zip(args, made, strict=True)]
                )
        return args

    def apply(self, op: Op, inputs: tuple, attrs: dict):
        """A primitive or a view."""
        row = self.cursor.next
        if row.op is op and row.plain and stands_at(row, inputs) and match.same_attributes(attrs, row.attrs):
            self.cursor.next = row.next
            return row.out
        for t in inputs:
            if type(t) is not Tensor and type(t) not in match.NUMBERS:
                inputs = self.converted(op, inputs)
                break
        kind = VIEW if op.kind == "view" else OP
        if self.replaying:
            row = match.op_match(self, kind, op, inputs, attrs)
            if row is not None:
                return self.give(row)
            self.diverge()
        args = inputs
        inputs = self.coerced(op, inputs)
        result = self.alone(eager.apply, op, inputs, attrs)
        record.op_row(self, op, args, inputs, attrs, result, kind)
        return result

    def give(self, row: SessionRow):
        """Step over a matched row: what it returns."""
        self.cursor.next = row.next
        outs = row.outs
        for v in outs:
            if v.parked:
                keep.unpark(self, v)
        if len(outs) == 1:
            h = outs[0].handle
            if not row.tracked and h.node is not None:
                h.node = None  # a leaf that the code made of it in the last pass
            return h
        return tuple([v.handle for v in outs])

    # leaves

    def fresh(self, array: np.ndarray, x: Layout, kind: str = FRESH, numbers: bool = False) -> Tensor:
        """A tensor made from data: its elements are copied at once. numbers: nothing else is ever written to it."""
        if self.replaying:
            row = match.kind_match(self, kind, x)
            if row is not None:
                self.cursor.next = row.next
                return self.filled(row, array)
            self.diverge()
        made = self.alone(eager.empty, x, "tensor")
        fill_from(made.address, x, array)
        record.fresh_row(self, made, kind, array if numbers else None)
        return made

    def filled(self, row: SessionRow, array: np.ndarray) -> Tensor:
        v = row.outs[0]
        h = v.handle
        fill_from(v.buffer.address, v.layout, array)  # type: ignore[union-attr]
        h.node = None
        self.fresh_values.append(v)
        return h

    def draw(self, state: np.ndarray, device: str) -> Tensor:
        """Seed and number of a random draw."""
        from ...dtypes import int64
        from ...layouts import layout

        return self.fresh(state, layout((2,), int64, None, device), DRAW, numbers=True)

    def redraw(self, row: SessionRow) -> None:
        """The next draw, for a random op in a call that is passed over."""
        v = row.outs[0]
        fill_from(v.buffer.address, v.layout, random.next_state())  # type: ignore[union-attr]

    def mode(self, on: bool | str) -> None:
        """Recording of gradients was switched on or off, or the precision of products changed."""
        if self.inside:
            return
        if self.replaying:
            row = match.kind_match(self, MODE, on)
            if row is not None:
                self.cursor.next = row.next
                return
            self.diverge()
        record.mode_row(self, on)

    # writes

    def update(self, targets: tuple[Tensor, ...], op: Op, args: tuple) -> None:
        """An assignment."""
        for a in args:
            if type(a) is not Tensor and type(a) not in match.NUMBERS:
                args = self.converted(op, args)
                break
        if not all(map(self.from_outside, targets)) or any(overlaps(a, t) for a in args for t in targets):
            if self.replaying:
                run.sync(self)
            if self.span is not None:
                self.span_opaque = True
            self.alone(assign.update, targets, op, args)
            return
        if self.replaying:
            row = match.assign_match(self, op, targets, args)
            if row is not None:
                self.cursor.next = row.next
                record.mark(row)
                return
            self.diverge()
        inputs = self.coerced(op, args)
        self.alone(assign.update, targets, op, inputs)
        record.assign_row(self, op, targets, args, inputs)

    def moment(self) -> float:
        """The order number of a write that is done at once: between the rows before and behind it."""
        return self.base + (self.cursor.next.prev.depth + 0.5) * STEP if self.replaying else order()

    def from_outside(self, t: Tensor) -> bool:
        """True of tensors that are older than the pass."""
        return (type(t.value) is int and t.value < self.first_pass) or (
            type(t.value) is Made and t.value.stamp != self.stamp
        )

    def assigned_here(self, t: Tensor) -> bool:
        """True where a recorded row writes into the tensor's memory."""
        if self.written is None:
            self.written = {id(slot.tensor.buffer) for slot in self.slots if slot.written}
        return id(t.buffer) in self.written

    # reads

    def sync(self) -> None:
        """Compute what is pending."""
        if self.replaying:
            run.sync(self)

    def read(self, t: Tensor) -> None:
        """Elements are about to be read outside kernels."""
        if not self.replaying:
            if self.span is not None:
                self.span_opaque = True
        else:
            self.looked = True
            if self.settled is not self.cursor.next.prev and self.assigned_here(t):
                run.sync(self)

    def compute(self, t: Tensor) -> None:
        """Give a pending handle its address."""
        if self.state is not local.state:
            raise TapeError(
                f"a value that a session in thread {self.state.thread!r} has yet to compute was asked for in thread "
                f"{local.state.thread!r}; read it there first, or after the session"
            )
        self.looked = True
        if self.replaying:
            run.sync(self)

    def memory(self, nbytes: int, device: str = "cpu"):
        """Memory that all programs of the session on a device share: what one leaves there no other reads."""
        arena = self.arenas.get(device)
        if arena is None or arena.size < nbytes:
            arena = self.arenas[device] = Arena(nbytes, device)
        return arena

    def failed(self, rows: list[SessionRow], at: SessionRow) -> None:
        """A segment's run failed at a row: what it was to compute has no value, and what was done after that row was not."""
        self.lost += rows
        while self.undo and self.undo[-1][0].depth >= at.depth:
            _, action, what = self.undo.pop()
            action(what)

    def take_back(self, gradients: list[tuple]) -> None:
        """Give leaves the gradients that they had."""
        for leaf, before in gradients:
            if type(before) is Value:
                if before.handle.value is before and before.buffer is not None and before.base is None:
                    before.handle.address, before.parked = before.buffer.address, True
                leaf.grad = before.handle
            else:
                leaf.grad = before.tensor if type(before) is Slot else before

    def dropping(self, leaves) -> None:
        """Gradients are about to be dropped."""
        if self.replaying:
            held = [leaf for leaf in leaves if leaf.grad is not None]
            if held:
                # values rather than handles where these are the session's, or they would count as held
                had = [(f, f.grad.value if type(f.grad.value) is Value else f.grad) for f in held]
                self.undo.append((self.cursor.next.prev, self.take_back, had))

    def rename(self, t: Tensor) -> None:
        """The code made a leaf of a handle, or the reverse."""
        self.usual = False
        self.renamed.append(t)

    def check_slots(self, t: Tensor | None = None) -> None:
        """Leaves have changed, or t has: see which slots no longer hold what was recorded."""
        self.slots_changed, self.usual = True, False
        self.graph_changes += 1
        self.written = None
        for slot in self.slots:
            if t is None or slot.tensor is t:
                slot.check()

    def part_with(self, v: Value) -> None:
        """Make a value's handle a tensor of its own."""
        keep.part_with(self, v, 0)


class Arena:
    """A buffer and its size."""

    def __init__(self, nbytes: int, device: str):
        self.size = nbytes
        self.buffer = eager.allocate(nbytes, "a session's intermediate values", device)
        self.address = self.buffer.address


def stands_at(row, args: tuple) -> bool:
    """True where the row's arguments are just these."""
    wanted = row.args
    if len(wanted) != len(args):
        return False
    for a, b in zip(args, wanted):  # noqa: SIM110  a generator costs twice as much
        if a is not b:
            return False
    return True


def overlaps(a, t: Tensor) -> bool:
    """True where an argument shows part of a target's memory, but not just its elements."""
    return type(a) is Tensor and a is not t and type(a.value) is not int and getattr(a.value, "root", None) is t.buffer
