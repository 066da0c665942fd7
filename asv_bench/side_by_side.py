"""tapegrad beside PyTorch and JAX: the same arithmetic on the same data, results compared, then timed in turns.

    python -m asv_bench.side_by_side [--write docs/performance.md] [--only WORD ...] [--threads 1 2] [--quick]

Needs the extra "peers"; a peer that is not installed is left out. About 25 minutes; nothing else should be running.

Every contender is a process of its own for each number of threads, on as many CPUs as threads, and only one of them works at
a time: in one process the thread pools of several OpenMP and BLAS libraries would spin against each other, and JAX takes its
number of threads from the CPUs that its process may run on. Turns go around, forwards and backwards; a step's time is the
least of all batches of at least a millisecond in all turns. Before, each contender's output, gradients or movement of
parameters are compared with tapegrad's eager results, as ‖a - b‖ / ‖b‖, within the tolerances of `benchmarks/tasks.py`;
masks of dropout differ from library to library, so there the comparison is made without dropout. Peers are given what is
fastest for them (see `peers/torch_.py`, `peers/jax_.py`); where that depends on the task, the ways of `peers/contest.py`
are tried and the fastest is timed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from .benchmarks import FORCING
from .benchmarks.tasks import TASKS
from .context import machine, usable
from .document import replace_section
from .peers.bars import COMPILED, JAX, PEERS, bar_of, short, verdict
from .peers.contest import COLUMNS, SESSION, TOLD, Row, Table, say
from .peers.processes import Contender

EXPLAINED = """Made by `python -m asv_bench.side_by_side --write docs/performance.md`.

A step is forward, backward and update where the name has an optimizer; the batch and the model are there. Times are the
least of many, and contenders take turns, each a process of its own on as many CPUs as threads; their results were compared
first. JAX runs a chain of ops as one compiled function without any Python, so the ratio of the chains is to PyTorch."""


def line(row: Row) -> str:
    """A row of the printed table."""
    times, bar = row.times, bar_of(row.task.name)
    own = times.get(SESSION)
    # JAX compiles a chain whole, and Python runs none of its ops: not what the chain is about
    peers = [times[name] for name in PEERS if name in times and (name != JAX or row.task.kind != "chain")]
    cells = [short(times[name]) if name in times else "–" for name in COLUMNS]  # a remark below says why there is none
    best = f"{own / min(peers):.2f}" if own and peers else "–"
    limit = f"{row.limit / own:.0%}" if own and row.limit else "–"
    return (
        f"| {row.task.name} | {bar} | {' | '.join(cells)} | {best} | {limit} | {verdict(bar, own, times, row.limit)} |"
    )


def heading() -> list[str]:
    """The table's head."""
    names = ["workload", "bar", *COLUMNS, "of the best peer's time", "of the machine's limit", ""]
    return [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]


def planned(rows: list[Row]) -> list[str]:
    """What is exact: bytes, rows, kernels, allocations."""
    rows = [row for row in rows if row.figures and "failed" not in row.figures]
    if not rows:
        return ["No session was measured, so there are no figures of plans."]
    lines = [
        "| workload | rows | kernels | rows fused | planned MB | without planning MB | share | blocks in 20 steps |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        f = row.figures
        before = f["unplanned_bytes"]
        share = f"{f['planned_bytes'] / before:.2f}" if before else "–"
        lines.append(
            f"| {row.task.name} | {f['rows']} | {f['kernels']} | {f['fused_rows']} | {f['planned_bytes'] / 1e6:.3g} "
            f"| {before / 1e6:.3g} | {share} | {f['blocks']} |"
        )
    nets = [r.figures for r in rows if r.task.kind in ("mlp", "cnn") and r.figures["unplanned_bytes"]]
    if nets:
        worst = max(f["planned_bytes"] / f["unplanned_bytes"] for f in nets)
        said = "met" if worst <= 0.5 else "missed"
        lines += ["", f"Planned bytes of bytes without planning, MLPs and CNN: at most {worst:.2f}; bar ≤ 0.5, {said}."]
    blocks = max(row.figures["blocks"] for row in rows)
    return [*lines, "", f"Blocks in 20 steady steps: at most {blocks}; bar 0, {'missed' if blocks else 'met'}."]


def remarks(table: Table) -> list[str]:
    """Why a contender has no time."""
    found: dict[str, list[str]] = {f"{name}: left out, {text}": [] for name, text in table.absent.items()}
    for row in table.rows:
        for name, text in row.remarks.items():
            found.setdefault(f"{name}: {text}", []).append(row.task.name)
    return [f"* {text}{': ' * bool(tasks)}{_listed(tasks)}" for text, tasks in found.items()]


def _listed(tasks: list[str]) -> str:
    return "; ".join(tasks) if len(tasks) < 4 else f"{tasks[0]}; and {len(tasks) - 1} more"


def missed(rows: list[Row]) -> list[str]:
    """Where the time goes of what missed its bar."""
    lines = []
    for row in rows:
        own, bar = row.times.get(SESSION), bar_of(row.task.name)
        if own is None or not row.kernels or not verdict(bar, own, row.times).startswith("missed"):
            continue
        step = own * row.task.ops
        inside = sum(seconds for *_, seconds in row.kernels)
        allowed = (bar.allowed(row.times) or 0.0) * row.task.ops
        longest = [f"{count} × {title} {short(seconds)}" for title, count, seconds in row.kernels[:5]]
        lines.append(
            f"| {row.task.name} | {short(step)} | {short(allowed)} | {short(inside)} | {short(max(step - inside, 0.0))} "
            f"| {'; '.join(longest)} |"
        )
    if not lines:
        return []
    names = ["missed", "a step", "allowed", "in kernels", "in Python and between kernels", "longest kernels, by title"]
    head = ["", "Where the time goes of what missed its bar, kernels timed one by one, the least of 15 each:", ""]
    return [*head, f"| {' | '.join(names)} |", "|" + "---|" * len(names), *lines]


FIRST = "MLP 64-256-256-1, batch 128, Adam"


def first_calls(threads: int, quick: bool) -> list[str]:
    """From the first call of a new model, in fresh processes, until a step runs as planned or compiled."""
    lines = [
        f"From the first call of a step of {FIRST} until a step has run as planned or compiled, in a fresh process with the "
        "libraries imported; medians:",
        "",
        "| | empty cache | filled cache |",
        "|---|---|---|",
    ]
    own: dict[str, float] = {}
    for name, variable in ((SESSION, "TAPEGRAD_CACHE"), (COMPILED, "TORCHINDUCTOR_CACHE_DIR"), (JAX, "")):
        cells = []
        with tempfile.TemporaryDirectory(prefix="side-by-side-") as folder:
            for state in ("empty", "filled"):
                found = []
                for i in range(1 if quick else 3):
                    cache = str(Path(folder, "0" if state == "filled" else str(i)))
                    found.append(_first(name, threads, {variable: cache} if variable else {}))
                failed = [answer["failed"] for answer in found if "failed" in answer]
                seconds = sorted(answer["seconds"] for answer in found if "seconds" in answer)
                if failed or (name == JAX and state == "filled"):
                    cells.append(failed[0] if failed else "keeps none")
                    continue
                cells.append(f"{seconds[len(seconds) // 2] * 1e3:.0f} ms")
                if name == SESSION:
                    own[state] = seconds[len(seconds) // 2]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for state, bar in (("empty", 0.3), ("filled", 0.06)):
        if state in own:
            said = "met" if own[state] <= bar else f"missed, {own[state] / bar:.2f} × the bar"
            lines += ["", f"Bar, cache {state}: ≤ {bar * 1e3:.0f} ms, {said}."]
    return lines


def _first(name: str, threads: int, settings: dict[str, str]) -> dict:
    process = Contender(TOLD[name], threads, settings)
    try:
        answer = process.ask("hello")  # imports are not counted
        return answer if "failed" in answer else process.ask("first", task=FIRST)
    finally:
        process.end()


def report(options) -> str:
    """The section of the document."""
    load = os.getloadavg()[0]
    counts = [n for n in options.threads if n <= usable()]
    lines = ["## Beside other libraries", "", EXPLAINED]
    versions: dict[str, str] = {}
    for threads in counts:
        table = Table(threads, options.quick)
        try:
            lines += ["", f"### {threads} thread{'s' * (threads > 1)}", "", *heading()]
            say(f"{threads} threads\n" + "\n".join(heading()))
            for name, task in TASKS.items():
                if not options.only or any(word in name for word in options.only):
                    say(line(table.measure(task)))
            flops, rates = table.limits()
            lines += map(line, table.rows)
            moved = ", ".join(f"{rate / 1e9:.0f} GB/s over {size / 1e6:.0f} MB" for size, rate in rates.items())
            copied = f"; what is read and written in place moves at {moved}" if moved else ""
            lines += ["", f"Limits: a product of 1024³ runs at {flops / 1e9:.0f} GFLOP/s{copied}."]
            lines += ["", *remarks(table), *missed(table.rows)]
            lines += ["", *planned(table.rows)] if threads == counts[-1] else []
            versions |= table.versions
        finally:
            table.end()
    if not options.only:
        lines += ["", *first_calls(1, options.quick)]
    libraries = ", ".join(dict.fromkeys(versions.values()))
    return "\n".join([*lines, "", "Measured on:", "", *machine(load), f"* peers: {libraries}", ""])


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace this report's section in the document")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="only workloads whose name contains one of these")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N")
    parser.add_argument("--quick", action="store_true", help="short turns, to see that it works")
    options = parser.parse_args()
    text = report(options)
    print(text)
    if options.write:
        replace_section(options.write, "side by side", text)


if __name__ == "__main__":
    for variable in FORCING:  # before any child is started
        os.environ.pop(variable, None)
    main()
