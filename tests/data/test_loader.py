"""Datasets and loaders: what comes, in which order, in which form."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from tapegrad import data
from tapegrad.data.order import shuffled
from tapegrad.errors import DataError, DtypeError, IndexOutOfRange


def test_array_dataset():
    inputs, targets = np.arange(12.0).reshape(6, 2), np.arange(6)
    dataset = data.ArrayDataset(inputs, targets)
    assert len(dataset) == 6
    x, y = dataset[-1]
    assert x.tolist() == [10, 11] and y == 5
    x, y = dataset[1:4]
    assert x.shape == (3, 2) and y.tolist() == [1, 2, 3]
    assert dataset[np.array([4, 0])][1].tolist() == [4, 0]
    assert [int(y) for _, y in dataset] == list(range(6))
    assert repr(dataset) == "ArrayDataset(6 samples: float64 (6, 2), int64 (6,))"


def test_array_dataset_errors():
    with pytest.raises(DataError, match="3, 4 samples"):
        data.ArrayDataset(np.zeros(3), np.zeros(4))
    with pytest.raises(DataError, match="no array was given"):
        data.ArrayDataset()
    with pytest.raises(DataError, match="argument 1 is a single value"):
        data.ArrayDataset(np.zeros(3), 1.0)
    with pytest.raises(IndexOutOfRange, match="index 3 is not among its 3 samples"):
        data.ArrayDataset(np.zeros(3))[3]


# loaders


def batches(loader):
    return [y.tolist() for _, y in loader]


def pairs(count):
    return np.arange(2.0 * count, dtype=np.float32).reshape(count, 2), np.arange(count)


def test_loader_in_order():
    loader = data.DataLoader(pairs(7), batch_size=3)
    assert len(loader) == 3
    assert batches(loader) == [[0, 1, 2], [3, 4, 5], [6]]
    assert batches(loader) == [[0, 1, 2], [3, 4, 5], [6]]
    loader = data.DataLoader(pairs(7), batch_size=3, drop_last=True)
    assert len(loader) == 2
    assert batches(loader) == [[0, 1, 2], [3, 4, 5]]
    assert batches(data.DataLoader(pairs(3), batch_size=8)) == [[0, 1, 2]]


def test_loader_shuffles_anew_and_repeatably():
    loader = data.DataLoader(pairs(50), batch_size=8, shuffle=True, seed=3)
    first, second = batches(loader), batches(loader)
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(50))
    assert first != second and loader.epoch == 2
    again = data.DataLoader(pairs(50), batch_size=8, shuffle=True, seed=3)
    assert [batches(again), batches(again)] == [first, second]
    again.epoch = 1
    assert batches(again) == second
    assert batches(data.DataLoader(pairs(50), batch_size=8, shuffle=True, seed=4)) != first


def test_loader_without_seed_can_be_repeated():
    loader = data.DataLoader(pairs(50), shuffle=True)
    other = data.DataLoader(pairs(50), shuffle=True)
    assert loader.seed != other.seed
    assert batches(data.DataLoader(pairs(50), shuffle=True, seed=loader.seed)) == batches(loader)


def test_shuffle_is_the_same_everywhere():
    """Written down: saved runs depend on it."""
    assert shuffled(10, 0, 0).tolist() == [0, 8, 9, 3, 7, 5, 1, 2, 6, 4]
    assert shuffled(10, 2**70, 5).tolist() == [1, 2, 8, 6, 7, 4, 5, 3, 0, 9]


def test_a_pass_that_is_left_early_counts():
    loader = data.DataLoader(pairs(50), shuffle=True, seed=0)
    for _ in loader:
        break
    assert loader.epoch == 1
    one, two = iter(loader), iter(loader)  # two passes at once do not disturb each other
    ys = [(int(next(one)[1][0]), int(next(two)[1][0])) for _ in range(50)]
    assert sorted(y for y, _ in ys) == sorted(y for _, y in ys) == list(range(50))


def test_batches_are_contiguous_copies():
    x, y = pairs(6)
    wide = np.asfortranarray(x)
    for shuffle in (False, True):
        for a, b in data.DataLoader((wide, y), batch_size=2, shuffle=shuffle, seed=0):
            assert a.flags.c_contiguous and a.dtype == np.float32 and b.dtype == y.dtype
            assert np.array_equal(a, x[b])
            a[...] = -1
            b[...] = -1
    assert np.array_equal(wide, x) and y.tolist() == list(range(6))


class Squares:
    def __len__(self):
        return 5

    def __getitem__(self, i):
        assert type(i) is int
        return np.full(3, i, np.float32), i * i


def test_loader_takes_any_dataset():
    x, y = next(iter(data.DataLoader(Squares(), batch_size=4)))
    assert x.shape == (4, 3) and x.dtype == np.float32
    assert y.tolist() == [0, 1, 4, 9] and y.dtype == np.int64
    assert [b.tolist() for b in data.DataLoader(np.arange(3), batch_size=2)] == [[0, 1], [2]]
    batch = next(iter(data.DataLoader([{"a": 1.5, "b": "x"}, {"a": 2, "b": "y"}], batch_size=2)))
    assert batch["a"].tolist() == [1.5, 2.0] and batch["b"] == ["x", "y"]
    floats = next(iter(data.DataLoader([0.5, 1.5], batch_size=2)))
    assert floats.dtype == np.float32
    lists = next(iter(data.DataLoader([np.zeros(3), np.ones(3)], batch_size=2)))  # a list is a list of samples
    assert lists.shape == (2, 3)


def test_loader_asks_a_subclass_for_each_sample():
    class Negated(data.ArrayDataset):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return -x, y

    x, _ = next(iter(data.DataLoader(Negated(*pairs(4)), batch_size=2)))
    assert x.tolist() == [[0, -1], [-2, -3]]


def test_collate_fn():
    loader = data.DataLoader(pairs(4), batch_size=2, collate_fn=lambda samples: [int(y) for _, y in samples])
    assert list(loader) == [[0, 1], [2, 3]]


def test_sampler():
    loader = data.DataLoader(pairs(5), batch_size=2, sampler=[4, 4, 0])
    assert len(loader) == 2
    assert batches(loader) == batches(loader) == [[4, 4], [0]]
    assert batches(data.DataLoader(pairs(5), batch_size=2, sampler=[1, 2, 3], drop_last=True)) == [[1, 2]]
    endless = data.DataLoader(pairs(5), batch_size=2, sampler=(i % 5 for i in range(5)))
    with pytest.raises(DataError, match="has no length"):
        len(endless)
    assert batches(endless) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        (dict(batch_size=0), DataError, "batch_size is 0; a whole number from 1"),
        (dict(batch_size=-2), DataError, "batch_size is -2"),
        (dict(batch_size=2.5), DtypeError, "batch_size is 2.5"),
        (dict(batch_size=True), DtypeError, "batch_size is True"),
        (dict(seed=-1), DataError, "seed is -1"),
        (dict(seed="x"), DtypeError, "seed is 'x'"),
        (dict(batch_size=6, drop_last=True), DataError, "no batch of 5 samples when batch_size is 6"),
        (dict(shuffle=True, sampler=[0]), DataError, "leave out one"),
    ],
)
def test_loader_options(options, kind, sentence):
    with pytest.raises(kind) as error:
        data.DataLoader(pairs(5), **options)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("dataset", "kind", "sentence"),
    [
        ((np.zeros(3), np.zeros(4)), DataError, "3, 4 samples"),
        ((np.zeros((0, 2)), np.zeros(0)), DataError, "the dataset is empty"),
        ([], DataError, "the dataset is empty"),
        (np.array(1.0), DataError, "0-d array"),
        (7, DtypeError, "a int is no dataset"),
        ((i for i in range(3)), DtypeError, "a generator is no dataset"),
    ],
)
def test_loader_datasets_it_cannot_take(dataset, kind, sentence):
    with pytest.raises(kind) as error:
        data.DataLoader(dataset)
    assert sentence in str(error.value)


def test_errors_while_loading():
    with pytest.raises(IndexOutOfRange, match="index 5, and the dataset's samples are 0 to 4"):
        list(data.DataLoader(pairs(5), sampler=[5]))
    with pytest.raises(IndexOutOfRange, match="index -1"):
        list(data.DataLoader(pairs(5), sampler=[-1]))
    with pytest.raises(DtypeError, match=r"gave 1\.5"):
        list(data.DataLoader(pairs(5), sampler=[1.5]))
    with pytest.raises(DataError, match="samples 0 and 1 of a batch have shapes") as error:
        list(data.DataLoader([np.zeros(2), np.zeros(3)], batch_size=2))
    assert "(2,) and (3,)" in str(error.value) and "collate_fn" in str(error.value)
    with pytest.raises(DataError, match="differ in their number of fields"):
        list(data.DataLoader([(1, 2), (1,)], batch_size=2))
