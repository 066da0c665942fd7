"""A text that says all a compiled function depends on, so that one stored for another function is never loaded.

It covers the bytecode, the constants, the defaults and, through them, every global and closure variable that the
function uses. Where a value cannot be written down (an array, an object), there is no fingerprint and the code is not
stored.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable

import numpy as np

from ..dtypes import DType
from ..ops.registry import Op
from .language import Inline, Intrinsic, TypeVar

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_STABLE_MODULES = (
    "math",
    "cmath",
    "numpy",
    "operator",
    "numba",
)  # their attributes are the same wherever the versions are


class _Unknown(Exception):
    """A value that no text stands for."""


def fingerprint(function: Callable | Inline) -> str | None:
    """The text for `function`, or None where it depends on something that cannot be written down."""
    try:
        return repr((sys.version_info[:3], np.__version__, _value(function, [])))
    except _Unknown:
        return None


def _value(value, seen: list):
    """Nested tuples of plain values that determine `value`; `seen` holds the functions on the way here."""
    kind = type(value)
    if kind in _PLAIN or value is Ellipsis:
        return (kind.__name__, repr(value))
    if kind is tuple:
        return ("tuple", *(_value(v, seen) for v in value))
    if kind is frozenset:
        return ("frozenset", *sorted(repr(_value(v, seen)) for v in value))
    if kind in (DType, TypeVar, Intrinsic):
        return (kind.__name__, value.name)
    if isinstance(value, Op) and value.kind == "elementwise":
        return ("op", value.dtype_rule, _function(value.fn, seen))
    if kind is Inline:
        return ("inline", value.reassoc, _function(value.function, seen))
    if isinstance(value, np.generic | np.dtype):
        return ("numpy", str(getattr(value, "dtype", value)), value.tobytes() if isinstance(value, np.generic) else b"")
    if isinstance(value, np.ufunc):
        return ("ufunc", value.__name__)
    if isinstance(value, types.ModuleType) and value.__name__.split(".")[0] in _STABLE_MODULES:
        return ("module", value.__name__)
    if isinstance(value, type | types.BuiltinFunctionType) and value.__module__ in ("builtins", *_STABLE_MODULES):
        return ("builtin", value.__module__, value.__qualname__)
    if kind.__module__.startswith("numba."):
        return _numba(value, seen)
    if kind is types.FunctionType:
        return ("function", _function(value, seen))
    raise _Unknown(value)


def _numba(value, seen: list):
    if hasattr(value, "py_func"):  # a function under numba.njit
        return ("njit", sorted((k, repr(v)) for k, v in value.targetoptions.items()), _function(value.py_func, seen))
    if type(value).__module__.startswith("numba.core.types"):
        return ("type", str(value))
    raise _Unknown(value)


def _function(function: Callable, seen: list):
    if type(function) is not types.FunctionType:
        raise _Unknown(function)
    if function in seen:
        return ("recursion", seen.index(function))
    seen = [*seen, function]
    cells = tuple(cell.cell_contents for cell in function.__closure__ or ())
    return (
        _code(function.__code__, function.__globals__, seen),
        _value(function.__defaults__ or (), seen),
        tuple((name, _value(v, seen)) for name, v in sorted((function.__kwdefaults__ or {}).items())),
        tuple(_value(v, seen) for v in cells),
    )


def _code(code: types.CodeType, module: dict, seen: list):
    constants = [_code(c, module, seen) if isinstance(c, types.CodeType) else _value(c, seen) for c in code.co_consts]
    used = [(name, _value(module[name], seen)) for name in code.co_names if name in module]
    return (code.co_code, getattr(code, "co_exceptiontable", b""), code.co_names, code.co_varnames, constants, used)
