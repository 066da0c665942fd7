"""The device "reference": every op by NumPy, in float64 and int64, slow and obvious. The oracle of compiled kernels.

Elementwise ops are evaluated node by node from their expression; primitives have one NumPy function each in
`reference_ops.py` and the two modules beside it, under the name of their kernel builder. Results are rounded to the
output's dtype once, at the end.
Nothing here is shared with the compiled kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..dtypes import DType, bfloat16
from ..errors import KernelError
from ..halves import narrowed
from ..layouts import Layout
from ..ops import expression as ex
from ..ops.reader import Unreadable
from ..ops.registry import Op
from . import reference_networks, reference_random  # noqa: F401  register their functions
from .memory import array_at, values
from .prepare import Prepared, compute_dtype, infer
from .reference_ops import FUNCTIONS


class Reference:
    """The slow backend."""

    name = "reference"
    halves: frozenset[str] = frozenset()

    def prepare(self, op: Op, ins: tuple[Layout, ...], attrs: dict) -> Prepared:
        outs, compute, offset = infer(op, ins, attrs)
        if op.kind == "view":
            return Prepared(outs, (), offset=offset)
        return _prepared(_elementwise(op, compute) if op.kind == "elementwise" else _primitive(op, outs, attrs), outs)

    def into(self, op: Op, ins: tuple[Layout, ...], outs: tuple[Layout, ...]) -> Prepared:
        """An elementwise op that writes to memory of given layouts."""
        return _prepared(_elementwise(op, compute_dtype(op, ins, outs)), outs)


def _prepared(fn: Callable, outs: tuple[Layout, ...]) -> Prepared:
    """What calls `fn` with the inputs as arrays, and writes what it gives."""

    def run(op: Op, ins: list[Layout], outs: list[Layout], addresses: list[int]) -> None:
        arrays = [values(array_at(a, x), x) for a, x in zip(addresses, ins)]
        targets = zip([array_at(a, x) for a, x in zip(addresses[len(ins) :], outs, strict=True)], outs)
        with np.errstate(all="ignore"):
            found = fn(*map(_wide, arrays))
            for (target, x), value in zip(targets, found if isinstance(found, tuple) else (found,), strict=True):
                if target.size:
                    shaped = np.asarray(value).reshape(target.shape) if np.size(value) == target.size else value
                    np.copyto(target, narrowed(shaped) if x.dtype is bfloat16 else shaped, casting="unsafe")

    return Prepared(outs, (), run=run)


def _wide(x: np.ndarray) -> np.ndarray:
    """A copy with the largest dtype of its kind."""
    return x.astype({"f": np.float64, "i": np.int64, "u": np.int64, "b": np.bool_}[x.dtype.kind])


def _primitive(op: Op, outs: tuple[Layout, ...], attrs: dict):
    fn = FUNCTIONS.get(op.builder)
    if fn is None:
        raise KernelError(f'{op.name} cannot run on the device "reference"; compute it on "cpu"')
    return lambda *xs: fn(*xs, outs=outs, **attrs)


def _elementwise(op: Op, compute: DType | None):
    def load(i: int, x: np.ndarray) -> np.ndarray:
        if i in op.truths:
            return x != 0
        assert compute is not None
        if compute.is_float:
            return x.astype(np.float64)
        return clamped(x, compute) if x.dtype.kind == "f" else x != 0 if compute.kind == "b" else x.astype(np.int64)

    try:
        expression = op.expression()
    except Unreadable:
        scalar = np.vectorize(op.jitted or op.fn)
        return lambda *xs: scalar(*(load(i, x) for i, x in enumerate(xs)))
    return lambda *xs: evaluate(expression, [load(i, x) for i, x in enumerate(xs)])


def clamped(x: np.ndarray, dtype: DType) -> np.ndarray:
    """Floats as integers of `dtype`: cut towards zero, kept inside its range, nan as 0. As bool: whether not 0."""
    if dtype.kind == "b":
        return x != 0
    low, high = np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max
    made = np.where(np.isnan(x) | (x <= low) | (x >= float(high)), 0.0, x).astype(np.int64)
    return np.where(x >= float(high), high, np.where(x <= low, low, made))


def evaluate(outputs: tuple[ex.Node, ...], xs: list[np.ndarray]):
    """The values of an expression graph on arrays; a tuple where it has several outputs."""
    values: dict[ex.Node, np.ndarray] = {}
    for n in ex.walk(outputs):
        if n.kind == "input":
            values[n] = xs[n.value]
        elif n.kind == "const":
            values[n] = np.asarray(n.value)
        else:
            values[n] = SCALAR[n.kind](*(values[a] for a in n.args))
    shape = np.broadcast_shapes(*(x.shape for x in xs))
    made = tuple(np.broadcast_to(values[n], shape) for n in outputs)
    return made if len(made) > 1 else made[0]


def _pow(x, p):
    if x.dtype.kind == "f" or p.dtype.kind == "f":
        return np.power(x.astype(np.float64), p)
    whole = np.power(x, np.maximum(p, 0))
    return np.where(p >= 0, whole, np.where(x == 1, 1, np.where(x == -1, np.where(p % 2 == 0, 1, -1), 0)))


def _sigmoid(x):
    return np.exp(-np.logaddexp(0.0, -x))


SCALAR: dict[str, Callable] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "mod": np.remainder,
    "floordiv": np.floor_divide,
    "neg": np.negative,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "min": np.minimum,
    "max": np.maximum,
    "select": np.where,
    "copysign": np.copysign,
    "floor": np.floor,
    "ceil": np.ceil,
    "rint": np.rint,
    "trunc": np.trunc,
    "sign": np.sign,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
    "not": np.logical_not,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "log2": np.log2,
    "log10": np.log10,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "arcsin": np.arcsin,
    "arccos": np.arccos,
    "arctan": np.arctan,
    "arctan2": np.arctan2,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "pow": _pow,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "sigmoid": _sigmoid,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
}
