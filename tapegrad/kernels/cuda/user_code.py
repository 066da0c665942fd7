"""Users' scalar functions inside CUDA kernels, where they cannot be read as expressions: loops, branches that return, calls.

The function's body becomes part of the kernel, and so do those of the plain functions, jitted functions and elementwise ops
that it calls. Numba types it for the dtype computed in. Derivatives that the user did not give are `derive.py`'s.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable
from functools import lru_cache
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

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
    made = _inlined(function)
    return made if component is None or scalar.arity == 1 else _component(made, component, scalar.arity)


_functions: dict[Any, Callable] = {}


def _inlined(function: Callable) -> Callable:
    """A copy that kernels may call, with everything that it calls."""
    function = getattr(function, "py_func", function)
    found = _functions.get(function)
    if found is None:
        assert isinstance(function, FunctionType)
        _refuse_recursion(function)
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
    return _inlined(value) if type(value) is FunctionType else value


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
    return door.inlined(bodies[arity])
