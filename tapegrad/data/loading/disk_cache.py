"""Prepared blocks on disk: NumPy's files, one for each field, that are there completely or not at all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..sources.storage import make_folder, write_file


class DiskCache:
    """Blocks by number in `folder / key`. Only arrays of numbers and of texts of fixed width are kept; never pickled.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = DiskCache(Path(folder), "digits")
    ...     cache.write(0, (np.arange(3), np.ones(3)))
    ...     cache.read(0), cache.read(1)
    ((array([0, 1, 2]), array([1., 1., 1.])), None)
    """

    def __init__(self, folder: Path, key: str):
        self.folder = folder / key

    def _place(self, number: int) -> Path:
        return self.folder / f"{number:08d}"

    def write(self, number: int, rows: Any) -> None:
        """Keep a block: an array, a tuple or a dict of arrays. DataError where the disk refuses."""
        make_folder(self.folder)
        fields = list(
            rows.items() if isinstance(rows, Mapping) else enumerate(rows if isinstance(rows, tuple) else [rows])
        )
        kind = "dict" if isinstance(rows, Mapping) else "tuple" if isinstance(rows, tuple) else "array"
        place = self._place(number)
        for i, (_, array) in enumerate(fields):
            write_file(
                place.with_suffix(f".{i}.npy"),
                lambda file, array=array: np.lib.format.write_array(file, np.asarray(array), allow_pickle=False),  # type: ignore[misc]
            )
        index = json.dumps({"kind": kind, "fields": [name for name, _ in fields]}).encode()
        write_file(place.with_suffix(".json"), lambda file: file.write(index))  # type: ignore[arg-type]

    def read(self, number: int) -> Any:
        """The block, or None where it is not kept or is damaged."""
        place = self._place(number)
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError):
            index = json.loads(place.with_suffix(".json").read_bytes())
            arrays = []
            for i in range(len(index["fields"])):
                with open(place.with_suffix(f".{i}.npy"), "rb") as file:
                    arrays.append(np.lib.format.read_array(file, allow_pickle=False))
            if index["kind"] == "dict":
                return dict(zip(index["fields"], arrays))
            return tuple(arrays) if index["kind"] == "tuple" else arrays[0]
        return None
