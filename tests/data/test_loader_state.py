"""Where a loader stands, what threads do for it, and which samplers decide."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest

from tapegrad import data
from tapegrad.data import preprocess as pre
from tapegrad.data.loading.threads import in_threads
from tapegrad.errors import DataError, DtypeError, IndexOutOfRange


def pairs(count):
    return np.arange(2.0 * count, dtype=np.float32).reshape(count, 2), np.arange(count)


def workers():
    return [t for t in threading.enumerate() if t.name.startswith("tapegrad-data")]


LABELS = np.arange(23) % 3
LOADERS = {
    "in order": lambda **o: data.DataLoader(pairs(23), 4, seed=9, **o),
    "shuffled": lambda **o: data.DataLoader(pairs(23), 4, shuffle=True, seed=9, **o),
    "dropping": lambda **o: data.DataLoader(pairs(23), 4, shuffle=True, drop_last=True, seed=9, **o),
    "list": lambda **o: data.DataLoader(list(zip(*pairs(23))), 4, shuffle=True, seed=9, **o),
    "weighted": lambda **o: data.DataLoader(pairs(23), 4, sampler=data.WeightedSampler(np.arange(23)), seed=9, **o),
    "plain sampler": lambda **o: data.DataLoader(pairs(23), 4, sampler=[5, 3, 1, 0, 2, 9, 9], seed=9, **o),
    "stratified": lambda **o: data.DataLoader(pairs(23), batch_sampler=data.StratifiedBatches(LABELS, 5), seed=9, **o),
    "undivided": lambda **o: data.DataLoader(pairs(23), batch_sampler=data.UndividedBatches(LABELS, 10), seed=9, **o),
    "bucketed": lambda **o: data.DataLoader(
        pairs(23), batch_sampler=data.BucketedBatches(np.arange(23) % 7, 5, bucket=2), seed=9, **o
    ),
    "augmented": lambda **o: data.DataLoader(
        (np.random.default_rng(0).random((23, 1, 4, 4), np.float32), np.arange(23)),
        4,
        shuffle=True,
        seed=9,
        transform=pre.ByField({0: pre.Pipeline([pre.RandomFlip(), pre.GaussianNoise(0.1)])}),
        **o,
    ),
    "blocks": lambda **o: data.DataLoader(data.Blocks(pairs(23), block_size=5), 4, shuffle=True, seed=9, **o),
    "blocks in order": lambda **o: data.DataLoader(
        data.Blocks(pairs(23), block_size=5), 4, drop_last=True, seed=9, **o
    ),
}


def bytes_of(batch):
    return [np.asarray(field).tobytes() for field in batch]


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("name", LOADERS)
def test_a_resumed_run_sees_the_same_batches(name, threads):
    """From every point of two epochs, with the state through JSON."""
    whole = LOADERS[name]()
    wanted = [[bytes_of(b) for b in whole] for _ in range(2)]
    assert len(wanted[0]) == len(wanted[1]) == len(whole)
    for epoch in range(2):
        for stop in range(len(whole) + 1):
            first = LOADERS[name](num_workers=threads)
            for _ in range(epoch):
                list(first)
            running = iter(first)
            seen = [bytes_of(next(running)) for _ in range(stop)]
            state = json.loads(json.dumps(first.state_dict()))
            assert (state["epoch"], state["batch"]) == (epoch, stop)
            running.close()
            second = LOADERS[name]()
            second.seed = 123  # comes with the state
            second.load_state_dict(state)
            assert second.state_dict() == state
            seen += [bytes_of(b) for b in second]
            assert seen == wanted[epoch]
            assert second.state_dict()["epoch"] == epoch + 1 and second.state_dict()["batch"] == 0
            if epoch == 0 and stop % 3 == 0:
                assert [bytes_of(b) for b in second] == wanted[1]
    assert workers() == []


def test_state_between_passes():
    loader = LOADERS["shuffled"]()
    assert loader.state_dict() == {"seed": 9, "epoch": 0, "batch": 0, "samples": 23, "batch_size": 4}
    list(loader)
    assert loader.state_dict()["epoch"] == 1
    for _ in loader:
        break
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (1, 1)
    loader.epoch = 0
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (0, 0)
    other = data.DataLoader(pairs(23), 4, shuffle=True)
    assert other.seed != loader.seed
    other.load_state_dict(loader.state_dict())
    assert [bytes_of(b) for b in other] == [bytes_of(b) for b in loader]


def test_a_state_that_does_not_fit():
    state = LOADERS["shuffled"]().state_dict()
    with pytest.raises(DataError, match="a loader with samples 23, and this one has 22"):
        data.DataLoader(pairs(22), 4).load_state_dict(state)
    with pytest.raises(DataError, match="a loader with batch_size 4, and this one has 5"):
        data.DataLoader(pairs(23), 5).load_state_dict(state)


# threads


class Slow:
    """Samples that take time and say which thread made them."""

    def __init__(self, count, seconds=0.005, broken=None):
        self.count, self.seconds, self.broken, self.asked = count, seconds, broken, []

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        time.sleep(self.seconds)
        self.asked.append(i)
        if i == self.broken:
            raise KeyError(f"sample {i} is gone")
        return np.float32(i), threading.get_ident()


@pytest.mark.parametrize("name", LOADERS)
def test_threads_change_nothing(name):
    alone = [bytes_of(b) for b in LOADERS[name]()]
    for threads, prefetch in ((1, 1), (3, 1), (2, 5)):
        assert [bytes_of(b) for b in LOADERS[name](num_workers=threads, prefetch=prefetch)] == alone
    assert workers() == []


def test_threads_work_at_the_same_time():
    start = time.perf_counter()
    batches = list(data.DataLoader(Slow(16, 0.02), 1, num_workers=4))
    assert time.perf_counter() - start < 16 * 0.02
    made_by = {int(b[1][0]) for b in batches}
    assert len(made_by) > 1 and threading.get_ident() not in made_by
    assert [b[0][0] for b in batches] == list(range(16))


def test_threads_are_no_further_ahead_than_asked():
    dataset = Slow(100, 0)
    running = iter(data.DataLoader(dataset, 1, num_workers=2, prefetch=3))
    next(running)
    time.sleep(0.1)
    assert len(dataset.asked) <= 1 + 2 * 3
    running.close()
    assert workers() == []


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_errors_come_to_the_consumer(threads):
    loader = data.DataLoader(Slow(20, 0, broken=9), 2, num_workers=threads)
    seen = []
    with pytest.raises(KeyError, match="sample 9 is gone"):
        seen.extend(loader)
    assert len(seen) == 4 and workers() == []

    def broken(batch):
        raise ValueError("not this one")

    with pytest.raises(ValueError, match="not this one"):
        list(data.DataLoader(pairs(5), transform=broken, num_workers=threads))
    with pytest.raises(DataError, match="samples 0 and 1 of a batch have shapes") as error:
        list(data.DataLoader([np.zeros(2), np.zeros(3)], batch_size=2, num_workers=threads))
    assert error.value.__notes__ == ["in batch 0 of epoch 0"]
    assert workers() == []


def test_leaving_early_ends_the_threads():
    for way in ("break", "drop", "raise"):
        loader = data.DataLoader(Slow(1000, 0.001), 2, num_workers=3)
        if way == "break":
            for _ in loader:
                break
        elif way == "drop":
            running = iter(loader)
            next(running)
            del running
        else:
            with pytest.raises(ZeroDivisionError):
                [1 / 0 for _ in loader]
        assert workers() == [], way
        assert len(loader.dataset.asked) < 100


def test_blocks_that_break():
    def broken(rows):
        if rows[1][0] >= 10:
            raise KeyError("bad block")
        return rows

    for threads in (0, 2):
        loader = data.DataLoader(data.Blocks(pairs(23), block_size=5, prepare=broken), 4, num_workers=threads)
        with pytest.raises(KeyError, match="bad block"):
            list(loader)
        assert workers() == []


def test_in_threads_closes_its_jobs():
    closed = []

    def jobs():
        try:
            yield from range(100)
        finally:
            closed.append(True)

    running = in_threads(jobs(), lambda n: n, 2, 2)
    assert next(running) == 0
    running.close()
    assert closed == [True]


# transforms


def test_transforms():
    scale = pre.Standardize().fit(pairs(23)[0])
    loader = data.DataLoader(pairs(23), 4, transform=pre.ByField({0: scale}))
    for x, y in loader:
        np.testing.assert_array_equal(x, scale.transform(pairs(23)[0][y]))
    doubled = next(iter(data.DataLoader(np.arange(4), 2, transform=lambda x: x * 2)))
    assert doubled.tolist() == [0, 2]
    images = np.random.default_rng(0).random((8, 1, 4, 4), np.float32)
    loader = data.DataLoader(images, 4, transform=pre.GaussianNoise(0.1), seed=1)
    first, second = list(loader), list(loader)
    assert not np.array_equal(first[0], second[0]) and not np.array_equal(first[0] - images[:4], first[1] - images[4:])


# samplers


def test_samplers():
    assert list(data.SequentialSampler(np.zeros(4))) == [0, 1, 2, 3]
    random = data.RandomSampler(50, seed=1)
    assert sorted(random.indices(0).tolist()) == list(range(50))
    assert not np.array_equal(random.indices(0), random.indices(1)) and np.array_equal(
        random.indices(1), random.indices(1)
    )
    assert len(set(data.RandomSampler(50, num_samples=20, seed=1).indices(0).tolist())) == 20
    drawn = data.RandomSampler(5, num_samples=5000, replacement=True).indices(0)
    assert (abs(np.bincount(drawn, minlength=5) - 1000) < 120).all()


def test_weighted_sampler():
    weights = np.array([0.0, 1, 2, 3, 0])
    drawn = data.WeightedSampler(weights, num_samples=60_000, seed=3).indices(0)
    shares = np.bincount(drawn, minlength=5) / 60_000
    np.testing.assert_allclose(shares, weights / 6, atol=0.01)
    once = np.array(
        [data.WeightedSampler(weights, num_samples=3, replacement=False, seed=s).indices(0) for s in range(3000)]
    )
    assert all(len(set(row)) == 3 for row in once.tolist()) and not np.isin(once, [0, 4]).any()
    np.testing.assert_allclose(np.bincount(once[:, 0], minlength=5) / 3000, weights / 6, atol=0.03)


def test_stratified_batches(rng):
    labels = rng.permutation(np.repeat([0, 1, 2], [60, 30, 12]))
    sampler = data.StratifiedBatches(labels, 17, seed=2)
    for epoch in range(2):
        batches = sampler.batches(epoch)
        assert sorted(np.concatenate(batches).tolist()) == list(range(102)) and len(batches) == len(sampler) == 6
        for batch in batches:
            assert (abs(np.bincount(labels[batch], minlength=3) - [10, 5, 2]) <= 1).all()
    assert not np.array_equal(sampler.batches(0)[0], sampler.batches(1)[0])
    ragged = data.StratifiedBatches(labels, 25, drop_last=True)
    assert len(ragged) == len(ragged.batches(0)) == 4 and len(data.StratifiedBatches(labels, 25).batches(0)[-1]) == 2


def test_undivided_batches(rng):
    groups = rng.integers(0, 30, 200)
    sampler = data.UndividedBatches(groups, 20)
    batches = sampler.batches(0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(200))
    for group in range(30):
        holding = [set(b.tolist()) for b in batches if (groups[b] == group).any()]
        assert len(holding) == 1 and set(np.flatnonzero(groups == group).tolist()) <= holding[0]
    assert all(len(b) <= 20 or len(set(groups[b])) == 1 for b in batches)
    assert sorted(map(tuple, batches)) == sorted(map(tuple, sampler.batches(1)))
    assert [len(b) for b in data.UndividedBatches([0] * 5 + [1], 2, shuffle=False).batches(0)] == [5, 1]


def test_bucketed_batches(rng):
    lengths = rng.integers(1, 100, 1000)
    sampler = data.BucketedBatches(lengths, 16, bucket=10)
    batches = sampler.batches(0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(1000)) and len(batches) == len(sampler) == 63
    padding = sum(len(b) * lengths[b].max() - lengths[b].sum() for b in batches) / lengths.sum()
    plain = data.RandomSampler(1000).indices(0)
    waste = sum(16 * lengths[plain[i : i + 16]].max() - lengths[plain[i : i + 16]].sum() for i in range(0, 1000, 16))
    assert padding < 0.15 < waste / lengths.sum()
    assert not all(np.array_equal(a, b) for a, b in zip(batches, sampler.batches(1)))
    assert len(data.BucketedBatches(lengths, 16, drop_last=True).batches(0)) == 62


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: data.SequentialSampler(0), "there are 0 samples"),
        (lambda: data.RandomSampler(3, num_samples=4), "without replacement there are no more"),
        (lambda: data.WeightedSampler([1, -1]), "one finite number from 0"),
        (lambda: data.WeightedSampler([0, 0]), "0 have a weight above 0"),
        (lambda: data.WeightedSampler([1, 0], num_samples=2, replacement=False), "1 have a weight above 0"),
        (lambda: data.StratifiedBatches([0, 1], 0), "batch_size is 0"),
        (lambda: data.StratifiedBatches([], 2), "wanted is one for each sample"),
        (lambda: data.UndividedBatches([[0]], 2), "wanted is a label for each sample"),
        (lambda: data.BucketedBatches([], 2), "wanted is one for each sample"),
        (lambda: data.DataLoader(pairs(4), 2, batch_sampler=[[0]]), "leave these out"),
        (lambda: data.DataLoader(pairs(4), 1, shuffle=True, batch_sampler=[[0]]), "leave these out"),
        (lambda: data.DataLoader(data.Blocks(pairs(4)), sampler=[0]), "Blocks are read in their own order"),
        (lambda: data.DataLoader(pairs(4), prefetch=0), "prefetch is 0"),
        (lambda: len(data.DataLoader(pairs(4), batch_sampler=iter([[0]]))), "the batch_sampler has no length"),
    ],
)
def test_samplers_that_are_refused(call, sentence):
    with pytest.raises(DataError) as error:
        call()
    assert sentence in str(error.value)


def test_samplers_that_lead_out():
    with pytest.raises(IndexOutOfRange, match="index 5, and"):
        list(data.DataLoader(pairs(5), batch_sampler=[[0, 5]]))
    with pytest.raises(IndexOutOfRange, match="index 5, and"):
        list(data.DataLoader(pairs(5), sampler=data.SequentialSampler(6)))
    with pytest.raises(DtypeError, match="gave 'a'"):
        list(data.DataLoader(pairs(5), batch_sampler=[["a"]]))
    assert [y.tolist() for _, y in data.DataLoader(pairs(5), batch_sampler=[[4, 0], [2]])] == [[4, 0], [2]]


def test_a_batch_larger_than_the_set():
    """The policy: one batch of all samples, or an error where drop_last would leave none."""
    assert [len(y) for _, y in data.DataLoader(pairs(3), 100)] == [3]
    with pytest.raises(DataError, match="drop_last leaves no batch of 3 samples"):
        data.DataLoader(pairs(3), 100, drop_last=True)
