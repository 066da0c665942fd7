"""JSON lines: one JSON object a line (https://jsonlines.org)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ...errors import DataError
from ..sources.compressed import open_content
from ..table import Table, near
from .strings import text_array


def iterate_jsonl(source: Any) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, plain or compressed, one at a time: the file may be larger than memory.

    Empty lines are skipped. DataError names the line that is no JSON object.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.jsonl").write_text('{"x": 1}\\n{"x": 2}\\n')
    ...     [record["x"] for record in iterate_jsonl(Path(folder, "a.jsonl"))]
    [1, 2]
    """
    name, stream = open_content(source)
    with stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as reason:
                raise DataError(
                    f"{name}, line {number} is no JSON ({reason}). Each line must be one object."
                ) from reason
            if not isinstance(record, dict):
                raise DataError(f"{name}, line {number} is a {type(record).__name__}; each line must be one object.")
            yield record


def read_jsonl(source: Any, *, columns: Iterable[str] | None = None) -> Table:
    """The table in a file of JSON lines: keys are columns.

    Values of a column must be of one kind: truth values, whole numbers, numbers, texts, or lists of numbers of one length.
    null, and a key that a record lacks, are NaN among numbers and "" among texts. DataError where a column holds
    anything else, and where no record has it.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.jsonl").write_text('{"x": [1, 2], "y": "a"}\\n{"x": [3, 4]}\\n')
    ...     read_jsonl(Path(folder, "a.jsonl"))
    Table(2 records: x: int64(2,), y: <U1)
    """
    records = list(iterate_jsonl(source))
    name = getattr(source, "name", None) or str(source)
    if not records:
        raise DataError(f"read_jsonl: {name} holds no record.")
    found = list(dict.fromkeys(key for record in records for key in record))
    wanted = found if columns is None else [columns] if isinstance(columns, str) else list(columns)
    for column in wanted:
        if column not in found:
            raise DataError(f"read_jsonl: {name} has no column {column!r}. {near(column, found)}")
    return Table(
        {key: column_of([r.get(key) for r in records], f"read_jsonl: {name}, column {key!r}") for key in wanted}
    )


def column_of(values: list[Any], where: str) -> np.ndarray:
    """A column of Python values, None for a missing one; DataError, which begins with `where`, if they do not fit."""
    kinds = {type(value) for value in values} - {type(None)}
    gaps = any(value is None for value in values)
    if kinds <= {str}:
        return (
            text_array(["" if value is None else value for value in values]) if kinds else np.full(len(values), np.nan)
        )
    if kinds <= {bool} and not gaps:
        return np.array(values)
    try:
        if kinds <= {int} and not gaps:
            return np.array(values, np.int64)
        if kinds <= {int, float}:
            return np.array([np.nan if value is None else value for value in values], np.float64)
        if not gaps and kinds <= {list, np.ndarray}:
            stacked = np.array(values)
            if stacked.dtype.kind in "biuf":
                return stacked
    except (ValueError, OverflowError):
        pass
    names = ", ".join(sorted(kind.__name__ for kind in kinds)) + (" and missing values" if gaps else "")
    raise DataError(
        f"{where} holds {names}; wanted are values of one kind: numbers, texts, or lists of numbers of one length."
    )
