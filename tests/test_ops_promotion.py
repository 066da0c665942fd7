"""How dtypes meet: two tensors at the larger one, Python scalars by kind only. Every op of two inputs, every pair."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from registry_cases import DTYPES, elementwise

import tapegrad as tg
from tapegrad.dtypes import as_dtype

ORDER = ("bool", "uint8", "int32", "int64", "float32", "float64")
BINARY = [pytest.param(op, id=op.name) for op in elementwise() if op.arity == 2]
# What a Python scalar becomes beside a tensor of the dtype (rows: the tensor).
WEAK = {
    "bool": {True: "bool", 3: "int64", 2.5: "float32"},
    "uint8": {True: "uint8", 3: "uint8", 2.5: "float32"},
    "int32": {True: "int32", 3: "int32", 2.5: "float32"},
    "int64": {True: "int64", 3: "int64", 2.5: "float32"},
    "float32": {True: "float32", 3: "float32", 2.5: "float32"},
    "float64": {True: "float64", 3: "float64", 2.5: "float64"},
}


def result(op, a: str, b: str) -> str:
    """The dtype of the result by the op's rule."""
    if op.dtype_rule in ("compare", "logic"):
        return "bool"
    kinds = [d for i, d in enumerate((a, b)) if i not in op.truths]
    meet = max(kinds, key=ORDER.index)
    if op.dtype_rule == "float" and not meet.startswith("float"):
        return "float32"
    return "int64" if op.dtype_rule == "arith" and meet == "bool" else meet


def numbers(dtype: str) -> np.ndarray:
    return np.array([1, 0, 1, 1] if dtype == "bool" else [1, 3, 2, 7], dtype)


@pytest.mark.parametrize("op", BINARY)
def test_two_tensors(op):
    for a, b in itertools.product(DTYPES, repeat=2):
        x, y = numbers(a), numbers(b)[::-1].copy()
        got = op(tg.tensor(x), tg.tensor(y))
        assert got.dtype.name == result(op, a, b), (a, b)
        wide = np.float64 if got.dtype.is_float or "float" in a + b else np.int64
        with np.errstate(all="ignore"):
            expected = np.asarray(op.reference(x.astype(wide), y.astype(wide)))
        np.testing.assert_allclose(got.numpy(), expected.astype(got.dtype.numpy), rtol=3e-6, err_msg=f"{a} and {b}")


@pytest.mark.parametrize("op", BINARY)
def test_python_scalars_are_weak(op):
    for dtype in DTYPES:
        x = tg.tensor(numbers(dtype))
        for scalar, becomes in WEAK[dtype].items():
            right, left = op(x, scalar), op(scalar, x)
            if op.dtype_rule not in ("compare", "logic"):
                assert right.dtype.name == result(op, dtype, becomes), (dtype, scalar)
                assert left.dtype.name == result(op, becomes, dtype), (scalar, dtype)
            assert right.dtype is left.dtype or op.truths
            same = op(x, tg.tensor(scalar, dtype=becomes))
            np.testing.assert_array_equal(right.numpy(), same.numpy())


def test_operators_follow():
    x = tg.tensor([1, 2], dtype="int32")
    assert (x + 1).dtype is (1 - x).dtype is (x * True).dtype is tg.int32
    assert (x + 1.5).dtype is (x / 2).dtype is tg.float32
    assert (x + np.float64(1.5)).dtype is tg.float32  # np.float64 is a subclass of Python's float, and weak
    assert (x + np.array(1.5)).dtype is tg.float64
    assert (x > 1.5).tolist() == [False, True]
    assert (x**2).dtype is tg.int32
    assert (x**-1).tolist() == [1.0, 0.5]
    assert (-tg.tensor([True])).dtype is tg.int64


def test_numbers_that_do_not_fit():
    x = tg.tensor([1, 2], dtype="uint8")
    with pytest.raises(tg.errors.DtypeError, match=r"300 does not fit in uint8"):
        x + 300
    with pytest.raises(tg.errors.DtypeError, match="does not fit"):
        x + (-1)
    assert (tg.tensor([1.0]) + 1e300).item() == np.inf


@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("target", DTYPES)
def test_astype(source, target):
    """As NumPy where the value fits; floats beyond an integer's range are clamped, nan is 0."""
    values = {"f": [0.0, 1.0, 2.7, -1.5, 100.0], "i": [0, 1, 5, 100, 7], "u": [0, 1, 5, 100, 7], "b": [0, 1, 1, 0, 1]}
    x = np.array(values[as_dtype(source).kind], source)
    got = tg.tensor(x).astype(target)
    expected = np.trunc(x) if target != "bool" and not target.startswith("float") and x.dtype.kind == "f" else x
    if target == "uint8":
        expected = np.maximum(expected, 0)
    assert got.dtype is as_dtype(target)
    np.testing.assert_array_equal(got.numpy(), expected.astype(target))


def test_astype_clamps():
    x = tg.tensor([1e30, -1e30, np.inf, -np.inf, np.nan])
    assert x.astype("int32").tolist() == [2**31 - 1, -(2**31), 2**31 - 1, -(2**31), 0]
    assert x.astype("uint8").tolist() == [255, 0, 255, 0, 0]
    assert x.astype("bool").tolist() == [True] * 5
    on_reference = x.to("reference")
    for dtype in ("int32", "int64", "uint8", "bool"):
        assert on_reference.astype(dtype).tolist() == x.astype(dtype).tolist()


def test_gradients_keep_their_dtypes():
    """Where dtypes meet, each input gets a gradient of its own dtype."""
    x = tg.tensor([1.0, 2.0], dtype="float32", requires_grad=True)
    y = tg.tensor([3.0, 4.0], dtype="float64", requires_grad=True)
    (x * y).sum().backward()
    assert x.grad.dtype is tg.float32
    assert y.grad.dtype is tg.float64
    assert x.grad.tolist() == [3.0, 4.0]
