"""Square brackets mean what they mean in NumPy, for values, gradients and assignments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tapegrad as tg
from tapegrad.errors import DtypeError, IndexOutOfRange, ShapeError, TapegradError


@st.composite
def keyed(draw):
    """A shape and a key that fits it: ints, slices, None, `...`, integer arrays that broadcast together, masks."""
    shape = tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=4)))
    common = draw(st.sampled_from([(), (2,), (3,), (2, 3), (1, 2)]))
    key: list = []
    axis, dots = 0, False
    masked = False
    while axis < len(shape) and draw(st.integers(0, 9)) > 0:
        n = shape[axis]
        kinds = ["slice", "slice", "none"]
        if n:
            kinds += ["int", "array", "array"]
        if not dots:
            kinds.append("dots")
        if not masked:
            kinds.append("mask")
        kind = draw(st.sampled_from(kinds))
        if kind == "none":
            key.append(None)
            if sum(k is None for k in key) > 2:
                break
            continue
        if kind == "dots":
            dots = True
            key.append(Ellipsis)
            axis += draw(st.integers(0, len(shape) - axis))
            # what follows `...` must be counted from the end: fill the rest with one item per axis
            for m in shape[axis:]:
                key.append(draw(slices(m)) if m == 0 or draw(st.booleans()) else draw(st.integers(-m, m - 1)))
            break
        if kind == "slice":
            key.append(draw(slices(n)))
        elif kind == "int":
            key.append(draw(st.integers(-n, n - 1)))
        elif kind == "mask":
            masked = True
            key.append(np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=bool))
            if common != (1, 2):
                common = (int(key[-1].sum()),)
        else:
            cut = common[draw(st.integers(0, len(common))) :]
            count = int(np.prod(cut, dtype=int))
            key.append(
                np.array(
                    draw(st.lists(st.integers(-n, n - 1), min_size=count, max_size=count)), dtype=np.int64
                ).reshape(cut)
            )
        axis += 1
    return shape, tuple(key)


def slices(n: int):
    end = st.none() | st.integers(-n - 2, n + 2)
    return st.builds(slice, end, end, st.sampled_from([None, 1, 2, 3, -1, -2]))


def numpy_says(x: np.ndarray, key):
    try:
        return x[key]
    except IndexError:
        return None


@settings(max_examples=400)
@given(keyed())
@example(((3, 4, 2), (0, slice(None), np.array([1, 0]))))
@example(((3, 4, 2), (np.array([[2], [0]]), None, 1)))
@example(((2, 3, 4), (slice(None), np.array([True, False, True]), np.array([1, -1]))))
@example(((2, 3), (np.array(1), slice(None))))
@example(((2, 3, 4), (0, np.array([1, 2]))))
@example(((2, 3, 4), (np.array([1, 0]), 0)))
@example(((2, 3, 4), (np.array([1, 0]), Ellipsis, np.array([3, 0]))))
@example(((2, 3, 4), (0, Ellipsis, np.array([3, 0]))))
@example(((2, 3, 4), (Ellipsis, 0, np.array([3, 0]))))
@example(((2, 0), (np.array([0, 1]),)))
@example(((4,), (slice(None, None, -2),)))
def test_random_keys_like_numpy(case):
    shape, key = case
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float64).reshape(shape) + 1
    wanted = numpy_says(values, key)
    x = tg.tensor(values, requires_grad=True)
    if wanted is None:
        with pytest.raises(TapegradError):
            x[key]
        return
    got = x[key]
    assert got.shape == np.shape(wanted)
    np.testing.assert_array_equal(got.numpy(), wanted)
    as_tensors = tuple(tg.tensor(k) if isinstance(k, np.ndarray) else k for k in key)
    np.testing.assert_array_equal(x[as_tensors].numpy(), wanted)

    weights = np.arange(1.0, 1.0 + np.size(wanted)).reshape(np.shape(wanted))
    (got * tg.tensor(weights)).sum().backward()
    slope = np.zeros(shape)
    np.add.at(slope, key, weights)
    assert x.grad.shape == shape
    np.testing.assert_array_equal(x.grad.numpy(), slope)


@settings(max_examples=200)
@given(keyed(), st.booleans())
def test_random_assignments_like_numpy(case, scalar):
    shape, key = case
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float64).reshape(shape)
    wanted = values.copy()
    part = numpy_says(values, key)
    x = tg.tensor(values)
    if part is None:
        with pytest.raises(TapegradError):
            x[key] = 1.0
        return
    new = -1.5 if scalar else -np.arange(1.0, 1.0 + np.size(part)).reshape(np.shape(part))
    wanted[key] = new
    x[key] = new if scalar else tg.tensor(new)
    np.testing.assert_array_equal(x.numpy(), wanted)


@pytest.mark.parametrize(
    "key",
    [
        0,
        -1,
        np.int64(1),
        slice(1, 3),
        ...,
        None,
        (),
        [0, 2],
        [[0, 1], [2, 2]],
        (..., 0),
        (None, 0, ..., None),
        (0, 1, 2),
        ([0, 1], [1, 2]),
        (slice(None), [0, 2]),
        range(2),
        [True, False, True],
        np.array([], dtype=int),
        [],
        (slice(None), []),
        (slice(3, 0, -1), slice(None, None, -1)),
        slice(5, 9),
        slice(-100, 100),
        np.zeros((3, 4, 5), bool),
        np.ones((3, 4, 5), bool),
        np.ones((3, 4), bool),
        (0, np.ones((4, 5), bool)),
        np.array([1, 2], np.uint8),
        np.array([-1, 2], np.int32),
        np.array([-1, 2], np.int8),
        np.array(2),
        (np.array(0), np.array(1)),
    ],
    ids=repr,
)
def test_keys_like_numpy(key):
    values = np.arange(60.0).reshape(3, 4, 5)
    wanted = values[list(key) if isinstance(key, range) else key]
    x = tg.tensor(values, requires_grad=True)
    got = x[key]
    assert got.shape == wanted.shape
    np.testing.assert_array_equal(got.numpy(), wanted)
    got.sum().backward()
    slope = np.zeros(values.shape)
    np.add.at(slope, list(key) if isinstance(key, range) else key, 1.0)
    np.testing.assert_array_equal(x.grad.numpy(), slope)


@pytest.mark.parametrize(
    ("key", "error", "says"),
    [
        (3, IndexOutOfRange, "3 is out of range for axis 0 with 3 elements"),
        (-4, IndexOutOfRange, "-4 is out of range for axis 0"),
        ((0, 4), IndexOutOfRange, "4 is out of range for axis 1 with 4 elements"),
        ((0, 0, 0), IndexOutOfRange, "3 indices for a tensor of 2 axes"),
        (2**70, IndexOutOfRange, "out of range"),
        ([0, 3], IndexOutOfRange, "Indices from 0 to 3 came|out of range"),
        ([0, -4], IndexOutOfRange, "Indices from -4 to 0 came|out of range"),
        (([0, 1], [0, 4]), IndexOutOfRange, "out of range for axis 1"),
        (([0, 1], [0, -5]), IndexOutOfRange, "out of range for axis 1"),
        (([0, 1, 2], [0, 1]), ShapeError, "do not broadcast"),
        ((..., ...), ShapeError, "may stand once"),
        (1.0, DtypeError, "index"),
        ([1.5], DtypeError, "must hold integers, not float32"),
        ("name", TapegradError, "index"),
        (True, DtypeError, "a single True or False"),
        (slice(0.5, None), DtypeError, "not an integer"),
        (slice(None, None, 0), ShapeError, "step"),
        (np.ones(4, bool), IndexOutOfRange, "mask of shape"),
        (np.ones((3, 3), bool), IndexOutOfRange, "mask"),
        (np.ones((1, 4), bool), IndexOutOfRange, "mask"),
        (np.ones(1, bool), IndexOutOfRange, "mask"),
        (np.ones((3, 4, 1), bool), IndexOutOfRange, "mask|indices"),
        ({}, TapegradError, "index"),
        (complex(1, 2), TapegradError, "index"),
        ([[0], [1, 2]], ShapeError, "ragged"),
    ],
    ids=repr,
)
def test_wrong_keys(key, error, says):
    x = tg.zeros((3, 4))
    with pytest.raises(error, match=says):
        x[key].numpy()
    with pytest.raises(error, match=says):
        x[key] = 1.0


def test_a_number_cannot_be_indexed():
    x = tg.tensor(1.0)
    with pytest.raises(IndexOutOfRange, match="1 indices for a tensor of 0 axes"):
        x[0]
    assert x[()].item() == x[...].item() == 1.0
    assert x[None].shape == (1,)


def test_views_see_writes_and_copies_do_not():
    x = tg.tensor([[1.0, 2.0], [3.0, 4.0]])
    view, taken = x[0], x[[0]]
    x[0, 0] = 10.0
    assert view.tolist() == [10.0, 2.0] and taken.tolist() == [[1.0, 2.0]]
    view[1] = 20.0
    assert x.tolist() == [[10.0, 20.0], [3.0, 4.0]]


def test_assignment_converts_and_broadcasts():
    x = tg.zeros((2, 3), dtype=tg.int64)
    x[:, 1] = 2.9
    assert x.tolist() == [[0, 2, 0], [0, 2, 0]]
    x[...] = [1, 2, 3]
    assert x.tolist() == [[1, 2, 3], [1, 2, 3]]
    x[x > 2] = -1
    assert x.tolist() == [[1, 2, -1], [1, 2, -1]]
    x[x < 0] = [7, 8]
    assert x.tolist() == [[1, 2, 7], [1, 2, 8]]
    x[[0, 0], [1, 1]] = [5, 6]
    assert x.tolist() == [[1, 6, 7], [1, 2, 8]]
    with pytest.raises(ShapeError, match="not broadcast"):
        x[0] = [1, 2]
    with pytest.raises(ShapeError, match="not broadcast"):
        x[[0, 1]] = [1, 2]


def test_assignment_by_a_mask_keeps_large_integers():
    x = tg.tensor([2**60 + 1, 0])
    x[x == 0] = 1.5
    assert x.tolist() == [2**60 + 1, 1]


def test_assignment_from_an_overlapping_view():
    x = tg.arange(5)
    x[1:] = x[:-1]
    assert x.tolist() == [0, 0, 1, 2, 3]
    x[::-1] = x
    assert x.tolist() == [3, 2, 1, 0, 0]
    x[[0, 1, 2, 3, 4]] = x[::-1]
    assert x.tolist() == [0, 0, 1, 2, 3]


def test_assignment_to_strided_tensors():
    x = tg.zeros((2, 3))
    x.T[0] = 1.0
    x.T[[1, 2], 0] = 5.0
    x.T[x.T == 0.0] = 9.0
    assert x.tolist() == [[1.0, 5.0, 5.0], [1.0, 9.0, 9.0]]


def test_second_derivatives_through_indexing():
    def f(x):
        return (x[[0, 0, 2]] ** 3).sum() + (x[1:] ** 2).sum()

    values = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(tg.hessian(f)(tg.tensor(values)).numpy(), np.diag([12.0, 2.0, 20.0]))


def test_take_along_axis_and_scatter_add_gradients():
    values = tg.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    tg.take_along_axis(values, tg.tensor([[2, 2], [0, -1]]), 1).sum().backward()
    assert values.grad.tolist() == [[0.0, 0.0, 2.0], [1.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tg.take(tg.zeros((3, 4)), tg.tensor([0, 3]), 0), "take"),
        (lambda: tg.take(tg.zeros((3, 4)), tg.tensor([-4]), 0), "take"),
        (lambda: tg.take(tg.zeros((3, 4)), 12), "take"),
        (lambda: tg.take_along_axis(tg.zeros((3, 4)), tg.tensor([[4]]), 1), "take_along"),
        (lambda: tg.scatter_add(tg.zeros((3, 4)), tg.tensor([[0, 0, 3, 0]]), tg.ones((1, 4)), 0), "scatter"),
        (lambda: tg.one_hot(tg.tensor([0, 5]), 5), "one_hot|take"),
    ],
)
def test_positions_out_of_range(call, says):
    with pytest.raises(IndexOutOfRange, match=says):
        call().numpy()
