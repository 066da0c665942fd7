"""Patterns for dotted paths: one language to name parameters, settings, values and whatever else has a path.

A path is names joined by dots, such as `encoder.layers.0.weight`. In a pattern

* `*` within a name stands for any characters of that name, `?` for one: `layers.*.weight`, `conv?.bias`;
* `**` stands for any number of names, also none: `encoder.**.bias`;
* `<tag>` behind a name asks that what stands there has the tag: `**.*<recurrent>.weight`;
* a first `*` that stands alone matches at any depth: `*.weight` is every weight that is not the model's own.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from typing import TypeVar

from .errors import PathError

T = TypeVar("T")
Tags = Callable[[str], Collection[str]]
_PART = re.compile(r"([^<>]*)((?:<[^<>.]+>)*)")


def is_pattern(path: str) -> bool:
    """True where a path holds anything but plain names.

    >>> is_pattern("layers.*.bias"), is_pattern("layers.0.bias")
    (True, False)
    """
    return any(c in path for c in "*?<")


@lru_cache(maxsize=1024)
def _parts(pattern: str) -> tuple[tuple[str, re.Pattern | None, tuple[str, ...]], ...]:
    """(name, what it matches or None for `**`, tags) of each part."""
    found: list[tuple[str, re.Pattern | None, tuple[str, ...]]] = []
    names = pattern.split(".")
    for place, text in enumerate(names):
        split = _PART.fullmatch(text)
        if split is None or not split[1]:
            raise PathError(
                f"{pattern!r} is no pattern: {text!r} is no name; names are joined by single dots, tags stand behind a name, as in "
                "'*<recurrent>.weight'"
            )
        name, tags = split[1], tuple(re.findall(r"<([^<>]+)>", split[2]))
        if name == "**":
            if tags:
                raise PathError(
                    f"{pattern!r} is no pattern: ** stands for several names, and tags belong to one: '**.*<tag>'"
                )
            found.append((name, None, ()))
            continue
        if name == "*" and place == 0 and len(names) > 1 and not tags:
            found.append(("**", None, ()))
        expression = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in name)
        found.append((name, re.compile(expression, re.DOTALL), tags))
    return tuple(found)


def match(pattern: str, path: str, tags: Tags | None = None) -> bool:
    """Whether a path is one that the pattern names. tags: gives the tags of what a path leads to.

    >>> match("layers.*.weight", "layers.0.weight"), match("layers.*.weight", "layers.0.norm.weight")
    (True, False)
    >>> match("*.weight", "encoder.layers.0.weight"), match("encoder.**.bias", "encoder.bias")
    (True, True)
    """
    parts, names = _parts(pattern), path.split(".")
    ends = {0}  # how many names the parts so far may take
    for _, expression, wanted in parts:
        if expression is None:
            ends = set(range(min(ends), len(names) + 1))
        else:
            ends = {
                n + 1
                for n in ends
                if n < len(names) and expression.fullmatch(names[n]) and _tagged(wanted, names[: n + 1], tags)
            }
        if not ends:
            return False
    return len(names) in ends


def _tagged(wanted: tuple[str, ...], names: list[str], tags: Tags | None) -> bool:
    return not wanted or (tags is not None and set(wanted) <= set(tags(".".join(names))))


def find(pattern: str, named: Mapping[str, T], tags: Tags | None = None) -> dict[str, T]:
    """Those of some named things that a pattern names, in their order.

    PathError where there is none; it lists near names.

    >>> find("*.bias", {"a.weight": 1, "a.bias": 2, "b.bias": 3})
    {'a.bias': 2, 'b.bias': 3}
    """
    found = {path: value for path, value in named.items() if match(pattern, path, tags)}
    if not found:
        raise PathError(f"nothing is named {pattern!r}; {near(pattern, named)}")
    return found


def near(pattern: str, names: Iterable[str], most: int = 5) -> str:
    """A sentence with the names that are most like the pattern.

    >>> near("layer.wieght", ["layer.weight", "layer.bias"], 1)
    'near names: layer.weight'
    """
    listed = list(names)
    if not listed:
        return "there are no names at all"
    found = difflib.get_close_matches(pattern, listed, most, 0.5)
    if not found:
        more = ", …" if len(listed) > most else ""
        return f"there are {', '.join(listed[:most])}{more}"
    return f"near names: {', '.join(found)}"


def specificity(pattern: str) -> tuple[int, int, int, int]:
    """A key that is larger for a pattern that says more: plain names, then as few `**` as can be, letters, and tags.

    >>> specificity("head.*.bias") > specificity("*.bias") > specificity("**")
    True
    """
    parts = _parts(pattern)
    plain = sum(1 for name, expression, _ in parts if expression is not None and not is_pattern(name))
    letters = sum(len(name.replace("*", "").replace("?", "")) for name, _, _ in parts)
    tags = sum(len(wanted) for _, _, wanted in parts)
    return plain, -sum(1 for _, expression, _ in parts if expression is None), letters, tags


def resolve(patterns: Mapping[str, T], paths: Iterable[str], tags: Tags | None = None) -> dict[str, T]:
    """For each path that any pattern names, the value of the most specific one (of equals, the last).

    PathError where a pattern names nothing.

    >>> resolve({"*.weight": 1, "head.weight": 2}, ["head.weight", "body.weight", "head.bias"])
    {'head.weight': 2, 'body.weight': 1}
    """
    listed = list(paths)
    ordered = sorted(patterns.items(), key=lambda item: specificity(item[0]))
    found: dict[str, T] = {}
    for pattern, value in ordered:
        found.update(dict.fromkeys(find(pattern, dict.fromkeys(listed), tags), value))
    return {path: found[path] for path in listed if path in found}
