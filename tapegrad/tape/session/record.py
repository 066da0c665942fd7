"""Recording: what a call computed eagerly is written down as a row, so that the next pass can match it."""

from __future__ import annotations

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
from .rows import ASSIGN, FRESH, MODE, OP, VIEW, End, Listed, SessionRow
from .values import Scalar, Slot, Value, root_of


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


def mode_row(s, on: bool | str) -> None:
    row = append(s, SessionRow(s, MODE, None, s.tail))
    row.mode = on


# calls that are matched as a whole


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
