"""Derivatives with a mistake planted in each: check_grads and check_op find them all, and let the right ones pass."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tapegrad as tg
from tapegrad.errors import DtypeError, GradientError, TapeError, TapegradError
from tapegrad.ops import linalg, movement, reduce
from tapegrad.ops.registry import Op

SQUARE = [dict(shapes=((4, 4),))]
PAIR = [dict(shapes=((4, 4), (4, 4)))]


def scalar(fn, derivative=None) -> Op:
    """An elementwise op outside the registry."""
    op = Op("planted", fn, "elementwise")
    if derivative is not None:
        op.derivative(derivative)
    return op


def borrowed(original: Op, adjoint, index=0, infer=None, **attrs) -> Op:
    """An op with the kernel and shape rule of another, and an adjoint of its own (none at all: None)."""
    op = Op(
        "planted",
        lambda *tensors: (tensors, attrs),
        original.kind,
        builder=original.builder,
        arity=len(original.tensor_places),
    )
    op.infer = infer or original.infer
    if index is not None:
        op.adjoints, op.saves = dict(original.adjoints), dict(original.saves)
    if adjoint is None:
        del op.adjoints[index]
    else:
        op.adjoint(index)(adjoint)
    return op


# elementwise: the mistake is in a scalar formula


def sine(x):
    return math.sin(x)


def minus_cosine(x):
    return -math.cos(x)


def square(x):
    return x * x


def just_x(x):
    return x


def ratio(x, y):
    return x / (y + 3.0)


def ratio_swapped(x, y):
    return -x / ((y + 3.0) * (y + 3.0)), 1.0 / (y + 3.0)


def ratio_without_y(x, y):
    return 1.0 / (y + 3.0), 0.0


def kinked(x):
    return 3.0 * x if x > 0.0 else 0.5 * x


def kinked_the_wrong_way(x):
    return 0.5 if x > 0.0 else 3.0


def stepped(x):
    return math.exp(x)


def slope_as_a_constant(x):
    return math.floor(math.exp(x) * 1e9) / 1e9


# primitives: the mistake is in an adjoint written in ops


def total(adjoint, **how) -> Op:
    return borrowed(reduce.sum_, adjoint, axes=(1,), keepdims=False, **how)


def product(adjoint, index=0) -> Op:
    return borrowed(linalg.matmul_kernel, adjoint, index)


def stale() -> Op:
    stash = {}

    def times(x):
        stash["x"] = x.detach()  # one place for all calls, instead of a saved input
        return (x, x), {}

    op = Op("planted", times, "primitive", builder="matmul", arity=1)
    op.infer = linalg.matmul_kernel.infer
    op.adjoint(0)(lambda g, y, a, b: g @ stash["x"].T)
    op.adjoint(1)(lambda g, y, a, b: stash["x"].T @ g)
    return op


def overwriting(x):
    y = x.detach().copy()
    z = x * y
    y.copy_(z.detach())
    return z


def float32_shape(x, axes, keepdims):
    return x.shape[:1], tg.float32


OPS = {
    "sign": (scalar(sine, minus_cosine), None),
    "factor": (scalar(square, just_x), None),
    "swapped inputs": (scalar(ratio, ratio_swapped), None),
    "one input ignored": (scalar(ratio, ratio_without_y), None),
    "branches exchanged": (scalar(kinked, kinked_the_wrong_way), None),
    "right at first order, constant at second": (scalar(stepped, slope_as_a_constant), None),
    "g forgotten": (total(lambda g, y, x, axes, keepdims: tg.ones_like(x)), SQUARE),
    "g squared": (total(lambda g, y, x, axes, keepdims: tg.broadcast_to((g * g).reshape(4, 1), (4, 4))), SQUARE),
    "wrong axis": (total(lambda g, y, x, axes, keepdims: tg.broadcast_to(g.reshape(1, 4), (4, 4))), SQUARE),
    "a mean's 1/n on a sum": (
        total(lambda g, y, x, axes, keepdims: tg.broadcast_to(g.reshape(4, 1), (4, 4)) / 4.0),
        SQUARE,
    ),
    "wrong shape": (total(lambda g, y, x, axes, keepdims: tg.broadcast_to(g.reshape(4, 1), (4, 3))), SQUARE),
    "not a tensor": (total(lambda g, y, x, axes, keepdims: np.ones((4, 4))), SQUARE),
    "rounded to float32": (
        total(lambda g, y, x, axes, keepdims: tg.broadcast_to(g.reshape(4, 1), (4, 4)).astype(tg.float32)),
        SQUARE,
    ),
    "wrong dtype of the result": (total(reduce.sum_.adjoints[0], infer=float32_shape), SQUARE),
    "reads the memory of g": (
        total(
            lambda g, y, x, axes, keepdims: (
                tg.broadcast_to(g.reshape(4, 1), (4, 4)) * (1.0 if g.is_contiguous() else 2.0)
            )
        ),
        SQUARE,
    ),
    "missing broadcast sum": (
        borrowed(movement.broadcast_view, lambda g, y, x, shape: g[0], shape=(5, 3)),
        [dict(shapes=((3,),))],
    ),
    "off by one": (
        borrowed(
            movement.slice_view,
            lambda g, y, x, starts, sizes, steps: movement.embed(g, x.shape, (0, 0), (1, 1)),
            starts=(1, 1),
            sizes=(3, 3),
            steps=(1, 1),
        ),
        SQUARE,
    ),
    "running sum not turned round": (
        borrowed(reduce.cumsum_kernel, lambda g, y, x, axis: reduce.cumsum_kernel(g, axis), axis=1),
        SQUARE,
    ),
    "not transposed": (product(lambda g, y, a, b: g @ b), PAIR),
    "factors exchanged": (product(lambda g, y, a, b: g @ a.T, 1), PAIR),
    "detached: right at first order, zero at second": (product(lambda g, y, a, b: g @ b.detach().T), PAIR),
    "one gradient for two inputs": (product(lambda g, y, a, b: (g @ b.T,), None), PAIR),
    "None for an input that matters": (product(lambda g, y, a, b: (g @ b.T, None), None), PAIR),
    "no adjoint for an input": (product(None), PAIR),
    "stale save": (stale(), SQUARE),
}

FUNCTIONS = {
    "saved value overwritten": (overwriting, ([1.0, 2.0],)),
    "detached": (lambda x: x * x.detach(), ([1.0, 2.0],)),
    "detached in part of a dict": (lambda x: {"a": x, "b": (x.exp().detach(), x)}, ([1.0, 2.0],)),
    "different every time": (lambda x: x * tg.uniform(size=2, dtype="float64"), ([1.0, 2.0],)),
    "rounding": (lambda x: tg.round(x * 1e4) / 1e4 + x.detach(), ([1.0, 2.0],)),
}


@pytest.mark.parametrize("name", OPS)
def test_planted_in_an_op(name):
    op, samples = OPS[name]
    with pytest.raises(TapegradError):
        tg.testing.check_op(op, samples)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_planted_in_a_function(name):
    f, args = FUNCTIONS[name]
    with pytest.raises(TapegradError):
        tg.testing.check_grads(f, *args)


@pytest.mark.parametrize(
    ("op", "samples"),
    [
        (scalar(sine, lambda x: math.cos(x)), None),
        (scalar(ratio), None),
        (total(reduce.sum_.adjoints[0]), SQUARE),
        (product(linalg.matmul_kernel.adjoints[0]), PAIR),
        (
            borrowed(movement.slice_view, movement.slice_view.adjoints[0], starts=(1, 1), sizes=(3, 3), steps=(1, 1)),
            SQUARE,
        ),
    ],
    ids=["sine", "ratio", "sum", "product", "slice"],
)
def test_right_ones_pass(op, samples):
    tg.testing.check_op(op, samples)


def test_second_order_mistakes_pass_at_first_order():
    for name in ("right at first order, constant at second", "detached: right at first order, zero at second"):
        op, samples = OPS[name]
        tg.testing.check_op(op, samples, order=1)


def test_wrong_value():
    op = Op("planted", square, "elementwise", reference=lambda x: x * x + 1e-6)
    with pytest.raises(GradientError, match="planted differs from its reference: at element"):
        tg.testing.check_op(op)


def test_message_names_everything():
    with pytest.raises(GradientError) as caught:
        tg.testing.check_op(OPS["one input ignored"][0])
    text = str(caught.value)
    for part in (
        "planted",
        "argument 1",
        "finite differences give",
        "the reverse sweep gives 0",
        "element",
        "expected",
    ):
        assert part in text, text


def test_message_names_the_order():
    with pytest.raises(GradientError, match=r"gradient of planted with respect to argument \d.*second order"):
        tg.testing.check_op(*OPS["detached: right at first order, zero at second"])


def test_an_overwritten_value_is_the_tapes_error():
    with pytest.raises(TapeError, match="overwritten"):
        tg.testing.check_grads(overwriting, [1.0, 2.0])


def test_a_value_kept_outside_is_named():
    with pytest.raises(GradientError, match="kept outside of the saved inputs"):
        tg.testing.check_op(*OPS["stale save"])


def test_chance_is_named():
    with pytest.raises(GradientError, match="fix the seed"):
        tg.testing.check_grads(*FUNCTIONS["different every time"][:1], [1.0, 2.0])


def test_gradient_error_is_an_assertion():
    assert issubclass(GradientError, AssertionError)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: tg.testing.check_grads(lambda x: x, 3), DtypeError, "nothing to differentiate"),
        (lambda: tg.testing.check_grads(lambda x: x > 0, 3.0), DtypeError, "no floating tensor"),
        (lambda: tg.testing.check_grads(lambda x: x, 3.0, order=0), ValueError, "order is at least 1"),
        (lambda: tg.testing.check_grads(lambda x: x, 3.0, modes=("sideways",)), ValueError, "sideways"),
        (lambda: tg.testing.check_grads(tg.log, -1.0), GradientError, "choose arguments where log is smooth"),
        (lambda: tg.testing.check_op(math.sin), DtypeError, "use check_grads"),
        (lambda: tg.testing.check_op(tg.arange), TapegradError, "has no samples"),
    ],
)
def test_bad_calls(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_arguments_of_every_kind():
    """Integers, flags and strings pass through; floats, lists, arrays and tensors are differentiated in float64."""
    seen = []

    def f(x, y, z, k, flag, name, index):
        seen.append((x.dtype, y.dtype, z.dtype, k, flag, name, index.dtype))
        return {"a": x * y, "b": [(z**k)[index], tg.argmax(z)]}

    tg.testing.check_grads(
        f,
        2.0,
        np.float32([1, 2]),
        tg.tensor([3.0, 4.0]),
        3,
        True,
        "n",
        np.array([0, 1, 1]),
        modes=("forward", "reverse"),
        order=3,
    )
    assert set(seen) == {(tg.float64, tg.float64, tg.float64, 3, True, "n", tg.int64)}
