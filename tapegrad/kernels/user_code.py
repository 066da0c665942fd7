"""Users' functions through Numba to LLVM IR. Imported only where a kernel is not stored.

`scalar_core` and `array_core` compile a function and say what its machine function is called; `linked` joins it with
the loop around it. A failure is one KernelError: which function, which line, what is wrong, what to try; Numba's own
text is chained behind it.
"""

from __future__ import annotations

import dis
import linecache
import re
import types as python_types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

import llvmlite.binding as llvm
import numba
from numba import types
from numba.core.registry import cpu_target
from numba.core.runtime.nrt import rtsys
from numba.extending import typeof_impl

from ..errors import KernelError
from ..ops.registry import Op
from . import dual
from .compile import _BY_DTYPE, FAST, reason, unoptimised, used_names

KINDS = {"f32": types.float32, "f64": types.float64, "i32": types.int32, "i64": types.int64, "u8": types.uint8}
KINDS["i1"] = types.boolean
HINT = "Use numbers, loops, branches, math and NumPy's scalar functions, and call functions that Numba compiles"


@dataclass(frozen=True)
class Core:
    """A compiled function: its module, its name there, and the kind of number it returns ("" for none)."""

    module: Any
    name: str
    result: str = ""


def linked(text: str, core: Core) -> str:
    """IR of the kernel `text`, which calls `core`, with the core's module linked in."""
    rtsys.initialize(cpu_target.target_context)  # for functions that allocate
    declared = re.sub(r"\s*#\d+|personality.*", "", str(core.module.get_function(core.name)).split("{")[0])
    signature = re.search(r"\((.*)\)", declared, re.S)
    assert signature is not None
    parts = [p.split()[0] for p in signature[1].split(", ")]
    header = (
        f'target triple = "{core.module.triple}"\ntarget datalayout = "{core.module.data_layout}"\n'
        f'declare i32 @"{core.name}"({", ".join(parts)})\n'
    )
    outer = llvm.parse_assembly(header + text)
    outer.link_in(core.module, preserve=True)
    return str(outer)


def scalar_core(scalar, kinds: list[str]) -> Core:
    """The core of an elementwise op for inputs of these kinds; `scalar` is a `compiled.Scalar`."""
    function = prepared(scalar.function)
    arguments = tuple(KINDS[k] for k in kinds)
    what = f"{scalar.op_name}'s derivative" if scalar.component is not None else scalar.op_name
    if scalar.component is not None:
        returned = _return_type(what, function, arguments)
        _check_components(scalar, function, returned)
        function = _component(function, scalar.component, scalar.arity, isinstance(returned, types.BaseTuple))
    for index in scalar.by:
        function = dual.partial(function, index, scalar.arity)
    dispatcher = function if hasattr(function, "py_func") else _jit(function, dual.FLAGS)
    return _core(what, dispatcher, arguments)


def array_core(name: str, function: Callable, arguments: tuple, options: dict) -> Core:
    """The core of an array kernel; `arguments` are (dtype name, dimensions or None for a scalar, read-only)."""
    typed = tuple(
        _BY_NUMBER[dtype] if ndim is None else types.Array(_BY_NUMBER[dtype], ndim, "C", readonly=readonly)
        for dtype, ndim, readonly in arguments
    )
    flags = FAST if options["reassoc"] else dual.FLAGS
    dispatcher = _jit(prepared(function), flags, boundscheck=options["boundscheck"])
    return _core(name, dispatcher, typed, number=False)


_BY_NUMBER = {**_BY_DTYPE, "bool": types.boolean}


def _jit(function: Callable, flags, **more) -> Any:
    unboxed: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # never called from Python
    return numba.njit(error_model="numpy", fastmath=set(flags), **unboxed, **more)(function)


def _return_type(what: str, function: Callable, arguments: tuple) -> Any:
    """The type that the function returns; a KernelError where Numba cannot compile it."""
    dispatcher = _jit(function, dual.FLAGS)
    _compile(what, dispatcher, arguments)
    return types.unliteral(dispatcher.overloads[arguments].signature.return_type)


def _compile(what: str, dispatcher, arguments: tuple) -> None:
    try:
        with unoptimised():
            dispatcher.compile(arguments)
    except KernelError:
        raise
    except Exception as error:  # Numba's compiler raises what it meets: AttributeError, AssertionError, its own
        known = _chained(error)
        if known is not None:
            raise known from error
        raise KernelError(explained(what, dispatcher.py_func, arguments, error)) from error


def _chained(error: BaseException | None) -> KernelError | None:
    """The KernelError behind Numba's, where a derivative has found the fault and its words."""
    seen = 0
    while error is not None and seen < 20:
        if isinstance(error, KernelError):
            return error
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None


def _core(what: str, dispatcher, arguments: tuple, number: bool = True) -> Core:
    _compile(what, dispatcher, arguments)
    compiled = dispatcher.overloads[arguments]
    text = compiled.library.get_llvm_str()
    if ".numba.unresolved$" in text:
        _recursive.append(dispatcher)
    module = llvm.parse_assembly(_resolved(text))
    returned = types.unliteral(compiled.signature.return_type)
    if number:
        return Core(module, compiled.fndesc.llvm_func_name, _number(what, dispatcher.py_func, returned))
    if returned is not types.none:
        raise KernelError(
            f"{what} ({_place(dispatcher.py_func)}) returns {_plainly(returned)}; an array kernel returns nothing and "
            "writes its outputs, as in out[0] = total."
        )
    return Core(module, compiled.fndesc.llvm_func_name)


_recursive: list = []  # functions whose code in Numba's engine our kernels call


def _resolved(text: str) -> str:
    """IR in which recursive calls have a target.

    Numba makes them through a pointer that its own linker fills in. Where the function called is not in this module (it
    was specialised for another type), its address in Numba's engine is registered with LLVM under a name of its own.
    """
    for name in set(re.findall(r'@"?\.numba\.unresolved\$([\w.$]+)"? = ', text)):
        target = name
        if not re.search(rf'^define [^\n]*@"?{re.escape(name)}"?\(', text, flags=re.M):
            target = f"numba_recursion_{name}"
            llvm.add_symbol(target, cpu_target.target_context.codegen()._engine.get_function_address(name))
            text += f'\ndeclare void @"{target}"()\n'
        pointer = rf'^(@"?\.numba\.unresolved\${re.escape(name)}"? = )[^\n]*$'
        text = re.sub(pointer, rf'\1internal constant ptr @"{target}"', text, flags=re.M)
    return text


def _number(what: str, function: Callable, returned: Any) -> str:
    """The kind of number that a function returns; an error where it is none."""
    if isinstance(returned, types.Boolean):
        return "i1"
    if isinstance(returned, types.Float) and returned.bitwidth in (32, 64):
        return f"f{returned.bitwidth}"
    if isinstance(returned, types.Integer):
        returned = cast(Any, returned)
        return f"{'i' if returned.signed else 'u'}{returned.bitwidth}"
    raise KernelError(
        f"{what} ({_place(function)}) returns {_plainly(returned)}; an elementwise function returns one number on "
        "every path. For several results define several ops; for arrays use tg.kernel."
    )


def _plainly(returned) -> str:
    if returned is types.none:
        return "nothing"
    if isinstance(returned, types.Optional):
        return f"{returned.type} on some paths and nothing on others"
    if isinstance(returned, types.BaseTuple):
        return f"a tuple of {len(returned)}"
    return f"an array ({returned})" if isinstance(returned, types.Array) else str(returned)


def _check_components(scalar, function: Callable, returned: Any) -> None:
    count = len(returned) if isinstance(returned, types.BaseTuple) else 1
    if count != scalar.arity:
        raise KernelError(
            f"{scalar.op_name}: its derivative ({_place(function)}) returns {count} value{'s' * (count != 1)} for "
            f"{scalar.arity} input{'s' * (scalar.arity != 1)}; return one partial derivative per input."
        )
    parts: Any = returned if isinstance(returned, types.BaseTuple) else (returned,)
    for part in parts:
        _number(f"{scalar.op_name}'s derivative", function, types.unliteral(part))


def _component(function: Callable, index: int, arity: int, is_tuple: bool) -> Callable:
    """One result of a function that returns all partial derivatives."""
    if not is_tuple:
        return function
    f = _jit(function, dual.FLAGS)
    bodies: dict[int, Any] = {
        1: lambda a: f(a)[index],
        2: lambda a, b: f(a, b)[index],
        3: lambda a, b, c: f(a, b, c)[index],
        4: lambda a, b, c, d: f(a, b, c, d)[index],
    }
    body = bodies[arity]
    body.__name__ = body.__qualname__ = function.__name__
    return body


# functions and ops that the user's function calls


def prepared(function: Any, known: dict | None = None) -> Any:
    """A copy of `function` in which the plain functions and elementwise ops it calls are compiled ones.

    The reader of expressions follows such calls, too, so that a loop more or less changes nothing for the user.
    """
    function = getattr(function, "py_func", function)
    known = {} if known is None else known
    module = function.__globals__
    bound = dict(module)
    cells = tuple(python_types.CellType() for _ in function.__closure__ or ())
    copy = python_types.FunctionType(function.__code__, bound, function.__name__, function.__defaults__, cells or None)
    copy.__qualname__, copy.__kwdefaults__ = function.__qualname__, function.__kwdefaults__
    copy.__module__, copy.__doc__ = function.__module__, function.__doc__
    known[function] = _jit(copy, dual.FLAGS)
    for name in used_names(function.__code__):
        if name in module:
            bound[name] = _callable(module[name], known)
    for new, old in zip(cells, function.__closure__ or (), strict=True):
        new.cell_contents = _callable(old.cell_contents, known)
    return copy


def _callable(value, known: dict):
    if isinstance(value, Op) and value.kind == "elementwise":
        value = getattr(value.fn, "py_func", value.fn)
    elif type(value) is not python_types.FunctionType or _numba_knows(value):
        return value
    if value not in known:
        prepared(value, known)
    return known[value]


def _numba_knows(value) -> bool:
    context = cpu_target.typing_context
    context.refresh()
    try:
        return context.resolve_value_type(value) is not None
    except (numba.core.errors.NumbaError, ValueError, TypeError):
        return False


@typeof_impl.register(Op)
def _typeof_op(op: Op, context) -> types.Type | None:
    """An elementwise op found as an attribute (`tg.tanh`) is its function."""
    if op.kind != "elementwise":
        return None
    if op not in _dispatchers:
        _dispatchers[op] = _callable(op, {})
    return types.Dispatcher(_dispatchers[op])


_dispatchers: WeakKeyDictionary[Op, Any] = WeakKeyDictionary()  # Numba's types hold theirs weakly


# errors


def _place(function: Callable) -> str:
    code = function.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def explained(what: str, function: Callable, arguments: tuple, error: Exception) -> str:
    """One sentence about a failed compilation."""
    said = reason(error)
    sites = re.findall(r'File "(.+?)", line (\d+)', str(error))
    sites = [(file, int(line)) for file, line in sites if "numba" not in file] or [
        (function.__code__.co_filename, int(n)) for n in re.findall(r"\(line (\d+)\)", said)
    ]
    sites = sites or _passed(error)
    missing = re.search(r"NameError: name '(\w+)'", said)
    if missing and not sites:
        sites = _uses(function.__code__, missing[1])
    where = ""
    if sites:
        file, line = sites[-1]
        text = linecache.getline(file, line).strip()
        where = f", at line {line}: `{text}`" if text else f", at line {line}"
        said = re.sub(r"\s*\(line \d+\)", "", said)
    shown = ", ".join(map(str, arguments))
    return (
        f"{what} ({_place(function)}) cannot be compiled by Numba for inputs ({shown}){where}: {said.rstrip('. ')}. "
        f"{HINT}."
    )


def _passed(error: Exception) -> list[tuple[str, int]]:
    """File and line of the user's that Numba was at, from the frames that the error went through."""
    found, trace = [], error.__traceback__
    while trace is not None:
        loc: Any = trace.tb_frame.f_locals.get("loc")
        if isinstance(getattr(loc, "line", None), int):
            found.append((loc.filename, loc.line))
        trace = trace.tb_next
    return found


def _uses(code, name: str) -> list[tuple[str, int]]:
    """File and line where a function uses a global name."""
    found = [i for i in dis.get_instructions(code) if i.argval == name and i.positions is not None]
    return [(code.co_filename, i.positions.lineno) for i in found if i.positions and i.positions.lineno][:1]
