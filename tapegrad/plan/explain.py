"""A plan in words."""

from __future__ import annotations

from .program import Plan, Record

WIDEST = 72  # characters of a kernel's title before it is cut


def explain(plan: Plan) -> str:
    """The kernels in running order: what each computes, the bytes it moves, where its operands lie; then the totals.

    `@640` is byte 640 of the arena; `v12` is value 12, whose memory is its own: a parameter, an input, or a result that is
    kept. A view is named by where its memory begins. `=` marks a result written over an input.
    """
    fused = sum(1 for r in plan.records if len(r.rows) > 1)
    lines = [f"{len(plan.records)} kernels; {fused} of them compute {plan.fused} rows"]
    titles = [_short(r.title) for r in plan.records]
    width = max(map(len, titles), default=0)
    lines.append(f"{'':4}  {'kernel':{width}}  {'bytes':>8}  reads -> writes")
    for i, (r, title) in enumerate(zip(plan.records, titles)):
        ins, outs = _operands(plan, r)
        lines.append(f"{i:4}  {title:{width}}  {_bytes(r.moved):>8}  {ins} -> {outs}")
    moved = sum(r.moved for r in plan.records)
    share = (
        f", {plan.arena / plan.unplanned:.0%} of the {_bytes(plan.unplanned)} that they take apart"
        if plan.unplanned
        else ""
    )
    lines.append(f"{_bytes(moved)} moved; {_bytes(plan.arena)} of memory for values in between{share}")
    return "\n".join(lines)


def _operands(plan: Plan, record: Record) -> tuple[str, str]:
    """Where a call reads, and where it writes."""
    made = len(record.values) - record.outputs
    ins = list(dict.fromkeys(_place(plan, v) for v in record.values[:made]))
    outs = [_place(plan, v) for v in record.values[made:]]
    shown = [f"={place}" if place in ins else place for place in outs]
    return " ".join(ins) or "nothing", " ".join(shown)


def _place(plan: Plan, number: int) -> str:
    """Where a value's memory begins."""
    value = plan.values[number]
    base, offset = (number, 0) if value.base is None else (value.base, value.offset * value.layout.dtype.itemsize)
    if base in plan.places:
        return f"@{plan.places[base] + offset}"
    return f"v{base}" if not offset else f"v{base}+{offset}"


def _short(title: str) -> str:
    return title if len(title) <= WIDEST else title[: WIDEST - 1] + "…"


def _bytes(n: int) -> str:
    """A number of bytes for people.

    >>> _bytes(640), _bytes(2_000_000)
    ('640 B', '2.0 MB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n} B"
