"""Measures the figures that tapegrad sets out to reach, on this machine, and prints them as a Markdown table.

    python -m asv_bench.figures [--write docs/performance.md] [--full] [--tests] [--only WORD]

Two minutes; nothing else should be running. Times are the least, or the median where the table says so, of many; what
is compared takes turns in the same process; one thread, unless a whole command is timed. --full adds three epochs on
the full MNIST set (TAPEGRAD_DATA says where it is), --tests the test suite (needs the extra "test").
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import tapegrad as tg
from tapegrad.kernels import blas

from .benchmarks import FORCING, fresh
from .benchmarks.workloads import CHAIN, CHAIN_OPS, Chain
from .context import machine, second_thread, training_steps
from .document import Outcome, sections
from .timing import alternate, ratio

MNIST = Path(__file__).resolve().parents[1] / "examples" / "mnist.py"

HEAD = """# Performance

Made by `python -m asv_bench.figures --write docs/performance.md`; not edited by hand.
"""
EXPLAINED = """
The small ops run as a chain of 100, each recorded. `w` requires a gradient, so `y * w` and the matmul make two
gradients each. NumPy's add and matmul and the direct call of BLAS, which is `cblas_sgemm` of the same library through
ctypes, work on the tensors' own memory; the latter two write into a tensor that exists.

Whole training steps, from a batch in NumPy arrays to updated parameters, medians:
"""

THREADS = """
What the further threads bring, the least of many each:
"""


def main_job(options) -> list[Outcome]:
    """The command `python examples/mnist.py`, and the larger one on the full set."""
    if not MNIST.exists():
        return [Outcome("examples/mnist.py is not there", None)]
    with tempfile.TemporaryDirectory(prefix="tapegrad-bench-") as cache:
        save = ("--save", str(Path(cache, "model.safetensors")))
        seconds, said = fresh.run((str(MNIST), *save), Path(cache, "kernels"))
        accuracy = _accuracy(said)
        parts = [Outcome(f"{seconds:.1f} s, {accuracy:.2f} %", seconds <= 15 and accuracy >= 94)]
        data = os.environ.get("TAPEGRAD_DATA")
        if not (options.full and data):
            return [*parts, Outcome("full set not measured (--full, TAPEGRAD_DATA)", None)]
        arguments = (str(MNIST), *save, "--hidden", "1024", "1024", "--epochs", "3", "--batch-size", "128")
        seconds, said = fresh.run(arguments, Path(cache, "kernels"), TAPEGRAD_DATA=str(Path(data).resolve()))
        return [*parts, Outcome(f"full set: {_accuracy(said):.2f} % in {seconds:.0f} s", _accuracy(said) >= 97.8)]


def _accuracy(output: str) -> float:
    found = re.findall(r"test accuracy\D*([\d.]+) ?%", output)
    if not found:
        raise RuntimeError(f"{MNIST.name} printed no test accuracy:\n{output}")
    return float(found[-1])


def small_ops(_options) -> list[Outcome]:
    """Per op in a chain of 100, forward with recording, and with the sweep back."""
    forward, both = {}, {}
    for name in CHAIN_OPS:
        chain = Chain(name)
        times = alternate({"forward": chain.forward, "both": chain.forward_backward}, rounds=200)
        forward[name] = min(times["forward"]) / CHAIN * 1e6
        both[name] = min(times["both"]) / CHAIN * 1e6
    words = ", ".join(f"{name} {forward[name]:.1f} / {both[name]:.1f}" for name in CHAIN_OPS)
    return [Outcome(f"{words} µs", max(forward.values()) <= 3 and max(both.values()) <= 8)]


def elementwise(_options) -> list[Outcome]:
    """2^20 float32, a whole eager call each; NumPy on the tensors' own memory."""
    rng = np.random.default_rng(0)
    x, y, z = [tg.tensor(rng.uniform(-4, 4, 1 << 20).astype(np.float32)) for _ in range(3)]
    a, b, out = [np.from_dlpack(t) for t in (x, y, z)]
    # ten calls a turn: alternating single calls would have each evict the other's arrays from the cache
    candidates = {"tapegrad": lambda: x + y, "into": lambda: np.add(a, b, out=out), "new": lambda: np.add(a, b)}
    times = alternate(candidates, rounds=60, inner=10)
    share = max(ratio(times, "tapegrad", "into"), ratio(times, "tapegrad", "new"))
    least = {name: min(values) * 1e6 for name, values in times.items()}
    numpy = f"NumPy {least['new']:.0f}, with out= {least['into']:.0f}"
    words = f"add {least['tapegrad']:.0f} µs, {numpy}, {share:.2f} of the faster (median of ratios)"
    parts = [Outcome(words, share <= 1.0)]
    names = ("exp", "tanh", "sigmoid")
    functions = {name: getattr(tg, name) for name in names}
    times = alternate({name: lambda f=f: f(x) for name, f in functions.items()}, rounds=60, inner=10)
    least = {name: min(times[name]) / x.size * 1e9 for name in names}
    words = ", ".join(f"{name} {value:.2f}" for name, value in least.items())
    return [*parts, Outcome(f"{words} ns", max(least.values()) <= 0.3)]


def matmul(_options) -> list[Outcome]:
    """1024³ by tapegrad, by the same OpenBLAS called through ctypes, and by NumPy."""
    n = 1024
    rng = np.random.default_rng(0)
    x, y, z = [tg.tensor(draw) for draw in rng.standard_normal((3, n, n), dtype=np.float32)]
    # NumPy's own arrays begin 16 bytes into a page, which costs BLAS 1.5 %: not what is compared here
    a, b, c = [np.from_dlpack(t) for t in (x, y, z)]
    integer, real, pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    kinds = (integer,) * 6 + (real, pointer, integer, pointer, integer, real, pointer, integer)
    sgemm = ctypes.CFUNCTYPE(None, *kinds)(blas.address("sgemm"))
    row_major, plain = 101, 111
    arguments = (row_major, plain, plain, n, n, n, 1.0, a.ctypes.data, n, b.ctypes.data, n, 0.0, c.ctypes.data, n)
    times = alternate(
        {"tapegrad": lambda: x @ y, "direct": lambda: sgemm(*arguments), "NumPy": lambda: np.matmul(a, b, out=c)},
        rounds=60,
    )
    share = ratio(times, "tapegrad", "direct")
    speed = {name: 2 * n**3 / min(values) / 1e9 for name, values in times.items()}
    words = ", ".join(f"{name} {value:.0f}" for name, value in speed.items())
    return [Outcome(f"{share:.3f} of the direct call's time (median); GFLOP/s: {words}", share <= 1.03)]


def importing(_options) -> list[Outcome]:
    """`import tapegrad` in fresh processes, and what it brought along."""
    watched = ("numba", "matplotlib", "scipy")
    listing = f"import sys, tapegrad; print(*(n for n in {watched} if n in sys.modules))"
    with tempfile.TemporaryDirectory(prefix="tapegrad-bench-") as cache:
        seconds = statistics.median(float(fresh.code(fresh.IMPORT, cache)[1]) for _ in range(11))
        said = fresh.code(listing, cache)[1].split()
    words = f"; imports {', '.join(said)}" if said else f"; imports none of {', '.join(watched)}"
    return [Outcome(f"{seconds:.2f} s (median of 11){words}", seconds <= 0.35 and not said)]


def first_step(_options) -> list[Outcome]:
    """Whole processes, from start to exit, with an empty and with a filled kernel cache."""
    with tempfile.TemporaryDirectory(prefix="tapegrad-bench-") as folder:
        cold = statistics.median(fresh.code(fresh.FIRST_STEP, Path(folder, str(i)))[0] for i in range(5))
        warm = statistics.median(fresh.code(fresh.FIRST_STEP, Path(folder, "0"))[0] for _ in range(11))
    return [Outcome(f"{cold:.1f} s", cold <= 6), Outcome(f"{warm:.2f} s (medians of 5 and 11 processes)", warm <= 1)]


def tests(options) -> list[Outcome]:
    """The README's test line, after installation."""
    if not options.tests:
        return [Outcome("not measured (--tests)", None)]
    seconds, said = fresh.run(("-m", "pytest", "-q", "-n", "auto"))
    return [Outcome(f"{seconds / 60:.1f} min, {said.strip().splitlines()[-1].strip(' =')}", seconds <= 900)]


FIGURES: list[tuple[str, str, Callable[[argparse.Namespace], list[Outcome]]]] = [
    ("main job, MLP 784-256-10, shipped subset, fresh cache, whole command after installation",
     "≤ 15 s, test accuracy ≥ 94 %; full MNIST, MLP 784-1024-1024-10, 3 epochs: ≥ 97.8 %", main_job),
    ("op outside a session, 8×8 float32, forward / forward+backward per op", "≤ 3 / ≤ 8 µs", small_ops),
    ("elementwise 1 M float32: add at memory speed, exp, tanh, sigmoid",
     "≤ NumPy's add; ≤ 0.3 ns per element, one thread", elementwise),
    ("matmul 1024³ float32", "within 3 % of calling BLAS directly", matmul),
    ("`import tapegrad`", "≤ 0.35 s, without importing numba.cuda, matplotlib, or scipy's heavy parts", importing),
    ("first training step of the MLP, cold cache / warm cache", "≤ 6 s / ≤ 1 s", first_step),
    ("tests", "≤ 15 min on 2 cores", tests),
]  # fmt: skip


def verdict(parts: list[Outcome]) -> str:
    """What the parts say together."""
    known = [part.met for part in parts if part.met is not None]
    if not known:
        return "not measured"
    return "missed" if not all(known) else "met" if len(known) == len(parts) else "met as far as measured"


def report(options) -> str:
    """The document."""
    load_before = os.getloadavg()[0]
    tg.set_num_threads(1)
    lines = [HEAD, "| what | bar | measured | |", "|---|---|---|---|"]
    for what, bar, measure in FIGURES:
        if options.only and options.only not in what:
            continue
        parts = measure(options)
        lines.append(f"| {what} | {bar} | {'; '.join(part.text for part in parts)} | {verdict(parts)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    if not options.only:
        lines += [EXPLAINED, *training_steps(), THREADS, *second_thread()]
    return "\n".join([*lines, "", "Measured on:", "", *machine(load_before), ""])


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the report there as well")
    parser.add_argument("--full", action="store_true", help="train on the full MNIST set, too")
    parser.add_argument("--tests", action="store_true", help="time the test suite, too")
    parser.add_argument("--only", metavar="WORD", help="only figures whose name contains this")
    options = parser.parse_args()
    text = report(options)
    print(text)
    if options.write:
        kept = sections(options.write, "side by side")  # another command's part of the document
        options.write.write_text(text + ("\n" + kept if kept else ""), encoding="utf-8")


def restart_clean() -> None:
    """Start again without what narrows OpenBLAS: NumPy's has read the environment while this module was imported."""
    if os.environ.pop("_TAPEGRAD_FIGURES", None) is None:
        environment = {k: v for k, v in os.environ.items() if k not in (*FORCING, "TAPEGRAD_NUM_THREADS")}
        environment |= {"OPENBLAS_NUM_THREADS": "1", "_TAPEGRAD_FIGURES": "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


if __name__ == "__main__":
    restart_clean()
    main()
