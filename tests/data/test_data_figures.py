"""Figures of the loader and of the CSV reader, against what they are to keep up with. `pytest -m peers -s` prints them."""

from __future__ import annotations

import time

import numpy as np
import pytest

import tapegrad as tg
from tapegrad import data, nn, optim


def fastest(call, times=5):
    """Seconds of the fastest of several calls."""
    best = np.inf
    for _ in range(times):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


@pytest.mark.peers
@pytest.mark.slow
def test_csv_against_pandas(tmp_path):
    """1 million records of 10 numbers: at most twice the time of pandas."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = tmp_path / "numbers.csv"
    values = np.random.default_rng(0).standard_normal((1_000_000, 10))
    pandas.DataFrame(values, columns=[f"c{i}" for i in range(10)]).to_csv(path, index=False)
    theirs, ours = [], []
    for _ in range(5):  # by turns, so that a busy machine slows both
        theirs.append(fastest(lambda: pandas.read_csv(path), 1))
        ours.append(fastest(lambda: data.read_csv(path), 1))
    print(
        f"\nCSV, 1 M x 10: pandas {min(theirs):.2f} s, read_csv {min(ours):.2f} s, {min(ours) / min(theirs):.2f} times"
    )
    assert np.array_equal(data.read_csv(path)["c3"], values[:, 3])
    assert min(ours) <= 2 * min(theirs)


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("threads", [0, 1])
def test_a_loader_keeps_up(threads):
    """A step of an MLP on MNIST-like data with the loader, against the same batch again and again.

    Printed; the loader's own share is bounded loosely here, because a shared machine decides how threads overlap.
    """
    count, size = 60_000, 100
    rng = np.random.default_rng(0)
    x = rng.random((count, 784), np.float32)
    y = rng.integers(0, 10, count)
    tg.seed(0)
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    session = tg.Session()

    def step(a, b):
        with session:
            loss = nn.functional.cross_entropy(model(tg.tensor(a)), tg.tensor(b))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    loader = data.DataLoader((x, y), size, shuffle=True, seed=0, num_workers=threads)
    again = [(x[:size].copy(), y[:size].copy())] * len(loader)
    for batch in again[:20]:
        step(*batch)

    def walk(batches):
        for a, b in batches:
            step(a, b)

    repeated, loaded = [], []
    for _ in range(5):
        repeated.append(fastest(lambda: walk(again), 1))
        loaded.append(fastest(lambda: walk(loader), 1))
    more = min(loaded) / min(repeated) - 1
    print(
        f"\nloader, {threads} threads: {min(repeated) / len(again) * 1e6:.0f} µs a step with one batch, "
        f"{min(loaded) / len(again) * 1e6:.0f} µs with the loader, {100 * more:+.1f} %"
    )
    assert more < 0.5
