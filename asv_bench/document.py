"""What a row of a report holds; sections of docs/performance.md that one command writes and others leave alone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Outcome(NamedTuple):
    """What was measured, in words, and whether the bar was met; None where there is none, or nothing was measured."""

    text: str
    met: bool | None = None


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def replace_section(path: Path, name: str, text: str) -> None:
    """Put the text between the section's two marks, which are added at the end where they are missing."""
    begin, end = _marks(name)
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    section = f"{begin}\n{text.strip()}\n{end}\n"
    if begin in old and end in old:
        before, _, rest = old.partition(begin)
        after = rest.partition(end)[2].lstrip("\n")
        path.write_text(before + section + ("\n" + after if after else ""), encoding="utf-8")
    else:
        path.write_text(old.rstrip("\n") + "\n\n" + section if old else section, encoding="utf-8")


def sections(path: Path, *names: str) -> str:
    """The sections of those names that the document has, with their marks."""
    text, found = path.read_text(encoding="utf-8") if path.exists() else "", []
    for name in names:
        begin, end = _marks(name)
        if begin in text and end in text:
            found.append(begin + text.partition(begin)[2].partition(end)[0] + end + "\n")
    return "\n".join(found)
