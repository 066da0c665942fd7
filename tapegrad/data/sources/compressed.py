"""Compressed files, told by their first bytes, and how much they may expand to."""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import DataError
from .source import Source, as_source
from .storage import copy, storage_folder, write_file

MAX_BYTES = 1 << 36  # 64 GiB of content; more is taken for a mistake or an attack
MAX_RATIO = 1100  # content by compressed bytes; deflate reaches 1032 at most, on nothing but zeros
AHEAD = 1 << 17  # bytes
FREE_BYTES = 1 << 26  # that a file may expand to whatever its ratio: 64 MiB do no harm

Opener = Callable[[BinaryIO], Any]


def _gzip(stream: BinaryIO) -> Any:
    import gzip

    return gzip.GzipFile(fileobj=stream)


def _bz2(stream: BinaryIO) -> Any:
    import bz2

    return bz2.BZ2File(stream)


def _xz(stream: BinaryIO) -> Any:
    try:
        import lzma
    except ImportError:
        raise DataError("this Python was built without liblzma, so xz files cannot be read; unpack the file.") from None
    return lzma.LZMAFile(stream)


def _errors(kind: str) -> tuple[type[Exception], ...]:
    """What a damaged file of that kind raises."""
    usual = (EOFError, OSError, ValueError, zlib.error)
    if kind != "xz":
        return usual
    import lzma

    return *usual, lzma.LZMAError


FORMATS: dict[bytes, tuple[str, Opener]] = {
    b"\x1f\x8b": ("gzip", _gzip),
    b"BZh": ("bzip2", _bz2),
    b"\xfd7zXZ\0": ("xz", _xz),
}


def compression(start: bytes) -> tuple[str, Opener] | None:
    """(name of the format, opener) by the first bytes of a file; None for any other file.

    >>> compression(b"BZh9")[0], compression(b"a,b,c")
    ('bzip2', None)
    """
    for magic, found in FORMATS.items():
        if start.startswith(magic):
            return found
    return None


class Compressed(Source):
    """What a gzip, bzip2 or xz file holds. A file that is none of these is passed through as it is.

    At most `max_bytes` come out of it, and, past 64 MiB, at most `max_ratio` times the compressed bytes read so far: a
    small file that would fill memory or disk ends in a DataError instead. So does a damaged one, at the latest when its
    last byte is read.

    >>> import gzip, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.gz").write_bytes(gzip.compress(b"hello"))
    ...     with Compressed(Path(folder, "a.gz")).open() as stream:
    ...         stream.read()
    b'hello'
    """

    def __init__(self, source: Any, *, max_bytes: int = MAX_BYTES, max_ratio: float = MAX_RATIO):
        self.source = as_source(source)
        self.max_bytes, self.max_ratio = max_bytes, max_ratio

    @property
    def name(self) -> str:
        """The name of the compressed file."""
        return self.source.name

    def open(self) -> BinaryIO:
        """A stream of the content."""
        return decompressed(self.source.open(), self.name, self.max_bytes, self.max_ratio)

    def path(self) -> Path:
        """The content as a file among the kept data; made once for each state of the compressed file."""
        inner = self.source.path()
        stat = inner.stat()
        identity = f"{inner.absolute()}|{stat.st_size}|{stat.st_mtime_ns}"
        key = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        target = storage_folder("unpacked") / f"{key}-{inner.stem if inner.suffix else inner.name}"
        if not target.is_file():
            with self.open() as stream:
                write_file(target, lambda file: copy(stream, file))
        return target


def open_content(source: Any, ahead: int = AHEAD) -> tuple[str, BinaryIO]:
    """(name, stream) of what a source or path holds, decompressed if it is compressed: how readers open.

    `ahead`: bytes of content that may be unpacked before they are asked for.
    """
    source = as_source(source)
    if isinstance(source, Compressed):
        return source.name, source.open()
    return source.name, decompressed(source.open(), source.name, ahead=ahead)


def decompressed(
    raw: BinaryIO, name: str, max_bytes: int = MAX_BYTES, max_ratio: float = MAX_RATIO, ahead: int = AHEAD
) -> BinaryIO:
    """The content of an open stream: the stream itself where it is not compressed."""
    buffered = raw if hasattr(raw, "peek") else io.BufferedReader(raw)  # type: ignore[type-var]
    found = compression(buffered.peek(8)[:8])
    if found is None:
        return buffered
    content = _Content(buffered, name, found, max_bytes, max_ratio)
    return io.BufferedReader(content, ahead)


class _Content(io.RawIOBase):
    """A decompressing stream that stops at the limits, and whose errors name the file."""

    def __init__(self, raw: BinaryIO, name: str, found: tuple[str, Opener], max_bytes: int, max_ratio: float):
        super().__init__()
        self.raw, self.name, self.max_bytes, self.max_ratio = raw, name, max_bytes, max_ratio
        self.counted = _Counted(raw)
        self.kind, opener = found
        self.stream = opener(io.BufferedReader(self.counted))
        self.errors = _errors(self.kind)
        self.given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        try:
            data = self.stream.read(min(len(view), self.max_bytes - self.given + 1))
        except self.errors as reason:
            raise DataError(
                f"{self.name} is a damaged {self.kind} file ({reason}). It was probably cut short: download it again."
            ) from reason
        self.given += len(data)
        if self.given > self.max_bytes:
            raise DataError(
                f"{self.name} expands to more than {self.max_bytes:,} bytes. If the file is right, raise max_bytes."
            )
        if self.given > max(FREE_BYTES, self.max_ratio * self.counted.count):
            raise DataError(
                f"{self.name} expands to more than {self.max_ratio:g} times its size ({self.given:,} bytes out of "
                f"{self.counted.count:,} so far), as files made to fill a disk do. If it is right, raise max_ratio."
            )
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self.stream.close()
            self.raw.close()
        super().close()


class _Counted(io.RawIOBase):
    """A stream that counts what is read from it. Closing it leaves the stream open."""

    def __init__(self, raw: BinaryIO):
        super().__init__()
        self.raw, self.count = raw, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        got = self.raw.readinto(buffer)  # type: ignore[attr-defined]
        self.count += got
        return int(got)


def stem(name: str | os.PathLike) -> str:
    """A file's name without its folder and without a compression's suffix.

    >>> stem("data/people.csv.gz")
    'people.csv'
    """
    path = Path(name)
    return path.stem if path.suffix in (".gz", ".bz2", ".xz") else path.name
