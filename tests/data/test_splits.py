"""Splits share no sample, and reports say what is in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapegrad import data
from tapegrad.errors import DataError, IndexOutOfRange


def disjoint(parts, count):
    return sorted(np.concatenate([p.indices for p in parts]).tolist()) == list(range(count))


@given(
    count=st.integers(20, 200),
    seed=st.one_of(st.none(), st.integers(0, 5)),
    way=st.sampled_from(["record", "stratify", "groups", "block"]),
    classes=st.integers(1, 6),
)
def test_splits_are_disjoint_and_whole(count, seed, way, classes):
    labels = np.random.default_rng(count).integers(0, classes, count)
    options = {
        "record": {},
        "stratify": {"stratify": labels},
        "groups": {"groups": np.arange(count) // 3},
        "block": {"block_size": 2},
    }[way]
    parts = data.split(np.arange(count), [0.6, 0.2, 0.2], seed=seed, **options)
    assert disjoint(parts, count)
    assert all(len(p) for p in parts)
    folds = list(data.k_fold(np.arange(count), 3, seed=seed, **options))
    assert disjoint([validation for _, validation in folds], count)
    for train, validation in folds:
        assert disjoint([train, validation], count)


def test_splits_by_record():
    train, test = data.split((np.arange(10), np.arange(10) * 2), [0.7, 0.3], seed=1)
    assert (len(train), len(test)) == (7, 3)
    again = data.split((np.arange(10), np.arange(10) * 2), [7, 3], seed=1)
    assert np.array_equal(train.indices, again[0].indices)
    other = data.split(np.arange(10), [7, 3], seed=2)
    assert not np.array_equal(train.indices, other[0].indices)
    in_order = data.split(np.arange(10), [0.5, 0.5], seed=None)
    assert in_order[0].indices.tolist() == [0, 1, 2, 3, 4]


def test_stratified(rng):
    labels = rng.permutation(np.repeat([0, 1, 2], [70, 20, 10]))
    for seed in range(5):
        parts = data.split(labels, [0.5, 0.3, 0.2], seed=seed, stratify=labels)
        for part, share in zip(parts, (0.5, 0.3, 0.2)):
            counts = np.bincount(labels[part.indices], minlength=3)
            assert (abs(counts - share * np.array([70, 20, 10])) <= 1).all()
    for _, validation in data.k_fold(labels, 5, stratify=labels):
        assert (abs(np.bincount(labels[validation.indices]) - [14, 4, 2]) <= 1).all()


def test_groups_and_blocks_stay_together(rng):
    groups = rng.integers(0, 40, 300)
    parts = data.split(np.arange(300), [0.6, 0.4], groups=groups, seed=3)
    assert not set(groups[parts[0].indices]) & set(groups[parts[1].indices])
    assert abs(len(parts[0]) - 180) < 20
    blocks = data.split(np.arange(100), [0.8, 0.2], block_size=10, seed=0)
    assert not set(blocks[0].indices // 10) & set(blocks[1].indices // 10)
    assert (np.diff(blocks[1].indices) > 0).all()


@pytest.mark.parametrize(
    ("count", "sizes", "options", "sentence"),
    [
        (10, [0.5, 0.4], {}, "add up to 0.9 and not to 1"),
        (10, [5, 4], {}, "add up to 9, and the dataset has 10"),
        (10, [], {}, "numbers above 0"),
        (10, [1.2, -0.2], {}, "numbers above 0"),
        (2, [0.9, 0.1], {}, "is left empty; the dataset is too small"),
        (0, [0.5, 0.5], {}, "the dataset is empty"),
        (10, [0.5, 0.5], dict(stratify=np.zeros(9)), "one label for each of 10 samples"),
        (10, [0.5, 0.5], dict(groups=np.zeros(10)), "too few groups"),
        (10, [0.5, 0.5], dict(block_size=0), "block_size is 0"),
        (10, [0.5, 0.5], dict(groups=np.arange(10), block_size=2), "exclude each other"),
    ],
)
def test_splits_that_are_refused(count, sizes, options, sentence):
    with pytest.raises(DataError) as error:
        data.split(np.arange(count), sizes, **options)
    assert sentence in str(error.value)


def test_folds_that_are_refused():
    for k in (1, 6):
        with pytest.raises(DataError, match=f"k is {k}; wanted is from 2 to the 5"):
            data.k_fold(np.arange(5), k)


def test_subset():
    inner = data.Subset((np.arange(10), np.arange(10) * 2), [7, 3, 5])
    assert len(inner) == 3 and inner[1] == (3, 6) and inner[-1][0] == 5
    assert inner[1:][0].tolist() == [3, 5] and [int(x) for x, _ in inner] == [7, 3, 5]
    nested = data.Subset(inner, [2, 0])
    x, y = next(iter(data.DataLoader(nested, batch_size=2)))
    assert x.tolist() == [5, 7] and y.tolist() == [10, 14]
    plain = data.Subset([{"a": 1}, {"a": 2}], [1])
    assert plain[0] == {"a": 2} and next(iter(data.DataLoader(plain)))["a"].tolist() == [2]
    assert len(plain[0:1]) == 1
    with pytest.raises(IndexOutOfRange, match="indices go from 0 to 3, and the dataset's samples are 0 to 2"):
        data.Subset(np.arange(3), [0, 3])
    with pytest.raises(IndexOutOfRange, match="sample 3 is not among its 3"):
        inner[3]


# reports


def test_describe(rng, monkeypatch):
    monkeypatch.setattr("tapegrad.data.description.CHUNK", 7)
    x = rng.standard_normal((50, 3)).astype(np.float32)
    x[:, 1] = 4
    x[5, 0], x[6, 2] = np.nan, np.inf
    y = np.arange(50) % 2
    test_x = np.concatenate([x[:2], rng.standard_normal((8, 3)).astype(np.float32)])
    found = data.describe(train=(x, y), test=(test_x, np.concatenate([y[:2], np.zeros(8, np.int64)])))
    train = found.splits["train"]
    assert train.count == 50 and train.classes == {"1": {0: 25, 1: 25}}
    first = train.features[0]
    good = x[:, 0][np.isfinite(x[:, 0])].astype(np.float64)
    assert (first.name, first.count, first.missing, first.infinite) == ("0.0", 49, 1, 0)
    np.testing.assert_allclose(
        [first.mean, first.std, first.least, first.most], [good.mean(), good.std(), good.min(), good.max()], rtol=1e-10
    )
    assert train.features[2].infinite == 1 and train.features[1].std == 0
    assert found.shared == {("train", "test"): 2}
    text = str(found)
    assert "train: 1 values are missing" in text and "1 features do not vary (0.1)" in text
    assert "2 samples of test are in train too" in text and "values are infinite" in text


def test_describe_classes_and_duplicates():
    table = data.Table({"kind": ["a"] * 30 + ["b"] * 2, "x": [1.0] * 30 + [2.0, 3.0]})
    found = data.describe(table)
    assert found.splits["data"].classes == {"kind": {"a": 30, "b": 2}}
    assert found.splits["data"].duplicates == 29
    assert any("unbalanced, 30 to 2" in w for w in found.warnings)
    assert any("29 samples are repeated" in w for w in found.warnings)
    numbers = data.describe(np.arange(300))
    assert not numbers.splits["data"].classes and numbers.splits["data"].features[0].most == 299
    listed = data.describe([{"x": 1.5, "t": "u"}, {"x": 2.5, "t": "v"}])
    assert listed.splits["data"].classes == {"t": {"u": 1, "v": 1}}
    assert not data.describe(data.iris()).shared


def test_describe_errors():
    with pytest.raises(DataError, match="train is empty"):
        data.describe(train=np.zeros((0, 2)))
    for call in (lambda: data.describe(), lambda: data.describe(np.ones(2), np.ones(2))):
        with pytest.raises(DataError, match="give one dataset, or several by name"):
            call()
