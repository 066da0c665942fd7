"""The random kernels: known answers of Philox, distributions, and independence of how the work is split."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import scipy.stats
from kernel_runner import ABI, run, run_status, steps_of

from tapegrad.kernels.random import GROUP
from tapegrad.kernels.status import INDEX

MASK = 0xFFFFFFFF
MANY = 400_000


def state(seed=1234567890123, offset=7):
    return np.array([seed, offset], np.int64)


def words_of(block, offset, seed):
    """Philox4x32-10 in Python integers, from the paper's text."""
    c = [block & MASK, block >> 32 & MASK, offset & MASK, offset >> 32 & MASK]
    k = [seed & MASK, seed >> 32 & MASK]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [b >> 32 ^ c[1] ^ k[0], b & MASK, a >> 32 ^ c[3] ^ k[1], a & MASK]
        k = [k[0] + 0x9E3779B9 & MASK, k[1] + 0xBB67AE85 & MASK]
    return c


@pytest.mark.parametrize(
    ("counter", "key", "want"),
    [  # the known answers of Random123, file kat_vectors, philox4x32 with 10 rounds
        ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([MASK] * 4, [MASK] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_known_answers(counter, key, want):
    block, offset, seed = (ctypes.c_int64(lo | hi << 32).value for lo, hi in (counter[:2], counter[2:], key))
    assert words_of(block, offset, seed) == want
    (step,) = steps_of("random_words", [state()], [((4,), "int64")])
    words, out, scratch = state(seed, offset), np.zeros(4 * GROUP, np.int64), np.zeros(4 * GROUP, np.int64)
    group, i = divmod(block, GROUP)
    first = 4 * GROUP * group  # the place in the output that goes to out[0]; numbers wrap at 2**64
    start, end = (ctypes.c_int64(n).value for n in (out.ctypes.data - 8 * first, first + 4 * GROUP))
    args = np.array([words.ctypes.data] * 3 + [start, scratch.ctypes.data, end], np.int64)
    assert ABI(step.address)(args.ctypes.data, group, group + 1) == 0
    assert out[4 * i : 4 * i + 4].tolist() == want


@pytest.mark.parametrize("seed", [0, 1, -1, 2**40 + 3, -(2**63)])
def test_words_are_those_of_the_paper(seed):
    for offset in (0, 5, 2**33 + 1, -2):
        got = run("random_words", [state(seed, offset)], [((103,), "int64")])
        want = [w for block in range(26) for w in words_of(block, offset, seed)][:103]
        assert got.tolist() == want


def test_how_words_become_uniforms():
    words = run("random_words", [state()], [((40,), "int64")])
    single = run("uniform", [state()], [((39,), "float32")])
    np.testing.assert_array_equal(single, ((words >> 8) * 2.0**-24)[:39].astype(np.float32))
    double = run("uniform", [state()], [((19,), "float64")])
    np.testing.assert_array_equal(double, ((words[::2] >> 5 << 26 | words[1::2] >> 6) * 2.0**-53)[:19])


CASES = [
    ("uniform", [], "float32"),
    ("uniform", [], "float64"),
    ("normal", [], "float32"),
    ("normal", [], "float64"),
    ("bernoulli", [np.float32(0.3)], "bool"),
    ("randint", [np.int64(-5), np.int64(90)], "int64"),
    ("randint", [np.int64(-5), np.int64(90)], "int32"),
]


@pytest.mark.parametrize(("name", "ins", "dtype"), CASES)
def test_draws_depend_on_seed_offset_and_place_only(name, ins, dtype):
    whole = run(name, [state(), *ins], [((1003,), dtype)])
    for pieces in (2, 7, 300):
        np.testing.assert_array_equal(run(name, [state(), *ins], [((1003,), dtype)], pieces=pieces), whole)
    for n in (1, 2, 3, 5, 6, 7, 998):
        np.testing.assert_array_equal(run(name, [state(), *ins], [((n,), dtype)]), whole[:n])
    np.testing.assert_array_equal(run(name, [state(), *ins], [((17, 59), dtype)]), whole.reshape(17, 59))
    for other in (state(offset=8), state(seed=1)):
        assert (run(name, [other, *ins], [((1003,), dtype)]) != whole).mean() > 0.3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform_is_uniform(dtype):
    u = run("uniform", [state()], [((MANY,), dtype)])
    assert u.min() >= 0
    assert u.max() < 1
    assert scipy.stats.chisquare(np.histogram(u, 256, (0, 1))[0]).pvalue > 1e-4
    pairs = np.histogram2d(u[::2], u[1::2], 16, ((0, 1), (0, 1)))[0]
    assert scipy.stats.chisquare(pairs.ravel()).pvalue > 1e-4
    v = run("uniform", [state(offset=8)], [((MANY,), dtype)])
    assert abs(np.corrcoef(u, v)[0, 1]) < 5 / np.sqrt(MANY)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal_is_normal(dtype):
    z = run("normal", [state()], [((MANY,), dtype)]).astype(np.float64)
    assert np.isfinite(z).all()
    assert abs(z.mean()) < 4 / np.sqrt(MANY)
    for power, want, spread in ((2, 1, 2), (3, 0, 15), (4, 3, 96)):  # moments, and the variance of their estimates
        assert abs((z**power).mean() - want) < 4 * np.sqrt(spread / MANY)
    assert scipy.stats.kstest(z, "norm").pvalue > 1e-4
    for limit in (2.0, 3.0, 4.0):
        expected = 2 * scipy.stats.norm.sf(limit) * MANY
        assert abs((np.abs(z) > limit).sum() - expected) < 5 * np.sqrt(expected) + 1
    assert abs(np.corrcoef(z[::2], z[1::2])[0, 1]) < 5 / np.sqrt(MANY / 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal_is_box_and_muller(dtype):
    words = run("random_words", [state()], [((4000,), "int64")]).astype(np.float64)
    if dtype == "float32":
        u, v = (words[::2] + 0.5) * 2.0**-32, words[1::2] * 2.0**-32
    else:
        u = words[::4] * 2.0**-32 + (words[1::4] // 2**11 + 0.5) * 2.0**-53
        v = words[2::4] * 2.0**-32 + (words[3::4] // 2**11) * 2.0**-53
    r = np.sqrt(-2 * np.log(u))
    want = np.stack([r * np.cos(2 * np.pi * v), r * np.sin(2 * np.pi * v)], 1).ravel()
    got = run("normal", [state()], [((want.size,), dtype)])
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bernoulli(dtype):
    for p in (0.0, 1e-3, 0.5, 0.9, 1.0):
        hits = run("bernoulli", [state(), np.array(p, dtype)], [((MANY,), "bool")]).sum()
        assert abs(hits - p * MANY) <= 5 * np.sqrt(p * (1 - p) * MANY)
    for p in (-0.1, 1.5, np.nan):
        assert run_status("bernoulli", [state(), np.array(p, dtype)], [((9,), "bool")])[0] == INDEX


def test_randint():
    for low, high in ((0, 1), (-3, 4), (10, 1000), (-(2**40), 2**40), (-(2**63), 2**63 - 1), (2**62, 2**62 + 3)):
        x = run("randint", [state(), np.int64(low), np.int64(high)], [((MANY,), "int64")])
        assert x.min() >= low
        assert x.max() < high
        buckets = min(high - low, 97)
        place = np.array([(int(v) - low) * buckets // (high - low) for v in x[:50_000]])
        edges = [-(-i * (high - low) // buckets) for i in range(buckets + 1)]
        expected = np.diff(np.array(edges, np.float64)) / (high - low) * place.size
        if buckets > 1:
            assert scipy.stats.chisquare(np.bincount(place, minlength=buckets), expected).pvalue > 1e-4
    x = run("randint", [state(), np.int64(-7), np.int64(9)], [((1001,), "int32")])
    np.testing.assert_array_equal(x, run("randint", [state(), np.int64(-7), np.int64(9)], [((1001,), "int64")]))
    assert run_status("randint", [state(), np.int64(3), np.int64(3)], [((5,), "int64")])[0] == INDEX


def test_randint_multiplies_high():
    words = [int(w) for w in run("random_words", [state()], [((2000,), "int64")])]
    for low, high in ((0, 10), (5, 2**40 + 12345), (-(2**62), 2**62 + 99)):
        want = [low + ((words[i] | words[i + 1] << 32) * (high - low) >> 64) for i in range(0, 2000, 2)]
        got = run("randint", [state(), np.int64(low), np.int64(high)], [((1000,), "int64")])
        assert got.tolist() == want


def test_permutation():
    for n in (1, 2, 1000):
        assert sorted(run("permutation", [state()], [((n,), "int64")]).tolist()) == list(range(n))
    counts = {}
    for offset in range(6000):
        order = tuple(run("permutation", [state(offset=offset)], [((4,), "int64")]).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-4
