"""Data larger than memory: blocks, their bound, their cache."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from tapegrad import data
from tapegrad.data import preprocess as pre
from tapegrad.data.loading.blocks import memory_bytes
from tapegrad.errors import DataError, DtypeError

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def mapped(tmp_path):
    """A memory-mapped set of 1,000 samples, and what it holds."""
    x = np.random.default_rng(0).standard_normal((1000, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    return data.read_npy(tmp_path / "x.npy", mmap=True), x


def test_blocks_hold_everything_once(mapped):
    x, wanted = mapped
    y = np.arange(1000)
    blocks = data.Blocks((x, y), memory="20KB")
    assert blocks.count > 5 and len(blocks) == 1000
    found = list(blocks)
    assert np.array_equal(np.concatenate([b[0] for b in found]), wanted)
    assert all(len(b[0]) == blocks.block_size for b in found[:-1])
    assert not any(isinstance(b[0], np.memmap) for b in found)
    for shuffle in (False, True):
        loader = data.DataLoader(blocks, 30, shuffle=shuffle, seed=1)
        batches = list(loader)
        assert len(batches) == len(loader) == 34 and all(len(b[1]) == 30 for b in batches[:-1])
        order = np.concatenate([b[1] for b in batches])
        assert sorted(order.tolist()) == list(range(1000)) and (order.tolist() == list(range(1000))) != shuffle
        for a, b in batches:
            assert np.array_equal(a, wanted[b])
    other = np.concatenate([b[1] for b in loader])
    assert not np.array_equal(order, other)
    assert len(list(data.DataLoader(blocks, 30, drop_last=True))) == 33


def test_blocks_of_sections(mapped):
    x, wanted = mapped
    sections = data.Sections(x, inputs=data.Span(4), targets=data.Span(offset=4))
    blocks = data.Blocks(sections, memory="20KB")
    assert blocks.count > 3
    for start, block in zip(range(0, len(sections), blocks.block_size), blocks):
        assert block["inputs"].shape[1:] == (4, 6)
        assert np.array_equal(block["targets"][0], wanted[start + 4])
    batch = next(iter(data.DataLoader(blocks, 8)))
    assert np.array_equal(batch["inputs"][3], wanted[3:7])


def test_prepare_and_partial_fit(mapped):
    x, wanted = mapped
    scale = pre.Standardize()
    for block in data.Blocks(x, memory="20KB"):
        scale.partial_fit(block)
    np.testing.assert_allclose(scale.mean[0], wanted.mean(axis=0, dtype=np.float64), rtol=1e-9, atol=1e-12)
    found = np.concatenate(list(data.Blocks(x, memory="20KB", prepare=scale)))
    np.testing.assert_array_equal(found, scale.transform(wanted))


def test_prepare_may_change_what_it_gets():
    x = np.zeros(10)

    def doubles(rows):
        rows += 1
        return rows

    for _ in range(2):
        assert np.concatenate(list(data.Blocks(x, prepare=doubles, block_size=4))).tolist() == [1] * 10
    assert not x.any()


def test_a_disk_cache(mapped, tmp_path):
    x, wanted = mapped
    calls = []

    class Counting(pre.Standardize):
        def transform(self, rows):
            calls.append(len(rows))
            return super().transform(rows)

    def blocks(scale):
        return data.Blocks((x, x[:, :2]), memory="40KB", prepare=pre.ByField({0: scale}), cache=tmp_path / "cache")

    scale = Counting().fit(wanted)
    first = blocks(scale)
    once = [b[0].tobytes() for b in first]
    made = len(calls)
    assert made == first.count + 1  # and once to learn their size
    again = blocks(scale)
    assert [b[0].tobytes() for b in again] == once and len(calls) == made + 1
    assert again.block(1)[1].shape[1:] == (2,)
    blocks(Counting().fit(wanted * 2)).block(0)
    assert len(calls) == made + 3  # another preparation is another block
    kept = sorted((tmp_path / "cache").rglob("00000000.0.npy"))
    assert len(kept) == 2
    for damage in (b"", b"damaged"):
        kept[0].write_bytes(damage)
        kept[1].write_bytes(damage)
        assert [b[0].tobytes() for b in blocks(scale)] == once  # prepared anew
    time.sleep(0.01)
    os.utime(x.filename)
    before = len(calls)
    blocks(scale).block(0)
    assert len(calls) == before + 2  # another file, as far as can be told


def test_a_cache_of_what_has_no_name(tmp_path, mapped):
    with pytest.raises(DataError, match="a cache needs a cache_key"):
        data.Blocks(np.arange(10), cache=tmp_path / "cache")
    with pytest.raises(DataError, match="a cache needs a cache_key"):
        data.Blocks(mapped[0], prepare=lambda rows: rows * 2, cache=tmp_path / "cache")
    for key, factor in (("a", 2), ("b", 3)):
        made = data.Blocks(np.arange(10), prepare=lambda r: r * factor, cache=tmp_path / "cache", cache_key=key)  # noqa: B023
        assert made.block(0)[1] == factor
    kept = data.Blocks(np.arange(10), prepare=lambda r: r * 100, cache=tmp_path / "cache", cache_key="a")
    assert kept.block(0)[1] == 2
    named = data.Blocks([{"x": 1, "t": "u"}] * 4, cache=tmp_path / "cache", cache_key="c")
    assert [b["x"].tolist() for b in named] == [b["x"].tolist() for b in named] == [[1, 1, 1, 1]]


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    blocks = data.Blocks(np.arange(10), cache=tmp_path / "file", cache_key="a")
    with pytest.warns(RuntimeWarning, match="a prepared block was not kept: .*cannot be made"):
        assert blocks.block(0).tolist() == list(range(10))


def test_the_next_block_is_read_while_this_one_is_used():
    """Reading and using take 30 ms each for each of 8 blocks: together, not one after the other."""

    def slowly(rows):
        time.sleep(0.03)
        return rows

    blocks = data.Blocks(np.arange(80), block_size=10, prepare=slowly)
    start = time.perf_counter()
    for _ in data.DataLoader(blocks, 10):
        time.sleep(0.03)
    assert time.perf_counter() - start < 0.9 * 8 * 0.06


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(memory="100B"), "a single sample would take more than the bound of 100 bytes"),
        (dict(memory="1MB", block_size=10**6), "take a block_size up to"),
        (dict(memory="lots"), "memory is 'lots'"),
        (dict(memory=0), "memory is 0"),
        (dict(block_size=-1), "block_size is -1"),
    ],
)
def test_blocks_that_are_refused(options, sentence):
    with pytest.raises(DataError) as error:
        data.Blocks(np.zeros((100, 10)), **options)
    assert sentence in str(error.value)


def test_other_refusals():
    with pytest.raises(DataError, match="the dataset is empty"):
        data.Blocks(np.zeros((0, 2)))
    with pytest.raises(DtypeError, match="not asked for single samples"):
        data.Blocks(np.zeros(3))[0]
    with pytest.raises(DataError, match="2 batches of 64 samples take .* Raise memory"):
        data.DataLoader(data.Blocks(np.zeros((100, 10)), memory="10KB"), 64)
    assert memory_bytes("1.5KB") == 1536 and memory_bytes(7) == 7


MEASURE = """
    import resource, sys
    import numpy as np
    from tapegrad import data
    path, way = sys.argv[1:]
    mapped = data.memory_map(path, np.float32, (-1, 1024))
    assert mapped.nbytes == 4 << 30
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen = 0
    if way == "loader":
        y = np.arange(len(mapped))
        for x, labels in data.DataLoader(data.Blocks((mapped, y), memory="300MB"), 256, shuffle=True, seed=0, num_workers=1):
            seen += len(x)
    elif way == "sections":
        sections = data.Sections(mapped, inputs=data.Span(2), targets=data.Span(offset=2), step=2)
        for block in data.Blocks(sections, memory="300MB", prepare=lambda b: {k: v + 1 for k, v in b.items()}):
            seen += len(block["inputs"]) * 2
    else:
        for start in range(0, len(mapped), 256):
            seen += len(mapped[start : start + 256] + 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(seen, peak - base)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="pages of a memory map are given back on Linux")
@pytest.mark.parametrize("way", ["loader", "sections", "without"])
def test_four_gigabytes_under_300_megabytes(tmp_path, way):
    """The peak of resident memory, over what the process takes without data. Without blocks, the map fills it."""
    path = tmp_path / "sparse.bin"
    with open(path, "wb") as file:
        file.truncate(4 << 30)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), str(path), way],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    seen, kilobytes = map(int, done.stdout.split())
    assert seen >= (1 << 20) - 2
    assert (kilobytes * 1024 <= 300 << 20) == (way != "without"), f"{kilobytes / 1024:.0f} MB"
