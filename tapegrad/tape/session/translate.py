"""A segment as planning takes it: where it can be planned for, what it reads, its rows and values as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...plan.segment import Row as PlanRow
from ...plan.segment import Segment as Rows
from ...plan.segment import Value as PlanValue
from ..spaces import plans
from .rows import ASSIGN, DRAW, FRESH, OP
from .values import Scalar, Slot, Value, root_of, tensor_of

if TYPE_CHECKING:
    from .run import Segment


def planned_on(device: str, rows: Rows, s) -> tuple[Any, Any]:
    """Plan and program on a GPU."""
    from ...plan import gpu
    from ...plan.planner import plan
    from ..spaces import space_of

    found: Any = space_of(device)
    made = plan(rows, gpu.Target(found))
    return made, gpu.Program(made, lambda nbytes: s.memory(nbytes, device), found)


def planned_for(segment: Segment) -> str | None:
    """The device whose programs can run the rows. None where there is none, or another tensor shows memory that a row assigns to: these
    rows keep their order.
    """
    operands = {x for row in segment.rows for x in (*row.operands, *row.outs)}
    devices = {tensor_of(x).layout.device for x in operands}
    if len(devices) > 1:
        return None
    device = devices.pop() if devices else "cpu"
    if device != "cpu" and not plans(device):
        return None
    written = {slot for row in segment.assigned for slot in row.targets}
    shown = {id(t.buffer): t for t in (slot.tensor for slot in written)}
    tensors = {id(slot.tensor) for slot in written}
    alone = len(shown) == len(tensors) and not any(
        type(x) is Slot and shown.get(id(x.tensor.buffer), x.tensor) is not x.tensor for x in operands
    )
    return device if alone else None


def outside(segment: Segment) -> list[Value]:
    """The values of earlier segments that the rows read."""
    here = set(segment.rows)
    found: dict[Value, None] = {}
    for row in segment.rows:
        for x in row.operands:
            root = root_of(x)
            if type(root) is Value and root.row not in here and root.row.kind not in (FRESH, DRAW):
                found[root] = None
    return list(found)


def translate(segment: Segment, kept: set[Value]) -> tuple[Rows, list[tuple]]:
    """The segment as planning takes it, and (value, slot or scalar; its number) of all whose memory is given from outside."""
    made = Rows()
    numbers: dict[Any, int] = {}
    first: dict[int, Slot] = {}  # of slots that hold one tensor for good, one stands for all
    fixed: list[tuple] = []
    here = set(segment.rows)

    def number(x) -> int:
        if type(x) is Slot and not x.bindable:
            x = first.setdefault(id(x.tensor), x)
        found = numbers.get(x)
        if found is not None:
            return found
        if type(x) is Value and x.base is not None:
            base = number(x.base)
            made.values.append(PlanValue(x.layout, False, base, x.offset // x.layout.dtype.itemsize))
        else:
            given = type(x) is not Value or x.row not in here or x.row.kind in (FRESH, DRAW) or x in kept
            x_layout = x.layout if type(x) is not Scalar else x.tensor.layout
            made.values.append(PlanValue(x_layout, given))
            if given:
                fixed.append((x, len(made.values) - 1))
        numbers[x] = len(made.values) - 1
        return numbers[x]

    for row in segment.rows:
        if row.kind == OP:
            ins = tuple([number(x) for x in row.operands])
            made.rows.append(PlanRow(row.op, ins, tuple([number(v) for v in row.outs]), row.attrs or {}))
        elif row.kind == ASSIGN:
            ins = tuple([number(x) for x in row.operands])
            made.rows.append(PlanRow(row.op, ins, tuple([number(x) for x in row.targets]), {}, assigns=True))
    for v in kept:
        number(v)
    return made, fixed
