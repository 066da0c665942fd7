"""Sections: fields of samples out of columns and stretches."""

from __future__ import annotations

import numpy as np
import pytest

from tapegrad import data
from tapegrad.errors import DataError, DtypeError, IndexOutOfRange


def test_columns():
    table = data.Table({"a": [1.0, 2, 3], "b": [4.0, 5, 6], "kind": ["x", "y", "z"], "image": np.zeros((3, 2, 2))})
    sections = data.Sections(table, inputs=["a", "b"], targets="kind", image="image")
    assert len(sections) == 3
    assert sections[1]["inputs"].tolist() == [2, 5] and sections[1]["targets"] == "y"
    assert sections[-1]["image"].shape == (2, 2)
    assert sections[1:]["inputs"].shape == (2, 2)
    batch = next(iter(data.DataLoader(sections, batch_size=2)))
    assert list(batch) == ["inputs", "targets", "image"] and batch["inputs"].shape == (2, 2)
    matrix = np.arange(12.0).reshape(4, 3)
    sections = data.Sections(matrix, inputs=slice(0, 2), targets=2, picked=[2, 0])
    assert sections[1]["inputs"].tolist() == [3, 4] and sections[1]["targets"] == 5
    assert sections[1]["picked"].tolist() == [5, 3]
    assert repr(sections) == "Sections(4 samples of inputs: float64 (2,), targets: float64 (), picked: float64 (2,))"


def test_next_characters():
    codes = np.arange(100)
    sections = data.Sections(codes, inputs=data.Span(8), targets=data.Span(8, offset=1), step=3, as_tuple=True)
    assert len(sections) == (100 - 9) // 3 + 1
    for i, (x, y) in enumerate(sections):
        assert x.tolist() == list(range(3 * i, 3 * i + 8)) and np.array_equal(y, x + 1)
    x, y = next(iter(data.DataLoader(sections, batch_size=4, shuffle=True, seed=0)))
    assert x.shape == (4, 8) and np.array_equal(y, x + 1)
    last = data.Sections(np.arange(9), inputs=data.Span(8), targets=data.Span(offset=8))
    assert len(last) == 1 and last[0]["targets"] == 8


def test_stretches_of_columns():
    table = {"price": np.arange(10.0), "volume": np.arange(10.0) * 2}
    sections = data.Sections(
        table,
        inputs=data.Span(3, of=["price", "volume"]),
        targets=data.Span(offset=3, of="price"),
    )
    assert len(sections) == 7
    assert sections[2]["inputs"].tolist() == [[2, 4], [3, 6], [4, 8]] and sections[2]["targets"] == 5


@pytest.mark.parametrize(
    ("source", "options", "kind", "sentence"),
    [
        (np.arange(5), {}, DataError, "no field was given"),
        (np.arange(5), dict(x=data.Span(6)), DataError, "reaches over 6 records, and the source has 5"),
        (np.arange(5), dict(x=data.Span(2, offset=-1)), DataError, "offset is from 0"),
        (np.arange(5), dict(x=data.Span(0)), DataError, "length from 1"),
        (np.arange(5), dict(x=data.Span(2), step=0), DataError, "step is 0"),
        (np.arange(5), dict(x=1), DataError, "the source has one axis"),
        (np.zeros((5, 2)), dict(x=2), DataError, "the source has 2 columns"),
        (np.zeros((5, 2)), dict(x="a"), DataError, "an array without names"),
        ({"a": np.arange(5)}, dict(x="b"), DataError, "no column 'b'"),
        ({"a": np.arange(5), "b": np.arange(5)}, dict(x=data.Span(2)), DataError, "say which column x is of"),
        (np.array(1.0), dict(x=data.Span(2)), DtypeError, "the source must be"),
    ],
)
def test_sections_that_are_refused(source, options, kind, sentence):
    with pytest.raises(kind) as error:
        data.Sections(source, **options)
    assert sentence in str(error.value)


def test_sections_index():
    with pytest.raises(IndexOutOfRange, match="sample 5 is not among its 5"):
        data.Sections(np.arange(5), x=data.Span(1))[5]
