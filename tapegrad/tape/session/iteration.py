"""Session: one iteration that repeats. See docs/design/sessions.md."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import config
from ...errors import TapeError
from ...layouts import Layout
from ...ops import random, registry
from ...ops.registry import Op
from .. import apply as eager
from .. import assign
from ..create import fill_from
from ..pool import POOL
from ..state import line_of, local, order, user_place
from ..tensor import Leaf, Made, Tensor, leaf_changes, passes
from . import keep, match, record, run
from .rows import DRAW, FRESH, MODE, OP, STEP, VIEW, Cursor, End, SessionRow, Slot, Span, Value, tensor_of
from .stats import Counts, Stats, explain, figures, trace

VARIANTS = 8  # recorded paths that a session keeps
MOST_ROWS = 200_000  # of one pass; what is longer runs eagerly
WINDOW = (
    32  # of so many passes half may be recordings; with more, the session runs eagerly for a while, each time longer
)
BACKWARD = "backward"


class Session:
    """An iteration that repeats: its body is recorded once, then matched, and what it computes runs as compiled code.

    Use it as `with session:` around the body, or as a decorator. The Python code of the body runs every time; every value is
    what eager execution gives. Nothing runs before a value is needed, or the body ends.

    >>> import tapegrad as tg
    >>> x, total = tg.tensor([1.0, 2.0]), 0.0
    >>> session = tg.Session()
    >>> for i in range(4):
    ...     with session:
    ...         y = (x * i).sum()
    ...     total += y.item()
    >>> total, session.stats.replays
    (18.0, 3)
    """

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
        self.cursor.next = End(None)
        self.ends: list[End] = []
        self.slots: list[Slot] = []
        self.slots_here: dict[int, Slot] = {}
        self.seen_changes = leaf_changes[0]
        self.slots_changed = False
        self.graph_changes = 0
        self.stamp = self.first_pass = 0
        self.base = 0
        self.misses = self.seen = self.skip = 0  # recordings among so many passes; passes to run eagerly
        self.patience = 8 * WINDOW
        self.warned = False
        self.arena: Any = None
        self.executions: list = []  # of the latest pass that was matched
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
        self.gradients: list[keep.Gradients] = []  # of backwards that were matched as a whole
        self.collected: dict[Leaf, Any] = {}
        self.pass_rows = 0
        self.lost: list[SessionRow] = []
        self.looked = False  # the call that is matched row by row read elements
        self.entering: Span | None = None  # a call whose rows are matched one by one
        self.undo: list[tuple] = []  # (last row before it, what a matched call did besides computing, with what)
        self.renamed: list[Tensor] = []  # handles that the code made leaves of
        self.ran: list = []
        self.planned = False

    # entering and leaving

    def __enter__(self) -> Session:
        state = local.state
        if self.depth:
            if self.state is not state:
                raise TapeError(
                    f"a session was entered in thread {state.thread!r} while thread {self.state.thread!r} is inside it; "
                    "make a session for each thread"
                )
            self.depth += 1
            return self
        if not self.lock.acquire(blocking=False):
            raise TapeError("a session was entered by two threads at once; make a session for each thread")
        self.depth, self.state = 1, state
        registry.sessions_used = True
        if state.session is not None or state.anomaly or config.session_off():
            self.absorbed = 1
            return self
        if self.skip:
            self.skip -= 1
            self.absorbed = 1
            self.counts.iterations += 1
            self.counts.eager += 1
            return self
        self.start(state)
        return self

    def start(self, state) -> None:
        """Begin a pass."""
        self.begin()
        self.counts.iterations += 1
        passes[0] += 1
        self.stamp = self.first_pass = passes[0]
        self.base = order()
        state.session, state.moment = self, self.moment
        if self.seen_changes != leaf_changes[0]:
            self.seen_changes = leaf_changes[0]
            self.check_slots()
        self.settled = self.root
        if self.root.children:
            self.replaying = True
            self.cursor.next = self.root.next
        else:
            self.record_from(self.root)
        if not state.recording:
            self.mode(False)

    def __exit__(self, kind, error, _traceback) -> None:
        if not self.depth:
            raise TapeError("a session was left that was not entered; use it as `with session:`")
        if self.depth > 1:
            self.depth -= 1
            return
        try:
            if not self.absorbed and self.state.session is self:
                self.finish(failed=kind is not None)
        finally:
            if self.state.session is self:
                self.state.session = None
            if not self.absorbed:
                self.state.moment = None
            self.depth = self.absorbed = 0
            self.replaying = False
            self.slots_changed = False
            self.cursor.next = End(None)
            self.lock.release()

    def finish(self, failed: bool) -> None:
        """Run what is pending, hand out what is held, and count."""
        self.end = self.cursor.next
        try:
            if self.replaying:
                run.sync(self)
        finally:
            self.cursor.next = End(None)
            keep.finish(self)
            self.count(failed)

    def count(self, failed: bool) -> None:
        """Statistics, the variants' ages, and when to stop recording."""
        stats = self.counts
        self.seen += 1
        if self.seen > WINDOW:
            self.seen = self.misses = 0
        if self.planned or not self.replaying:
            stats.warm = POOL.allocations
        if self.ran:
            self.executions = self.ran
        if self.replaying or not self.pass_rows:
            stats.replays += 1
            end = self.end
            if type(end) is End:
                end.used = self.stamp
            return
        stats.recordings += 1
        end = self.tail.next
        if type(end) is End and end not in self.ends:
            end.used = self.stamp
            self.ends.append(end)
        self.ends = [e for e in self.ends if e.prev.next is e]
        while len(self.ends) > VARIANTS:
            oldest = min(self.ends, key=lambda e: e.used)
            self.ends.remove(oldest)
            record.prune(self, oldest)
        self.misses += 1
        if self.misses > WINDOW // 2:
            self.warn()
            self.misses = self.seen = 0
            self.skip = self.patience
            self.patience = min(4 * self.patience, 1 << 16)

    def warn(self) -> None:
        """Say once that the session keeps recording, and where the paths part."""
        if self.warned:
            return
        self.warned = True
        row = self.tail
        while row.prev is not None and len(row.prev.children) < 2:
            row = row.prev
        what = getattr(row.op, "title", getattr(row.op, "__name__", row.op)) or row.kind
        name, number = user_place() or ("", 0)
        warnings.warn_explicit(
            f"a session recorded {self.misses} of its last {self.seen} passes: at {what}, {line_of(row.place)}, they differ. "
            "Shapes, branches or arguments that change in every pass are best kept outside the session.",
            RuntimeWarning,
            name,
            number,
        )

    def __call__(self, fn: Callable) -> Callable:
        if not callable(fn):
            raise TypeError(f"session: wanted a function to decorate, not {fn!r}; use `with session:` around a block")

        @functools.wraps(fn)
        def wrapped(*args, **kwargs):
            with self:
                return fn(*args, **kwargs)

        wrapped.session = self  # type: ignore[attr-defined]
        return wrapped

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
        self.slots_here = {id(slot.tensor): slot for slot in self.slots if slot.first in path}

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

    def abandon(self) -> None:
        """Run the rest of the pass eagerly, unrecorded."""
        if self.replaying:
            self.diverge()
        self.state.session = self.state.moment = None
        self.finish(failed=False)
        self.absorbed = 1

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

    def call(self, op, args: tuple, kwargs: dict):
        """A call of an op from outside ops."""
        if self.inside:
            return op.run(args, kwargs)
        row = self.cursor.next
        if row.op is op and row.plain and not kwargs and len(args) == len(row.args):
            for given, wanted in zip(args, row.args):
                if given is not wanted:
                    break
            else:
                self.cursor.next = row.last.next
                return row.out if row.result is None else returned(row)
        if op.kind == "elementwise":
            return op.run(args, kwargs)
        return self.spanned(op, args, kwargs, op.run, args, kwargs)

    def spanned(self, op, args: tuple, kwargs: dict, fn: Callable, *given, closed: Callable | None = None):
        """A call that is matched as a whole where its arguments are what they were, else row by row."""
        if self.replaying:
            span = match.span_match(self, op, args, kwargs)
            if span is not None:
                return self.pass_over(span)
            span = match.span_to_enter(self, op, args)
            if span is not None:
                return self.enter_span(span, op, args, kwargs, fn, given, closed)
            self.diverge()
        span = record.open_span(self, op, args, kwargs)
        self.inside += 1
        done = False
        try:
            result = fn(*given)
            done = True
        finally:
            self.inside -= 1
            if not done or self.state.session is not self:
                self.span = None
        if self.span is span:
            record.close_span(self, span, result)
            if closed is not None:
                closed(span)
        return result

    def enter_span(self, span: Span, op, args: tuple, kwargs: dict, fn: Callable, given, closed: Callable | None):
        """Match the rows of a call one by one; numbers in them become those of these arguments."""
        for case in span.cases:
            case.current = case.plain = False
        self.cursor.next = span.next
        self.entered = True
        self.inside += 1
        changes = self.graph_changes
        self.looked = False
        self.entering = case = Span(self, op, span.prev, args, kwargs)
        case.start, case.cases = span, []
        done = False
        try:
            result = fn(*given)
            done = True
        finally:
            self.inside -= 1
            self.entering = None
            if not done:
                self.span = None
        if self.state.session is not self:
            return result
        if self.replaying:
            last = self.cursor.next.prev
            for known in span.cases:
                if known.last is last:
                    self.renew(known, op, args, kwargs, changes)
                    return result
            self.tail = last
        span.cases.append(case)
        record.close_span(self, case, result)
        if self.looked:  # what it did may depend on the elements that it looked at
            case.skippable = case.plain = False
        if closed is not None:
            closed(case)
        if self.replaying and case.releases:
            self.spans.append(case)
        return result

    def renew(self, span: Span, op, args: tuple, kwargs: dict, changes: int) -> None:
        """A call went as it had gone before: its arguments, leaves and numbers are those of now."""
        if op is BACKWARD:
            record.renew_gradients(self, span)
        elif span.steady is not None:
            record.renew_step(self, span)
        span.version = changes
        span.current = match.new_constants(span, args, kwargs)
        record.settle_span(span)
        if span.releases:
            self.spans.append(span)

    def passable(self, span: Span) -> bool:
        """True where a backward may be passed over: its leaves' gradients and the graph below it are what they were."""
        if not (span.current and span.skippable) or (span.grads and span.version != self.graph_changes):
            return False
        if span.steady is not None and not span.steady.ready():
            return False
        for leaf, before in span.guards:  # noqa: SIM110  a generator costs twice as much
            if leaf.grad is not (before if before is None else tensor_of(before)):
                return False
        return True

    def pass_over(self, span: Span):
        """Match a call as a whole."""
        for row in span.draws:
            self.redraw(row)
        if span.gradients is not None:
            self.undo.append((span, self.take_back, span.guards))
            span.gradients.give(self)
            self.gradients.append(span.gradients)
        if span.releases:
            self.spans.append(span)
        if span.steady is not None:
            span.steady.advance()
            self.undo.append((span, span.steady.take_back, None))
            record.mark_all(span)
        self.cursor.next = span.last.next
        return span.out if span.result is None else returned(span)

    def subscript(self, index: Callable, x: Tensor, key):
        """`x[key]`, which is `index(x, key)`."""
        if self.inside:
            return index(x, key)
        row = self.cursor.next
        if row.op is index and row.plain and row.args[0] is x and match.same(key, row.args[1]):
            self.cursor.next = row.last.next
            return row.out
        return self.spanned(index, (x, key), {}, index, x, key)

    # leaves

    def fresh(self, array: np.ndarray, x: Layout, kind: str = FRESH) -> Tensor:
        """A tensor made from data: its elements are copied at once."""
        if self.replaying:
            row = match.kind_match(self, kind, x)
            if row is not None:
                self.cursor.next = row.next
                return self.filled(row, array)
            self.diverge()
        made = self.alone(eager.empty, x, "tensor")
        fill_from(made.address, x, array)
        record.fresh_row(self, made, kind)
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

        return self.fresh(state, layout((2,), int64, None, device), DRAW)

    def redraw(self, row: SessionRow) -> None:
        """The next draw, for a random op in a call that is passed over."""
        v = row.outs[0]
        fill_from(v.buffer.address, v.layout, random.next_state())  # type: ignore[union-attr]

    def mode(self, on: bool) -> None:
        """Recording of gradients was switched on or off."""
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
        return any(slot.written and slot.tensor.buffer is t.buffer for slot in self.slots)

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

    def memory(self, nbytes: int):
        """Memory that all programs of the session share: what one leaves there no other reads."""
        if self.arena is None or self.arena.size < nbytes:
            self.arena = Arena(nbytes)
        return self.arena

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

    def check_slots(self, t: Tensor | None = None) -> None:
        """Leaves have changed, or t has: see which slots no longer hold what was recorded."""
        self.slots_changed = True
        self.graph_changes += 1
        for slot in self.slots:
            if t is None or slot.tensor is t:
                slot.check()

    # backward

    def backward(self, t: Tensor, gradient, retain_graph: bool, sweep: Callable) -> None:
        """`Tensor.backward`."""
        if self.inside:
            sweep(t, gradient, retain_graph)
            return
        row = self.cursor.next
        if (
            row.op is BACKWARD
            and row.a is t
            and gradient is None
            and row.args[2] is retain_graph
            and self.passable(row)
        ):
            self.pass_over(row)
            return
        self.collected = {}
        args = (t, gradient, retain_graph)
        self.spanned(
            BACKWARD, args, {}, sweep, *args, closed=lambda span: record.close_backward(self, span, t, retain_graph)
        )

    def step(self, optimizer, run: Callable) -> None:
        """An optimizer's step. `run()` does it and returns its leaves and a function that says what else it did.

        That function takes the fresh values of the step and gives None, or an object with `ready()`, true where only numbers
        differ from what was recorded; `advance()`, which writes the next numbers into the memory of those values; and
        `take_back(_)`, which undoes what `advance` counted.
        """
        if self.inside:
            run()
            return
        row = self.cursor.next
        if row.op is optimizer and self.passable(row):
            self.pass_over(row)
            return
        did: list = []
        self.spanned(
            optimizer, (), {}, lambda: did.extend(run()), closed=lambda span: record.close_step(self, span, *did)
        )

    def accumulates(self, leaf: Leaf) -> None:
        """A backward is about to add to the leaf's gradient."""
        self.collected.setdefault(leaf, leaf.grad)

    def borrowed(self, t: Tensor) -> bool:
        """True where the tensor is no result of an op of this pass, with memory of its own, that a leaf could keep."""
        v = t.value
        if type(v) is Made and v.stamp == self.stamp and v.session is self:
            v = v.value
        return type(v) is not Value or v.base is not None or v.row.session is not self

    def part_with(self, v: Value) -> None:
        """Make a value's handle a tensor of its own."""
        keep.part_with(self, v, 0)

    # what users see

    def clear(self) -> None:
        """Forget everything recorded, and free its buffers."""
        if self.depth:
            raise TapeError("clear: the session is in use; call it after the `with` block")
        rows: list[SessionRow] = []
        stack = [self.root]
        while stack:
            row = stack.pop()
            rows.append(row)
            stack += row.children
        for row in rows:
            row.children = []
        record.forget(self, rows)
        self.reset()

    @property
    def stats(self) -> Stats:
        """Figures: iterations, replays, recordings, variants, rows, kernels, bytes and more."""
        return figures(self)

    def explain(self) -> str:
        """The plan of the latest pass, for a person."""
        return explain(self)

    def trace(self, path) -> None:
        """Write the times of each kernel of the latest pass, in the format that Chrome and Perfetto show."""
        trace(self, path)


def returned(span):
    """What a matched call gives back where that is several tensors."""
    kind, values = span.result
    return kind([x.handle if type(x) is Value else x.tensor for x in values])


class Arena:
    """A buffer and its size."""

    def __init__(self, nbytes: int):
        self.size = nbytes
        self.buffer = eager.allocate(nbytes, "a session's intermediate values")
        self.address = self.buffer.address


def overlaps(a, t: Tensor) -> bool:
    """True where an argument shows part of a target's memory, but not just its elements."""
    return type(a) is Tensor and a is not t and type(a.value) is not int and getattr(a.value, "root", None) is t.buffer


def session(fn: Callable) -> Callable:
    """A decorator: every call of the function is one pass of a session of its own, which is its attribute `session`."""
    return Session()(fn)


def warmup(fn: Callable, *args, passes: int = 3, **kwargs) -> Callable:
    """Call a function a few times in its session, so that what it needs is compiled, and stored for later processes.

    Returns the function as `session` decorates it. What the calls change stays changed: give a training step a copy of its
    model, or count the passes.

    >>> import tapegrad as tg
    >>> step = tg.warmup(lambda x: tg.exp(x) * 2.0, tg.ones(3))
    >>> step.session.stats.replays
    2
    """
    step = fn if isinstance(getattr(fn, "session", None), Session) else session(fn)
    for _ in range(passes):
        step(*args, **kwargs)
    return step
