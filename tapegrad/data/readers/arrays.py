"""NumPy's files, and raw binary files of any size seen as arrays."""

from __future__ import annotations

import io
import math
import os
import zipfile
import zlib
from typing import Any

import numpy as np

from ...errors import DataError
from ..sources.compressed import open_content
from ..sources.source import as_source

_DAMAGE = (OSError, EOFError, ValueError, KeyError, SyntaxError, zipfile.BadZipFile, zlib.error)


def read_npy(source: Any, *, mmap: bool = False) -> np.ndarray:
    """The array in an .npy file, plain or compressed; never unpickled.

    `mmap`: read the file only where the array is looked at, so that it may be larger than memory; it is read-only.
    DataError where the file is missing, damaged or holds Python objects.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(os.path.join(folder, "a.npy"), np.arange(3))
    ...     read_npy(os.path.join(folder, "a.npy"))
    array([0, 1, 2])
    """
    name = as_source(source).name
    try:
        if mmap:
            mapped: np.ndarray = np.load(as_source(source).path(), mmap_mode="r", allow_pickle=False)
            if not isinstance(mapped, np.ndarray):
                raise DataError(f"read_npy: {name} is an .npz archive; read it with read_npz.")
            return mapped
        _, stream = open_content(source)
        with stream:
            array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
            if stream.read(1):
                raise ValueError("more follows the array")
            return array
    except DataError:
        raise
    except _DAMAGE as reason:
        raise DataError(
            f"read_npy: {name} is no .npy file, is damaged, or holds Python objects ({reason}). Write it with numpy.save, "
            "of numbers or text of fixed width."
        ) from reason


def read_npz(source: Any) -> dict[str, np.ndarray]:
    """The arrays in an .npz file, by name; never unpickled. DataError as of `read_npy`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(os.path.join(folder, "a.npz"), x=np.arange(3), y=np.ones(2))
    ...     sorted(read_npz(os.path.join(folder, "a.npz")))
    ['x', 'y']
    """
    source = as_source(source)
    try:
        with source.open() as stream:
            stored = np.load(_seekable(stream), allow_pickle=False)
            if isinstance(stored, np.ndarray):
                raise DataError(f"read_npz: {source.name} is a single array; read it with read_npy.")
            with stored:
                return {name: stored[name] for name in stored.files}
    except DataError:
        raise
    except _DAMAGE as reason:
        raise DataError(
            f"read_npz: {source.name} is no .npz file, is damaged, or holds Python objects ({reason}). Write it with "
            "numpy.savez, of numbers or text of fixed width."
        ) from reason


def _seekable(stream: Any) -> Any:
    return stream if stream.seekable() else io.BytesIO(stream.read())


def memory_map(
    path: str | os.PathLike, dtype: Any, shape: tuple[int, ...] | None = None, *, offset: int = 0
) -> np.memmap:
    """A raw binary file seen as an array, read-only and read only where it is looked at.

    `offset`: bytes of a header. `shape`: of the array; one axis may be -1 and is found from the file's size; all values
    in one axis unless given. DataError where the file has not just so many bytes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.arange(6, dtype=np.float32).tofile(os.path.join(folder, "a.bin"))
    ...     found = memory_map(os.path.join(folder, "a.bin"), np.float32, (-1, 2)).tolist()
    >>> found
    [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    """
    file = as_source(path).path()
    dtype = np.dtype(dtype)
    if dtype.hasobject:
        raise DataError("memory_map: a file holds no Python objects; give a dtype of numbers.")
    shape = (-1,) if shape is None else tuple(shape)
    has = file.stat().st_size - offset
    known = math.prod(n for n in shape if n != -1) * dtype.itemsize
    if shape.count(-1) > 1 or any(n < -1 for n in shape) or offset < 0:
        raise DataError(f"memory_map: shape {shape}, offset {offset}: sizes are from 0, and one may be -1.")
    if -1 in shape and known and has >= 0 and has % known == 0:
        shape = tuple(has // known if n == -1 else n for n in shape)
    if -1 in shape or math.prod(shape) * dtype.itemsize != has:
        raise DataError(
            f"memory_map: {file} holds {has:,} bytes behind {offset:,}, which is not shape {shape} of {dtype.name} at "
            f"{dtype.itemsize} bytes each. Check dtype, shape and offset."
        )
    if not has:
        raise DataError(f"memory_map: {file} is empty behind {offset:,} bytes, and an empty file cannot be mapped.")
    return np.memmap(file, dtype, "r", offset, shape)
