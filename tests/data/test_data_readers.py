"""Tables, NumPy's files, images, text, JSON lines, Parquet, and collections of other libraries."""

from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from tapegrad import data
from tapegrad.errors import DataError, DtypeError, IndexOutOfRange

# tables


def test_table():
    table = data.Table({"a": [1, 2, 3], "b": np.ones((3, 2), np.float32), "t": ["x", "y", "z"]})
    assert len(table) == 3 and table[["a", "t"]].columns == ("a", "t")
    assert table[1:]["a"].tolist() == [2, 3] and table[table["a"] > 2]["t"].tolist() == ["z"]
    assert table[0]["t"] == "x" and [r["a"] for r in table] == [1, 2, 3]
    assert table.array().tolist() == [[1, 1, 1], [2, 1, 1], [3, 1, 1]] and table.array().dtype == np.float64
    assert table.array("a", dtype=np.float32).dtype == np.float32
    assert repr(table) == "Table(3 records: a: int64, b: float32(2,), t: <U1)"
    batch = next(iter(data.DataLoader(table, batch_size=2)))
    assert batch["a"].tolist() == [1, 2] and batch["t"].tolist() == ["x", "y"]


def test_table_errors():
    table = data.Table({"height": [1, 2], "t": ["x", "y"]})
    with pytest.raises(DataError, match="no column 'hight'. Did you mean height?"):
        table["hight"]
    with pytest.raises(IndexOutOfRange, match="index 2 is not among its 2 records"):
        table[2]
    with pytest.raises(DataError, match="'a' 1, 'b' 2"):
        data.Table({"a": [1], "b": [1, 2]})
    with pytest.raises(DataError, match="column 't' holds <U1, not numbers"):
        table.array(["height", "t"])
    with pytest.raises(DataError, match="no column is numeric"):
        table[["t"]].array()
    with pytest.raises(DataError, match="no column was given"):
        data.Table({})
    with pytest.raises(DataError, match="'a' is a single value"):
        data.Table({"a": 1})


# NumPy's files


def test_npy(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "a.npy", array)
    (tmp_path / "a.npy.gz").write_bytes(gzip.compress((tmp_path / "a.npy").read_bytes()))
    for name in ("a.npy", "a.npy.gz"):
        assert np.array_equal(data.read_npy(tmp_path / name), array)
    mapped = data.read_npy(tmp_path / "a.npy", mmap=True)
    assert isinstance(mapped, np.memmap) and np.array_equal(mapped, array) and not mapped.flags.writeable
    np.savez(tmp_path / "a.npz", x=array, y=np.ones(2))
    found = data.read_npz(tmp_path / "a.npz")
    assert np.array_equal(found["x"], array) and found["y"].tolist() == [1, 1]


def test_npy_that_are_none(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}, "x"], dtype=object), allow_pickle=True)
    np.save(tmp_path / "whole.npy", np.arange(100))
    whole = (tmp_path / "whole.npy").read_bytes()
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    for name, content in {"cut": whole[:-1], "long": whole + b"0", "empty": b"", "html": b"<html>"}.items():
        (tmp_path / name).write_bytes(content)
    for name in ("objects.npy", "cut", "long", "empty", "html"):
        with pytest.raises(DataError, match="is no .npy file, is damaged, or holds Python objects"):
            data.read_npy(tmp_path / name)
    for name in ("objects.npy", "empty", "html"):
        with pytest.raises(DataError, match="read_npz"):
            data.read_npz(tmp_path / name)
    with pytest.raises(DataError, match="read it with read_npy"):
        data.read_npz(tmp_path / "whole.npy")
    with pytest.raises(DataError, match="read it with read_npz"):
        data.read_npy(tmp_path / "a.npz", mmap=True)


def test_memory_map(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"head" + np.arange(12, dtype="<i2").tobytes())
    mapped = data.memory_map(path, "<i2", (-1, 4), offset=4)
    assert mapped.tolist() == np.arange(12).reshape(3, 4).tolist()
    assert data.memory_map(path, "<i2", offset=4).shape == (12,)
    for shape, offset in [((2, 4), 4), ((-1, 5), 4), ((-1, -1), 4), ((-2,), 4), ((12,), 0), ((0,), 30)]:
        with pytest.raises(DataError, match="memory_map"):
            data.memory_map(path, "<i2", shape, offset=offset)
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        data.memory_map(tmp_path / "empty", "<i2", (0,))
    with pytest.raises(DataError, match="holds no Python objects"):
        data.memory_map(path, object)


# images


def png(width, height, pixels):
    """A grey PNG written by hand, so that the reader is not tested against itself."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + bytes(row) for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_images(tmp_path):
    pytest.importorskip("PIL")
    (tmp_path / "a.png").write_bytes(png(3, 2, [[0, 51, 255], [255, 0, 102]]))
    grey = data.read_image(tmp_path / "a.png", mode="L")
    assert grey.shape == (1, 2, 3) and grey.dtype == np.float32 and grey.flags.c_contiguous
    np.testing.assert_allclose(grey[0], [[0, 0.2, 1], [1, 0, 0.4]], rtol=1e-6)
    colour = data.read_image(tmp_path / "a.png")
    assert colour.shape == (3, 2, 3) and np.array_equal(colour[2], grey[0])
    assert data.read_image(tmp_path / "a.png", size=(4, 6)).shape == (3, 4, 6)


def test_images_that_are_none(tmp_path, monkeypatch):
    pytest.importorskip("PIL")
    whole = png(30, 20, np.random.default_rng(0).integers(0, 256, (20, 30)))
    for name, content in {"cut": whole[:300], "html": b"<html>", "empty": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="is no image that can be read, or a damaged one"):
            data.read_image(tmp_path / name)
    (tmp_path / "whole").write_bytes(whole)
    with pytest.raises(DataError, match="mode is 'CMYK'"):
        data.read_image(tmp_path / "whole", mode="CMYK")
    monkeypatch.setattr("tapegrad.data.readers.images.MAX_PIXELS", 599)
    with pytest.raises(DataError, match="has 30 by 20 pixels, and at most 599"):
        data.read_image(tmp_path / "whole")


def test_image_folder(tmp_path):
    pytest.importorskip("PIL")
    for kind, count in (("dogs", 2), ("cats", 3)):
        (tmp_path / kind).mkdir()
        for i in range(count):
            (tmp_path / kind / f"{i}.png").write_bytes(png(2, 2, [[i, i], [i, i]]))
    (tmp_path / "readme.txt").write_text("")
    images = data.ImageFolder(tmp_path, mode="L")
    assert images.classes == ["cats", "dogs"] and images.labels.tolist() == [0, 0, 0, 1, 1] and len(images) == 5
    image, label = images[-1]
    assert label == 1 and image[0, 0, 0] == np.float32(1 / 255)
    x, y = next(iter(data.DataLoader(images, batch_size=4, num_workers=2)))
    assert x.shape == (4, 1, 2, 2) and y.tolist() == [0, 0, 0, 1]
    with pytest.raises(IndexOutOfRange, match="image 5 is not among its 5"):
        images[5]
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_text("")
    with pytest.raises(DataError, match="holds no image"):
        data.ImageFolder(tmp_path / "none")


@pytest.mark.parametrize(("module", "name"), [("PIL.Image", "images"), ("pyarrow", "parquet")])
def test_an_extra_that_is_missing(tmp_path, monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=rf"pip install 'tapegrad\[{name}\]'"):
        (data.read_image if name == "images" else data.read_parquet)(tmp_path / "file")


# text


def test_text(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffa\r\nbé\r".encode())
    assert data.read_text(tmp_path / "a.txt") == "a\nbé\n"
    (tmp_path / "b.txt").write_bytes("é".encode("latin-1"))
    assert data.read_text(tmp_path / "b.txt", encoding="latin-1") == "é"
    with pytest.raises(DataError, match="is not utf-8 .*encoding='latin-1'"):
        data.read_text(tmp_path / "b.txt")
    assert data.tokens("a b", by="characters") == ["a", " ", "b"]
    assert data.tokens("Don't go, now.", by="words") == ["Don't", "go", ",", "now", "."]
    assert data.tokens("é", by="bytes") == [0xC3, 0xA9]
    assert data.tokens("a-b", by=lambda text: text.split("-")) == ["a", "b"]
    with pytest.raises(DataError, match="by is 'syllables'"):
        data.tokens("a", by="syllables")


def test_vocabulary():
    vocabulary = data.Vocabulary.of(["the cat", "the dog sat"], by="words", special=["<pad>"], unknown="<unk>")
    assert vocabulary.tokens == ["<pad>", "<unk>", "cat", "dog", "sat", "the"]
    codes = vocabulary.encode("the bird sat")
    assert codes.tolist() == [5, 1, 4] and codes.dtype == np.int64
    assert vocabulary.text(codes) == "the <unk> sat" and "cat" in vocabulary
    common = data.Vocabulary.of("a a a b b c", by="words", max_size=3, unknown="?")
    assert common.tokens == ["?", "a", "b"]
    assert data.Vocabulary.of("a a b", by="words", min_count=2).tokens == ["a"]
    other = data.Vocabulary(["x"])
    other.load_state_dict(json.loads(json.dumps(vocabulary.state_dict())))
    assert other.encode("the bird sat").tolist() == codes.tolist() and len(other) == 6


def test_vocabulary_errors():
    vocabulary = data.Vocabulary.of("hello", by="characters")
    with pytest.raises(DataError, match="token 1, 'x', is not among its 4.*unknown='<unk>'"):
        vocabulary.encode("hx")
    for codes in ([4], [-1], [0.5]):
        with pytest.raises(DataError, match="codes are whole numbers from 0 to 3"):
            vocabulary.decode(codes)
    with pytest.raises(DataError, match="there is no token"):
        data.Vocabulary.of("")
    with pytest.raises(DataError, match="'a' stands twice"):
        data.Vocabulary(["a", "b", "a"])


# JSON lines


def lines(path, *records):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


def test_json_lines(tmp_path):
    path = lines(
        tmp_path / "a.jsonl",
        {"i": 1, "f": 1.5, "t": "x", "v": [1, 2], "b": True},
        "",
        {"i": 2, "v": [3, 4], "b": False},
    )
    table = data.read_jsonl(path)
    assert table["i"].tolist() == [1, 2] and table["v"].tolist() == [[1, 2], [3, 4]]
    assert table["f"][0] == 1.5 and np.isnan(table["f"][1]) and table["t"].tolist() == ["x", ""]
    assert table["b"].dtype == bool
    assert data.read_jsonl(path, columns=["i"]).columns == ("i",)
    assert [r["i"] for r in data.iterate_jsonl(path)] == [1, 2]


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        (['{"a": 1}', "{a: 1}"], "line 2 is no JSON"),
        (["[1, 2]"], "line 1 is a list"),
        ([], "holds no record"),
        ([{"a": 1}, {"a": "x"}], "column 'a' holds int, str; wanted are values of one kind"),
        ([{"a": [1, 2]}, {"a": [1]}], "lists of numbers of one length"),
        ([{"a": [1]}, {}], "list and missing values"),
        ([{"a": {"b": 1}}], "holds dict"),
    ],
)
def test_json_lines_that_are_refused(tmp_path, records, sentence):
    with pytest.raises(DataError) as error:
        data.read_jsonl(lines(tmp_path / "a.jsonl", *records))
    assert sentence in str(error.value)


def test_json_lines_without_a_column(tmp_path):
    with pytest.raises(DataError, match="no column 'b'"):
        data.read_jsonl(lines(tmp_path / "a.jsonl", {"a": 1}), columns=["b"])


# Parquet


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table(
        {
            "i": pa.array([1, 2], pa.int32()),
            "gap": pa.array([1, None], pa.int64()),
            "f": pa.array([1.5, None], pa.float32()),
            "t": ["x", None],
            "v": [[1.0, 2.0], [3.0, 4.0]],
            "b": [True, False],
            "when": pa.array([1, 2], pa.timestamp("ms")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    found = data.read_parquet(tmp_path / "a.parquet", columns=["v", "i", "gap", "f", "t", "b"])
    assert found.columns == ("v", "i", "gap", "f", "t", "b")
    assert found["i"].dtype == np.int32 and found["v"].tolist() == [[1, 2], [3, 4]] and found["b"].dtype == bool
    assert found["f"].dtype == np.float32 and np.isnan(found["f"][1]) and np.isnan(found["gap"][1])
    assert found["t"].tolist() == ["x", ""]
    with pytest.raises(DataError, match=r"column 'when' holds timestamp\[ms\]; turn it into"):
        data.read_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column 'vv'"):
        data.read_parquet(tmp_path / "a.parquet", columns=["vv"])
    (tmp_path / "cut").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(DataError, match="is no Parquet file, or a damaged one"):
        data.read_parquet(tmp_path / "cut")
    pq.write_table(table.slice(0, 0), tmp_path / "none.parquet")
    with pytest.raises(DataError, match="holds no record"):
        data.read_parquet(tmp_path / "none.parquet")


# collections of other libraries


class HuggingFace:
    """Answers as `datasets.Dataset` does: dicts of lists for slices, lists of dicts for `__getitems__`."""

    def __init__(self, count):
        self.count, self.asked = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, key):
        if isinstance(key, slice):
            rows = range(self.count)[key]
            return {"x": [[i, -i] for i in rows], "text": [f"t{i}" for i in rows]}
        return {"x": [key, -key], "text": f"t{key}"}

    def __getitems__(self, keys):
        self.asked.append(keys)
        return [self[k] for k in keys]


def test_records_of_other_libraries():
    table = data.read_records(HuggingFace(5), start=1, stop=4)
    assert table["x"].tolist() == [[1, -1], [2, -2], [3, -3]] and table["text"].tolist() == ["t1", "t2", "t3"]
    other = HuggingFace(5)
    batches = list(data.DataLoader(other, batch_size=3))
    assert other.asked == [[0, 1, 2], [3, 4]]  # not one by one
    assert batches[0]["text"] == ["t0", "t1", "t2"]
    assert [b["x"].tolist() for b in data.Blocks(HuggingFace(5), block_size=4)] == [
        [[0, 0], [1, -1], [2, -2], [3, -3]],
        [[4, -4]],
    ]

    class Plain:
        def __len__(self):
            return 2

        def __getitem__(self, i):
            if not isinstance(i, int):
                raise TypeError
            return {"x": i}

    assert data.read_records(Plain())["x"].tolist() == [0, 1]


def test_records_of_a_frame():
    class Frame:
        """Answers as a frame of pandas does."""

        def __init__(self, columns):
            self.held, self.columns = columns, list(columns)

        def __len__(self):
            return 3

        def __getitem__(self, key):
            return Frame({n: c[key] for n, c in self.held.items()}) if isinstance(key, slice) else self.held[key]

    frame = Frame({"x": np.array([1.5, 2, 3]), "t": np.array(["a", "b", np.nan], dtype=object)})
    table = data.read_records(frame, start=1)
    assert table["x"].tolist() == [2, 3] and table["t"].tolist() == ["b", ""]


def test_records_that_are_none():
    with pytest.raises(DtypeError, match="a generator has no __len__"):
        data.read_records(i for i in range(3))
    with pytest.raises(DtypeError, match="a record is a int"):
        data.read_records([1, 2])
    with pytest.raises(DataError, match="records 3 to 2 of 2 are none"):
        data.read_records([{"a": 1}, {"a": 2}], start=3)
    with pytest.raises(DataError, match="there is no column 'b'"):
        data.read_records([{"a": 1}], columns=["b"])


def test_idx_takes_sources(tmp_path):
    raw = bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9])
    with_zip = io.BytesIO()
    import zipfile

    with zipfile.ZipFile(with_zip, "w") as archive:
        archive.writestr("labels", raw)
    (tmp_path / "a.zip").write_bytes(with_zip.getvalue())
    assert data.read_idx(data.Member(tmp_path / "a.zip", "labels")).tolist() == [7, 8, 9]


def test_import_is_lazy():
    """`import tapegrad` loads nothing of the data package but its list of names."""
    code = "import sys, tapegrad; print([m for m in sys.modules if m.startswith('tapegrad.data.')])"
    root = Path(data.__file__).parent.parent.parent
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout
    assert out == "[]\n"


def test_names_of_the_package_agree():
    """The lazily imported names are those that type checkers see."""
    import ast

    import tapegrad.data as package

    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.asname: node.module
        for branch in tree.body
        if isinstance(branch, ast.If)
        for node in branch.body
        for alias in node.names
    }
    assert set(seen) == set(package.__all__) == set(package._HOME) | {"preprocess"}
    assert all(seen[name] == home for name, home in package._HOME.items())
    for name in package.__all__:
        assert getattr(package, name).__doc__ or name.isupper()
    with pytest.raises(AttributeError, match="nothing"):
        package.nothing
    assert set(package.__all__) <= set(dir(package))
