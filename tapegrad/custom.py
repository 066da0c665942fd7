"""Ops of your own: `tg.elementwise` of scalar functions, `tg.kernel` of array functions; see docs/custom-ops.md."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any

from .dtypes import DType, as_dtype
from .errors import DtypeError, KernelError, ShapeError, TapeError
from .kernels.array_kernel import ArrayKernel, Signature
from .ops import registry
from .ops.movement import astype
from .ops.reader import Unreadable, read
from .ops.registry import Op
from .tape.apply import apply, coerce
from .tape.create import zeros_like

RULES = ("float", "arith", "keep", "compare", "logic")
MOST_INPUTS = 4


def elementwise(
    fn: Callable | None = None,
    *,
    name: str | None = None,
    dtypes: str = "float",
    samples: list | None = None,
    register: bool = False,
) -> Any:
    """Make an op of a scalar function of one to four numbers: kernel, broadcasting and derivatives follow from it.

    The function may hold loops, branches, closures and calls to other functions: what is a plain expression becomes
    vector code with a symbolic derivative, everything else goes through Numba and is differentiated by dual numbers.
    Give the derivative yourself with `@op.derivative` where the derived one is slow or unstable.

    `dtypes`: "float" computes integers in float32; "arith" and "keep" keep their dtype ("arith" counts bools);
    "compare" returns bool; "logic" takes truth values and returns one. `register` enters the op in the registry, for
    libraries; a second op of the same name is then an error. `samples` are for `tg.testing.check_op`.

    >>> import tapegrad as tg
    >>> @tg.elementwise
    ... def cube(x):
    ...     return x * x * x
    >>> cube(tg.tensor([1.0, 2.0]))
    tensor([1., 8.])
    """
    if fn is None:
        return lambda f: elementwise(f, name=name, dtypes=dtypes, samples=samples, register=register)
    function = _plain(fn, "tg.elementwise")
    if dtypes not in RULES:
        raise DtypeError(f"tg.elementwise: dtypes={dtypes!r} is not one of {', '.join(RULES)}")
    inputs = _parameters(function, "tg.elementwise")
    if not 1 <= len(inputs) <= MOST_INPUTS:
        raise KernelError(
            f"tg.elementwise: {_place(function)} takes {len(inputs)} inputs; an elementwise function takes 1 to "
            f"{MOST_INPUTS}. Compose it of several ops, or use tg.kernel."
        )
    _check_single(function)
    op = Op(name or function.__name__.strip("<>"), function, "elementwise", dtypes=dtypes, samples=samples or [])
    return registry.register(op) if register else op


def _check_single(function: types.FunctionType) -> None:
    """Several results are an error at once where the source shows them."""
    try:
        count = len(read(function))
    except Unreadable:
        return
    if count != 1:
        raise KernelError(
            f"tg.elementwise: {_place(function)} returns a tuple of {count}; an elementwise function returns one "
            "number. For several results define several ops."
        )


class KernelOp(Op):
    """An op whose kernel is a user's function of arrays."""

    def __init__(self, core: ArrayKernel, names: list[str], samples: list):
        super().__init__(
            core.name,
            core.function,
            "primitive",
            kernel=core.steps,
            builder="",
            outputs=len(core.signature.outputs),
            samples=samples,
            arity=len(names),
        )
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        self.signature = self.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in names])
        self.layout = core.signature.text
        self.infer = core.infer
        self.core = core
        self.adjoints[None], self.saves[None] = self._without_adjoint, ()

    def _without_adjoint(self, *_):
        raise TapeError(
            f"{self.name} has no adjoint for an input that wants a gradient. Define one with @{self.name}.adjoint, or "
            "use .detach() on that input."
        )

    def __call__(self, *args, **kwargs):
        try:
            inputs = tuple(self.signature.bind(*args, **kwargs).arguments.values())
        except TypeError as error:
            raise ShapeError(f"{self.name}{self.signature} of layout {self.layout}: {error}") from None
        inputs = coerce(self, inputs)
        floats = [t.dtype for t in inputs if t.dtype.is_float]
        meet = max(floats, key=lambda d: d.rank, default=None)
        return apply(
            self, tuple(astype(t, meet) if t.dtype.is_float and t.dtype is not meet else t for t in inputs), {}
        )

    def cuda(
        self,
        fn: Callable | None = None,
        *,
        threads: Callable | int | tuple[int, int] | None = None,
        block: int | tuple[int, int] | None = None,
        serial: bool = False,
        zeroed: bool = False,
    ) -> Callable:
        """`@op.cuda`: the body for GPUs, a function of the same arguments in which `from numba import cuda` gives the thread.

        All threads of a launch work on one call's arrays; further calls, for dimensions in front, are further blocks along z.
        threads: how many there are at least for a call: a number, a pair for `cuda.grid(2)`, or a function of dimensions, as
        `lambda n: n // 2`; as many as the largest output has elements where nothing is said. block: threads of a block, 256 or
        fewer where nothing is said, a pair with a pair of threads.
        serial: one thread makes a call alone, as on the CPU; often `op.cuda(op.fn, serial=True)` is enough.
        zeroed: outputs start as zeros, for `cuda.atomic.add`, and not undefined.

        An index outside an array is not noticed on a GPU, and an exception cannot be raised there.
        """
        if fn is None:
            return lambda f: self.cuda(f, threads=threads, block=block, serial=serial, zeroed=zeroed)
        from .kernels.cuda.arrays import Body

        function = _plain(fn, f"{self.name}.cuda")
        _check_count(function, f"{self.name}.cuda", self.core.signature)
        self.cuda_kernel = Body(self.core, function, threads, block, serial, zeroed)
        self.launches.clear()
        return fn

    def adjoint(self, index=None, *, saves=None) -> Callable:
        """`@op.adjoint`: fn(g, y, *inputs) -> one gradient per input (None where there is none), in ops or a tg.kernel.

        Where the op has several outputs, g and y are tuples (a kernel gets them one after the other); the gradient of
        an output that nothing uses is zeros. `@op.adjoint(0, saves=(1,))`: of input 0 alone, which reads only input 1.
        """
        if index is None or isinstance(index, int):
            return lambda fn: self._set_adjoint(index, fn, saves)
        return self._set_adjoint(None, index, saves)

    def _set_adjoint(self, index: int | None, fn: Callable, saves) -> Callable:
        self.adjoints[index], self.saves[index] = (self._whole(fn) if self.outputs > 1 else fn), saves
        self.keeps.clear()
        return fn

    def _whole(self, fn: Callable) -> Callable:
        """`fn`, given a gradient for every output."""

        def adjoint(g, y, *inputs):
            whole = tuple(zeros_like(out) if one is None else one for one, out in zip(g, y, strict=True))
            return fn(*whole, *y, *inputs) if isinstance(fn, KernelOp) else fn(whole, y, *inputs)

        return adjoint


def kernel(
    layout: str,
    *,
    name: str | None = None,
    sizes: Callable | None = None,
    dtypes: Any = None,
    boundscheck: bool = False,
    reassoc: bool = False,
    samples: list | None = None,
    register: bool = False,
) -> Callable:
    """Make an op of a Numba function of arrays, laid out as a NumPy gufunc: `@tg.kernel("(m,k),(k,n)->(m,n)")`.

    The function takes the inputs, then the outputs, as C-contiguous arrays of the dimensions in parentheses, and
    writes every element of the outputs, which start undefined. An input `()` is a number, an output `()` an array of
    one element. Dimensions in front of those broadcast; the function is called once for each. Floating inputs meet at
    one dtype; integers and bools stay what they are; outputs have the dtype of the floats.

    `sizes`: a function of input dimensions that returns a dict of those that only outputs have. `dtypes`: the dtype of
    the outputs, or one for each. `boundscheck=True` turns an index outside an array into an error, where it would read
    or write any memory. `reassoc=True` lets sums be reordered, so that they become vector code.

    The op is differentiable once it has an `@op.adjoint`, and runs on a GPU once it has an `@op.cuda`.

    >>> import tapegrad as tg
    >>> @tg.kernel("(n)->()")
    ... def total(x, out):
    ...     out[0] = 0
    ...     for i in range(x.shape[0]):
    ...         out[0] += x[i]
    >>> @total.adjoint
    ... def _(g, y, x):
    ...     return tg.expand_dims(g, -1) + tg.zeros_like(x)
    >>> total(tg.ones((2, 3)))
    tensor([3., 3.])
    """
    if not isinstance(layout, str):
        raise ShapeError('tg.kernel: give the layout first, as in @tg.kernel("(m,k),(k,n)->(m,n)")')
    signature = Signature(layout, sizes)
    given = dtypes if isinstance(dtypes, tuple | list) else (dtypes,) * len(signature.outputs)
    if len(given) != len(signature.outputs):
        raise DtypeError(
            f"tg.kernel {layout}: {len(given)} dtypes for {len(signature.outputs)} outputs; give one for each"
        )
    fixed: tuple[DType | None, ...] = tuple(None if d is None else as_dtype(d) for d in given)

    def decorate(fn: Callable) -> KernelOp:
        function = _plain(fn, "tg.kernel")
        names = _check_count(function, "tg.kernel", signature)
        options = {"boundscheck": boundscheck, "reassoc": reassoc}
        core = ArrayKernel(name or function.__name__.strip("<>"), function, signature, fixed, options)
        op = KernelOp(core, names[: len(signature.inputs)], signature.samples() if samples is None else samples)
        return registry.register(op) if register else op  # type: ignore[return-value]

    return decorate


def _check_count(function: types.FunctionType, decorator: str, signature: Signature) -> list[str]:
    """The names of a body's arguments; ShapeError where there are not as many as inputs and outputs."""
    names = _parameters(function, decorator)
    wanted = len(signature.inputs) + len(signature.outputs)
    if len(names) != wanted:
        raise ShapeError(
            f"{decorator}: {_place(function)} takes {len(names)} arguments; the layout {signature.text} has "
            f"{len(signature.inputs)} inputs and {len(signature.outputs)} outputs, which come last: {wanted} "
            "in all."
        )
    return names


def _plain(fn: Callable, decorator: str) -> types.FunctionType:
    """The Python function behind `fn`, which may be one, or a function under numba.njit."""
    function = getattr(fn, "py_func", fn)
    if not isinstance(function, types.FunctionType):
        raise KernelError(
            f"{decorator}: {fn!r} is not a Python function or one under numba.njit; wrap it in one, as in "
            "def f(x): return it(x)."
        )
    return function


def _parameters(function: types.FunctionType, decorator: str) -> list[str]:
    """The names of the inputs; an error for kinds of parameters that a kernel cannot have."""
    parameters = inspect.signature(function).parameters.values()
    for p in parameters:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.KEYWORD_ONLY):
            raise KernelError(
                f"{decorator}: {_place(function)} has the parameter {p}; inputs are plain parameters. Take constants "
                "from the enclosing scope."
            )
    return [p.name for p in parameters]


def _place(function: types.FunctionType) -> str:
    code = function.__code__
    return f"{function.__name__} ({code.co_filename}:{code.co_firstlineno})"
