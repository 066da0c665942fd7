"""Fashion-MNIST: 28 by 28 grey pictures of clothes in ten classes, in MNIST's format.

H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms, 2017
(https://github.com/zalandoresearch/fashion-mnist, MIT licence). Sizes and SHA-256 of the compressed files are those that
TensorFlow Datasets has in its `url_checksums/fashion_mnist.txt`.
"""

from __future__ import annotations

import os

from ...errors import DataError
from ..sources.download import Content
from .digits import Digits, as_digits, download_set, find_mnist, read_mnist

MIRRORS = (
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # has no https; the digests are checked all the same
)
FILES = {
    name: Content(size, sha256, packed=False)
    for name, size, sha256 in (
        ("train-images-idx3-ubyte", 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        ("train-labels-idx1-ubyte", 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        ("t10k-images-idx3-ubyte", 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        ("t10k-labels-idx1-ubyte", 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    )
}
PLACES = ("fashion-mnist", "FashionMNIST/raw")  # below a data folder; the second is where torchvision keeps them
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def fashion_mnist(root: str | os.PathLike | None = None, download: bool = False) -> tuple[Digits, Digits]:
    """The training and the test pictures of Fashion-MNIST: 60,000 and 10,000, as `mnist` gives digits.

    The four IDX files are looked for in `root` or in `fashion-mnist/` below it, else there below the folder that
    TAPEGRAD_DATA names and below tapegrad's cache. With `download=True` they are fetched, 31 MB. DataError where they are
    missing or damaged, or the network fails.

    `FASHION_CLASSES` are the names of labels 0 to 9.

    >>> FASHION_CLASSES[9]
    'Ankle boot'
    """
    folder = find_mnist(root, PLACES if root is None else (*PLACES, "."))
    if folder is None and download:
        folder = download_set(root, PLACES[0], FILES, MIRRORS)
    if folder is None:
        where = "TAPEGRAD_DATA and the cache" if root is None else os.fspath(root)
        raise DataError(
            f"fashion_mnist: {where} do not hold the set. Wanted are {', '.join(FILES)}, each plain or .gz, in "
            f"{PLACES[0]}/. Give download=True to fetch them."
        )
    train, test = read_mnist(folder)
    return as_digits(train, f"{folder} (training)"), as_digits(test, f"{folder} (test)")
