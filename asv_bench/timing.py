"""Times candidates in turn, so that a machine that slows down slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def alternate(candidates: dict[str, Callable[[], object]], rounds: int, inner: int = 1) -> dict[str, list[float]]:
    """Seconds per call of every candidate in every round; `inner` calls a round, after one unmeasured."""
    for call in candidates.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for i in range(rounds):
        # the order turns around from round to round: being after a particular candidate is no advantage
        for name in list(candidates)[:: 1 if i % 2 else -1]:
            call = candidates[name]
            start = time.perf_counter()
            for _ in range(inner):
                call()
            times[name].append((time.perf_counter() - start) / inner)
    return times


def ratio(times: dict[str, list[float]], of: str, to: str) -> float:
    """The median over the rounds of one candidate's time over another's."""
    return statistics.median(a / b for a, b in zip(times[of], times[to], strict=True))
