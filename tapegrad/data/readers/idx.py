"""IDX files, the format of MNIST and its relatives, read strictly.

The format: two zero bytes, a type code, the number of dimensions, each dimension as a big-endian uint32, then the
values, big-endian, the last dimension fastest (http://yann.lecun.com/exdb/mnist/, "the IDX file format").
"""

from __future__ import annotations

import math
import struct
from typing import Any, BinaryIO

import numpy as np

from ...errors import DataError
from ..sources.compressed import open_content

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MOST_BYTES = 2**30  # of values; the largest relative of MNIST (EMNIST by class) has 548 MB
MOST_DIMENSIONS = 8
HEADER_BYTES = 16  # of the commonest header; no more is unpacked than is asked for


def read_idx(source: Any, max_bytes: int = MOST_BYTES) -> np.ndarray:
    """The array stored in an IDX file, plain or compressed, in native byte order. `source`: a path or a source.

    Nothing is guessed: the header must be right and the file must hold exactly the values it announces. At most
    `max_bytes` of values are read, however much a compressed file would expand to. DataError names the file, what came
    and what was wanted.
    """
    name, stream = open_content(source, ahead=HEADER_BYTES)
    try:
        with stream:
            return _read(name, stream, max_bytes)
    except OSError as reason:
        raise DataError(f"read_idx: {name} cannot be read ({reason}). Check that it is a readable file.") from reason


def _read(name: str, stream: BinaryIO, max_bytes: int) -> np.ndarray:
    dtype, shape = _header(name, stream)
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > max_bytes:
        raise DataError(
            f"read_idx: {name} announces shape {shape} of {dtype.name}, {wanted:,} bytes, and at most {max_bytes:,} "
            "are read. If the file is right, raise max_bytes."
        )
    data = stream.read(wanted + 1)  # one more, so that trailing bytes show and gzip checks its CRC
    if len(data) < wanted:
        raise DataError(
            f"read_idx: {name} announces shape {shape} of {dtype.name}, {wanted:,} bytes, and holds {len(data):,}. "
            "It was cut short: download it again."
        )
    if len(data) > wanted:
        raise DataError(
            f"read_idx: {name} announces shape {shape} of {dtype.name}, {wanted:,} bytes, and more follow. "
            "It is not the file its header describes: download it again."
        )
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _header(name: str, stream: BinaryIO) -> tuple[np.dtype, tuple[int, ...]]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES:
        codes = ", ".join(f"{code:02x}" for code in DTYPES)
        came = f"starts with bytes {magic.hex(' ')}" if magic else "is empty"
        raise DataError(
            f"read_idx: {name} {came}; an IDX file starts with 00 00, a type code ({codes}) and the number of "
            "dimensions. Is it another format, or an error page saved by a download?"
        )
    ndim = magic[3]
    if not 1 <= ndim <= MOST_DIMENSIONS:
        raise DataError(
            f"read_idx: {name} announces {ndim} dimensions, and 1 to {MOST_DIMENSIONS} are read. Is it damaged?"
        )
    sizes = stream.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise DataError(
            f"read_idx: {name} ends inside its header, after {4 + len(sizes)} of {4 + 4 * ndim} bytes. "
            "It was cut short: download it again."
        )
    return np.dtype(DTYPES[magic[2]]), struct.unpack(f">{ndim}I", sizes)
