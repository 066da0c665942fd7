"""Patterns of dotted paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapegrad.errors import PathError
from tapegrad.paths import find, is_pattern, match, near, resolve, specificity

YES = [
    ("a", "a"), ("a.b", "a.b"), ("*", "a"), ("a.*", "a.b"), ("a*.b?", "abc.bd"), ("**", "a.b.c"), ("**", "a"),
    ("a.**", "a"), ("a.**", "a.b.c"), ("**.c", "c"), ("**.c", "a.b.c"), ("a.**.c", "a.c"), ("a.**.c", "a.b.b.c"),
    ("*.weight", "a.weight"), ("*.weight", "a.b.weight"), ("**.b.**", "a.b.c"), ("a.+x", "a.+x"),
]  # fmt: skip
NO = [
    ("a", "b"), ("a", "a.b"), ("*", "a.b"), ("a.*", "a.b.c"), ("a.*", "a"), ("*.weight", "weight"), ("a?", "a"),
    ("a.**.c", "a.c.d"), ("b.*.c", "a.b.c"), ("a.x", "abx"),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "path"), YES)
def test_matches(pattern, path):
    assert match(pattern, path)


@pytest.mark.parametrize(("pattern", "path"), NO)
def test_does_not_match(pattern, path):
    assert not match(pattern, path)


@given(st.lists(st.sampled_from(["a", "b", "ab", "0"]), min_size=1, max_size=6), st.data())
def test_a_path_with_wildcards_in_place_of_names_matches_itself(names, data):
    wild = [data.draw(st.sampled_from([n, "*", n[0] + "*"])) for n in names]
    at = data.draw(st.integers(0, len(wild)))
    assert match(".".join(wild), ".".join(names))
    assert match(".".join([*wild[:at], "**", *wild[at:]]), ".".join(names))


def test_tags():
    tags = {"cell": ("recurrent",), "body.cell": ("recurrent", "old"), "body": ()}
    named = dict.fromkeys(["cell.weight", "body.cell.weight", "body.weight"])

    def of(path):
        return tags.get(path, ())

    assert list(find("*<recurrent>.weight", named, of)) == ["cell.weight"]
    assert list(find("**.*<recurrent>.weight", named, of)) == ["cell.weight", "body.cell.weight"]
    assert list(find("**.*<recurrent><old>.weight", named, of)) == ["body.cell.weight"]
    assert list(find("body.cell<old>.*", named, of)) == ["body.cell.weight"]
    with pytest.raises(PathError, match="nothing is named"):
        find("*<recurrent>.weight", named)


@pytest.mark.parametrize("pattern", ["", "a..b", ".a", "a.", "<x>", "a<>.b", "a<b", "a>b", "a<x>b"])
def test_malformed_patterns(pattern):
    with pytest.raises(PathError, match="is no pattern.*is no name; names are joined by single dots"):
        match(pattern, "a")


def test_tags_of_several_names():
    with pytest.raises(PathError, match=r"\*\* stands for several names"):
        match("**<x>.a", "a")


def test_nothing_found_lists_near_names():
    with pytest.raises(PathError, match=r"nothing is named 'layers.0.wieght'; near names: layers.0.weight"):
        find("layers.0.wieght", dict.fromkeys(["layers.0.weight", "optimizer"]))
    with pytest.raises(PathError, match="there are no names at all"):
        find("a", {})
    assert near("zzz", [*"abcdefg"]) == "there are a, b, c, d, e, …"


def test_the_more_specific_pattern_wins():
    ordered = ["**", "*", "*.weight", "head.*", "head.*.weight", "head.0.weight", "head.0<linear>.weight"]
    assert sorted(ordered, key=specificity) == ordered
    names = ["head.0.weight", "head.1.weight", "body.weight", "head.0.bias"]
    rules = {"head.0.weight": 1, "**": 4, "*.weight": 3, "head.*.weight": 2}
    assert resolve(rules, names) == {"head.0.weight": 1, "head.1.weight": 2, "body.weight": 3, "head.0.bias": 4}
    assert resolve({"a.*": 1, "*.b": 2}, ["a.b"]) == {"a.b": 1}
    assert resolve({"a.b*": 1, "a.*c": 2}, ["a.bc"]) == {"a.bc": 2}
    with pytest.raises(PathError, match="nothing is named 'tail"):
        resolve({"tail.*": 1}, names)
    assert is_pattern("a?") and is_pattern("a<b>") and not is_pattern("a.b")
