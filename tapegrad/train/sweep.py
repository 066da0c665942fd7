"""Several trainings: one after the other or side by side, and tables of what came of them."""

from __future__ import annotations

import itertools
import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..errors import TrainingError
from ..ops.random import seed as start_random
from .history import shown


class Results:
    """One row for each training: its settings, then what it gave. A failed one has "error" in place of that.

    >>> r = Results([{"lr": 0.1, "loss": 0.5}, {"lr": 0.2, "loss": 0.3}])
    >>> r.best("loss")
    {'lr': 0.2, 'loss': 0.3}
    >>> print(r)
        lr    loss
    0.1000  0.5000
    0.2000  0.3000
    """

    def __init__(self, rows: list[dict[str, Any]]):
        self.rows = rows

    def best(self, name: str, mode: str = "min") -> dict[str, Any]:
        """The row with the smallest ("min") or largest ("max") value of that name."""
        usable = [r for r in self.rows if isinstance(r.get(name), int | float) and not math.isnan(r[name])]
        if not usable:
            raise TrainingError(f"Results: no training gave a {name!r}")
        return (min if mode == "min" else max)(usable, key=lambda r: r[name])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [columns, *[[_cell(row.get(c, "")) for c in columns] for row in self.rows]]
        widths = [max(len(line[k]) for line in lines) for k in range(len(columns))]
        return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines)


def _cell(value: Any) -> str:
    return shown(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def grid(**choices: Iterable[Any]) -> list[dict[str, Any]]:
    """All combinations of settings.

    >>> grid(lr=[0.1, 0.2], layers=[1])
    [{'lr': 0.1, 'layers': 1}, {'lr': 0.2, 'layers': 1}]
    """
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def sweep(
    train: Callable[..., Mapping[str, Any]],
    settings: Iterable[Mapping[str, Any]],
    *,
    threads: int = 1,
    seed: int | None = 0,
) -> Results:
    """Call `train(**setting)` for each setting; the numbers that it returns make the table.

    threads: trainings side by side, each in a thread of its own; the table is the same. seed: random numbers start at seed + number
    in each training, which gets that as seed=, too, so that the table can be made again; None leaves both out. A training that
    raises gives a row with its error, and the others go on.
    """
    jobs = [dict(s) for s in settings]
    if not jobs:
        raise TrainingError("sweep: there are no settings")

    def one(number: int) -> dict[str, Any]:
        setting = jobs[number]
        extra = {} if seed is None or "seed" in setting else {"seed": seed + number}
        try:
            start = setting.get("seed", None if seed is None else seed + number)
            if start is not None:
                start_random(start)
            return {**setting, **train(**setting, **extra)}
        except Exception as error:  # noqa: BLE001  the table shows it
            last = traceback.extract_tb(error.__traceback__)[-1]
            return {**setting, "error": f"{type(error).__name__}: {error} ({last.name}, line {last.lineno})"}

    if threads == 1:
        return Results([one(k) for k in range(len(jobs))])
    with ThreadPoolExecutor(threads) as pool:
        return Results(list(pool.map(one, range(len(jobs)))))
