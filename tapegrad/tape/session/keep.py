"""What outlives a pass: handles that somebody keeps become tensors of their own, with the graph that they came from."""

from __future__ import annotations

from typing import Any

from ...errors import TapeError
from ..tensor import RELEASED, Row, Tensor
from .record import give_memory, stand_in
from .rows import DRAW, FRESH, SessionRow
from .values import Scalar, Value, refs, tensor_of

OWN = 2  # what getrefcount says of what one name or attribute alone refers to


class Lost:
    """In place of the value of a tensor that was never computed, because a kernel before it failed."""

    handle = None

    def __init__(self, why: str):
        self.why = why

    @property
    def row(self) -> Lost:
        return self

    session = row

    def compute(self, t: Tensor) -> None:
        raise TapeError(f"this tensor of shape {t.shape} has no value: {self.why}")


def finish(s) -> None:
    """The end of a pass: hand out what is held, and make the other handles ready for the next pass."""
    freeze(s, s.computed)
    for v in s.computed:
        release(s, v)
    for gradients in s.gradients:
        gradients.finish(s)
    finish_fresh(s)
    s.frozen.clear()
    for v in s.parted:
        v.now = None
    for h in s.renamed:
        if type(h.value) is Value and h.value.handle is h:
            h.node = None
    s.renamed.clear()
    lose(s)


def finish_fresh(s) -> None:
    """Hand out what is held of the tensors that were made from data."""
    for v in s.fresh_values:
        if v.held():
            part_with(s, v, 0)
        else:
            reclaim(v, v.handle)


def release(s, v: Value) -> None:
    """Hand the handle of a computed value out where somebody holds it; else make it ready for the next pass."""
    h = v.handle
    if refs(h) > len(v.uses) + HELD:
        part_with(s, v, 0)
    else:
        del h.address
        reclaim(v, h)


def lose(s) -> None:
    """Handles of a segment whose run failed have no value, ever."""
    for row in s.lost:
        for v in row.outs:
            h = v.handle
            if refs(h) > len(v.uses) + HELD and not v.parked and row.kind not in (FRESH, DRAW):
                for gradients in s.gradients:
                    for leaf in gradients.leaves:
                        if leaf.grad is h:
                            leaf.grad = None
                h.value, h.trace, h.node = Lost("an op before it failed, in the same pass of its session"), None, None
                v.repoint(v.new_handle())
                v.buffer = None
    s.lost.clear()


def _calibrate() -> int:
    """What getrefcount says of a handle in a local name, beyond the value's reference and the uses."""

    class Holder:
        handle: Any = None

    v = Holder()
    v.handle = object()
    h = v.handle
    return refs(h)


HELD = _calibrate()


def reclaim(v: Value, h: Tensor) -> None:
    """Give up the memory of a handle that is free, where a view or an array still shows it."""
    if v.base is not None:
        del h.buffer
        return
    h = None  # type: ignore[assignment]
    if refs(v.buffer) > OWN + 1:  # the value and its handle
        if v.row.kind in (FRESH, DRAW):
            give_memory(v)
        else:
            v.buffer = None
            del v.handle.buffer


def part_with(s, v: Value, stands_for) -> None:
    """Make the value's handle a tensor of its own, and take another one for the next pass.

    `freeze` has seen to the graph of those that somebody holds; what saved values another's would need was not computed.
    """
    h = v.handle
    row = v.row
    if row.tracked:
        h.node = spent(row) if row.released else s.frozen.get(row)
    h.value, h.trace = stands_for, None
    v.parked = False
    spare = v.spare
    v.repoint(v.new_handle())
    if v.base is not None:
        return
    v.spare = h.buffer
    if row.kind in (FRESH, DRAW):
        give_memory(v, spare if spare is not None and refs(spare) == OWN else None)
    elif spare is not None and refs(spare) == OWN:
        v.buffer = v.handle.buffer = spare
    else:
        v.buffer = None


def unpark(s, v: Value) -> None:
    """A gradient is computed anew: take its handle back from the leaf, or another one where somebody keeps it."""
    v.parked = False
    h = v.handle
    if refs(h) > len(v.uses) + HELD or refs(v.buffer) > OWN + 1:
        part_with(s, v, 0)
    else:
        del h.address


def spent(row: SessionRow) -> Row:
    """The node of a result whose graph was released."""
    if row.spent is None:
        row.spent = Row(row.op, (), RELEASED, row.attrs, row.number, row.state)
    return row.spent


def freeze(s, values) -> None:
    """Write the unreleased graphs of held values down as eager rows."""
    for v in values:
        if v.row.tracked and v.row not in s.frozen and not v.row.released and refs(v.handle) > len(v.uses) + HELD - 1:
            graph(s, v.row)


def graph(s, row: SessionRow) -> Row:
    """The rows below `row`, as the eager rows that a backward outside the pass walks."""
    stack, found = [row], {row}
    while stack:
        for x in stack.pop().operands:
            if (
                type(x) is Value
                and x.row.tracked
                and x.row not in found
                and x.row not in s.frozen
                and not x.row.released
            ):
                found.add(x.row)
                stack.append(x.row)
    frozen = s.frozen
    for r in sorted(found, key=depth_of):
        keeps, output = r.saved
        parents, inputs = [], []
        for x, k in zip(r.operands, keeps):
            t = x.tensor if type(x) is not Value else x.handle if x.now is None else x.now
            if type(x) is Value and x.row.tracked:
                parents.append(spent(x.row) if x.row.released else frozen[x.row])
            else:
                parents.append(t.node)
            if not k:
                inputs.append(t.layout)
            else:
                inputs.append(stand_in(s, x) if type(x) is Scalar else t)
        made = frozen[r] = Row(r.op, tuple(parents), tuple(inputs), r.attrs, r.number, r.state)
        if r.op.outputs > 1 or any(type(x) is Value and x.index for x in r.operands):
            made.indices = r.indices
        if output:
            made.output = tuple([(h.buffer, h.address, h.layout) for h in map(tensor_of, r.outs)])
    return frozen[row]


def depth_of(row: SessionRow) -> int:
    return row.depth
