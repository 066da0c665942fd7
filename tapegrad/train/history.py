"""What came of a training: one row of numbers for each epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator


class History:
    """Rows of named numbers, one an epoch.

    >>> h = History()
    >>> h.add({"epoch": 1, "loss": 0.5}); h.add({"epoch": 2, "loss": 0.25})
    >>> h["loss"]
    [0.5, 0.25]
    >>> print(h)
    epoch    loss
        1  0.5000
        2  0.2500
    """

    def __init__(self, rows: list[dict[str, float]] | None = None):
        self.rows: list[dict[str, float]] = rows or []

    def add(self, row: dict[str, float]) -> None:
        """One more row."""
        self.rows.append(dict(row))

    def __getitem__(self, name: str) -> list[float]:
        return [row[name] for row in self.rows if name in row]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, float]]:
        return iter(self.rows)

    def copy(self) -> History:
        """One that grows by itself."""
        return History([dict(row) for row in self.rows])

    @property
    def columns(self) -> list[str]:
        """The names of all numbers, in the order in which they first came."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def __str__(self) -> str:
        columns = self.columns
        cells = [columns, *[[shown(row[c]) if c in row else "" for c in columns] for row in self.rows]]
        widths = [max(len(line[k]) for line in cells) for k in range(len(columns))]
        return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells)

    def __repr__(self) -> str:
        return f"History({len(self.rows)} epochs: {', '.join(self.columns)})"


def shown(value: float) -> str:
    """A number for people: whole ones as they are, others with four significant digits.

    >>> shown(3), shown(0.123456), shown(1e-6), shown(float("nan"))
    ('3', '0.1235', '1.000e-06', 'nan')
    """
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and 1000 <= abs(value) < 1e15:
        return str(int(value))
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.3e}"
