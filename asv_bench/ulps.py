"""Prints the largest error of each float32 vector function, in ulps, as a Markdown table.

    python asv_bench/ulps.py [--exhaustive] [name ...]

Samples one float in 499 of all 2^32 and every float around the branch points, or with --exhaustive tries every float
(one to four minutes a function). Functions of two operands are sampled on five distributions. Times are the least of
many runs over 2^20 elements, one thread, on arguments from the function's everyday range.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from test_vecmath import BOUND, BRANCHES, EXACT, Loop, compiled, every, neighbourhoods, pairs, worst  # noqa: E402

CHUNK = 1 << 20
POSITIVE = (1e-3, 1e3)
EVERYDAY = {"log": POSITIVE, "log2": POSITIVE, "log10": POSITIVE, "rsqrt": POSITIVE, "log1p": (-0.9, 100.0),
            "arcsin": (-1.0, 1.0), "arccos": (-1.0, 1.0), "pow": (0.1, 10.0), "sin": (-100.0, 100.0),
            "cos": (-100.0, 100.0), "tan": (-100.0, 100.0)}  # fmt: skip


def largest(name: str, kernel: Loop, exhaustive: bool) -> tuple[float, tuple]:
    """The largest error found and its argument."""
    if name in ("pow", "arctan2"):
        sets = pairs(np.random.default_rng(), 4 * CHUNK if exhaustive else CHUNK).values()
        return max(worst(name, kernel, x.astype(np.float32), y.astype(np.float32)) for x, y in sets)
    if exhaustive:
        chunks = (
            np.arange(start, start + CHUNK, dtype=np.uint64).astype(np.uint32).view(np.float32)
            for start in range(0, 2**32, CHUNK)
        )
    else:
        sample = every(499, int(np.random.default_rng().integers(499)))
        chunks = iter(np.array_split(np.concatenate([sample, neighbourhoods(BRANCHES, radius=5000)]), 9))
    return max(worst(name, kernel, x) for x in chunks)


def nanoseconds(name: str, kernel: Loop, rounds: int = 50) -> float:
    """Least time per element."""
    low, high = EVERYDAY.get(name, (-4.0, 4.0))
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(low, high, CHUNK).astype(np.float32) for _ in range(2 if name in ("pow", "arctan2") else 1)]
    out = np.empty_like(arrays[0])
    pointers = [a.ctypes.data for a in (*arrays, out)]
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        kernel.call(*pointers, CHUNK)
        best = min(best, time.perf_counter() - start)
    return best / CHUNK * 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exhaustive", action="store_true", help="try every float32")
    parser.add_argument("names", nargs="*", metavar="name", help="functions to measure; all if none is given")
    options = parser.parse_args()
    print("| function | bound | largest error, ulp | at | ns per element |\n|---|---|---|---|---|")
    for name in options.names or EXACT:
        kernel = compiled(name)
        error, at = largest(name, kernel, options.exhaustive)
        where = ", ".join(f"{v:.9g}" for v in at)
        print(f"| `{name}` | {BOUND[name]:g} | {error:.3f} | {where} | {nanoseconds(name, kernel):.2f} |", flush=True)


if __name__ == "__main__":
    main()
