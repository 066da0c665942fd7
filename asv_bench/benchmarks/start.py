"""What a fresh process pays: import, and the first step with an empty and with a filled kernel cache."""

from __future__ import annotations

import statistics
import tempfile

from . import fresh


def timeraw_import():
    """asv runs this string in a new process for every sample."""
    return "import tapegrad"


class FirstStep:
    """Whole processes, from start to exit, that train MLP 784-256-10 for one step. Median of three."""

    timeout = 180
    unit = "s"

    def setup(self):
        self.filled = tempfile.TemporaryDirectory(prefix="tapegrad-bench-")

    def teardown(self):
        self.filled.cleanup()

    def track_cold_cache(self):
        times = []
        for _ in range(3):
            with tempfile.TemporaryDirectory(prefix="tapegrad-bench-") as empty:
                times.append(fresh.code(fresh.FIRST_STEP, empty)[0])
        return statistics.median(times)

    def track_warm_cache(self):
        fresh.code(fresh.FIRST_STEP, self.filled.name)
        return statistics.median(fresh.code(fresh.FIRST_STEP, self.filled.name)[0] for _ in range(3))


class Memory:
    """Of a process that only imports."""

    def peakmem_import(self):
        import tapegrad  # noqa: F401
