"""Files on the network, fetched once, checked always."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ...errors import DataError
from .download import Content, fetch
from .source import Source
from .storage import COPY_BLOCK, data_folders, make_folder, storage_folder

MAX_BYTES = 1 << 30  # of a download, unless more is allowed
FOLDER = "downloads"


class URL(Source):
    """A file on the network. It is downloaded when it is first needed, and used only if its SHA-256 is right.

    The copy is kept in `folder`, or else in `downloads/` below the folder that TAPEGRAD_DATA names, or else below
    tapegrad's cache. It appears there complete and checked, or not at all; a copy that was changed is fetched again.

    Args:
        url: where it is. `mirrors`: where else, in the order in which they are tried.
        sha256: of the file as it comes, 64 hexadecimal digits.
        max_bytes: the download is given up where more come.
        folder, name: where to keep it and how to call it there; the URL's last part unless given.

    Raises:
        DataError: nothing came, something else came, the disk is full, or `sha256` is no digest. It lists what each
            mirror answered.

    >>> URL("https://example.org/people.csv.gz", sha256="0" * 64)
    URL(https://example.org/people.csv.gz)
    """

    def __init__(
        self,
        url: str,
        *,
        sha256: str,
        mirrors: tuple[str, ...] = (),
        max_bytes: int = MAX_BYTES,
        folder: str | os.PathLike | None = None,
        name: str | None = None,
    ):
        self.url, self.mirrors, self.max_bytes = url, tuple(mirrors), max_bytes
        self.sha256 = sha256.lower()
        self.folder = Path(folder).expanduser() if folder is not None else None
        self.file_name = name or unquote(urlsplit(url).path.rpartition("/")[2]) or "download"
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise DataError(f"URL: sha256 is {sha256!r}; wanted are the 64 hexadecimal digits that `sha256sum` prints.")
        if self.file_name in (".", "..") or re.search(r"[/\\:\0]", self.file_name):
            raise DataError(f"URL: {self.file_name!r} cannot be the name of a file; give another one as name.")

    @property
    def name(self) -> str:
        """The URL."""
        return self.url

    def path(self) -> Path:
        """The downloaded file, checked."""
        if self.folder is not None:
            places = [self.folder / self.file_name]
        else:  # files of one name from different places do not get in each other's way
            places = [folder / FOLDER / self.sha256[:12] / self.file_name for folder in data_folders()]
        for place in places:
            if place.is_file() and file_digest(place) == self.sha256:
                return place
        if self.folder is not None:
            target = make_folder(self.folder) / self.file_name
        else:
            target = make_folder(storage_folder(FOLDER) / self.sha256[:12]) / self.file_name
        fetch((self.url, *self.mirrors), target, Content(self.max_bytes, self.sha256, packed=False, exact=False))
        return target


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, read once for each state of it; DataError where it cannot be read."""
    try:
        stat = path.stat()
        state = (str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if state not in _DIGESTS:
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while block := file.read(COPY_BLOCK):
                    digest.update(block)
            _DIGESTS[state] = digest.hexdigest()
    except OSError as reason:
        raise DataError(f"{path} cannot be read ({reason}). Check that it is a readable file.") from reason
    return _DIGESTS[state]


_DIGESTS: dict[tuple[str, int, int, int], str] = {}  # of this process
