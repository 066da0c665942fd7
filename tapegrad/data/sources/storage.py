"""Where downloaded and unpacked files are kept, and how a file appears there: complete, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ... import config
from ...errors import DataError

COPY_BLOCK = 1 << 20  # bytes


def data_folders() -> list[Path]:
    """Where data is looked for: the folder that TAPEGRAD_DATA names, then `data` in tapegrad's cache."""
    named = os.environ.get("TAPEGRAD_DATA")
    kept = cache_folder()
    return ([Path(named).expanduser()] if named else []) + ([kept] if kept else [])


def cache_folder() -> Path | None:
    """`data` in tapegrad's cache; None where TAPEGRAD_CACHE is "off"."""
    kept = config.cache_directory()
    return kept / "data" if kept else None


def storage_folder(purpose: str) -> Path:
    """The folder that new files go to, made where it is missing; `purpose` is the name of its subfolder."""
    folders = data_folders()
    if not folders:
        raise DataError(
            'TAPEGRAD_CACHE is "off" and TAPEGRAD_DATA is not set, so there is no folder to keep data in; '
            "set one of them, or give a folder."
        )
    if folders[0] == cache_folder():
        make_folder(folders[0].parent, private=True)  # compiled kernels lie there too
    return make_folder(folders[0] / purpose)


def make_folder(folder: Path, private: bool = False) -> Path:
    """`folder`, made where it is missing, for its owner alone if `private`; DataError where it cannot be made."""
    try:
        folder.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
    except OSError as reason:
        raise DataError(f"{folder} cannot be made ({reason}). Choose another folder.") from reason
    return folder


def write_file(target: Path, fill: Callable[[BinaryIO], None]) -> None:
    """Call `fill` with a file to write into; `target` is that file, once it is complete and on the disk.

    What `fill` raises goes through, and nothing stays behind. DataError where the disk refuses.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with _disk(target):
            file = open(part, "xb")  # noqa: SIM115  closed below, where its failures are not the disk's
        try:
            fill(_Disk(file, target))  # type: ignore[arg-type]
            with _disk(target):
                file.flush()
                os.fsync(file.fileno())
        finally:
            with contextlib.suppress(OSError):  # a disk that is full refuses here once more
                file.close()
        with _disk(target):
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


class _Disk:
    """A file whose failing writes are told apart from failing reads elsewhere."""

    def __init__(self, file: BinaryIO, target: Path):
        self.file, self.target = file, target

    def write(self, data: bytes) -> int:
        with _disk(self.target):
            return self.file.write(data)

    def flush(self) -> None:
        with _disk(self.target):
            self.file.flush()

    @property
    def name(self) -> str:
        return str(self.file.name)


@contextlib.contextmanager
def _disk(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as reason:
        raise DataError(f"{target} cannot be written ({reason}). Choose another folder, or make room.") from reason


def copy(source: BinaryIO, target: BinaryIO) -> None:
    """All bytes of a stream into another, a megabyte at a time."""
    while block := source.read(COPY_BLOCK):
        target.write(block)
