"""Recording: what a call computed eagerly is written down as a row, so that the next pass can match it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np

from ...ops.registry import Op
from ..apply import allocate, contiguous_copy
from ..assign import latest
from ..create import fill_from
from ..pool import Buffer, writes
from ..spaces import copied, numbers_of
from ..state import user_place
from ..tensor import CONSTANT, Made, Row, Tensor
from .rows import ASSIGN, DRAW, FRESH, MODE, OP, VIEW, End, Listed, Scalar, SessionRow, Slot, Span, Value, root_of


def append(s, row: SessionRow) -> SessionRow:
    """Put a row behind the last one."""
    prev = s.tail
    prev.children.append(row)
    prev.next = row
    s.tail = row
    row.place = user_place()
    s.pass_rows += 1
    return row


def operand(s, t: Tensor, row: SessionRow):
    """The value of this pass, or the slot, that a tensor stands for."""
    stands_for = t.value
    if type(stands_for) is Made:
        if stands_for.stamp == s.stamp and stands_for.session is s:
            return stands_for.value
    elif type(stands_for) is Value and stands_for.handle is t and stands_for.row.session is s:
        if not stands_for.parked:
            return stands_for
        s.part_with(stands_for)
    return slot_of(s, t, row)


def slot_of(s, t: Tensor, row: SessionRow) -> Slot:
    """The slot of this path that holds t, or a new one."""
    if t.value is CONSTANT:  # other reads of it may want another number in the next pass
        found = Slot(t, row, volatile=False)
        s.slots.append(found)
        return found
    found = s.slots_here.get(id(t))
    if found is None or found.tensor is not t or found.node is not t.node:
        born = t.value if type(t.value) is int else 0
        made = Slot(t, row, volatile=born >= s.first_pass)
        if found is not None and found.tensor is t:  # frozen or unfrozen on the way: two slots, one tensor, for good
            found.bindable = made.bindable = False
        found = s.slots_here[id(t)] = made
        s.slots.append(found)
    if found.volatile and s.span is not None:
        s.span_opaque = True
    return found


def op_row(s, op: Op, args: tuple, inputs: tuple[Tensor, ...], attrs: dict | None, results, kind: str) -> None:
    """Write down an op that was computed."""
    results = results if type(results) is tuple else (results,)
    row = SessionRow(s, kind, op, s.tail, tracked=results[0].node is not None)
    row.attrs = attrs
    operands: list[Any] = []
    for t in inputs:
        operands.append(operand(s, t, row))
    row.operands = tuple(operands)
    append(s, row)
    base, offset = None, 0
    if kind == VIEW:
        source = operands[0]
        base, start = root_of(source), inputs[0].address
        offset = results[0].address - start + (source.offset if type(source) is Value else 0)
    for index, t in enumerate(results):
        value = Value(row, index, t.layout, base, offset)
        row.outs.append(value)
        stand_for(s, t, value)
    if s.span is None:
        compare(row, args)
    give_out(row)


def number(s, given, t: Tensor) -> Tensor:
    """A tensor for the eager op of a Python number; what it stands for has memory that is written when the number changes."""
    x = t.layout
    buffer = numbers_of(x.device).allocate(x.nbytes, "a number of a session")
    own = Scalar(given, Tensor(buffer, buffer.address, x))
    own.write(given)
    return stand_in(s, own)


def stand_in(s, x: Scalar) -> Tensor:
    """A tensor with the number that x has in this pass."""
    made = s.alone(contiguous_copy, x.tensor)
    made.value = Made(x, s)
    return made


def stand_for(s, t: Tensor, value: Value) -> None:
    """Remember which value a computed tensor is."""
    t.value = made = Made(value, s)
    node = t.node
    if (
        type(node) is Row
        and node.output is not None
        and len(node.output) > value.index
        and len(node.output[value.index]) == 3
    ):
        node.output = tuple((*saved, made) if i == value.index else saved for i, saved in enumerate(node.output))


def compare(row: SessionRow, args) -> None:
    """Set what the row is compared with: the arguments as the next pass will give them."""
    row.args = [None] * len(args)
    for i, (given, x) in enumerate(zip(args, row.operands, strict=False)):
        if type(x) is Scalar:
            row.args[i] = given
        else:
            row.link(x, row.args, i)
    for name, i in (("a", 0), ("b", 1)):
        if i < len(args):
            x = row.operands[i]
            if type(x) is Scalar:
                setattr(row, name, args[i])
            else:
                row.link(x, row, name)


def give_out(row: SessionRow) -> None:
    """Set what a matched call returns."""
    if len(row.outs) == 1:
        row.link(row.outs[0], row, "out")
        row.plain = row.kind == OP and bool(row.args)


def fresh_row(s, t: Tensor, kind: str = FRESH, numbers: np.ndarray | None = None) -> None:
    """Write down a tensor that was made from data; from `numbers`, where nothing but such data is ever written to it."""
    row = append(s, SessionRow(s, kind, None, s.tail))
    value = Value(row, 0, t.layout)
    row.outs = [value]
    x = t.layout
    if numbers is not None:
        give_memory(value, numbers_of(x.device).allocate(x.nbytes, "a number of a session"))
        fill_from(value.handle.address, x, numbers)
    else:
        give_memory(value)
        copied(x.device, value.handle.address, t.address, x.nbytes)
    stand_for(s, t, value)
    give_out(row)


def give_memory(value: Value, buffer: Buffer | None = None) -> None:
    """Memory of its own for a value's handle."""
    value.buffer = buffer or allocate(value.layout.nbytes, "a value of a session", value.layout.device)
    value.handle.buffer = value.buffer
    value.handle.address = value.buffer.address


def assign_row(s, op: Op, targets: tuple[Tensor, ...], args: tuple, inputs: tuple[Tensor, ...]) -> None:
    """Write down an assignment that was done."""
    row = SessionRow(s, ASSIGN, op, s.tail)
    row.operands = tuple([operand(s, t, row) for t in inputs])
    row.targets = tuple(operand(s, t, row) for t in targets)
    append(s, row)
    for slot in row.targets:
        slot.written = True
    s.written = None
    row.args = list(args)
    row.note = [0, row.place]


def mark(row: SessionRow) -> None:
    """Note when an assignment's targets were written."""
    row.note[0] = row.number  # type: ignore[index]
    latest[0] = None
    for slot in row.targets:
        writes[slot.tensor.buffer.address] = row.note  # type: ignore[assignment]


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


def mode_row(s, on: bool | str) -> None:
    row = append(s, SessionRow(s, MODE, None, s.tail))
    row.mode = on


# calls that are matched as a whole


def open_span(s, op, args: tuple, kwargs: dict) -> Span:
    """Begin a call."""
    span = Span(s, op, s.tail, args, kwargs)
    append(s, span)
    s.span, s.span_opaque = span, False
    return span


def close_span(s, span: Span, result) -> None:
    """End a call: from now on it is matched as a whole, unless it depends on more than its arguments."""
    span.last = s.tail
    span.last.closing.append(span)
    span.current = True
    span.version = s.graph_changes
    ok = not s.span_opaque and set_arguments(s, span) and set_result(s, span, result) and not s.span_opaque
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


# forgetting


def prune(s, end: End) -> None:
    """Forget the variant that ends there: its rows up to the last that another variant shares."""
    row = end.prev
    gone: list[SessionRow] = []
    while row.prev is not None and not row.children:
        above = row.prev
        above.children.remove(row)
        gone.append(row)
        if above.next is row:
            above.next = above.children[-1] if above.children else End(above)
        row = above
    forget(s, gone)


def forget(s, gone: list[SessionRow]) -> None:
    """Take back the references of rows that are no longer part of the session."""
    containers: set[int] = set()
    linked: set = set()
    closed = {span for row in gone for span in row.closing}
    for span in closed:
        if span in span.start.cases:
            span.start.cases.remove(span)
    for row in {*gone, *closed}:
        containers |= {id(row), id(row.args), *(id(a) for a in row.args if type(a) is Listed)}
        linked.update(row.linked)
        for segment in row.segments.values():
            for seen in (segment.visible, segment.everything):
                containers.add(id(seen.handles))
                linked.update(seen.values)
    for x in linked:
        x.uses = [(c, k) for c, k in x.uses if id(c) not in containers]
    dead = set(gone)
    s.slots = [slot for slot in s.slots if slot.first not in dead]
    s.written = None
    for span in closed:
        if span.gradients is not None:
            span.gradients.forget()
        span.linked, span.args, span.out = [], [], None
        span.skippable = span.plain = span.current = False
        span.result = span.steady = span.gradients = span.reads = span.undoing = None
        span.fresh, span.others, span.slots = False, [], {}
        span.draws, span.grads, span.guards, span.assigns, span.releases = [], [], [], [], frozenset()
        span.last = span.likely = span.start
        span.start.likely = span.start
    for row in gone:
        for v in row.outs:  # a value and its handle refer to each other
            v.handle.value, v.handle.trace = 0, None
            v.handle = v.buffer = v.spare = v.made_by = None  # type: ignore[assignment]
        for segment in row.segments.values():
            segment.executions.clear()
            segment.visible.execution = segment.everything.execution = None
        row.segments.clear()
        row.closing, row.linked, row.outs, row.args = [], [], [], []
        row.operands, row.targets, row.out = (), (), None
        row.next = row.prev = row.last = row.likely = None  # type: ignore[assignment]
