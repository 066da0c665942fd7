"""Ops of the user: scalar functions that are read or compiled, array kernels, their derivatives and their errors."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from numba import njit

import tapegrad as tg
from tapegrad.errors import DtypeError, GradientError, KernelError, ShapeError, TapeError
from tapegrad.kernels.elementwise import driver

SCALE = 1.5


@njit
def triple(x):
    return 3.0 * x


@njit
def factorial(n):
    return 1.0 if n < 2 else n * factorial(n - 1)


def plain_helper(x):
    total = 0.0
    for k in range(3):
        total += x**k
    return total


# Scalar functions, each with points where it is smooth. Those named `read_` become expressions.


def read_formula(x):
    return math.exp(-x * x) * SCALE


def read_branch(x, y):
    return x * y if x > 0.0 else math.sin(x)


def fixed_loop(x):
    total = 0.0
    for _ in range(4):
        total = total * x + 1.0
    return total


def while_loop(x):
    n = 0
    while abs(x) > 0.1:
        x = x * x / 3
        n += 1
    return n * x


def newton(a):
    y = 1.0
    for _ in range(30):
        y = 0.5 * (y + (1.0 + a * a) / y)
    return y


def branch_in_loop(x, y):
    total = 0.0
    for k in range(5):
        total += x * k if x * k < y else y * y
    return total


def calls(x, y):
    total = 0.0
    for _ in range(2):
        total += triple(x) * y + plain_helper(y) * factorial(4) + x
    return total


def gamma(x):
    return math.gamma(2.5 + 0.2 * x)


def three(x, y, z=0.5):
    for _ in range(2):
        x = x * y + z
    return x


def four(a, b, c, d):
    for _ in range(2):
        a = a * b + c * d
    return a


def closure(k):
    def scaled(x):
        total = 0.0
        for i in range(3):
            total += k * x**i
        return total

    return scaled


@njit
def jitted(x):
    total = x
    for _ in range(2):
        total *= x
    return total


SCALARS = [
    read_formula, read_branch, fixed_loop, while_loop, newton, branch_in_loop, calls, gamma, three, four, closure(2.5),
    jitted, lambda x: sum((x, x * x, x * x * x)),
]  # fmt: skip


@pytest.mark.parametrize("function", SCALARS, ids=lambda f: f.__name__.strip("<>"))
def test_values_and_derivatives(function):
    """Values against Python, first and second derivatives against differences, in several shapes and strides."""
    op = tg.elementwise(function)
    assert op.unreadable is None
    samples = None if op.arity < 3 else [{"shapes": ((4,), (3, 1), (), (3, 4))[: op.arity]}]
    tg.testing.check_op(op, [{"domain": (0.35, 1.9)}] if function is while_loop else samples)
    assert (op.unreadable is None) == function.__name__.startswith("read_")


@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_strides_and_broadcasting(dtype, rng):
    """Any strides, negative and zero ones, and threads."""
    op = tg.elementwise(branch_in_loop)
    python = np.vectorize(branch_in_loop, otypes=[np.float64])
    x, y = rng.normal(size=(3, 4, 10)), rng.normal(size=(4, 1))
    tx, ty = tg.tensor(x, dtype=dtype), tg.tensor(y, dtype=dtype)
    tolerance = 1e-5 if dtype is tg.float32 else 1e-12
    cases = [
        (tx, ty, x, y),
        (tx[:, ::2, ::3], ty[::2], x[:, ::2, ::3], y[::2]),
        (tx.T, ty, x.T, y),
        (tx.flip(2), 0.5, x[..., ::-1], 0.5),
        (tg.broadcast_to(ty, (2, 4, 3)), ty, np.broadcast_to(y, (2, 4, 3)), y),
        (tx[0, 0, 0], 1, x[0, 0, 0], 1.0),
        (tx[:0], ty, x[:0], y),
    ]
    for a, b, pa, pb in cases:
        result = op(a, b)
        assert result.dtype is dtype
        shape = np.broadcast_shapes(np.shape(pa), np.shape(pb))
        expected = python(pa, pb) if math.prod(shape) else np.zeros(shape)
        np.testing.assert_allclose(result.numpy(), expected, rtol=tolerance, atol=tolerance)
    many = rng.normal(size=100_000)
    before = tg.get_num_threads()
    tg.set_num_threads(2)
    try:
        np.testing.assert_allclose(op(tg.tensor(many), 0.3).numpy(), python(many, 0.3), rtol=1e-12)
    finally:
        tg.set_num_threads(before)


def test_third_derivative():
    """Derivatives of every order."""
    op = tg.elementwise(closure(1.0))  # 1 + x + x²
    cubed = tg.elementwise(jitted)  # x³

    def third(f):
        d = lambda g: tg.grad(lambda x: g(x).sum())  # noqa: E731
        return d(d(d(f)))(tg.tensor([0.5, 2.0], dtype=tg.float64)).numpy()

    np.testing.assert_allclose(third(cubed), [6.0, 6.0])
    np.testing.assert_allclose(third(op), [0.0, 0.0], atol=1e-15)


def test_mixed_dtypes():
    """Integers compute in float32 unless the rule says otherwise; floats meet."""
    op = tg.elementwise(branch_in_loop)
    assert op(tg.tensor([1, 2]), tg.tensor([2, 3])).dtype is tg.float32
    assert op(tg.tensor([1, 2]), tg.tensor([2.0], dtype=tg.float64)).dtype is tg.float64
    assert op(tg.tensor([True]), tg.tensor([0.5])).numpy() == branch_in_loop(1.0, 0.5)

    @tg.elementwise(dtypes="arith")
    def collatz(n):
        count = 0
        while n != 1:
            n = n // 2 if n % 2 == 0 else 3 * n + 1
            count += 1
        return count

    for dtype in (tg.int32, tg.int64):
        counted = collatz(tg.tensor([1, 2, 27], dtype=dtype))
        assert counted.dtype is dtype
        assert counted.tolist() == [0, 1, 111]

    @tg.elementwise(dtypes="compare")
    def prime(n):
        k = 2
        while k * k <= n:
            if n % k == 0:
                return False
            k += 1
        return n > 1

    assert prime(tg.tensor([1, 2, 27, 29])).tolist() == [False, True, False, True]


def test_explicit_derivative():
    """Read, compiled, and wrong: `.derivative` is what backward uses, and check_op finds a wrong one."""

    def slope(op, *at):
        inputs = [tg.tensor([v], dtype=tg.float64, requires_grad=True) for v in at]
        op(*inputs).sum().backward()
        return [x.grad.item() for x in inputs]

    read = tg.elementwise(newton)
    read.derivative(lambda a: a / math.sqrt(1.0 + a * a))
    tg.testing.check_op(read)

    compiled = tg.elementwise(lambda x, n: sum((n * x, x * x)))

    @compiled.derivative
    def _(x, n):
        slope = n
        for _ in range(2):
            slope += x
        return slope, x

    tg.testing.check_op(compiled)

    wrong = tg.elementwise(newton)

    @wrong.derivative
    def _(a):
        for _ in range(1):
            a *= 10.0
        return a

    assert slope(wrong, 2.0) == [20.0]
    with pytest.raises(GradientError):
        tg.testing.check_op(wrong)


def test_calls_of_other_ops():
    """An op is a function to another op, as a global and as an attribute."""
    cubed = tg.elementwise(jitted)

    @tg.elementwise
    def calling(x):
        total = 0.0
        for _ in range(2):
            total += cubed(x) + tg.tanh(x) + tg.sigmoid(x)
        return total

    x = np.array([0.3, -1.2])
    expected = 2 * (x**3 + np.tanh(x) + 1 / (1 + np.exp(-x)))
    np.testing.assert_allclose(calling(tg.tensor(x)).numpy(), expected, rtol=1e-14)
    tg.testing.check_grads(calling, x)


def test_slope_zero_beats_an_infinite_gradient():
    """A branch that was not taken gives 0, whatever comes in."""

    @tg.elementwise
    def flat(x):
        for _ in range(2):
            x = x if x > 0.0 else 0.0
        return x

    x = tg.tensor([-1.0, 1.0], requires_grad=True)
    flat(x).backward(tg.tensor([math.inf, 2.0]))
    assert x.grad.tolist() == [0.0, 2.0]


def test_function_that_allocates():
    """Arrays inside a function work through Numba's runtime."""

    @tg.elementwise
    def median(x):
        t = np.array([x, 1.0, -1.0])
        return np.sort(t)[1]

    assert median(tg.tensor([-3.0, 0.25, 3.0])).tolist() == [-1.0, 0.25, 1.0]


def test_without_source():
    """A function from a string, with helpers and globals, as in a REPL."""
    scope: dict = {}
    exec("import math\ndef f(x):\n    return math.sin(x) * k + g(x)\ndef g(x):\n    return x * x\nk = 2.0", scope)
    tg.testing.check_op(tg.elementwise(scope["f"]))


def test_redefinition():
    """A second function of the same name is another op."""
    results = []
    for power in (2, 3):

        @tg.elementwise
        def f(x):
            total = 1.0
            for _ in range(power):  # noqa: B023
                total *= x
            return total

        results.append(f(tg.tensor(2.0)).item())
    assert results == [4.0, 8.0]
    assert "f" not in tg.ops.registry.REGISTRY


PROGRAM = """
    import tapegrad as tg
    from numba import njit
    {constant}
    def helper(x):
        return {helper}
    @njit
    def jitted(x):
        return {jitted}
    @tg.elementwise
    def f(x):
        total = 0.0
        for i in range(2):
            total += {body}
        return total
    @tg.kernel("(n)->()")
    def k(x, out):
        out[0] = helper(x[0]) + {body_k}
    x = tg.tensor(3.0, dtype=tg.float64, requires_grad=True)
    y = f(x)
    y.backward()
    print(y.item(), x.grad.item(), k(tg.tensor([3.0])).item(), tg.kernels.jit.statistics()["hits"])
"""
FIRST = {"constant": "C = 1.0", "helper": "x", "jitted": "x", "body": "C * helper(x) + jitted(x)", "body_k": "C"}
EDITS = [
    ({}, 12.0, 4.0, 4.0),
    ({"constant": "C = 10.0"}, 66.0, 22.0, 13.0),
    ({"helper": "2 * x"}, 18.0, 6.0, 7.0),
    ({"jitted": "5 * x"}, 36.0, 12.0, 4.0),
    ({"body": "x", "body_k": "2 * C"}, 6.0, 2.0, 5.0),
]


def test_disk_cache_is_never_stale(tmp_path):
    """After an edit of the function, a constant or a helper, in the next process; unedited code is reused."""
    file = tmp_path / "program.py"
    environment = {**os.environ, "TAPEGRAD_CACHE": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    hits = 0
    for edit, value, slope, kernel in [*EDITS, EDITS[0]]:
        file.write_text(textwrap.dedent(PROGRAM).format(**{**FIRST, **edit}))
        done = subprocess.run([sys.executable, file], env=environment, capture_output=True, text=True, check=True)
        *numbers, hits = map(float, done.stdout.split())
        assert numbers == [value, slope, kernel]
    assert hits >= 3


# Errors of scalar functions


def failing(function, *arguments, error=KernelError, dtypes="float"):
    with pytest.raises(error) as caught:
        tg.elementwise(dtypes=dtypes)(function)(*arguments)
    return str(caught.value)


def uncompilable(x):
    for _ in range(3):
        x = x + open("file")  # noqa: SIM115
    return x


def undefined(x):
    for _ in range(3):
        x = x + nowhere(x)  # type: ignore[name-defined]  # noqa: F821
    return x


def returns_pair(x):
    for _ in range(3):
        x += 1.0
    return x, x


def returns_array(x):
    return np.zeros(3) + x


def returns_nothing(x):
    for _ in range(3):
        x += 1.0


def returns_sometimes(x):
    for _ in range(3):
        if x > 1.0:
            return None
    return x


X = np.array([0.5, 2.0])


def test_uncompilable_function():
    """One sentence: name, file and line, the line itself, the reason; Numba's text behind it."""
    for function, words in ((uncompilable, 'x = x + open("file")'), (undefined, "x = x + nowhere(x)")):
        with pytest.raises(KernelError) as caught:
            tg.elementwise(function)(X)
        text = str(caught.value)
        assert f"{function.__name__} ({__file__}:{function.__code__.co_firstlineno})" in text
        assert words in text
        assert "\n" not in text
        assert len(text) < 600
        assert caught.value.__cause__ is not None
    assert "nowhere" in text


def test_function_that_returns_no_number():
    assert "returns a tuple of 2; an elementwise function returns one number" in failing(returns_pair, X)
    assert "returns an array" in failing(returns_array, X)
    assert "returns nothing" in failing(returns_nothing, X)
    assert "nothing on others" in failing(returns_sometimes, X)
    assert "returns a tuple of 2" in failing(lambda x: (x, x), X)


def test_wrong_parameters():
    assert "takes 5 inputs; an elementwise function takes 1 to 4" in failing(lambda a, b, c, d, e: a)
    assert "takes 0 inputs" in failing(lambda: 1.0)
    assert "has the parameter *a" in failing(lambda *a: a)
    assert "not a Python function" in failing(math.sin)
    assert "dtypes='any' is not one of" in failing(lambda x: x, dtypes="any", error=DtypeError)
    assert "Leave dtypes out" in failing(while_loop, tg.tensor([1, 2]), dtypes="arith")


def test_derivative_of_wrong_length():
    op = tg.elementwise(branch_in_loop)

    @op.derivative
    def _(x, y):
        for _ in range(2):
            x = x * y
        return x

    x = tg.tensor(X, requires_grad=True)
    with pytest.raises(KernelError, match="returns 1 value for 2 inputs; return one partial derivative per input"):
        op(x, 1.0).sum().backward()
    op.derivative(lambda x, y: (x, y, x))
    with pytest.raises(DtypeError, match="returns 3 values for 2 inputs"):
        op(x, 1.0).sum().backward()


def test_exception_in_a_scalar_function():
    @tg.elementwise
    def positive(x):
        if x <= 0.0:
            raise ValueError("not positive")
        return x

    assert positive(X).tolist() == X.tolist()
    with pytest.raises(KernelError, match="positive: the function raised an exception"):
        positive(-X)


# Array kernels


@tg.kernel("(m,k),(k,n)->(m,n)")
def product(a, b, out):
    """Matrix product."""
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            total = a[i, 0] * 0
            for l in range(a.shape[1]):  # noqa: E741
                total += a[i, l] * b[l, j]
            out[i, j] = total


@product.adjoint
def _(g, y, a, b):
    return g @ b.swapaxes(-1, -2), a.swapaxes(-1, -2) @ g


@tg.kernel("(n)->()")
def total(x, out):
    out[0] = 0
    for i in range(x.shape[0]):
        out[0] += x[i]


@tg.kernel("(n),()->(m),()", sizes=lambda n: {"m": n - 1})
def steps_and_mean(x, c, steps, mean):
    """c times the differences of neighbours, and the mean of squares."""
    mean[0] = 0
    for i in range(x.shape[0]):
        mean[0] += x[i] * x[i] / x.shape[0]
    for i in range(steps.shape[0]):
        steps[i] = c * (x[i + 1] - x[i])


@tg.kernel("(m),(),(m),(),(n),()->(n),()")
def steps_and_mean_adjoint(gs, gm, steps, mean, x, c, gx, gc):
    gc[0] = 0
    for i in range(x.shape[0]):
        gx[i] = 2 * gm * x[i] / x.shape[0]
    for i in range(gs.shape[0]):
        gx[i] -= c * gs[i]
        gx[i + 1] += c * gs[i]
        gc[0] += gs[i] * (x[i + 1] - x[i])


steps_and_mean.adjoint(steps_and_mean_adjoint)


def test_kernels_checked():
    """check_op takes samples from the layout; an adjoint in ops has a second derivative."""
    tg.testing.check_op(product)
    tg.testing.check_op(steps_and_mean, order=1)


@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_kernel_values(dtype, rng):
    """Broadcast dimensions in front, strided inputs, scalars, several outputs."""
    a, b = rng.normal(size=(2, 1, 3, 4)), rng.normal(size=(5, 4, 2))
    ta, tb = tg.tensor(a, dtype=dtype), tg.tensor(b, dtype=dtype)
    tolerance = 1e-5 if dtype is tg.float32 else 1e-12
    result = product(ta, tb)
    assert result.shape == (2, 5, 3, 2)
    assert result.dtype is dtype
    np.testing.assert_allclose(result.numpy(), a @ b, rtol=tolerance, atol=tolerance)
    left, right = b[..., ::-1], a[0, 0].T[:2]
    turned = product(tb[..., ::-1], ta[0, 0].T[:2])
    np.testing.assert_allclose(turned.numpy(), left @ right, rtol=tolerance, atol=tolerance)

    steps, mean = steps_and_mean(ta, 2.0)
    np.testing.assert_allclose(steps.numpy(), 2.0 * np.diff(a), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(mean.numpy(), np.mean(a * a, -1), rtol=tolerance, atol=tolerance)
    assert mean.dtype is dtype


def test_kernel_of_empty_dimensions():
    assert total(tg.ones((3, 0))).tolist() == [0.0, 0.0, 0.0]
    assert total(tg.ones((0, 3))).shape == (0,)
    assert total(tg.ones(4)).shape == ()
    assert product(tg.ones((0, 2)), tg.ones((2, 3))).shape == (0, 3)


def test_kernel_split_among_threads(rng):
    x = rng.normal(size=(4000, 100))
    before = tg.get_num_threads()
    tg.set_num_threads(2)
    try:
        np.testing.assert_allclose(total(tg.tensor(x)).numpy(), x.sum(1), rtol=1e-9, atol=1e-12)
    finally:
        tg.set_num_threads(before)


def test_kernel_dtypes():
    """Integer inputs stay integers, floats meet, output dtypes can be fixed."""

    @tg.kernel("(n),(k)->(k),()", dtypes=(None, tg.int64))
    def gather(x, places, out, largest):
        largest[0] = places[0]
        for i in range(places.shape[0]):
            out[i] = x[places[i]]
            largest[0] = max(largest[0], places[i])

    out, largest = gather(tg.tensor([1.0, 2.0, 3.0]), tg.tensor([[2, 0], [1, 1]]))
    assert out.tolist() == [[3.0, 1.0], [2.0, 2.0]]
    assert largest.tolist() == [2, 1]
    assert largest.dtype is tg.int64
    mixed = product(tg.ones((2, 2)), tg.ones((2, 2), dtype=tg.float64))
    assert mixed.dtype is tg.float64

    @tg.kernel("(3),(3)->(3)")
    def cross(a, b, out):
        for i in range(3):
            j, k = (i + 1) % 3, (i + 2) % 3
            out[i] = a[j] * b[k] - a[k] * b[j]

    assert cross(tg.tensor([1.0, 0, 0]), tg.tensor([[0, 1.0, 0], [0, 0, 1.0]])).tolist() == [[0, 0, 1], [0, -1, 0]]
    with pytest.raises(ShapeError, match=r"dimension 3 of the layout \(3\),\(3\)->\(3\)"):
        cross(tg.ones(2), tg.ones(2))


def test_gradient_of_one_output_alone():
    """The other output's gradient is zeros."""
    x = tg.tensor([1.0, 3.0, 2.0], requires_grad=True)
    steps_and_mean(x, 2.0)[0].sum().backward()
    assert x.grad.tolist() == [-2.0, 0.0, 2.0]


def test_kernel_without_adjoint():
    x = tg.tensor([1.0, 3.0], requires_grad=True)
    with pytest.raises(TapeError, match=r"total has no adjoint for an input.*@total.adjoint.*\.detach\(\)"):
        total(x).backward()


def test_kernel_of_wrong_shapes():
    with pytest.raises(ShapeError, match=r"dimension k of the layout \(m,k\),\(k,n\)->\(m,n\) is 3 and, in input 1, 2"):
        product(tg.ones((2, 3)), tg.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"input 0 has shape \(3,\); the layout .* wants at least 2 dim"):
        product(tg.ones(3), tg.ones((3, 2)))
    with pytest.raises(ShapeError, match=r"do not broadcast.*in front of the layout \(m,k\)"):
        product(tg.ones((2, 2, 2)), tg.ones((3, 2, 2)))
    with pytest.raises(ShapeError, match=r"product\(a, b\) of layout .*missing a required argument: 'b'"):
        product(tg.ones((2, 2)))


def test_layout_errors():
    with pytest.raises(ShapeError, match="is not a layout"):
        tg.kernel("(n->()")
    with pytest.raises(ShapeError, match="give the layout first"):
        tg.kernel(total.fn)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="no input has the dimension m; give its size, as in sizes=lambda n"):
        tg.kernel("(n)->(m)")
    with pytest.raises(ShapeError, match=r"takes 2 arguments; the layout .* has 2 inputs and 1 outputs"):
        tg.kernel("(n),(n)->()")(lambda x, out: None)
    wrong = tg.kernel("(n)->(m)", sizes=lambda n: {"k": n})(lambda x, out: None)
    with pytest.raises(ShapeError, match="sizes must return a dict with a whole number for m"):
        wrong(tg.ones(3))


def test_a_kernel_named_like_an_op_gets_its_arrays_in_c_order(rng):
    """Views that the library's op of that name takes as they are."""

    @tg.kernel("(m,n)->(n)")
    def matmul(x, out):
        for j in range(x.shape[1]):
            out[j] = x[0, j]

    x = rng.normal(size=(3, 4))
    assert matmul(tg.tensor(x).T).tolist() == x[:, 0].tolist()


def test_errors_of_cuda_bodies():
    """Those that can be told before anything runs, without a GPU and without numba-cuda."""
    with pytest.raises(
        ShapeError, match=r"total.cuda: few \(.*\) takes 1 arguments; the layout \(n\)->\(\) has 1 inputs and 1 out"
    ):

        @total.cuda
        def few(x):
            pass

    with pytest.raises(KernelError, match="total.cuda: .* is not a Python function"):
        total.cuda(math.sin)

    def body(x, out):
        pass

    with pytest.raises(
        KernelError, match="total.cuda: block=2048 is 2,048 threads; a block has 1,024 at most. Further threads"
    ):
        total.cuda(body, block=2048)
    with pytest.raises(KernelError, match=r"block=\(64, 32\) is 2,048 threads"):
        total.cuda(block=(64, 32))(body)
    with pytest.raises(KernelError, match="block=0 has no threads; a block has 1 to 1,024"):
        total.cuda(body, block=0)
    with pytest.raises(KernelError, match="threads is a whole number or a pair of them, not 1.5"):
        total.cuda(body, threads=1.5)
    with pytest.raises(ShapeError, match=r"total.cuda: threads takes 'm'; the dimensions of \(n\)->\(\) are n"):
        total.cuda(body, threads=lambda m: m)
    with pytest.raises(KernelError, match="serial=True is one thread for a call; leave out threads=4"):
        total.cuda(body, threads=4, serial=True)
    assert total.cuda_kernel is None


def test_kernel_that_fails():
    """An exception, an index out of bounds where that is checked, a write to an input, a result returned."""

    @tg.kernel("(n)->()")
    def positive(x, out):
        if x[0] <= 0:
            raise ValueError("not positive")
        out[0] = x[0]

    assert positive(tg.tensor([[1.0], [2.0]])).tolist() == [1.0, 2.0]
    with pytest.raises(KernelError, match="positive: the function raised an exception on these values"):
        positive(tg.tensor([[1.0], [-1.0], [2.0]]))

    @tg.kernel("(n)->()", boundscheck=True)
    def beyond(x, out):
        out[0] = x[x.shape[0]]

    with pytest.raises(KernelError, match="beyond: the function raised an exception"):
        beyond(tg.ones(3))

    @tg.kernel("(n)->(n)")
    def writes_input(x, out):
        x[0] = 1.0

    with pytest.raises(KernelError, match=r"writes_input .* cannot be compiled by Numba .*readonly array"):
        writes_input(tg.ones(3))

    @tg.kernel("(n)->(n)")
    def returning(x, out):
        return out

    with pytest.raises(KernelError, match="an array kernel returns nothing and writes its outputs"):
        returning(tg.ones(3))


def test_kernel_that_allocates(rng):
    """NumPy functions inside a kernel work through Numba's runtime."""

    @tg.kernel("(n)->()")
    def median(x, out):
        out[0] = np.median(x)

    x = rng.normal(size=(4, 7))
    np.testing.assert_allclose(median(tg.tensor(x)).numpy(), np.median(x, 1))


def test_driver_is_unchanged_for_expressions():
    """Kernels of expressions pay nothing for the statuses of compiled ones."""
    assert "%tail" not in driver(["f32", "f32"], "k")
    assert "%status" in driver(["f32", "f32"], "k", checked=True)


def test_a_file_edited_after_import_does_not_change_the_function(tmp_path):
    path = tmp_path / "edited.py"
    path.write_text("import math\n\n\ndef f(x):\n    return math.exp(x) + 1.0\n")
    spec = importlib.util.spec_from_file_location("edited", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path.write_text("import math\n\n\ndef f(x):\n    return math.exp(x) - 1.0\n")
    assert tg.elementwise(module.f)(0.0).item() == 2.0
