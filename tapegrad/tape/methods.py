"""Hangs ops on Tensor: Python's operators, and every registered op that asks to be a method."""

from __future__ import annotations

import numpy as np

from .. import dtypes
from ..errors import DtypeError, ShapeError, TapeError
from ..ops import (  # noqa: F401  registers the ops
    activation,
    comparison,
    convolution,
    creation,
    einsum,
    elementwise,
    indexing,
    linalg,
    losses,
    movement,
    network,
    normalization,
    pooling,
    random,
    reduce,
    sorting,
)
from ..ops.registry import REGISTRY, Op
from .apply import elementwise as run
from .state import local
from .tensor import Tensor

BINARY = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
}
COMPARE = {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal"}
LOGIC = {"and": "logical_and", "or": "logical_or", "xor": "logical_xor"}
NUMBERS = (int, float, bool, np.ndarray, np.generic, list, tuple)


def _operator(op: Op, reflected: bool):
    if reflected:

        def method(self, other):
            cursor = self.trace
            if cursor is not None:
                row = cursor.next
                if row.op is op and row.a is other and row.b is self:
                    cursor.next = row.next
                    return row.out
            if type(other) is not Tensor and not isinstance(other, NUMBERS):
                return NotImplemented
            return run(op, (other, self))
    else:

        def method(self, other):
            cursor = self.trace
            if cursor is not None:  # a handle of a session: is this the row that is expected?
                row = cursor.next
                if row.op is op and row.a is self and row.b is other:
                    cursor.next = row.next
                    return row.out
            if type(other) is not Tensor and not isinstance(other, NUMBERS):
                return NotImplemented
            return run(op, (self, other))

    return method


def _matmul(self, other):
    """The matrix product."""
    cursor = self.trace
    if cursor is not None:
        row = cursor.next
        if (
            row.op is linalg.matmul_kernel and row.a is self and row.b is other
        ):  # of two axes each; it has no attributes but the precision, of which a session knows
            cursor.next = row.next
            return row.out
    return (linalg.matmul.fn if type(other) is Tensor else linalg.matmul)(self, other)


def _power(self, other):
    """x ** y; small constant exponents take exact, cheaper ops."""
    if type(other) is int or type(other) is float:
        if other == 2:
            return run(REGISTRY["square"], (self,))
        if other == 1:
            return run(REGISTRY["identity_copy"], (self,))
        if other == 0.5:
            return run(REGISTRY["sqrt"], (self,))
        if other == -1 and self.dtype.is_float:
            return run(REGISTRY["reciprocal"], (self,))
        if type(other) is int and other < 0 and not self.dtype.is_float:
            return run(REGISTRY["power"], (self, float(other)))
    elif type(other) is not Tensor and not isinstance(other, NUMBERS):
        return NotImplemented
    return run(REGISTRY["power"], (self, other))


def _getitem(self, key):
    """The part of x that the key names; a view where no array is among the keys."""
    session = local.state.session
    return indexing.index(self, key) if session is None else session.subscript(indexing.index, self, key)


def _setitem(self, key, value):
    """Write into a tensor that no gradient flows through."""
    from .assign import write

    write(self, key, value)


def _iter(self):
    if self.ndim == 0:
        raise ShapeError("a 0-d tensor cannot be iterated; use .item()")
    return (self[i] for i in range(self.shape[0]))


def _len(self):
    if self.ndim == 0:
        raise ShapeError("a 0-d tensor has no length; use .item()")
    return self.shape[0]


def _bool(self):
    if self.size != 1:
        raise ShapeError(f"the truth of a tensor of shape {self.shape} is ambiguous; use .any() or .all()")
    return bool(self.item())


def _round(self, digits=0):
    whole = REGISTRY["round"]
    return whole(self * 10.0**digits) / 10.0**digits if digits else whole(self)


def _index(self):
    if self.dtype.is_float or self.dtype is dtypes.bool_ or self.size != 1:
        raise DtypeError(
            f"a tensor of dtype {self.dtype.name} and shape {self.shape} is not an index; only one integer is"
        )
    return self.item()


def _in_place(name: str):
    def method(self, other):
        if self.node is not None and self.is_leaf:
            raise TapeError(
                f"{name}: a leaf that requires a gradient would be rebound to a result, and the optimizer would lose it. "
                "Write x = x + y for a new tensor, or x.copy_(x + y) under tg.no_grad() to change it."
            )
        return NotImplemented

    return method


def _install() -> None:
    for name, op_name in {**BINARY, **LOGIC}.items():
        op = REGISTRY[op_name]
        setattr(Tensor, f"__{name}__", _operator(op, False))
        setattr(Tensor, f"__r{name}__", _operator(op, True))
    for name in BINARY:
        setattr(Tensor, f"__i{name}__", _in_place(f"{name} in place"))
    for name, op_name in COMPARE.items():
        setattr(Tensor, f"__{name}__", _operator(REGISTRY[op_name], False))
    setattr(Tensor, "__hash__", object.__hash__)  # noqa: B010  equality is elementwise, identity is the key
    special = {
        "__pow__": _power,
        "__rpow__": _operator(REGISTRY["power"], True),
        "__matmul__": _matmul,
        "__rmatmul__": lambda a, b: linalg.matmul(b, a),
        "__neg__": lambda x: run(REGISTRY["negative"], (x,)),
        "__pos__": lambda x: x,
        "__abs__": lambda x: run(REGISTRY["abs"], (x,)),
        "__invert__": lambda x: run(REGISTRY["logical_not"], (x,)),
        "__getitem__": _getitem,
        "__setitem__": _setitem,
        "__iter__": _iter,
        "__len__": _len,
        "__bool__": _bool,
        "__int__": lambda x: int(x.item()),
        "__float__": lambda x: float(x.item()),
        "__index__": _index,
        "__round__": _round,
    }
    for name, method in special.items():
        setattr(Tensor, name, method)
    for op in REGISTRY.values():
        if op.method and not hasattr(Tensor, op.name):
            setattr(Tensor, op.name, _method(op))
    views = {
        "T": property(lambda x: movement.transpose(x), doc="The tensor with its axes reversed. A view."),
        "mT": property(
            lambda x: movement.swapaxes(x, -1, -2), doc="The tensor with its last two axes exchanged. A view."
        ),
    }
    for name, attribute in views.items():
        setattr(Tensor, name, attribute)


def _method(op: Op):
    def method(self, *args, **kwargs):
        return op(self, *args, **kwargs)

    method.__name__ = op.name
    method.__doc__ = op.doc
    vars(method)["__signature__"] = op.signature
    return method


_install()
