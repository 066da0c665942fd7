"""Parquet files by pyarrow (`pip install 'tapegrad[parquet]'`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ...errors import DataError
from ..extras import extra
from ..sources.source import as_source
from ..table import Table, near
from .json_lines import column_of


def read_parquet(source: Any, *, columns: Iterable[str] | None = None) -> Table:
    """The table in a Parquet file. Only the wanted `columns` are read.

    Missing values are NaN among numbers and "" among texts; a column of lists must have lists of numbers of one length.
    DataError where the file is missing or damaged, a column does not exist or cannot be an array.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import pyarrow as pa, pyarrow.parquet as pq
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pq.write_table(pa.table({"x": [1, 2], "y": ["a", None]}), Path(folder, "a.parquet"))
    ...     read_parquet(Path(folder, "a.parquet"))
    Table(2 records: x: int64, y: <U1)
    """
    pa = extra("pyarrow", "parquet", "read_parquet")
    parquet = extra("pyarrow.parquet", "parquet", "read_parquet")
    source = as_source(source)
    try:
        with parquet.ParquetFile(source.path()) as file:
            found = file.schema_arrow.names
            wanted = found if columns is None else [columns] if isinstance(columns, str) else list(columns)
            for column in wanted:
                if column not in found:
                    raise DataError(f"read_parquet: {source.name} has no column {column!r}. {near(column, found)}")
            table = file.read(columns=wanted)
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError) as reason:
        raise DataError(f"read_parquet: {source.name} is no Parquet file, or a damaged one ({reason}).") from reason
    if not table.num_rows:
        raise DataError(f"read_parquet: {source.name} holds no record.")
    return Table({name: _array(table[name], f"read_parquet: {source.name}, column {name!r}") for name in wanted})


def _array(column: Any, where: str) -> np.ndarray:
    kind = str(column.type)
    floating = kind.startswith(("float", "double", "halffloat"))  # whose missing values come as NaN
    if floating or (kind.startswith(("int", "uint", "bool")) and not column.null_count):
        found: np.ndarray = column.to_numpy()
        return found
    if kind.startswith(("timestamp", "date", "time", "duration", "decimal", "struct", "map", "binary")):
        raise DataError(f"{where} holds {kind}; turn it into numbers or text before it is written.")
    return column_of(column.to_pylist(), where)
