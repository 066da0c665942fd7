"""Data larger than memory, read in blocks: one is trained on while the next is read, and no more are held.

A block is so many consecutive samples that everything held at once stays within the bound: the block in use, the next one
while it is read and prepared, and the batches on their way.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, DtypeError
from ..dataset import ArrayDataset
from ..gather import as_dataset
from ..order import shuffled
from ..table import Table
from .collate import collate
from .disk_cache import DiskCache
from .threads import in_threads

PROBE = 16  # samples that are read and prepared once, to learn their size
FOR_BATCHES = 4  # a quarter of the bound is for batches
COPIED = 1 << 22  # bytes of a memory map that are copied before their pages are given back
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Blocks:
    """A dataset that is read block by block, within a bound of memory; give it to a `DataLoader`.

    Shuffled, a loader takes the blocks in another order in each epoch, and the samples of each in another order; samples of
    different blocks meet only where one ends. Where neighbours are alike, write them to the file in a random order.

    Args:
        dataset: memory-mapped arrays (`memory_map`, `read_npy(..., mmap=True)`) or a tuple of them, `Sections` of such, or
            anything with `__len__` and slices: a list, a Hugging Face dataset.
        memory: the most that is held at once, in bytes or as "300MB". What the program needs besides is not in it.
        prepare: a transformation, fitted before, or any function that is applied to each block when it is read.
        cache: a folder where prepared blocks are kept, to be read from in later epochs and runs. A block that cannot be
            written is prepared anew each time, and a warning says so. The folder may be deleted at any time.
        cache_key: a text that changes whenever data or `prepare` do. It is not needed where the data are memory-mapped files
            and `prepare` is a transformation of `data.preprocess`: these are told by path, size, time and state.
        block_size: samples of a block; what the bound allows unless given.

    Iterated by itself, it gives the prepared blocks in order: an array, a tuple or a dict of arrays each, for
    `partial_fit`, say. `len()` is the number of samples.

    DataError where the dataset is empty, the bound too small for a single sample, or a cache has no key.

    >>> blocks = Blocks((np.arange(10), np.arange(10) ** 2), block_size=4)
    >>> [x.tolist() for x, y in blocks]
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    """

    def __init__(
        self,
        dataset: Any,
        *,
        memory: int | str = "256MB",
        prepare: Callable[[Any], Any] | None = None,
        cache: str | os.PathLike | None = None,
        cache_key: str | None = None,
        block_size: int | None = None,
    ):
        self.dataset = as_dataset(dataset, "Blocks")
        self.memory = memory_bytes(memory)
        self.prepare = prepare
        self.samples = len(self.dataset)
        if not self.samples:
            raise DataError("Blocks: the dataset is empty; it needs at least one sample.")
        self.maps = _memory_maps(self.dataset)
        raw, prepared = self._probe()
        self.sample_bytes = prepared
        # in use, and next to it: pages that are read and their copy, or what was read, its prepared form and another
        # of these that preparing may take
        cost = prepared + max(2 * raw, raw + 2 * prepared if prepare is not None else 0)
        most = (self.memory - self.memory // FOR_BATCHES) // cost
        if most < 1 or (block_size is not None and block_size > most):
            raise DataError(
                f"Blocks: {block_size or 'a single sample'}{' samples in a block' if block_size else ''} would take more than "
                f"the bound of {self.memory:,} bytes: each takes about {cost:,}. Raise memory"
                f"{f', or take a block_size up to {most:,}' if most >= 1 and block_size else ''}."
            )
        if block_size is not None and block_size < 1:
            raise DataError(f"Blocks: block_size is {block_size}; a whole number from 1 is wanted.")
        self.block_size = min(block_size or most, self.samples)
        self.cache = None if cache is None else DiskCache(Path(cache), self._key(cache_key))

    def _probe(self) -> tuple[int, int]:
        """Bytes of a sample as it is read and as it is prepared."""
        count = min(PROBE, self.samples)
        raw = self._read(0, count)
        size = _bytes(raw)
        prepared = size if self.prepare is None else _bytes(self._prepared(raw))
        return max(1, -(-size // count)), max(1, -(-prepared // count))

    def __len__(self) -> int:
        return self.samples

    @property
    def count(self) -> int:
        """The number of blocks."""
        return -(-self.samples // self.block_size)

    def bounds(self, block: int) -> tuple[int, int]:
        """The first sample of a block, and the one after its last."""
        return block * self.block_size, min((block + 1) * self.block_size, self.samples)

    def block(self, number: int) -> Any:
        """A prepared block: an array, a tuple or a dict of arrays."""
        if self.cache is not None:
            found = self.cache.read(number)
            if found is not None:
                return found
        rows = self._prepared(self._read(*self.bounds(number)))
        if self.cache is not None:
            try:
                self.cache.write(number, rows)
            except DataError as reason:
                warnings.warn(f"a prepared block was not kept: {reason}", RuntimeWarning, stacklevel=2)
        return rows

    def __getitem__(self, index: Any) -> Any:
        raise DtypeError("Blocks are not asked for single samples: loop over them, or give them to a DataLoader.")

    def __iter__(self) -> Iterator[Any]:
        return in_threads(iter(range(self.count)), self.block, 1, 1)

    def check_batches(self, batch_size: int, batches: int) -> None:
        """DataError where so many batches at once do not fit into the part of the bound that is for them."""
        need, room = batch_size * batches * self.sample_bytes, self.memory // FOR_BATCHES
        if need > room:
            raise DataError(
                f"DataLoader: {batches} batches of {batch_size} samples take {need:,} bytes, and of the blocks' bound a "
                f"quarter, {room:,}, is for batches. Raise memory, or take a smaller batch_size, num_workers or prefetch."
            )

    def _read(self, start: int, stop: int) -> Any:
        dataset = self.dataset
        if isinstance(dataset, np.ndarray):
            rows: Any = self._copied(dataset, start, stop)
        elif type(dataset) is ArrayDataset:
            rows = tuple(self._copied(array, start, stop) for array in dataset.arrays)
        else:
            try:
                rows = dataset[start:stop]
            except (TypeError, KeyError):
                rows = [dataset[i] for i in range(start, stop)]
            if isinstance(rows, Table):
                rows = rows.data
            elif isinstance(rows, list):
                rows = collate(rows)
            elif isinstance(rows, Mapping):
                rows = {name: np.asarray(column) for name, column in rows.items()}
        self._release()
        return rows

    def _copied(self, array: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Rows of an array in memory of their own; what is in memory already is copied only where it is prepared."""
        if not self.maps:
            return array[start:stop] if self.prepare is None else array[start:stop].copy()  # it may change what it gets
        rows = np.empty((stop - start, *array.shape[1:]), array.dtype)
        step = max(1, COPIED * len(rows) // max(1, rows.nbytes))
        for place in range(0, len(rows), step):
            end = min(place + step, len(rows))
            rows[place:end] = array[start + place : start + end]
            self._release()
        return rows

    def _release(self) -> None:
        """Give pages of mapped files back; they are read again when they are looked at again."""
        for mapped in self.maps:
            if hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)

    def _prepared(self, rows: Any) -> Any:
        return rows if self.prepare is None else self.prepare(rows)

    def _key(self, given: str | None) -> str:
        """What tells data and preparation apart from others."""
        parts: list[Any] = [self.samples, self.block_size]
        if given is not None:
            parts.append(given)
        else:
            files = _files(self.dataset)
            if files is None or not (self.prepare is None or hasattr(self.prepare, "state_dict")):
                raise DataError(
                    "Blocks: a cache needs a cache_key, a text that changes whenever the data or prepare do; it is found by "
                    "itself only for memory-mapped arrays and transformations of data.preprocess."
                )
            parts.extend([files, _print(self.prepare.state_dict()) if self.prepare is not None else None])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]

    def __repr__(self) -> str:
        return f"Blocks({self.samples:,} samples in {self.count:,} blocks of {self.block_size:,})"


def block_batches(
    blocks: Blocks, batch_size: int, drop_last: bool, seed: int | None, epoch: int, first: int
) -> Generator[Any, None, None]:
    """The batches of an epoch from number `first` on; `seed` None keeps the order. Rows are copies."""
    order = np.arange(blocks.count) if seed is None else shuffled(blocks.count, seed, epoch, 0)
    sizes = np.array([stop - start for start, stop in map(blocks.bounds, order.tolist())], np.int64)
    ends = np.cumsum(sizes)
    passed = first * batch_size
    at = int(np.searchsorted(ends, passed, side="right"))  # the block that batch begins in
    offset = passed - int(ends[at - 1]) if at else passed
    read = in_threads(iter(order[at:].tolist()), blocks.block, 1, 1)
    pieces: list[Any] = []
    have = 0
    try:
        for number, rows in zip(order[at:].tolist(), read):
            size = blocks.bounds(number)[1] - blocks.bounds(number)[0]
            within = np.arange(size) if seed is None else shuffled(size, seed, epoch, 1, number)
            place, offset = offset, 0
            while place < size:
                chosen = within[place : place + batch_size - have]
                pieces.append(_take(rows, chosen))
                have += len(chosen)
                place += len(chosen)
                if have == batch_size:
                    batch, pieces, have = _joined(pieces), [], 0
                    yield batch
                    del batch
            del rows  # before the one after next is read
        if have and not drop_last:
            yield _joined(pieces)
    finally:
        read.close()  # type: ignore[attr-defined]


def memory_bytes(memory: int | str) -> int:
    """Bytes, of a number or a text such as "300MB" (1 MB is 2**20 bytes).

    >>> memory_bytes("2MB")
    2097152
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", str(memory), re.IGNORECASE)
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise DataError(f"Blocks: memory is {memory!r}; write bytes, or a size such as 300MB or 4GB.")
    return size


def _fields(rows: Any) -> list[np.ndarray]:
    if isinstance(rows, Mapping):
        return [np.asarray(v) for v in rows.values()]
    return [np.asarray(v) for v in rows] if isinstance(rows, tuple) else [np.asarray(rows)]


def _bytes(rows: Any) -> int:
    return sum(field.nbytes for field in _fields(rows))


def _take(rows: Any, chosen: np.ndarray) -> Any:
    if isinstance(rows, Mapping):
        return {name: column.take(chosen, axis=0) for name, column in rows.items()}
    if isinstance(rows, tuple):
        return tuple(column.take(chosen, axis=0) for column in rows)
    return rows.take(chosen, axis=0)


def _joined(pieces: list[Any]) -> Any:
    first = pieces[0]
    if len(pieces) == 1:
        return first
    if isinstance(first, Mapping):
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in first}
    if isinstance(first, tuple):
        return tuple(np.concatenate(parts) for parts in zip(*pieces))
    return np.concatenate(pieces)


def _arrays(dataset: Any) -> list[np.ndarray] | None:
    """The arrays that a dataset is made of, where that is known."""
    from ..sections import Sections

    if isinstance(dataset, np.ndarray):
        return [dataset]
    if type(dataset) is ArrayDataset:
        return list(dataset.arrays)
    if isinstance(dataset, Sections):
        return [array for array, _ in dataset.fields.values()]
    return None


def _root(array: np.ndarray) -> np.memmap | None:
    """The memory map that an array is a view of."""
    found, at = None, array
    while isinstance(at, np.ndarray):
        if isinstance(at, np.memmap):
            found = at
        at = at.base  # type: ignore[assignment]
    return found


def _memory_maps(dataset: Any) -> list[mmap.mmap]:
    """The maps below a dataset whose pages may be given back: not those of mode "c", whose changes are in the pages."""
    roots = [_root(array) for array in _arrays(dataset) or []]
    return list({id(r._mmap): r._mmap for r in roots if r is not None and r.mode != "c"}.values())  # type: ignore[attr-defined]


def _files(dataset: Any) -> list[Any] | None:
    """What tells the memory-mapped files of a dataset apart from others; None where some of it is not one."""
    from ..sections import Sections

    found: list[Any] = []
    for array in _arrays(dataset) or [np.empty(0)]:
        root = _root(array)
        if root is None or root.filename is None:
            return None
        stat = os.stat(root.filename)
        address = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
        found.append(
            [str(root.filename), stat.st_size, stat.st_mtime_ns, address, array.dtype.str, array.shape, array.strides]
        )
    if isinstance(dataset, Sections):
        found.append([dataset.step, [(name, span.length, span.offset) for name, (_, span) in dataset.fields.items()]])
    return found


def _print(state: Any) -> Any:
    """A state as JSON, arrays by their digest."""
    if isinstance(state, dict):
        return {str(key): _print(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_print(value) for value in state]
    if isinstance(state, np.ndarray):
        return [state.dtype.str, state.shape, hashlib.sha256(state.tobytes()).hexdigest()]
    return state
