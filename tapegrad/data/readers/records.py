"""Collections of other libraries, taken for what they do: a length and slices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ...errors import DataError, DtypeError
from ..table import Table, near
from .json_lines import column_of


def read_records(
    dataset: Any, *, columns: Iterable[str] | None = None, start: int = 0, stop: int | None = None
) -> Table:
    """Records `start` to `stop` of anything with `__len__` and slices, as a table.

    A slice of it may give a mapping from names to columns (Hugging Face `datasets`), something with `columns` (frames of
    pandas and polars), or a list of dicts. What has no slices is asked for each record. DataError where it is empty or a
    column cannot be an array.

    >>> people = [{"name": "Ada", "height": 1.62}, {"name": "Bo", "height": 1.8}]
    >>> read_records(people, columns=["height"])["height"]
    array([1.62, 1.8 ])
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DtypeError(
            f"read_records: a {type(dataset).__name__} has no __len__ and __getitem__, so it holds no records."
        )
    count = len(dataset)
    stop = count if stop is None else min(stop, count)
    if not 0 <= start < stop:
        raise DataError(f"read_records: records {start} to {stop} of {count} are none.")
    found = _slice(dataset, start, stop)
    names = list(found)
    wanted = names if columns is None else [columns] if isinstance(columns, str) else list(columns)
    for column in wanted:
        if column not in found:
            raise DataError(f"read_records: there is no column {column!r}. {near(column, names)}")
    return Table({name: _array(found[name], f"read_records: column {name!r}") for name in wanted})


def _slice(dataset: Any, start: int, stop: int) -> Mapping[str, Any]:
    try:
        part = dataset[start:stop]
    except (TypeError, KeyError):
        part = [dataset[i] for i in range(start, stop)]
    if isinstance(part, Table):
        return part.data
    if isinstance(part, Mapping):
        return part
    if hasattr(part, "columns"):
        return {str(name): np.asarray(part[name]) for name in part.columns}
    records = list(part)
    if not all(isinstance(record, Mapping) for record in records):
        raise DtypeError(
            f"read_records: a record is a {type(records[0]).__name__}; wanted are records that are dicts from name to value."
        )
    keys = dict.fromkeys(key for record in records for key in record)
    return {key: [record.get(key) for record in records] for key in keys}


def _array(values: Any, where: str) -> np.ndarray:
    if isinstance(values, np.ndarray) and values.dtype != object:
        return values
    return column_of([_plain(value) for value in values], where)


def _plain(value: Any) -> Any:
    """A Python value; None for what pandas puts where one is missing, among texts too: NaN, and a kind of its own."""
    if isinstance(value, np.generic):
        value = value.item()
    missing = type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    return None if missing else value
