"""Running what was matched: which values somebody still holds, the plan for them, one call of the sweep.

A segment is a run of rows between two syncs. The values of it that are needed after it, because somebody holds them or
because a backward may still ask for them, get memory of their own; the others are the plan's to place, or to fuse away. A
segment runs row by row the first time that just these values are needed, and from a plan from then on.
"""

from __future__ import annotations

from typing import Any

from ...errors import TapeError, TapegradError
from .. import apply as eager
from .. import assign
from ..spaces import get, put
from ..state import line_of
from ..tensor import Tensor
from .record import mark
from .rows import ASSIGN, DRAW, FRESH, OP, End, SessionRow, Span
from .spans import rows_of
from .translate import outside, planned_for, planned_on, translate
from .values import Slot, Value, refs, tensor_of

PLANS = 4  # of a segment, for different sets of values that are needed


class Seen:
    """Values whose handles may have left the session, and what getrefcount said of them when they were last looked at."""

    __slots__ = ("counts", "execution", "handles", "values")

    def __init__(self, values: list[Value]):
        self.values = values
        self.handles: list[Tensor] = [v.handle for v in values]
        for i, v in enumerate(values):
            v.use(self.handles, i)
        self.counts: list[int] | None = None
        self.execution: Any = None

    def held(self) -> tuple[int, ...]:
        """Places of the values that somebody holds."""
        counts = list(map(refs, self.handles))
        return tuple([i for i, (n, v) in enumerate(zip(counts, self.values)) if n > v.idle])


class Segment:
    """The rows between two syncs."""

    __slots__ = ("assigned", "device", "everything", "executions", "rows", "visible")

    def __init__(self, rows: list[SessionRow]):
        self.rows = rows
        inner: set[SessionRow] = set()
        for row in rows:
            for case in row.closing:
                if case.skippable:
                    inner.update(rows_of(case))
        makes = [v for row in rows for v in row.outs]
        results = {x for row in rows for case in row.closing for x in results_of(case)}
        leaves = {v for row in rows for case in row.closing for _, v in case.grads}
        shown = [v for v in makes if v.row not in inner or v in results]
        self.everything = Seen(makes)
        # gradients last: where they cover their leaves, nobody can hold one
        self.visible = Seen([v for v in shown if v not in leaves] + [v for v in shown if v in leaves])
        self.executions: dict[tuple, Execution] = {}
        self.assigned = [row for row in rows if row.kind == ASSIGN]
        self.device = planned_for(self)


def results_of(span: Span):
    """The values that a matched call gives out."""
    for x in span.linked:
        if type(x) is Value:
            yield x
    if span.result is not None:
        yield from (x for x in span.result[1] if type(x) is Value)
    yield from (v for _, v in span.grads)


def rows_between(start: SessionRow, stop: SessionRow) -> list[SessionRow]:
    """Rows after `start` up to `stop`, in order."""
    found = []
    row: Any = stop
    while row is not start:
        found.append(row)
        row = row.prev
    found.reverse()
    return found


def sync(s) -> None:
    """Run what is pending."""
    start, stop = s.settled, s.cursor.next.prev
    if start is stop:
        return
    segment = stop.segments.get(start)
    if segment is None:
        segment = stop.segments[start] = Segment(rows_between(start, stop))
    for g in s.gradients:
        g.cover.lift()
    s.usual = False
    seen = segment.everything if s.entered else segment.visible
    s.settled = stop
    counts = list(map(refs, seen.handles))
    if counts == seen.counts:
        execution = seen.execution
    else:
        held = tuple([v for n, v in zip(counts, seen.values) if n > v.idle])
        execution = find(s, segment, held)
        seen.counts, seen.execution = counts, execution
    s.ran.append(execution)
    try:
        execution.run(s, type(s.cursor.next) is End)
    except BaseException as error:
        explain_failure(s, execution, error)
        raise


def explain_failure(s, execution: Execution, error: BaseException) -> None:
    """Say where in the code the op was called, and take back what a run that failed there has not done."""
    s.failed(execution.segment.rows, execution.at)
    if isinstance(error, TapegradError):
        error.add_note(f"the op was called at {line_of(execution.at.place)}")


def find(s, segment: Segment, held: tuple[Value, ...]) -> Execution:
    """How to run the segment so that these values, and what a backward below them reads, are there afterwards."""
    key = (held, tuple([span.depth for span in s.spans]), len(s.released))
    found = segment.executions.get(key)
    if found is None:
        if len(segment.executions) >= PLANS:
            del segment.executions[next(iter(segment.executions))]
        found = segment.executions[key] = Execution(s, segment, held)
    return found


def needed(s, segment: Segment, held: tuple[Value, ...]) -> list[Value]:
    """The values with memory of their own after the segment: those held, and those that an unreleased graph saved."""
    wanted: dict[Value, None] = {}
    here = set(segment.rows)

    def want(x) -> None:
        if type(x) is Value:
            if x.row in here:
                wanted[x] = None
            if type(x.base) is Value and x.base.row in here:
                wanted[x.base] = None

    for v in held:
        want(v)
    stack = [v.row for v in held if v.row.tracked]
    seen = set(stack)
    while stack:
        row = stack.pop()
        released = row.released  # a backward that is under way has released the first rows, but not those below
        keeps, output = row.saved
        for x, k in zip(row.operands, keeps):
            if k and not released:
                want(x)
            if type(x) is Value and x.row.tracked and x.row not in seen:
                seen.add(x.row)
                stack.append(x.row)
        if output and not released:
            for v in row.outs:
                want(v)
    return list(wanted)


class Execution:
    """One way to run a segment: row by row at first, by a program when it comes back."""

    def __init__(self, s, segment: Segment, held: tuple[Value, ...]):
        self.segment = segment
        self.held = held
        self.needed = needed(s, segment, held)
        self.inputs = outside(segment)
        self.fill = [v for v in self.needed if v.base is None and v.row.kind not in (FRESH, DRAW)]
        self.views = [v for v in self.needed if v.base is not None]
        self.program: Any = None
        self.at = segment.rows[0]  # where the last run failed
        self.plan: Any = None
        self.by_rows = segment.device is None
        self.together: list = []
        self.single: list[Value] = []
        self.runs = 0
        self.stamp = 0
        self.bound: list = []  # (place in the program, value, address that it is bound to)
        self.mobile: list = []
        self.places: dict[Slot, list] = {}  # the same by slot

    def own(self) -> None:
        """Tell the needed values who computes them."""
        for v in (*self.fill, *self.views):
            v.made_by = self

    def run(self, s, whole: bool) -> None:
        """Run the rows; `whole`: they are all that the pass was when it was recorded, so they have come back."""
        self.runs += 1
        for v in self.fill:
            if v.made_by is not self:
                self.own()
                break
        for v in self.inputs:
            if v.made_by is None or v.made_by.stamp != s.stamp:
                raise TapeError(
                    f"a value of shape {v.layout.shape}, result of {v.row.op.title}, was not computed, because an op before it failed in "
                    "this pass of the session"
                )
        if self.program is None and (self.runs > 1 or whole) and not self.by_rows:
            self.prepare(s)
        if self.program is None:
            self.interpret(s)
        else:
            self.sweep(s)

    def settle(self, s) -> None:
        """Let the handles of the needed values show their memory."""
        self.stamp = s.stamp
        for v in self.fill:
            v.handle.address = v.buffer.address  # type: ignore[union-attr]
        done = s.computed
        if s.gradients:
            if s.gradients != self.together:  # what a matched backward set is looked at together
                self.together = list(s.gradients)
                kept = {v for g in s.gradients for v in g.values}
                self.single = [v for v in self.fill if v not in kept]
            done += self.single
        else:
            done += self.fill
        for v in self.views:
            h, base = v.handle, v.base
            t = tensor_of(base)
            h.buffer, h.address = t.buffer, t.address + v.offset
        done += self.views

    # row by row

    def interpret(self, s) -> None:
        """Run the rows through the kernels of eager ops."""
        made: dict[Value, Tensor] = {}
        state = s.state
        before, state.recording, state.session = state.recording, False, None
        try:
            for row in self.segment.rows:
                self.at = row
                if row.kind == OP:
                    inputs = tuple([self.tensor(x, made) for x in row.operands])
                    if row.op.kind == "elementwise" and not row.attrs:
                        results = eager.elementwise(row.op, inputs)
                    else:
                        results = eager.apply(row.op, inputs, row.attrs or {})
                    for v, t in zip(row.outs, results if type(results) is tuple else (results,)):
                        made[v] = t
                elif row.kind == ASSIGN:
                    targets = tuple([slot.tensor for slot in row.targets])
                    assign.update(targets, row.op, tuple([self.tensor(x, made) for x in row.operands]))
                    mark(row)  # it was written where it stands, not where it is run
        finally:
            state.recording, state.session = before, s
        for v in self.fill:
            v.buffer = made[v].buffer
            v.handle.buffer = v.buffer
        self.settle(s)

    def tensor(self, x, made: dict[Value, Tensor]) -> Tensor:
        """An operand as a tensor that has its elements."""
        if type(x) is not Value:
            return x.tensor
        if x.base is not None:
            base = self.tensor(x.base, made)
            return Tensor(base.buffer, base.address + x.offset, x.layout)
        if x in made:
            return made[x]
        return Tensor(x.buffer, x.buffer.address, x.layout)  # type: ignore[union-attr,arg-type]

    # from a plan

    def prepare(self, s) -> None:
        """Plan the rows for these needed values."""
        s.planned = True
        rows, fixed = translate(self.segment, set(self.needed))
        device = self.segment.device
        assert device is not None  # by_rows otherwise
        if device == "cpu":
            from ...plan.planner import plan
            from ...plan.program import Program  # loads llvmlite and BLAS

            self.plan = plan(rows)
            self.program = Program(self.plan, s.memory)
        else:
            self.plan, self.program = planned_on(device, rows, s)
        for x, number in fixed:
            if type(x) is Value:
                self.bound.append([number, x, None])
            elif type(x) is Slot:
                self.mobile.append([number, x, None])
                self.places[x] = self.mobile[-1]
            else:
                self.program.bind(number, x.tensor.address)

    def sweep(self, s) -> None:
        """Run the program."""
        self.bind(s)
        status = self.program.run()
        if status:
            self.fail(s, status)
        self.settle(s)

    def bind(self, s) -> None:
        """Tell the program where the needed values and the slots' tensors lie now."""
        self.bind_values()
        for entry in self.mobile:
            t = entry[1].tensor
            if t is not entry[2] or s.slots_changed:
                self.program.bind(entry[0], t.address)
                entry[2] = t

    def bind_values(self) -> None:
        """Tell the program where the needed values lie now."""
        program = self.program
        for v in self.fill:
            if v.buffer is None:
                v.buffer = eager.allocate(v.layout.nbytes, "a value of a session", v.layout.device)
                v.handle.buffer = v.buffer
        for entry in self.bound:
            address = entry[1].buffer.address
            if address != entry[2]:
                program.bind(entry[0], address)
                entry[2] = address

    def rebind(self, slots: list[Slot]) -> None:
        """Tell the program where other tensors lie that took these slots."""
        for slot in slots:
            entry = self.places.get(slot)
            if entry is not None:
                t = entry[2] = slot.tensor
                self.program.bind(entry[0], t.address)

    def timed(self, s) -> list[tuple[str, int, int]]:
        """(title, start, nanoseconds) of each kernel, in a run that leaves everything as it was."""
        self.bind(s)
        device = self.segment.device or "cpu"
        fixed = [(t.address, t.layout.nbytes) for t in (e[1].tensor for e in self.mobile) if t.layout.contiguous]
        fixed += [(v.buffer.address, v.layout.nbytes) for v in (e[1] for e in self.bound)]
        before = [get(device, address, nbytes) for address, nbytes in fixed]
        try:
            return self.program.run_timed()
        finally:
            for (address, _), data in zip(fixed, before, strict=True):
                put(device, address, data)

    def fail(self, s, status: int) -> None:
        """Raise what a kernel reported, naming the op and its line."""
        record = self.program.failed
        rows = [r for r in self.segment.rows if r.kind in (OP, ASSIGN)]
        row = self.at = rows[record.rows[0]]
        inputs = tuple(
            Tensor(None, self.program.address(n), self.plan.values[n].layout)  # type: ignore[arg-type]
            for n in record.values[: len(row.operands)]
        )
        eager.fail(row.op, status, inputs)
