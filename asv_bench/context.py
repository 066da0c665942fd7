"""What a reader needs beside the figures: the machine, how fast it copies, what a second thread brings, whole steps."""

from __future__ import annotations

import datetime as dt
import os
import statistics
import time

import numpy as np

import tapegrad as tg

from .benchmarks.workloads import TRAININGS
from .timing import alternate

COPIED = 1 << 26  # bytes: past every cache of the machines this is run on, so the copy is from memory to memory


def usable() -> int:
    """Threads that tapegrad may use here."""
    return tg.info()["threads"]["usable"]


def copy_bandwidth() -> float:
    """GB/s, one thread, of a plain copy between two arrays that exist; bytes read and bytes written both count."""
    source = np.ones(COPIED, np.uint8)
    target = np.empty_like(source)
    times = alternate({"copy": lambda: np.copyto(target, source)}, rounds=20)["copy"]
    return 2 * COPIED / min(times) / 1e9


def second_thread() -> list[str]:
    """A table of large kernels on one thread and on all, the two taking turns."""
    threads = usable()
    if threads == 1:
        return ["Only one core is usable here: nothing to say about threads."]
    rng = np.random.default_rng(0)
    a, b = [tg.tensor(m) for m in rng.standard_normal((2, 1024, 1024), dtype=np.float32)]
    x, y = [tg.tensor(v) for v in rng.uniform(-4, 4, (2, 1 << 20)).astype(np.float32)]
    kernels = {
        "matmul 1024³": (lambda: a @ b, 1),
        "x + y, 2^20": (lambda: x + y, 10),
        "exp, 2^20": (lambda: tg.exp(x), 10),
        "tanh, 2^20": (lambda: tg.tanh(x), 10),
    }
    lines = [f"| kernel, float32 | one thread, µs | {threads} threads, µs | times as fast |", "|---|---|---|---|"]
    for name, (call, repeats) in kernels.items():
        one, several = (value / repeats * 1e6 for value in _least(call, repeats, (1, threads)))
        lines.append(f"| {name} | {one:.0f} | {several:.0f} | {one / several:.2f} |")
    tg.set_num_threads(1)
    return lines


def _least(call, repeats: int, counts: tuple[int, ...], rounds: int = 40) -> list[float]:
    """Least seconds of `repeats` calls on each number of threads, in turn; setting the number, which ends the pool's
    threads, and a first call, which starts them, are not timed."""
    least = [float("inf")] * len(counts)
    for _ in range(rounds):
        for i, count in enumerate(counts):
            tg.set_num_threads(count)
            call()
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            least[i] = min(least[i], time.perf_counter() - start)
    return least


def training_steps() -> list[str]:
    """A table of training steps, on one thread and on all."""
    threads = usable()
    lines = [f"| training step | one thread, ms | {threads} threads, ms |", "|---|---|---|"]
    for name, make in TRAININGS.items():
        step, cells = make(), []
        for count in (1, threads):
            tg.set_num_threads(count)
            times = alternate({"step": step}, rounds=60 if "CNN" in name or "1024" in name else 300)["step"]
            cells.append(f"{statistics.median(times) * 1e3:.3g}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    tg.set_num_threads(1)
    return lines


def machine(load_before: float) -> list[str]:
    """Where it was measured."""
    info = tg.info()
    versions = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    return [
        f"* {dt.date.today().isoformat()}, {info['platform']}",
        f"* CPU: {info['cpu']}, {info['threads']['usable']} cores, vectors of {info['vector']}",
        f"* memory: a plain copy of {COPIED >> 20} MiB on one thread moves {copy_bandwidth():.0f} GB/s, reads and writes counted",
        f"* BLAS: {info['blas']}",
        f"* {versions}",
        f"* load average before measuring / after: {load_before:.1f} / {os.getloadavg()[0]:.1f}",
    ]
