"""The contest: which contenders there are, their results compared, their turns."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field

from ..benchmarks.tasks import OUTPUT, Task
from .bars import COMPILED, JAX, TORCH
from .processes import Contender, difference

SESSION, EAGER = "tapegrad", "tapegrad eager"
COLUMNS = (SESSION, EAGER, TORCH, COMPILED, JAX)
LARGEST_COPY = 1 << 26  # bytes: from memory to memory on the machines this is run on

# How a contender's process is told. The first one's results are what those of the others are compared with.
TOLD = {EAGER: "tapegrad-eager", SESSION: "tapegrad", TORCH: "torch", COMPILED: "torch.compile", JAX: "jax"}
CHANNELS_LAST = {"PEER_LAYOUT": "channels_last"}
ALONE = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}


def ways(name: str, kind: str, threads: int) -> list[dict[str, str]]:
    """Settings of a contender for a kind of task; the fastest of them is timed."""
    if name == JAX:
        return [{}, ALONE, ALONE | {"JAX_CPU_ENABLE_ASYNC_DISPATCH": "false"}]
    if name == TORCH and threads > 1:  # waiting threads spin by default: best alone on a machine, not in company
        return [{}, {"OMP_WAIT_POLICY": "PASSIVE"}, *([CHANNELS_LAST] if kind == "cnn" else [])]
    return [{}, CHANNELS_LAST] if name in (TORCH, COMPILED) and kind == "cnn" else [{}]


@dataclass
class Row:
    """What was measured of one task."""

    task: Task
    times: dict[str, float] = field(default_factory=dict)  # seconds per step, or per op of a chain
    remarks: dict[str, str] = field(default_factory=dict)  # of contenders without a time
    figures: dict[str, int] = field(default_factory=dict)  # of tapegrad's session
    kernels: list = field(default_factory=list)  # title, how many, seconds: of a replayed step
    limit: float = 0.0  # seconds that the machine needs at least; 0 where nothing is said


class Table:
    """All tasks on one number of threads."""

    def __init__(self, threads: int, quick: bool):
        self.threads, self.quick = threads, quick
        self.rows: list[Row] = []
        self.processes: dict[tuple, Contender] = {}
        self.versions: dict[str, str] = {}
        self.absent: dict[str, str] = {}
        self._greet()

    def _process(self, name: str, settings: dict[str, str]) -> Contender:
        key = (name, *sorted(settings.items()))
        if key not in self.processes:
            self.processes[key] = Contender(TOLD[name], self.threads, settings)
        return self.processes[key]

    def _greet(self) -> None:
        """Who is there?"""
        for name in TOLD:
            answer = self._process(name, {}).ask("hello")
            if "failed" in answer:
                self.absent[name] = answer["failed"]
                say(f"{name} is left out: {answer['failed']}")
            else:
                self.versions[name] = answer["version"]

    def measure(self, task: Task) -> Row:
        """One task."""
        row, ready, wanted = Row(task), {}, None
        for name in self.versions:
            tried = []
            for settings in ways(name, task.kind, self.threads):
                process = self._process(name, settings)
                found, failed = process.build(task.name)
                wanted = found if wanted is None and not failed else wanted
                failed = failed or _compared(found, wanted, task)
                answer = {"failed": failed} if failed else process.ask("turn", seconds=0.05, inner=1)
                if "failed" in answer:
                    row.remarks[name] = answer["failed"]
                else:
                    tried.append((min(answer["times"]), process))
            if tried:
                row.remarks.pop(name, None)
                least, process = min(tried, key=lambda pair: pair[0])
                ready[name] = (process, max(1, math.ceil(1e-3 / least)))
        self._take_turns(row, ready)
        if SESSION in ready:
            row.figures = ready[SESSION][0].ask("figures")
            row.kernels = ready[SESSION][0].ask("profile").get("kernels", [])
        self.rows.append(row)
        for process in self.processes.values():
            process.rest()
        return row

    def _take_turns(self, row: Row, ready: dict[str, tuple[Contender, int]]) -> None:
        rounds, seconds = (2, 0.05) if self.quick else (10, 0.15)
        times: dict[str, list[float]] = {name: [] for name in ready}
        for i in range(rounds):
            for name in list(times)[:: 1 if i % 2 else -1]:
                process, inner = ready[name]
                answer = process.ask("turn", seconds=seconds, inner=inner)
                if "failed" in answer:
                    row.remarks[name] = answer["failed"]
                    del times[name], ready[name]
                else:
                    times[name] += answer["times"]
        row.times = {name: min(values) / row.task.ops for name, values in times.items()}

    def limits(self) -> tuple[float, dict[int, float]]:
        """Operations a second, and bytes a second by the size of what is copied."""
        sizes = sorted({_copied(row.task) for row in self.rows if row.task.moved})
        answer = self._process(EAGER, {}).ask("limits", copied=sizes)
        if "failed" in answer:
            raise RuntimeError(f"the machine's limits were not measured: {answer['failed']}")
        flops, rates = answer["flops"], dict(zip(sizes, answer["bytes"], strict=True))
        for row in self.rows:
            task = row.task
            row.limit = max(task.flops / flops, task.moved / rates[_copied(task)] if task.moved else 0.0)
        return flops, rates

    def end(self) -> None:
        """End all processes."""
        for process in self.processes.values():
            process.end()


def _copied(task: Task) -> int:
    return min(int(task.moved) // 2, LARGEST_COPY)


def _compared(found, wanted, task: Task) -> str:
    output, others = difference(found, wanted)
    if output > OUTPUT:
        return f"its output differs by {output:.1e}"
    return f"its gradients or parameters differ by {others:.1e}" if others > task.tolerance else ""


def say(text: str) -> None:
    """To people who wait."""
    print(text, file=sys.stderr, flush=True)
