"""A contender in a process of its own: `python -m asv_bench.peers.child CONTENDER THREADS`.

It answers lines of JSON on its standard input with lines of JSON: build a task and give its results, run it for a turn,
say what it is. While it waits for a line it holds no lock and runs nothing.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path

from ..benchmarks import FORCING


def confine(threads: int) -> None:
    """Run on as many CPUs as threads, before any library counts them; JAX has no other way to be told."""
    for name in FORCING:
        os.environ.pop(name, None)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TAPEGRAD_NUM_THREADS"):
        os.environ[name] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


class Tapegrad:
    """tapegrad, in a session or eagerly."""

    def __init__(self, session: bool):
        import tapegrad as tg

        from ..benchmarks import tasks_tapegrad

        self.session, self.tasks = session, tasks_tapegrad
        self.version = f"tapegrad {tg.__version__}"

    def build(self, task):
        """The task, ready to run."""
        return self.tasks.build(task, self.session)

    def figures(self, made) -> dict:
        """The session's figures, and the blocks that the pool makes in 20 more steps."""
        return self.tasks.figures(made)

    def profile(self, made) -> list:
        """Where a replayed step's time goes."""
        return self.tasks.profile(made)

    def limits(self, copied: list[int]) -> dict:
        """What this machine reaches on these threads."""
        from . import limits

        return {"flops": limits.product(), "bytes": [limits.stream(size) for size in copied]}


class PyTorch:
    """PyTorch, eager or compiled."""

    def __init__(self, compiled: bool, threads: int):
        from . import torch_

        torch_.prepare(threads)
        self.compiled, self.tasks, self.version = compiled, torch_, torch_.VERSION

    def build(self, task):
        """The task, ready to run."""
        return self.tasks.build(task, self.compiled)


class Jax:
    """JAX."""

    def __init__(self, threads: int):
        from . import jax_

        jax_.prepare(threads)
        self.tasks, self.version = jax_, jax_.VERSION

    def build(self, task):
        """The task, ready to run."""
        return self.tasks.build(task)


def contender(name: str, threads: int):
    """The contender of that name."""
    if name.startswith("tapegrad"):
        return Tapegrad(name == "tapegrad")
    if name.startswith("torch"):
        return PyTorch(name == "torch.compile", threads)
    return Jax(threads)


def turn(made, seconds: float, inner: int) -> list[float]:
    """Seconds per step of batches of `inner` steps, for about so many seconds, after a first batch that is not counted.

    A step's output is held until the next one's is there, as a loop that says `loss = step()` does.
    """
    step, wait = made.step, getattr(made, "wait", lambda: None)
    held = None
    gc.collect()
    gc.disable()
    for _ in range(inner):
        held = step()
    wait()
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(inner):
            held = step()
        wait()
        times.append((time.perf_counter() - start) / inner)
    gc.enable()
    del held
    return times


class Answers:
    """What a child can be asked for."""

    def __init__(self, name: str, threads: int):
        self.contender, self.made = contender(name, threads), None

    def hello(self) -> dict:
        """What this is."""
        return {"version": self.contender.version}

    def build(self, task: str, results: str) -> dict:
        """Build a task and write its results; the seconds that building and a first step took."""
        import numpy as np

        from ..benchmarks.tasks import TASKS

        self.made = None
        gc.collect()
        chosen = TASKS[task]
        self.made = self.contender.build(chosen)
        np.savez(Path(results), **self.made.results(chosen.steps))
        return {}

    def rest(self) -> dict:
        """Let go of the task: other contenders' memory is not to be short of it."""
        self.made = None
        gc.collect()
        return {}

    def turn(self, seconds: float, inner: int) -> dict:
        """Times of one turn."""
        return {"times": turn(self.made, seconds, inner)}

    def figures(self) -> dict:
        """What the contender says of the steps so far."""
        return self.contender.figures(self.made)

    def profile(self) -> dict:
        """Where the time of a step goes."""
        return {"kernels": self.contender.profile(self.made)}

    def limits(self, copied: list[int]) -> dict:
        """The machine's."""
        return self.contender.limits(copied)

    def first(self, task: str) -> dict:
        """Seconds from the first call of the task's step until the step after is as fast as it will be."""
        from ..benchmarks.tasks import TASKS

        self.made = self.contender.build(TASKS[task])
        ready = getattr(self.made, "ready", lambda: True)
        start = time.perf_counter()
        for _ in range(20):
            held = self.made.step()
            getattr(self.made, "wait", lambda: None)()
            if ready():
                break
        else:
            raise RuntimeError("not ready after 20 steps")
        del held
        return {"seconds": time.perf_counter() - start}


def main() -> None:
    """Answer until the input ends."""
    threads = int(sys.argv[2])
    confine(threads)
    # what libraries print goes to the error stream: the answers have the output for themselves
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    holder = None
    for line in sys.stdin:
        call, arguments = json.loads(line)
        try:
            holder = holder or Answers(sys.argv[1], threads)
            answer = getattr(holder, call)(**arguments)
        except NotImplementedError as error:
            answer = {"failed": str(error)}
        except Exception as error:  # noqa: BLE001  a contender that fails is reported, and the others go on
            answer = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
