"""Files inside zip and tar archives, and unpacking that writes nowhere but where it should.

An archive from elsewhere may name paths outside its folder, hold links that lead there, claim small sizes and expand to
large ones, or overlap its entries so that a small file expands a million times
(https://www.bamsoftware.com/hacks/zipbomb/). Each ends in a DataError before anything is written outside.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import os
import posixpath
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ...errors import DataError
from .compressed import FREE_BYTES, MAX_BYTES, MAX_RATIO, decompressed
from .source import Source, as_source
from .storage import copy, make_folder, storage_folder, write_file

MAX_FILES = 1_000_000
_DAMAGE = (EOFError, OSError, ValueError, KeyError, NotImplementedError, RuntimeError, zlib.error)


class Entry(NamedTuple):
    """A file in an archive: its name with forward slashes, its size in bytes, and the archive's own record."""

    name: str
    size: int
    record: Any


class Member(Source):
    """One file inside a zip or tar archive (a tar may be compressed).

    `member` is its full name in the archive, or its last part where that is unique. At most `max_bytes` are read.
    DataError where the archive has no such member (near names are listed), is damaged, or the member is a link that
    leads out of the archive.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with zipfile.ZipFile(Path(folder, "a.zip"), "w") as archive:
    ...         archive.writestr("data/people.csv", "name")
    ...     with Member(Path(folder, "a.zip"), "people.csv").open() as stream:
    ...         stream.read()
    b'name'
    """

    def __init__(self, source: Any, member: str, *, max_bytes: int = MAX_BYTES):
        self.source, self.member, self.max_bytes = as_source(source), member, max_bytes

    @property
    def name(self) -> str:
        """The archive's name and the member's."""
        return f"{self.source.name}:{self.member}"

    def open(self) -> BinaryIO:
        """A stream of the member."""
        archive = _Archive(self.source.path())
        try:
            entry = archive.find(self.member)
            if entry.size > self.max_bytes:
                raise DataError(
                    f"{self.name} has {entry.size:,} bytes, and at most {self.max_bytes:,} are read. If the file is right, "
                    "raise max_bytes."
                )
            return io.BufferedReader(_Part(archive, entry))
        except BaseException:
            archive.close()
            raise

    def path(self) -> Path:
        """The member as a file among the kept data; made once for each state of the archive."""
        inner = self.source.path()
        state = inner.stat()
        identity = f"{inner.absolute()}|{state.st_size}|{state.st_mtime_ns}|{self.member}"
        key = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        target = storage_folder("unpacked") / f"{key}-{posixpath.basename(self.member)}"
        if not target.is_file():
            with self.open() as stream:
                write_file(target, lambda file: copy(stream, file))
        return target


def member_names(source: Any) -> list[str]:
    """The names of the files in a zip or tar archive, in its order.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with zipfile.ZipFile(Path(folder, "a.zip"), "w") as archive:
    ...         archive.writestr("b/c.csv", "1")
    ...     member_names(Path(folder, "a.zip"))
    ['b/c.csv']
    """
    archive = _Archive(as_source(source).path())
    try:
        return [entry.name for entry in archive.entries()]
    finally:
        archive.close()


def extract(
    source: Any,
    folder: str | os.PathLike,
    *,
    max_bytes: int = MAX_BYTES,
    max_files: int = MAX_FILES,
    max_ratio: float = MAX_RATIO,
) -> list[Path]:
    """Unpack a zip or tar archive into `folder` and return the paths of its files.

    All or nothing: the files appear in `folder` after the last of them was read. Links are written as copies of what
    they lead to; devices, links and names that lead out of the folder, and more than one file of a name are errors.
    `max_ratio` is content by the archive's bytes, past 64 MiB. `folder` must be empty or not exist. DataError else.
    """
    path, target = as_source(source).path(), Path(folder)
    archive = _Archive(path)
    try:
        entries = _within_limits(archive, path, max_bytes, max_files, max_ratio)
        make_folder(target.absolute().parent)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise DataError(f"extract: {target} is there already and not an empty folder; give another one.")
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.absolute().parent))
        try:
            part.chmod(0o755)
            _write_entries(archive, entries, part, max_bytes)
            if target.exists():
                target.rmdir()
            part.rename(target)
        except OSError as reason:
            raise DataError(
                f"extract: {target} cannot be written ({reason}). Make room, or give another one."
            ) from reason
        finally:
            shutil.rmtree(part, ignore_errors=True)
    finally:
        archive.close()
    return [target / entry.name for entry in entries]


def _within_limits(archive: _Archive, path: Path, max_bytes: int, max_files: int, max_ratio: float) -> list[Entry]:
    entries: list[Entry] = []
    names: set[str] = set()
    most = min(max_bytes, max(FREE_BYTES, int(max_ratio * path.stat().st_size)))
    total = 0
    for entry in archive.entries():
        if entry.name in names:
            raise DataError(f"{path} holds {entry.name} twice; it is damaged, or made to mislead.")
        names.add(entry.name)
        entries.append(entry)
        total += entry.size
        if len(entries) > max_files:
            raise DataError(f"{path} holds more than {max_files:,} files. If it is right, raise max_files.")
        if total > most:
            limit = "max_bytes" if most == max_bytes else "max_ratio"
            raise DataError(
                f"{path} expands to more than {most:,} bytes out of {path.stat().st_size:,}, as files made to fill a disk "
                f"do. If it is right, raise {limit}."
            )
    return entries


def _write_entries(archive: _Archive, entries: list[Entry], folder: Path, max_bytes: int) -> None:
    written = 0
    for entry in entries:
        place = folder / entry.name
        place.parent.mkdir(parents=True, exist_ok=True)
        with io.BufferedReader(_Part(archive, entry, owns=False)) as stream, open(place, "xb") as file:
            copy(stream, file)
            written += file.tell()
        if written > max_bytes:
            raise DataError(
                f"{archive.path} expands to more than {max_bytes:,} bytes. If it is right, raise max_bytes."
            )


class _Archive:
    """A zip or tar file behind one face."""

    def __init__(self, path: Path):
        self.path = path
        self.zip: zipfile.ZipFile | None = None
        self.stream: BinaryIO | None = None
        try:
            if zipfile.is_zipfile(path):
                self.zip = zipfile.ZipFile(path)
            else:
                # a compressed tar is unpacked once to a temporary file: members can be reached in any order, and within limits
                with open(path, "rb") as file:
                    content = decompressed(file, str(path))
                    if content is file:
                        self.stream = open(path, "rb")  # noqa: SIM115  closed with the archive
                    else:
                        self.stream = tempfile.TemporaryFile()  # noqa: SIM115
                        copy(content, self.stream)
                        self.stream.seek(0)
                self.tar = tarfile.open(fileobj=self.stream, mode="r:", errorlevel=2)  # noqa: SIM115
        except DataError:
            self.close()
            raise
        except (*_DAMAGE, zipfile.BadZipFile, tarfile.TarError) as reason:
            self.close()
            raise DataError(
                f"{path} is no zip or tar archive, or a damaged one ({reason}). Check what it is, or download it again."
            ) from reason

    def close(self) -> None:
        if self.zip is not None:
            self.zip.close()
        if self.stream is not None:
            self.stream.close()

    def entries(self) -> Iterator[Entry]:
        """Every file, links among them; DataError for a name or a link that leads out, and for devices."""
        try:
            yield from self._zip_entries() if self.zip is not None else self._tar_entries()
        except (*_DAMAGE, zipfile.BadZipFile, tarfile.TarError) as reason:
            if isinstance(reason, DataError):
                raise
            raise DataError(f"{self.path} is damaged ({reason}). Download it again.") from reason

    def _zip_entries(self) -> Iterator[Entry]:
        assert self.zip is not None
        for info in self.zip.infolist():
            if info.is_dir():
                continue
            name = _inside(self.path, info.filename)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise DataError(f"{self.path} holds {name}, a symbolic link in a zip archive; such are not followed.")
            if info.flag_bits & 1:
                raise DataError(f"{self.path}: {name} is encrypted; unpack the archive with its password first.")
            yield Entry(name, info.file_size, info)

    def _tar_entries(self) -> Iterator[Entry]:
        for info in self.tar:
            if info.isdir():
                continue
            name = _inside(self.path, info.name)
            if info.issym():
                _inside(self.path, posixpath.join(posixpath.dirname(info.name), info.linkname), f"link {name} to ")
            elif info.islnk():
                _inside(self.path, info.linkname, f"link {name} to ")
            elif not info.isreg():
                raise DataError(f"{self.path} holds {name}, a device or pipe; only files and folders are unpacked.")
            yield Entry(name, self._followed(info).size, info)

    def _followed(self, info: tarfile.TarInfo) -> tarfile.TarInfo:
        """The file that a link leads to; DataError where it is not in the archive."""
        seen = set()
        while info.issym() or info.islnk():
            aim = posixpath.join(posixpath.dirname(info.name), info.linkname) if info.issym() else info.linkname
            aim = posixpath.normpath(aim)
            found = [m for m in self.tar.getmembers() if posixpath.normpath(m.name) == aim and m.name != info.name]
            if not found or aim in seen:
                raise DataError(
                    f"{self.path}: the link {info.name} leads to {aim}, which is not a file in the archive."
                )
            seen.add(aim)
            _inside(self.path, aim)
            info = found[-1]
        if not info.isreg():
            raise DataError(f"{self.path}: a link leads to {info.name}, which is not a file.")
        return info

    def find(self, member: str) -> Entry:
        """The entry of a full name, or of a last part that is unique."""
        entries = list(self.entries())
        for found in (
            [e for e in entries if e.name == member],
            [e for e in entries if posixpath.basename(e.name) == member],
        ):
            if len(found) == 1:
                return found[0]
            if found:
                names = ", ".join(e.name for e in found[:5])
                raise DataError(f"{self.path} holds {member} {len(found)} times: {names}. Give the full name of one.")
        names_ = [e.name for e in entries]
        near = difflib.get_close_matches(member, names_, 3, 0.4) or names_[:5]
        raise DataError(f"{self.path} holds no {member}; it holds {', '.join(near) or 'nothing'}.")

    def open_entry(self, entry: Entry) -> Any:
        if self.zip is not None:
            return self.zip.open(entry.record)
        return self.tar.extractfile(self._followed(entry.record))


class _Part(io.RawIOBase):
    """The bytes of one entry, no more than it announces; errors name the archive and the entry."""

    def __init__(self, archive: _Archive, entry: Entry, owns: bool = True):
        super().__init__()
        self.archive, self.entry, self.owns, self.given = archive, entry, owns, 0
        self.stream = self._checked(lambda: archive.open_entry(entry))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._checked(lambda: self.stream.read(len(view)))
        self.given += len(data)
        if self.given > self.entry.size or (not data and len(view) and self.given < self.entry.size):
            raise DataError(
                f"{self.archive.path}: {self.entry.name} announces {self.entry.size:,} bytes and holds "
                f"{'more' if self.given > self.entry.size else f'{self.given:,}'}; it is damaged, or made to mislead."
            )
        view[: len(data)] = data
        return len(data)

    def _checked(self, call: Any) -> Any:
        try:
            return call()
        except (*_DAMAGE, zipfile.BadZipFile, tarfile.TarError) as reason:
            if isinstance(reason, DataError):
                raise
            raise DataError(
                f"{self.archive.path}: {self.entry.name} is damaged ({reason}). Download the archive again."
            ) from reason

    def close(self) -> None:
        if not self.closed and self.owns:
            self.archive.close()
        super().close()


def _inside(path: Path, name: str, what: str = "") -> str:
    """A name in normal form; DataError where it leads out of the archive's folder or is none on some system."""
    plain = posixpath.normpath(name)
    outside = plain.startswith(("/", "../")) or plain in ("..", ".")
    if outside or re.search(r"[\\:\0]", name) or not name:
        raise DataError(
            f"{path} holds the {what or 'name '}{name!r}, which leads out of its folder or is no file name; nothing was "
            "unpacked. Such an archive is a mistake or an attack."
        )
    return plain
