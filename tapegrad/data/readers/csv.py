"""CSV and TSV files, read strictly: every record has the header's fields, every value its column's type.

Two ways lead to the same table. pyarrow's reader (`csv_arrow`) is fast; where it is not installed, or stumbles, Python's
csv module reads record by record, and either succeeds or says on which line it could not.
"""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, BinaryIO

import numpy as np

from ...errors import DataError, DtypeError
from ..sources.compressed import open_content, stem
from ..table import Table, near
from .strings import text_array

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
CHUNK = (
    1000  # records that are held as Python strings at once; more are slower, for the garbage collector walks them all
)
WANTED = {"b": "true or false", "i": "a whole number", "u": "a whole number from 0", "f": "a number"}
TRUE, FALSE = ("true", "True", "TRUE", "1"), ("false", "False", "FALSE", "0")


def read_csv(
    source: Any,
    *,
    columns: Iterable[str] | None = None,
    dtypes: Any = None,
    missing: Iterable[str] = MISSING,
    delimiter: str | None = None,
    header: bool = True,
    names: Iterable[str] | None = None,
    skip_rows: int = 0,
    encoding: str = "utf-8",
    fast: bool = True,
) -> Table:
    """The table in a file of delimited text, plain or compressed.

    Args:
        source: a path or a source.
        columns: names of those that are wanted, in the order wanted; all unless given.
        dtypes: of columns by name, or one for all. Others are found from the values: int64 where all are whole numbers,
            else float64 where all are numbers, else text. 0x1f is a whole number.
        missing: texts that stand for no value: NaN among numbers, "" among text. In a column whose dtype was given as
            whole numbers or bool, they are an error.
        delimiter: one character; a tab for files named .tsv or .tab, else a comma, unless given. Fields may be quoted
            by ".
        header: the first row holds the names. Where it does not, give `names`, or they are "0", "1", ….
        names: of the columns, instead of those in the header.
        skip_rows: lines above the header that are not part of the table. Empty lines are skipped everywhere.
        fast: use pyarrow where it is installed (`pip install 'tapegrad[parquet]'`); it gives the same table sooner, and lets
            text behind a closing quote pass.

    Raises:
        DataError: no such file, no record, a record of another number of fields, two columns of one name, an unknown
            column, a value that is not of its column's dtype. It names the file, the line and the column.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "p.csv").write_text("name,height\\nAda,1.62\\nBo,NA\\n")
    ...     read_csv(Path(folder, "p.csv"))["height"]
    array([1.62,  nan])
    """
    layout = Layout(source, delimiter, header, names, skip_rows, encoding)
    request = Request(layout, columns, dtypes, missing)
    if fast:
        from .csv_arrow import read_by_arrow

        table = read_by_arrow(request)
        if table is not None:
            return table
    return _read_with_care(request)


class Layout:
    """How the text is laid out."""

    def __init__(
        self,
        source: Any,
        delimiter: str | None,
        header: bool,
        names: Iterable[str] | None,
        skip_rows: int,
        encoding: str,
    ):
        self.source = source
        self.name = getattr(source, "name", None) or str(source)
        by_name = "\t" if stem(self.name).lower().endswith((".tsv", ".tab")) else ","
        self.delimiter = by_name if delimiter is None else delimiter
        self.header, self.skip_rows, self.encoding = header, skip_rows, encoding
        self.names = [str(n) for n in names] if names is not None else None
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            raise DataError(f"read_csv: the delimiter is {delimiter!r}; one character is wanted, no quote or line end.")

    def open(self) -> BinaryIO:
        """The bytes, from the start."""
        return open_content(self.source)[1]

    def column_names(self, first: list[str]) -> list[str]:
        """The names of the columns, given the fields of the first row."""
        if self.names is None:
            return [f.strip() for f in first] if self.header else [str(i) for i in range(len(first))]
        if len(self.names) != len(first):
            raise DataError(f"read_csv: {self.name} has {len(first)} columns, and {len(self.names)} names were given.")
        return self.names


class Request:
    """What of it is wanted, as what."""

    def __init__(self, layout: Layout, columns: Iterable[str] | None, dtypes: Any, missing: Iterable[str]):
        self.layout = layout
        self.columns = [columns] if isinstance(columns, str) else list(columns) if columns is not None else None
        self.missing = frozenset(missing)
        self.missing_numbers = any(_is_number(text) for text in self.missing)
        self.by_name = {n: _dtype(d) for n, d in dtypes.items()} if isinstance(dtypes, Mapping) else {}
        self.for_all = None if isinstance(dtypes, Mapping) or dtypes is None else _dtype(dtypes)

    def dtype(self, column: str) -> np.dtype | None:
        """The dtype asked for; None where it is to be found."""
        return self.by_name.get(column, self.for_all)

    def wanted(self, found: list[str]) -> list[str]:
        """The wanted columns among those that were found; DataError for an unknown or doubled one."""
        doubled = sorted({n for n in found if found.count(n) > 1}) if len(set(found)) < len(found) else []
        if doubled:
            raise DataError(
                f"read_csv: {self.layout.name} has more than one column named {', '.join(doubled)}; give other names."
            )
        for column in [*(self.columns or ()), *self.by_name]:
            if column not in found:
                raise DataError(f"read_csv: {self.layout.name} has no column {column!r}. {near(column, found)}")
        return self.columns if self.columns is not None else found


def _dtype(wanted: Any) -> np.dtype:
    dtype: np.dtype = np.dtype(wanted)
    if dtype.kind not in "biufUO":
        raise DtypeError(f"read_csv: a column cannot be {dtype}; wanted is a bool, integer, floating or str dtype.")
    return dtype


# with care


class _IsText(Exception):
    """A column that looked like numbers holds text further down."""


class _WhichLine(Exception):
    """Something is wrong, and lines were not counted."""


def _read_with_care(request: Request) -> Table:
    text: set[str] = set()
    counted = False
    while True:
        try:
            return _read_once(request, text, counted)
        except _IsText as found:  # of which the texts above were not kept: read again
            text.add(str(found))
        except _WhichLine:
            counted = True


def _read_once(request: Request, text: set[str], counted: bool) -> Table:
    layout = request.layout
    with layout.open() as stream, io.TextIOWrapper(stream, encoding=_encoding(layout), newline="") as lines:
        chunks = _chunks(lines, layout, counted)
        at, rows = next(chunks, (None, []))
        if not rows:
            raise DataError(f"read_csv: {layout.name} holds no record; it is empty, or all of it was skipped.")
        names = layout.column_names(rows[0])
        picked = [(names.index(n), _Column(n, request, n in text)) for n in request.wanted(names)]
        count = 0
        if layout.header:
            at, rows = at[1:] if at is not None else None, rows[1:]
        while rows or count == 0:
            _check_lengths(layout, at, rows, len(names))
            count += len(rows)
            by_column = list(zip(*rows))
            for place, column in picked if rows else []:
                column.add(by_column[place], at)
            at, rows = next(chunks, (None, []))
            if not rows:
                break
    if not count:
        raise DataError(f"read_csv: {layout.name} has a header and no record.")
    return Table({column.name: column.array() for _, column in picked})


def _check_lengths(layout: Layout, at: list[int] | None, rows: list[list[str]], wanted: int) -> None:
    if set(map(len, rows)) <= {wanted}:
        return
    if at is None:
        raise _WhichLine
    line, row = next((line, row) for line, row in zip(at, rows) if len(row) != wanted)
    raise DataError(
        f"read_csv: {layout.name}, line {line} has {len(row)} fields, and the "
        f"{'header' if layout.header else 'first line'} has {wanted}. Is a value with {layout.delimiter!r} in it not "
        "quoted, or the delimiter another one?"
    )


def _encoding(layout: Layout) -> str:
    return "utf-8-sig" if layout.encoding.lower() in ("utf-8", "utf8", "utf_8") else layout.encoding


def _chunks(
    lines: io.TextIOWrapper, layout: Layout, counted: bool
) -> Iterator[tuple[list[int] | None, list[list[str]]]]:
    """(numbers of their last lines if `counted`, fields) of the records that are not empty, many at a time."""
    reader = csv.reader(lines, delimiter=layout.delimiter, strict=True)
    try:
        for _ in range(layout.skip_rows):
            lines.readline()
        while True:
            if counted:
                both = [(reader.line_num + layout.skip_rows, row) for row in islice(reader, CHUNK)]
                if not both:
                    return
                both = [(line, row) for line, row in both if row]
                at, rows = [line for line, _ in both], [row for _, row in both]
            else:
                at, rows = None, list(islice(reader, CHUNK))
                if not rows:
                    return
                rows = [row for row in rows if row]
            if rows:
                yield at, rows
    except csv.Error as reason:
        raise DataError(
            f"read_csv: {layout.name}, line {reader.line_num + layout.skip_rows}: {reason}. Is a quote not closed, or a "
            "delimiter missing beside one?"
        ) from reason
    except UnicodeDecodeError as reason:
        raise DataError(
            f"read_csv: {layout.name} is not {layout.encoding} after line {reader.line_num + layout.skip_rows} ({reason}). "
            "Give its encoding, as in encoding='latin-1'."
        ) from reason


class _Column:
    """One column, grown part by part. `kind` goes from whole numbers to numbers to text as values ask for it."""

    def __init__(self, name: str, request: Request, is_text: bool):
        self.name, self.request = name, request
        self.dtype = request.dtype(name)
        if self.dtype is not None:
            self.kind = "U" if self.dtype.kind in "UO" else self.dtype.kind
        else:
            self.kind = "U" if is_text else "i"
        self.parts: list[Any] = []

    def add(self, values: tuple[str, ...], lines: list[int] | None) -> None:
        if self.kind == "U":
            self.parts.append([_text(v, self.request.missing) for v in values])
        elif self.dtype is not None:
            self.parts.append(self._as_wanted(values, lines))
        else:
            self._find(values)

    def _find(self, values: tuple[str, ...]) -> None:
        missing = self.request.missing
        # looking for gaps takes a third of the time: only where they could be taken for numbers, or numbers were not found
        gaps = self.request.missing_numbers and not missing.isdisjoint(values)
        if self.kind == "i" and not gaps:
            try:
                self.parts.append(whole_numbers(values))
                return
            except (ValueError, OverflowError):
                pass
        self.kind = "f"
        try:
            if not gaps:
                self.parts.append(numbers(values))
                return
        except ValueError:
            pass
        try:
            self.parts.append(numbers(["nan" if v in missing else v for v in values]))
        except ValueError:
            if any(len(part) for part in self.parts):
                raise _IsText(self.name) from None
            self.kind = "U"
            self.parts.append([_text(v, missing) for v in values])

    def _as_wanted(self, values: tuple[str, ...], lines: list[int] | None) -> np.ndarray:
        try:
            return self._converted(values)
        except (ValueError, OverflowError):
            if lines is None:
                raise _WhichLine from None
        for value, line in zip(values, lines):
            try:
                self._converted((value,))
            except (ValueError, OverflowError):
                missing = value in self.request.missing
                came = f"{value!r}, which stands for no value," if missing else repr(value)
                raise DataError(
                    f"read_csv: {self.request.layout.name}, line {line}, column {self.name!r} holds {came} and not "
                    f"{WANTED[self.kind]} that fits {self.dtype}. Correct it, or give the column another dtype."
                ) from None
        raise AssertionError("a chunk failed, and none of its values")

    def _converted(self, values: tuple[str, ...]) -> np.ndarray:
        """The values as the dtype that was asked for; ValueError or OverflowError where one does not fit."""
        assert self.dtype is not None
        missing = self.request.missing
        if self.kind == "f":
            return numbers(["nan" if v in missing else v for v in values]).astype(self.dtype)
        if not missing.isdisjoint(values):
            raise ValueError
        if self.kind == "b":
            return np.array([_truth(v) for v in values])
        return _in_range(whole_numbers(values, signed=True), self.dtype)

    def array(self) -> np.ndarray:
        if self.kind == "U":
            return text_array([text for part in self.parts for text in part])
        if self.dtype is not None:
            return np.concatenate(self.parts)
        return np.concatenate(self.parts).astype(np.int64 if self.kind == "i" else np.float64, copy=False)


def _text(value: str, missing: frozenset[str]) -> str:
    return "" if value in missing else value


def whole_numbers(values: Iterable[str], signed: bool = False) -> np.ndarray:
    """int64 of decimal texts, or hexadecimal ones such as 0x1f; ValueError or OverflowError where one is none.

    A plus sign makes a number that need not be whole, as pyarrow has it, unless `signed`.
    """
    values = list(values)
    text = "".join(values)
    if "_" in text or ("+" in text and not signed):  # Python takes an underscore for a separator of digits
        raise ValueError
    try:
        found = array("q", map(int, values))
    except ValueError:
        if "0x" not in text and "0X" not in text:
            raise
        found = array("q", (int(v, 16) if v.startswith(("0x", "0X")) else int(v) for v in values))
    return np.array(found, np.int64)


def numbers(values: Iterable[str]) -> np.ndarray:
    """float64 of decimal texts, rounded to nearest; ValueError where one is none."""
    values = list(values)
    if "_" in "".join(values):
        raise ValueError
    return np.array(array("d", map(float, values)), np.float64)


def _is_number(text: str) -> bool:
    """Whether a text would be taken for a number other than NaN."""
    try:
        return not np.isnan(numbers([text])[0])
    except ValueError:
        return False


def _truth(value: str) -> bool:
    if value in TRUE:
        return True
    if value in FALSE:
        return False
    raise ValueError


def _in_range(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    out = values.astype(dtype)
    if not np.array_equal(out, values):
        raise OverflowError
    return out
