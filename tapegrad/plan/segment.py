"""What planning starts from: a run of recorded operations as plain data. It knows neither tensors nor the tape."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..layouts import Layout
from ..ops.registry import Op


@dataclass(slots=True)
class Value:
    """One array of a segment.

    `fixed`: its memory is given from outside when the program runs: a parameter, an input, a scalar's slot, a result that
    somebody still holds. The others are the plan's to place, share, or fuse away. A view names the value it looks into and
    where its first element lies, in elements from that value's first; views of views name the outermost value.
    """

    layout: Layout
    fixed: bool = False
    base: int | None = None
    offset: int = 0


@dataclass(slots=True)
class Row:
    """One operation on values, named by their places in `Segment.values`.

    `assigns`: the outputs are existing fixed values, overwritten in place (they may be among the inputs, whose old elements
    are read). Else the outputs are new: nothing has read them before.
    """

    op: Op
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    attrs: dict
    assigns: bool = False


@dataclass(slots=True)
class Segment:
    """Rows in the order in which they were recorded. A view needs no row."""

    values: list[Value] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
