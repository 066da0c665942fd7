"""Array kernels of the user: a Numba function of small arrays, called once for each index of the broadcast dimensions.

`Signature` is the layout, `(m,k),(k,n)->(m,n)` as in NumPy's generalised ufuncs. `ArrayKernel` has the shape rule and
the builder of steps. `_row()` writes the loop around the function as LLVM IR; the walk over the outer dimensions is
that of `elementwise.py`, and the sizes of the core dimensions follow its static words.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from ..dtypes import DEFAULT, DType, promote
from ..errors import ShapeError
from ..layouts import Layout, layout
from . import jit
from .access import ELEMENT, MEMORY
from .elementwise import aligned, driver, merged
from .fingerprint import fingerprint
from .launch import Step
from .skeleton import numba_version
from .status import RAISED

GRAIN = 16_384  # elements of all operands worth a thread of their own
_GROUP = r"\(\s*(?:\w+(?:\s*,\s*\w+)*)?\s*\)"
_WHOLE = re.compile(rf"\s*{_GROUP}(?:\s*,\s*{_GROUP})*\s*->\s*{_GROUP}(?:\s*,\s*{_GROUP})*\s*$")
_SAMPLE_SIZES = (2, 3, 4, 5, 2, 3)  # of the named dimensions in order, for checks


class Signature:
    """A layout, read: the dimensions of each input and output, by name or as a fixed number."""

    def __init__(self, text: str, sizes: Callable | None = None):
        self.text = text
        self.sizes = sizes
        if not _WHOLE.match(text):
            raise ShapeError(
                f"tg.kernel: {text!r} is not a layout; write the dimensions of each input and output, as in "
                '"(m,k),(k,n)->(m,n)" or "(n)->()".'
            )
        left, right = text.split("->")
        self.inputs, self.outputs = _groups(left), _groups(right)
        self.dims = tuple(dict.fromkeys(d for group in (*self.inputs, *self.outputs) for d in group))
        known = {d for group in self.inputs for d in group}
        free = [d for d in self.dims if d not in known and not d.isdigit()]
        if free and sizes is None:
            raise ShapeError(
                f"tg.kernel {text}: no input has the dimension {free[0]}; give its size, as in "
                f"sizes=lambda {', '.join(d for d in self.dims if d in known and not d.isdigit()) or ''}: "
                f'{{"{free[0]}": …}}.'
            )

    def measure(self, name: str, ins: tuple[Layout, ...]) -> tuple[dict[str, int], tuple[int, ...]]:
        """The size of every dimension, and the broadcast shape in front of them."""
        size = {d: int(d) for d in self.dims if d.isdigit()}
        fronts = []
        for i, (x, dims) in enumerate(zip(ins, self.inputs, strict=True)):
            if x.ndim < len(dims):
                raise ShapeError(
                    f"{name}: input {i} has shape {x.shape}; the layout {self.text} wants at least {len(dims)} "
                    f"dimension{'s' * (len(dims) != 1)}, ({','.join(dims)})."
                )
            fronts.append(x.shape[: x.ndim - len(dims)])
            for d, n in zip(dims, x.shape[x.ndim - len(dims) :], strict=True):
                if size.setdefault(d, n) != n:
                    shapes = " and ".join(str(x.shape) for x in ins)
                    raise ShapeError(
                        f"{name}: dimension {d} of the layout {self.text} is {size[d]} and, in input {i}, {n}; the "
                        f"shapes are {shapes}. Core dimensions do not broadcast."
                    )
        self._measure_free(name, size)
        return size, self._front(name, fronts)

    def _measure_free(self, name: str, size: dict[str, int]) -> None:
        free = [d for d in self.dims if d not in size]
        if not free:
            return
        assert self.sizes is not None
        wanted = [p for p in inspect.signature(self.sizes).parameters if p in size]
        given = self.sizes(*(size[p] for p in wanted))
        for d in free:
            n = given.get(d) if isinstance(given, dict) else None
            if not isinstance(n, int) or isinstance(n, bool) or n < 0:
                raise ShapeError(
                    f"{name}: sizes must return a dict with a whole number for {d}, as in {{{d!r}: 3}}; it returned "
                    f"{given!r}."
                )
            size[d] = n

    def _front(self, name: str, fronts: list[tuple[int, ...]]) -> tuple[int, ...]:
        from .prepare import broadcast

        try:
            return broadcast(name, fronts)
        except ShapeError as error:
            raise ShapeError(f"{error} These are the dimensions in front of the layout {self.text}.") from None

    def samples(self) -> list[dict]:
        """Small inputs for checks: one call, and broadcast ones where there are several inputs."""
        size = {d: _SAMPLE_SIZES[i % len(_SAMPLE_SIZES)] for i, d in enumerate(d for d in self.dims if not d.isdigit())}
        size |= {d: int(d) for d in self.dims if d.isdigit()}
        core = [tuple(size[d] for d in group) for group in self.inputs]
        fronts = [(2, 1), (3,)] if len(core) > 1 else [(2,)]
        wide = [(*fronts[i % len(fronts)], *shape) for i, shape in enumerate(core)]
        return [{"shapes": tuple(core)}, {"shapes": tuple(wide)}]


def _groups(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(re.findall(r"\w+", group)) for group in re.findall(r"\(([^)]*)\)", text))


@dataclass
class ArrayKernel:
    """A user's function with its layout: what an op of `tg.kernel` computes."""

    name: str
    function: Callable
    signature: Signature
    dtypes: tuple[DType | None, ...]
    options: dict
    addresses: dict[tuple, int] = field(default_factory=dict)

    def infer(self, *ins: Layout) -> list[tuple[tuple[int, ...], DType]]:
        """Shape and dtype of every output."""
        size, front = self.signature.measure(self.name, ins)
        meet = None
        for x in ins:
            if x.dtype.is_float:
                meet = x.dtype if meet is None else promote(meet, x.dtype)
        shapes = [(*front, *(size[d] for d in dims)) for dims in self.signature.outputs]
        return [(shape, d or meet or DEFAULT) for shape, d in zip(shapes, self.dtypes, strict=True)]

    def steps(self, ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Step, ...]:
        """One step over the broadcast dimensions."""
        size, front = self.signature.measure(self.name, ins)
        groups = (*self.signature.inputs, *self.signature.outputs)
        walked = []
        for x, dims in zip((*ins, *outs), groups, strict=True):
            lead = x.ndim - len(dims)
            walked.append(aligned(layout(x.shape[:lead], x.dtype, x.strides[:lead]), front))
        extents, strides = merged(front, walked)
        inner = extents.pop() if extents else 1
        inner_strides = [s.pop() if s else 0 for s in strides]
        kernel = self.address(tuple(x.dtype for x in ins), tuple(x.dtype for x in outs))
        words = (inner, len(extents), *(0,) * len(groups), *inner_strides, *extents, *(t for s in strides for t in s))
        words += tuple(size[d] for d in self.signature.dims)
        places = tuple(range(len(groups)))
        item = sum(math.prod(size[d] for d in dims) for dims in groups)
        if not extents:
            return (Step(kernel, places, words, inner, max(GRAIN // max(item, 1), 1)),)
        return (Step(kernel, places, words, math.prod(extents), max(GRAIN // max(item * inner, 1), 1)),)

    def address(self, inputs: tuple[DType, ...], outputs: tuple[DType, ...]) -> int:
        """The kernel for these dtypes."""
        key = (inputs, outputs)
        found = self.addresses.get(key)
        if found is None:
            source = fingerprint(self.function)
            words = ([d.name for d in (*inputs, *outputs)], sorted(self.options.items()), numba_version())
            text = source and repr((source, self.signature.inputs, self.signature.outputs, words))
            symbol = "array_" + re.sub(r"\W", "_", self.name)

            def build() -> str:
                return self._module(symbol, inputs, outputs)

            found = self.addresses[key] = jit.load(symbol, text, build, optimise=True, runtime=True)
        return found

    def _module(self, symbol: str, inputs: tuple[DType, ...], outputs: tuple[DType, ...]) -> str:
        from .user_code import array_core, linked  # imports Numba

        groups = (*self.signature.inputs, *self.signature.outputs)
        arguments = []
        for i, (d, dims) in enumerate(zip((*inputs, *outputs), groups, strict=True)):
            is_input = i < len(inputs)
            arguments.append((d.name, None if is_input and not dims else max(len(dims), 1), is_input))
        core = array_core(self.name, self.function, tuple(arguments), self.options)
        kinds = [ELEMENT[d.name] for d in (*inputs, *outputs)]
        text = _row(core.name, kinds, len(inputs), groups, self.signature.dims)
        return linked(text + driver(kinds, symbol, checked=True), core)


def _row(core: str, kinds: list[str], count: int, groups, dims: tuple[str, ...]) -> str:
    """IR of the row function: calls `core` at indices %b to %e, with arrays as Numba passes them.

    An array is eight or more words: its owner and parent (none), elements, bytes of one, address, lengths, strides.
    """
    entry, loop, passed = [], [], []
    for k in range(len(dims)):
        entry.append(f"  %d{k}p = getelementptr i64, ptr %tail, i64 {k}\n  %d{k} = load i64, ptr %d{k}p")
    for i, (kind, group) in enumerate(zip(kinds, groups, strict=True)):
        memory = MEMORY[kind]
        loop.append(f"  %m{i} = mul i64 %i, %s{i}\n  %x{i} = getelementptr {memory}, ptr %p{i}, i64 %m{i}")
        if i < count and not group:
            loop.append(f"  %v{i} = load {memory}, ptr %x{i}")
            passed.append(f"{memory} %v{i}")
            continue
        lengths = [f"%d{dims.index(d)}" for d in group] or ["1"]
        nbytes = {"float": 4, "double": 8, "i32": 4, "i64": 8, "i8": 1}[memory]
        strides, step = [], str(nbytes)
        for axis, length in reversed(list(enumerate(lengths))):
            strides.append(step)
            entry.append(f"  %n{i}_{axis} = mul i64 {step}, {length}")
            step = f"%n{i}_{axis}"
        entry.append(f"  %n{i} = udiv i64 {step}, {nbytes}")
        passed += ["ptr null", "ptr null", f"i64 %n{i}", f"i64 {nbytes}", f"ptr %x{i}"]
        passed += [f"i64 {n}" for n in (*lengths, *reversed(strides))]
    pointers = ", ".join([*(f"ptr %p{i}" for i in range(len(kinds))), *(f"i64 %s{i}" for i in range(len(kinds)))])
    newline = "\n"
    return f"""define internal i32 @row({pointers}, i64 %b, i64 %e, ptr %tail) {{
entry:
  %slot = alloca ptr
  %raised = alloca ptr
{newline.join(entry)}
  %some = icmp slt i64 %b, %e
  br i1 %some, label %loop, label %done
loop:
  %i = phi i64 [%b, %entry], [%next, %computed]
{newline.join(loop)}
  %status = call i32 @"{core}"(ptr %slot, ptr %raised, {", ".join(passed)})
  %bad = icmp ne i32 %status, 0
  br i1 %bad, label %failed, label %computed
computed:
  %next = add nuw nsw i64 %i, 1
  %more = icmp slt i64 %next, %e
  br i1 %more, label %loop, label %done
failed:
  ret i32 {RAISED}
done:
  ret i32 0
}}
"""
