"""IDX files, and MNIST from every place it may come from. No test needs a network."""

from __future__ import annotations

import gzip
import hashlib
import struct

import numpy as np
import pytest

from tapegrad import config, data
from tapegrad.data.sets import digits, subset
from tapegrad.data.sources import download
from tapegrad.errors import DataError

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array, shape=None):
    """`array` as an IDX file, announcing `shape` where that is given."""
    shape = array.shape if shape is None else shape
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, CODES[array.dtype.name], len(shape), *shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


# IDX files


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 28, 28)])
def test_idx_round_trip(tmp_path, dtype, shape, zipped):
    array = (np.arange(np.prod(shape)).reshape(shape) - 3).astype(dtype)
    raw = idx_bytes(array)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    back = data.read_idx(path)
    assert back.dtype == np.dtype(dtype) and back.dtype.isnative
    assert back.shape == shape
    assert np.array_equal(back, array)
    back[...] = 0  # it belongs to the caller


GOOD = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
DAMAGED = {
    "empty": (b"", "is empty"),
    "html": (b"<html>404 not found</html>", "another format"),
    "magic": (b"\1" + GOOD[1:], "starts with bytes 01 00 08 03"),
    "type code": (b"\0\0\7" + GOOD[3:], "type code (08, 09, 0b, 0c, 0d, 0e)"),
    "no dimensions": (b"\0\0\x08\0", "announces 0 dimensions"),
    "many dimensions": (b"\0\0\x08\xff" + GOOD[4:], "announces 255 dimensions"),
    "cut header": (GOOD[:9], "ends inside its header, after 9 of 16 bytes"),
    "cut values": (GOOD[:-1], "24 bytes, and holds 23"),
    "trailing": (GOOD + b"\0", "24 bytes, and more follow"),
    "wrong dimensions": (idx_bytes(np.zeros(24, np.uint8), (2, 3, 5)), "(2, 3, 5) of uint8, 30 bytes, and holds 24"),
    "huge": (idx_bytes(np.zeros(1, np.uint8), (2**32 - 1,) * 8), "at most 1,073,741,824"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_idx(tmp_path, name, zipped):
    content, sentence = DAMAGED[name]
    path = tmp_path / "some-file"
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(DataError) as error:
        data.read_idx(path)
    assert sentence in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("damage", ["cut", "checksum", "body", "trailing"])
def test_damaged_gzip(tmp_path, damage):
    zipped = bytearray(gzip.compress(idx_bytes(np.arange(1000, dtype=np.int32))))
    if damage == "cut":
        del zipped[len(zipped) // 2 :]
    elif damage == "checksum":
        zipped[-8] ^= 1
    elif damage == "body":
        zipped[30] ^= 0xFF
    else:
        zipped += b"more"
    path = tmp_path / "file.gz"
    path.write_bytes(zipped)
    with pytest.raises(DataError) as error:
        data.read_idx(path)
    assert f"{path} is a damaged gzip file" in str(error.value)
    assert "download it again" in str(error.value)


def test_every_cut_is_noticed(tmp_path):
    path = tmp_path / "file"
    for zipped in (GOOD, gzip.compress(GOOD)):
        for length in range(len(zipped)):
            path.write_bytes(zipped[:length])
            with pytest.raises(DataError):
                data.read_idx(path)


def test_gzip_bomb_is_not_inflated(tmp_path, monkeypatch):
    """A file of 64 MB of zeros behind an honest header of 4 bytes: only a little is inflated."""
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(idx_bytes(np.zeros(4, np.uint8)) + bytes(64 << 20))
    inflated = 0
    read = gzip.GzipFile.read

    def counted(self, size=-1):
        nonlocal inflated
        assert size >= 0
        got = read(self, size)
        inflated += len(got)
        return got

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    with pytest.raises(DataError, match="more follow"):
        data.read_idx(path)
    assert inflated < 100


def test_idx_size_limit(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(GOOD)
    assert data.read_idx(path, max_bytes=24).size == 24
    with pytest.raises(DataError) as error:
        data.read_idx(path, max_bytes=23)
    assert "at most 23 are read. If the file is right, raise max_bytes" in str(error.value)


def test_missing_and_unreadable_idx(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        data.read_idx(tmp_path / "nothing")
    with pytest.raises(DataError, match="cannot be read"):
        data.read_idx(tmp_path)


# MNIST: the shipped subset


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No full set anywhere: an empty cache folder, no TAPEGRAD_DATA, no network. The line about the subset is due."""
    monkeypatch.delenv("TAPEGRAD_DATA", raising=False)
    kept = tmp_path / "cache"
    monkeypatch.setattr(config, "cache_directory", lambda: kept)
    monkeypatch.setattr(digits, "MIRRORS", ())
    digits._say_subset.cache_clear()
    return kept


def test_subset(nowhere, capsys):
    train, test = data.mnist()
    assert (len(train), len(test)) == (8000, 1000)
    for split in (train, test):
        assert split.images.dtype == np.float32 and split.images.shape == (len(split), 1, 28, 28)
        assert split.images.flags.c_contiguous
        assert split.images.min() == 0 and split.images.max() == 1
        assert split.labels.dtype == np.int64
        assert np.array_equal(np.bincount(split.labels), np.full(10, len(split) // 10))  # balanced
        assert len(np.unique(split.images.reshape(len(split), -1), axis=0)) == len(split)
    line = capsys.readouterr().err
    assert line.startswith("tapegrad: data.mnist() uses the shipped subset, 8000 training and 1000 test digits;")
    assert line.count("\n") == 1
    data.mnist()
    assert capsys.readouterr().err == ""  # said once


def test_subset_is_small():
    assert subset.SHIPPED.stat().st_size <= 1_300_000


def test_subset_is_learnable(nowhere):
    """Class means already tell most digits apart, so images and labels belong together."""
    train, test = data.mnist()
    x, y = train.images.reshape(len(train), -1), test.images.reshape(len(test), -1)
    means = np.stack([x[train.labels == digit].mean(axis=0) for digit in range(10)])
    nearest = ((y[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == test.labels).mean() > 0.75


def test_pack_keeps_every_pixel():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 28, 28), dtype=np.uint8) * (rng.random((20, 28, 28)) < 0.3)
    labels = rng.integers(0, 10, 20)
    back, back_labels = subset.unpack(subset.pack(images, labels))
    assert np.array_equal(back, images)
    assert np.array_equal(back_labels, labels)


@pytest.mark.parametrize("damage", ["missing", "cut", "garbage", "flipped", "stream"])
def test_damaged_subset(tmp_path, damage):
    path = tmp_path / "mnist.npz"
    split = np.full((3, 28, 28), 7, np.uint8), np.arange(3, dtype=np.uint8)
    subset.write_subset(path, split, split)
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "garbage":
        path.write_bytes(b"not a zip file")
    elif damage == "flipped":
        content[60] ^= 0xFF
        path.write_bytes(content)
    else:
        streams = subset.pack(*split)
        np.savez(path, **{f"{name}_{k}": v[:-1] for name in ("train", "test") for k, v in streams.items()})
    with pytest.raises(DataError, match="missing or damaged") as error:
        subset.read_subset(path)
    assert str(path) in str(error.value)


def test_digits_describe_themselves(nowhere):
    train, _ = data.mnist()
    assert repr(train) == "Digits(8000 of the shipped MNIST subset: images (8000, 1, 28, 28), labels (8000,))"


# MNIST: the full set, played by small files


def small_set(folder, suffix=".gz", seed=0):
    """Four small files in MNIST's format; returns what they hold, by name."""
    rng = np.random.default_rng(seed)
    contents = {}
    for split, count in (("train", 30), ("t10k", 10)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        contents[f"{split}-images-idx3-ubyte"] = idx_bytes(images)
        contents[f"{split}-labels-idx1-ubyte"] = idx_bytes((np.arange(count) % 10).astype(np.uint8))
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / (name + suffix)).write_bytes(gzip.compress(content) if suffix else content)
    return contents


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("place", [".", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("way", ["root", "TAPEGRAD_DATA", "cache"])
def test_full_set_is_found(nowhere, tmp_path, monkeypatch, capsys, way, place, suffix):
    top = nowhere / "data" if way == "cache" else tmp_path / "mine"
    contents = small_set(top / place, suffix)
    if way == "TAPEGRAD_DATA":
        monkeypatch.setenv("TAPEGRAD_DATA", str(top))
    train, test = data.mnist(top if way == "root" else None)
    assert (len(train), len(test)) == (30, 10)
    stored = np.frombuffer(contents["train-images-idx3-ubyte"][16:], np.uint8).reshape(30, 1, 28, 28)
    np.testing.assert_allclose(train.images, stored / 255, rtol=1e-6)
    assert train.images.max() <= 1
    assert test.labels.tolist() == list(range(10))
    assert str(top) in repr(test)
    assert capsys.readouterr().err == ""


def test_named_folder_without_the_set(nowhere, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TAPEGRAD_DATA", str(tmp_path))
    assert len(data.mnist()[0]) == 8000
    assert f"TAPEGRAD_DATA={tmp_path} does not hold the full set" in capsys.readouterr().err
    with pytest.raises(DataError) as error:
        data.mnist(tmp_path)
    assert "train-images-idx3-ubyte" in str(error.value) and "download=True" in str(error.value)


def images_of(dtype, shape):
    return idx_bytes(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("train-images-idx3-ubyte", images_of("uint8", (30, 28, 27)), "(30, 28, 27); wanted is uint8"),
        ("train-images-idx3-ubyte", images_of("int32", (30, 28, 28)), "holds int32"),
        ("t10k-images-idx3-ubyte", images_of("uint8", (0, 28, 28)), "(0, 28, 28)"),
        ("train-labels-idx1-ubyte", images_of("uint8", (29,)), "one uint8 label for each of the 30 images"),
        ("train-labels-idx1-ubyte", images_of("float32", (30,)), "holds float32"),
        ("t10k-labels-idx1-ubyte", idx_bytes(np.full(10, 10, np.uint8)), "holds the label 10; labels go from 0 to 9"),
        ("t10k-labels-idx1-ubyte", b"\0\0\x08\1\0", "ends inside its header"),
    ],
)
def test_damaged_full_set(tmp_path, name, content, sentence):
    small_set(tmp_path, suffix="")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        data.mnist(tmp_path)
    assert sentence in str(error.value)
    assert str(tmp_path / name) in str(error.value)


# MNIST: downloads


@pytest.fixture
def mirror(nowhere, tmp_path, monkeypatch):
    """A mirror in a folder, with the digests of its small files instead of MNIST's."""
    folder = tmp_path / "mirror"
    contents = small_set(folder)
    digests = {name: download.Content(len(c), hashlib.sha256(c).hexdigest()) for name, c in contents.items()}
    monkeypatch.setattr(digits, "FILES", digests)
    monkeypatch.setattr(digits, "MIRRORS", (folder.as_uri() + "/",))
    return folder


@pytest.mark.parametrize("rooted", [False, True])
def test_download(mirror, nowhere, tmp_path, capsys, rooted):
    root = tmp_path / "mine" if rooted else None
    train, _ = data.mnist(root, download=True)
    assert len(train) == 30
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and lines[0].startswith("tapegrad: downloading file:")
    folder = (root or nowhere / "data") / "mnist"
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in mirror.iterdir())
    for path in mirror.iterdir():
        path.unlink()
    assert len(data.mnist(root, download=True)[0]) == 30  # it is there now
    assert len(data.mnist(root)[0]) == 30
    if not rooted:
        assert nowhere.stat().st_mode & 0o777 == 0o700  # compiled kernels are not read from a folder others may write


def test_download_fetches_what_is_missing_or_damaged(mirror, tmp_path, capsys):
    root = tmp_path / "mine"
    data.mnist(root, download=True)
    (root / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    (root / "mnist" / "train-labels-idx1-ubyte.gz").write_bytes(b"cut short")
    capsys.readouterr()
    assert len(data.mnist(root, download=True)[1]) == 10
    assert capsys.readouterr().err.count("downloading") == 2


DAMAGED_DOWNLOADS = {
    "other digits": (lambda raw: gzip.compress(raw[:-1] + b"\7"), "its SHA-256 is"),
    "short": (lambda raw: gzip.compress(raw[:-1]), "bytes and not"),
    "long": (lambda raw: gzip.compress(raw + b"\0"), "holds more than"),
    "bomb": (lambda raw: gzip.compress(bytes(10_000_000)), "holds more than"),
    "large": (lambda raw: bytes(40_000), "bytes came"),
    "cut": (lambda raw: gzip.compress(raw)[:-9], "end-of-stream"),
    "page": (lambda raw: b"<html>sign in to this network</html>", "Not a gzipped file"),
}


@pytest.mark.parametrize("name", DAMAGED_DOWNLOADS)
def test_wrong_download_is_refused(mirror, tmp_path, name):
    damage, sentence = DAMAGED_DOWNLOADS[name]
    path = mirror / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(gzip.decompress(path.read_bytes())))
    root = tmp_path / "mine"
    with pytest.raises(DataError) as error:
        data.mnist(root, download=True)
    assert "train-images-idx3-ubyte.gz could not be downloaded" in str(error.value)
    assert sentence in str(error.value)
    assert str(root / "mnist") in str(error.value)  # where to put it by hand
    assert list((root / "mnist").iterdir()) == []  # nothing half-done stays


def test_second_mirror_is_tried(mirror, tmp_path, monkeypatch):
    away = (tmp_path / "away").as_uri() + "/"
    monkeypatch.setattr(digits, "MIRRORS", (away, *digits.MIRRORS))
    assert len(data.mnist(tmp_path / "mine", download=True)[0]) == 30
    monkeypatch.setattr(digits, "MIRRORS", (away,))
    with pytest.raises(DataError, match="Check the network") as error:
        data.mnist(tmp_path / "other", download=True)
    assert away in str(error.value)


def test_download_needs_a_folder(mirror, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be made"):
        data.mnist(tmp_path / "file", download=True)
    monkeypatch.setattr(config, "cache_directory", lambda: None)
    with pytest.raises(DataError, match="give one as root"):
        data.mnist(download=True)
    assert len(data.mnist()[0]) == 8000


def test_mirrors_are_https():
    assert all(url.startswith("https://") and url.endswith("/") for url in digits.MIRRORS)


def test_mnist_goes_through_a_loader(nowhere):
    train, _ = data.mnist()
    x, y = next(iter(data.DataLoader(train, batch_size=100, shuffle=True, seed=0)))
    assert x.shape == (100, 1, 28, 28) and x.dtype == np.float32
    assert y.shape == (100,) and y.dtype == np.int64
