"""Ops as data, and the decorators that define them. One definition serves the kernels, the derivative, the docs, the tests.

Four kinds:

* elementwise: a scalar function; forward kernel, derivatives of every order and fusion follow from it;
* primitive: a function that checks its arguments and returns `(inputs, attributes)`, with a shape rule, a kernel
  builder of the same name in `kernels/`, an adjoint written in ops and a NumPy reference;
* view: a primitive without a kernel: its shape rule gives the strides of the result;
* composite: a plain function of tensors that calls other ops.

Ops know no tensor. `tape` hands its interpreter to `set_interpreter` when it is imported; from then on ops can be called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

from .. import dtypes
from ..dtypes import DEFAULT, DType, bool_, int64, promote
from ..errors import DtypeError
from . import expression as ex
from .reader import Unreadable, read

REGISTRY: dict[str, Op] = {}

Tensor = Any  # definitions annotate their tensor arguments with this name; the tape turns what it marks into tensors

_interpreter: Any = None
sessions_used = False  # from the first session on, calls of ops ask whether one is open


def set_interpreter(interpreter) -> None:
    """Install what runs ops: an object with `elementwise(op, inputs)`, `apply(op, inputs, attrs)`, `tensor(x)`."""
    global _interpreter
    _interpreter = interpreter


class Op:
    """One differentiable operation. Call it with tensors, or with anything `tg.tensor` takes.

    `adjoints[i](g, y, *inputs, **attrs)` records the gradient of input i; `adjoints[None]` gives all of them as a tuple.
    `saves[i]` names what that adjoint reads: input positions and "y"; all inputs where nothing is said.
    """

    def __init__(self, name: str, fn: Callable, kind: str, **data):
        self.name = name
        self.fn = fn
        self.kind = kind
        self.doc = inspect.getdoc(fn) or ""
        self.signature = inspect.signature(fn)
        self.module = fn.__module__
        self.public: bool = data.pop("public", True)
        self.namespace: str = data.pop("namespace", "")  # "", "linalg", "random", "nn"
        self.method: bool = data.pop("method", False)
        self.dtype_rule: str = data.pop("dtypes", "float")
        self.truths: tuple[int, ...] = data.pop("truths", ())  # inputs read as truth values, whatever their dtype
        self.infer: Callable | None = None
        self.adjoints: dict[int | None, Callable] = {}
        self.saves: dict[int | None, tuple | None] = {}
        self.reference: Callable | None = data.pop("reference", None)
        self.differentiable: bool = data.pop("differentiable", True)
        self.samples: list = data.pop("samples", [])
        self.kernel: Any = data.pop("kernel", None)  # the builder of a user's array kernel
        self.cuda_kernel: Any = None  # the same for CUDA
        self.builder: str = data.pop("builder", name)  # the kernel builder's name
        self.outputs: int = data.pop("outputs", 1)
        self.moves: bool = data.pop("moves", False)  # only moves elements, of whatever dtype
        # a composite that adds up: all of it is computed in float32 for halves
        self.sums: bool = data.pop("sums", False)
        # multiplies matrices: under `tg.autocast` its result is a half, too
        self.product: bool = data.pop("product", False)
        self.launches: dict = {}
        self.partials: dict = {}
        self.keeps: dict = {}  # which inputs are differentiable -> which values a row keeps for its adjoint
        self.explicit: Callable | None = None  # a user's derivative of a scalar function
        self.jitted: Any = None  # what Numba compiles where the source cannot be read
        self._expression: tuple[ex.Node, ...] | None = data.pop("expression", None)
        self.unreadable: str | None = None
        self.tensor_places = _tensor_places(self.signature)
        self.arity = data.pop("arity", len(self.signature.parameters))
        self.title = name.removesuffix("_kernel").removesuffix("_view")  # how messages call it
        if kind != "elementwise":
            fn.__qualname__ = name  # Python's own complaints about arguments name the op
        self.__name__ = self.__qualname__ = name
        self.__doc__ = self.doc
        self.__module__ = fn.__module__
        self.__signature__ = self.signature
        if data:
            raise TypeError(f"op {name}: unknown properties {sorted(data)}")
        names = list(self.signature.parameters)
        if kind == "elementwise" and len(names) == self.arity == 1:
            self.__class__ = _unary(name, names[0])

    def __repr__(self) -> str:
        return f"<op {self.name}{self.signature}>"

    def __copy__(self) -> Op:
        return self

    def __deepcopy__(self, memo) -> Op:
        return self  # a module that holds an op, as its activation, is copied with the op itself

    def __reduce__(self):
        key = f"{self.namespace}.{self.name}" if self.namespace else self.name
        return (registered, (key,)) if REGISTRY.get(key) is self else self.fn.__qualname__

    def __call__(self, *args, **kwargs):
        if sessions_used:
            if len(args) == 1 and not kwargs and type(args[0]) is _interpreter.kind:
                cursor = args[0].trace
                if cursor is not None:  # a handle of a session: is this the call that is expected?
                    row = cursor.next
                    if row.op is self and row.a is args[0] and row.plain and row.out is not None and len(row.args) == 1:
                        cursor.next = row.last.next
                        return row.out
            session = _interpreter.local.state.session
            if session is not None:
                return session.call(self, args, kwargs)
        return self.run(args, kwargs)

    def run(self, args: tuple, kwargs: dict):
        """The call, past any session's look at it as a whole."""
        if self.kind == "elementwise":
            if kwargs or len(args) != self.arity:
                try:
                    bound = self.signature.bind(*args, **kwargs)
                except TypeError as error:
                    raise TypeError(f"{self.name}{self.signature}: {error}") from None
                bound.apply_defaults()
                args = tuple(bound.arguments.values())
            return _interpreter.elementwise(self, args)
        if self.tensor_places:
            args, kwargs = _with_tensors(self, args, kwargs)
        if self.kind == "composite":
            if self.sums and dtypes.halves_used:
                return _interpreter.sums(self, args, kwargs)
            return self.fn(*args, **kwargs)
        inputs, attrs = self.fn(*args, **kwargs)
        return _interpreter.apply(self, inputs, attrs)

    def expression(self) -> tuple[ex.Node, ...]:
        """The scalar expression of an elementwise op; raises `Unreadable` where Numba has to compile the function."""
        if self._expression is None:
            if self.unreadable is not None:
                raise Unreadable(self.unreadable)
            try:
                self._expression = read(self.fn)
            except Unreadable as error:
                self.unreadable = str(error)
                raise
            self.outputs = len(self._expression)
        return self._expression

    # decorators that complete a definition

    def shape(self, fn: Callable) -> Callable:
        """`@op.shape`: fn(*input layouts, **attrs) -> (shape, dtype), a list of those, or for a view (shape, strides, offset)."""
        self.infer = fn
        return fn

    def adjoint(self, index=None, *, saves=None) -> Callable:
        """`@op.adjoint`, or `@op.adjoint(0, saves=(1,))`: the gradient of input 0 reads input 1 alone."""
        if callable(index):
            self.adjoints[None], self.saves[None] = index, None
            self.keeps.clear()
            return index

        def register(fn):
            self.adjoints[index], self.saves[index] = fn, saves
            self.keeps.clear()
            return fn

        return register

    def derivative(self, fn: Callable) -> Callable:
        """`@op.derivative`: fn(*inputs) returns the partial derivative of a scalar function, a tuple where it has several inputs."""
        self.explicit = fn
        self.partials.clear()
        self.keeps.clear()
        return fn


def _tensor_places(signature: inspect.Signature) -> tuple[tuple[int, str], ...]:
    return tuple((i, p.name) for i, p in enumerate(signature.parameters.values()) if p.annotation == "Tensor")


def _with_tensors(op: Op, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Arguments annotated "Tensor" as tensors, so that definitions can use shapes and operators at once."""
    is_tensor, converted, given = _interpreter.is_tensor, None, len(args)
    for i, name in op.tensor_places:
        if i < given:
            if not is_tensor(args[i]):
                converted = converted or list(args)
                converted[i] = _interpreter.tensor(args[i], op.name, _device(args, kwargs))
        elif name in kwargs and not is_tensor(kwargs[name]):
            kwargs = {**kwargs, name: _interpreter.tensor(kwargs[name], op.name, _device(args, kwargs))}
    return (args if converted is None else tuple(converted)), kwargs


def _device(args: tuple, kwargs: dict) -> str:
    return device_among((*args, *kwargs.values()))


def device_among(values) -> str:
    """Where the first tensor among the values is; arrays and numbers beside it go there."""
    return next((a.device for a in values if _interpreter.is_tensor(a)), "cpu")


MISSING: Any = object()


def _call_unary(self, x=MISSING, *rest):
    """`Op.__call__` for one argument: to gather arguments in a tuple and a dict costs half as much again as the rest of it."""
    if sessions_used:
        if not rest and type(x) is _interpreter.kind:
            cursor = x.trace
            if cursor is not None:
                row = cursor.next
                if row.op is self and row.a is x and row.plain and row.out is not None and len(row.args) == 1:
                    cursor.next = row.last.next
                    return row.out
        session = _interpreter.local.state.session
        if session is not None:
            return session.call(self, () if x is MISSING else (x, *rest), {})
    return self.run(() if x is MISSING else (x, *rest), {})


@cache
def _unary(name: str, parameter: str) -> type[Op]:
    """The class of the op of that name whose one argument goes by `parameter`: Python's complaints about arguments say both."""
    code = _call_unary.__code__
    names = tuple(parameter if n == "x" else n for n in code.co_varnames)
    code = code.replace(co_varnames=names, co_name=name, co_qualname=name)
    call = FunctionType(code, globals(), name, (MISSING,))
    return type("Op", (Op,), {"__call__": call, "__module__": __name__, "__qualname__": "Op", "__doc__": Op.__doc__})


def run_with(op: Op, inputs: tuple, **attrs):
    """Run an op on inputs with attributes that its function does not take."""
    return _interpreter.apply(op, inputs, attrs)


def as_tensor(x, op_name: str, device: str = "cpu"):
    """x as a tensor: for optional arguments, which definitions cannot annotate."""
    return _interpreter.tensor(x, op_name, device)


def differentiate(f: Callable, inputs: tuple, cotangents: tuple) -> tuple:
    """The gradients of the inputs, from those of f(*inputs), a tuple (None: no gradient): for adjoints written as ops."""
    return _interpreter.differentiate(f, inputs, cotangents)


def registered(key: str) -> Op:
    """The op of that qualified name: how a pickled op is found again."""
    return REGISTRY[key]


def register(op: Op) -> Op:
    """Enter an op under its qualified name; a second op of the same name is an error."""
    key = f"{op.namespace}.{op.name}" if op.namespace else op.name
    if key in REGISTRY:
        raise ValueError(f"op {key} is defined twice: in {REGISTRY[key].module} and {op.module}")
    REGISTRY[key] = op
    return op


def _definer(kind: str):
    def decorator(fn: Callable | None = None, **data):
        if fn is not None:
            return register(Op(fn.__name__.rstrip("_"), fn, kind))
        name = data.pop("name", None)
        return lambda f: register(Op(name or f.__name__.rstrip("_"), f, kind, **data))

    return decorator


elementwise = _definer("elementwise")
primitive = _definer("primitive")
view = _definer("view")
composite = _definer("composite")


def elementwise_dtypes(op: Op, dtypes: tuple[DType, ...]) -> tuple[DType, DType]:
    """What an elementwise op computes in and returns, from the dtypes of its inputs (weak scalars already settled)."""
    rule = op.dtype_rule
    if rule == "logic":
        return bool_, bool_
    numbers = [d for i, d in enumerate(dtypes) if i not in op.truths]
    meet = numbers[0] if numbers else DEFAULT
    for d in numbers[1:]:
        meet = promote(meet, d)
    if rule == "float":
        meet = meet if meet.is_float else DEFAULT
        return meet.compute, meet
    if rule == "compare":
        return meet.compute, bool_
    if rule == "arith":
        meet = int64 if meet is bool_ else meet
        return meet.compute, meet
    if rule == "keep":
        return meet.compute, meet
    raise DtypeError(f"op {op.name}: unknown dtype rule {rule!r}")


def partial(op: Op, index: int) -> tuple[Op | None, tuple[int, ...]]:
    """The elementwise op `(g, inputs it reads…) -> g · ∂op/∂input[index]` and the inputs it reads; None where it is 0.

    Where the derivative is exactly 1 the op is "identity": the gradient passes through.
    """
    found = op.partials.get(index)
    if found is None:
        found = op.partials[index] = _make_partial(op, index)
    return found


def _make_partial(op: Op, index: int) -> tuple[Op | None, tuple[int, ...]]:
    if op.dtype_rule in ("compare", "logic") or index in op.truths:
        return None, ()
    try:
        slope = _explicit_slope(op, index) if op.explicit else ex.derivative(op.expression()[0], index)
    except Unreadable:
        return _interpreter.compiled_partial(op, index)
    if ex.is_const(slope, 0):
        return None, ()
    if ex.is_const(slope, 1):
        return IDENTITY, ()
    reads = ex.inputs_of((slope,))
    moved = tuple(ex.argument(reads.index(i) + 1) if i in reads else ex.const(0.0) for i in range(op.arity))
    expression = (_scale(ex.argument(0), *ex.substitute((slope,), moved)),)
    truths = tuple(reads.index(i) + 1 for i in op.truths if i in reads)
    name = f"d_{op.name}_{index}"
    return Op(
        name, op.fn, "elementwise", public=False, arity=1 + len(reads), truths=truths, expression=expression
    ), reads


def _scale(g: ex.Node, slope: ex.Node) -> ex.Node:
    """g · slope, with g inside the branches, so that a branch of slope 0 gives 0 even where g is infinite."""
    if slope.kind == "select":
        c, a, b = slope.args
        return ex.select(c, _scale(g, a), _scale(g, b))
    return ex.times(g, slope)


def _explicit_slope(op: Op, index: int) -> ex.Node:
    assert op.explicit is not None
    slopes = read(op.explicit)
    if len(slopes) != op.arity:
        raise DtypeError(
            f"op {op.name}: its derivative returns {len(slopes)} values for {op.arity} inputs; return one partial derivative per input"
        )
    return slopes[index]


IDENTITY = Op("identity", lambda x: x, "elementwise", public=False, dtypes="keep", expression=(ex.argument(0),))
