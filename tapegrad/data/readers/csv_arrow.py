"""CSV by pyarrow: the same table as the careful way, or none."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np

from ..table import Table
from .csv import FALSE, TRUE, Request, numbers, whole_numbers
from .strings import text_array

LONGEST_HEADER = 1 << 20  # bytes
BLOCK = 1 << 22  # bytes that one thread parses at a time


class _Odd(Exception):
    """Something that the careful way is left to judge."""


def read_by_arrow(request: Request) -> Table | None:
    """The table; None where pyarrow is not installed or anything is out of the ordinary.

    Where pyarrow's rules for what is a number, a date or a truth value differ from those of `read_csv`, the column is
    read as text and judged here.
    """
    if request.layout.encoding.lower() not in ("utf-8", "utf8", "utf_8", "ascii"):
        return None
    try:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv
    except ImportError:
        return None
    try:
        names, skip = _head(request)
        wanted = request.wanted(names)
        types = {name: _type(pa, request.dtype(name)) for name in wanted if request.dtype(name) is not None}
        table = _read(arrow_csv, request, names, skip, wanted, types)
        known = (pa.int64(), pa.float64(), pa.string(), pa.null())
        odd = [name for name in wanted if name not in types and table[name].type not in known]
        if odd:  # dates and truth values
            types.update({name: pa.string() for name in odd})
            table = _read(arrow_csv, request, names, skip, wanted, types)
        if not table.num_rows:
            return None
        return Table({name: _column(table[name], request.dtype(name)) for name in wanted})
    except (pa.ArrowException, _Odd, ValueError, OverflowError, csv.Error):
        return None


def _head(request: Request) -> tuple[list[str], int]:
    """The names of the columns, and the lines above the first record."""
    layout = request.layout
    with layout.open() as stream:
        for _ in range(layout.skip_rows):
            stream.readline(LONGEST_HEADER)
        line = stream.readline(LONGEST_HEADER)
    text = line.decode("utf-8-sig").rstrip("\r\n")
    if not line.endswith(b"\n") or not text or text.count('"') % 2 or "\r" in text:
        raise _Odd
    first = next(csv.reader([text], delimiter=layout.delimiter, strict=True))
    return layout.column_names(first), layout.skip_rows + int(layout.header)


def _read(arrow_csv: Any, request: Request, names: list[str], skip: int, wanted: list[str], types: dict) -> Any:
    read = arrow_csv.ReadOptions(column_names=names, skip_rows=skip, block_size=BLOCK)
    parse = arrow_csv.ParseOptions(delimiter=request.layout.delimiter, newlines_in_values=True)
    convert = arrow_csv.ConvertOptions(
        column_types=types,
        include_columns=wanted,
        null_values=sorted(request.missing),
        strings_can_be_null=True,
        true_values=list(TRUE),
        false_values=list(FALSE),
    )
    with request.layout.open() as stream:
        return arrow_csv.read_csv(stream, read_options=read, parse_options=parse, convert_options=convert)


def _type(pa: Any, dtype: np.dtype | None) -> Any:
    assert dtype is not None
    if dtype.kind in "UO":
        return pa.string()
    if dtype.kind == "f":  # rounded once, to float64, then to what is wanted, as the careful way does
        return pa.float64()
    return pa.from_numpy_dtype(dtype)


def _column(column: Any, dtype: np.dtype | None) -> np.ndarray:
    """The array of an arrow column; _Odd where a value is missing that must not be."""
    kind = str(column.type)
    if dtype is not None and dtype.kind in "biu":
        if column.null_count:
            raise _Odd
        found: np.ndarray = column.to_numpy()
        return found
    if kind == "null":
        return np.full(len(column), np.nan, dtype or np.float64)
    if kind != "string":
        found = column.to_numpy()
        return found.astype(np.float64 if column.null_count else found.dtype, copy=False).astype(
            dtype or (np.float64 if column.null_count else found.dtype), copy=False
        )
    texts = ["" if text is None else text for text in column.to_pylist()]
    if dtype is None:
        gaps = column.null_count
        try:
            return numbers([text or "nan" for text in texts]) if gaps else whole_numbers(texts)
        except (ValueError, OverflowError):
            try:
                return numbers([text or "nan" for text in texts])
            except ValueError:
                pass
    return text_array(texts)
