"""Errors are sentences: which op, what came, what was wanted. Nonsense never gets past them, empty tensors are no nonsense."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tapegrad as tg
from tapegrad import nn
from tapegrad.errors import DtypeError, IndexOutOfRange, KernelError, OutOfMemory, ShapeError, TapeError, TapegradError
from tapegrad.ops import registry

F = nn.functional


def z(*shape: int, dtype="float32") -> tg.Tensor:
    return tg.zeros(shape, dtype=dtype)


ENDLESS: list = []
ENDLESS.append(ENDLESS)

SENTENCES = {
    # shapes
    "add": (
        lambda: z(2, 3) + z(4),
        ShapeError,
        r"add: shapes \(2, 3\) and \(4,\) do not broadcast: lengths \[3, 4\] meet at axis -1",
    ),
    "where": (lambda: tg.where(z(2) > 0, z(3), z(1)), ShapeError, r"where: shapes .*do not broadcast"),
    "matmul": (lambda: z(2, 3) @ z(4, 5), ShapeError, r"matmul: .*\(2, 3\).*\(4, 5\)"),
    "matmul batch": (
        lambda: z(2, 3, 4) @ z(3, 4, 5),
        ShapeError,
        r"matmul: leading axes \(2,\) and \(3,\) do not broadcast",
    ),
    "matmul 0-d": (lambda: z(2, 3) @ tg.tensor(1.0), ShapeError, "matmul: "),
    "dot": (lambda: tg.dot(z(2), z(3)), ShapeError, r"(dot|matmul): .*\(2,\).*\(3,\)"),
    "reshape": (lambda: z(2, 3).reshape((4, 2)), ShapeError, r"reshape: shape \(2, 3\) has 6 elements"),
    "reshape twice -1": (lambda: z(2, 3).reshape((-1, -1)), ShapeError, "reshape: .*-1"),
    "reshape by a remainder": (lambda: z(2, 3).reshape((4, -1)), ShapeError, "reshape: "),
    "reshape of nothing": (lambda: z(0, 3).reshape((0, -1)), ShapeError, "reshape: "),
    "concatenate": (lambda: tg.concatenate([z(2, 3), z(2, 4)], 0), ShapeError, r"concatenate: .*\(2, 4\).*\(2, 3\)"),
    "concatenate of nothing": (lambda: tg.concatenate([], 0), ShapeError, "concatenate: "),
    "concatenate of numbers": (lambda: tg.concatenate([tg.tensor(1.0), tg.tensor(2.0)]), ShapeError, "concatenate: "),
    "stack": (lambda: tg.stack([z(2), z(3)]), ShapeError, r"stack: .*\(3,\).*\(2,\)"),
    "stack of nothing": (lambda: tg.stack([]), ShapeError, "stack: "),
    "split": (lambda: tg.split(z(5), 2), ShapeError, "split: .*5"),
    "broadcast_to": (lambda: tg.broadcast_to(z(3), (2, 4)), ShapeError, r"broadcast_to: .*\(3,\).*\(2, 4\)"),
    "permute": (lambda: tg.permute(z(2, 3), (0, 0)), ShapeError, "permute: .*0, 0"),
    "permute too few": (lambda: tg.permute(z(2, 3), (0,)), ShapeError, "permute: "),
    "squeeze": (lambda: tg.squeeze(z(2, 3), 0), ShapeError, "squeeze: .*2"),
    "pad": (lambda: tg.pad(z(2), (-1, 0)), ShapeError, "pad: "),
    "einsum": (lambda: tg.einsum("ij,jk->ik", z(2, 3), z(4, 5)), ShapeError, "einsum: "),
    "negative shape": (lambda: tg.zeros((-1, 2)), ShapeError, r"zeros: shape \(-1, 2\) has a negative length"),
    "copy_": (lambda: z(2).copy_(z(3)), ShapeError, "copy_: .*do not broadcast"),
    "linear": (lambda: nn.Linear(3, 4)(z(2, 5)), ShapeError, r"linear: .*5"),
    "solve": (lambda: tg.linalg.solve(z(2, 3), z(3)), ShapeError, r"solve: .*\(2, 3\)"),
    "inv": (lambda: tg.linalg.inv(z(2, 3)), ShapeError, r"inv: .*\(2, 3\)"),
    "topk": (lambda: tg.topk(z(3), 4), ShapeError, "topk: k is 4, and axis 0 has 3"),
    # axes
    "sum axis": (lambda: z(2, 3).sum(2), ShapeError, "sum: .*axis 2.*2"),
    "sum axis below": (lambda: z(2, 3).sum(-3), ShapeError, "sum: .*axis -3"),
    "sum axes twice": (lambda: z(2, 3).sum((0, -2)), ShapeError, "sum: .*"),
    "softmax axis": (lambda: tg.softmax(z(2), 1), ShapeError, "softmax: .*axis 1"),
    "argmax axis": (lambda: z(2).argmax(1), ShapeError, "argmax: .*axis 1"),
    "flip axis": (lambda: tg.flip(z(2), 1), ShapeError, "flip: .*axis 1"),
    "stack axis": (lambda: tg.stack([z(2), z(2)], 3), ShapeError, "stack: .*axis 3"),
    "concatenate axis": (lambda: tg.concatenate([z(2), z(2)], 1), ShapeError, "concatenate: .*axis 1"),
    "swapaxes": (lambda: tg.swapaxes(z(2, 3), 0, 2), ShapeError, "swapaxes: .*axis 2"),
    "expand_dims": (lambda: tg.expand_dims(z(2), 3), ShapeError, "expand_dims: .*axis 3"),
    "cumsum": (lambda: tg.cumsum(z(2), 1), ShapeError, "cumsum: .*axis 1"),
    "sort": (lambda: tg.sort(z(2), 1), ShapeError, "sort: .*axis 1"),
    "axis of another type": (lambda: z(2, 3).sum("x"), DtypeError, "sum: .*axis"),
    "float axis": (lambda: z(2, 3).sum(0.5), DtypeError, "sum: .*axis"),
    # dtypes
    "dtype name": (
        lambda: tg.zeros(2, dtype="int16"),
        DtypeError,
        "dtype 'int16' is not supported; tapegrad has float32",
    ),
    "dtype nonsense": (lambda: tg.tensor([1.0], dtype="nonsense"), DtypeError, "'nonsense'"),
    "dtype object": (lambda: z(2).astype(object), DtypeError, "object"),
    "dtype number": (lambda: z(2).astype(3), DtypeError, "dtype 3"),
    "object array": (lambda: tg.tensor(np.array([object()])), DtypeError, "tensor: data of dtype object"),
    "string beside": (lambda: tg.add(z(2), "one"), DtypeError, "add: "),
    "None": (lambda: tg.exp(None), DtypeError, "exp: "),
    "complex": (lambda: tg.sin(1j), DtypeError, "sin: .*complex128"),
    "float indices": (lambda: tg.take(z(3), z(2)), DtypeError, "take: indices must hold integers, not float32"),
    "float classes": (lambda: tg.one_hot(z(2), 3), DtypeError, "one_hot: x must hold integers"),
    "randint": (lambda: tg.randint(5, 5, size=(2,)), TapegradError, "randint: "),
    "integer gradient": (lambda: tg.tensor([1], requires_grad=True), TapeError, "only floating tensors"),
    # ragged
    "ragged": (lambda: tg.tensor([[1, 2], [3]]), ShapeError, "tensor: the nested lists are ragged"),
    "list in itself": (lambda: tg.tensor(ENDLESS), ShapeError, "tensor: the lists are nested without end"),
    "too many axes": (lambda: tg.zeros((1,) * 70), ShapeError, "70 axes"),
    "too many new axes": (lambda: z(1).reshape((1,) * 70), ShapeError, "70 axes"),
    "index of another kind": (lambda: z(2)[np.array(1.5)], DtypeError, "index: .*1.5.* is not an integer"),
    "ragged in an op": (lambda: tg.add(z(2), [[1], [2, 3]]), ShapeError, "ragged"),
    # indices
    "take": (lambda: tg.take(z(3), tg.tensor([1, 3])), IndexOutOfRange, r"take: .*Indices from 1 to 3.*\(3,\)"),
    "one_hot": (lambda: tg.one_hot(tg.tensor([0, 4]), 3), IndexOutOfRange, "Indices from 0 to 4"),
    "embedding": (lambda: nn.Embedding(3, 2)(tg.tensor([3])), IndexOutOfRange, "Indices from 3 to 3"),
    "cross_entropy": (lambda: F.cross_entropy(z(2, 3), tg.tensor([0, 3])), IndexOutOfRange, "3"),
    "index": (lambda: z(3)[3], IndexOutOfRange, "index: 3 is out of range for axis 0 with 3 elements"),
    # empty reductions
    "max of nothing": (lambda: z(0).max(), ShapeError, "max: .*"),
    "max along nothing": (lambda: z(2, 0).max(1), ShapeError, "max: .*"),
    "argmin of nothing": (lambda: z(0).argmin(), ShapeError, "argmin: .*"),
    # numbers
    "large int": (lambda: tg.tensor(2**70), DtypeError, "tensor: an integer of 71 bits does not fit in int64"),
    "uint8 beside": (
        lambda: tg.tensor([1], dtype=tg.uint8) + 300,
        DtypeError,
        "the Python number 300 does not fit in uint8",
    ),
    "uint8 negative": (lambda: tg.tensor([1], dtype=tg.uint8) + -1, DtypeError, "-1 does not fit in uint8"),
    "int32 beside": (lambda: tg.tensor([1], dtype=tg.int32) * 2**31, DtypeError, "2147483648 does not fit in int32"),
    "int64 beside": (lambda: tg.tensor([1]) + 2**63, DtypeError, "does not fit in int64"),
    "gigantic beside a float": (lambda: z(1) + 10**400, DtypeError, "does not fit in float32"),
    "gigantic beside an int": (lambda: tg.tensor([1]) + 10**5000, DtypeError, "bits does not fit in int64"),
    # linear algebra
    "singular": (lambda: tg.linalg.inv(z(2, 2)), KernelError, "(inv|solve): the matrix is singular"),
    "not positive": (
        lambda: tg.linalg.cholesky(-tg.eye(2)),
        KernelError,
        "cholesky: the matrix is not positive definite",
    ),
    # the tape
    "no gradient": (lambda: z(1).backward(), TapeError, "backward: nothing was recorded"),
    "device": (lambda: z(1).to("tpu"), (DtypeError), "tpu"),
    "device of a new tensor": (lambda: tg.zeros(1, device="tpu"), DtypeError, "device 'tpu' is not known"),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_sentences(name):
    call, error, says = SENTENCES[name]
    with pytest.raises(error, match=says) as caught:
        call()
    sentence = str(caught.value)
    assert len(sentence) > 25 and "\n" not in sentence.strip() and "_kernel" not in sentence


def test_every_error_is_also_python_s():
    for error, parent in [
        (ShapeError, ValueError),
        (IndexOutOfRange, IndexError),
        (DtypeError, TypeError),
        (TapeError, RuntimeError),
        (OutOfMemory, MemoryError),
    ]:
        assert issubclass(error, parent) and issubclass(error, TapegradError)


def test_numbers_at_the_edge():
    assert (tg.tensor([1], dtype=tg.uint8) + 255).tolist() == [0]
    assert (tg.tensor([0]) + (2**63 - 1)).item() == 2**63 - 1
    assert (tg.tensor([0]) + -(2**63)).item() == -(2**63)
    assert (tg.tensor([0.0]) + 1e300).item() == math.inf
    assert (tg.tensor([0.0]) + 10**300).item() == math.inf
    assert tg.zeros(2, dtype=tg.int64).tolist() == [0, 0] and tg.full(2, 3.0, dtype=tg.int32).tolist() == [3, 3]
    with pytest.raises(DtypeError, match=r"2\.5 does not fit in int64"):
        tg.full(2, 2.5, dtype=tg.int64)
    assert (
        math.copysign(1.0, (tg.tensor([1.0]) * -0.0).item()) == -1.0
        and math.copysign(1.0, (tg.tensor([1.0]) * 0.0).item()) == 1.0
    )


EMPTY_SHAPES = [(0,), (0, 3), (3, 0), (2, 0, 3), (0, 0)]
UNARY = ["exp", "sin", "tanh", "sqrt", "abs", "negative", "floor", "sign", "square", "isnan"]


@pytest.mark.parametrize("shape", EMPTY_SHAPES)
def test_empty_inputs_like_numpy(shape):
    values, t = np.zeros(shape, np.float32), z(*shape)
    pairs = [(getattr(tg, n)(t), getattr(np, n)(values)) for n in UNARY]
    pairs += [
        (t + 1.0, values + np.float32(1)),
        (t * t, values * values),
        (t > 0, values > 0),
        (t.T, values.T),
        (t.reshape((-1,)), values.reshape(-1)),
    ]
    pairs += [(t.sum(), values.sum()), (t.prod(), values.prod()), (t.any(), values.any()), (t.all(), values.all())]
    pairs += [(t.sum(a), values.sum(a)) for a in range(t.ndim)] + [
        (t.prod(a, keepdims=True), values.prod(a, keepdims=True)) for a in range(t.ndim)
    ]
    pairs += [(tg.cumsum(t, a), np.cumsum(values, a)) for a in range(t.ndim)] + [
        (tg.sort(t, a), np.sort(values, a)) for a in range(t.ndim)
    ]
    pairs += [(tg.argsort(t, a), np.argsort(values, a)) for a in range(t.ndim)] + [
        (tg.flip(t, a), np.flip(values, a)) for a in range(t.ndim)
    ]
    pairs += [(t.max(a), values.max(a)) for a in range(t.ndim) if shape[a]] + [
        (t.argmax(a), values.argmax(a)) for a in range(t.ndim) if shape[a]
    ]
    pairs += [(tg.concatenate([t, t], a), np.concatenate([values, values], a)) for a in range(t.ndim)] + [
        (tg.stack([t, t]), np.stack([values, values]))
    ]
    pairs += [
        (tg.pad(t, 1), np.pad(values, 1)),
        (tg.tile(t, 2), np.tile(values, 2)),
        (tg.expand_dims(t, 0), values[None]),
        (t.copy(), values.copy()),
    ]
    pairs += [
        (tg.roll(t, 1), np.roll(values, 1)),
        (tg.where(t > 0, t, t), values),
        (t.astype(tg.int64), values.astype(np.int64)),
        (t[..., :0], values[..., :0]),
    ]
    pairs += [(n, w) for n, w in zip(tg.nonzero(t), np.nonzero(values), strict=True)]
    pairs += [
        (tg.take(t, tg.tensor([], dtype=tg.int64), 0), np.take(values, np.array([], int), 0)),
        (tg.repeat(t, 2, 0), np.repeat(values, 2, 0)),
    ]
    for got, wanted in pairs:
        assert got.shape == wanted.shape and got.numpy().dtype.kind == np.asarray(wanted).dtype.kind
        np.testing.assert_array_equal(got.numpy(), wanted)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((0, 3), (3, 4)),
        ((2, 0), (0, 4)),
        ((2, 3), (3, 0)),
        ((0,), (0,)),
        ((0, 2, 3), (0, 3, 4)),
        ((2, 0), (0,)),
        ((5, 2, 0), (0, 3)),
    ],
)
def test_empty_products_like_numpy(left, right):
    a, b = np.zeros(left, np.float32), np.zeros(right, np.float32)
    x, y = tg.tensor(a, requires_grad=True), tg.tensor(b, requires_grad=True)
    got = x @ y
    assert got.shape == (a @ b).shape
    np.testing.assert_array_equal(got.numpy(), a @ b)
    got.sum().backward()
    assert x.grad.shape == left and y.grad.shape == right


@pytest.mark.parametrize("shape", EMPTY_SHAPES)
def test_gradients_of_empty_tensors(shape):
    for f in (
        tg.exp,
        lambda t: tg.softmax(t, 0),
        lambda t: tg.cumsum(t, 0),
        lambda t: tg.sort(t, 0),
        lambda t: t.T,
        lambda t: t.sum(0),
        lambda t: tg.concatenate([t, t]),
        lambda t: t * t + 1,
        lambda t: t.prod(0),
    ):
        x = tg.zeros(shape, requires_grad=True)
        f(x).sum().backward()
        assert x.grad.shape == shape


NONSENSE = st.one_of(
    st.none(),
    st.text(max_size=3),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([2**31, 2**62, 2**63, 2**70, -(2**63), -(2**70), 10**400]),
    st.floats(),
    st.just(1j),
    st.just(object()),
    st.just({}),
    st.just([]),
    st.just([1, [2]]),
    st.just([None]),
    st.just("float32"),
    st.just(slice(1)),
    st.just(...),
    st.lists(st.integers(-3, 3), max_size=3),
    st.tuples(st.integers(-3, 3), st.integers(-3, 3)),
    st.just(np.array([1.5, 2.5])),
    st.just(np.array(["a"])),
    st.builds(lambda: z(2, 3)),
    st.builds(lambda: z(0)),
    st.builds(lambda: tg.tensor([0, 1])),
    st.builds(lambda: tg.tensor([True, False])),
    st.builds(lambda: tg.tensor(1.5)),
)

FUZZED = [
    "add",
    "divide",
    "power",
    "exp",
    "where",
    "clip",
    "maximum",
    "sum",
    "mean",
    "max",
    "argmax",
    "prod",
    "var",
    "cumsum",
    "logsumexp",
    "norm",
    "matmul",
    "dot",
    "outer",
    "einsum",
    "diagonal",
    "reshape",
    "transpose",
    "permute",
    "squeeze",
    "expand_dims",
    "concatenate",
    "stack",
    "split",
    "flip",
    "roll",
    "tile",
    "repeat",
    "pad",
    "broadcast_to",
    "swapaxes",
    "flatten",
    "astype",
    "take",
    "take_along_axis",
    "scatter_add",
    "one_hot",
    "sort",
    "argsort",
    "topk",
    "nonzero",
    "softmax",
    "log_softmax",
    "arange",
    "linspace",
    "eye",
    "tril",
    "zeros",
    "ones",
    "full",
    "tensor",
    "uniform",
    "normal",
    "randint",
    "bernoulli",
    "permutation",
    "grad",
    "jvp",
    "zeros_like",
    "from_dlpack",
]


@pytest.mark.parametrize("name", FUZZED)
@settings(max_examples=80, suppress_health_check=list(HealthCheck))
@given(st.lists(NONSENSE, max_size=3), st.booleans())
def test_nonsense_meets_an_error_of_ours(name, args, sensible_first):
    before = tg.memory_stats()["limit"]
    tg.set_memory_limit(tg.memory_stats()["reserved"] + (64 << 20))
    try:
        getattr(tg, name)(*([z(2, 3)] if sensible_first else []), *args)
    except (TapegradError, TypeError, ValueError):
        pass
    finally:
        tg.set_memory_limit(before)


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(NONSENSE, NONSENSE)
def test_nonsense_in_brackets(key, value):
    x = z(2, 3)
    for use in (
        lambda: x[key],
        lambda: x[key, value],
        lambda: x.__setitem__(key, value),
        lambda: x + value,
        lambda: value * x,
        lambda: x @ value,
        lambda: x**value,
        lambda: x > value,
    ):
        with contextlib.suppress(TapegradError, TypeError, ValueError):
            use()


def test_wrong_arguments_are_told_by_the_name_of_the_op():
    """For every op of the registry: Python's own sentence, with the op's name and none of ours."""
    for op in registry.REGISTRY.values():
        with pytest.raises(TypeError) as caught:
            op(*[tg.ones(2)] * op.arity, no_such_argument=1)
        sentence = str(caught.value)
        assert sentence.startswith(f"{op.name}(") and "no_such_argument" in sentence, sentence
        if any(p.default is p.empty for p in op.signature.parameters.values()):
            with pytest.raises(TypeError) as caught:
                op()
            assert str(caught.value).startswith(f"{op.name}("), caught.value
