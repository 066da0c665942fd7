"""Users' scalar functions inside CUDA kernels, where they cannot be read as expressions: loops, branches that return, calls.

The function's body becomes part of the kernel, and so do those of the plain functions, jitted functions and elementwise ops
that it calls. Numba types it for the dtype computed in. Derivatives that the user did not give are `derive.py`'s.
"""

from __future__ import annotations

import ast
import copy
import dis
import re
from collections.abc import Callable
from functools import lru_cache
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

from ...dtypes import DType
from ...errors import KernelError
from ...ops.registry import Op
from ..compiled import Scalar, scalar_of
from . import door
from .derive import definition_of, derivative


def called(op: Op) -> tuple[Callable, int]:
    """The function that kernels call for an elementwise op, and how many of its first inputs multiply the result."""
    scalar = scalar_of(op)
    return _function_of(scalar), scalar.factors


@lru_cache(256)
def _function_of(scalar: Scalar) -> Callable:
    function, component = scalar.function, scalar.component
    for index in scalar.by:
        function, component = derivative(function, index, component), None
    made = inlined(function)
    return made if component is None or scalar.arity == 1 else _component(made, component, scalar.arity)


_functions: dict[Any, Callable] = {}


class Current:
    """Numba's simulator puts another module in the place of `cuda` among a kernel's globals, while that runs. To functions
    that the kernel calls, this one passes it on."""

    module: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


CURRENT = Current()


def inlined(function: Callable) -> Callable:
    """A copy that kernels may call, with everything that it calls."""
    function = getattr(function, "py_func", function)
    found = _functions.get(function)
    if found is None:
        assert isinstance(function, FunctionType)
        _refuse_recursion(function)
        _refuse_exceptions(function)
        given, function = function, _with_named_ops(function)
        scope = {
            name: _callable(value) for name, value in function.__globals__.items() if name in _names(function.__code__)
        }
        scope["__builtins__"] = function.__globals__["__builtins__"]
        cells = tuple(CellType(_callable(c.cell_contents)) for c in function.__closure__ or ()) or None
        made = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, cells)
        found = _functions[given] = door.inlined(made)
    return found


def _with_named_ops(function: FunctionType) -> FunctionType:
    """The function, in which ops that it finds in a module (`tg.tanh`) have names of their own: Numba knows no such modules."""
    modules = {n: m for n in _names(function.__code__) if isinstance(m := function.__globals__.get(n), ModuleType)}
    ops = {
        (n, a): op
        for n, m in modules.items()
        for a in _names(function.__code__)
        if isinstance(op := getattr(m, a, None), Op)
    }
    if not ops:
        return function
    definition, scope = definition_of(function)
    scope = dict(scope)

    class Naming(ast.NodeTransformer):
        def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
            op = ops.get((node.value.id, node.attr)) if isinstance(node.value, ast.Name) else None
            if op is None:
                return self.generic_visit(node)
            scope[f"op_{node.attr}"] = op
            return ast.copy_location(ast.Name(f"op_{node.attr}", ast.Load()), node)

    made = Naming().visit(copy.deepcopy(definition))
    made.decorator_list = []
    exec(compile(ast.fix_missing_locations(ast.Module([made], [])), function.__code__.co_filename, "exec"), scope)
    return scope[made.name]


def _callable(value):
    if isinstance(value, Op) and value.kind == "elementwise":
        value = value.fn
    value = getattr(value, "py_func", value)
    if door.simulated():
        if value is door.module():
            return CURRENT
        if type(value).__module__.startswith("numba.cuda.simulator"):  # a function under cuda.jit
            value = getattr(value, "fn", value)
    return inlined(value) if type(value) is FunctionType else value


def _refuse_exceptions(function: FunctionType) -> None:
    """A thread that raises ends, and nobody hears of it."""
    for i in dis.get_instructions(function.__code__):
        if i.opname == "RAISE_VARARGS":
            line = i.positions.lineno if i.positions else None
            raise KernelError(
                f"{function.__name__} ({function.__code__.co_filename}:{line}) raises an exception, which a GPU cannot tell of; "
                "return or write nan there, or check the arguments before the call"
            )


def _refuse_recursion(function: FunctionType, above: tuple = ()) -> None:
    if function in above:
        raise KernelError(f"{function.__name__} calls itself, which a CUDA kernel cannot do; write it as a loop")
    named = [function.__globals__.get(name) for name in _names(function.__code__)]
    for value in (*named, *(cell.cell_contents for cell in function.__closure__ or ())):
        value = getattr(value, "py_func", value)
        if type(value) is FunctionType:
            _refuse_recursion(value, (*above, function))


def _names(code: CodeType) -> set[str]:
    return set(code.co_names).union(*(_names(c) for c in code.co_consts if isinstance(c, CodeType)))


def _component(f: Callable, index: int, arity: int) -> Callable:
    """One result of a function that returns all partial derivatives."""
    bodies: dict[int, Callable] = {
        2: lambda a, b: f(a, b)[index],
        3: lambda a, b, c: f(a, b, c)[index],
        4: lambda a, b, c, d: f(a, b, c, d)[index],
    }
    made = door.inlined(bodies[arity])
    _parts[made] = f
    return made


_parts: dict[Callable, Callable] = {}  # what takes one result -> the function that returns all


# errors


def checked_body(what: str, function: Callable, arguments: tuple[door.Argument, ...], cc: tuple[int, int]) -> None:
    """KernelError, of one sentence that names the user's line, where the body of an array kernel does not compile."""
    returned = str(_result(what, inlined(function), arguments, cc))
    if returned != "none":
        raise KernelError(
            f"{what} ({_place(function)}) returns {_plainly(returned)}; an array kernel returns nothing and writes its outputs, as in "
            "out[0] = total."
        )


def checked_scalar(
    what: str, made: Callable, dtype: DType, count: int, cc: tuple[int, int], error: Exception | None = None
) -> None:
    """The same for what `called` made of an elementwise function of `count` numbers, which failed with `error` in a kernel."""
    arguments = ((dtype.name, None, True),) * count
    whole = _parts.get(made)
    returned = str(_result(what, whole or made, arguments, cc))
    if whole is not None and not _TUPLE.match(returned):
        raise KernelError(
            f"{what} ({_place(_python(whole))}), a derivative, returns {_plainly(returned)} for {count} inputs; return one partial "
            "derivative per input."
        ) from error
    if whole is None and not _NUMBER.match(returned):
        raise KernelError(
            f"{what} ({_place(_python(made))}) returns {_plainly(returned)}; an elementwise function returns one number on every path. For "
            "several results define several ops; for arrays use tg.kernel."
        ) from error


_NUMBER = re.compile(r"(Literal\[)?(float|u?int|bool)")
_TUPLE = re.compile(r"(Uni)?Tuple\(")


def _plainly(returned: str) -> str:
    """A type of Numba's in words."""
    if returned == "none":
        return "nothing"
    pair = re.match(r"UniTuple\(.* x (\d+)\)", returned)
    if pair or returned.startswith("Tuple("):
        return f"a tuple of {pair[1] if pair else returned.count(',') + 1}"
    maybe = re.match(r"OptionalType\((.*)\)", returned)
    if maybe:
        return f"{maybe[1]} on some paths and nothing on others"
    return f"an array ({returned})" if "array(" in returned else returned


def _result(what: str, made: Callable, arguments: tuple[door.Argument, ...], cc: tuple[int, int]) -> Any:
    """Numba's type of what a function returns; KernelError where it does not compile."""
    try:
        return door.result_type(_python(made), arguments, cc)
    except KernelError:
        raise
    except Exception as error:  # Numba's compiler raises what it meets: AttributeError, AssertionError, its own
        from ..user_code import explained  # imports Numba

        raise KernelError(explained(what, _python(made), tuple(map(door.type_of, arguments)), error)) from error


def _python(made: Callable) -> Any:
    return getattr(made, "py_func", made)


def _place(function: Any) -> str:
    return f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"
