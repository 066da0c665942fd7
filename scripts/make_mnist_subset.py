#!/usr/bin/env python3
"""Make the MNIST subset that ships inside the package, `tapegrad/data/sets/mnist.npz`, from the full files.

    TAPEGRAD_DATA=folder/with/mnist python scripts/make_mnist_subset.py [--train 8000] [--test 1000] [--out FILE]

The same number of digits of each class, spread evenly over the file: MNIST is ordered by writer, and its first half is
easier than its second. No random choice, so the same digits come out every time (the file's bytes may differ with the
version of zlib). Training digits come from MNIST's training set, test digits from its test set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from tapegrad.data.sets.digits import find_mnist, read_mnist
from tapegrad.data.sets.subset import SHIPPED, read_subset, write_subset

MOST_BYTES = 1_300_000  # the package's size limit for the file


def spread(labels: np.ndarray, count: int) -> np.ndarray:
    """Ascending indices of `count // 10` digits of each class, evenly spaced within the class."""
    per_class = count // 10
    chosen = []
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        chosen.append(members[np.arange(per_class) * len(members) // per_class])
    return np.sort(np.concatenate(chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--train", type=int, default=8000, help="number of training digits")
    parser.add_argument("--test", type=int, default=1000, help="number of test digits")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    options = parser.parse_args()

    folder = find_mnist()
    if folder is None:
        parser.error("the full MNIST files are not here; set TAPEGRAD_DATA, or call data.mnist(download=True) once")
    splits = []
    for (images, labels), count in zip(read_mnist(folder), (options.train, options.test), strict=True):
        chosen = spread(labels, count)
        splits.append((images[chosen], labels[chosen]))
    write_subset(options.out, *splits)

    for (images, labels), (back, back_labels) in zip(splits, read_subset(options.out), strict=True):
        assert np.array_equal(images, back) and np.array_equal(labels, back_labels)
    size = options.out.stat().st_size
    train, test = (len(labels) for _, labels in splits)
    print(f"{options.out}: {train} training and {test} test digits, {size:,} bytes ({size / (train + test):.1f} each)")
    if size > MOST_BYTES:
        parser.error(f"{size:,} bytes are more than the {MOST_BYTES:,} that may ship; ask for fewer digits")


if __name__ == "__main__":
    main()
