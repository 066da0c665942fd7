"""NumPy, DLPack, printing, pickling, and what Python expects of a container and of a number."""

from __future__ import annotations

import copy
import gc
import operator
import pickle
import weakref

import numpy as np
import pytest

import tapegrad as tg
from tapegrad.errors import DtypeError, ShapeError, TapeError, TapegradError

DTYPES = ["float32", "float64", "int32", "int64", "uint8", "bool"]


# NumPy


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_round_trip(dtype, shape, rng):
    values = (
        (rng.normal(size=shape) * 50).astype(dtype) if dtype != "uint8" else rng.integers(0, 256, shape).astype(dtype)
    )
    values = np.asarray(values)
    t = tg.tensor(values)
    assert t.dtype.name == dtype and t.shape == shape
    for back in (t.numpy(), np.asarray(t), np.array(t), t.__array__()):
        assert back.dtype == values.dtype and back.shape == shape
        np.testing.assert_array_equal(back, values)


def test_arrays_of_other_orders_and_bytes():
    base = np.arange(24.0).reshape(2, 3, 4)
    for values in (
        base.T,
        base[::2, ::-1],
        base.swapaxes(0, 2)[1:],
        np.asfortranarray(base[0]),
        base.astype(">f8"),
        np.broadcast_to(1.0, (2, 2)),
    ):
        np.testing.assert_array_equal(tg.tensor(values).numpy(), values)
    t = tg.tensor(base)
    for got, wanted in (
        (t.T, base.T),
        (t[:, ::-1, 1:], base[:, ::-1, 1:]),
        (tg.broadcast_to(t[0, 0], (2, 4)), np.broadcast_to(base[0, 0], (2, 4))),
    ):
        np.testing.assert_array_equal(np.asarray(got), wanted)
        assert got.numpy().flags.writeable


def test_the_array_is_a_copy():
    t = tg.zeros(3)
    array = np.asarray(t)
    array[0] = 5.0
    assert t.tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="from_dlpack"):
        np.array(t, copy=False)
    assert np.asarray(t, dtype=np.int32).dtype == np.int32


def test_data_is_copied_in():
    values = np.zeros(3)
    t = tg.tensor(values)
    values[0] = 5.0
    assert t.tolist() == [0.0, 0.0, 0.0]
    u = tg.tensor(t)
    u[0] = 7.0
    assert t.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "uint32", "uint64"])
def test_other_integers_become_int64(dtype):
    t = tg.tensor(np.array([1, 2], dtype))
    assert t.dtype is tg.int64 and t.tolist() == [1, 2]


def test_other_floats():
    assert tg.tensor(np.array([1.5], np.float16)).dtype is tg.float16
    assert tg.tensor(np.float64(1.5)).dtype is tg.float64
    assert tg.tensor([1.5]).dtype is tg.float32 and tg.tensor([[1.5, 2], [3, 4]]).dtype is tg.float32
    assert tg.tensor([1, 2.5]).dtype is tg.float32
    assert tg.tensor([True, False]).dtype is tg.bool
    assert tg.tensor([]).dtype is tg.float32
    assert tg.tensor([np.array([1.0, 2.0]), np.array([3.0, 4.0])]).dtype is tg.float64
    assert tg.tensor([tg.tensor([1.0]), tg.tensor([2.0])]).shape == (2, 1)
    assert tg.tensor([tg.tensor(1.0), tg.tensor(2.0)]).dtype is tg.float32


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (np.array([1j]), "complex128"),
        (np.array(["a"]), "U1"),
        (np.array([None]), "object"),
        (np.array(["2020-01-01"], "M8[D]"), "datetime64"),
        ([None], "object"),
        ("text", "U4"),
        (None, "object"),
        (1j, "complex"),
        (np.array([2**64 - 1], np.uint64), "uint64"),
        (2**70, "does not fit"),
        ([2**70], "does not fit|object"),
        ({1: 2}, "object"),
    ],
    ids=repr,
)
def test_data_that_is_not_taken(data, says):
    with pytest.raises(DtypeError, match=f"tensor: .*({says})"):
        tg.tensor(data)


def test_numpy_beside_a_tensor():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    array = np.array([10.0, 20.0], np.float32)
    for y in (array * x, x * array, np.multiply(array, x), np.multiply(x, array)):
        assert type(y) is tg.Tensor and y.requires_grad and y.tolist() == [10.0, 40.0]
    assert (array - x).tolist() == [9.0, 18.0]
    assert (array / x).tolist() == [10.0, 10.0]
    assert (array > x).tolist() == [True, True]
    assert (array @ x).item() == 50.0 and (x @ array).item() == 50.0
    assert (array**x).tolist() == [10.0, 400.0]
    assert np.sin(x).requires_grad
    np.testing.assert_allclose(np.sin(x).numpy(), np.sin([1.0, 2.0]), rtol=1e-6)
    np.testing.assert_allclose(np.exp(x * 1).detach().numpy(), np.exp([1.0, 2.0]), rtol=1e-6)
    y = np.float64(3.0) * x
    assert type(y) is tg.Tensor and y.requires_grad
    y.sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]
    assert type(np.float32(3.0) * x) is tg.Tensor and (np.float32(3.0) * x).dtype is tg.float32
    assert type(x - np.int64(3)) is tg.Tensor


@pytest.mark.parametrize(
    "ufunc",
    [
        "sin",
        "cos",
        "exp",
        "log",
        "sqrt",
        "tanh",
        "absolute",
        "negative",
        "square",
        "floor",
        "ceil",
        "rint",
        "sign",
        "isnan",
        "isfinite",
    ],
)
def test_unary_ufuncs(ufunc):
    values = np.array([0.25, 1.5, 3.75])
    got = getattr(np, ufunc)(tg.tensor(values))
    assert type(got) is tg.Tensor
    np.testing.assert_allclose(got.numpy(), getattr(np, ufunc)(values), rtol=1e-14)


@pytest.mark.parametrize(
    "ufunc",
    [
        "add",
        "subtract",
        "multiply",
        "divide",
        "power",
        "maximum",
        "minimum",
        "arctan2",
        "less",
        "equal",
        "floor_divide",
        "remainder",
    ],
)
def test_binary_ufuncs(ufunc):
    a, b = np.array([0.25, 1.5, 3.75]), np.array([2.0, 1.5, 0.5])
    for got in (
        getattr(np, ufunc)(tg.tensor(a), b),
        getattr(np, ufunc)(a, tg.tensor(b)),
        getattr(np, ufunc)(tg.tensor(a), tg.tensor(b)),
    ):
        np.testing.assert_allclose(got.numpy(), getattr(np, ufunc)(a, b), rtol=1e-14)


@pytest.mark.parametrize(
    "call",
    [
        lambda t: np.add.reduce(t),
        lambda t: np.add(t, 1, out=np.zeros(2)),
        lambda t: np.gcd(t, t),
        lambda t: np.add.outer(t, t),
        lambda t: np.modf(t),
    ],
)
def test_ufuncs_without_an_op(call):
    with pytest.raises(TypeError):
        call(tg.tensor([1.0, 2.0]))


def test_an_array_is_never_changed_by_an_augmented_assignment():
    array = np.array([1.0, 2.0])
    with pytest.raises(TypeError):
        array += tg.tensor([1.0, 2.0])
    assert array.tolist() == [1.0, 2.0]


def test_lists_beside_a_tensor():
    x = tg.tensor([1.0, 2.0])
    assert (
        (x + [1, 2]).tolist() == [2.0, 4.0]
        and ([1, 2] * x).tolist() == [1.0, 4.0]
        and ((1.0, 2.0) - x).tolist() == [0.0, 0.0]
    )
    assert tg.add([1, 2], [3, 4]).tolist() == [4, 6]


@pytest.mark.parametrize("other", [None, "one", {}, object(), 1j, [None]])
def test_what_is_no_number_beside_a_tensor(other):
    x = tg.tensor([1.0, 2.0])
    for op in (operator.add, operator.mul, operator.pow, operator.matmul, operator.lt, operator.truediv):
        with pytest.raises((TypeError, ShapeError)):
            op(x, other)
        if op is not operator.mul or not isinstance(other, str):
            with pytest.raises((TypeError, ShapeError)):
                op(other, x)


# DLPack


@pytest.mark.parametrize("dtype", DTYPES)
def test_dlpack_out_and_in(dtype):
    values = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    t = tg.tensor(values)
    view = np.from_dlpack(t)
    assert view.dtype == values.dtype
    np.testing.assert_array_equal(view, values)
    back = tg.from_dlpack(values)
    assert back.dtype.name == dtype
    np.testing.assert_array_equal(back.numpy(), values)


def test_dlpack_shares_memory_and_keeps_it():
    t = tg.tensor(np.arange(1000.0))
    view = np.from_dlpack(t)
    t[0] = 7.0
    assert view[0] == 7.0
    part = np.from_dlpack(t[10:20:2])
    del t
    gc.collect()
    others = [tg.zeros(1000, dtype=tg.float64) for _ in range(5)]
    assert view[1:].tolist() == list(np.arange(1.0, 1000.0)) and part.tolist() == [10, 12, 14, 16, 18]
    del view, others
    gc.collect()
    others = [tg.zeros(1000, dtype=tg.float64) for _ in range(5)]
    assert part.tolist() == [10, 12, 14, 16, 18]
    del part, others


def test_dlpack_gives_the_memory_back():
    gc.collect()

    def used():
        stats = tg.memory_stats()
        return stats["reserved"] - stats["free"]

    before = used()
    view = np.from_dlpack(tg.zeros(100_000))
    assert used() - before >= 400_000
    del view
    gc.collect()
    assert used() == before


def test_dlpack_of_views_and_empty():
    t = tg.tensor(np.arange(24.0).reshape(2, 3, 4))
    for v in (t.T, t[:, 1], t[0, ::2], t.reshape((6, 4)), t[0, 0, 0], t[:0], t[:, ::-1]):
        np.testing.assert_array_equal(np.from_dlpack(v), v.numpy())


def test_dlpack_of_tensors_with_gradient():
    with pytest.raises(TapeError, match="detach"):
        np.from_dlpack(tg.tensor([1.0], requires_grad=True))
    assert tg.zeros(1).__dlpack_device__() == (1, 0)


def test_from_dlpack_of_something_else():
    with pytest.raises(DtypeError, match="no __dlpack__"):
        tg.from_dlpack([1, 2])
    assert tg.from_dlpack(tg.tensor([1, 2])).tolist() == [1, 2]
    assert tg.from_dlpack(np.arange(6).reshape(2, 3).T).tolist() == [[0, 3], [1, 4], [2, 5]]


class Capsule:
    """Data that speaks DLPack and nothing else."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **kwargs):
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_tensor_of_dlpack_alone():
    assert tg.tensor(Capsule(np.array([1.0, 2.0]))).dtype is tg.float64
    assert tg.from_dlpack(Capsule(np.array([1.0, 2.0]))).tolist() == [1.0, 2.0]
    assert tg.tensor(Capsule(np.array([1.0, 2.0])), dtype=tg.float32).dtype is tg.float32


# printing


@pytest.mark.parametrize(
    ("t", "text"),
    [
        (tg.tensor(1.5), "tensor(1.5)"),
        (tg.tensor(3), "tensor(3)"),
        (tg.tensor(True), "tensor(True)"),
        (tg.tensor([1, 2], dtype=tg.int32), "tensor([1, 2], dtype=int32)"),
        (tg.tensor([1.0], dtype=tg.float64), "tensor([1.], dtype=float64)"),
        (tg.zeros((0, 3)), "tensor([], shape=(0, 3), dtype=float32)"),
        (tg.zeros(0, dtype=tg.int64), "tensor([], shape=(0,), dtype=int64)"),
        (tg.tensor([True, False]), "tensor([ True, False])"),
        (tg.tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
        (tg.tensor([1.0], requires_grad=True) * 2, "tensor([2.], op=multiply)"),
        (tg.tensor([[1.0, 2.0], [3.0, 4.0]]), "tensor([[1., 2.],\n        [3., 4.]])"),
        (tg.tensor([[1.0, 2.0], [3.0, 4.0]]).T, "tensor([[1., 3.],\n        [2., 4.]])"),
        (tg.tensor([float("nan"), float("inf")]), "tensor([nan, inf])"),
        (tg.tensor([1, 2], device="reference"), "tensor([1, 2], device='reference')"),
    ],
)
def test_repr(t, text):
    assert repr(t) == text
    assert str(t) == text and f"{t}" == text


def test_large_tensors_are_shortened():
    text = repr(tg.zeros((1000, 1000)))
    assert "..." in text and len(text) < 2000
    assert "shape=(1000, 1000)" in text


def test_html():
    text = (tg.tensor([1.0], requires_grad=True) * 2)._repr_html_()
    assert "tensor([2.], op=multiply)" in text and "shape (1,), float32" in text
    assert "&lt;" not in text


def test_formats():
    assert f"{tg.tensor(1.23456):.3f}" == "1.235"
    assert f"{tg.tensor([[7]]):5d}" == "    7"
    with pytest.raises(ShapeError, match="item"):
        f"{tg.zeros(2):.3f}"
    assert f"{tg.tensor(2.5, requires_grad=True) * 2:g}" == "5"


# copies and pickles


@pytest.mark.parametrize("again", [lambda t: pickle.loads(pickle.dumps(t)), copy.deepcopy])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_pickle_and_deepcopy(again, requires_grad):
    t = tg.tensor([[1.0, 2.0]], dtype=tg.float64, requires_grad=requires_grad)
    u = again(t)
    assert u.tolist() == t.tolist() and u.dtype is tg.float64 and u.requires_grad is requires_grad and u.is_leaf
    with tg.no_grad():
        u.copy_(u * 5)
    assert t.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 2), (2, 2)])
def test_pickles_of_all_kinds(dtype, shape):
    t = tg.ones(shape, dtype=dtype)
    u = pickle.loads(pickle.dumps(t))
    assert u.shape == shape and u.dtype.name == dtype and np.array_equal(u.numpy(), t.numpy())


def test_a_list_that_names_a_tensor_twice_is_copied_once():
    t = tg.tensor([1.0], requires_grad=True)
    a, b = copy.deepcopy([t, t])
    assert a is b and a is not t
    a, b = pickle.loads(pickle.dumps([t, t]))
    assert a is b


def test_results_of_ops():
    y = tg.tensor([1.0], requires_grad=True) * 2
    with pytest.raises(TapeError, match="deepcopy"):
        copy.deepcopy(y)
    assert not pickle.loads(pickle.dumps(y)).requires_grad
    assert copy.copy(tg.tensor([1.0])).tolist() == [1.0]


def test_dtypes_pickle():
    for name in DTYPES:
        dtype = tg.ones(1, dtype=name).dtype
        assert pickle.loads(pickle.dumps(dtype)) is dtype and copy.deepcopy(dtype) is dtype


def test_weak_references():
    t = tg.zeros(1)
    r = weakref.ref(t)
    del t
    assert r() is None


# as numbers and containers


def test_numbers():
    t = tg.tensor([2.5])
    assert float(t) == 2.5 and int(t) == 2 and bool(t) and t.item() == 2.5
    assert not tg.tensor(0) and bool(tg.tensor([[True]]))
    assert [10, 20, 30][tg.tensor(1)] == 20 and list(range(tg.tensor([3]))) == [0, 1, 2]
    assert round(tg.tensor(2.4)).item() == 2.0 and f"{round(tg.tensor(2.567), 2):.4f}" == "2.5700"
    assert (
        abs(tg.tensor([-1.0])).tolist() == [1.0]
        and (-tg.tensor([1])).tolist() == [-1]
        and (+tg.tensor([1])).tolist() == [1]
    )
    assert (~tg.tensor([True])).tolist() == [False]
    assert complex(tg.tensor(1.5)) == 1.5
    assert (
        type(tg.tensor([1.0]).item()) is float
        and type(tg.tensor(True).item()) is bool
        and type(tg.tensor(3).item()) is int
    )
    assert divmod(7, 2) == (3, 1)


@pytest.mark.parametrize("convert", [bool, float, int, operator.index, lambda t: t.item()])
@pytest.mark.parametrize("shape", [(0,), (2,), (1, 2)])
def test_several_elements_are_no_number(convert, shape):
    with pytest.raises((ShapeError, DtypeError)):
        convert(tg.zeros(shape))


def test_indices_are_integers():
    for t in (tg.tensor(1.0), tg.tensor(True), tg.tensor([1, 2])):
        with pytest.raises(DtypeError, match="index"):
            operator.index(t)


def test_iteration_and_length():
    t = tg.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], requires_grad=True)
    assert len(t) == 3 and len(list(t)) == 3 and all(type(r) is tg.Tensor for r in t)
    a, b, c = t
    (a * c).sum().backward()
    assert t.grad.tolist() == [[5.0, 6.0], [0.0, 0.0], [1.0, 2.0]]
    assert len(tg.zeros((0, 3))) == 0 and list(tg.zeros((0, 3))) == []
    assert [r.item() for r in reversed(tg.tensor([1, 2, 3]))] == [3, 2, 1]
    for call in (len, iter, list):
        with pytest.raises(TapegradError, match="0-d"):
            call(tg.tensor(1.0))


def test_membership():
    t = tg.tensor([1, 2, 3])
    assert 2 in t and 5 not in t


def test_equality_is_elementwise_and_hash_is_identity():
    a, b = tg.tensor([1.0, 2.0]), tg.tensor([1.0, 3.0])
    assert (a == b).tolist() == [True, False] and (a != b).tolist() == [False, True]
    assert len({a, b, a}) == 2
    assert {a: 1}[a] == 1


def test_attributes_are_fixed():
    with pytest.raises(AttributeError):
        tg.zeros(1).colour = "red"


def test_devices():
    x = tg.tensor([1.0, 2.0])
    assert (
        x.to("cpu") is x
        and x.to("reference").device == "reference"
        and x.to("reference").to("cpu").tolist() == [1.0, 2.0]
    )
    assert x.to(tg.float64).dtype is tg.float64
    with pytest.raises(TapegradError):
        x.to("moon")
    with pytest.raises(DtypeError, match="one device"):
        x + x.to("reference")
