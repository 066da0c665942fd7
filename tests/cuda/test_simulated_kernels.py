"""What the registry's small samples do not reach, in the simulator: many parts, long lines, errors, seeds, users' functions."""

from __future__ import annotations

import math

import cuda_simulator
import numpy as np
import pytest

import tapegrad as tg
from tapegrad.errors import IndexOutOfRange, KernelError
from tapegrad.kernels.cuda import template
from tapegrad.kernels.cuda.elementwise import Chain, work
from tapegrad.kernels.fused import Load, Map
from tapegrad.layouts import layout
from tapegrad.ops import expression as ex
from tapegrad.ops.registry import REGISTRY

RNG = np.random.default_rng(5)


def both(fn, *arrays, device):
    """fn of tensors on the device and of tensors on the CPU, as arrays."""
    return (
        fn(*(tg.tensor(x, device=device) for x in arrays)).numpy(),
        fn(*map(tg.tensor, arrays)).numpy(),
    )


PARTS = [((700,), (0,)), ((3, 500), (1,)), ((500, 3), (0,)), ((2, 90, 2, 5), (1, 3)), ((4, 3, 2, 3, 2), (0, 2, 4))]


@pytest.mark.parametrize("shape, axes", PARTS)
@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "any", "all", "logsumexp"])
def test_reductions_in_parts(name, shape, axes, device):
    """Rows and columns that are cut in parts, and axes that lie apart: several launches."""
    x = RNG.uniform(0.5, 1.5, shape).astype(np.float32)
    x.flat[17] = -2.0
    got, expected = both(lambda t: REGISTRY[name](t, axes), x, device=device)
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=2e-6)
    last = cuda_simulator.launched[-1]
    assert last.operands[-1] == 1


def test_reductions_take_several_launches(device):
    cuda_simulator.launched.clear()
    tg.tensor(np.ones(700, np.float32), device=device).sum()
    assert [one.kernel.name for one in cuda_simulator.launched] == ["reduce_rows", "reduce_rows"]


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin"])
def test_nan_wins(name, device):
    x = RNG.standard_normal((3, 300)).astype(np.float32)
    x[1, 123] = x[1, 124] = math.nan
    x[2, 5] = math.inf
    got, expected = both(lambda t: REGISTRY[name](t, 1), x, device=device)
    np.testing.assert_array_equal(got, expected)
    got, expected = both(lambda t: REGISTRY[name](t), x, device=device)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("descending", [False, True])
def test_sorting_is_stable(dtype, descending, device):
    """Three passes of merging, many equal keys, nan, zeros of both signs."""
    x = RNG.integers(0, 9, (37, 2)).astype(dtype)
    if dtype.startswith("float"):
        x[3], x[20], x[5], x[6] = math.nan, -math.nan, -0.0, 0.0
    got, expected = both(lambda t: tg.argsort(t, 0, descending=descending), x, device=device)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_sums_by_index_are_those_of_the_cpu(dtype, device):
    """Sorted indices, some counted from the end; the additions come in the same order, so the bits are the same."""
    values = (RNG.standard_normal((3, 40, 2)) * 3).astype(dtype)
    index = RNG.integers(-5, 5, 40)
    got, expected = both(lambda v, i: REGISTRY["index_add"](v, i, 1, 5), values, index, device=device)
    np.testing.assert_array_equal(got, expected)
    index = RNG.integers(-5, 5, (3, 40, 2)).astype(np.int32)
    got, expected = both(lambda v, i: REGISTRY["scatter_kernel"](v, i, 1, 5), values, index, device=device)
    np.testing.assert_array_equal(got, expected)
    assert "add_segments" in {one.kernel.name for one in cuda_simulator.launched[-5:]}


@pytest.mark.parametrize("shape, axis", [((200,), 0), ((70, 3), 0), ((2, 90), 1)])
@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_running_sums_in_parts(shape, axis, dtype, device):
    x = (RNG.standard_normal(shape) * 2).astype(dtype)
    got, expected = both(lambda t: tg.cumsum(t, axis), x, device=device)
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 5, 90])
def test_places_of_true_elements(n, device):
    mask = RNG.integers(0, 2, n).astype(bool)
    places, count = REGISTRY["nonzero_flat"](tg.tensor(mask, device=device))
    expected = np.flatnonzero(mask)
    assert count.item() == expected.size
    np.testing.assert_array_equal(places.numpy(), np.pad(expected, (0, n - expected.size)))


def test_a_product_of_odd_sizes_and_many_batch_axes(device):
    """Tiles that hang over, and more batch axes that do not merge than one launch takes."""
    a, b = RNG.standard_normal((5, 7)).astype(np.float32), RNG.standard_normal((9, 7)).astype(np.float32)
    got, expected = both(lambda x, y: x @ y.T, a, b, device=device)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    a, b = RNG.standard_normal((2, 1, 2, 1, 2, 2, 3)), RNG.standard_normal((1, 2, 2, 2, 1, 3, 1))
    got, expected = both(lambda x, y: x @ y, a, b, device=device)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    got, expected = both(lambda x, y: x @ y, *(np.rint(3 * x).astype(np.int32) for x in (a, b)), device=device)
    np.testing.assert_array_equal(got, expected)


def test_a_weight_gradient_in_parts(device):
    x, g = RNG.standard_normal((4, 2, 8, 6)), RNG.standard_normal((4, 2, 7, 5))
    how = {"kernel_size": (2, 2), "stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    got, expected = both(lambda a, b: REGISTRY["conv_weight"](a, b, **how), x, g, device=device)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert cuda_simulator.launched[-1].kernel.name == "reduce_columns"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [(), (1,), (7,), (3, 5)])
def test_the_same_random_numbers(dtype, size, device):
    draws = {
        "uniform": lambda d: tg.uniform(size=size, dtype=dtype, device=d),
        "randint": lambda d: tg.randint(-5, 1 << 40, size=size, device=d),
        "bernoulli": lambda d: tg.bernoulli(0.3, size=size, device=d),
        "permutation": lambda d: tg.permutation(len(size) and size[-1], device=d),
    }
    for name, draw in draws.items():
        tg.seed(2**62 + 12345)
        cpu = [draw("cpu").numpy() for _ in range(2)]
        tg.seed(2**62 + 12345)
        np.testing.assert_array_equal(cpu, [draw(device).numpy() for _ in range(2)], err_msg=name)
    tg.seed(3)
    cpu = tg.normal(size=size, dtype=dtype).numpy()
    tg.seed(3)
    got = tg.normal(size=size, dtype=dtype, device=device).numpy()
    np.testing.assert_allclose(got, cpu, rtol=1e-7 if dtype == "float32" else 1e-14, atol=1e-15)


def test_errors_of_kernels(device):
    x = tg.tensor([1.0, 2.0], device=device)
    with pytest.raises(IndexOutOfRange, match="outside its axis"):
        tg.take(x, [0, 2])
    with pytest.raises(IndexOutOfRange, match="outside its axis"):
        tg.take(x, [-3])
    with pytest.raises(IndexOutOfRange, match="outside its axis"):
        REGISTRY["index_add"](tg.ones(40, device=device), tg.tensor([7] * 40, device=device), 0, 3)
    with pytest.raises(IndexOutOfRange, match="outside its axis"):
        REGISTRY["nn.cross_entropy"](tg.ones((2, 3), device=device), tg.tensor([0, 3], device=device))
    with pytest.raises(KernelError, match="singular"):
        tg.linalg.solve(tg.zeros((2, 2), device=device), x)
    with pytest.raises(KernelError, match="not positive definite"):
        tg.linalg.cholesky(-tg.eye(2, device=device))
    with pytest.raises(KernelError, match="singular"):
        REGISTRY["triangular_solve"](tg.zeros((2, 2), device=device), tg.ones((2, 1), device=device))


def test_matrices_with_nan(device):
    a = np.eye(3)[None].repeat(2, 0) * 2
    a[1, 0, 0] = math.nan
    b = np.ones((2, 3, 1))
    for fn in (lambda x, y: REGISTRY["solve_kernel"](x, y), lambda x, y: REGISTRY["cholesky_kernel"](x)):
        got, expected = both(fn, a, b, device=device)
        np.testing.assert_array_equal(got, expected)
    got, expected = both(lambda x: REGISTRY["slogdet_kernel"](x)[1], a, device=device)
    np.testing.assert_allclose(got, expected)


def test_pivots(device):
    a = np.array([[[0.0, 2, 1], [1, 0, 3], [4, 1, 0]], [[1, 2, 3], [2, 4, 7], [1, 1, 1]]])
    b = RNG.standard_normal((2, 3, 2))
    got, expected = both(REGISTRY["solve_kernel"], a, b, device=device)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    for i in range(2):
        got, expected = both(lambda x, i=i: REGISTRY["slogdet_kernel"](x)[i], a, device=device)
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


# elementwise kernels


def test_groups_where_addresses_allow(device):
    x = tg.tensor(np.arange(41, dtype=np.float32), device=device)
    (x[:40] + 1).numpy()
    assert cuda_simulator.launched[-1].kernel.aligned
    np.testing.assert_array_equal((x[1:] + 1).numpy(), np.arange(2, 42))
    assert not cuda_simulator.launched[-1].kernel.aligned
    np.testing.assert_array_equal((x[4:] * x[4:]).numpy(), np.arange(4, 41) ** 2.0)
    assert cuda_simulator.launched[-1].kernel.aligned


def test_addresses_of_numbers_do_not_matter(device):
    """An operand that is read as one element may lie anywhere."""
    x, numbers = tg.tensor(np.arange(16, dtype=np.float32), device=device), tg.tensor([2.0, 3.0], device=device)
    np.testing.assert_array_equal((x * numbers[1]).numpy(), 3.0 * np.arange(16))
    assert cuda_simulator.launched[-1].kernel.aligned


def test_an_array_kernel_runs_on_the_cpu_only(device):
    @tg.kernel("(n)->()")
    def total(x, out):
        out[()] = x.sum()

    with pytest.raises(
        KernelError,
        match=r'total is an array kernel without a CUDA body, so it runs on the device "cpu" only; give it one with @total.cuda, '
        r"or bring its inputs to the CPU with .cpu\(\)",
    ):
        total(tg.ones(3, device=device))


@pytest.mark.parametrize("dtype", ["uint8", "bool"])
@pytest.mark.parametrize("n", [3, 15, 16, 50])
def test_bytes_come_in_words(dtype, n, device):
    x, y = (RNG.integers(0, 2 if dtype == "bool" else 256, n).astype(dtype) for _ in range(2))
    got, expected = both(tg.maximum, x, y, device=device)
    np.testing.assert_array_equal(got, expected)
    got, expected = both(lambda a, b: tg.where(a > b, a, b), x, y, device=device)
    np.testing.assert_array_equal(got, expected)
    got, expected = both(lambda a: a * 0.5, x, device=device)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("to", ["int32", "int64", "uint8", "bool", "float32"])
def test_casts_saturate(kind, to, device):
    numbers = [0.0, -0.0, 1.7, -1.7, 255.0, 256.0, -3.0, 2.0**31, -(2.0**31), 2.0**31 - 128, 1e19, -1e19, 1e300, 0.5]
    x = np.array([*numbers, math.inf, -math.inf, math.nan], kind)
    got, expected = both(lambda t: tg.astype(t, to), x, device=device)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32"])
@pytest.mark.parametrize("name", ["floor_divide", "remainder", "power"])
def test_integer_arithmetic(name, dtype, device):
    values = [0, 1, 2, 3, 7, 8, 250] if dtype == "uint8" else [0, 1, -1, 2, -2, 7, -7, 31, -(2**31), 2**31 - 1]
    x, y = (a.ravel().astype(dtype) for a in np.meshgrid(values, values))
    got, expected = both(REGISTRY[name], x, y, device=device)
    np.testing.assert_allclose(got, expected, rtol=3e-6 if dtype == "float32" else 0)


def test_a_chain_of_several_steps(device):
    """What a plan's fused task is given as: loads and maps, with a cast between them and two outputs."""
    f32, i32 = tg.float32, tg.int32
    product = ex.node("product", ex.argument(0), ex.argument(1))
    chain = Chain(
        (
            Load(0),
            Load(1),
            Map(product, (0, 1), f32, f32),
            Map(ex.node("add", ex.argument(0), ex.argument(1)), (2, 0), f32, f32),
            Map(ex.argument(0), (3,), i32, i32),
        ),
        (3, 4),
    )
    x, row = RNG.standard_normal((3, 8)).astype(np.float32) * 5, RNG.standard_normal(8).astype(np.float32)
    total, whole = np.zeros((3, 8), np.float32), np.zeros((3, 8), np.int32)
    layouts = [layout(a.shape, {"f": f32, "i": i32}[a.dtype.kind]) for a in (x, row, total, whole)]
    made = work(chain, tuple(layouts[:2]), tuple(layouts[2:]))
    assert made.launches[0].kernel.aligned
    cuda_simulator.run(REGISTRY["add"], made, layouts[:2], layouts[2:], [a.ctypes.data for a in (x, row, total, whole)])
    np.testing.assert_array_equal(total, np.float32(x * row) + x)
    np.testing.assert_array_equal(whole, total.astype(np.int32))


# users' functions


def newton(x):
    """A square root by iteration: a loop and a branch that returns."""
    y = x
    for _ in range(20):
        if abs(y * y - x) < 1e-7 * x:
            return y
        y = half_of(y + x / y)
    return y


def half_of(x):
    return x * 0.5


def scaled(x, y):
    total = 0.0
    for k in range(3):
        total += x * y * k
    return total


def test_a_users_function_with_a_loop(device):
    op = tg.elementwise(newton)
    x = RNG.uniform(0.5, 4.0, 21)
    got, expected = both(op, x, device=device)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_a_users_derivative(device):
    op = tg.elementwise(scaled)

    @op.derivative
    def _(x, y):
        total = 0.0
        for k in range(3):
            total += k
        return total * y, total * x

    x = tg.tensor(RNG.standard_normal(9), device=device, requires_grad=True)
    y = tg.tensor(RNG.standard_normal(9), device=device, requires_grad=True)
    op(x, y).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 3 * y.numpy())
    np.testing.assert_allclose(y.grad.numpy(), 3 * x.numpy())


def sums(x, y):
    """Another op, a branch, a loop: what is derived for the CPU by dual numbers."""
    total = x * 0.0
    for k in range(3):
        total += tg.sigmoid(x * k) * y if x > 0 else half_of(x * y)
    return total


@pytest.mark.parametrize("function, arity", [(newton, 1), (sums, 2)])
def test_derived_derivatives_are_those_of_the_cpu(function, arity, device):
    op = tg.elementwise(function)
    arrays = [RNG.uniform(0.5, 3.0, 9) * (-1.0) ** (np.arange(9) if arity == 2 else 0) for _ in range(arity)]

    def slopes(where: str) -> list[np.ndarray]:
        xs = [tg.tensor(a, device=where, requires_grad=True) for a in arrays]
        op(*xs).sum().backward()
        second = tg.hvp(lambda *ts: op(*ts).sum(), [x.detach() for x in xs], [tg.ones_like(x.detach()) for x in xs])
        return [t.numpy() for t in (*(x.grad for x in xs), *(second if isinstance(second, tuple) else (second,)))]

    for got, expected in zip(slopes(device), slopes("cpu"), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


def test_what_a_users_function_cannot_be(device):
    def down(x):
        return down(x - 1) if x > 0 else x

    op = tg.elementwise(down)
    with pytest.raises(KernelError, match="calls itself"):
        op(tg.tensor([1.0], device=device))


# the simulator sees what a GPU would not say


def test_an_access_outside_an_operand_is_seen(device):
    @template.template("x: *float32, n: int")
    def beyond(x, n):
        x[n] = float32(1)  # noqa: F821

    x = np.zeros(4, np.float32)
    memory = cuda_simulator.Memory(x.ctypes.data, layout((4,), tg.float32))
    launch = template.Launch(beyond.bind(), 1, 1, (0,), (4,))
    with pytest.raises(IndexError, match="element 4 lies outside the operand, which has 4"):
        cuda_simulator.start(launch, [memory])


def test_templates_say_what_is_wrong():
    with pytest.raises(KernelError, match=r"template f: 'x' is not 'name: \*T' or 'name: int'"):
        template.Template(f, "x")
    with pytest.raises(KernelError, match=r"template f takes \('x', 'n'\), but its signature says \('x',\)"):
        template.Template(f, "x: *T")
    with pytest.raises(KernelError, match="a kernel needs a dtype for T"):
        template.Template(f, "x: *T, n: int").bind()
    kernel = template.Template(f, "x: *T, n: int").bind(T=tg.float32)
    with pytest.raises(KernelError, match="takes 2 arguments"):
        template.Launch(kernel, 1, 1, (0,))


def f(x, n):
    x[0] = n
