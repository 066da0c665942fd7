"""Array kernels of the user on a GPU: the body of a `tg.kernel` for CUDA, and the kernel around it that calls it with arrays.

The kernel takes each operand as one array of Numba's, of all its calls' arrays one behind the other; as Numba passes an array,
that is eight or more words: its owner and parent (none), elements, bytes of one, address, lengths, strides. Blocks that lie
along z share the calls, and the threads of a block make a call together. The body's code becomes part of the kernel. Before
that it is compiled by itself, with inputs that are read-only, so that errors are those of the user's lines.

In the simulator the kernel gets the same words, and makes NumPy arrays of them.
"""

from __future__ import annotations

import inspect
import linecache
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import numpy as np

from ...dtypes import DType
from ...errors import KernelError, ShapeError
from ...layouts import Layout, layout
from ..array_kernel import ArrayKernel
from ..elementwise import aligned, merged
from ..fingerprint import fingerprint
from ..skeleton import numba_version
from . import door, elementwise
from .functions import namespace
from .movement import flat, zeros
from .template import MACHINE, Kernel, Launch, Work
from .words import MOST_THREADS, MOST_YZ

SHARED = 48 << 10  # bytes of shared arrays that a block may have, on every GPU
_SHARED_ARRAY = re.compile(r"\.shared\s+\.align \d+ \.b8 \w+\[(\d+)\]")


@dataclass(eq=False)
class Body:
    """A user's body for CUDA, and the builder of its launches; `KernelOp.cuda` says what the fields mean."""

    core: ArrayKernel
    function: Callable
    threads: Callable | int | tuple[int, int] | None = None
    block: int | tuple[int, int] | None = None
    serial: bool = False
    zeroed: bool = False
    kernels: dict[Form, Around] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.what = f"{self.core.name}.cuda"
        layout_, dims = self.core.signature.text, [d for d in self.core.signature.dims if not d.isdigit()]
        if self.serial and self.threads is not None:
            raise KernelError(f"{self.what}: serial=True is one thread for a call; leave out threads={self.threads!r}")
        if callable(self.threads):
            parameters = inspect.signature(self.threads).parameters.values()
            unknown = [p.name for p in parameters if p.name not in dims and p.default is p.empty]
            if unknown:
                raise ShapeError(
                    f"{self.what}: threads takes {unknown[0]!r}; the dimensions of {layout_} are {', '.join(dims)}"
                )
        elif self.threads is not None:
            self._sides("threads", self.threads)
        if self.block is not None:
            count = prod(self._sides("block", self.block))
            if count > MOST_THREADS:
                raise KernelError(
                    f"{self.what}: block={self.block!r} is {count:,} threads; a block has {MOST_THREADS:,} at most. Further "
                    "threads come in further blocks: threads= says how many there are in all"
                )

    def _sides(self, argument: str, given) -> tuple[int, int]:
        """A number, or a pair, as a pair."""
        pair = given if isinstance(given, tuple | list) and len(given) == 2 else (given, 1)
        if not all(isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= 0 for n in pair):
            raise KernelError(f"{self.what}: {argument} is a whole number or a pair of them, not {given!r}")
        if argument == "block" and 0 in pair:
            raise KernelError(f"{self.what}: block={given!r} has no threads; a block has 1 to {MOST_THREADS:,}")
        return int(pair[0]), int(pair[1])

    def __call__(self, ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> Work:
        """The launches. The inputs are in C order."""
        signature = self.core.signature
        size, front = signature.measure(self.core.name, ins)
        operands, groups = (*ins, *outs), (*signature.inputs, *signature.outputs)
        leads = [x.shape[: x.ndim - len(dims)] for x, dims in zip(operands, groups, strict=True)]
        extents, strides = merged(
            front, [aligned(layout(s, x.dtype), front) for s, x in zip(leads, operands, strict=True)]
        )
        extents, strides = extents or [1], [s or [0] for s in strides]
        kernel = self.kernel(tuple(x.dtype for x in operands), len(ins), len(extents))
        known: list[int] = []  # the words that are no addresses, as the kernel takes them
        for x, lead, dims in zip(operands, leads, kernel.form.dims, strict=True):
            shape = (prod(lead), *(1 if d is None else size[d] for d in dims))
            steps = [prod(shape[i + 1 :]) * x.dtype.itemsize for i in range(len(shape))]
            known += [0, 0, prod(shape), x.dtype.itemsize, *shape, *steps]
        known += [prod(extents), *extents[1:], *(s for each in strides for s in each)]
        grid, block = self.extent(size, prod(extents), [prod(size[d] for d in dims) for dims in signature.outputs])
        places = tuple(range(len(operands)))
        fills = [
            elementwise.work(zeros(y.dtype), (), (flat(y),), (len(ins) + i,)) for i, y in enumerate(outs) if self.zeroed
        ]
        launch = Launch(kernel, grid, block, places, tuple(known), order=kernel.order)
        return Work((*(one for fill in fills for one in fill.launches), launch))

    def extent(self, size: dict[str, int], calls: int, elements: list[int]) -> tuple:
        """The blocks, and the threads of one; elements: of each output of a call."""
        if self.serial:
            block = self._sides("block", MACHINE.block if self.block is None else self.block)
            return MACHINE.grid(calls, prod(block)), prod(block)
        threads = self.threads
        if callable(threads):
            threads = threads(**{p: size[p] for p in inspect.signature(threads).parameters if p in size})
        wanted = self._sides("threads", max(elements) if threads is None else threads)
        if self.block is not None:
            block = self._sides("block", self.block)
        elif isinstance(threads, tuple | list):
            block = (MACHINE.lanes, MACHINE.block // MACHINE.lanes)
        else:  # whole warps
            block = (min(MACHINE.block, max(-(-wanted[0] // MACHINE.lanes), 1) * MACHINE.lanes), 1)
        return (*(max(-(-n // b), 1) for n, b in zip(wanted, block, strict=True)), min(calls, MOST_YZ)), (*block, 1)

    def kernel(self, dtypes: tuple[DType, ...], inputs: int, axes: int) -> Around:
        """The kernel for operands of these dtypes and so many dimensions in front; the same object for the same."""
        signature = self.core.signature
        dims = tuple(
            g or (() if i < inputs else (None,)) for i, g in enumerate((*signature.inputs, *signature.outputs))
        )
        form = Form(dtypes, inputs, dims, axes, self.serial)
        found = self.kernels.get(form)
        if found is None:
            found = self.kernels[form] = Around(self, form)
        return found


@dataclass(frozen=True, slots=True)
class Form:
    """What the text around a body depends on. dims: of each operand; none for a number, (None,) for an array of one element."""

    dtypes: tuple[DType, ...]
    inputs: int
    dims: tuple[tuple[str | None, ...], ...]
    axes: int
    serial: bool

    def arguments(self, whole: bool) -> tuple[door.Argument, ...]:
        """Types of the operands: those of one call, or the `whole` of them."""
        more = [len(d) + 1 if whole else (len(d) or None) for d in self.dims]
        return tuple((t.name, n, i < self.inputs) for i, (t, n) in enumerate(zip(self.dtypes, more, strict=True)))

    @property
    def numbers(self) -> list[str]:
        """Parameters behind the operands: how many calls, the lengths of all axes but the first, the operands' strides."""
        strides = [f"s{i}_{d}" for i in range(len(self.dims)) for d in range(self.axes)]
        return ["calls", *(f"e{d}" for d in range(1, self.axes)), *strides]

    def text(self, simulated: bool) -> str:
        """The kernel that calls `body`."""
        operands = range(len(self.dims))
        lines: list[str] = []
        if simulated:
            parameters, lines = self._words()
        else:
            parameters = [f"x{i}" for i in operands]
        step = "cuda.gridsize(1)" if self.serial else "cuda.gridDim.z"
        lines += [f"call = {'cuda.grid(1)' if self.serial else 'int64(cuda.blockIdx.z)'}", "while call < calls:"]
        lines += ["    row = call", *(f"    b{i} = int64(0)" for i in operands)]
        for d in range(self.axes - 1, 0, -1):
            lines += [f"    rest = row // e{d}", f"    place = row - rest * e{d}", "    row = rest"]
            lines += [f"    b{i} += place * s{i}_{d}" for i in operands]
        lines += [f"    b{i} += row * s{i}_0" for i in operands]
        lines.append(f"    body({', '.join(f'x{i}[b{i}]' for i in operands)})")
        lines += ["    cuda.syncthreads()"] * (not self.serial)  # shared arrays are those of the next call, too
        lines.append(f"    call += {step}")
        head = f"def array_kernel({', '.join([*parameters, *self.numbers])}):"
        return "\n    ".join([head, *lines]) + "\n"

    def _words(self) -> tuple[list[str], list[str]]:
        """The operands' parameters one by one, and the lines that make arrays of them."""
        parameters, lines = [], ["CURRENT.module = cuda"]
        for i, dims in enumerate(self.dims):
            lengths = [f"n{i}_{d}" for d in range(len(dims) + 1)]
            steps = [f"t{i}_{d}" for d in range(len(dims) + 1)]
            parameters += [f"owner{i}", f"parent{i}", f"count{i}", f"bytes{i}", f"p{i}", *lengths, *steps]
            lines.append(f"x{i} = array_at(p{i}, ({', '.join(lengths)},), {i < self.inputs})")
        return parameters, lines


class Around(Kernel):
    """The kernel around a body."""

    def __init__(self, body: Body, form: Form):
        words: list[str] = []
        for dtype, dims in zip(form.dtypes, form.dims, strict=True):
            words += ["int"] * 4 + [dtype.name] + ["int"] * (2 * len(dims) + 2)
        super().__init__(body.function, (*words, *["int"] * len(form.numbers)))
        self.user, self.form, self.name = body, form, body.core.name
        operands, rest = iter(range(len(form.dims))), iter(range(len(form.dims), len(self.arguments)))
        self.order = tuple([next(rest if kind == "int" else operands) for kind in self.arguments])

    def __repr__(self) -> str:
        return f"<kernel of {self.name}{[d.name for d in self.form.dtypes]}>"

    def function(self) -> Callable:
        if self._function is None:
            from .user_code import inlined

            text = self.form.text(door.simulated())
            place = f"<kernel around {self.name} {id(self):x}>"
            linecache.cache[place] = (len(text), None, text.splitlines(keepends=True), place)  # for errors
            scope: dict = dict(namespace()) | {"body": inlined(self.body)}
            if door.simulated():
                from .simulated_memory import array_at
                from .user_code import CURRENT

                scope |= {"CURRENT": CURRENT, "array_at": array_at}
            exec(compile(text, place, "exec"), scope)
            self._function = scope["array_kernel"]
        assert self._function is not None
        return self._function

    def compiled(self, cc: tuple[int, int]) -> str:
        from .user_code import checked_body

        function = self.function()
        checked_body(f"{self.name}'s CUDA body", self.body, self.form.arguments(False), cc)
        ptx = door.compile_ptx(function, (*self.form.arguments(True), *["int"] * len(self.form.numbers)), cc)
        shared = sum(map(int, _SHARED_ARRAY.findall(ptx)))
        if shared > SHARED:
            raise KernelError(f"{self.name}'s CUDA body has {shared:,} bytes of shared arrays; a block has {SHARED:,}")
        return ptx

    def what(self) -> str | None:
        source = fingerprint(self.body)
        return source and repr((source, self.form.text(False), self.form.arguments(False), numba_version()))
