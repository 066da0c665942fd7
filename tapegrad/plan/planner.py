"""From a segment to a plan: what is computed by which kernel, in which order, and where values lie meanwhile.

Map: `lower.py` makes tasks of the rows, a `Graph`, `rewrite.py` better ones of those, `fusion.py` gathers them into kernels, `emit.py`
writes these as records, `arena.py` gives the values places. `explain.py` says all that in words.
"""

from __future__ import annotations

from ..errors import KernelError
from .arena import lay_out, span_of
from .emit import HOST, Target, records
from .fusion import Fusion, weigh
from .graph import Graph
from .lower import lower
from .program import Plan, Record
from .rewrite import rewrite
from .segment import Segment


def plan(segment: Segment, target: Target = HOST) -> Plan:
    """The kernel calls that compute a segment's fixed values, in order, and where everything else lies meanwhile."""
    g = lower(segment)
    g.live()
    rewrite(g, target.rules)
    g.live()
    g.order()
    weigh(g)
    made, overlays = target.together(g, *records(g, Fusion(g, target.limits).run(), target))
    check_order(g, made)
    places, arena = lay_out(g.values, made, overlays)
    values = segment.values
    new = {o for row in segment.rows for o in row.outs if not values[o].fixed and values[o].base is None}
    unplanned = sum([span_of(values[o].layout.nbytes) for o in new])
    fused = {n for r in made if len(r.rows) > 1 for n in r.rows}
    return Plan(g.values, made, places, arena, unplanned, len(fused))


def check_order(g: Graph, made: list[Record]) -> None:
    """Refuse a plan in which a kernel reads what none has written: better no number than one out of old memory."""
    known: set[int] = set()
    for record in made:
        inner = len(record.values) - record.outputs
        for number in record.values[:inner]:
            root = g.roots[number]
            if root not in known and not g.values[root].fixed and g.values[number].layout.size:
                raise KernelError(
                    f"the plan of a session is wrong: {record.title} would read a value before it is computed. Run with "
                    "TAPEGRAD_SESSION=off, and report the program, please."
                )
        known.update([g.roots[n] for n in record.values[inner:]])
