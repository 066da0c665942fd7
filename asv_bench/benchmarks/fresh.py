"""Runs code in fresh processes: what import, the first step, and a whole command cost. No benchmark is in this file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from . import FORCING

SETTINGS = (
    *FORCING,
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "TAPEGRAD_NUM_THREADS",
    "TAPEGRAD_MEMORY_LIMIT",
    "TAPEGRAD_DATA",
)

IMPORT = """
import time
start = time.perf_counter()
import tapegrad
print(time.perf_counter() - start)
"""

# The main job's network, from nothing to the end of its first step.
FIRST_STEP = """
import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import nn, optim
model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
optimizer = optim.Adam(model.parameters())
loss = F.cross_entropy(model(tg.normal(size=(64, 784))), tg.arange(64) % 10)
optimizer.zero_grad()
loss.backward()
optimizer.step()
print(loss.item())
"""


def run(arguments: Iterable[str], cache: str | Path | None = None, **settings: str) -> tuple[float, str]:
    """Run this Python with those arguments; the seconds from start to end, and what it printed.

    It imports the tapegrad that this process would. Settings of threads, data and BLAS are its own defaults, unless
    given as keywords; the kernel cache is `cache`, or the usual one.
    """
    spec = find_spec("tapegrad")
    if spec is None or spec.origin is None:
        raise ImportError("tapegrad is not importable; install it, or run from the repository's root")
    environment = {k: v for k, v in os.environ.items() if k not in SETTINGS} | settings
    environment["PYTHONPATH"] = str(Path(spec.origin).parents[1])
    if cache is not None:
        environment["TAPEGRAD_CACHE"] = str(cache)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        said = done.stdout[-2000:] + done.stderr[-4000:]
        raise RuntimeError(f"{' '.join(arguments)[:80]}: exit status {done.returncode}\n{said}")
    return seconds, done.stdout


def code(text: str, cache: str | Path | None = None, **settings: str) -> tuple[float, str]:
    """`run` for a piece of code."""
    return run(("-c", text), cache, **settings)
