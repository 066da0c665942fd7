"""Text, and how it is cut into tokens."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ...errors import DataError
from ..sources.compressed import open_content

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def read_text(source: Any, *, encoding: str = "utf-8") -> str:
    """The text in a file, plain or compressed, with line ends as "\\n". DataError where it has another encoding.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.txt").write_text("hello")
    ...     read_text(Path(folder, "a.txt"))
    'hello'
    """
    name, stream = open_content(source)
    with stream:
        raw = stream.read()
    try:
        text = raw.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except UnicodeDecodeError as reason:
        raise DataError(
            f"read_text: {name} is not {encoding} ({reason}). Give its encoding, as in encoding='latin-1'."
        ) from reason
    return text.replace("\r\n", "\n").replace("\r", "\n")


def characters(text: str) -> list[str]:
    """The characters of a text.

    >>> characters("abc")
    ['a', 'b', 'c']
    """
    return list(text)


def words(text: str) -> list[str]:
    """The words of a text, and the signs between them, as they are written.

    >>> words("Don't panic, it's 1.5!")
    ["Don't", 'panic', ',', "it's", '1', '.', '5', '!']
    """
    return _WORD.findall(text)


def byte_tokens(text: str) -> list[int]:
    """The bytes of a text in UTF-8, 0 to 255: tokens that need no vocabulary.

    >>> byte_tokens("né")
    [110, 195, 169]
    """
    return list(text.encode("utf-8"))


TOKENIZERS: dict[str, Callable[[str], list]] = {"characters": characters, "words": words, "bytes": byte_tokens}


def tokens(text: str, by: str | Callable[[str], list] = "characters") -> list:
    """The tokens of a text, by "characters", "words", "bytes" or a function of one's own.

    >>> tokens("to be", by="words")
    ['to', 'be']
    """
    if callable(by):
        return by(text)
    if by not in TOKENIZERS:
        raise DataError(f"tokens: by is {by!r}; wanted is one of {', '.join(TOKENIZERS)}, or a function.")
    return TOKENIZERS[by](text)
