"""Fused kernels against NumPy: expressions to the last bit, sums within a rounding, over odd shapes and any split."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from kernel_runner import PATTERN, call, guarded

import tapegrad  # noqa: F401  fills the registry
from tapegrad.dtypes import as_dtype
from tapegrad.kernels import elementwise, fused
from tapegrad.kernels.fused import Fused, Load, Map, Reduce
from tapegrad.layouts import Layout, layout
from tapegrad.ops.registry import REGISTRY

OPS = {op.name: op for op in REGISTRY.values()}


def of(name: str, *args: int, dtype: str = "float32", result: str | None = None, compute: str | None = None) -> Map:
    """An op of the registry as a node."""
    op = OPS[name]
    (expression,) = op.expression()
    return Map(expression, args, as_dtype(compute or dtype), as_dtype(result or dtype), op.truths)


class Operand:
    """Memory for an array of any layout."""

    def __init__(self, x: Layout, elements: np.ndarray | None = None):
        low = sum(min(s * (n - 1), 0) for n, s in zip(x.shape, x.strides, strict=True))
        high = sum(max(s * (n - 1), 0) for n, s in zip(x.shape, x.strides, strict=True))
        self.layout, self.size = x, x.dtype.itemsize
        self.block = guarded((high - low + 1) * self.size)
        self.first = -low * self.size
        if elements is not None:
            self.array[...] = elements

    @property
    def array(self) -> np.ndarray:
        x = self.layout
        return np.ndarray(x.shape, x.dtype.numpy, self.block, self.first, [s * self.size for s in x.strides])

    @property
    def address(self) -> int:
        return self.block.ctypes.data + self.first


def run(f: Fused, ins: list[np.ndarray], pieces: int = 1, same: tuple[tuple[int, int], ...] = ()) -> list[np.ndarray]:
    """The outputs of a fused kernel. `same`: pairs of an input and an output that are one memory."""
    operands = [Operand(x, a) for x, a in zip(f.inputs, ins, strict=True)]
    outs = [Operand(x) for _, x in f.outputs]
    for i, o in same:
        outs[o].block, outs[o].first = operands[i].block, operands[i].first
    steps, nbytes = fused.steps(f)
    scratch = guarded(nbytes)
    addresses = [x.address for x in (*operands, *outs)] + [scratch.ctypes.data]
    for step in steps:
        assert call(replace(step, grain=1), addresses, pieces) == 0
    assert (scratch[nbytes:] == PATTERN).all(), "the kernel wrote past its scratch"
    for o in outs:
        assert (o.block[-64:] == PATTERN).all(), "the kernel wrote past its output"
    return [o.array.copy() for o in outs]


def alone(n: Map, args: list[np.ndarray]) -> np.ndarray:
    """What an elementwise kernel of its own gives."""
    args = [np.ascontiguousarray(a) for a in np.broadcast_arrays(*args)]
    ins = [Operand(layout(a.shape, as_dtype(a.dtype)), a) for a in args]
    out = Operand(layout(args[0].shape, n.result))
    (step,) = elementwise.steps(
        (n.expression,), tuple(x.layout for x in ins), (out.layout,), n.compute, truths=n.truths
    )
    call(step, [x.address for x in (*ins, out)])
    return out.array


def expected(f: Fused, ins: list[np.ndarray]) -> list[np.ndarray]:
    """The same, node by node."""
    outer = len(f.shape) - f.row
    found: list[np.ndarray] = []
    for n in f.nodes:
        if isinstance(n, Load):
            found.append(np.broadcast_to(ins[n.operand], f.shape))
        elif isinstance(n, Map):
            found.append(alone(n, [found[a] for a in n.args]))
        else:
            x = np.broadcast_to(found[n.arg], f.shape)
            axes = {"row": range(outer, len(f.shape)), "columns": range(outer), "all": range(len(f.shape))}[n.over]
            wide = x.astype(np.float64) if x.dtype.kind == "f" and n.kind == "sum" else x
            reduced = getattr(np, n.kind)(wide, axis=tuple(axes)).astype(n.result.numpy)
            found.append(reduced.reshape(reduced.shape + (1,) * f.row) if n.over == "row" else reduced)
    shown = []
    for node, x in f.outputs:
        n, a = f.nodes[node], found[node]
        if x.ndim == len(f.shape):
            a = np.broadcast_to(a, f.shape)
        elif not (isinstance(n, Reduce) and n.over != "row"):
            a = np.broadcast_to(a, (*f.shape[:outer], *a.shape[outer:]))[(..., *(0,) * f.row)]
        shown.append(a.reshape(x.shape))
    return shown


def check(f: Fused, ins: list[np.ndarray], exact: tuple[int, ...] = (), ulps: float = 4, same=()) -> None:
    """The kernel agrees with its nodes one by one, however it is split."""
    want = expected(f, ins)
    for pieces in (1, 2, 5):
        for k, (a, b) in enumerate(zip(run(f, ins, pieces, same), want, strict=True)):
            if k in exact or a.dtype.kind != "f":
                np.testing.assert_array_equal(a, b)
            else:
                eps = np.finfo(a.dtype).eps
                size = np.max(np.abs(b), initial=0, where=np.isfinite(b))
                np.testing.assert_allclose(a, b, rtol=ulps * eps, atol=ulps * eps * size)


def draw(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def inputs(*arrays) -> tuple[Layout, ...]:
    return tuple(layout(a.shape, as_dtype(a.dtype)) for a in arrays)


def plain(shape, dtype="float32") -> Layout:
    return layout(tuple(shape), as_dtype(dtype))


SHAPES = [(1, 1), (1, 7), (5, 1), (3, 16), (33, 17), (2, 1025), (257, 31), (4, 64), (100, 300)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_layer_norm_is_one_kernel(shape, dtype):
    x, w, b, n = draw(shape, dtype), draw(shape[1:], dtype, 1), draw(shape[1:], dtype, 2), np.full((), shape[1], dtype)
    d = {"dtype": dtype}
    nodes = (
        Load(0), Load(3), Reduce("sum", 0, "row", as_dtype(dtype)), of("divide", 2, 1, **d),
        of("subtract", 0, 3, **d), of("square", 4, **d), Reduce("sum", 5, "row", as_dtype(dtype)), of("divide", 6, 1, **d),
        of("sqrt", 7, **d), of("divide", 4, 8, **d), Load(1), Load(2), of("multiply", 9, 10, **d), of("add", 12, 11, **d),
    )  # fmt: skip
    f = Fused(shape, 1, inputs(x, w, b, n), nodes, ((13, plain(shape, dtype)), (3, plain(shape[:1], dtype))))
    check(f, [x, w, b, n], ulps=64)  # where the mean cancels
    wide = x.astype(np.float64)
    centred = wide - wide.mean(1, keepdims=True)
    want = centred / np.sqrt((centred**2).mean(1, keepdims=True)) * w + b if shape[1] > 1 else None
    if want is not None:
        np.testing.assert_allclose(run(f, [x, w, b, n])[0], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_softmax_keeps_its_exponentials(shape):
    x = draw(shape)
    nodes = (Load(0), Reduce("max", 0, "row", as_dtype("float32")), of("subtract", 0, 1), of("exp", 2),
             Reduce("sum", 3, "row", as_dtype("float32")), of("divide", 3, 4))  # fmt: skip
    f = Fused(shape, 1, inputs(x), nodes, ((5, plain(shape)),))
    (step,), _ = fused.steps(f)
    assert step.workspace >= shape[1] * 4 or shape[1] == 1
    check(f, [x])
    check(f, [x], same=((0, 0),))


@pytest.mark.parametrize("kind", ["sum", "max", "min"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("shape", SHAPES)
def test_reductions_of_rows_columns_and_all(shape, dtype, kind):
    x = draw(shape) * 100
    x = (x > 0) if dtype == "bool" else np.abs(x).astype(dtype) if dtype == "uint8" else x.astype(dtype)
    result = as_dtype(dtype if dtype.startswith("float") or kind != "sum" else "int64")
    nodes = (Load(0), *[Reduce(kind, 0, over, result) for over in ("row", "columns", "all")])
    outs = (layout(shape[:1], result), layout(shape[1:], result), layout((), result))
    f = Fused(shape, 1, inputs(x), nodes, tuple(zip((1, 2, 3), outs, strict=True)))
    check(f, [x])


@pytest.mark.parametrize("n", [1, 5, 16, 17, 1000, 16_384, 100_003])
def test_sums_of_everything_without_rows(n):
    x, y = draw((n,)), draw((n,), seed=1)
    nodes = (Load(0), Load(1), of("multiply", 0, 1), Reduce("sum", 2, "all", as_dtype("float32")), of("tanh", 2),
             Reduce("max", 4, "all", as_dtype("float32")))  # fmt: skip
    f = Fused((n,), 0, inputs(x, y), nodes, ((4, plain((n,))), (3, plain(())), (5, plain(()))))
    check(f, [x, y], exact=(0, 2))


def test_sums_of_everything_over_axes_that_do_not_merge():
    x, y = draw((37, 50, 3)), draw((50, 1), seed=1)
    nodes = (Load(0), Load(1), of("multiply", 0, 1), Reduce("sum", 2, "all", as_dtype("float32")))
    f = Fused(x.shape, 0, inputs(x, y), nodes, ((3, plain(())), (2, plain(x.shape))))
    check(f, [x, y], exact=(1,))


@pytest.mark.parametrize("where", [0, 5, 16, 30, 64])
@pytest.mark.parametrize("kind", ["max", "min"])
def test_nan_wins_over_all_numbers(kind, where):
    x = draw((3, 65))
    x[1, where] = np.nan
    x[2] = math.inf if kind == "min" else -math.inf
    nodes = (Load(0), *[Reduce(kind, 0, over, as_dtype("float32")) for over in ("row", "columns", "all")])
    f = Fused(x.shape, 1, inputs(x), nodes, ((1, plain((3,))), (2, plain((65,))), (3, plain(()))))
    row, column, whole = run(f, [x])
    assert np.isnan(row[1]) and np.isnan(column[where]) and np.isnan(whole)
    assert row[2] == x[2, 0] and np.isfinite(row[0]) and np.isnan(column).sum() == 1


def test_rows_of_several_axes_that_do_not_merge():
    """A group norm: rows of channels × pixels, with a scale per channel."""
    x, scale = draw((2, 3, 4, 25)), draw((3, 4, 1), seed=1)
    nodes = (Load(0), Reduce("sum", 0, "row", as_dtype("float32")), of("subtract", 0, 1), of("exp", 2),
             Reduce("sum", 3, "row", as_dtype("float32")), of("divide", 3, 4), Load(1), of("multiply", 5, 6),
             Reduce("sum", 7, "all", as_dtype("float32")), of("multiply", 1, 4))  # fmt: skip
    ins = [x * 0.1, scale]
    outs = ((7, plain(x.shape)), (8, plain(())), (9, plain((2, 3))))
    check(Fused(x.shape, 2, inputs(*ins), nodes, outs), ins, ulps=32)


def test_columns_of_rows_of_several_axes():
    x, scale = draw((40, 3, 5)), draw((3, 1), seed=1)
    nodes = (Load(0), Load(1), of("multiply", 0, 1), Reduce("sum", 2, "columns", as_dtype("float32")),
             Reduce("max", 2, "row", as_dtype("float32")))  # fmt: skip
    f = Fused(x.shape, 2, inputs(x, scale), nodes, ((3, plain((3, 5))), (4, plain((40,)))))
    check(f, [x, scale], exact=(1,))


@pytest.mark.parametrize("strides", [(1, 9), (40, 2), (-20, 1), (20, -1), (0, 1), (1, 0)])
def test_any_strides_of_inputs(strides):
    x = draw((9, 20))
    given = layout((9, 20), as_dtype("float32"), strides)
    held = Operand(given, x).array.copy()
    y = draw((9, 20), seed=2)
    nodes = (Load(0), Load(1), of("multiply", 0, 1), Reduce("sum", 2, "row", as_dtype("float32")), of("subtract", 2, 3),
             Reduce("sum", 4, "columns", as_dtype("float32")))  # fmt: skip
    f = Fused((9, 20), 1, (given, plain((9, 20))), nodes, ((4, plain((9, 20))), (5, plain((20,)))))
    check(f, [held, y], ulps=32)


def test_any_strides_of_outputs():
    x = draw((9, 20))
    outs = [layout((9, 20), as_dtype("float32"), (1, 9)), layout((9,), as_dtype("float32"), (3,))]
    nodes = (Load(0), Reduce("max", 0, "row", as_dtype("float32")), of("subtract", 0, 1))
    check(Fused((9, 20), 1, inputs(x), nodes, ((2, outs[0]), (1, outs[1]))), [x], exact=(0, 1))


def test_several_dtypes_and_truth_values():
    x, k, t = draw((12, 33)), np.arange(33), draw((12, 1)) > 0
    nodes = (
        Load(0), Load(1), Load(2),
        of("multiply", 0, 1, dtype="float64"), of("greater", 0, 3, dtype="float64", result="bool"),
        of("where", 4, 0, 3, dtype="float32"), Reduce("sum", 4, "row", as_dtype("int64")),
        of("where", 2, 5, 6, dtype="float32"), Reduce("max", 4, "all", as_dtype("bool")),
    )  # fmt: skip
    outs = ((7, plain((12, 33))), (4, plain((12, 33), "bool")), (6, plain((12,), "int64")), (8, plain((), "bool")),
            (3, plain((12, 33), "float64")))  # fmt: skip
    check(Fused((12, 33), 1, inputs(x, k, t), nodes, outs), [x, k, t], exact=(0, 1, 2, 3, 4))


def test_in_place():
    """Every pass reads what the last one writes over."""
    x, g = draw((30, 70)), draw((30, 70), seed=3)
    nodes = (Load(0), Load(1), of("multiply", 0, 1), Reduce("sum", 2, "row", as_dtype("float32")), of("subtract", 0, 3),
             of("multiply", 4, 1), of("add", 5, 0))  # fmt: skip
    f = Fused(x.shape, 1, inputs(x, g), nodes, ((5, plain(x.shape)), (6, plain(x.shape))))
    check(f, [x, g], ulps=16, same=((0, 0), (1, 1)))


def test_one_result_for_all_elements_of_a_row():
    x = draw((6, 40))
    nodes = (Load(0), Reduce("sum", 0, "row", as_dtype("float32")), of("exp", 1))
    check(Fused((6, 40), 1, inputs(x), nodes, ((2, plain((6, 40))), (1, plain((6, 40))))), [x])


def test_code_does_not_depend_on_sizes():
    def addresses(shape):
        x = np.zeros(shape, np.float32)
        nodes = (Load(0), of("square", 0), *[Reduce("sum", 1, o, as_dtype("float32")) for o in ("columns", "all")])
        f = Fused(shape, 1, inputs(x), nodes, ((2, plain(shape[1:])), (3, plain(()))))
        return [s.address for s in fused.steps(f)[0]]

    assert addresses((100, 30)) == addresses((7, 1000)) == addresses((40, 16))


@pytest.mark.parametrize("seed", range(40))
def test_random_kernels(seed):
    """Random graphs of nodes over random spaces, inputs broadcast and strided at random."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 40, rng.integers(1, 5)))
    row = int(rng.integers(0, len(shape) + 1))
    dtype = str(rng.choice(["float32", "float64"]))
    ins, layouts = [], []
    for _ in range(rng.integers(1, 4)):
        own = [n if rng.random() < 0.7 else 1 for n in shape]
        axes = rng.permutation(len(own))
        strides, step = [0] * len(own), int(rng.integers(1, 3))
        for a in axes if rng.random() < 0.3 else reversed(range(len(own))):
            strides[a], step = step, step * own[a]
        x = layout(tuple(own), as_dtype(dtype), tuple(strides))
        layouts.append(x)
        ins.append(draw(own, dtype, int(rng.integers(1000))))
    nodes: list = [Load(i) for i in range(len(ins))]
    usable = list(range(len(nodes)))
    for _ in range(rng.integers(1, 12)):
        pick = [int(rng.choice(usable)) for _ in range(2)]
        if row and rng.random() < 0.3:
            nodes.append(Reduce(str(rng.choice(["sum", "max", "min"])), pick[0], "row", as_dtype(dtype)))
        else:
            name = str(rng.choice(["add", "multiply", "subtract", "maximum", "tanh", "square"]))
            one = name in ("tanh", "square")
            nodes.append(of(name, *pick[: 1 if one else 2], dtype=dtype))
        usable.append(len(nodes) - 1)
    outer = shape[: len(shape) - row]
    constant = fused.Form(Fused(shape, row, tuple(layouts), tuple(nodes), ())).constant
    outputs = [(usable[-1], layout(shape, as_dtype(dtype)))]
    for node in usable:
        if row and isinstance(nodes[node], Reduce):
            outputs.append((node, layout(outer, as_dtype(dtype))))
    last = usable[-1]
    for over in ("columns", "all") if row else ("all",):
        nodes.append(Reduce("max", last, over, as_dtype(dtype)))
        outputs.append((len(nodes) - 1, layout(shape[len(outer) :] if over == "columns" else (), as_dtype(dtype))))
    assert len(constant) == len(usable)
    f = Fused(shape, row, tuple(layouts), tuple(nodes), tuple(outputs))
    with np.errstate(all="ignore"):
        want = expected(f, ins)
    for pieces in (1, 3):
        for a, b in zip(run(f, ins, pieces), want, strict=True):
            size = np.max(np.abs(b), initial=1, where=np.isfinite(b))
            np.testing.assert_allclose(a, b, rtol=1e-3 if dtype == "float32" else 1e-10, atol=size * 1e-4)
