"""Batches: a DataLoader walks a dataset in order or shuffled and yields NumPy arrays."""

from __future__ import annotations

import operator
import secrets
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from ...errors import DataError, DtypeError, IndexOutOfRange, TapegradError
from ..gather import as_dataset, gathered, gathers, samples
from ..order import generator, shuffled
from .blocks import Blocks, block_batches
from .collate import collate
from .threads import in_threads

Collate = Callable[[list[Any]], Any]
TRANSFORM = 0x7A6E  # keeps the random numbers of transforms apart from those of orders


class Job(NamedTuple):
    """One batch to be made: its number in the epoch, and its samples or, out of a block, itself."""

    epoch: int
    number: int
    indices: np.ndarray | None
    rows: Any = None


class DataLoader:
    """Batches of `dataset`, one pass each time it is iterated.

    A batch has the structure of a sample with one more axis in front: a tuple of arrays where samples are tuples, a
    dict where they are dicts, an array where they are arrays or numbers. Arrays in a batch are contiguous copies, so
    changing them leaves the dataset as it was.

    Args:
        dataset: an `ArrayDataset`, an array, a tuple of arrays of equal length, `Sections`, `Blocks` for data larger than
            memory, or anything with `__len__` and `__getitem__(int)` (a list is a list of samples). One that has
            `gather(indices)` gives a batch at once, one that has `__getitems__(list)` a list of samples.
        batch_size: samples in a batch; the last one may be smaller.
        shuffle: another order in each pass. The order follows from `seed` and `epoch` alone, with every NumPy version.
        sampler: indices to visit instead: a `Sampler`, or an iterable that is walked anew in each pass; not together
            with `shuffle`.
        batch_sampler: the batches' indices instead: a `BatchSampler`, or an iterable of lists; it decides the batch
            size, the order and what is left out.
        drop_last: leave out a last batch that is not full.
        collate_fn: makes a batch of a list of samples; `collate` unless given.
        seed: of the shuffle, an int from 0; a random one, kept in `loader.seed`, unless given.
        transform: what is done to each batch: a transformation of `data.preprocess`, augmentations among them, or any
            function. Random ones draw from (seed, epoch, batch).
        num_workers: threads that make batches ahead of time; 0 makes each when it is asked for. The batches are the same.
        prefetch: batches that each of them may be ahead.

    `epoch` counts the passes begun; set it to repeat a pass. `state_dict()` says exactly where the latest pass stands,
    and after `load_state_dict` the next pass goes on with the next batch. What a dataset, `collate_fn` or `transform`
    raises in a thread comes out of the iteration; a pass that is left early ends its threads.

    Raises:
        DataError: an empty dataset, arrays of different lengths, a batch size below 1, no full batch with `drop_last`.

    >>> loader = DataLoader((np.arange(5), np.arange(5) ** 2), batch_size=2)
    >>> len(loader)
    3
    >>> for x, y in loader:
    ...     print(x, y)
    [0 1] [0 1]
    [2 3] [4 9]
    [4] [16]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        drop_last: bool = False,
        collate_fn: Collate | None = None,
        seed: int | None = None,
        transform: Callable[[Any], Any] | None = None,
        num_workers: int = 0,
        prefetch: int = 2,
    ):
        self.dataset = as_dataset(dataset)
        self.batch_size = _whole("batch_size", batch_size, least=1)
        self.shuffle = shuffle
        self.sampler, self.batch_sampler = sampler, batch_sampler
        self.drop_last = drop_last
        self.collate_fn = collate_fn or collate
        self.seed = secrets.randbits(64) if seed is None else _whole("seed", seed, least=0)
        self.transform = transform
        self.num_workers = _whole("num_workers", num_workers, least=0)
        self.prefetch = _whole("prefetch", prefetch, least=1)
        self._epoch = 0
        self._position: _Position | None = None  # of the latest pass, while it lasts
        self._resume: tuple[int, int] | None = None  # epoch and batch that the next pass begins with
        self._check(collate_fn)
        # Whole arrays are gathered at once; a subclass may change single samples, so it is asked for each.
        self._gathers = gathers(self.dataset) and collate_fn is None

    def _check(self, collate_fn: Collate | None) -> None:
        if self.shuffle and self.sampler is not None:
            raise DataError("DataLoader: shuffle=True and a sampler both decide the order; leave out one.")
        if self.batch_sampler is not None and (
            self.shuffle or self.sampler is not None or self.drop_last or self.batch_size != 1
        ):
            raise DataError(
                "DataLoader: a batch_sampler decides batch_size, shuffle, sampler and drop_last; leave these out."
            )
        if not len(self.dataset):
            raise DataError("DataLoader: the dataset is empty; it needs at least one sample.")
        if isinstance(self.dataset, Blocks):
            if self.sampler is not None or self.batch_sampler is not None or collate_fn is not None:
                raise DataError("DataLoader: Blocks are read in their own order; leave out samplers and collate_fn.")
            self.dataset.check_batches(self.batch_size, self.num_workers * self.prefetch + 2)
        if self.batch_sampler is not None:
            return
        count = self._samples()
        if self.drop_last and count is not None and count < self.batch_size:
            raise DataError(
                f"DataLoader: drop_last leaves no batch of {count} samples when batch_size is {self.batch_size}. "
                "Take a smaller batch_size, or drop_last=False."
            )

    def __len__(self) -> int:
        """The number of batches in a pass."""
        if self.batch_sampler is not None:
            if not isinstance(self.batch_sampler, Sized):
                raise DataError("DataLoader: the batch_sampler has no length, so the batches cannot be counted ahead.")
            return len(self.batch_sampler)
        count = self._samples()
        if count is None:
            raise DataError("DataLoader: the sampler has no length, so the batches cannot be counted ahead.")
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def _samples(self) -> int | None:
        if self.sampler is None:
            return len(self.dataset)
        return len(self.sampler) if isinstance(self.sampler, Sized) else None

    # where it stands

    @property
    def epoch(self) -> int:
        """The passes begun, and the number of the next one."""
        return self._epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        self._epoch = _whole("epoch", number, least=0)
        self._position = self._resume = None

    def state_dict(self) -> dict[str, Any]:
        """The seed, and the batch to go on with: number `batch` of pass `epoch`.

        While a pass lasts, that is the one after the batch that was handed out last, however many are prepared already.
        """
        if self._resume is not None:
            epoch, batch = self._resume
        elif self._position is not None:
            epoch, batch = self._position.epoch, self._position.batch
        else:
            epoch, batch = self._epoch, 0
        return {
            "seed": self.seed,
            "epoch": epoch,
            "batch": batch,
            "samples": len(self.dataset),
            "batch_size": self.batch_size,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next pass go on where another loader, of the same data and options, stood.

        DataError where the number of samples or the batch size differ.
        """
        for name, own in (("samples", len(self.dataset)), ("batch_size", self.batch_size)):
            if state[name] != own:
                raise DataError(
                    f"DataLoader: the saved position is of a loader with {name} {state[name]}, and this one has {own}; it "
                    "goes on only with the same data and batch size."
                )
        self.seed = state["seed"]
        self._epoch, self._position = state["epoch"], None
        self._resume = (state["epoch"], state["batch"]) if state["batch"] else None

    # batches

    def __iter__(self) -> Iterator[Any]:
        epoch, first = self._resume or (self._epoch, 0)
        self._resume, self._epoch = None, epoch + 1
        self._position = position = _Position(epoch, first)
        return self._pass(position)

    def _pass(self, position: _Position) -> Iterator[Any]:
        jobs = self._jobs(position.epoch, position.batch)
        if self.num_workers:
            batches = in_threads(jobs, self._batch, self.num_workers, self.num_workers * self.prefetch)
        else:
            batches = map(self._batch, jobs)
        try:
            for batch in batches:
                position.batch += 1
                yield batch
                del batch
            if self._position is position:
                self._position = None
        finally:
            for running in (batches, jobs):
                close = getattr(running, "close", None)
                if close is not None:
                    close()

    def _jobs(self, epoch: int, first: int) -> Iterator[Job]:
        """The batches of an epoch from number `first` on."""
        if isinstance(self.dataset, Blocks):
            seed = self.seed if self.shuffle else None
            found = block_batches(self.dataset, self.batch_size, self.drop_last, seed, epoch, first)
            try:
                for number, rows in enumerate(found, first):
                    yield Job(epoch, number, None, rows)
            finally:
                found.close()
            return
        for number, indices in enumerate(self._indices(epoch, first), first):
            yield Job(epoch, number, indices)

    def _indices(self, epoch: int, first: int) -> Iterator[np.ndarray]:
        if self.batch_sampler is not None:
            own = getattr(self.batch_sampler, "batches", None)
            chosen = self.batch_sampler if own is None else own(epoch)
            return (self._checked(batch) for batch in islice(chosen, first, None))
        if self.sampler is not None and not hasattr(self.sampler, "indices"):
            return self._drawn(iter(self.sampler), first)
        if self.sampler is not None:
            order = self._checked(self.sampler.indices(epoch))
        else:
            order = shuffled(len(self.dataset), self.seed, epoch) if self.shuffle else np.arange(len(self.dataset))
        size = self.batch_size
        stop = len(order) // size * size if self.drop_last else len(order)
        return (order[start : start + size] for start in range(first * size, stop, size))

    def _drawn(self, indices: Iterator[int], first: int) -> Iterator[np.ndarray]:
        """Batches of what an iterable gives; those before `first` are drawn and passed over."""
        for _ in islice(indices, first * self.batch_size):
            pass
        while chosen := list(islice(indices, self.batch_size)):
            if len(chosen) < self.batch_size and self.drop_last:
                return
            yield self._checked(chosen)

    def _checked(self, chosen: Any) -> np.ndarray:
        """Indices that a sampler gave, as an array."""
        count = len(self.dataset)
        if isinstance(chosen, np.ndarray) and chosen.dtype.kind in "iu":
            if chosen.size and 0 <= chosen.min() <= chosen.max() < count:
                return chosen
            chosen = chosen.tolist()
        chosen = list(chosen)
        for index in chosen:
            if not hasattr(index, "__index__"):
                raise DtypeError(f"DataLoader: the sampler gave {index!r}; it must give whole numbers.")
            if not 0 <= index < count:
                raise IndexOutOfRange(
                    f"DataLoader: the sampler gave index {index}, and the dataset's samples are 0 to {count - 1}."
                )
        return np.array(chosen, np.int64)

    def _batch(self, job: Job) -> Any:
        if job.indices is None:
            batch = job.rows
        elif self._gathers:
            batch = gathered(self.dataset, job.indices)
        else:
            try:
                batch = self.collate_fn(samples(self.dataset, job.indices))
            except TapegradError as error:
                error.add_note(f"in batch {job.number} of epoch {job.epoch}")
                raise
        if self.transform is None:
            return batch
        from ..preprocess.transform import applied

        random = getattr(self.transform, "random", False)
        rng = generator(self.seed, job.epoch, job.number, TRANSFORM) if random else None
        return applied(self.transform, batch, rng)


class _Position:
    """Where a pass stands: `batch` is the number of the next one."""

    __slots__ = ("batch", "epoch")

    def __init__(self, epoch: int, batch: int):
        self.epoch, self.batch = epoch, batch


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise DtypeError(f"DataLoader: {name} is {value!r}; a whole number from {least} is wanted.")
    if value < least:
        raise DataError(f"DataLoader: {name} is {value}; a whole number from {least} is wanted.")
    return operator.index(value)
