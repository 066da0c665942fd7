"""What users see of a session: figures, the plan in words, times of each kernel."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...errors import TapeError
from ..spaces import allocations
from .rows import ASSIGN, OP


@dataclass(frozen=True)
class Stats:
    """Figures of one session, as they are when `session.stats` is read.

    iterations: passes, each of them a replay, which matched from start to end; a recording, which had to record something
    new; or eager, because for a while nothing had repeated. variants: recorded paths that are kept. Of the latest pass that
    was matched: rows (ops and assignments), kernels (calls that they became), fused_rows, planned_bytes, unplanned_bytes
    (with every intermediate value in memory of its own). allocations: blocks that the pool has made since the last recording
    or planning.
    """

    iterations: int
    replays: int
    recordings: int
    eager: int
    variants: int
    rows: int
    kernels: int
    fused_rows: int
    planned_bytes: int
    unplanned_bytes: int
    allocations: int

    def __repr__(self) -> str:
        return "\n".join(f"{f.name:16} {getattr(self, f.name):,}" for f in fields(self))


class Counts:
    """What a session counts."""

    __slots__ = ("eager", "iterations", "recordings", "replays", "warm")

    def __init__(self):
        self.iterations = self.replays = self.recordings = self.eager = 0
        self.warm = 0  # blocks of the pool at the last recording or planning


def figures(s) -> Stats:
    """The statistics of a session."""
    counts, latest = s.counts, s.executions
    plans = [e.plan for e in latest if e.plan is not None]
    return Stats(
        counts.iterations,
        counts.replays,
        counts.recordings,
        counts.eager,
        len(s.ends),
        sum(row.kind in (OP, ASSIGN) for e in latest for row in e.segment.rows),
        sum(len(p.records) for p in plans),
        sum(p.fused for p in plans),
        sum(p.arena for p in plans),
        sum(p.unplanned for p in plans),
        allocations() - counts.warm,
    )


def explain(s) -> str:
    """Every plan of the latest pass, in words."""
    from ...plan.explain import explain as words

    if not s.executions:
        return "nothing was replayed yet: the first pass records, the second is matched and planned"
    parts = []
    for i, e in enumerate(s.executions):
        head = f"segment {i + 1} of {len(s.executions)}: " if len(s.executions) > 1 else ""
        if e.plan is None:
            parts.append(f"{head}{len(e.segment.rows)} rows, run one by one until they come back")
        else:
            notes = e.program.notes()
            parts.append(head + words(e.plan) + (f"\n{notes}" if notes else ""))
    return "\n\n".join(parts)


def trace(s, path) -> None:
    """Run the latest pass's programs once more, undo what they changed, and write the kernels' times."""
    planned = [e for e in s.executions if e.program is not None]
    if not planned:
        raise TapeError(
            "trace: no program has run yet; it takes a pass to record and one to plan. Call it after a few passes"
        )
    events: list[dict[str, Any]] = []
    for e in planned:
        for title, start, duration in e.timed(s):
            events.append(
                {
                    "name": title,
                    "ph": "X",
                    "ts": start / 1e3,
                    "dur": duration / 1e3,
                    "pid": 1,
                    "tid": 1,
                    "cat": "kernel",
                }
            )
    Path(path).write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}))
