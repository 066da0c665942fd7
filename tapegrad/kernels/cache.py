"""The disk cache of compiled kernels: object files, read back only where nobody else could have written them.

An entry is a magic word, the SHA-256 of its name and payload, and the payload. Entries lie in a folder named after all
that determines machine code (sources, versions, processor), which lies in the folder of `config.cache_directory()`.
Machine code from a stranger would run in this process, so a folder or an entry that another user owns or may write, or
that is a symbolic link, is not used. Nothing here is a pickle. See docs/design/object-cache.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
import warnings
from pathlib import Path

MAGIC = b"tapegrad object 1\n"
KEPT_VERSIONS = 4  # folders of other sources or versions that stay: a branch or two and another environment
_PREFIX = "v-"


class ObjectCache:
    """Entries of one version below `root`. `root=None` is a cache that never holds anything."""

    def __init__(self, root: Path | None, version: str):
        self.folder = None if root is None else root / (_PREFIX + version)
        self.hits = self.misses = self.damaged = self.bytes = 0
        self._warned = False
        if self.folder is not None:
            self._open(self.folder)

    def _open(self, folder: Path) -> None:
        """Create or check the folder; where it cannot be trusted or made, work without."""
        root = folder.parent
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            for level in (root, folder):
                new = _create(level)
                reason = distrust(level)
                if reason:
                    self._off(f"{level} {reason}")
                    return
            if new:
                prune(root, folder.name)
        except OSError as error:
            self._off(str(error))
            return
        with contextlib.suppress(OSError):  # a read-only folder still serves
            os.utime(folder)  # the age by which other versions are pruned

    def _off(self, reason: str) -> None:
        self.folder = None
        self._warn(
            f"{reason}; compiled kernels are not kept. Remove it, or set TAPEGRAD_CACHE to a folder of your own."
        )

    def _warn(self, sentence: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"tapegrad's kernel cache: {sentence}", RuntimeWarning, stacklevel=2)

    def read(self, name: str) -> bytes | None:
        """The payload stored under `name`, or None. A damaged entry is deleted and counted."""
        if self.folder is None:
            self.misses += 1
            return None
        path = self.folder / name
        try:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        except OSError:
            self.misses += 1
            return None
        with os.fdopen(fd, "rb") as file:
            ours = _private(os.fstat(fd))
            data = file.read() if ours else b""
        payload = data[len(MAGIC) + 32 :]
        if not payload or data[: len(MAGIC) + 32] != MAGIC + _digest(name, payload):
            self.damaged += 1
            self.misses += 1
            _remove(path)
            return None
        self.hits += 1
        self.bytes += len(data)
        return payload

    def write(self, name: str, payload: bytes) -> None:
        """Store `payload`: written aside, then renamed, so that a reader sees all of it or nothing."""
        if self.folder is None:
            return
        aside = self.folder / f".{name[:16]}-{os.getpid()}-{secrets.token_hex(4)}"
        data = MAGIC + _digest(name, payload) + payload
        try:
            try:
                _write_new(aside, data)
            except FileNotFoundError:  # another process pruned this version
                _create(self.folder)
                _write_new(aside, data)
            os.replace(aside, self.folder / name)
            self.bytes += len(data)
        except OSError as error:
            self._warn(f"an entry could not be written ({error}); kernels are compiled again in the next process.")
            _remove(aside)

    def clear(self) -> None:
        """Delete every version below the root."""
        if self.folder is not None:
            prune(self.folder.parent, "", keep=0)
            _create(self.folder)

    def statistics(self) -> dict[str, int | str | None]:
        """Reads that hit, missed or met a damaged entry, bytes read and written, and the folder (None: no cache)."""
        return {
            "hits": self.hits,
            "misses": self.misses,
            "damaged": self.damaged,
            "bytes": self.bytes,
            "folder": None if self.folder is None else str(self.folder),
        }


def distrust(folder: Path) -> str | None:
    """Why machine code must not be read from `folder`, or None where it may."""
    status = folder.lstat()
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder"
    if not _private(status):
        owner, mode = status.st_uid, status.st_mode & 0o777
        return f"belongs to another user or may be written by one (owner {owner}, mode {mode:o})"
    return None


def prune(root: Path, current: str, keep: int = KEPT_VERSIONS) -> None:
    """Delete the version folders below `root` except `current` and the `keep` used last."""
    others = []
    for entry in root.iterdir():
        if entry.name.startswith(_PREFIX) and entry.name != current and not entry.is_symlink():
            try:
                others.append((entry.stat().st_mtime, entry))
            except FileNotFoundError:
                continue  # another process was faster
    for _, folder in sorted(others, reverse=True)[keep:]:
        shutil.rmtree(folder, ignore_errors=True)


def _private(status: os.stat_result) -> bool:
    if not hasattr(os, "geteuid"):
        return True  # Windows: the profile folder's access list keeps others out; modes say nothing
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _create(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return False
    return True


def _digest(name: str, payload: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + payload).digest()


def _write_new(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # gone already, or a read-only folder, which only costs the attempt
        path.unlink()
