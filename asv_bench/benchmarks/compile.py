"""What compiling costs, which is paid once: kernels found on disk, derivatives of users' functions, plans of sessions."""

from __future__ import annotations

import statistics
import tempfile
import time

from . import fresh
from .tasks import TASKS
from .tasks_tapegrad import build

LOADED = 200  # kernels
LOADING = f"""
import time
from tapegrad.kernels import jit

text = "define i32 @kernel(ptr %p, i64 %b, i64 %e) {{\\nentry:\\n  ret i32 0\\n}}\\n"
jit.load("kernel", "the first, which imports llvmlite", lambda: text)
start = time.perf_counter()
for i in range({LOADED}):
    jit.load("kernel", f"kernel {{i}}", lambda: text)
print((time.perf_counter() - start) / {LOADED} * 1e3)
"""


class Load:
    """A kernel that an earlier process compiled, from look-up to address. Median of three processes."""

    unit = "ms"

    def setup(self):
        self.folder = tempfile.TemporaryDirectory(prefix="tapegrad-bench-")
        fresh.code(LOADING, self.folder.name)

    def teardown(self):
        self.folder.cleanup()

    def track_kernel_on_disk(self):
        return statistics.median(float(fresh.code(LOADING, self.folder.name)[1]) for _ in range(3))


class Derive:
    """A derivative of a jitted function with a loop and a branch, made by dual numbers, Numba being loaded. Median of five functions."""

    params = (1, 2, 3)
    param_names = ("order",)
    unit = "ms"

    def setup(self, order):
        self.derive("0.0", 1)

    def derive(self, constant: str, order: int) -> float:
        """Milliseconds that the derivative of that order takes, those below it being there."""
        from numba import njit

        from tapegrad.kernels.dual import partial

        space: dict = {}
        exec(
            f"def f(x):\n    y = x\n    for _ in range(5):\n        y = y * x + {constant} if y > 0 else x\n    return y\n",
            space,
        )
        f = njit(space["f"])
        for _ in range(order):
            f = partial(f, 0, 1)
            start = time.perf_counter()
            f(0.5)
        return (time.perf_counter() - start) * 1e3

    def track_derivative(self, order):
        return statistics.median(self.derive(f"{i}.5", order) for i in range(5))


class Plan:
    """Planning a session's training step, its kernels being loaded: a row's share."""

    params = ("MLP 8-16-16-1, batch 16, Adam", "transformer block d=128, 4 heads, T=64, B=8, forward+backward")
    param_names = ("task",)
    unit = "µs"

    def track_row(self, task):
        from tapegrad.plan import planner

        plan, shares = planner.plan, []

        def timed(rows):
            start = time.perf_counter()
            made = plan(rows)
            shares.append((time.perf_counter() - start) / len(rows.rows) * 1e6)
            return made

        planner.plan = timed  # type: ignore[assignment]
        try:
            for _ in range(5):
                made = build(TASKS[task])
                for _ in range(6):
                    made.step()
        finally:
            planner.plan = plan
        return min(shares)
