"""Downloads that end with the right file or with nothing: a checked SHA-256, a size limit, a rename at the end."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import secrets
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError

TIMEOUT = 30  # seconds without an answer


class Content(NamedTuple):
    """What a gzipped file must hold: its size in bytes and its SHA-256, both uncompressed.

    Mirrors compress the same bytes differently, so the compressed file has no digest of its own.
    """

    size: int
    sha256: str


def fetch(urls: Iterable[str], target: Path, content: Content) -> None:
    """Download a gzipped file to `target` from the first URL that delivers `content`.

    `target` appears complete and checked, or not at all. DataError lists what each URL answered.
    """
    import http.client  # with urllib.request 20 ms, which most programs never need

    reasons = []
    for url in urls:
        print(f"tapegrad: downloading {url}", file=sys.stderr)
        try:
            compressed = _get(url, content.size)
            _check(compressed, content)
        except (OSError, EOFError, ValueError, zlib.error, http.client.HTTPException) as reason:
            reasons.append(f"{url}: {reason}")
            continue
        _write(target, compressed)
        return
    raise DataError(
        f"{target.name} could not be downloaded. Tried {'; '.join(reasons)}. Check the network, or put the file into "
        f"{target.parent} yourself."
    )


def holds(path: Path, content: Content) -> bool:
    """True where the gzipped file `path` exists and holds `content`."""
    try:
        _check(path.read_bytes(), content)
    except (OSError, EOFError, ValueError, zlib.error):
        return False
    return True


def _get(url: str, most: int) -> bytes:
    """At most `most` bytes and a little more: gzip grows what it cannot shrink by less than 1/1000 and a header."""
    import urllib.request

    most += most // 1000 + 1024
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        data: bytes = answer.read(most + 1)
    if len(data) > most:
        raise ValueError(f"more than {most:,} bytes came")
    return data


def _check(compressed: bytes, content: Content) -> None:
    with gzip.GzipFile(fileobj=io.BytesIO(compressed)) as stream:
        data = stream.read(content.size + 1)
    if len(data) != content.size:
        more = "more than " if len(data) > content.size else ""
        raise ValueError(f"it holds {more}{min(len(data), content.size):,} bytes and not {content.size:,}")
    digest = hashlib.sha256(data).hexdigest()
    if digest != content.sha256:
        raise ValueError(f"its SHA-256 is {digest} and not {content.sha256}")


def _write(target: Path, data: bytes) -> None:
    part = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except OSError as reason:
        part.unlink(missing_ok=True)
        raise DataError(f"{target} cannot be written ({reason}). Choose another folder, or make room.") from reason
