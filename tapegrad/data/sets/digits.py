"""MNIST: 28 by 28 grey digits with their labels (LeCun, Cortes, Burges, http://yann.lecun.com/exdb/mnist/).

The full set has 60,000 training and 10,000 test digits in four IDX files. A class-balanced subset of 8,000 and 1,000
ships with the package, so that a first training run needs no network.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from ...errors import DataError
from ..dataset import ArrayDataset
from ..readers.idx import read_idx
from ..sources.download import Content, fetch, holds
from ..sources.storage import cache_folder, data_folders, make_folder
from .subset import SIDE, Split, read_subset

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FILES = {
    "train-images-idx3-ubyte": Content(47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": Content(60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": Content(7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": Content(10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}
PLACES = ("mnist", "MNIST/raw", ".")  # below a data folder; the second is where torchvision keeps them
CLASSES = 10


class Digits(ArrayDataset):
    """Images with their labels; sample `i` is `(images[i], labels[i])`.

    `images` is float32 (N, 1, 28, 28) in [0, 1], ink bright on black; `labels` is int64 (N,), 0 to 9; `source` says
    where the digits come from.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, source: str):
        super().__init__(images, labels)
        self.source = source

    @property
    def images(self) -> np.ndarray:
        """float32 (N, 1, 28, 28) in [0, 1]."""
        return self.arrays[0]

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,), 0 to 9."""
        return self.arrays[1]

    def __repr__(self) -> str:
        return f"Digits({len(self)} of {self.source}: images {self.images.shape}, labels {self.labels.shape})"


def mnist(root: str | os.PathLike | None = None, download: bool = False) -> tuple[Digits, Digits]:
    """The training and the test digits of MNIST.

    The full set is used where its four IDX files, gzipped or not, lie in `root`, in the folder that TAPEGRAD_DATA names
    or in tapegrad's cache (each time in the folder itself, in `mnist/` or in `MNIST/raw/` below it). With
    `download=True` it is fetched into `root`, or else into the cache, if it is not there yet. Otherwise the subset
    that ships with the package is used, and a line on stderr says so. A `root` without the files is an error.

    Files of another set in the same format (Fashion-MNIST, KMNIST) are read from `root` all the same. DataError where
    files are missing or damaged, or the network fails.

    >>> train, test = mnist()
    >>> image, label = train[0]
    >>> image.shape, image.dtype, 0 <= label <= 9
    ((1, 28, 28), dtype('float32'), np.True_)
    """
    folder = find_mnist(root)
    if folder is None and download:
        folder = download_set(root, "mnist", FILES, MIRRORS)
    if folder is None and root is not None:
        raise DataError(
            f"mnist: {os.fspath(root)} does not hold the full set. Wanted are {', '.join(FILES)}, each plain or .gz, "
            "in it or in mnist/ below it. Give download=True to fetch them, or leave root out for the shipped subset."
        )
    if folder is None:
        train, test = read_subset()
        _say_subset(len(train[1]), len(test[1]))
        return as_digits(train, "the shipped MNIST subset"), as_digits(test, "the shipped MNIST subset")
    train, test = read_mnist(folder)
    return as_digits(train, f"{folder} (training)"), as_digits(test, f"{folder} (test)")


def find_mnist(root: str | os.PathLike | None = None, places: Iterable[str] = PLACES) -> Path | None:
    """The folder that holds all four IDX files: looked for in `root`, or else in TAPEGRAD_DATA and in the cache.

    `places`: folders below these.
    """
    for folder in [Path(root)] if root is not None else data_folders():
        for place in places:
            if all(_file(folder / place, name) for name in FILES):
                return folder / place
    return None


def read_mnist(folder: Path) -> tuple[Split, Split]:
    """Both splits of the four IDX files in `folder`, as stored: images uint8 (N, 28, 28), labels uint8 (N,)."""
    return _read_split(folder, "train"), _read_split(folder, "t10k")


def _read_split(folder: Path, split: str) -> Split:
    paths = [_file(folder, name) or folder / name for name in FILES if name.startswith(split)]
    images, labels = (read_idx(path) for path in paths)
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE) or not len(images):
        raise DataError(
            f"mnist: {paths[0]} holds {images.dtype} of shape {images.shape}; wanted is uint8 of shape "
            f"(N, {SIDE}, {SIDE})."
        )
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise DataError(
            f"mnist: {paths[1]} holds {labels.dtype} of shape {labels.shape}; wanted is one uint8 label for each of "
            f"the {len(images)} images beside it."
        )
    if labels.max() >= CLASSES:
        raise DataError(f"mnist: {paths[1]} holds the label {labels.max()}; labels go from 0 to {CLASSES - 1}.")
    return images, labels


def as_digits(split: Split, source: str) -> Digits:
    """Digits of images and labels as they are stored."""
    images, labels = split
    scaled = np.multiply(images[:, None], np.float32(1 / 255), dtype=np.float32)
    return Digits(scaled, labels.astype(np.int64), source)


def _file(folder: Path, name: str) -> Path | None:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    return None


def download_set(
    root: str | os.PathLike | None, place: str, files: Mapping[str, Content], mirrors: Iterable[str]
) -> Path:
    """Fetch what is missing or damaged into the folder `place` below `root` or the cache."""
    base = Path(root) if root is not None else cache_folder()
    if base is None:
        raise DataError(f'{place}: TAPEGRAD_CACHE is "off", so there is no folder to download to; give one as root.')
    if root is None:
        make_folder(base.parent, private=True)  # compiled kernels lie there too
    folder = make_folder(base / place)
    for name, content in files.items():
        target = folder / f"{name}.gz"
        if not holds(target, content):
            fetch([f"{mirror}{name}.gz" for mirror in mirrors], target, content)
    return folder


@cache  # once a process
def _say_subset(train: int, test: int) -> None:
    named = os.environ.get("TAPEGRAD_DATA")
    missing = f" (TAPEGRAD_DATA={named} does not hold the full set)" if named else ""
    print(
        f"tapegrad: data.mnist() uses the shipped subset, {train} training and {test} test digits{missing}; "
        "data.mnist(download=True) fetches the full set.",
        file=sys.stderr,
    )
