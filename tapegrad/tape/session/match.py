"""Matching: a call is compared with the row that the recording expects, first by identity, then at leisure.

What may differ: a Python number (another is written to its memory), a tensor from outside (another of the same layout takes
its slot, at the row that reads it first), the data of a fresh tensor. Anything else is another variant.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

from ...dtypes import DType
from ..tensor import Leaf, Made, Tensor
from .rows import ASSIGN, SPAN, VIEW, End, Listed, SessionRow, Span
from .values import NEVER, Scalar, Slot, Value

CONSTANTS = frozenset({int, float, bool, str, type(None), DType, type(Ellipsis), type, range})
NUMBERS = frozenset({int, float, bool})


def same(given, expected) -> bool:
    """True where an argument that is no tensor is what it was."""
    kind = type(given)
    if kind is not type(expected):
        return False
    if kind is tuple or kind is list:
        return len(given) == len(expected) and all(map(same, given, expected))
    if kind is slice:
        return same((given.start, given.stop, given.step), (expected.start, expected.stop, expected.step))
    if kind not in CONSTANTS:
        return given is expected and kind is not Tensor
    if kind is float:
        return given == expected and (given != 0.0 or math.copysign(1.0, given) == math.copysign(1.0, expected))
    return given == expected


def same_call(args: tuple, kwargs: dict, row: Any) -> bool:
    """True where a call's arguments are the row's."""
    expected = row.args
    if len(args) != len(expected):
        return False
    for given, wanted in zip(args, expected, strict=True):
        if given is wanted or (type(given) is not Tensor and same(given, wanted)):
            continue
        if type(wanted) is not Listed or type(given) not in (tuple, list) or len(given) != len(wanted):
            return False
        if any(t is not x for t, x in zip(given, wanted, strict=True)):
            return False
    return (not kwargs and not row.kwargs) or (
        kwargs.keys() == row.kwargs.keys() and all(same(v, row.kwargs[k]) for k, v in kwargs.items())
    )


def new_constants(span: Span, args: tuple, kwargs: dict) -> bool:
    """Compare later calls with these numbers; False where the call as a whole cannot be compared."""
    if not span.skippable or len(args) != len(span.args):
        return False
    for i, given in enumerate(args):
        if type(given) is Tensor or type(span.args[i]) is Listed:
            if given is not span.args[i] and type(given) is Tensor:
                return False
            continue
        span.args[i] = given = deepcopy(given)
        if i < 2:
            setattr(span, "a" if i == 0 else "b", given)
    span.kwargs = kwargs
    return True


def candidates(expected) -> list[SessionRow]:
    """The rows that may come now, the likeliest first."""
    prev = expected.prev
    if prev is None:
        return []
    rows = prev.children
    if len(rows) <= 1:
        return rows
    return [expected, *(r for r in rows if r is not expected)] if type(expected) is not End else rows[::-1]


def op_match(s, kind: str, op, args: tuple, attrs: dict | None) -> SessionRow | None:
    """The row of an op with these arguments, its slots and scalars set to them."""
    for row in candidates(s.cursor.next):
        if row.op is op and row.kind == kind and len(row.operands) == len(args) and same_attributes(attrs, row.attrs):
            changes = binding(s, row, row.operands, args)
            if changes is not None:
                commit(s, row, changes)
                return row
    return None


def assign_match(s, op, targets: tuple, args: tuple) -> SessionRow | None:
    """The row of an assignment to these targets."""
    for row in candidates(s.cursor.next):
        if row.op is op and row.kind == ASSIGN and len(row.operands) == len(args):
            if any(slot.tensor is not t or slot.broken for slot, t in zip(row.targets, targets, strict=True)):
                continue
            changes = binding(s, row, row.operands, args)
            if changes is not None:
                commit(s, row, changes)
                return row
    return None


def same_attributes(given: dict | None, expected: dict | None) -> bool:
    if given is expected or (not given and not expected):
        return True
    if not given or not expected or given.keys() != expected.keys():
        return False
    return all(same(value, expected[name]) for name, value in given.items())


def binding(s, row: SessionRow, operands: tuple, args: tuple) -> list[tuple] | None:
    """What has to change so that the row's operands are these arguments; None where they cannot be."""
    changes: list[tuple] = []
    for x, given in zip(operands, args, strict=True):
        if type(x) is Scalar:
            if given is x.tensor:
                continue
            if type(given) is not x.kind:
                return None
            if given is not x.last:
                changes.append((x, given))
        elif type(given) is not Tensor:
            return None
        elif type(x) is Value:
            if given is not x.handle:
                return None
        elif given is not x.tensor or x.broken:
            if not may_bind(s, row, x, given):
                return None
            changes.append((x, given))
    for x, given in zip(operands, args) if changes else ():
        if type(x) is Slot and any(y is x and t is not given for y, t in changes):
            return None  # one slot, two tensors
    return changes


def may_bind(s, row: SessionRow, slot: Slot, given: Tensor) -> bool:
    """True where a slot may be read from another tensor from here on."""
    if slot.first is not row or not slot.bindable or slot.written or given.layout is not slot.layout:
        return False
    stands_for = given.value
    if type(stands_for) is Value and stands_for.handle is given and stands_for.row.session is s:
        if not stands_for.parked:
            return False  # a value of this pass
        s.part_with(stands_for)
    elif type(stands_for) is Made and stands_for.stamp == s.stamp and stands_for.value.row.session is s:
        return False
    if given.node is slot.node and slot.node is None:
        return not s.assigned_here(given)
    # an eager row: the graph below it may change with it. A leaf collects gradients: another one is another variant, unless
    # it changes all the time.
    if type(given.node) is Leaf or type(slot.node) is Leaf:
        return type(given.node) is type(slot.node) and len(row.prev.children) > LEAVES
    return (given.node is None) is (slot.node is None)


LEAVES = 3  # variants that differ in a leaf alone, before such leaves share one


def commit(s, row: SessionRow, changes: list[tuple]) -> None:
    """Write scalars and bind slots."""
    for x, given in changes:
        if type(x) is Slot:
            if x.node is not None or given.node is not None:
                s.graph_changes += 1
            x.bind(given)
            s.rebound.append(x)
        else:
            x.write(given)
            for i, y in enumerate(row.operands):
                if y is x and row.args:
                    row.args[i] = given
                    if i == 0 and row.a is not NEVER:
                        row.a = given
                    elif i == 1 and row.b is not NEVER:
                        row.b = given


def expected(op, x, weight, bias):
    """The result of op(x, weight, bias), where x is a session's handle and this the call that the session expects; else None.

    The call is then done.
    """
    cursor = x.trace
    if cursor is None:
        return None
    row = cursor.next
    if row.op is not op:
        return None
    row = row.likely
    args = row.args
    if row.plain and row.out is not None and len(args) == 3 and args[0] is x and args[1] is weight and args[2] is bias:
        cursor.next = row.last.next
        return row.out
    return None


def expected_of_one(op, x):
    """The same for op(x)."""
    cursor = x.trace
    if cursor is None:
        return None
    row = cursor.next
    if row.op is op and row.a is x and row.plain and row.out is not None and len(row.args) == 1:
        cursor.next = row.last.next
        return row.out
    return None


def span_match(s, op, args: tuple, kwargs: dict) -> Span | None:
    """The recorded call with just these arguments."""
    for row in candidates(s.cursor.next):
        if row.kind == SPAN and row.op is op:
            for case in row.cases:  # type: ignore[attr-defined]
                if case.skippable and same_call(args, kwargs, case) and s.passable(case):
                    row.likely = case
                    return case
    return None


def span_rebound(s, op, args: tuple, kwargs: dict) -> Span | None:
    """The recorded call with these arguments, but for tensors from outside, which take the slots of those that it had."""
    for row in candidates(s.cursor.next):
        if row.kind == SPAN and row.op is op:
            for case in row.cases:  # type: ignore[attr-defined]
                if case.skippable and case.slots and case.current:
                    changes = span_binding(s, case, args, kwargs)
                    if changes and s.passable(case):
                        commit(s, case, changes)
                        row.likely = case
                        return case
    return None


def rebound(s, span: Span, args: tuple) -> bool:
    """The same of one recorded call, which has nothing but its arguments to compare."""
    if not span.slots or span.kwargs:
        return False
    changes = span_binding(s, span, args, span.kwargs)
    if changes is None:
        return False
    commit(s, span, changes)
    return True


def span_binding(s, span: Span, args: tuple, kwargs: dict) -> list[tuple] | None:
    """What has to change so that the call's arguments are these; None where its rows are to be matched one by one."""
    expected = span.args
    if len(args) != len(expected) or kwargs.keys() != span.kwargs.keys():
        return None
    changes: list[tuple] = []
    for i, given in enumerate(args):
        wanted = expected[i]
        if given is wanted or (type(given) is not Tensor and same(given, wanted)):
            continue
        slot = span.slots.get(i)
        # which arguments are one tensor may matter to the call
        if slot is None or type(given) is not Tensor or sum(a is given for a in args) > 1:
            return None
        if not may_bind(s, slot.first, slot, given):
            return None
        changes.append((slot, given))
    if kwargs and not all(same(v, span.kwargs[k]) for k, v in kwargs.items()):
        return None
    return changes


def span_to_enter(s, op, args: tuple) -> Span | None:
    """A recorded call of the same op, whose rows are to be matched one by one."""
    for row in candidates(s.cursor.next):
        if row.kind == SPAN and row.op is op:
            return row  # type: ignore[return-value]
    return None


def kind_match(s, kind: str, wanted: Any) -> SessionRow | None:
    """The row of that kind with that layout or mode."""
    for row in candidates(s.cursor.next):
        if row.kind == kind and (row.mode is wanted if not row.outs else row.outs[0].layout is wanted):
            return row
    return None


__all__ = ["VIEW", "assign_match", "kind_match", "op_match", "same_call", "span_match", "span_to_enter"]
