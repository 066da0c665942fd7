"""Sections: named fields of a sample, taken from columns or from stretches of a sequence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError, DtypeError, IndexOutOfRange
from .table import Table


class Span(NamedTuple):
    """A stretch of records, `length` of them from `offset` on, counted from where the sample begins.

    Without a length it is the one record there. `of`: the column or columns meant, where the source has several.
    """

    length: int | None = None
    offset: int = 0
    of: Any = None


class Sections:
    """Named fields of the records of `source`; sample `i` is a dict of them, or a tuple.

    A field is given as

    * the name of a column, or an int, of a table or a matrix: a value for each sample;
    * a list of names or ints, or a slice of a matrix's columns: these side by side, (C,) for each sample;
    * a `Span`: a stretch of records, for sequences; the next character after each is `Span(length, offset=1)`.

    Args:
        source: a `Table`, a dict of arrays, or an array whose first axis is the record.
        step: records from the beginning of one sample to that of the next.
        as_tuple: samples are tuples, in the order of the fields, instead of dicts.

    Nothing is copied until samples are asked for. DataError where a field names nothing, columns are no numbers and
    cannot stand side by side, or the source is too short for a single sample.

    >>> codes = np.arange(10)
    >>> data = Sections(codes, inputs=Span(4), targets=Span(4, offset=1), step=4)
    >>> len(data), data[1]
    (2, {'inputs': array([4, 5, 6, 7]), 'targets': array([5, 6, 7, 8])})
    >>> table = Table({"a": [1.0, 2.0], "b": [3.0, 4.0], "kind": [0, 1]})
    >>> Sections(table, inputs=["a", "b"], targets="kind", as_tuple=True)[0]
    (array([1., 3.]), np.int64(0))
    """

    def __init__(self, source: Any, *, step: int = 1, as_tuple: bool = False, **fields: Any):
        if not fields:
            raise DataError("Sections: no field was given; name one or more, as in inputs=['a', 'b'], targets='kind'.")
        if step < 1:
            raise DataError(f"Sections: step is {step}; a whole number from 1 is wanted.")
        if isinstance(source, Mapping):
            source = Table(source)
        elif not isinstance(source, Table | np.ndarray):
            source = np.asarray(source)
        if isinstance(source, np.ndarray) and (source.ndim == 0 or source.dtype == object):
            raise DtypeError("Sections: the source must be a table, a dict of arrays or an array of numbers or texts.")
        self.step, self.as_tuple, self.records = step, as_tuple, len(source)
        self.fields: dict[str, tuple[np.ndarray, Span]] = {}
        for name, field in fields.items():
            span = field if isinstance(field, Span) else Span(None, 0, field)
            if span.offset < 0 or (span.length is not None and span.length < 1):
                raise DataError(f"Sections: {name} is {span}; offset is from 0 and length from 1.")
            self.fields[name] = (_columns(source, span.of, name), span)
        reach = max(span.offset + (span.length or 1) for _, span in self.fields.values())
        if self.records < reach:
            raise DataError(f"Sections: a sample reaches over {reach} records, and the source has {self.records}.")
        self.count = (self.records - reach) // step + 1

    def __len__(self) -> int:
        return self.count

    def gather(self, indices: Any) -> Any:
        """The fields of samples `indices` (N,), each with the sample as first axis: a batch."""
        start = np.asarray(indices, np.int64) * self.step
        found = {}
        for name, (array, span) in self.fields.items():
            at = start + span.offset
            found[name] = array.take(at if span.length is None else at[:, None] + np.arange(span.length), axis=0)
        return tuple(found.values()) if self.as_tuple else found

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.gather(np.arange(*index.indices(len(self))))
        if isinstance(index, np.ndarray | list):
            return self.gather(np.arange(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexOutOfRange(f"Sections: sample {index} is not among its {len(self)}.")
        found = self.gather(np.array([index % len(self)]))
        return tuple(f[0] for f in found) if self.as_tuple else {name: f[0] for name, f in found.items()}

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{name}: {array.dtype} {(() if span.length is None else (span.length,)) + array.shape[1:]}"
            for name, (array, span) in self.fields.items()
        )
        return f"Sections({len(self)} samples of {fields})"


def _columns(source: Table | np.ndarray, of: Any, name: str) -> np.ndarray:
    """The array whose first axis is the record."""
    if isinstance(source, Table):
        if of is None:
            if len(source.columns) == 1:
                return source.column(source.columns[0])
            raise DataError(f"Sections: say which column {name} is of, as in Span(8, of='price'); there are several.")
        return source.column(of) if isinstance(of, str) else source.array(of)
    if of is None:
        return source
    if isinstance(of, str) or (isinstance(of, list) and any(isinstance(o, str) for o in of)):
        raise DataError(f"Sections: {name} is {of!r}, and the source is an array without names; give ints or a slice.")
    if source.ndim < 2:
        raise DataError(f"Sections: {name} is {of!r}, and the source has one axis; wanted is (records, columns).")
    try:
        picked: np.ndarray = source[:, of]
        return picked
    except IndexError:
        raise DataError(f"Sections: {name} is {of!r}, and the source has {source.shape[1]} columns.") from None
