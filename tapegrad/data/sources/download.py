"""Downloads that end with the right file or with nothing: a checked SHA-256, a size limit, a rename at the end."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ...errors import DataError
from .compressed import AHEAD, decompressed
from .storage import COPY_BLOCK, write_file

TIMEOUT = 30  # seconds without an answer


class Content(NamedTuple):
    """What a file must hold: at most, or with `exact` just so many bytes, and their SHA-256.

    `packed`: both are of what the compressed file holds, since mirrors compress the same bytes differently.
    """

    size: int
    sha256: str
    packed: bool = True
    exact: bool = True


def fetch(urls: Iterable[str], target: Path, content: Content) -> None:
    """Download a file to `target` from the first URL that delivers `content`.

    `target` appears complete and checked, or not at all. DataError lists what each URL answered.
    """
    import http.client  # with urllib.request 20 ms, which most programs never need

    reasons = []
    for url in urls:
        print(f"tapegrad: downloading {url}", file=sys.stderr)
        try:
            write_file(target, lambda file, url=url: _get(url, file, content))  # type: ignore[misc]
        except DataError:
            raise  # of the disk
        except (_Refused, OSError, ValueError, http.client.HTTPException) as reason:
            reasons.append(f"{url}: {reason}")
            continue
        return
    raise DataError(
        f"{target.name} could not be downloaded. Tried {'; '.join(reasons)}. Check the network, or put the file into "
        f"{target.parent} yourself."
    )


def holds(path: Path, content: Content) -> bool:
    """True where the file `path` exists and holds `content`."""
    try:
        with open(path, "rb") as file:
            _check(file, content, path.name)
    except (OSError, DataError, _Refused):
        return False
    return True


class _Refused(Exception):
    """What came is not what was wanted."""


def _get(url: str, file: BinaryIO, content: Content) -> None:
    """Write what a URL gives, no more than there should be, and check it."""
    import urllib.request

    # gzip grows what it cannot shrink by less than 1/1000 and a header
    most = content.size + (content.size // 1000 + 1024 if content.packed else 0)
    came = 0
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        announced = answer.headers.get("Content-Length") if answer.headers else None
        while data := answer.read(min(COPY_BLOCK, most + 1 - came)):
            came += len(data)
            if came > most:
                raise _Refused(f"more than {most:,} bytes came")
            file.write(data)
    if announced is not None and announced.isdigit() and int(announced) > came:
        raise _Refused(f"the connection ended after {came:,} of {int(announced):,} bytes")
    file.flush()
    with open(file.name, "rb") as written:
        try:
            _check(written, content, "it")
        except DataError as reason:
            raise _Refused(str(reason)) from reason


def _check(file: BinaryIO, content: Content, name: str) -> None:
    """_Refused unless the file holds what it must; DataError where it is damaged."""
    stream = file
    if content.packed:
        stream = decompressed(file, name, max_bytes=content.size + 2 * AHEAD)  # counted below
        if stream is file:
            raise _Refused("Not a gzipped file, nor bzip2 or xz")
    digest, count = hashlib.sha256(), 0
    while data := stream.read(min(COPY_BLOCK, content.size + 1 - count)):
        digest.update(data)
        count += len(data)
    if count > content.size or (content.exact and count < content.size):
        more = "more than " if count > content.size else ""
        raise _Refused(f"it holds {more}{min(count, content.size):,} bytes and not {content.size:,}")
    if digest.hexdigest() != content.sha256:
        raise _Refused(f"its SHA-256 is {digest.hexdigest()} and not {content.sha256}")
