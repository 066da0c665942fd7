"""CSV files: what is found in them, both ways alike, and what is refused."""

from __future__ import annotations

import gzip
import importlib.util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapegrad import data
from tapegrad.data.readers import csv as careful
from tapegrad.data.readers import csv_arrow
from tapegrad.errors import DataError, DtypeError

ARROW = importlib.util.find_spec("pyarrow") is not None
WAYS = [False, True] if ARROW else [False]


def read(tmp_path, text, **options):
    """What `read_csv` makes of a text; with pyarrow, the same both ways."""
    path = tmp_path / options.pop("file", "file.csv")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    tables = [data.read_csv(path, fast=fast, **options) for fast in WAYS]
    for table in tables[1:]:
        assert table.columns == tables[0].columns
        for name in table.columns:
            np.testing.assert_array_equal(table[name], tables[0][name])
            assert table[name].dtype == tables[0][name].dtype
    return tables[0]


def refused(tmp_path, text, kind=DataError, **options):
    """The sentence with which a text is refused, the same both ways."""
    path = tmp_path / "file.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    sentences = []
    for fast in WAYS:
        with pytest.raises(kind) as error:
            data.read_csv(path, fast=fast, **options)
        sentences.append(str(error.value))
    assert len(set(sentences)) == 1
    return sentences[0]


def test_types_are_found(tmp_path):
    table = read(tmp_path, 'id,x,name,gap\n1,1.5,"a, b",\n2,-3e2,c,7\n')
    assert table.columns == ("id", "x", "name", "gap")
    assert table["id"].dtype == np.int64 and table["id"].tolist() == [1, 2]
    assert table["x"].dtype == np.float64 and table["x"].tolist() == [1.5, -300]
    assert table["name"].tolist() == ["a, b", "c"]
    assert np.isnan(table["gap"][0]) and table["gap"][1] == 7
    assert len(table) == 2


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (["0x10", "5"], [16, 5]),
        (["+5", "6"], [5.0, 6.0]),
        ([" 5", "6 "], [5, 6]),
        (["1_0", "2"], ["1_0", "2"]),
        (["inf", "-Infinity"], [np.inf, -np.inf]),
        (["2020-01-01", "2021-01-01"], ["2020-01-01", "2021-01-01"]),
        (["true", "false"], ["true", "false"]),
        (["99999999999999999999", "1"], [1e20, 1.0]),
        (["1", "1.5"], [1.0, 1.5]),
        (["007", "-0"], [7, 0]),
        (["1.", ".5"], [1.0, 0.5]),
        (["1e400", "1"], [np.inf, 1.0]),
        (["NA", "null"], [np.nan, np.nan]),
        (["12:30", "1"], ["12:30", "1"]),
        (["1.5f", "1"], ["1.5f", "1"]),
        (["NA", "x"], ["", "x"]),
        (["NA", "3"], [np.nan, 3.0]),
    ],
)
def test_what_counts_as_a_number(tmp_path, values, wanted):
    column = read(tmp_path, "a,b\n" + "".join(f"{v},1\n" for v in values))["a"]
    np.testing.assert_array_equal(column, np.array(wanted))
    assert column.dtype.kind == np.array(wanted).dtype.kind


@given(
    rows=st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False),
            st.text(st.characters(codec="utf-8", exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=8),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_what_is_written_is_read(tmp_path_factory, rows):
    import csv

    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_MINIMAL)
        writer.writerow(["i", "f", "t"])
        writer.writerows([(i, repr(f), t) for i, f, t in rows])
    for fast in WAYS:
        table = data.read_csv(path, fast=fast, dtypes={"i": np.int64, "f": np.float64, "t": str}, missing=())
        assert table["i"].tolist() == [i for i, _, _ in rows]
        assert table["f"].tobytes() == np.array([f for _, f, _ in rows]).tobytes()
        assert [t.rstrip("\0") for t in table["t"].tolist()] == [t for _, _, t in rows]


def test_options(tmp_path):
    text = "made by hand\na;b;c\n1;2;x\n3;4;y\n"
    table = read(tmp_path, text, skip_rows=1, delimiter=";", columns=["c", "a"], dtypes={"a": np.float32})
    assert table.columns == ("c", "a") and table["a"].dtype == np.float32
    assert read(tmp_path, "1\t2\n3\t4\n", file="a.tsv", header=False)["1"].tolist() == [2, 4]
    assert read(tmp_path, "1,2\n", header=False, names=["x", "y"])["y"].tolist() == [2]
    assert read(tmp_path, "a,b\n1,2\n", names=["x", "y"])["y"].tolist() == [2]
    assert read(tmp_path, "a,b\n1,-\n2,5\n", missing=["-"])["b"].tolist()[1] == 5
    gap = read(tmp_path, "a,b\n1,-9\n2,5\n", missing=["-9"])["b"]
    assert np.isnan(gap[0]) and gap[1] == 5
    assert read(tmp_path, "a\n1\n\n2\n")["a"].tolist() == [1, 2]  # empty lines
    assert read(tmp_path, b"\xef\xbb\xbfa,b\r\n1,2\r\n")["a"].tolist() == [1]  # byte order mark, Windows
    assert read(tmp_path, "a,b\n1,2")["b"].tolist() == [2]  # no last line end
    assert read(tmp_path, "name\né\n".encode("latin-1"), encoding="latin-1")["name"].tolist() == ["é"]
    assert read(tmp_path, gzip.compress(b"a\n1\n"), file="a.csv.gz")["a"].tolist() == [1]
    assert read(tmp_path, "a,b\n1,0\n0,1\n", dtypes=bool)["a"].tolist() == [True, False]
    assert read(tmp_path, "a,b\n1,2\n", dtypes=str)["a"].tolist() == ["1"]
    assert read(tmp_path, "a,b\n200,2\n", dtypes=np.uint8)["a"].dtype == np.uint8


def test_types_that_show_late(tmp_path, monkeypatch):
    monkeypatch.setattr(careful, "CHUNK", 10)
    monkeypatch.setattr(csv_arrow, "BLOCK", 64)
    for late, kind in (("1.5", "f"), ("x", "U"), ("", "f")):
        values = ["1"] * 45 + [late] + ["2"] * 20
        column = read(tmp_path, "a,b\n" + "".join(f"{v},1\n" for v in values))["a"]
        assert column.dtype.kind == kind and len(column) == 66


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("a,b\n1,2\n\n3\n4,5\n", {}, "line 4 has 1 fields, and the header has 2"),
        ("a,b\n1,2\n3,4,5\n", {}, "line 3 has 3 fields"),
        ('a,b\n"x\ny",2\n3\n', {}, "line 4 has 1 fields"),
        ("a,b\n1,2\n", dict(columns=["hight", "a"]), "no column 'hight'. There are a, b"),
        ("height,b\n1,2\n", dict(columns="hight"), "Did you mean height?"),
        ("a,b\n1,2\n", dict(dtypes={"c": int}), "no column 'c'"),
        ("a,a\n1,2\n", {}, "more than one column named a"),
        ("a,b\n1,2\nx,3\n", dict(dtypes=np.float32), "line 3, column 'a' holds 'x' and not a number that fits float32"),
        ("a,b\n1,2\n1.5,3\n", dict(dtypes={"a": int}), "line 3, column 'a' holds '1.5' and not a whole number"),
        ("a,b\n1,2\n,3\n", dict(dtypes={"a": int}), "holds '', which stands for no value, and not a whole number"),
        ("a,b\n1,2\n300,3\n", dict(dtypes={"a": np.uint8}), "'300' and not a whole number from 0 that fits uint8"),
        ("a,b\n-1,2\n", dict(dtypes={"a": np.uint8}), "'-1' and not a whole number from 0"),
        (
            "a,b\n1,2\n-9,2\n",
            dict(dtypes={"a": int}, missing=["-9"]),
            "line 3, column 'a' holds '-9', which stands for no",
        ),
        ("a,b\nmaybe,2\n", dict(dtypes={"a": bool}), "'maybe' and not true or false"),
        ("", {}, "holds no record"),
        ("a,b\n", {}, "has a header and no record"),
        ('a,b\n"x,2\n', {}, "Is a quote not closed"),
        ("name\né\n".encode("latin-1"), {}, "is not utf-8"),
        ("a,b\n1,2\n", dict(names=["x"]), "has 2 columns, and 1 names were given"),
        ("a,b\n1,2\n", dict(delimiter=""), "the delimiter is ''"),
        ("a,b\n1,2\n", dict(delimiter="::"), "one character is wanted"),
    ],
)
def test_what_is_refused(tmp_path, text, options, sentence):
    assert sentence in refused(tmp_path, text, **options)


def test_other_refusals(tmp_path):
    assert "a column cannot be complex128" in refused(tmp_path, "a\n1\n", DtypeError, dtypes=complex)
    with pytest.raises(DataError, match="there is no file"):
        data.read_csv(tmp_path / "none.csv")
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 1000)[:-9])
    for fast in WAYS:
        with pytest.raises(DataError, match="damaged gzip file"):
            data.read_csv(path, fast=fast)


def test_one_long_text_does_not_blow_up_the_others(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "x,1\n" * 2000 + "y" * 100_000 + ",1\n")
    column = data.read_csv(path, fast=False)["a"]
    assert column.dtype == object and len(column[-1]) == 100_000 and column[0] == "x"


def test_text_behind_a_closing_quote(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,2\n"x"y,2\n')
    with pytest.raises(DataError, match="line 3.*expected after"):
        data.read_csv(path, fast=False)


@pytest.mark.skipif(not ARROW, reason="needs pyarrow")
def test_the_fast_way_is_taken(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,x\n")
    monkeypatch.setattr(careful, "_read_with_care", lambda request: pytest.fail("the slow way was taken"))
    assert data.read_csv(path)["b"].tolist() == ["x"]
