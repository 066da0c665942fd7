"""Images by Pillow (`pip install 'tapegrad[images]'`)."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, IndexOutOfRange
from ..extras import extra
from ..sources.source import Folder, as_source

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
MAX_PIXELS = 1 << 27  # of one image; Pillow warns from 89 million on


def read_image(source: Any, *, mode: str = "RGB", size: tuple[int, int] | None = None) -> np.ndarray:
    """An image as float32 (C, H, W) in [0, 1].

    mode: "L" (grey, C = 1), "RGB" or "RGBA". size: (H, W) it is scaled to, bilinearly. DataError where the file is no
    image, is cut short, or has more than 134 million pixels.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (4, 2), (255, 0, 51)).save(os.path.join(folder, "a.png"))
    ...     image = read_image(os.path.join(folder, "a.png"))
    >>> image.shape, image[:, 0, 0].tolist()
    ((3, 2, 4), [1.0, 0.0, 0.20000001788139343])
    """
    pillow = extra("PIL.Image", "images", "read_image")
    if mode not in CHANNELS:
        raise DataError(f"read_image: mode is {mode!r}; wanted is one of {', '.join(CHANNELS)}.")
    source = as_source(source)
    try:
        with source.open() as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore", pillow.DecompressionBombWarning)  # judged below
            with pillow.open(stream) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"read_image: {source.name} has {image.width} by {image.height} pixels, and at most {MAX_PIXELS:,} "
                        "are read. Scale it down, or cut it into pieces."
                    )
                turned = image.convert(mode)
                if size is not None:
                    turned = turned.resize((size[1], size[0]), pillow.Resampling.BILINEAR)
                pixels = np.asarray(turned)
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, pillow.DecompressionBombError) as reason:
        raise DataError(
            f"read_image: {source.name} is no image that can be read, or a damaged one ({reason})."
        ) from reason
    planes = pixels.reshape(*pixels.shape[:2], CHANNELS[mode]).transpose(2, 0, 1)
    scaled: np.ndarray = np.multiply(planes, np.float32(1 / 255), dtype=np.float32, order="C")
    return scaled


class ImageFolder:
    """A folder of images, one subfolder for each class: sample `i` is `(image, label)` (torchvision's `ImageFolder`).

    Images are read when they are asked for: float32 (C, H, W) in [0, 1]; labels are ints, the place of the subfolder's
    name in `classes`, which is sorted. With no subfolder every label is 0. Options are those of `read_image`. DataError
    where no image is found.
    """

    def __init__(self, path: str | os.PathLike, *, mode: str = "RGB", size: tuple[int, int] | None = None):
        self.folder, self.mode, self.size = Path(path), mode, size
        files = [f.path() for f in Folder(path, "**/*") if f.path().suffix.lower() in SUFFIXES]
        if not files:
            raise DataError(f"ImageFolder: {path} holds no image; wanted are files ending in {', '.join(SUFFIXES)}.")
        self.paths = files
        tops = [f.relative_to(self.folder).parts[0] if f.parent != self.folder else "" for f in files]
        self.classes = sorted(set(tops))
        self.labels = np.array([self.classes.index(top) for top in tops], np.int64)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if not -len(self) <= index < len(self):
            raise IndexOutOfRange(f"ImageFolder: image {index} is not among its {len(self)}.")
        return read_image(self.paths[index], mode=self.mode, size=self.size), int(self.labels[index])

    def __repr__(self) -> str:
        return f"ImageFolder({len(self)} images of {len(self.classes)} classes in {self.folder})"
