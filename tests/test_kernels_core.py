"""The core kernels against NumPy and SciPy: reductions, softmax, gather, sort, fill."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.special
from kernel_runner import run, run_status

import tapegrad.kernels.fill
import tapegrad.kernels.gather
import tapegrad.kernels.reduce
import tapegrad.kernels.search
import tapegrad.kernels.softmax
import tapegrad.kernels.sort  # noqa: F401
from tapegrad.errors import ShapeError
from tapegrad.kernels.reduce import walk
from tapegrad.kernels.status import INDEX

FLOATS = ("float32", "float64")
ALL = ("float32", "float64", "int32", "int64", "uint8", "bool")
SHAPES = [(), (1,), (7,), (1037,), (5, 3), (1, 9), (33, 257), (3, 1, 4), (4, 33, 5), (2, 3, 4, 5), (2, 3, 2, 3, 2)]
TOLERANCE = {"float32": 3e-6, "float64": 1e-13}
rng = np.random.default_rng(5)


def draw(shape, dtype, spread=3.0):
    """Random values of any dtype, with ties."""
    if dtype == "bool":
        return np.asarray(rng.random(shape) < 0.7)
    if dtype == "uint8":
        return rng.integers(0, 256, shape).astype(np.uint8)
    if dtype in ("int32", "int64"):
        return rng.integers(-50, 50, shape).astype(dtype)
    return np.asarray(rng.normal(size=shape) * spread).astype(dtype)


def spoilt(shape, dtype, values=(np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0)):
    """Random floats, some of them replaced by special ones."""
    x = draw(shape, dtype)
    flat = x.reshape(-1)
    for v in values:
        flat[rng.integers(0, flat.size, max(1, flat.size // 20))] = v
    return x


def subsets(n):
    """All sets of axes."""
    return [a for k in range(n + 1) for a in itertools.combinations(range(n), k)]


def kept_shape(shape, axes):
    return tuple(n for i, n in enumerate(shape) if i not in axes)


def close(got, want, dtype, scale=1.0):
    limit = TOLERANCE.get(dtype, 0) * scale
    np.testing.assert_allclose(got.astype(np.float64), np.asarray(want, np.float64), rtol=limit, atol=limit)


# ---------------------------------------------------------------------------------------------------- reductions


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ALL)
def test_sum_over_every_set_of_axes(shape, dtype):
    x = draw(shape, dtype)
    out = dtype if dtype in FLOATS else "int64"
    for axes in subsets(len(shape)):
        got = run("sum", [x], [(kept_shape(shape, axes), out)], {"axes": axes, "keepdims": False})
        close(got, x.sum(axis=axes, dtype=np.float64 if dtype in FLOATS else np.int64), dtype, 30)


@pytest.mark.parametrize("name", ["max", "min", "any", "all", "prod"])
@pytest.mark.parametrize("dtype", ALL)
def test_other_reductions(name, dtype):
    for shape in [(1,), (1037,), (33, 257), (4, 33, 5), (2, 3, 2, 3, 2)]:
        x = draw(shape, dtype)
        if name == "prod":
            x = (x % 3 + 1).astype(dtype) if dtype not in FLOATS else (1 + x / 100).astype(dtype)
        if name == "all":
            x[rng.random(shape) < 0.8] = 1
        out = {"prod": dtype if dtype in FLOATS else "int64", "any": "bool", "all": "bool"}.get(name, dtype)
        wide = np.float64 if dtype in FLOATS else np.int64
        for axes in subsets(len(shape)):
            got = run(name, [x], [(kept_shape(shape, axes), out)], {"axes": axes})
            with np.errstate(over="ignore"):
                want = np.prod(x, axis=axes, dtype=wide) if name == "prod" else getattr(np, name)(x, axis=axes)
            close(got, want, dtype, 10)


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_extrema_let_nan_through(name, dtype):
    for shape in [(6,), (9, 300), (5, 7, 31), (3, 2, 40)]:
        x = spoilt(shape, dtype)
        x.reshape(-1)[0] = -np.nan
        for axes in subsets(len(shape)):
            got = run(name, [x], [(kept_shape(shape, axes), dtype)], {"axes": axes})
            np.testing.assert_array_equal(got, getattr(np, name)(x, axis=axes))
    for value in (np.inf, -np.inf, -0.0, np.nan):
        assert np.array_equal(run(name, [np.full(40, value, dtype)], [((), dtype)], {"axes": (0,)}), value, True)


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_extrema_of_whole_integer_range(name, dtype):
    limits = np.iinfo(dtype)
    for x in ([limits.min] * 40, [limits.max] * 40, [limits.min, limits.max, 0]):
        x = np.array(x, dtype)
        assert run(name, [x], [((), dtype)], {"axes": (0,)}) == getattr(x, name)()


def test_truth_of_nan_and_negative_zero():
    x = np.array([[np.nan, 0.0], [-0.0, 0.0]], np.float32)
    assert run("any", [x], [((2,), "bool")], {"axes": (1,)}).tolist() == [True, False]
    assert run("all", [x], [((2,), "bool")], {"axes": (0,)}).tolist() == [False, False]


@pytest.mark.parametrize("name", ["sum", "prod", "any", "all", "logsumexp"])
def test_reduction_of_nothing(name):
    want = {"sum": 0, "prod": 1, "any": False, "all": True, "logsumexp": -np.inf}[name]
    out = "bool" if name in ("any", "all") else "float32"
    for shape, axes in [((0,), (0,)), ((3, 0), (1,)), ((0, 3), (0,)), ((2, 0, 3), (1,)), ((2, 0, 3), (0, 1))]:
        got = run(name, [np.empty(shape, np.float32)], [(kept_shape(shape, axes), out)], {"axes": axes})
        assert (got == want).all()


def test_extrema_of_nothing_are_errors():
    for name in ("max", "min"):
        with pytest.raises(ShapeError, match=f"{name}: an axis of length 0"):
            run(name, [np.empty((3, 0), np.float32)], [((3,), "float32")], {"axes": (1,)})
        with pytest.raises(ShapeError, match=f"arg{name}: an axis of length 0"):
            run("arg" + name, [np.empty((3, 0), np.float32)], [((3,), "int64")], {"axis": 1})


def test_sum_of_ten_million_is_exact_to_the_last_digits():
    x = 1.0 + rng.normal(size=10_000_000)
    want = math.fsum(x)
    assert abs(run("sum", [x], [((), "float64")], {"axes": (0,)}) - want) <= 1e-15 * want
    y = x.astype(np.float32)
    want = math.fsum(y)
    assert abs(run("sum", [y], [((), "float32")], {"axes": (0,)}) - want) <= 2**-24 * want
    tall = x.reshape(-1, 4)
    got = run("sum", [tall], [((4,), "float64")], {"axes": (0,)})
    for j in range(4):
        want = math.fsum(tall[:, j])
        assert abs(got[j] - want) <= 2e-15 * want


def test_many_scattered_axes():
    shape = (2, 3) * 4
    x = draw(shape, "float64")
    for axes in [(0, 2, 4, 6), (1, 3, 5, 7), (0, 3, 4, 7), (1, 2, 5, 6)]:
        got = run("sum", [x], [(kept_shape(shape, axes), "float64")], {"axes": axes}, pieces=3)
        close(got, x.sum(axis=axes), "float64", 10)
    with pytest.raises(ShapeError, match="Reduce some of the axes first"):
        walk((2,) * 12, (0, 2, 4, 6, 8, 10)).words()


@pytest.mark.parametrize("dtype", FLOATS)
def test_logsumexp(dtype):
    for shape in [(1,), (1037,), (33, 257), (4, 33, 5), (2, 3, 2, 3)]:
        x = draw(shape, dtype, 30)
        for axes in subsets(len(shape)):
            got = run("logsumexp", [x], [(kept_shape(shape, axes), dtype)], {"axes": axes})
            close(got, scipy.special.logsumexp(x.astype(np.float64), axis=axes), dtype)
    x = np.array([[-np.inf] * 3, [np.inf, 1, 2], [np.nan, 1, np.inf], [-np.inf, np.nan, 0], [700, 1e4, -1e4]], dtype)
    want = np.array([-np.inf, np.inf, np.nan, np.nan, 1e4])
    np.testing.assert_array_equal(run("logsumexp", [x], [((5,), dtype)], {"axes": (1,)}), want)
    np.testing.assert_array_equal(run("logsumexp", [x.T], [((5,), dtype)], {"axes": (0,)}), want)


# ------------------------------------------------------------------------------------------------- along one axis


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("dtype", ALL)
def test_argmax(name, dtype):
    for shape in [(1,), (1037,), (2600,), (33, 257), (4, 33, 5), (3, 9, 600)]:
        x = draw(shape, dtype)
        candidates = [x, spoilt(shape, dtype), spoilt(shape, dtype, (0.0, -0.0, np.inf))] if dtype in FLOATS else [x]
        for v in candidates:
            want = getattr(np, name)(v)
            assert run(name, [v], [((), "int64")], {"axis": None}) == want
            for axis in range(len(shape)):
                got = run(name, [v], [(kept_shape(shape, (axis,)), "int64")], {"axis": axis})
                np.testing.assert_array_equal(got, getattr(np, name)(v, axis=axis))
    zeros = np.array([-0.0, 0.0, 0.0, -0.0]).astype(dtype)
    assert run(name, [zeros], [((), "int64")], {"axis": 0}) == 0


@pytest.mark.parametrize("dtype", ALL)
def test_cumsum(dtype):
    out = dtype if dtype in FLOATS else "int64"
    for shape in [(1,), (1037,), (33, 300), (4, 33, 5)]:
        x = draw(shape, dtype)
        for axis in range(len(shape)):
            got = run("cumsum", [x], [(shape, out)], {"axis": axis})
            close(got, np.cumsum(x, axis=axis, dtype=np.float64), dtype, 100)


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("descending", [False, True])
def test_argsort_is_stable_with_nan_last(dtype, descending):
    for shape in [(1,), (2,), (9,), (700,), (769,), (5000,), (7, 40), (4, 33, 5), (2, 900, 3)]:
        x = draw(shape, dtype)
        for v in [x] + ([np.round(x), spoilt(shape, dtype)] if dtype in FLOATS else []):
            for axis in range(len(shape)):
                got = run("argsort", [v], [(shape, "int64")], {"axis": axis, "descending": descending})
                key = v.astype(np.float64)
                key = np.where(np.isnan(key), np.inf, -key if descending else key)
                late = np.isnan(v) if dtype in FLOATS else np.zeros(shape)
                np.testing.assert_array_equal(got, np.lexsort((key, late), axis=axis))


@pytest.mark.parametrize("dtype", ["int32", "int64", "float64"])
def test_argsort_of_extremes(dtype):
    top, low = (np.inf, -np.inf) if dtype == "float64" else (np.iinfo(dtype).max, np.iinfo(dtype).min)
    for n in (10, 3000):
        x = np.array([top, low, -1, 0, 1, 255, 256, -256, low, top], dtype)[rng.integers(0, 10, n)]
        got = run("argsort", [x], [((n,), "int64")], {"axis": 0, "descending": False})
        np.testing.assert_array_equal(got, np.argsort(x, kind="stable"))
        down = run("argsort", [x], [((n,), "int64")], {"axis": 0, "descending": True})
        np.testing.assert_array_equal(x[down], np.sort(x)[::-1])


# ----------------------------------------------------------------------------------------------- softmax family


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(name, dtype):
    for shape in [(1,), (10,), (2100,), (33, 257), (5, 300), (4, 33, 5), (3, 1, 2)]:
        for spread in (1, 100):
            x = draw(shape, dtype, spread)
            for axis in range(len(shape)):
                got = run(name, [x], [(shape, dtype)], {"axis": axis})
                want = getattr(scipy.special, name)(x.astype(np.float64), axis=axis)
                close(got, want, dtype, spread)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_slope(name, dtype):
    for shape in [(1,), (10,), (2100,), (33, 257), (5, 300), (4, 33, 5), (3, 1, 2), (2, 40, 700)]:
        g = draw(shape, dtype)
        for axis in range(len(shape)):
            y = getattr(scipy.special, name)(draw(shape, dtype, 3).astype(np.float64), axis=axis).astype(dtype)
            got = run(f"{name}_slope", [g, y], [(shape, dtype)], {"axis": axis}, pieces=3)
            wide, slope = y.astype(np.float64), g.astype(np.float64)
            if name == "softmax":
                want = wide * (slope - (slope * wide).sum(axis, keepdims=True))
            else:
                want = slope - np.exp(wide) * slope.sum(axis, keepdims=True)
            close(got, want, dtype, 10)


@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax_slope_of_impossible_classes_and_nan(dtype):
    g = np.array([[1, 2, 3], [1, np.nan, 3]], dtype)
    y = np.array([[-np.inf, math.log(0.25), math.log(0.75)]] * 2, dtype)
    for n, (slope, out, attrs) in enumerate([(g, y, {"axis": 1}), (g.T, y.T, {"axis": 0})]):
        logs = run("log_softmax_slope", [slope, out], [(slope.shape, dtype)], attrs)
        shares = run("softmax_slope", [slope, np.exp(out)], [(slope.shape, dtype)], attrs)
        logs, shares = (logs, shares) if n == 0 else (logs.T, shares.T)
        np.testing.assert_allclose(logs[0], [1, 0.5, -1.5], rtol=1e-5)
        np.testing.assert_allclose(shares[0], [0, -0.1875, 0.1875], rtol=1e-5)
        assert np.isnan(logs[1]).all() and np.isnan(shares[1]).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_rows_with_infinities(name, dtype):
    inf, nan = np.inf, np.nan
    x = np.array([[-inf, -inf, -inf], [inf, 1, 2], [nan, 1, 2], [-inf, 0, 0], [1e30, 0, -1e30]], dtype)
    half = 0.5 if name == "softmax" else math.log(0.5)
    zero = 0.0 if name == "softmax" else -inf
    last = [1, 0, 0] if name == "softmax" else [0, -1e30, -2e30]
    want = np.array([[nan] * 3, [nan] * 3, [nan] * 3, [zero, half, half], last])
    for wide in (1, 20):  # 20: the vector part of the loops
        long = np.concatenate([x] + [np.full_like(x[:, :1], -inf)] * (wide - 1), axis=1)
        got = run(name, [long], [(long.shape, dtype)], {"axis": 1})
        across = run(name, [long.T], [(long.T.shape, dtype)], {"axis": 0})
        for result in (got, across.T):
            if name == "softmax":
                np.testing.assert_allclose(result[:, :3], want, rtol=1e-6)
            else:
                defined = [3, 4]  # where the rest is NaN, it need not be NaN throughout
                np.testing.assert_allclose(result[defined, :3], want[defined], rtol=1e-6)
                assert np.isnan(result[:3]).any(axis=1).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("index", ["int32", "int64"])
def test_cross_entropy(dtype, index):
    for n, c in [(1, 1), (37, 10), (5, 1500)]:
        x = draw((n, c), dtype, 10)
        target = rng.integers(0, c, n).astype(index)
        if n > 3:
            target[2] = -100
        got = run("cross_entropy", [x, target], [((n,), dtype)], {"ignore_index": -100})
        want = -scipy.special.log_softmax(x.astype(np.float64), axis=1)[np.arange(n), np.maximum(target, 0)]
        close(got, np.where(target == -100, 0, want), dtype, 10)
    for bad in (10, -1, -11, 2**31 - 1):
        status, _ = run_status(
            "cross_entropy",
            [np.zeros((3, 10), dtype), np.array([1, bad, 2], index)],
            [((3,), dtype)],
            {"ignore_index": -100},
        )
        assert status == INDEX


# ------------------------------------------------------------------------------------------------------- gather


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("index", ["int32", "int64"])
def test_take_and_its_adjoint(dtype, index):
    for shape in [(7,), (5, 3), (4, 33, 5), (50, 200)]:
        x = draw(shape, dtype)
        for axis, where in itertools.product(range(len(shape)), [(), (1,), (6, 4)]):
            size = shape[axis]
            i = rng.integers(-size, size, where).astype(index)
            taken = np.take(x, i, axis=axis)
            np.testing.assert_array_equal(run("take", [x, i], [(taken.shape, dtype)], {"axis": axis}), taken)
            want = np.zeros(shape, dtype)
            np.add.at(want, (slice(None),) * axis + (i,), taken)
            got = run("index_add", [taken, i], [(shape, dtype)], {"axis": axis, "size": size})
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("index", ["int32", "int64"])
def test_take_along_axis_and_its_adjoint(dtype, index):
    for shape in [(7,), (5, 3), (4, 33, 5), (9, 200)]:
        x = draw(shape, dtype)
        for axis, m in itertools.product(range(len(shape)), [1, 6]):
            size = shape[axis]
            i = rng.integers(-size, size, (*shape[:axis], m, *shape[axis + 1 :])).astype(index)
            taken = np.take_along_axis(x, i, axis)
            got = run("take_along_axis", [x, i], [(taken.shape, dtype)], {"axis": axis})
            np.testing.assert_array_equal(got, taken)
            want = np.zeros(shape, dtype)
            places = list(np.indices(i.shape))
            places[axis] = i
            np.add.at(want, tuple(places), taken)
            got = run("scatter_add", [taken, i], [(shape, dtype)], {"axis": axis, "size": size})
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_an_index_outside_stops():
    x = np.arange(12.0).reshape(3, 4)
    for bad in (3, -4, 2**40, -(2**63)):
        i = np.array([0, bad, 1])
        assert run_status("take", [x, i], [((3, 4), "float64")], {"axis": 0})[0] == INDEX
        assert run_status("index_add", [x, i], [((3, 4), "float64")], {"axis": 0, "size": 3})[0] == INDEX
        i = np.full((1, 4), bad)
        assert run_status("take_along_axis", [x, i], [((1, 4), "float64")], {"axis": 0})[0] == INDEX
        status, _ = run_status("scatter_add", [x[:1], i], [((3, 4), "float64")], {"axis": 0, "size": 3})
        assert status == INDEX


def test_adding_nothing_gives_zeros():
    i = np.empty(0, np.int64)
    assert not run("index_add", [np.empty((0, 4), np.float32), i], [((3, 4), "float32")], {"axis": 0, "size": 3}).any()
    got = run("scatter_add", [np.empty((0, 4)), np.empty((0, 4), int)], [((3, 4), "float64")], {"axis": 0, "size": 3})
    assert not got.any()


def test_nonzero():
    for n in (1, 2, 1000):
        mask = rng.random(n) < 0.3
        places, count = run("nonzero_flat", [mask], [((n,), "int64"), ((1,), "int64")])
        assert places[: count[0]].tolist() == np.flatnonzero(mask).tolist()
    assert run("nonzero_flat", [np.empty(0, bool)], [((0,), "int64"), ((1,), "int64")])[1] == 0


# --------------------------------------------------------------------------------------------------------- fill


@pytest.mark.parametrize("dtype", ALL)
def test_full_and_arange(dtype):
    value = draw((), dtype)
    assert (run("full", [value], [((3, 41), dtype)]) == value).all()
    if dtype != "bool":
        start, step = np.array(3).astype(dtype), np.array(2).astype(dtype)
        want = np.arange(3, 157, 2).astype(dtype)
        np.testing.assert_array_equal(run("arange", [start, step], [((77,), dtype)]), want)


def test_arange_does_not_accumulate():
    start, step = np.array(0.1, np.float32), np.array(0.1, np.float32)
    want = (np.float64(start) + np.arange(100_000) * np.float64(step)).astype(np.float32)
    np.testing.assert_allclose(run("arange", [start, step], [((100_000,), "float32")]), want, rtol=1.2e-7)


def test_tri_and_eye():
    for n, m, k in itertools.product((1, 5), (1, 3, 40), (-6, -1, 0, 2, 50)):
        np.testing.assert_array_equal(run("tri", [], [((n, m), "bool")], {"k": k}), np.tri(n, m, k, bool))
        for dtype in ("float32", "int64", "bool"):
            np.testing.assert_array_equal(run("eye", [], [((n, m), dtype)], {"k": k}), np.eye(n, m, k, dtype))


@pytest.mark.parametrize("dtype", ALL)
def test_concatenate(dtype):
    for shape in [(7,), (5, 3), (4, 3, 5), (40_000,)]:
        for axis in range(len(shape)):
            parts = [draw((*shape[:axis], n, *shape[axis + 1 :]), dtype) for n in (3, 0, shape[axis], 1)]
            want = np.concatenate(parts, axis=axis)
            np.testing.assert_array_equal(run("concatenate", parts, [(want.shape, dtype)], {"axis": axis}, 3), want)


@pytest.mark.parametrize("dtype", ALL)
def test_pad(dtype):
    value = draw((), dtype)
    shapes = [(), (5,), (4, 3), (2, 3, 4), (0, 3), (2, 0, 2), (2, 2, 1, 2, 3), (2, 3, 2, 2, 2, 2, 2)]
    for shape in shapes:
        for _ in range(6):
            pads = tuple(tuple(p) for p in rng.integers(0, 3, (len(shape), 2)).tolist())
            pads = tuple((0, 0) if len(shape) > 5 and i in (0, 3, 5) else p for i, p in enumerate(pads))
            want = np.pad(draw(shape, dtype), pads, constant_values=value) if shape else draw(shape, dtype)
            x = want[tuple(slice(b, b + n) for n, (b, _) in zip(shape, pads, strict=True))]
            if want.size:
                got = run("pad", [x, value], [(want.shape, dtype)], {"pads": pads})
                np.testing.assert_array_equal(got, want)
    with pytest.raises(ShapeError, match="pad in two calls"):
        run("pad", [np.zeros((1,) * 6), np.zeros(())], [((3,) * 6, "float64")], {"pads": ((1, 1),) * 6})


# ---------------------------------------------------------------------------------------------------- splitting

x3 = draw((6, 70, 600), "float32")
SPLIT = [
    ("sum", [x3], [((6, 70), "float32")], {"axes": (2,)}),
    ("sum", [x3], [((70, 600), "float32")], {"axes": (0,)}),
    ("sum", [x3], [((6, 600), "float32")], {"axes": (1,)}),
    ("sum", [x3], [((70,), "float32")], {"axes": (0, 2)}),
    ("max", [x3], [((6, 600), "float32")], {"axes": (1,)}),
    ("any", [x3], [((6, 70), "bool")], {"axes": (2,)}),
    ("logsumexp", [x3], [((6, 600), "float32")], {"axes": (1,)}),
    ("logsumexp", [x3], [((6, 70), "float32")], {"axes": (2,)}),
    ("argmax", [x3], [((6, 600), "int64")], {"axis": 1}),
    ("cumsum", [x3], [(x3.shape, "float32")], {"axis": 1}),
    ("softmax", [x3], [(x3.shape, "float32")], {"axis": 2}),
    ("softmax", [x3], [(x3.shape, "float32")], {"axis": 1}),
    ("log_softmax", [x3], [(x3.shape, "float32")], {"axis": 0}),
    ("softmax_slope", [x3, x3], [(x3.shape, "float32")], {"axis": 2}),
    ("softmax_slope", [x3, x3], [(x3.shape, "float32")], {"axis": 1}),
    ("log_softmax_slope", [x3, x3], [(x3.shape, "float32")], {"axis": 2}),
    ("log_softmax_slope", [x3, x3], [(x3.shape, "float32")], {"axis": 0}),
    ("argsort", [x3], [(x3.shape, "int64")], {"axis": 2, "descending": False}),
    ("cross_entropy", [x3[0], rng.integers(0, 600, 70)], [((70,), "float32")], {"ignore_index": -100}),
    ("take", [x3, rng.integers(0, 70, 33)], [((6, 33, 600), "float32")], {"axis": 1}),
    ("index_add", [x3, rng.integers(0, 9, 70)], [((6, 9, 600), "float32")], {"axis": 1, "size": 9}),
    ("index_add", [x3[0], rng.integers(0, 9, 70)], [((9, 600), "float32")], {"axis": 0, "size": 9}),
    ("take_along_axis", [x3, rng.integers(0, 70, x3.shape)], [(x3.shape, "float32")], {"axis": 1}),
    ("scatter_add", [x3, rng.integers(0, 9, x3.shape)], [((6, 9, 600), "float32")], {"axis": 1, "size": 9}),
    ("full", [np.float32(2)], [((999,), "float32")], {}),
    ("arange", [np.float32(2), np.float32(0.3)], [((999,), "float32")], {}),
    ("tri", [], [((33, 20), "bool")], {"k": 1}),
    ("eye", [], [((33, 20), "float64")], {"k": 1}),
    ("pad", [x3, np.float32(1)], [((8, 73, 600), "float32")], {"pads": ((1, 1), (3, 0), (0, 0))}),
]


@pytest.mark.parametrize("case", SPLIT, ids=lambda c: f"{c[0]}-{c[3]}")
def test_pieces_give_the_same_bits(case):
    whole = run(*case)
    for pieces in (2, 7):
        np.testing.assert_array_equal(run(*case, pieces=pieces), whole)
