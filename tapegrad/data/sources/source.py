"""What every source can do, and the sources that lie on disk."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import DataError, DtypeError, IndexOutOfRange


class Source:
    """Somewhere bytes come from. A subclass gives `name` and `path()`, or `open()` as well where it can stream."""

    @property
    def name(self) -> str:
        """What messages call it."""
        raise NotImplementedError

    def path(self) -> Path:
        """A file on disk that holds the bytes; fetched or unpacked first where it must be."""
        raise NotImplementedError

    def open(self) -> BinaryIO:
        """A binary stream from the first byte on; close it after use."""
        path = self.path()
        try:
            return open(path, "rb")
        except OSError as reason:
            raise DataError(f"{path} cannot be read ({reason}). Check that it is a readable file.") from reason

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"


class File(Source):
    """A file on disk. DataError where there is none; it lists near names in the same folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.txt").write_text("hello")
    ...     with File(Path(folder, "a.txt")).open() as stream:
    ...         stream.read()
    b'hello'
    """

    def __init__(self, path: str | os.PathLike):
        self.file = Path(path).expanduser()

    @property
    def name(self) -> str:
        """The path as it was given."""
        return str(self.file)

    def path(self) -> Path:
        """The path, of a file that exists."""
        if self.file.is_file():
            return self.file
        if self.file.is_dir():
            raise DataError(
                f"{self.file} is a folder and cannot be read as a file. Give Folder(path, pattern) or a file."
            )
        try:
            near = difflib.get_close_matches(self.file.name, os.listdir(self.file.parent), 3)
        except OSError:
            raise DataError(
                f"there is no file {self.file}, and no folder {self.file.parent}. Check the path."
            ) from None
        hint = f"Near it are {', '.join(near)}." if near else "Check the path, or download the data again."
        raise DataError(f"there is no file {self.file}. {hint}")


class Folder(Source):
    """The files of a folder that match a pattern, sorted by path, as a sequence of `File`.

    `pattern` is that of `pathlib.Path.glob`: "*.csv" looks in the folder itself, "**/*.csv" below it too. DataError where
    the folder does not exist or nothing matches.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.csv", "a.csv", "readme.txt"):
    ...         _ = Path(folder, name).write_text("")
    ...     [file.path().name for file in Folder(folder, "*.csv")]
    ['a.csv', 'b.csv']
    """

    def __init__(self, path: str | os.PathLike, pattern: str = "*"):
        self.folder, self.pattern = Path(path).expanduser(), pattern
        if not self.folder.is_dir():
            raise DataError(f"there is no folder {self.folder}. Check the path.")
        self.files = [File(found) for found in sorted(self.folder.glob(pattern)) if found.is_file()]
        if not self.files:
            raise DataError(
                f"no file in {self.folder} matches {pattern!r}. Check the pattern; '**/*' is every file below."
            )

    @property
    def name(self) -> str:
        """The folder and the pattern."""
        return str(self.folder / self.pattern)

    def path(self) -> Path:
        """The folder."""
        return self.folder

    def open(self) -> BinaryIO:
        """Refused: a folder is no stream."""
        raise DataError(f"{self.name} is {len(self.files)} files and no single stream; loop over it and read each.")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> File:
        try:
            return self.files[index]
        except IndexError:
            raise IndexOutOfRange(f"{self.name} has {len(self)} files, and file {index} was asked for.") from None

    def __iter__(self) -> Iterator[File]:
        return iter(self.files)


class FirstOf(Source):
    """The first of several sources that is available: a copy on disk before a download, say.

    DataError, with what each answered, where none is.

    >>> FirstOf("/nowhere/a.csv", "/nowhere/b.csv").path()
    Traceback (most recent call last):
    ...
    tapegrad.errors.DataError: none of 2 sources is available: there is no file /nowhere/a.csv, ...
    """

    def __init__(self, *sources: Any):
        if not sources:
            raise DataError("FirstOf: no source was given; give one or more, as in FirstOf(File(...), URL(...)).")
        self.sources = tuple(as_source(source) for source in sources)

    @property
    def name(self) -> str:
        """The names of all."""
        return " or ".join(source.name for source in self.sources)

    def path(self) -> Path:
        """The path of the first that has one."""
        path: Path = self._first("path")
        return path

    def open(self) -> BinaryIO:
        """The stream of the first that opens."""
        stream: BinaryIO = self._first("open")
        return stream

    def _first(self, what: str) -> Any:
        reasons = []
        for source in self.sources:
            try:
                return getattr(source, what)()
            except DataError as reason:
                reasons.append(str(reason))
        raise DataError(f"none of {len(reasons)} sources is available: {' | '.join(reasons)}")


def as_source(source: Any) -> Source:
    """A source as it is; a path as a `File`. DtypeError for anything else, DataError for a text that is a URL."""
    if isinstance(source, Source):
        return source
    if isinstance(source, str) and source.startswith(("http://", "https://", "ftp://", "file://")):
        raise DataError(f"{source} is a URL; give data.URL({source!r}, sha256=...), so that what comes can be checked.")
    if isinstance(source, str | os.PathLike):
        return File(source)
    raise DtypeError(
        f"a {type(source).__name__} is no source; wanted is a path, or a source such as File, URL or Member."
    )
