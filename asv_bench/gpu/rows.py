"""Rows of the report, and how their times are taken."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..document import Outcome

DEVICE = "cuda:0"


@dataclass(frozen=True)
class Row:
    """A line of the table. `measure` is called on a machine with a GPU, once; late: after the rows that are not."""

    what: str
    bar: str
    measure: Callable[[], Outcome]
    late: bool = False


class NotMeasured(Exception):
    """Why a row cannot be measured, in a sentence."""


def wait() -> None:
    """Until everything that was asked of the GPU is done, by tapegrad and by PyTorch."""
    import torch

    from tapegrad import cuda

    cuda.synchronize(DEVICE)
    torch.cuda.synchronize()


def device_seconds(
    candidates: dict[str, Callable[[], object]], rounds: int = 7, span: float = 0.02
) -> dict[str, float]:
    """Least seconds of a call of each candidate on the device, the candidates taking turns.

    So many calls are put into the queue at once that they take `span` seconds, and the time until all are done is shared
    among them: where a call is longer on the device than on the host, that is its time on the device.
    """
    counts = {}
    for name, call in candidates.items():
        for _ in range(3):  # compile, plan, capture
            call()
        wait()
        start = time.perf_counter()
        call()
        wait()
        counts[name] = max(3, min(2000, int(span / (time.perf_counter() - start))))
    least = dict.fromkeys(candidates, float("inf"))
    for i in range(rounds):
        for name in list(candidates)[:: 1 if i % 2 else -1]:
            call = candidates[name]
            wait()
            start = time.perf_counter()
            for _ in range(counts[name]):
                call()
            wait()
            least[name] = min(least[name], (time.perf_counter() - start) / counts[name])
    return least


def host_seconds(call: Callable[[], object], rounds: int = 30, calls: int = 50) -> float:
    """Least seconds of a call on the host: so few calls at once that the queue does not fill, none waited for."""
    for _ in range(10):
        call()
    least = float("inf")
    for _ in range(rounds):
        wait()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        least = min(least, (time.perf_counter() - start) / calls)
    wait()
    return least


def short(seconds: float) -> str:
    """A time with its unit.

    >>> short(2.5e-5), short(0.0123)
    ('25 µs', '12.3 ms')
    """
    for unit, name in ((1e-6, "µs"), (1e-3, "ms")):
        if seconds < 1000 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"
