"""Named columns of equal length: what a reader of records returns."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import DataError, IndexOutOfRange


class Table:
    """Columns by name, each an array whose first axis is the record.

    A name gives a column, a list of names a smaller table, an int one record as a dict, a slice or an array of indices
    or booleans a table of these records. Columns are kept as they are, not copied. DataError where lengths differ, where
    there is no column or none of a name.

    >>> table = Table({"height": [1.62, 1.80], "name": ["Ada", "Bo"]})
    >>> len(table), table.columns
    (2, ('height', 'name'))
    >>> table["height"]
    array([1.62, 1.8 ])
    >>> table[1]
    {'height': np.float64(1.8), 'name': np.str_('Bo')}
    >>> table.array(["height"], dtype=np.float32)
    array([[1.62],
           [1.8 ]], dtype=float32)
    """

    def __init__(self, columns: Mapping[str, Any]):
        self.data: dict[str, np.ndarray] = {str(name): np.asarray(column) for name, column in columns.items()}
        if not self.data:
            raise DataError("Table: no column was given; give one or more, as in Table({'height': heights}).")
        for name, column in self.data.items():
            if column.ndim == 0:
                raise DataError(f"Table: column {name!r} is a single value; wanted is an array of one entry a record.")
        if len({len(column) for column in self.data.values()}) > 1:
            lengths = ", ".join(f"{name!r} {len(column)}" for name, column in self.data.items())
            raise DataError(f"Table: the columns must have the same length, and have {lengths}.")

    @property
    def columns(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(self.data)

    def __len__(self) -> int:
        return len(next(iter(self.data.values())))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return self.column(index)
        if isinstance(index, list) and index and all(isinstance(name, str) for name in index):
            return Table({name: self.column(name) for name in index})
        try:
            found = {name: column[index] for name, column in self.data.items()}
        except IndexError:
            raise IndexOutOfRange(f"Table: index {index!r} is not among its {len(self)} records.") from None
        return found if hasattr(index, "__index__") else Table(found)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of the records `indices`, int64 (N,): a batch."""
        return {name: column.take(indices, axis=0) for name, column in self.data.items()}

    def column(self, name: str) -> np.ndarray:
        """The column of that name; DataError, with near names, where there is none."""
        if name not in self.data:
            raise DataError(f"there is no column {name!r}. {near(name, self.columns)}")
        return self.data[name]

    def array(self, columns: Iterable[str] | None = None, dtype: Any = None) -> np.ndarray:
        """Columns side by side, (N, C): all numeric ones unless named. DataError for one that is no number."""
        if columns is None:
            names = [name for name, column in self.data.items() if column.dtype.kind in "biuf"]
        else:
            names = [columns] if isinstance(columns, str) else list(columns)
        picked = [self.column(name) for name in names]
        if not picked:
            raise DataError("Table.array: no column is numeric; name those that are wanted.")
        for name, column in zip(names, picked):
            if column.dtype.kind not in "biuf":
                raise DataError(
                    f"Table.array: column {name!r} holds {column.dtype}, not numbers; turn it into numbers first, with "
                    "data.preprocess.Categories or OneHot."
                )
        out = np.empty((len(self), sum(int(np.prod(c.shape[1:])) for c in picked)), dtype or np.result_type(*picked))
        place = 0
        for column in picked:
            flat = column.reshape(len(column), -1)
            out[:, place : place + flat.shape[1]] = flat
            place += flat.shape[1]
        return out

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        columns = ", ".join(
            f"{name}: {column.dtype}{column.shape[1:] if column.ndim > 1 else ''}" for name, column in self.data.items()
        )
        return f"Table({len(self)} records: {columns})"


def near(name: Any, names: Iterable[str]) -> str:
    """A sentence that lists the names near to one that does not exist.

    >>> near("hight", ["height", "name"])
    'Did you mean height? There are height, name.'
    """
    names = list(names)
    close = difflib.get_close_matches(str(name), names, 3)
    listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return (f"Did you mean {' or '.join(close)}? " if close else "") + f"There are {listed or 'none'}."
