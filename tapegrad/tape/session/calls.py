"""Calls that are matched as a whole: composites, subscripts, a backward, an optimizer's step."""

from __future__ import annotations

from collections.abc import Callable

from ..assign import latest
from ..reverse import backward as sweep
from ..tensor import Leaf, Made, Row, Tensor
from . import match, spans
from .following import Following
from .rows import SPAN, STEP, Span
from .values import Value, tensor_of

BACKWARD = "backward"


class Calls(Following):
    """The part of a session that compares calls of several rows with what was recorded of them."""

    def call(self, op, args: tuple, kwargs: dict):
        """A call of an op from outside ops."""
        if self.inside:
            return op.run(args, kwargs)
        cursor = self.cursor
        row = cursor.next
        if row.op is op and not kwargs:
            row = row.likely
            if row.plain and len(args) == len(row.args):
                for given, wanted in zip(args, row.args):
                    if given is not wanted:
                        break
                else:
                    cursor.next = row.last.next
                    return row.out if row.result is None else returned(row)
                if row.kind == SPAN and match.rebound(self, row, args):
                    cursor.next = row.last.next
                    return row.out if row.result is None else returned(row)
        if op.kind == "elementwise":
            return op.run(args, kwargs)
        return self.spanned(op, args, kwargs, op.run, args, kwargs)

    def spanned(self, op, args: tuple, kwargs: dict, fn: Callable, *given, closed: Callable | None = None):
        """A call that is matched as a whole where its arguments are what they were, else row by row."""
        if self.replaying:
            span = match.span_match(self, op, args, kwargs) or match.span_rebound(self, op, args, kwargs)
            if span is not None:
                return self.pass_over(span)
            span = match.span_to_enter(self, op, args)
            if span is not None:
                return self.enter_span(span, op, args, kwargs, fn, given, closed)
            self.diverge()
        span = spans.open_span(self, op, args, kwargs)
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
            spans.close_span(self, span, result)
            if closed is not None:
                closed(span)
        return result

    def enter_span(self, span: Span, op, args: tuple, kwargs: dict, fn: Callable, given, closed: Callable | None):
        """Match the rows of a call one by one; numbers in them become those of these arguments."""
        for case in span.cases:
            case.current = case.plain = False
        self.cursor.next = span.next
        self.entered, self.usual = True, False
        self.inside += 1
        changes = self.graph_changes
        self.looked = self.below = False
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
                    span.likely = known
                    self.renew(known, op, args, kwargs, changes)
                    return result
            self.tail = last
        span.cases.append(case)
        span.likely = case
        spans.close_span(self, case, result)
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
            spans.renew_gradients(self, span)
        elif span.steady is not None and span.skippable:
            spans.renew_step(self, span)
        span.version = changes
        span.current = match.new_constants(span, args, kwargs)
        spans.settle_span(span)
        if span.releases:
            self.spans.append(span)

    def passable(self, span: Span) -> bool:
        """True where a backward may be passed over: its leaves' gradients and the graph below it are what they were."""
        if not (span.current and span.skippable) or (span.grads and span.version != self.graph_changes):
            return False
        if span.steady is not None:
            if not span.steady.ready():
                return False
            if self.same_gradients(span):
                return True
        for leaf, before in span.guards:  # noqa: SIM110  a generator costs twice as much
            if leaf.grad is not (before if before is None else tensor_of(before)):
                return False
        return True

    def pass_over(self, span: Span):
        """Match a call as a whole."""
        for row in span.draws:
            self.redraw(row)
        if span.gradients is not None:
            self.usual = False
            self.undo.append((span, self.take_back, span.guards))
            span.gradients.give(self)
            self.gradients.append(span.gradients)
        if span.releases:
            self.spans.append(span)
        if span.steady is not None:
            span.steady.advance()
            self.undo.append(span.undoing)
            spans.mark_all(span)
            if span.reads is None:
                spans.settle_step(self, span)
        self.cursor.next = span.last.next
        return span.out if span.result is None else returned(span)

    def subscript(self, index: Callable, x: Tensor, key):
        """`x[key]`, which is `index(x, key)`."""
        if self.inside:
            return index(x, key)
        row = self.cursor.next
        if row.op is index:
            row = row.likely
            if row.plain and row.args[0] is x and match.same(key, row.args[1]):
                self.cursor.next = row.last.next
                return row.out
        return self.spanned(index, (x, key), {}, index, x, key)

    # backward

    def backward(self, t: Tensor, gradient, retain_graph: bool) -> None:
        """`Tensor.backward`."""
        if self.inside:
            sweep(t, gradient, retain_graph)
            return
        row = self.cursor.next
        if row.op is BACKWARD:
            row = row.likely
            if row.a is t and gradient is None and row.args[2] is retain_graph:
                if row.fresh and row.current and row.version == self.graph_changes:
                    cover = row.gradients.cover
                    if cover.on and cover.gradients is None:
                        cover.gradients, cover.pending = row.gradients, True
                        self.gradients.append(row.gradients)
                        self.undo.append(row.undoing)
                        if row.releases:
                            self.spans.append(row)
                        self.cursor.next = row.last.next
                        return
                if self.passable(row):
                    self.pass_over(row)
                    return
        self.collected = {}
        args = (t, gradient, retain_graph)
        self.spanned(
            BACKWARD, args, {}, sweep, *args, closed=lambda span: spans.close_backward(self, span, t, retain_graph)
        )

    def step(self, optimizer) -> None:
        """An optimizer's step. `optimizer.recorded()` does it and returns its leaves and a function that says what else it did.

        That function takes the fresh values of the step and gives None, or an object with `ready()`, true where only numbers
        differ from what was recorded; `advance()`, which writes the next numbers into the memory of those values; `again()`,
        which does both where the first takes no closer look; and `take_back(_)`, which undoes what `advance` counted.
        """
        if self.inside:
            optimizer.recorded()
            return
        row = self.cursor.next
        if row.op is optimizer:
            row = row.likely
            if row.current and row.skippable and self.same_gradients(row) and row.steady.again():
                last = row.assigns[-1]
                if latest[0] is last.note:
                    last.note[0] = self.base + last.depth * STEP  # its number
                else:
                    spans.mark_all(row)
                self.undo.append(row.undoing)
                self.cursor.next = row.last.next
                return
            if self.passable(row):
                self.pass_over(row)
                return
        did: list = []
        self.spanned(
            optimizer,
            (),
            {},
            lambda: did.extend(optimizer.recorded()),
            closed=lambda span: spans.close_step(self, span, *did),
        )

    def same_gradients(self, span: Span) -> bool:
        """True where a step's leaves are covered, so that their gradients are surely those that the step read."""
        reads = span.reads
        if reads is None or reads.cover.gradients is None:
            return False
        for leaf in span.others:  # noqa: SIM110  a generator costs twice as much
            if leaf.own is not None or leaf.cover is not None:
                return False
        return True

    def sweeps(self, rows: list) -> None:
        """A backward is about to go through these rows.

        Of those that were recorded before the pass, the values may be released or overwritten when the call comes again, so it
        is not passed over then: each row is asked.
        """
        if any(type(row) is Row and row.number < self.base for row in rows):
            self.below = True

    def accumulates(self, leaf: Leaf) -> None:
        """A backward is about to add to the leaf's gradient."""
        self.collected.setdefault(leaf, leaf.grad)

    def borrowed(self, t: Tensor) -> bool:
        """True where the tensor is no result of an op of this pass, with memory of its own, that a leaf could keep."""
        v = t.value
        if type(v) is Made and v.stamp == self.stamp and v.session is self:
            v = v.value
        return type(v) is not Value or v.base is not None or v.row.session is not self


def returned(span):
    """What a matched call gives back where that is several tensors."""
    kind, values = span.result
    return kind([x.handle if type(x) is Value else x.tensor for x in values])
