"""Skeletons against NumPy, for several dtypes; what they refuse, and how they say it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from kernel_runner import ABI

from tapegrad.dtypes import ALL, bool_, float32, float64, int32, int64, uint8
from tapegrad.errors import KernelError
from tapegrad.kernels.fingerprint import fingerprint
from tapegrad.kernels.language import (
    A,
    T,
    TypeVar,
    bits_to_float,
    cast_pointer,
    copy,
    fast_exp,
    fast_log,
    fill_zero,
    float_to_bits,
    inline,
    maximum,
    minimum,
    offset,
    pointer_at,
)
from tapegrad.kernels.skeleton import Skeleton, skeleton

N = TypeVar("N")
combine = TypeVar("combine")
FLOATS = [float32, float64]


def call(address: int, *args, begin: int = 0, end: int) -> int:
    """Call a kernel: arrays go by address, floats by their bits."""
    words = []
    for arg in args:
        if isinstance(arg, np.ndarray):
            words.append(arg.ctypes.data)
        else:
            words.append(int(np.float64(arg).view(np.int64)) if isinstance(arg, float) else arg)
    record = np.array(words, np.int64)  # alive until the call returns
    return ABI(address)(record.ctypes.data, begin, end)


@inline
def square_plus_one(v):
    return v * v + T(1)


@skeleton("x: *T, y: *A, n: int, eps: float")
def row_sum(x, y, n, eps, begin, end):
    for o in range(begin, end):
        total = A(0)
        row = offset(x, o * n)
        for i in range(n):
            total += A(square_plus_one(row[i]))
        y[o] = total * A(eps)
    return 0


@pytest.mark.parametrize(
    ("t", "a"), [(float32, float32), (float32, float64), (float64, float64), (int32, int64), (uint8, int32)]
)
def test_type_variables(t, a):
    rng = np.random.default_rng(1)
    x = (rng.random((4, 37)) * 9).astype(t.numpy)
    y = np.zeros(4, a.numpy)
    address = row_sum.address(T=t, A=a)
    assert row_sum.address(T=t, A=a) == address
    assert call(address, x, y, 37, 2.0, begin=1, end=4) == 0
    want = (x.astype(t.numpy) ** 2 + t.numpy.type(1)).astype(a.numpy).sum(1, dtype=a.numpy) * 2
    assert y[0] == 0, "an item outside the range was written"
    np.testing.assert_allclose(y[1:], want[1:], rtol=1e-5)


@skeleton("x: *T, y: *bool, n: *int64")
def count_true(x, y, n, begin, end):
    for i in range(begin, end):
        y[i] = x[i] != T(0)
        n[0] += int(y[i])
    return 0


@pytest.mark.parametrize("t", ALL)
def test_every_dtype_and_bool_as_byte(t):
    x = np.array([0, 1, 0, 1, 1]).astype(t.numpy)
    y, n = np.full(5, 7, np.uint8), np.zeros(1, np.int64)
    assert call(count_true.address(T=t), x, y, n, end=5) == 0
    assert y.tolist() == [0, 1, 0, 1, 1] and n[0] == 3


@skeleton("x: *T, y: *T")
def fold(x, y, begin, end):
    for o in range(begin, end):
        total = x[o * N]
        for i in range(1, N):
            total = combine(total, x[o * N + i])
        y[o] = total
    return 0


@inline
def larger(a, b):
    return maximum(a, b)


@inline
def added(a, b):
    return a + b


@pytest.mark.parametrize(("t", "n"), [(float32, 3), (int64, 4)])
def test_numbers_and_functions_as_bindings(t, n):
    x = np.arange(12).astype(t.numpy)[::-1].copy()
    y = np.zeros(12 // n, t.numpy)
    call(fold.address(T=t, N=n, combine=larger), x, y, end=12 // n)
    assert y.tolist() == x.reshape(-1, n).max(1).tolist()
    call(fold.address(T=t, N=n, combine=added), x, y, end=12 // n)
    assert y.tolist() == x.reshape(-1, n).sum(1).tolist()


@skeleton("x: *T, y: *T, n: int")
def extremes(x, y, n, begin, end):
    high = low = x[0]
    for i in range(1, n):
        high, low = maximum(high, x[i]), minimum(low, x[i])
    y[0], y[1] = high, low
    return 0


@pytest.mark.parametrize("t", [float32, float64, int32, int64, uint8])
def test_extremes(t):
    x = (np.random.default_rng(2).standard_normal(101) * 50).astype(t.numpy)
    y = np.zeros(2, t.numpy)
    call(extremes.address(T=t), x, y, 101, end=1)
    assert y.tolist() == [x.max(), x.min()]
    if t.is_float:
        x[7] = -np.inf
        call(extremes.address(T=t), x, y, 101, end=1)
        assert y.tolist() == [x.max(), -np.inf]
        x[50] = np.nan
        call(extremes.address(T=t), x, y, 101, end=1)
        assert np.isnan(y).all()


@skeleton("x: *T, y: *T, b: *A, where: address")
def moves(x, y, b, where, begin, end):
    copy(offset(y, 1), x, 3)
    fill_zero(offset(y, 4), 2)
    b[0] = float_to_bits(x[0])
    y[6] = bits_to_float(b[0])
    b[1] = cast_pointer(x, b)[1]
    y[7] = pointer_at(where, y)[0]
    return 0


@pytest.mark.parametrize(("t", "bits"), [(float32, int32), (float64, int64)])
def test_memory_and_bits(t, bits):
    x, y, b = np.array([1.5, 2, 3], t.numpy), np.ones(8, t.numpy), np.zeros(2, bits.numpy)
    call(moves.address(T=t, A=bits), x, y, b, x.ctypes.data + 2 * t.itemsize, end=1)
    assert y.tolist() == [1, 1.5, 2, 3, 0, 0, 1.5, 3]
    assert b.tolist() == x[:2].view(bits.numpy).tolist()


@skeleton("x: *T, e: *T, l: *T")
def exp_and_log(x, e, l, begin, end):  # noqa: E741
    for i in range(begin, end):
        e[i] = fast_exp(x[i])
    for i in range(begin, end):
        l[i] = fast_log(x[i])
    return 0


def ulps(got, x, function):
    """The largest error in units of the last place, where the exact value is finite; the rest must agree."""
    with np.errstate(all="ignore"):
        exact = function(x.astype(np.longdouble))
        want = exact.astype(x.dtype)
        finite = np.isfinite(want)
        np.testing.assert_array_equal(got[~finite], want[~finite])
        return np.max(np.abs(got[finite] - exact[finite]) / np.spacing(np.abs(want[finite])))


@pytest.mark.parametrize("t", FLOATS)
def test_fast_exp_and_log(t):
    kind = np.finfo(t.numpy)
    rng = np.random.default_rng(3)
    with np.errstate(all="ignore"):
        edge = math.log(kind.max)
        x = np.concatenate(
            [
                rng.uniform(-1.2 * edge - 20, edge + 2, 200_000),
                rng.standard_normal(100_000),
                1 + rng.standard_normal(100_000) * 0.1,
                np.exp(rng.uniform(math.log(kind.tiny) - 15, edge, 100_000)),
                [0.0, -0.0, np.inf, -np.inf, np.nan, kind.max, -kind.max, kind.tiny, kind.smallest_subnormal],
            ]
        ).astype(t.numpy)
    e, l = np.empty_like(x), np.empty_like(x)  # noqa: E741
    call(exp_and_log.address(T=t), x, e, l, end=x.size)
    assert ulps(e, x, np.exp) <= 2
    assert ulps(l, x, np.log) <= 2


@skeleton("x: *T, n: int")
def status_of_sign(x, n, begin, end):
    if x[0] < 0:
        return 2
    if x[0] > 100:
        raise ValueError("too large")
    return 0


def test_status_codes():
    address = status_of_sign.address(T=float64)
    assert [call(address, np.array([v]), 1, end=1) for v in (-1.0, 1.0, 101.0)] == [2, 0, 100]


@skeleton("x: *T", reassoc=False)
def compensated(x, begin, end):
    total, lost = T(0), T(0)
    for i in range(1, 1000):
        y = x[i] - lost
        t = total + y
        lost = (t - total) - y
        total = t
    x[0] = total
    return 0


def test_reassoc_can_be_switched_off():
    x = np.full(1000, 0.1, np.float32)
    call(compensated.address(T=float32), x, end=1)
    assert x[0] == np.float32(np.sum(x[1:].astype(float)))


def broken(body: str, signature: str = "x: *T", head: str = "x, begin, end") -> Skeleton:
    """A skeleton with that body, whose source has no file."""
    scope = {"T": T, "A": A, "np": np, "math": math, "offset": offset}
    exec(f"def broken({head}):\n    {body}", scope)
    scope["broken"].__module__ = __name__
    return skeleton(signature)(scope["broken"])


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("x[0] = missing(3); return 0", r"kernel broken .*:1\) does not compile for T=.*'missing' is not defined"),
        ("x[0] = 'text'; return 0", "Cannot cast .*text.* to float32"),
        ("x[0] = math.nothing(x[0]); return 0", "no attribute 'nothing'"),
        ("x[0] = T(1)", "must return an int on every path"),
        ("y = np.zeros(end); x[0] = y[begin]; return 0", "broken_float32 allocates memory, which a kernel cannot"),
        ("print(x[0]); return 0", "uses Python objects or Numba's runtime"),
        ("offset(3.0, x); return 0", r"offset\(float64, float32\*\) \(line 2\)"),
        ("x[0] = A(1); return 0", r"type variable A; bind it, as in broken.address\(A=float32\)"),
    ],
)
def test_what_does_not_compile_says_why(body, match):
    with pytest.raises(KernelError, match=match) as caught:
        broken(body).address(T=float32)
    assert "\n" not in str(caught.value)


def test_signatures_are_checked():
    with pytest.raises(KernelError, match="'x: T' is not 'name: \\*T'"):
        broken("return 0", signature="x: T")
    with pytest.raises(KernelError, match="takes \\['x', 'begin', 'end'\\], but its signature says \\['y'"):
        broken("return 0", signature="y: *T")
    with pytest.raises(KernelError, match="needs a dtype for T"):
        broken("return 0").address()
    with pytest.raises(KernelError, match="T must be bound to a dtype, not 3"):
        broken("return 0").address(T=3)


def test_words_of_the_language_mean_nothing_outside():
    with pytest.raises(TypeError, match="only in compiled code"):
        offset(1, 2)
    with pytest.raises(TypeError, match="only in compiled code"):
        T(1)


def scaled(by):
    @skeleton("x: *T")
    def scale(x, begin, end):
        for i in range(begin, end):
            x[i] *= T(by)
        return 0

    return scale


def test_functions_of_one_name_are_told_apart():
    x = np.ones(3)
    for by in (2, 3.0, 5):
        call(scaled(by).address(T=float64), x, end=3)
    assert x.tolist() == [30, 30, 30]


TABLE = np.array([1.0, 2.0])


@skeleton("x: *T")
def from_table(x, begin, end):
    x[0] = T(TABLE[1])
    return 0


def test_what_cannot_be_written_down_is_compiled_and_not_stored():
    assert from_table._key({"T": float32}) is None
    x = np.zeros(1, np.float32)
    assert call(from_table.address(T=float32), x, end=1) == 0
    assert x[0] == 2


def test_fingerprints():
    def one(x):
        return x + 1

    def two(x):
        return x + 1.0

    def recursive(x):
        return recursive(x - 1)

    def attribute(x):
        return pytest.approx(x)

    assert fingerprint(one) != fingerprint(two)
    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(recursive) is not None
    assert fingerprint(attribute) is None
    assert fingerprint(inline(one)) != fingerprint(inline(reassoc=False)(one))
    assert row_sum._key({"T": bool_, "A": float32}) != row_sum._key({"T": uint8, "A": float32})
