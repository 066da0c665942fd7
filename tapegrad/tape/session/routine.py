"""The end of a pass that goes like the one before: the same calls, the same values held, nothing looked at.

What has to be done then is known beforehand, and done here without the questions that `run.sync` and `keep.finish` ask.
Whatever is out of the ordinary clears `session.usual`, or shows in the few things that are compared here.
"""

from __future__ import annotations

from itertools import islice

from .. import apply as eager
from .keep import OWN, finish_fresh, spent
from .values import refs


class Routine:
    """What a pass that ran as one program left to do: its end, what somebody held, what was handed out."""

    __slots__ = ("counts", "end", "execution", "gives", "gradients", "handles", "seen", "spans")

    def __init__(self, end, execution, seen: int, gives: list, gradients: list, spans: list):
        visible = execution.segment.visible
        self.end, self.execution, self.seen, self.gives = end, execution, seen, gives
        self.gradients, self.spans = gradients, spans
        self.handles = visible.handles
        self.counts = visible.counts[:seen]

    def fits(self, s) -> bool:
        """True where nobody holds more, or less, than in the pass before."""
        return (
            list(map(refs, islice(self.handles, self.seen))) == self.counts
            and s.gradients == self.gradients
            and s.spans == self.spans
        )

    def run(self, s) -> None:
        """Run the program and hand out what is held."""
        execution = self.execution
        if s.rebound:
            execution.rebind(s.rebound)
            s.rebound.clear()
        if s.fresh_values:
            execution.bind_values()
        program = execution.program
        status = program.run()
        if status:
            execution.fail(s, status)
        for g in s.gradients:
            g.cover.pending = False
        for v, node, entry, listed, outs, others in self.gives:
            h = v.handle
            buffer = h.buffer
            h.address = buffer.address
            h.node = node
            h.value = 0
            h.trace = None
            spare, v.spare = v.spare, buffer
            v.handle = h = v.new_handle()
            for container, place in listed:
                container[place] = h
            for row in outs:
                row.out = h
            for container, name in others:
                setattr(container, name, h)
            if spare is None or refs(spare) != OWN:
                v.buffer = None
                spare = eager.allocate(v.layout.nbytes, "a value of a session", v.layout.device)
            v.buffer = h.buffer = spare
            entry[2] = address = spare.address
            program.bind(entry[0], address)
        if s.fresh_values:
            finish_fresh(s)
            s.fresh_values.clear()


def learn(s, end) -> Routine | None:
    """How to end later passes like this one, which is over; None where it was out of the ordinary."""
    if s.entered or len(s.ran) != 1 or s.lost or s.renamed or s.frozen or s.slots_changed:
        return None
    execution = s.ran[0]
    segment = execution.segment
    if execution.program is None or execution.views or execution.inputs or end.prev.segments.get(s.root) is not segment:
        return None
    together: set = set()
    for g in s.gradients:
        if not g.cover.on:
            return None
        together.update(g.values)
    visible = segment.visible
    if visible.execution is not execution:
        return None
    seen = sum(v not in together for v in visible.values)
    if together.intersection(visible.values[:seen]):
        return None
    places = {v: entry for entry in execution.bound for v in (entry[1],)}
    gives = []
    for v in execution.fill:
        if v in together:
            continue
        if v not in execution.held or (v.row.tracked and not v.row.released) or v not in places:
            return None
        listed = [(c, k) for c, k in v.uses if type(k) is int]
        outs = [c for c, k in v.uses if k == "out"]
        others = [(c, k) for c, k in v.uses if type(k) is str and k != "out"]
        gives.append((v, spent(v.row) if v.row.tracked else None, places[v], listed, outs, others))
    execution.bind(s)  # what was handed out has new memory
    return Routine(end, execution, seen, gives, list(s.gradients), list(s.spans))
