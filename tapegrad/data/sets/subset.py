"""The MNIST subset that ships inside the package: how digits are packed into `mnist.npz`, and how they come back.

Every pixel is kept exactly. Plain deflate needs 161 bytes a digit, this layout 144, which makes room for 900 more
digits. xz would do as well, but Pythons built without liblzma are common and zlib is always there.
Four streams, each with statistics of its own:

    ink     one bit per pixel: is it above 0?
    bright  one bit per inked pixel: is it at least 252? (MNIST's strokes are saturated, their edges anti-aliased)
    core    the bright pixels' values, one of four
    edge    the other inked pixels' values, close to uniform
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ...errors import DataError

SHIPPED = Path(__file__).with_name("mnist.npz")
BRIGHT = 252
SIDE = 28
STREAMS = ("ink", "bright", "core", "edge", "labels")
Split = tuple[np.ndarray, np.ndarray]  # images uint8 (N, 28, 28), labels uint8 (N,)


def pack(images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The streams of uint8 `images` (N, 28, 28) and their `labels` (N,).

    >>> digits = np.arange(784, dtype=np.uint8).reshape(1, 28, 28)
    >>> bool((unpack(pack(digits, np.zeros(1, np.uint8)))[0] == digits).all())
    True
    """
    ink = images > 0
    values = images[ink]
    bright = values >= BRIGHT
    return {
        "ink": np.packbits(ink),
        "bright": np.packbits(bright),
        "core": values[bright],
        "edge": values[~bright],
        "labels": labels.astype(np.uint8),
    }


def unpack(streams: dict[str, np.ndarray]) -> Split:
    """Images uint8 (N, 28, 28) and labels uint8 (N,) from what `pack` returned; ValueError if streams do not fit."""
    labels = streams["labels"]
    ink = np.unpackbits(streams["ink"], count=len(labels) * SIDE * SIDE).view(bool)
    values = np.empty(np.count_nonzero(ink), np.uint8)
    bright = np.unpackbits(streams["bright"], count=values.size).view(bool)
    values[bright] = streams["core"]
    values[~bright] = streams["edge"]
    images = np.zeros(ink.size, np.uint8)
    images[ink] = values
    return images.reshape(len(labels), SIDE, SIDE), labels


def write_subset(path: str | os.PathLike, train: Split, test: Split) -> None:
    """Write both splits, each images uint8 (N, 28, 28) and labels (N,), as one compressed `.npz`.

    `numpy.savez_compressed` writes the same format at zlib's level 6, which takes 16 kB more.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for split, digits in (("train", train), ("test", test)):
            for stream, data in pack(*digits).items():
                entry = zipfile.ZipInfo(f"{split}_{stream}.npy")  # dated 1980: the same bytes from every run
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, data, allow_pickle=False)
                archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def read_subset(path: str | os.PathLike = SHIPPED) -> tuple[Split, Split]:
    """The (train, test) splits that `write_subset` stored; DataError if the file is missing or damaged."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            train, test = (unpack({s: stored[f"{split}_{s}"] for s in STREAMS}) for split in ("train", "test"))
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as reason:
        raise DataError(
            f"mnist: the packed digits in {os.fspath(path)} are missing or damaged ({reason}). Reinstall tapegrad, or "
            "make the file again with scripts/make_mnist_subset.py."
        ) from reason
    return train, test
