"""A plan in words."""

from __future__ import annotations

from .program import Plan


def explain(plan: Plan) -> str:
    """Kernels in order with what they move and where they write, then totals."""
    lines = [f"{len(plan.records)} kernels, {plan.fused} rows fused"]
    width = max((len(r.title) for r in plan.records), default=0)
    for i, r in enumerate(plan.records):
        outs = r.values[-1:]
        where = ", ".join(_place(plan, v) for v in outs)
        lines.append(f"{i:4}  {r.title:{min(width, 90)}}  {r.moved:>12,} bytes  -> {where}")
    moved = sum(r.moved for r in plan.records)
    share = f", {plan.arena / plan.unplanned:.0%} of what they would take apart" if plan.unplanned else ""
    lines.append(f"{moved:,} bytes moved; {plan.arena:,} bytes for intermediate values{share}")
    return "\n".join(lines)


def _place(plan: Plan, number: int) -> str:
    value = plan.values[number]
    base = number if value.base is None else value.base
    return f"arena + {plan.places[base]:,}" if base in plan.places else "memory of its own"
