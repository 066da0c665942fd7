"""The matrix, convolution and pooling kernels against plain NumPy."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from kernel_runner import call, guarded, run, run_status, steps_of

from tapegrad.dtypes import as_dtype, float32
from tapegrad.kernels import conv, conv_weight, linalg, matmul, pooling  # noqa: F401
from tapegrad.kernels.launch import BUILDERS
from tapegrad.kernels.matmul import as_operand, matmul_accepts
from tapegrad.kernels.status import NOT_POSITIVE_DEFINITE, SINGULAR
from tapegrad.layouts import layout

FLOATS = ("float32", "float64")
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}


def close(got, want, dtype, scale=1.0):
    """`got` equals `want` up to rounding, relative to the size of the largest element."""
    assert got.shape == want.shape
    largest = max(1.0, float(np.abs(want).max(initial=0)))
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE[str(dtype)] * largest * scale)


def product(a, b, pieces=1):
    """a @ b through the kernel; a and b are views of any strides that `matmul` accepts."""
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    dtype = as_dtype(a.dtype)
    layouts = tuple(layout(x.shape, dtype, tuple(s // x.itemsize for s in x.strides)) for x in (a, b))
    assert all(map(matmul_accepts, layouts))
    out = layout(shape, dtype)
    block = guarded(out.nbytes)
    block[: out.nbytes] = 0xFF  # NaN in each element: what was there before must not matter
    addresses = [a.ctypes.data, b.ctypes.data, block.ctypes.data]
    for step in BUILDERS["matmul"](layouts, (out,), {}):
        assert call(step, addresses, pieces) == 0
    assert (block[out.nbytes :] == 0xA5).all()
    return block[: out.nbytes].view(a.dtype).reshape(shape)


def values(rng, shape, dtype):
    if np.dtype(dtype).kind == "i":
        return rng.integers(-(2**30), 2**30, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def check_product(a, b, pieces=1):
    if a.dtype.kind == "i":
        with np.errstate(over="ignore"):
            want = (a[..., :, :, None] * b[..., None, :, :]).sum(-2, dtype=a.dtype)
        np.testing.assert_array_equal(product(a, b, pieces), want)
    else:
        close(product(a, b, pieces), np.matmul(a.astype(np.float64), b.astype(np.float64)), a.dtype, a.shape[-1] ** 0.5)


@pytest.mark.parametrize("dtype", [*FLOATS, "int32", "int64"])
@pytest.mark.parametrize(
    "sizes",
    [
        (1, 1, 1),
        (3, 5, 4),
        (1, 7, 6),
        (6, 7, 1),
        (5, 1, 9),
        (1, 9, 1),
        (4, 0, 3),
        (1, 0, 5),
        (17, 33, 65),
        (2, 40, 150),
    ],
)
def test_matmul_reads_every_orientation(dtype, sizes):
    m, k, n = sizes
    rng = np.random.default_rng(1)
    a, b = values(rng, (m, k), dtype), values(rng, (k, n), dtype)
    wide_a, wide_b = values(rng, (m, k + 3), dtype)[:, :k], values(rng, (k, n + 5), dtype)[:, :n]
    flip = [x.T.copy().T for x in (a, b)]
    for left, right in itertools.product((a, wide_a, flip[0]), (b, wide_b, flip[1])):
        check_product(left, right)


@pytest.mark.parametrize("dtype", [*FLOATS, "int32"])
@pytest.mark.parametrize(
    "lead",
    [
        ((3,), (3,)),
        ((3,), ()),
        ((), (4,)),
        ((1,), (4,)),
        ((2, 1), (1, 3)),
        ((2, 3), (2, 3)),
        ((2, 1, 3, 1), (1, 2, 1, 2)),
        ((2, 1, 2, 1, 2), (1, 3, 1, 2, 1)),
        ((5, 2), (2,)),
    ],
)
@pytest.mark.parametrize("sizes", [(4, 3, 5), (1, 3, 5), (4, 3, 1)])
def test_matmul_broadcasts_batches(dtype, lead, sizes):
    m, k, n = sizes
    rng = np.random.default_rng(2)
    check_product(values(rng, (*lead[0], m, k), dtype), values(rng, (*lead[1], k, n), dtype))


def test_matmul_takes_permuted_batches():
    """Attention's views: heads moved before time, and keys transposed; neither is copied."""
    rng = np.random.default_rng(3)
    q, k = (rng.standard_normal((2, 6, 3, 4)).astype(np.float32).transpose(0, 2, 1, 3) for _ in range(2))
    check_product(q, k.swapaxes(-1, -2))
    check_product(q, np.broadcast_to(rng.standard_normal((4, 5)).astype(np.float32), (2, 3, 4, 5)))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sizes", [(4, 3, 5), (1, 3, 5), (4, 3, 1), (1, 2, 1), (40, 30, 50), (3, 0, 4)])
@pytest.mark.parametrize("order", [(0, 2, 1, 3), (2, 0, 1, 3), (2, 1, 0, 3), (1, 0, 2, 3), (0, 1, 2, 3)])
def test_matmul_writes_its_axes_in_any_order_that_ends_with_columns(dtype, sizes, order):
    m, k, n = sizes
    rng = np.random.default_rng(7)
    a, b = values(rng, (2, 3, m, k), dtype), values(rng, (2, 3, k, n), dtype)
    want = np.matmul(a.astype(np.float64), b.astype(np.float64)).transpose(order)
    for pieces in (1, 3):
        close(run("matmul", [a, b], [(want.shape, dtype)], {"order": order}, pieces), want, dtype, 5)


@pytest.mark.parametrize("dtype", [*FLOATS, "int64"])
@pytest.mark.parametrize("sizes", [(4, 3, 5), (1, 3, 5), (4, 3, 1), (1, 1, 1), (90, 80, 70)])
def test_matmul_with_a_transposed_right_side(dtype, sizes):
    m, k, n = sizes
    rng = np.random.default_rng(8)
    a, b = values(rng, (m, k), dtype), values(rng, (n, k), dtype)
    if dtype == "int64":
        a, b = a % 1000, b % 1000
    got = run("matmul", [a, b], [((m, n), dtype)], {"turned": True}, pieces=2)
    close(got, a.astype(np.float64) @ b.T.astype(np.float64), "float64" if dtype == "int64" else dtype, 5)


def test_matmul_of_one_matrix_with_a_batch_is_one_call():
    flat = steps_of("matmul", [np.zeros((8, 4, 5), np.float32), np.zeros((5, 6), np.float32)], [((8, 4, 6), "float32")])
    assert len(flat) == 1 and flat[0].extent == 32 and flat[0].static[3] == 32


@pytest.mark.parametrize("sizes", [(400, 90, 80), (40, 150, 800), (1, 700, 900), (900, 700, 1)])
def test_matmul_in_pieces_and_threads(sizes):
    m, k, n = sizes
    rng = np.random.default_rng(4)
    a, b = values(rng, (m, k), "float32"), values(rng, (k, n), "float32")
    assert steps_of("matmul", [a, b], [((m, n), "float32")])[0].grain > 0
    for pieces in (1, 2, 5):
        check_product(a, b, pieces)
    results = [None, None]

    def work(i):
        results[i] = product(a, b)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    np.testing.assert_array_equal(results[0], results[1])


def test_matmul_keeps_nan_and_inf():
    a, b = np.ones((9, 8), np.float32), np.ones((8, 7), np.float32)
    a[2, 3], a[4, 5] = np.nan, np.inf
    got = product(a, b)
    assert np.isnan(got[2]).all() and np.isposinf(got[4]).all() and (np.delete(got, (2, 4), 0) == 8).all()


@pytest.mark.parametrize(
    ("shape", "strides", "accepted"),
    [
        ((3, 4), (4, 1), True),
        ((3, 4), (9, 1), True),
        ((3, 4), (1, 3), True),
        ((3, 4), (1, 7), True),
        ((3, 4), (8, 2), False),
        ((3, 4), (0, 1), False),
        ((3, 4), (1, 0), False),
        ((3, 4), (2, 1), False),
        ((3, 4), (-4, 1), False),
        ((1, 4), (0, 1), True),
        ((1, 4), (0, 3), True),
        ((4, 1), (3, 0), True),
        ((1, 1), (0, 0), True),
        ((5, 3, 4), (0, 4, 1), True),
        ((1, 4), (4, -1), False),
    ],
)
def test_matmul_accepts(shape, strides, accepted):
    x = layout(shape, float32, strides)
    assert matmul_accepts(x) is accepted
    if accepted:
        by_row, by_column = as_operand(x).strides()
        assert by_row == strides[-2] or shape[-2] == 1
        assert by_column == strides[-1] or shape[-1] == 1


def stack_of(rng, lead, n, dtype):
    """Well-conditioned matrices."""
    return (rng.standard_normal((*lead, n, n)) / max(n, 1) ** 0.5 + 3 * np.eye(n)).astype(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [1, 2, 3, 16, 33, 130])
@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
def test_linear_solvers(dtype, n, lead):
    rng = np.random.default_rng(n)
    order = rng.permutation(n)  # of the rows, so that pivoting has something to do, in an order that matters
    ordered = stack_of(rng, lead, n, dtype)
    a = ordered[..., order, :]
    triangle = np.tril(np.ones((n, n), bool))
    for k, pieces in ((1, 1), (3, 4)):
        b = rng.standard_normal((*lead, n, k)).astype(dtype)
        want = np.linalg.solve(a.astype(float), b.astype(float))
        close(run("solve", [a, b], [(b.shape, dtype)], pieces=pieces), want, dtype, 10)
        for lower, transpose in itertools.product((True, False), repeat=2):
            keep = triangle if lower else triangle.T
            part = np.where(keep, ordered, 0).astype(float)
            want = np.linalg.solve(part.swapaxes(-1, -2) if transpose else part, b.astype(float))
            half = np.where(keep, ordered, np.nan).astype(dtype)  # the other half must not be read
            attrs = {"lower": lower, "transpose": transpose}
            got = run("triangular_solve", [half, b], [(b.shape, dtype)], attrs, pieces)
            close(got, want, dtype, 10)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [1, 2, 5, 40, 130])
def test_factorisations(dtype, n):
    rng = np.random.default_rng(n)
    a = stack_of(rng, (2, 3), n, dtype)
    square = a @ a.swapaxes(-1, -2)
    want = np.linalg.cholesky(square.astype(float))
    half = np.where(np.tril(np.ones((n, n), bool)), square, np.nan).astype(dtype)
    close(run("cholesky", [half], [(a.shape, dtype)], pieces=3), want, dtype, 10)
    swapped = a[..., ::-1, :]
    got = run("slogdet", [swapped], [((2, 3), dtype)] * 2, pieces=3)
    sign, logarithm = np.linalg.slogdet(swapped.astype(float))
    np.testing.assert_array_equal(got[0], sign)
    close(got[1], logarithm, dtype, 10)


@pytest.mark.parametrize("dtype", FLOATS)
def test_linear_algebra_at_the_edges(dtype):
    ones, column = np.ones((2, 3, 3), dtype), np.ones((2, 3, 1), dtype)
    assert run_status("solve", [ones, column], [(column.shape, dtype)])[0] == SINGULAR
    assert run_status("cholesky", [-ones], [(ones.shape, dtype)])[0] == NOT_POSITIVE_DEFINITE
    flat = np.diag([1, 0, 2]).astype(dtype)
    how = {"lower": True, "transpose": False}
    assert run_status("triangular_solve", [flat, column[0]], [((3, 1), dtype)], how)[0] == SINGULAR
    sign, logarithm = run("slogdet", [flat], [((), dtype)] * 2)
    assert sign == 0 and logarithm == -np.inf
    sign, logarithm = run("slogdet", [np.zeros((4, 0, 0), dtype)], [((4,), dtype)] * 2)
    assert (sign == 1).all() and (logarithm == 0).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("n", [1, 2, 40, 200])
def test_nan_in_one_matrix_stays_in_its_results(dtype, bad, n):
    rng = np.random.default_rng(3)
    a = stack_of(rng, (3,), n, dtype)
    a = a @ a.swapaxes(-1, -2)
    a[1, -1, 0] = bad
    b = rng.standard_normal((3, n, 2)).astype(dtype)
    x, lower = run("solve", [a, b], [(b.shape, dtype)]), run("cholesky", [a], [(a.shape, dtype)])
    _, logarithm = run("slogdet", [a], [((3,), dtype)] * 2)
    assert np.isnan(x[1]).all() and np.isnan(lower[1][np.tril_indices(n)]).all() and np.isnan(logarithm[1])
    assert all(np.isfinite(y[[0, 2]]).all() for y in (x, lower, logarithm))


def padded(x, padding, value=0.0):
    return np.pad(x.astype(np.float64), ((0, 0), (0, 0), *padding), constant_values=value)


def windows(size, kernel, stride, padding, dilation):
    """Per axis, how many windows fit."""
    axes = zip(size, kernel, stride, padding, dilation, strict=True)
    return tuple((n + sum(p) - (k - 1) * d - 1) // s + 1 for n, k, s, p, d in axes)


def naive_conv(x, w, g, stride, padding, dilation, groups):
    """The convolution of x and w, and its gradients for the output gradient g, one output element at a time."""
    wide, w = padded(x, padding), w.astype(np.float64)
    filters, channels, *kernel = w.shape
    out_h, out_w = windows(x.shape[2:], kernel, stride, padding, dilation)
    out, dx, dw = np.zeros((x.shape[0], filters, out_h, out_w)), np.zeros_like(wide), np.zeros_like(w)
    g = out if g is None else g.astype(np.float64)
    for o, i, j in itertools.product(range(filters), range(out_h), range(out_w)):
        first = o // (filters // groups) * channels
        rows, columns = (
            slice(a * s, a * s + (k - 1) * d + 1, d)
            for a, s, k, d in zip((i, j), stride, kernel, dilation, strict=True)
        )
        part = np.s_[:, first : first + channels, rows, columns]
        out[:, o, i, j] = (wide[part] * w[o]).sum((1, 2, 3))
        dx[part] += g[:, o, i, j, None, None, None] * w[o]
        dw[o] += (g[:, o, i, j, None, None, None] * wide[part]).sum(0)
    (top, _), (left, _) = padding
    return out, dx[:, :, top : top + x.shape[2], left : left + x.shape[3]], dw


def conv_case(seed):
    """Shapes and attributes of a convolution, drawn at random."""
    rng = np.random.default_rng(seed)
    groups = int(rng.choice([1, 1, 2, 3]))
    kernel, stride, dilation = ([int(v) for v in rng.integers(1, high, 2)] for high in (5, 4, 3))
    padding = [[int(v) for v in rng.integers(0, 4, 2)] for _ in range(2)]
    channels, filters = int(rng.integers(1, 5)), int(rng.integers(1, 21))
    if seed % 5 == 0:  # depthwise
        groups, channels, filters = 35, 1, int(rng.integers(1, 3))
    if seed % 7 == 0:  # plain products of matrices
        kernel, stride, padding, groups = [1, 1], [1, 1], [[0, 0], [0, 0]], 1
    size = [int(v) for v in rng.integers(7, 24, 2)]
    return (
        rng,
        (int(rng.integers(1, 4)), groups * channels, *size),
        (groups * filters, channels, *kernel),
        {"stride": tuple(stride), "padding": tuple(map(tuple, padding)), "dilation": tuple(dilation), "groups": groups},
    )


def check_conv(rng, x_shape, w_shape, attrs, dtype, pieces):
    x, w = values(rng, x_shape, dtype), values(rng, w_shape, dtype)
    out_size = windows(x_shape[2:], w_shape[2:], attrs["stride"], attrs["padding"], attrs["dilation"])
    g = values(rng, (x_shape[0], w_shape[0], *out_size), dtype)
    want = naive_conv(x, w, g, **attrs)
    out = run("conv2d", [x, w], [(g.shape, dtype)], attrs, pieces)
    dx = run("conv2d_input", [g, w], [(x_shape, dtype)], {**attrs, "input_size": x_shape[2:]}, pieces)
    dw = run("conv2d_weight", [x, g], [(w_shape, dtype)], {**attrs, "kernel_size": w_shape[2:]}, pieces)
    for got, right in zip((out, dx, dw), want, strict=True):
        close(got, right, dtype, 5)
    products = [(p.astype(float) * q).sum() for p, q in ((out, g), (dx, x), (dw, w))]
    relative = 1e-3 if dtype == "float32" else 1e-10
    np.testing.assert_allclose(products, products[0], rtol=relative, atol=TOLERANCE[dtype] * out.size)


@pytest.mark.parametrize("seed", range(36))
def test_conv2d(seed):
    check_conv(*conv_case(seed), FLOATS[seed % 2], pieces=seed % 4 + 1)


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "attrs"),
    [
        ((1, 3, 1, 300), (5, 3, 1, 4), {"stride": (1, 2), "padding": ((0, 0), (3, 1))}),  # one-dimensional
        ((1, 90, 12, 11), (33, 90, 3, 3), {"padding": ((1, 1), (1, 1))}),  # more taps than are summed in one go
        ((2, 40, 70, 60), (50, 40, 2, 3), {"padding": ((0, 1), (2, 0))}),  # several bands of rows
        ((1, 2, 5, 5), (3, 2, 5, 5), {}),  # one output element
        ((2, 2, 9, 9), (3, 2, 2, 2), {"stride": (4, 3)}),  # elements that no window reads
        ((1, 2, 4, 4), (2, 2, 3, 3), {"padding": ((5, 4), (4, 5))}),  # windows that lie in the padding
    ],
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_conv2d_of_unusual_shape(x_shape, w_shape, attrs, dtype):
    full = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1} | attrs
    for pieces in (1, 3):
        check_conv(np.random.default_rng(8), x_shape, w_shape, full, dtype, pieces)


def test_conv2d_pieces_give_the_same_bits():
    rng = np.random.default_rng(9)
    attrs = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    x, w = values(rng, (6, 16, 20, 20), "float32"), values(rng, (24, 16, 3, 3), "float32")
    g = values(rng, (6, 24, 20, 20), "float32")
    cases = (("conv2d", [x, w], g.shape), ("conv2d_input", [g, w], x.shape), ("conv2d_weight", [x, g], w.shape))
    for name, ins, shape in cases:
        assert steps_of(name, ins, [(shape, "float32")], attrs)[0].grain > 0
        whole = run(name, ins, [(shape, "float32")], attrs)
        for pieces in (2, 3, 7):
            np.testing.assert_array_equal(run(name, ins, [(shape, "float32")], attrs, pieces), whole)


def test_conv2d_of_nothing_and_of_nan():
    attrs = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    empty = [np.zeros((0, 2, 6, 6), np.float32), np.zeros((0, 3, 4, 4), np.float32)]
    assert not run("conv2d_weight", empty, [((3, 2, 3, 3), "float32")], attrs).any()
    x = np.zeros((1, 1, 9, 9), np.float32)
    x[0, 0, 4, 8] = np.nan  # in the last column: the gradient of the filter's first two columns does not see it
    out = run("conv2d", [x, np.ones((1, 1, 3, 3), np.float32)], [((1, 1, 7, 7), "float32")], attrs)
    assert np.isnan(out).sum() == 3 and np.isnan(out[0, 0, 2:5, 6]).all()
    dw = run("conv2d_weight", [x, np.ones((1, 20, 7, 7), np.float32)], [((20, 1, 3, 3), "float32")], attrs)
    assert np.isnan(dw[..., 2]).all() and not np.isnan(dw[..., :2]).any()


POOLS = [
    ((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    ((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    ((3, 2), (1, 3), ((0, 1), (1, 0)), (2, 1)),
    ((1, 5), (1, 1), ((0, 0), (2, 2)), (1, 2)),
    ((2, 3), (3, 1), ((1, 0), (0, 1)), (3, 2)),
    ((7, 9), (1, 1), ((0, 0), (0, 0)), (1, 1)),
]


def naive_max(x, kernel, stride, padding, dilation):
    """The flat position of each window's maximum, by looking at one element after the other."""
    (n, c, h, width), (top, left) = x.shape, (padding[0][0], padding[1][0])
    out = np.zeros((n, c, *windows((h, width), kernel, stride, padding, dilation)), np.int64)
    for index in np.ndindex(out.shape):
        best = None
        for i, j in itertools.product(*map(range, kernel)):
            y, z = (index[2] * stride[0] + i * dilation[0] - top), (index[3] * stride[1] + j * dilation[1] - left)
            if 0 <= y < h and 0 <= z < width:
                value = x[index[0], index[1], y, z]
                if best is None or ((value > best or value != value) and best == best):
                    best, out[index] = value, y * width + z
    return out


@pytest.mark.parametrize("dtype", [*FLOATS, "int32", "int64"])
@pytest.mark.parametrize("pool", POOLS)
def test_max_pool(dtype, pool):
    kernel, stride, padding, dilation = pool
    rng = np.random.default_rng(5)
    x = rng.integers(-3, 3, (2, 3, 11, 13)).astype(dtype)  # small integers: many equal elements
    if dtype in FLOATS:
        x[rng.random(x.shape) < 0.03] = np.nan
        x[rng.random(x.shape) < 0.3] = -np.inf
    attrs = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    want = naive_max(x, kernel, stride, padding, dilation)
    best = np.take_along_axis(x.reshape(2, 3, -1), want.reshape(2, 3, -1), 2).reshape(want.shape)
    for pieces in (1, 4):
        got, at = run("max_pool2d", [x], [(want.shape, dtype), (want.shape, "int32")], attrs, pieces)
        np.testing.assert_array_equal(at, want)
        np.testing.assert_array_equal(got, best)


def max_pool(x, kernel, stride, padding=(0, 0), dilation=(1, 1), pieces=1):
    """The maxima and their positions, through the kernel."""
    attrs = {"kernel": kernel, "stride": stride, "padding": tuple((p, p) for p in padding), "dilation": dilation}
    shape = (*x.shape[:2], *windows(x.shape[2:], kernel, stride, attrs["padding"], dilation))
    want = naive_max(x, kernel, stride, attrs["padding"], dilation)
    got, at = run("max_pool2d", [x], [(shape, x.dtype), (shape, "int32")], attrs, pieces)
    return got, at, want


@pytest.mark.parametrize("width", [2, 3, 8, 31, 32, 33, 64, 65, 100])
@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_max_pool_of_rows_of_any_length(width, step):
    """Vectors of windows: fewer than one holds, exactly one, one and a rest; the image ends where its memory does."""
    rng = np.random.default_rng(width)
    for dtype in ("float32", "float64", "uint8"):
        x = guarded(2 * 3 * width * np.dtype(dtype).itemsize)[:-64].view(dtype).reshape(1, 2, 3, width)
        x[...] = rng.integers(0, 9, x.shape)
        for kernel in ((2, 2), (3, 1), (1, min(width, 3))):
            got, at, want = max_pool(x, kernel, (1, step))
            np.testing.assert_array_equal(at, want)
            np.testing.assert_array_equal(
                got.reshape(2, -1), np.take_along_axis(x.reshape(2, -1), want.reshape(2, -1), 1)
            )


def test_max_pool_of_padding_alone_finds_nothing():
    for kernel in ((2, 2), (2, 9)):
        x = np.ones((1, 1, 4, 12), np.float32)
        at = max_pool(x, kernel, (2, 2), (2, 2))[1][0, 0]
        assert (at[0] == -1).all() and (at[-1] == -1).all() and at.max() >= 24


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("pool", POOLS)
def test_max_pool_slope_adds_each_windows_gradient_where_its_maximum_was(dtype, pool):
    kernel, stride, padding, dilation = pool
    rng = np.random.default_rng(6)
    x = rng.standard_normal((2, 3, 11, 13)).astype(dtype)
    at = naive_max(x, kernel, stride, padding, dilation).astype(np.int32)
    g = rng.standard_normal(at.shape).astype(dtype)
    want = np.zeros(x.shape)
    for index in np.ndindex(at.shape):
        want[index[:2]].reshape(-1)[at[index]] += g[index]
    for pieces in (1, 4):
        got = run("max_pool2d_slope", [g, at], [(x.shape, dtype)], {"input_size": (11, 13)}, pieces)
        close(got, want, dtype)
    at[0, 0, 0, 0], at[1, 2, -1, -1] = -1, -1  # windows of padding alone have no gradient to give
    got = run("max_pool2d_slope", [g, at], [(x.shape, dtype)], {"input_size": (11, 13)})
    np.testing.assert_allclose(want.sum() - got.sum(), g[0, 0, 0, 0] + g[1, 2, -1, -1], atol=1e-4)


def naive_mean(x, kernel, stride, padding, count_include_pad):
    out_h, out_w = windows(x.shape[2:], kernel, stride, padding, (1, 1))
    wide, inside = padded(x, padding), padded(np.ones_like(x), padding, float(count_include_pad))
    out = np.zeros((*x.shape[:2], out_h, out_w))
    for i, j in itertools.product(range(out_h), range(out_w)):
        part = np.s_[:, :, i * stride[0] : i * stride[0] + kernel[0], j * stride[1] : j * stride[1] + kernel[1]]
        out[:, :, i, j] = wide[part].sum((2, 3)) / np.maximum(inside[part].sum((2, 3)), 1)
    return out


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("pool", POOLS)
def test_mean_pool_and_its_transpose(dtype, include, pool):
    kernel, stride, padding, _ = pool
    rng = np.random.default_rng(6)
    x = rng.standard_normal((2, 3, 11, 13)).astype(dtype)
    attrs = {"kernel": kernel, "stride": stride, "padding": padding, "count_include_pad": include}
    want = naive_mean(x, kernel, stride, padding, include)
    g = rng.standard_normal(want.shape).astype(dtype)
    for pieces in (1, 4):
        close(run("avg_pool2d", [x], [(want.shape, dtype)], attrs, pieces), want, dtype)
        dx = run("avg_pool2d_input", [g], [(x.shape, dtype)], {**attrs, "input_size": (11, 13)}, pieces)
        relative = 1e-3 if dtype == "float32" else 1e-9
        np.testing.assert_allclose((dx.astype(float) * x).sum(), (want * g).sum(), rtol=relative)
        one = np.zeros_like(g)
        one[1, 2, -1, -1] = 1  # the gradient of one window: its share in that window, nothing elsewhere
        dx = run("avg_pool2d_input", [one], [(x.shape, dtype)], {**attrs, "input_size": (11, 13)}, pieces)
        probe = np.eye(11 * 13).reshape(-1, 1, 11, 13)
        close(dx[1, 2], naive_mean(probe, kernel, stride, padding, include)[:, 0, -1, -1].reshape(11, 13), dtype)
        assert not dx[0].any() and not dx[1, :2].any()
