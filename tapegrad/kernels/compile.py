"""From a skeleton to LLVM IR with the kernel ABI, through Numba. Imported only where nothing is cached.

Numba compiles the function with its globals rebound: type variables become Numba types, the words of `language.py`
their intrinsics, inline functions jitted ones. A small function with the ABI of `launch.py` unpacks the words and calls
it.
"""

from __future__ import annotations

import gc
import re
import types as python_types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import numba
from numba.core import registry, types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import AnalysisPass, register_pass
from numba.core.typed_passes import IRLegalization

from ..dtypes import ALL, BITS16, BY_NAME, DType
from ..errors import KernelError
from . import intrinsics, scalarmath
from .language import Inline, Intrinsic, TypeVar
from .skeleton import Skeleton
from .status import RAISED

# no "nnan" or "ninf": masks with inf and tests for NaN must work
FAST = frozenset({"contract", "nsz", "arcp", "reassoc"})
config: Any = numba.config  # its fields are made at run time
_WORD = {"int": ("i64", types.int64), "address": ("i64", types.int64), "float": ("double", types.float64)}
_BY_DTYPE = {d.name: getattr(types, "uint8" if d.name == "bool" else d.name) for d in (*ALL, BITS16)}
# where Numba's message turns from what is wrong to where it was found and whom to tell
_REST = re.compile(r"File \"|During:|There (is|are) \d+ candidate|Raised from|This error|For more|To see|- of which")
_BOILERPLATE = ("Failed in", "Unknown attribute of", "- ")


class TextLibrary(JITCodeLibrary):
    """Where Numba puts the LLVM IR of one function. No machine code is made of it, and nobody can run it.

    Numba would compile every function that a skeleton calls, and the skeleton itself: a fifth to a third of the time.
    """

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True

    @property
    def codegen(self):
        """The library itself, for `set_env`: functions of this pipeline have no address to write one to."""
        return self

    def set_env(self, name: str, env: object) -> None:
        """Nothing: see `codegen`."""


@register_pass(mutates_CFG=False, analysis_only=True)
class AsText(AnalysisPass):
    """Makes the following lowering write into a `TextLibrary`."""

    _name = "as_text"

    def __init__(self) -> None:  # abstract in Numba's passes
        super().__init__()

    def run_pass(self, state) -> bool:
        state.library = TextLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        return False


class TextCompiler(CompilerBase):
    """Numba's pipeline up to LLVM IR."""

    def define_pipelines(self) -> list:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.add_pass_after(AsText, IRLegalization)
        passes.finalize()
        return [passes]


def options(reassoc: bool) -> dict:
    """Numba's options for a skeleton or an inline function."""
    return {
        "error_model": "numpy",
        "fastmath": set(FAST if reassoc else FAST - {"reassoc"}),
        "boundscheck": False,
        "no_cpython_wrapper": True,
        "no_cfunc_wrapper": True,
        "pipeline_class": TextCompiler,
    }


def build(skeleton: Skeleton, symbol: str, bindings: dict) -> str:
    """LLVM IR of `skeleton` for these bindings, with `symbol` as its entry, still to be optimised."""
    binder = Binder(skeleton, bindings)
    arguments = []
    for _, pointer, kind in skeleton.parameters:
        arguments.append(types.CPointer(binder.type_of(kind)) if pointer else _WORD[kind][1])
    signature = types.int32(*arguments, types.int64, types.int64)
    core = numba.njit(**options(skeleton.reassoc))(binder.rebind(skeleton.function))
    try:
        with unoptimised():
            core.compile(signature)
    except Exception as error:  # Numba's compiler raises what it meets: AttributeError, AssertionError, its own
        raise KernelError(explain(skeleton, bindings, error)) from error
    compiled = core.overloads[signature.args]
    module = llvm.parse_assembly(compiled.library.get_llvm_str())
    name = compiled.fndesc.llvm_func_name
    outer = llvm.parse_assembly(wrapper(skeleton, symbol, name, module))
    outer.link_in(module)
    return str(outer)


@contextmanager
def unoptimised() -> Iterator[None]:
    """Compile without Numba's LLVM passes: ours run once over the whole kernel.

    Running both costs a third more time and vectorises the remainder loops again, into twice the code. Python's garbage
    collector waits, too: the many objects that Numba makes have it run often, for a tenth of the time.
    """
    registry.cpu_target.target_context.codegen()  # its own code generator is set up with the user's level
    with global_compiler_lock:
        before, collecting = config.OPT, gc.isenabled()
        config.OPT = 0
        gc.disable()
        try:
            yield
        finally:
            config.OPT = before
            if collecting:
                gc.enable()


def wrapper(skeleton: Skeleton, symbol: str, core: str, module) -> str:
    """IR of the function with the kernel ABI: load the words, call Numba's function, merge the two results."""
    loads, passed = [], ["ptr %result", "ptr %raised"]
    for i, (_, pointer, kind) in enumerate(skeleton.parameters):
        machine = "ptr" if pointer else _WORD[kind][0]
        loads.append(f"  %s{i} = getelementptr i64, ptr %args, i64 {i}\n  %w{i} = load {machine}, ptr %s{i}")
        passed.append(f"{machine} %w{i}")
    passed += ["i64 %begin", "i64 %end"]
    newline = "\n"
    return f"""target triple = "{module.triple}"
target datalayout = "{module.data_layout}"
declare i32 @"{core}"({", ".join(p.split()[0] for p in passed)})
define i32 @{symbol}(ptr noalias readonly %args, i64 %begin, i64 %end) {{
entry:
  %result = alloca i32
  %raised = alloca ptr
  store i32 0, ptr %result
{newline.join(loads)}
  %status = call i32 @"{core}"({", ".join(passed)})
  %value = load i32, ptr %result
  %fine = icmp eq i32 %status, 0
  %code = select i1 %fine, i32 %value, i32 {RAISED}
  ret i32 %code
}}
"""


_inlined: dict[tuple, Callable] = {}  # jitted inline functions by what they mean: skeletons share them


class Binder:
    """Rebinds the globals of one skeleton and of all it calls."""

    def __init__(self, skeleton: Skeleton, bindings: dict):
        self.skeleton = skeleton
        self.bindings = bindings

    def type_of(self, kind: str):
        """The Numba type of the type variable or dtype named."""
        bound = self.bindings.get(kind, BY_NAME.get(kind))
        if not isinstance(bound, DType):
            raise KernelError(f"skeleton {self.skeleton.name}: {kind} must be bound to a dtype, not {bound!r}.")
        return _BY_DTYPE[bound.name]

    def rebind(self, function: Callable) -> Callable:
        """A copy of `function` that sees Numba's meaning of the names it uses."""
        module = function.__globals__
        bound = dict(module)
        for name in used_names(function.__code__):
            if name in module:
                bound[name] = self.value(module[name])
        cells = function.__closure__
        if cells:
            cells = tuple(python_types.CellType(self.value(c.cell_contents)) for c in cells)
        copy = python_types.FunctionType(function.__code__, bound, function.__name__, function.__defaults__, cells)
        copy.__qualname__ = function.__qualname__
        copy.__kwdefaults__ = function.__kwdefaults__
        return copy

    def value(self, found):
        """What `found`, a global of a skeleton, is in compiled code."""
        if isinstance(found, TypeVar):
            if found.name not in self.bindings:
                raise KernelError(
                    f"skeleton {self.skeleton.name} uses the type variable {found.name}; "
                    f"bind it, as in {self.skeleton.name}.address({found.name}=float32)."
                )
            return self.value(self.bindings[found.name])
        if isinstance(found, DType):
            return _BY_DTYPE[found.name]
        if isinstance(found, Intrinsic):
            return getattr(intrinsics, found.name, None) or getattr(scalarmath, found.name)
        if isinstance(found, Inline):
            key = found, frozenset(self.meanings(found))
            if key not in _inlined:
                _inlined[key] = numba.njit(forceinline=True, **options(found.reassoc))(self.rebind(found.function))
            return _inlined[key]
        return found

    def meanings(self, found: Inline) -> Iterator[tuple[str, object]]:
        """The type variables that an inline function and all it calls use, with what they are bound to."""
        function = found.function
        module, cells = function.__globals__, function.__closure__ or ()
        for used in (*map(module.get, used_names(function.__code__)), *(c.cell_contents for c in cells)):
            if isinstance(used, TypeVar):
                yield used.name, self.bindings.get(used.name)
                used = self.bindings.get(used.name)
            if isinstance(used, Inline) and used is not found:
                yield from self.meanings(used)


def used_names(code) -> set[str]:
    """The global names that `code` and the functions in it may use."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, python_types.CodeType):
            names |= used_names(constant)
    return names


def explain(skeleton: Skeleton, bindings: dict, error: Exception) -> str:
    """One sentence about a failed compilation: which function, where, and what Numba says about it."""
    code = skeleton.function.__code__
    bound = ", ".join(f"{name}={value!r}" for name, value in sorted(bindings.items()))
    where = f"{code.co_filename}:{code.co_firstlineno}"
    return f"kernel {skeleton.name} ({where}) does not compile{bound and ' for '}{bound}: {reason(error)}"


def reason(error: Exception) -> str:
    """What Numba's message says is wrong, without the rest of it, and the line of the source."""
    message = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    if "none to int32" in message:
        return "it must return an int on every path: 0 when all is well, else a code of status.py"
    found = _REST.search(message)
    lines = [line.strip() for line in message[: found.start() if found else None].splitlines()]
    said = " ".join(line.removeprefix(">>> ") for line in lines if line and not line.startswith(_BOILERPLATE))
    source = re.findall(r'File ".*", line (\d+)', message)
    return (said.rstrip(". ") or type(error).__name__) + (f" (line {source[-1]})." if source else ".")
