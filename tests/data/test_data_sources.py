"""Sources: files, folders, downloads, compressed files, archives. No test needs a network."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tapegrad import config, data
from tapegrad.data.sources import storage
from tapegrad.errors import DataError, DtypeError, IndexOutOfRange

TEXT = b"name,height\n" + b"Ada,1.62\n" * 50


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """An empty cache folder, and no TAPEGRAD_DATA."""
    monkeypatch.delenv("TAPEGRAD_DATA", raising=False)
    folder = tmp_path / "cache"
    monkeypatch.setattr(config, "cache_directory", lambda: folder)
    return folder


def content(source):
    with source.open() as stream:
        return stream.read()


# files and folders


def test_file(tmp_path):
    (tmp_path / "people.csv").write_bytes(TEXT)
    file = data.File(tmp_path / "people.csv")
    assert content(file) == TEXT and file.path() == tmp_path / "people.csv"
    assert repr(file) == f"File({tmp_path / 'people.csv'})"
    for wanted, sentence in [
        ("poeple.csv", "Near it are people.csv"),
        ("other", "Check the path"),
        (".", "is a folder and cannot be read as a file"),
        ("no/people.csv", "no folder"),
    ]:
        with pytest.raises(DataError, match=sentence):
            data.File(tmp_path / wanted).open()


def test_folder(tmp_path):
    (tmp_path / "below").mkdir()
    for name in ("b.csv", "a.csv", "note.txt", "below/c.csv"):
        (tmp_path / name).write_text(name)
    folder = data.Folder(tmp_path, "*.csv")
    assert len(folder) == 2 and [f.path().name for f in folder] == ["a.csv", "b.csv"]
    assert content(folder[1]) == b"b.csv" and folder.path() == tmp_path
    assert len(data.Folder(tmp_path, "**/*.csv")) == 3
    with pytest.raises(IndexOutOfRange, match="has 2 files, and file 2"):
        folder[2]
    with pytest.raises(DataError, match="loop over it"):
        folder.open()
    with pytest.raises(DataError, match=r"matches '\*\.json'"):
        data.Folder(tmp_path, "*.json")
    with pytest.raises(DataError, match="there is no folder"):
        data.Folder(tmp_path / "away")


def test_first_of(tmp_path):
    (tmp_path / "b").write_bytes(TEXT)
    first = data.FirstOf(tmp_path / "a", data.File(tmp_path / "b"))
    assert content(first) == TEXT and first.path() == tmp_path / "b"
    with pytest.raises(DataError, match=r"none of 2 sources.*a\. .* \| .*c\. "):
        data.FirstOf(tmp_path / "a", tmp_path / "c").open()
    with pytest.raises(DataError, match="no source was given"):
        data.FirstOf()


def test_what_is_no_source():
    with pytest.raises(DtypeError, match="a int is no source"):
        data.Compressed(3)
    with pytest.raises(DataError, match=r"is a URL; give data\.URL"):
        data.read_csv("https://example.org/a.csv")


# compressed files


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_compressed(tmp_path, kept, pack):
    (tmp_path / "people.csv.z").write_bytes(pack(TEXT))
    source = data.Compressed(tmp_path / "people.csv.z")
    assert content(source) == TEXT
    path = source.path()
    assert path.read_bytes() == TEXT and kept in path.parents
    before = path.stat().st_mtime_ns
    assert source.path() == path and path.stat().st_mtime_ns == before  # made once
    (tmp_path / "people.csv.z").write_bytes(pack(b"other"))
    assert source.path().read_bytes() == b"other"  # and anew for another file
    assert data.read_csv(data.Compressed(tmp_path / "people.csv.z"), header=False)["0"].tolist() == ["other"]


@pytest.mark.parametrize(("pack", "kind"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_damaged_compressed(tmp_path, kept, pack, kind):
    packed = pack(np.random.default_rng(0).bytes(5000))
    path = tmp_path / "file"
    for length in range(8, len(packed), 97):
        path.write_bytes(packed[:length])
        with pytest.raises(DataError, match=f"file is a damaged {kind} file"):
            content(data.Compressed(path))
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="download it again"):
        data.Compressed(path).path()
    assert not list((kept / "data" / "unpacked").iterdir())  # nothing half-done stays


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_file_that_explodes(tmp_path, monkeypatch, pack):
    path = tmp_path / "bomb"
    path.write_bytes(pack(bytes(3_000_000)))
    assert len(content(data.Compressed(path))) == 3_000_000
    with pytest.raises(DataError, match="expands to more than 1,000,000 bytes.*raise max_bytes"):
        content(data.Compressed(path, max_bytes=1_000_000))
    monkeypatch.setattr("tapegrad.data.sources.compressed.FREE_BYTES", 100_000)
    with pytest.raises(DataError, match="more than 20 times its size.*raise max_ratio"):
        content(data.Compressed(path, max_ratio=20))


# archives


def make_zip(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, value in members.items():
            archive.writestr(name, value)
    return path


def make_tar(path, members, mode="w"):
    """`members`: name -> bytes, or a TarInfo without content."""
    with tarfile.open(path, mode) as archive:
        for name, value in members.items():
            info = value if isinstance(value, tarfile.TarInfo) else tarfile.TarInfo(name)
            if not isinstance(value, tarfile.TarInfo):
                info.size = len(value)
            archive.addfile(info, io.BytesIO(value) if isinstance(value, bytes) else None)
    return path


def link(name, to, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


GOOD = {"set/a.csv": TEXT, "set/b/c.csv": b"x\n1\n", "set/b/d.csv": b""}
MAKERS = {
    "zip": make_zip,
    "tar": make_tar,
    "tar.gz": lambda p, m: make_tar(p, m, "w:gz"),
    "tar.bz2": lambda p, m: make_tar(p, m, "w:bz2"),
    "tar.xz": lambda p, m: make_tar(p, m, "w:xz"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_archives(tmp_path, kept, kind):
    path = MAKERS[kind](tmp_path / "archive", GOOD)
    assert data.member_names(path) == list(GOOD)
    assert content(data.Member(path, "set/a.csv")) == TEXT
    assert content(data.Member(data.File(path), "c.csv")) == b"x\n1\n"  # its last part is unique
    assert data.Member(path, "a.csv").path().read_bytes() == TEXT
    assert data.read_csv(data.Member(path, "c.csv"))["x"].tolist() == [1]
    files = data.extract(path, tmp_path / "out")
    assert {f.relative_to(tmp_path / "out").as_posix(): f.read_bytes() for f in files} == GOOD
    with pytest.raises(DataError, match="there already and not an empty folder"):
        data.extract(path, tmp_path / "out")
    with pytest.raises(DataError, match=r"holds no a\.csb; it holds set/a\.csv"):
        data.Member(path, "a.csb").open()
    with pytest.raises(DataError, match="at most 10 are read"):
        data.Member(path, "a.csv", max_bytes=10).open()


def test_a_member_name_that_is_not_unique(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a/x": b"1", "b/x": b"2"})
    with pytest.raises(DataError, match="holds x 2 times: a/x, b/x"):
        data.Member(path, "x").open()


ESCAPES = ["../evil", "/tmp/evil", "a/../../evil", "..", "C:\\evil", "a\\..\\..\\evil"]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("name", ESCAPES)
def test_archives_that_escape(tmp_path, kind, name):
    (tmp_path / "in").mkdir()
    path = MAKERS[kind](tmp_path / "archive", {"good": b"1", name: b"evil"})
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(DataError, match="leads out of its folder.*nothing was unpacked"):
        data.extract(path, tmp_path / "in" / "out")
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    with pytest.raises(DataError, match="leads out of its folder"):
        data.Member(path, "good").open()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("to", ["../../etc/passwd", "/etc/passwd"])
def test_links_that_escape(tmp_path, kind, to):
    path = make_tar(tmp_path / "a.tar", {"good": b"1", "x": link("x", to, kind)})
    with pytest.raises(DataError, match="the link x to .*leads out"):
        data.extract(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_inside_become_copies(tmp_path):
    members = {
        "d/a": b"hello",
        "d/soft": link("d/soft", "a"),
        "hard": link("hard", "d/a", tarfile.LNKTYPE),
        "twice": link("twice", "d/soft"),
    }
    path = make_tar(tmp_path / "a.tar", members)
    files = data.extract(path, tmp_path / "out")
    assert [f.read_bytes() for f in files] == [b"hello"] * 4
    assert not any(f.is_symlink() for f in files)
    for to in ("nothing", "x"):  # nowhere, and itself
        path = make_tar(tmp_path / "b.tar", {"x": link("x", to)})
        with pytest.raises(DataError, match="not a file in the archive"):
            data.extract(path, tmp_path / "out2")


def test_zip_links_devices_passwords_and_doubles(tmp_path):
    info = zipfile.ZipInfo("x")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="symbolic link in a zip archive"):
        data.extract(tmp_path / "link.zip", tmp_path / "out")
    device = tarfile.TarInfo("dev")
    device.type = tarfile.CHRTYPE
    with pytest.raises(DataError, match="a device or pipe"):
        data.extract(make_tar(tmp_path / "dev.tar", {"dev": device}), tmp_path / "out")
    make_zip(tmp_path / "locked.zip", {"x": b"secret"}, zipfile.ZIP_STORED)
    raw = bytearray((tmp_path / "locked.zip").read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(raw)
    with pytest.raises(DataError, match="is encrypted"):
        data.extract(tmp_path / "locked.zip", tmp_path / "out")
    with tarfile.open(tmp_path / "two.tar", "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("x"), io.BytesIO())
    with pytest.raises(DataError, match="holds x twice"):
        data.extract(tmp_path / "two.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives_that_explode(tmp_path, monkeypatch, kind):
    path = MAKERS[kind](tmp_path / "bomb", {f"zeros{i}": bytes(1_000_000) for i in range(5)})
    with pytest.raises(DataError, match="expands to more than 3,000,000 bytes.*raise max_bytes"):
        data.extract(path, tmp_path / "out", max_bytes=3_000_000)
    with pytest.raises(DataError, match="more than 4 files"):
        data.extract(path, tmp_path / "out", max_files=4)
    if kind == "zip":
        monkeypatch.setattr("tapegrad.data.sources.archive.FREE_BYTES", 1000)
        with pytest.raises(DataError, match="raise max_ratio"):
            data.extract(path, tmp_path / "out", max_ratio=50)
    assert not (tmp_path / "out").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["bomb"]
    assert len(data.extract(path, tmp_path / "out")) == 5


def test_a_zip_that_lies_about_a_size(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"x": bytes(100_000)})
    raw = bytearray(path.read_bytes())
    central = raw.index(b"PK\1\2")
    raw[central + 24 : central + 28] = (10).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(DataError, match="x is damaged|announces 10 bytes"):
        data.extract(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", MAKERS)
def test_damaged_archives(tmp_path, kind):
    whole = MAKERS[kind](tmp_path / "whole", {"a": np.random.default_rng(0).bytes(30_000)}).read_bytes()
    path = tmp_path / "cut"
    for part in (0.0, 0.1, 0.5, 0.7):  # a tar ends in padding that nobody misses
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(DataError, match="cut"):
            data.extract(path, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match="no zip or tar archive"):
        data.member_names(path)


# downloads


@pytest.fixture
def served(tmp_path):
    """A file in a folder that plays the network; its URL and digest."""
    folder = tmp_path / "network"
    folder.mkdir()
    (folder / "people.csv").write_bytes(TEXT)
    return (folder / "people.csv").as_uri(), hashlib.sha256(TEXT).hexdigest()


def test_url(served, kept, capsys):
    url, digest = served
    source = data.URL(url, sha256=digest.upper())
    path = source.path()
    assert path.read_bytes() == TEXT and kept in path.parents and path.name == "people.csv"
    assert capsys.readouterr().err == f"tapegrad: downloading {url}\n"
    assert data.read_csv(source)["height"][0] == 1.62
    assert capsys.readouterr().err == ""  # it is there now
    path.write_bytes(b"changed")
    assert source.path().read_bytes() == TEXT  # fetched again
    assert "downloading" in capsys.readouterr().err


def test_url_prefers_the_named_folder(served, kept, tmp_path, monkeypatch, capsys):
    url, digest = served
    monkeypatch.setenv("TAPEGRAD_DATA", str(tmp_path / "mine"))
    path = data.URL(url, sha256=digest).path()
    assert tmp_path / "mine" in path.parents
    own = data.URL(url, sha256=digest, folder=tmp_path / "own", name="p.csv").path()
    assert own == tmp_path / "own" / "p.csv"


def test_url_mirrors_and_failures(served, kept, tmp_path, capsys):
    url, digest = served
    away = (tmp_path / "away").as_uri()
    assert data.URL(away, sha256=digest, mirrors=(url,), name="x").path().read_bytes() == TEXT
    with pytest.raises(DataError, match="could not be downloaded") as error:
        data.URL(away, sha256="0" * 64, mirrors=(url,)).path()
    assert away in str(error.value) and f"its SHA-256 is {digest} and not 000" in str(error.value)
    with pytest.raises(DataError, match="more than 100 bytes came"):
        data.URL(url, sha256=digest, max_bytes=100, folder=tmp_path / "own").path()
    assert list((tmp_path / "own").iterdir()) == []  # nothing half-done stays


@pytest.mark.parametrize("digest", ["", "abc", "g" * 64, "0" * 63])
def test_url_needs_a_digest(digest):
    with pytest.raises(DataError, match="64 hexadecimal digits"):
        data.URL("https://example.org/a", sha256=digest)


@pytest.mark.parametrize("name", ["..", "a/b", "a\\b"])
def test_url_names(name):
    with pytest.raises(DataError, match="cannot be the name of a file"):
        data.URL("https://example.org/a", sha256="0" * 64, name=name)


def test_no_folder_to_download_to(served, monkeypatch):
    monkeypatch.delenv("TAPEGRAD_DATA", raising=False)
    monkeypatch.setattr(config, "cache_directory", lambda: None)
    with pytest.raises(DataError, match="no folder to keep data in"):
        data.URL(served[0], sha256=served[1]).path()


# writing


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def fails(file):
        file.write(b"half")
        raise KeyError("gone")

    with pytest.raises(KeyError):
        storage.write_file(target, fails)
    assert target.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["file"]
    storage.write_file(target, lambda file: file.write(b"new"))
    assert target.read_bytes() == b"new"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk(tmp_path, monkeypatch, served, kept):
    real = open

    def full(path, mode="r", *rest, **options):
        if mode == "xb":
            Path(path).touch()
            return real("/dev/full", "wb", *rest, **options)
        return real(path, mode, *rest, **options)

    monkeypatch.setattr(storage, "open", full, raising=False)
    with pytest.raises(DataError, match="cannot be written .*No space left.*make room"):
        data.URL(served[0], sha256=served[1], folder=tmp_path / "own").path()
    assert os.listdir(tmp_path / "own") == []
