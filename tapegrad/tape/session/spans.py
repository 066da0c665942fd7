"""Recording calls that consist of several rows: composites, backwards, an optimizer's steps."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from ..assign import latest
from ..pool import writes
from ..tensor import Tensor
from .record import append, operand
from .rows import ASSIGN, DRAW, FRESH, Listed, SessionRow, Span
from .values import Slot, Value, root_of


def mark_all(span: Span) -> None:
    """Note when the targets of a step's assignments were written: in one note, which is renewed alone where nobody wrote since."""
    last = span.assigns[-1]
    note = last.note
    note[0] = last.number  # type: ignore[index]
    if latest[0] is not note:
        for row in span.assigns:
            for slot in row.targets:
                writes[slot.tensor.buffer.address] = note  # type: ignore[assignment]
        latest[0] = note


def open_span(s, op, args: tuple, kwargs: dict) -> Span:
    """Begin a call."""
    span = Span(s, op, s.tail, args, kwargs)
    append(s, span)
    s.span, s.span_opaque, s.below = span, False, False
    return span


def close_span(s, span: Span, result) -> None:
    """End a call: from now on it is matched as a whole, unless it depends on more than its arguments."""
    span.last = s.tail
    span.last.closing.append(span)
    span.current = True
    span.version = s.graph_changes
    ok = not (s.span_opaque or s.below) and set_arguments(s, span) and set_result(s, span, result) and not s.span_opaque
    s.span = None
    span.skippable = ok
    if not ok:
        return
    span.slots = {i: x for i, x in span.slots.items() if read_by_one_slot(span, x)}
    for row in rows_of(span):
        if row.kind == DRAW:
            span.draws.insert(0, row)
        if any(type(x) is Slot and x.volatile for x in row.operands):
            span.skippable = False
    settle_span(span)


def read_by_one_slot(span: Span, slot: Slot) -> bool:
    """True where the call reads, writes and returns the slot's tensor by this slot only, so that another tensor can take its place.

    A constant, and a tensor that a session handed out, has a slot of its own at each read.
    """
    several = span.result[1] if span.result is not None else ()
    rows = [x for row in rows_of(span) for x in (*row.operands, *row.targets)]
    return all(x is slot for x in (*span.linked, *several, *rows) if type(x) is Slot and x.tensor is slot.tensor)


def rows_of(span: Span):
    """The rows that a call recorded, last first."""
    row: Any = span.last
    while row is not span.start:
        yield row
        row = row.prev


def settle_span(span: Span) -> None:
    """See whether the call may be stepped over without further questions."""
    more = span.draws or span.grads or span.guards or span.releases or span.steady
    span.plain = span.skippable and span.current and not more


def set_arguments(s, span: Span) -> bool:
    """Compare later calls with these arguments; False where an argument may change without changing its identity."""
    given = span.args
    span.args = [None] * len(given)
    for i, a in enumerate(given):
        if type(a) is Tensor:
            x = argument(s, a, span)
            if type(x) is Slot and x.first.depth >= span.start.depth:
                span.slots[i] = x
            span.link(x, span.args, i)
            if i < 2:
                span.link(x, span, "a" if i == 0 else "b")
        elif is_constant(a):
            span.args[i] = a = deepcopy(a)  # a list may be changed by its owner
            if i < 2:
                setattr(span, "a" if i == 0 else "b", a)
        elif type(a) in (tuple, list) and all(type(t) is Tensor for t in a):
            span.args[i] = listed = Listed(a)
            for k, t in enumerate(a):
                span.link(argument(s, t, span), listed, k)
        else:
            return False
    # in two places, one of which may get another tensor: its rows would not tell them apart
    slots = [x for x in span.linked if type(x) is Slot]
    span.slots = {i: x for i, x in span.slots.items() if slots.count(x) == 1 + (i < 2)}
    return all(is_constant(a) for a in span.kwargs.values())


def argument(s, t: Tensor, span: Span):
    """What an argument of a call is: the slot by which its rows read it, where there is one."""
    for row in rows_of(span):
        for x in row.operands:
            if type(x) is Slot and x.tensor is t:
                return x
    return operand(s, t, span)


def is_constant(a) -> bool:
    """True of what cannot change, and is compared by what it is equal to."""
    from .match import CONSTANTS

    if type(a) is tuple or type(a) is list:
        return all(is_constant(x) for x in a)
    if type(a) is slice:
        return all(is_constant(x) for x in (a.start, a.stop, a.step))
    return type(a) in CONSTANTS


def set_result(s, span: Span, result) -> bool:
    """Say what a matched call returns; False where that is not made of this pass's values."""
    if result is None:
        return True
    if type(result) is Tensor:
        x = operand(s, result, span)
        if s.span_opaque or lies_in_data(span, x):
            return False
        span.link(x, span, "out")
        return True
    if type(result) in (tuple, list) and all(type(t) is Tensor for t in result):
        values = [operand(s, t, span) for t in result]
        if s.span_opaque or any(lies_in_data(span, x) for x in values):
            return False
        span.result = (type(result), values)
        return True
    return False


def lies_in_data(span: Span, x) -> bool:
    """True where x is data that was copied within the call: a matched call does not copy it again."""
    root = root_of(x)
    return type(root) is Value and root.row.kind == FRESH and root.row.depth > span.start.depth


def close_backward(s, span: Span, t: Tensor, retain_graph: bool) -> None:
    """What a backward did besides recording rows: the gradients that it set, and the values that it released."""
    for leaf, before in s.collected.items():
        x = operand(s, leaf.grad, span) if leaf.grad is not None else None
        if type(x) is not Value or x.base is not None or x.row.depth <= span.start.depth:
            span.skippable = False
            continue
        span.grads.append((leaf, x))
        span.guards.append((leaf, None if before is None else operand(s, before, span)))
    span.plain = False
    hold_gradients(s, span)
    settle_backward(s, span)
    x = operand(s, t, span)
    if type(x) is Value and not retain_graph:
        span.releases = frozenset(tracked_below(x.row))  # those it released while it was entered among them


def hold_gradients(s, span: Span) -> None:
    """Make ready to set a backward's gradients together."""
    from .gradients import Gradients

    if span.gradients is not None:
        span.gradients.forget()
    span.gradients = Gradients(s, span.grads) if span.grads else None


def settle_backward(s, span: Span) -> None:
    """See whether its leaves had no gradients before, and what to note when it is passed over."""
    span.fresh = bool(span.grads) and span.skippable and all(g is None for _, g in span.guards)
    span.undoing = (span, s.take_back, span.guards)


def settle_step(s, span: Span) -> None:
    """See whether all gradients that a step reads come from one backward of this pass."""
    for gradients in s.gradients:
        set_by = dict(gradients.were)
        if all(before is None or set_by.get(leaf) is before for leaf, before in span.guards):
            span.reads = gradients
            span.others = [leaf for leaf, before in span.guards if before is None]


def close_step(s, span: Span, leaves, steady) -> None:
    """What an optimizer's step did besides recording assignments: `steady(fresh rows)` says it, or None."""
    fresh: list[Value] = []
    for row in rows_of(span):
        if row.kind == FRESH:
            fresh.insert(0, row.outs[0])
        elif row.kind == ASSIGN:
            span.assigns.append(row)
    span.steady = steady(fresh)
    if span.steady is not None:
        span.undoing = (span, span.steady.take_back, None)
    span.plain = False
    for leaf in leaves:
        span.guards.append((leaf, None if leaf.grad is None else operand(s, leaf.grad, span)))
    span.assigns.reverse()
    span.skippable = span.skippable and span.steady is not None and bool(span.assigns)


def renew_gradients(s, span: Span) -> None:
    """The leaves that an entered backward found, which may be others than those recorded."""
    grads = [(leaf, leaf.grad.value if leaf.grad is not None else None) for leaf in s.collected]
    values = {v for _, v in span.grads}
    if len(grads) == len(span.grads) and all(v in values for _, v in grads):
        span.grads = grads
        hold_gradients(s, span)
        span.guards = [
            (leaf, None if before is None else operand(s, before, span)) for leaf, before in s.collected.items()
        ]
        settle_backward(s, span)


def renew_step(s, span: Span) -> None:
    """The leaves that an entered step found, which may be others than those recorded."""
    leaves = span.steady.renew()
    span.guards = [(leaf, None if leaf.grad is None else operand(s, leaf.grad, span)) for leaf in leaves]
    span.reads = None


def tracked_below(row: SessionRow) -> set[SessionRow]:
    """The rows of this session that a backward from `row` goes through."""
    found, stack = {row}, [row]
    while stack:
        for x in stack.pop().operands:
            if type(x) is Value and x.row.tracked and x.row not in found:
                found.add(x.row)
                stack.append(x.row)
    return found
