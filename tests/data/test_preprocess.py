"""Preprocessing: fitted on training data, applied to others, undone, saved."""

from __future__ import annotations

import numpy as np
import pytest

import tapegrad as tg
from tapegrad import data
from tapegrad.data import preprocess as pre
from tapegrad.data.preprocess.augment import rotated
from tapegrad.errors import DataError

# scaling


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int64])
@pytest.mark.parametrize("axis", [0, None, (0, 2)])
def test_standardize_against_numpy(rng, dtype, axis):
    x = (rng.standard_normal((50, 3, 4)) * 20 + 100).astype(dtype)
    scaler = pre.Standardize(axis=axis)
    y = scaler.fit_transform(x)
    assert y.dtype == (np.float64 if dtype == np.float64 else np.float32)
    wide = x.astype(np.float64)
    wanted = (wide - wide.mean(axis=axis, keepdims=True)) / wide.std(axis=axis, keepdims=True)
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(y, wanted, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(scaler.inverse_transform(y), wide, rtol=1e-4 if y.dtype == np.float32 else 1e-12)


def test_partial_fit_is_fit(rng, monkeypatch):
    x = rng.standard_normal((1000, 3)) * [1, 100, 1e-3] + [0, 1e4, 5]
    whole = pre.Standardize().fit(x)
    parts = pre.Standardize()
    for start in range(0, 1000, 77):
        parts.partial_fit(x[start : start + 77])
    np.testing.assert_allclose(parts.std, x.std(axis=0, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-13, atol=1e-13)
    low = pre.Normalize()
    for start in range(0, 1000, 77):
        low.partial_fit(x[start : start + 77])
    assert np.array_equal(low.transform(x), pre.Normalize().fit_transform(x))
    monkeypatch.setattr("tapegrad.data.preprocess.scaling.CHUNK", 10)
    np.testing.assert_allclose(pre.Standardize().fit(x).std, whole.std, rtol=1e-12)


def test_normalize(rng):
    x = rng.standard_normal((40, 3))
    y = pre.Normalize(-1, 2).fit_transform(x)
    np.testing.assert_allclose(y.min(axis=0), -1, rtol=1e-12)
    np.testing.assert_allclose(y.max(axis=0), 2, rtol=1e-12)
    scaler = pre.Normalize(axis=None).fit(np.array([[0, 50], [100, 200]], np.uint8))
    assert scaler.transform(np.array([[100, 200]], np.uint8)).tolist() == [[0.5, 1.0]]
    assert scaler.transform(np.array([[300, -100]])).tolist() == [[1.5, -0.5]]
    assert pre.Normalize(clip=True).fit([[0.0], [1.0]]).transform([[5.0], [-5.0]]).tolist() == [[1], [0]]
    np.testing.assert_allclose(scaler.inverse_transform(scaler.transform([[10.0, 20.0]])), [[10, 20]])


def test_constant_features():
    x = np.full((5, 2), 0.1)
    assert pre.Standardize().fit_transform(x).tolist() == [[0, 0]] * 5
    assert pre.Normalize(-1, 1).fit_transform(x).tolist() == [[-1, -1]] * 5


def test_fitted_on_training_data_only(rng):
    train, test = rng.standard_normal((50, 2)), rng.standard_normal((50, 2)) + 3
    scaler = pre.Standardize().fit(train)
    before = scaler.state_dict()["learned"]["mean"].copy()
    np.testing.assert_allclose(
        scaler.transform(test).mean(axis=0), ((test - train.mean(0)) / train.std(0)).mean(axis=0)
    )
    assert np.array_equal(scaler.state_dict()["learned"]["mean"], before)


def test_values_that_are_not_finite():
    x = np.array([[1.0, 2.0], [np.nan, 4.0], [3.0, 6.0]])
    with pytest.raises(DataError, match="1 values are not finite; the first, NaN, is sample 1, feature 0.*Impute"):
        pre.Standardize().fit(x)
    with pytest.raises(DataError, match="the first, infinite, is sample 0"):
        pre.Normalize(missing="ignore").fit([[np.inf]])
    y = pre.Standardize(missing="ignore").fit_transform(x)
    np.testing.assert_allclose(y[:, 0], [-1, np.nan, 1])
    z = pre.Normalize(missing="ignore").fit_transform(x)
    np.testing.assert_allclose(z[:, 0], [0, np.nan, 1])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: pre.Standardize().transform([[1.0]]), "Standardize is not fitted: call fit"),
        (lambda: pre.OneHot().transform(["a"]), "OneHot is not fitted"),
        (lambda: pre.Impute().transform([1.0]), "Impute is not fitted"),
        (lambda: pre.Standardize().fit(np.zeros((0, 2))), "no sample came"),
        (lambda: pre.Standardize().fit(["a"]), "<U1 came; wanted are numbers"),
        (lambda: pre.Standardize().fit(1.0), "a single value came"),
        (lambda: pre.Standardize(axis=1), "it must hold 0"),
        (lambda: pre.Standardize(missing="x"), "missing is 'x'"),
        (lambda: pre.Normalize(1, 1), "low must be below high"),
        (
            lambda: pre.Standardize().fit(np.eye(3)).transform(np.eye(2)),
            r"samples of shape \(2,\) came, and it was fitted on ones that fit \(3,\)",
        ),
        (lambda: pre.Window(2).inverse_transform([[1]]), "Window: what it does cannot be undone"),
    ],
)
def test_wrong_use(call, sentence):
    with pytest.raises(DataError, match=sentence):
        call()


# categories


def test_categories():
    colours = pre.Categories().fit(["red", "blue", "green", "red"])
    assert colours.classes == ["blue", "green", "red"] and len(colours) == 3
    codes = colours.transform(np.array([["red", "blue"], ["green", "green"]]))
    assert codes.tolist() == [[2, 0], [1, 1]] and codes.dtype == np.int64
    assert colours.inverse_transform(codes).tolist() == [["red", "blue"], ["green", "green"]]
    sizes = pre.Categories(order=["small", "large"]).fit(["large", "small"])
    assert sizes.transform(["small", "large"]).tolist() == [0, 1]
    numbers = pre.Categories().fit([30, 10, 20])
    assert numbers.transform([10, 30]).tolist() == [0, 2]
    objects = pre.Categories().fit(np.array(["b", "a"], dtype=object))
    assert objects.transform(np.array(["a", "b"], dtype=object)).tolist() == [0, 1]


def test_unknown_categories():
    fitted = pre.Categories().fit(["red", "blue"])
    with pytest.raises(DataError, match="'rad', sample 1, is not among the 2 categories.*Did you mean red.*policy"):
        fitted.transform(["blue", "rad", "red"])
    other = pre.Categories(unknown="other").fit(["red", "blue"])
    assert other.transform(["zebra", "red", "a"]).tolist() == [2, 1, 2] and len(other) == 3
    one_hot = pre.OneHot(unknown="ignore").fit(["red", "blue"])
    assert one_hot.transform(["zebra", "red"]).tolist() == [[0, 0], [0, 1]]
    with pytest.raises(DataError, match="'zebra', sample 0"):
        pre.OneHot().fit(["red"]).transform(["zebra"])
    with pytest.raises(DataError, match="int64 came, and it was fitted on <U4"):
        fitted.transform([1])


def test_one_hot():
    one_hot = pre.OneHot().fit([7, 3, 7, 5])
    vectors = one_hot.transform([3, 7, 5])
    assert vectors.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]] and vectors.dtype == np.float32
    assert one_hot.inverse_transform(vectors * 0.3 + 0.1).tolist() == [3, 7, 5]
    with pytest.raises(DataError, match="vectors of 2 entries came, and there are 3"):
        one_hot.inverse_transform(np.eye(2))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: pre.Categories().fit([1.0, np.nan]), "NaN is no category"),
        (lambda: pre.Categories().fit(np.array(["a", None], dtype=object)), "Python objects came"),
        (lambda: pre.Categories().fit([]), "no sample came"),
        (lambda: pre.Categories(order=["a"]).fit(["b"]), "'b' is not among the order"),
        (lambda: pre.Categories(order=["a", "a"]).fit(["a"]), "stands twice"),
        (lambda: pre.Categories(unknown="ignore"), "wanted is 'error' or 'other'"),
        (lambda: pre.OneHot(unknown="other"), "wanted is 'error' or 'ignore'"),
        (lambda: pre.Categories().fit(["a"]).inverse_transform([1]), "codes are whole numbers from 0 to 0"),
    ],
)
def test_categories_that_are_refused(call, sentence):
    with pytest.raises(DataError, match=sentence):
        call()


# gaps


def test_impute():
    x = np.array([[1.0, np.nan], [3.0, 10.0], [np.nan, 10.0], [5.0, 40.0]], np.float32)
    for strategy, wanted in (("mean", [3, 20]), ("median", [3, 10]), ("most_frequent", [1, 10])):
        y = pre.Impute(strategy).fit_transform(x)
        assert [y[2, 0], y[0, 1]] == wanted and y.dtype == np.float32
        assert np.array_equal(y[~np.isnan(x)], x[~np.isnan(x)])
    assert pre.Impute("constant", -1.0).fit_transform(x)[2, 0] == -1
    assert np.isnan(x[2, 0])  # the data stay as they were
    assert pre.Impute("most_frequent").fit_transform(["a", "", "b", "b"]).tolist() == ["a", "b", "b", "b"]
    assert pre.Impute("constant", "?").fit_transform(["a", ""]).tolist() == ["a", "?"]
    assert pre.Impute().fit([[1], [2]]).transform([[5]]).tolist() == [[5]]
    with pytest.raises(DataError, match="feature 1 has no value"):
        pre.Impute().fit([[1.0, np.nan]])
    with pytest.raises(DataError, match="texts have no mean"):
        pre.Impute().fit(["a"])
    with pytest.raises(DataError, match="wanted is one of mean"):
        pre.Impute("mode")
    with pytest.raises(DataError, match="a value goes with"):
        pre.Impute("constant")
    with pytest.raises(DataError, match="it was fitted on ones of"):
        pre.Impute().fit(x).transform([[1.0]])
    with pytest.raises(DataError, match="it was fitted on numbers"):
        pre.Impute().fit(x).transform(["a"])


# layout


def test_layout(rng):
    x = rng.standard_normal((4, 2, 3, 5))
    permute = pre.Permute(3, 1, 2)
    assert np.array_equal(permute.transform(x), x.transpose(0, 3, 1, 2))
    assert np.array_equal(permute.inverse_transform(permute.transform(x)), x)
    shuffle = pre.Shuffle(seed=3)
    y = shuffle.transform(x)
    assert y.shape == x.shape and not np.array_equal(y, x)
    assert np.array_equal(np.sort(y.reshape(4, -1)), np.sort(x.reshape(4, -1)))
    assert np.array_equal(y[:1], pre.Shuffle(seed=3).transform(x[:1]))  # the same for every sample
    assert np.array_equal(shuffle.inverse_transform(y), x)
    windows = pre.Window(3, step=2).transform(np.arange(14).reshape(7, 2))
    assert windows.shape == (3, 3, 2) and windows[1].tolist() == [[4, 5], [6, 7], [8, 9]]
    for call, sentence in [
        (lambda: pre.Permute(1, 1), "each of 1 to 2 once"),
        (lambda: permute.transform(np.zeros((2, 3))), "has 1 axes behind the samples, not 3"),
        (lambda: pre.Window(0), "both are from 1"),
        (lambda: pre.Window(5).transform(np.arange(4)), "has 4 values, and a window 5"),
    ]:
        with pytest.raises(DataError, match=sentence):
            call()


# augmentations

AUGMENTATIONS = {
    "flip": lambda: pre.RandomFlip(vertical=True, seed=1),
    "crop": lambda: pre.RandomCrop(padding=2, seed=1),
    "rotate": lambda: pre.RandomRotate(30, seed=1),
    "noise": lambda: pre.GaussianNoise(0.1, seed=1),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_are_seeded(name, rng):
    x = rng.random((6, 3, 8, 8), np.float32)
    kept = x.copy()
    one, two = AUGMENTATIONS[name](), AUGMENTATIONS[name]()
    first, second = one.transform(x), one.transform(x)
    assert first.shape == x.shape and first.dtype == x.dtype
    assert not np.array_equal(first, second) and np.array_equal(x, kept)
    assert np.array_equal(two.transform(x), first)
    three = pre.restore(two.state_dict())  # which has drawn once
    assert np.array_equal(three.transform(x), second)
    drawn = [one.transform(x, np.random.default_rng(5)) for _ in range(2)]
    assert np.array_equal(*drawn)


def test_what_augmentations_do(rng):
    x = rng.random((200, 1, 5, 5)).astype(np.float32)
    flipped = pre.RandomFlip().transform(x)
    is_flipped = np.array([np.array_equal(a, b[:, :, ::-1]) for a, b in zip(flipped, x)])
    is_same = np.array([np.array_equal(a, b) for a, b in zip(flipped, x)])
    assert (is_flipped ^ is_same).all() and 60 < is_flipped.sum() < 140
    both = pre.RandomFlip(horizontal=False, vertical=True, probability=1.0).transform(x)
    assert np.array_equal(both, x[:, :, ::-1])
    cut = pre.RandomCrop(size=(3, 4)).transform(x)
    places = set()
    for small, large in zip(cut, x):
        found = [(i, j) for i in range(3) for j in range(2) if np.array_equal(small, large[:, i : i + 3, j : j + 4])]
        places.update(found)
        assert len(found) == 1
    assert len(places) == 6  # every place occurs
    moved = pre.RandomCrop(padding=1).transform(np.ones((50, 1, 3, 3)))
    assert {float(m.sum()) for m in moved} == {4.0, 6.0, 9.0}
    noisy = pre.GaussianNoise(0.5).transform(np.zeros((100, 1, 20, 20), np.float32))
    assert abs(noisy.std() - 0.5) < 0.01 and abs(noisy.mean()) < 0.01


def test_rotation():
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    for quarters in range(4):
        turned = rotated(x, np.array([quarters * np.pi / 2]))
        np.testing.assert_allclose(turned[0, 0], np.rot90(x[0, 0], quarters), atol=1e-12)
    whole = rotated(np.full((1, 1, 9, 9), 200, np.uint8), np.array([0.3]))
    assert whole.dtype == np.uint8 and whole[0, 0, 4, 4] == 200
    # a plane keeps its slope: linear interpolation is exact on it
    y, z = np.mgrid[:21, :21] - 10.0
    plane = rotated((2 * z + 3 * y)[None, None], np.array([0.4]))[0, 0]
    cos, sin = np.cos(0.4), np.sin(0.4)
    wanted = 2 * (cos * z - sin * y) + 3 * (sin * z + cos * y)
    np.testing.assert_allclose(plane[5:16, 5:16], wanted[5:16, 5:16], atol=1e-12)


def test_augmentations_that_are_refused():
    for call, sentence in [
        (lambda: pre.RandomFlip().transform(np.zeros((3, 4))), r"wanted are images \(N, C, H, W\)"),
        (lambda: pre.RandomCrop(), "give a padding from 1, a size, or both"),
        (lambda: pre.RandomCrop(size=(9, 9)).transform(np.zeros((1, 1, 8, 8))), "have no part of"),
        (lambda: pre.GaussianNoise().transform(np.zeros((1, 1, 2, 2), np.uint8)), "wanted are floating images"),
    ]:
        with pytest.raises(DataError, match=sentence):
            call()


# pipelines and saving


def test_pipeline_fits_each_step_on_what_came_before():
    x = np.array([[1.0], [np.nan], [3.0], [2.0]])
    pipeline = pre.Pipeline([pre.Impute(), pre.Standardize(), pre.Normalize(0, 10)])
    y = pipeline.fit_transform(x)
    assert np.array_equal(y, pipeline.transform(x))
    np.testing.assert_allclose(y[:, 0], [0, 5, 10, 5])
    scale = pre.Pipeline([pre.Standardize(), pre.Normalize()]).fit([[1.0], [5.0]])
    np.testing.assert_allclose(scale.inverse_transform(scale.transform([[2.0]])), [[2.0]])


def fitted():
    """One of each kind with its training data."""
    x = np.array([[1.0, 2.0], [3.0, np.nan], [5.0, 7.0]])
    images = np.arange(2.0 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    return {
        "standardize": (pre.Standardize(missing="ignore"), x),
        "normalize": (pre.Normalize(-1, 1, axis=None, clip=True, missing="ignore"), x),
        "impute": (pre.Impute("median"), x),
        "impute text": (pre.Impute("most_frequent"), np.array(["a", "", "a"])),
        "categories": (pre.Categories(unknown="other"), np.array(["b", "a"])),
        "categories of numbers": (pre.Categories(), np.array([30, 10])),
        "one-hot": (pre.OneHot(unknown="ignore", order=["b", "a"]), np.array(["b", "a"])),
        "permute": (pre.Permute(2, 3, 1), images),
        "shuffle": (pre.Shuffle(4), images),
        "window": (pre.Window(2), x),
        "flip": (pre.RandomFlip(seed=2), images),
        "crop": (pre.RandomCrop(1, (3, 3), seed=2), images),
        "rotate": (pre.RandomRotate(10, seed=2), images),
        "noise": (pre.GaussianNoise(0.2, seed=2), images),
        "pipeline": (pre.Pipeline([pre.Impute(), pre.Standardize()]), x),
        "by field": (
            pre.ByField({"x": pre.Pipeline([pre.Impute(), pre.Normalize()]), "t": pre.OneHot()}),
            {"x": x, "t": np.array(["a", "b", "a"]), "other": np.arange(3)},
        ),
    }


def equal(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def test_every_kind_is_tried():
    tried = {type(t).__name__ for t, _ in fitted().values()}
    assert tried == {name for name in pre.__all__ if name not in ("Augmentation", "Transform", "restore")}


@pytest.mark.parametrize("name", fitted())
def test_saved_with_a_model(tmp_path, name):
    """What comes back from a file, into the same object or without it, does the same, bit by bit."""
    transform, x = fitted()[name]
    transform.fit(x)
    tg.save(tmp_path / "a.safetensors", {"model": {}, "preprocessing": transform.state_dict()})
    wanted = transform.transform(x)
    state = tg.load(tmp_path / "a.safetensors")["preprocessing"]
    assert equal(pre.restore(state).transform(x), wanted)
    other = fitted()[name][0]
    other.load_state_dict(state)
    assert equal(other.transform(x), wanted)
    assert repr(other) == repr(transform)


def test_states_that_do_not_fit():
    state = pre.Standardize().fit([[1.0], [2.0]]).state_dict()
    with pytest.raises(DataError, match="Normalize: what was saved is a Standardize"):
        pre.Normalize().load_state_dict(state)
    with pytest.raises(DataError, match="Pipeline: what was saved is a Standardize"):
        pre.Pipeline([pre.Standardize()]).load_state_dict(state)
    two = pre.Pipeline([pre.Impute(), pre.Standardize()]).fit([[1.0], [2.0]]).state_dict()
    with pytest.raises(DataError, match="2 steps were saved, and this one has 1"):
        pre.Pipeline([pre.Standardize()]).load_state_dict(two)
    fields = pre.ByField({"x": pre.Standardize()})
    with pytest.raises(DataError, match=r"fields \['x'\] were saved, and this one has \['y'\]"):
        pre.ByField({"y": pre.Standardize()}).load_state_dict(fields.state_dict())
    with pytest.raises(DataError, match="there is no transformation 'Sort'"):
        pre.restore({"kind": "Sort"})


def test_by_field():
    x, y = np.array([[1.0], [3.0]]), np.array(["a", "b"])
    both = pre.ByField({0: pre.Standardize(), 1: pre.Categories()}).fit((x, y))
    a, b = both.transform((x, y))
    assert a.tolist() == [[-1], [1]] and b.tolist() == [0, 1]
    dataset = both.transform(data.ArrayDataset(x, y))
    assert isinstance(dataset, data.ArrayDataset) and dataset[1][1] == 1
    back = both.inverse_transform((a, b))
    assert np.array_equal(back[0], x) and back[1].tolist() == ["a", "b"]
    table = pre.ByField({"t": pre.Categories()}).fit_transform(data.Table({"t": y, "x": x[:, 0]}))
    assert table["t"].tolist() == [0, 1] and table.columns == ("t", "x")
    with pytest.raises(DataError, match="there is no field 'z'"):
        pre.ByField({"z": pre.Standardize()}).fit({"x": x})
    with pytest.raises(DataError, match="a ndarray has no fields"):
        pre.ByField({"z": pre.Standardize()}).fit(x)
    with pytest.raises(DataError, match="wanted is a transformation"):
        pre.ByField({"z": np.log})
    with pytest.raises(DataError, match="wanted are one or more"):
        pre.Pipeline([])
