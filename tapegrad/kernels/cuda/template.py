"""Kernels as Python functions with free names, and what a launch of one is.

    @template("x: *T, y: *A, n: int")
    def scaled(x, y, n):
        i = cuda.grid(1)
        while i < n:
            y[i] = A(x[i]) * A(FACTOR)
            i += cuda.gridsize(1)

    kernel = scaled.bind(T=float32, A=float64, FACTOR=3)

A parameter is `*T` (an address of elements of the dtype bound to T), `*int64` (of that dtype) or `int` (a 64-bit integer).
Names are bound to dtypes, which are casts within the body; to numbers; and to functions marked `@inline`, which become part
of the kernel. A bool is a byte: T bound to bool_ means uint8. Numba widens integers to 64 bits in every operation and meets
int64 and float32 at float64, so bodies cast what they compute: `T(0)`, not 0.

A kernel's bound copy shares no globals with another: its code is the template's, its globals are those of `functions.py`
and what was bound. So no source text is written for these kernels, and the simulator finds `cuda` where it expects it.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from ...dtypes import BITS16, BY_NAME, DType, bfloat16, bool_
from ...errors import KernelError
from ...layouts import Layout
from . import door, stored
from .functions import exchange, namespace
from .words import Extent

_PARAMETER = re.compile(r"(\w+)\s*:\s*(?:(int)|\*\s*(\w+))$")
WORDS = ("uint32", "uint64")  # pointees beside the dtypes
STATUS = -1  # the place of the status word among a launch's operands


class Inline:
    """A function that kernels call; its body becomes part of theirs."""

    __slots__ = ("function",)

    def __init__(self, function: Callable):
        self.function = function

    def __repr__(self) -> str:
        return f"<inline {self.function.__name__}>"

    def renamed(self, name: str, **names: str) -> Inline:
        """The same body under another name, with other free names, as in `renamed("team_maximum", combine="larger", A="T")`.

        So a kernel may call both, where what is bound to a name is one thing in all of a kernel.
        """
        code = self.function.__code__
        missing = names.keys() - set(code.co_names)
        if missing:
            raise KernelError(f"{self} has no free name {', '.join(sorted(missing))}, so it cannot be another one")
        code = code.replace(
            co_name=name, co_qualname=name, co_names=tuple([names.get(free, free) for free in code.co_names])
        )
        return Inline(FunctionType(code, self.function.__globals__, name))


def inline(function: Callable) -> Inline:
    """Mark a function as part of the kernels that call it."""
    return Inline(function)


class Template:
    """A kernel's body. Made by `@template`."""

    def __init__(self, function: Callable, signature: str):
        self.function = function
        self.parameters = []
        for part in filter(None, (p.strip() for p in signature.split(","))):
            match = _PARAMETER.match(part)
            if match is None:
                raise KernelError(f"template {function.__name__}: {part!r} is not 'name: *T' or 'name: int'")
            self.parameters.append((match[1], match[2] or match[3]))
        self.kernels: dict[tuple, Kernel] = {}
        names = tuple(name for name, _ in self.parameters)
        have = function.__code__.co_varnames[: function.__code__.co_argcount]
        if names != have:
            raise KernelError(f"template {function.__name__} takes {have}, but its signature says {names}")

    def bind(self, aligned: bool = False, **bound: Any) -> Kernel:
        """The kernel with these names bound; the same object for the same names."""
        key = (aligned, tuple(sorted((k, v if type(v) in (DType, Inline) else repr(v)) for k, v in bound.items())))
        found = self.kernels.get(key)
        if found is None:
            kinds = tuple(_kind(kind, bound) for _, kind in self.parameters)
            found = self.kernels[key] = Kernel(self.function, kinds, bound, aligned)
        return found


def template(signature: str) -> Callable[[Callable], Template]:
    """Make a template of the decorated function; see the module's text for the signature."""
    return lambda function: Template(function, signature)


def _kind(kind: str, bound: dict) -> str:
    if kind == "int" or kind in WORDS:
        return kind
    dtype = bound.get(kind) or BY_NAME.get(kind)
    if not isinstance(dtype, DType):
        raise KernelError(f"a kernel needs a dtype for {kind}, not {dtype!r}")
    return storage(dtype).name


def storage(dtype: DType) -> DType:
    """The dtype that kernels see: a bool is a byte, bfloat16 is its bits."""
    return BY_NAME["uint8"] if dtype is bool_ else BITS16 if dtype is bfloat16 else dtype


class Kernel:
    """A function that can be launched, with the kinds of its arguments: "int", or the dtype at an address.

    aligned: it reads groups of neighbours; see `vectors.py`.
    """

    def __init__(
        self, function: Callable, arguments: tuple[str, ...], bound: dict | None = None, aligned: bool = False
    ):
        self.body = function
        self.arguments = arguments
        self.bound = bound or {}
        self.aligned = aligned
        self.name = function.__name__
        self._function: Callable | None = None
        self._ptx: dict[tuple[int, int], str] = {}

    def __repr__(self) -> str:
        return f"<kernel {self.name}{self.bound}>"

    def function(self) -> Callable:
        """The function that Numba compiles, or that the simulator runs."""
        if self._function is None:
            scope = dict(namespace())
            scope["exchange"] = Inline(exchange())
            scope |= {k: _value(v) for k, v in self.bound.items()}
            scope |= _functions_of(self.bound.get("F") or self.bound.get("T"))
            self._function = specialised(self.body, scope)
        return self._function

    def ptx(self, cc: tuple[int, int] = (9, 0)) -> str:
        """Its PTX for a compute capability."""
        found = self._ptx.get(cc)
        if found is None:
            what = self.what()
            name = what and stored.entry_name(what, self.arguments, self.aligned, cc)
            found = stored.read(name) if name else None
            if found is None:
                found = self.compiled(cc)
                if name:
                    stored.write(name, found)
            self._ptx[cc] = found
        return found

    def compiled(self, cc: tuple[int, int]) -> str:
        """Its PTX, made now."""
        return door.compile_ptx(self.function(), self.arguments, cc, self.aligned)

    def what(self) -> str | None:
        """All that determines its function, as text; None where that cannot be written down."""
        place, bound = stored.place_of(self.body), stored.bound_text(self.bound)
        return None if place is None or bound is None else f"{place} {bound}"


def _functions_of(dtype) -> dict[str, object]:
    """exp, log and so on for a float dtype, under their plain names."""
    suffix = {"float32": "_f32", "float64": "_f64"}.get(getattr(dtype, "name", ""))
    if suffix is None:
        return {}
    return {k.removesuffix(suffix): v for k, v in namespace().items() if k.endswith(suffix) and k not in ("abs", "pow")}


def _value(v):
    return np.dtype(storage(v).name).type if isinstance(v, DType) else v


def specialised(function: Callable, scope: dict) -> Callable:
    """A copy of the function whose globals are `scope`, into which every inline function that it calls is put too."""
    _add_called(function.__code__, function.__globals__, scope)
    return FunctionType(function.__code__, scope, function.__name__, function.__defaults__)


def _add_called(code: CodeType, origin: dict, scope: dict) -> None:
    for name in _names(code):
        value = scope.get(name, origin.get(name))
        if isinstance(value, Inline):
            made = specialised(value.function, scope) if name not in scope or scope[name] is value else scope[name]
            scope[name] = door.inlined(made)
        elif name not in scope and isinstance(value, bool | int | float):
            scope[name] = value  # a constant of the module


def _names(code: CodeType) -> list[str]:
    inner = [name for c in code.co_consts if isinstance(c, CodeType) for name in _names(c)]
    return [*code.co_names, *inner]


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch.

    operands: places of the kernel's addresses: inputs, then outputs, then scratch memories; STATUS is the status word.
    offsets: bytes added to each of these addresses; all 0 where nothing is said. static: the integers behind them.
    unaligned: runs instead where one of the addresses is no multiple of 16; of the addresses numbered `wide`, where that is
    said, since those of operands that are read element by element do not matter. order: which of these words, addresses first,
    each parameter of the kernel gets; in their order where nothing is said.
    """

    kernel: Kernel
    grid: Extent
    block: Extent
    operands: tuple[int, ...]
    static: tuple[int, ...] = ()
    offsets: tuple[int, ...] = ()
    unaligned: Launch | None = None
    wide: tuple[int, ...] | None = None
    order: tuple[int, ...] = ()

    def __post_init__(self):
        if len(self.operands) + len(self.static) != len(self.kernel.arguments):
            raise KernelError(f"{self.kernel} takes {len(self.kernel.arguments)} arguments, not {self}")

    def words(self, addresses: list[int]) -> tuple[int, ...]:
        """What the kernel gets, from the addresses by place (the last is the status word's)."""
        found = [addresses[i] for i in self.operands]
        if self.offsets:
            found = [a + o for a, o in zip(found, self.offsets, strict=True)]
        words = (*found, *self.static)
        return tuple([words[i] for i in self.order]) if self.order else words

    def fitting(self, addresses: list[int]) -> Launch:
        """This launch, or the one for addresses that are no multiples of 16."""
        if self.unaligned is None:
            return self
        numbers = range(len(self.operands)) if self.wide is None else self.wide
        shifts = self.offsets or (0,) * len(self.operands)
        fits = all((addresses[self.operands[i]] + shifts[i]) % 16 == 0 for i in numbers)
        return self if fits else self.unaligned


@dataclass(frozen=True, slots=True)
class Work:
    """What an op comes to: launches in order, and the bytes of each scratch memory that they use."""

    launches: tuple[Launch, ...] = ()
    scratch: tuple[int, ...] = ()


class Steps:
    """Collects the launches of an op. Places: inputs, outputs, then scratch memories as they are asked for."""

    def __init__(self, ins: tuple[Layout, ...], outs: tuple[Layout, ...]):
        self.first = len(ins) + len(outs)
        self.launches: list[Launch] = []
        self.scratch: list[int] = []

    def temporary(self, nbytes: int) -> int:
        """The place of a scratch memory."""
        self.scratch.append(max(nbytes, 16))
        return self.first + len(self.scratch) - 1

    def add(self, *launches: Launch) -> None:
        self.launches += launches

    def work(self) -> Work:
        return Work(tuple(self.launches), tuple(self.scratch))


Builder = Callable[[tuple[Layout, ...], tuple[Layout, ...], dict], Work]
KERNELS: dict[str, Builder] = {}
ACCEPTS: dict[str, Callable[[Layout], bool]] = {}  # which input layouts a builder takes; C order where nothing is said


def cuda_kernel(*names: str, accepts: Callable[[Layout], bool] | None = None) -> Callable[[Builder], Builder]:
    """Register the decorated function as the CUDA builder of the ops named, as `kernels.launch.kernel` does for the CPU.

    It gets the layouts of inputs and outputs and the op's attributes, and returns the work. Inputs that `accepts` declines
    are copied to C order first.
    """

    def register(builder: Builder) -> Builder:
        for name in names:
            KERNELS[name] = builder
            if accepts is not None:
                ACCEPTS[name] = accepts
        return builder

    return register


class Machine:
    """What launches are cut to. block: threads of a block. lanes: of a warp. blocks: the most of a launch whose threads loop.

    Eight blocks of 256 threads fill a processor (2,048 threads, compute capability 8.0 and 9.0). `blocks` is that of the GPU that
    this thread prepares launches for, within `of`, and that of an H200 with its 132 processors elsewhere.
    """

    def __init__(self) -> None:
        self.block, self.lanes = 256, 32
        self._blocks = blocks_for(132)
        self._here = threading.local()

    @property
    def blocks(self) -> int:
        return getattr(self._here, "blocks", None) or self._blocks

    @blocks.setter
    def blocks(self, most: int) -> None:
        self._blocks = most

    @contextlib.contextmanager
    def of(self, most: int | None) -> Iterator[None]:
        """Cut this thread's launches to that many blocks; None: as elsewhere."""
        before, self._here.blocks = getattr(self._here, "blocks", None), most
        try:
            yield
        finally:
            self._here.blocks = before

    def grid(self, items: int, block: int | None = None) -> int:
        """Blocks for so many items, one thread each; threads loop where there are more."""
        return max(1, min(-(-items // (block or self.block)), self.blocks))


def blocks_for(processors: int) -> int:
    """The most blocks of a launch on a GPU with so many processors."""
    return 8 * processors


MACHINE = Machine()


def spread(kernel: Kernel, items: int, operands: tuple[int, ...], static: tuple[int, ...] = (), **more) -> Launch:
    """A launch with a thread for each item, which loop over further items."""
    return Launch(kernel, MACHINE.grid(items), MACHINE.block, operands, static, **more)
