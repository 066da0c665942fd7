"""Elementwise ops that Numba compiles: any scalar function, its derivatives of every order, linked into one loop.

Map: a `Scalar` names what is computed for one element: g₁ · g₂ · … · h(inputs), where h is the user's function or a
derivative of it. `steps()` is the builder and `partial()` makes the op of a derivative, which is a Scalar with one
more factor. `_row()` writes the loop over one row as LLVM IR; the walk over the outer dimensions is that of
`elementwise.py`. Numba (in `user_code.py`) is imported only where the object code is not stored yet.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..dtypes import DType
from ..errors import KernelError
from ..layouts import Layout
from ..ops.registry import Op
from . import jit
from .access import ELEMENT, MEMORY
from .elementwise import aligned, driver, merged
from .emit import HALVES
from .fingerprint import fingerprint
from .launch import Step
from .skeleton import numba_version
from .status import RAISED

GRAIN = 2500  # elements in some 25 µs: a function that needs Numba has loops, about 10 ns an element


@dataclass(frozen=True)
class Scalar:
    """The product of `factors` numbers and one function of `arity` inputs.

    The function is `function`, or its result number `component`, differentiated by the inputs `by` in that order.
    """

    op_name: str
    function: Callable
    arity: int
    component: int | None = None
    by: tuple[int, ...] = ()
    factors: int = 0

    @cached_property
    def addresses(self) -> dict[tuple, int]:
        """Kernels by dtypes and moves, so that what is not stored on disk is compiled once in this process."""
        return {}

    @cached_property
    def cores(self) -> dict[tuple, Any]:
        """What Numba made of it, by kinds of inputs: the same for all strides."""
        return {}

    @cached_property
    def text(self) -> str | None:
        """All that determines what is computed, or None where that cannot be written down."""
        source = fingerprint(self.function)
        return None if source is None else repr((source, self.arity, self.component, self.by, self.factors))


def scalar_of(op: Op) -> Scalar:
    """What Numba compiles for `op`."""
    if op.jitted is None:
        op.jitted = Scalar(op.name, op.fn, op.arity)
    return op.jitted


def partial(op: Op, index: int) -> tuple[Op | None, tuple[int, ...]]:
    """The op `(g, inputs it reads…) -> g · ∂op/∂input[index]`, and the inputs it reads; see `ops.registry.partial`."""
    if op.explicit is not None:
        slope = Scalar(op.name, op.explicit, op.arity, component=index, factors=1)
        return _op(op, f"d_{op.name}_{index}", slope, 0), tuple(range(op.arity))
    scalar = scalar_of(op)
    everything = tuple(range(op.arity))
    if index < scalar.factors:  # linear: the product of the others, times g
        return op, (*everything[:index], *everything[index + 1 :])
    by = (*scalar.by, index - scalar.factors)
    slope = replace(scalar, by=by, factors=scalar.factors + 1)
    return _op(op, f"d_{op.name}_{index}", slope, scalar.factors), everything


def _op(op: Op, name: str, scalar: Scalar, factors: int) -> Op:
    truths = tuple(i + 1 for i in op.truths)
    made = Op(name, op.fn, "elementwise", public=False, arity=scalar.factors + scalar.arity, truths=truths)
    made.jitted, made.unreadable = scalar, f"{name} is derived from {op.name}"
    return made


def steps(op: Op, ins: tuple[Layout, ...], outs: tuple[Layout, ...], compute: DType) -> tuple[Step, ...]:
    """The step that walks `ins`, broadcast to the shape of the output."""
    scalar, shape, operands = scalar_of(op), outs[0].shape, (*ins, *outs)
    extents, strides = merged(shape, [aligned(x, shape) for x in operands])
    inner = extents.pop() if extents else 1
    inner_strides = [s.pop() if s else 0 for s in strides]
    # no move for constant operands: LLVM's loop vectoriser takes time exponential in the length of a chain of
    # operations on values that it knows not to change along the loop (LLVM 22: 1.4 s for 16 Newton steps, hours for 30)
    moves = "".join("v" if s == 1 or inner == 1 else "g" for s in inner_strides)
    kernel = _address(op, scalar, tuple(x.dtype for x in ins), outs[0].dtype, compute, moves)
    places, starts = tuple(range(len(operands))), (0,) * len(operands)
    words = (inner, len(extents), *starts, *inner_strides, *extents, *(t for s in strides for t in s))
    if not extents:
        return (Step(kernel, places, words, inner, GRAIN),)
    return (Step(kernel, places, words, math.prod(extents), max(GRAIN // max(inner, 1), 1)),)


def _address(op: Op, scalar: Scalar, inputs: tuple[DType, ...], result: DType, compute: DType, moves: str) -> int:
    key = (inputs, result, compute, moves, op.truths)
    found = scalar.addresses.get(key)
    if found is None:
        words = ([d.name for d in inputs], result.name, compute.name, moves, op.truths, op.dtype_rule)
        text = scalar.text and repr((scalar.text, words, numba_version()))
        symbol = "compiled_" + re.sub(r"\W", "_", scalar.op_name)

        def build() -> str:
            return _module(symbol, op, scalar, inputs, result, compute, moves)

        found = scalar.addresses[key] = jit.load(symbol, text, build, optimise=True, runtime=True)
    return found


def _module(symbol, op: Op, scalar: Scalar, inputs, result: DType, compute: DType, moves: str) -> str:
    from .user_code import linked, scalar_core  # imports Numba

    kinds = [ELEMENT[d.name] for d in inputs]
    wanted = ["i1" if i in op.truths else ELEMENT[compute.name] for i in range(op.arity)]
    core = scalar.cores.get(tuple(wanted))
    if core is None:
        core = scalar.cores[tuple(wanted)] = scalar_core(scalar, wanted[scalar.factors :])
    made = ELEMENT[result.name]
    if made[0] in "iu" and made != "i1" and core.result[0] == "f":
        raise KernelError(
            f"{op.name}: the function returns a floating-point number for {compute.name} inputs, and its dtypes="
            f'{op.dtype_rule!r} asks for {result.name}. Leave dtypes out, or say "float", to compute in floating point.'
        )
    row = _row(kinds, wanted, made, moves, scalar.factors, core)
    return linked(row + driver([*kinds, made], symbol, checked=True), core)


def _row(kinds: list[str], wanted: list[str], made: str, moves: str, factors: int, core) -> str:
    """IR of the row function: elements %b to %e, each loaded, cast, given to the core, multiplied, stored."""
    count = len(kinds) + 1
    ir = _Lines()
    values = [ir.cast(ir.load(i, kind, moves[i]), kind, wanted[i]) for i, kind in enumerate(kinds)]
    passed = ", ".join(f"{MEMORY[w]} {v}" for w, v in zip(wanted[factors:], values[factors:], strict=True))
    ir.lines += [
        f'  %status = call i32 @"{core.name}"(ptr %slot, ptr %raised, {passed})',
        "  %bad = icmp ne i32 %status, 0",
        "  br i1 %bad, label %failed, label %computed",
        "computed:",
    ]
    memory = _memory(core.result)
    ir.lines.append(f"  %core = load {memory}, ptr %slot")
    value, kind = "%core", core.result
    if factors:
        kind = wanted[0]
        value = ir.product(ir.cast(value, core.result, kind), values[:factors], MEMORY[kind])
    ir.store(count - 1, ir.cast(value, kind, made), made, moves[-1])
    pointers = ", ".join(f"ptr %p{i}" for i in range(count))
    strides = ", ".join(f"i64 %s{i}" for i in range(count))
    body = "\n".join(ir.lines)
    return f"""define internal i32 @row({pointers}, {strides}, i64 %b, i64 %e, ptr %tail) {{
entry:
  %slot = alloca {memory}
  %raised = alloca ptr
  %some = icmp slt i64 %b, %e
  br i1 %some, label %loop, label %done
loop:
  %i = phi i64 [%b, %entry], [%next, %computed]
{body}
  %next = add nuw nsw i64 %i, 1
  %more = icmp slt i64 %next, %e
  br i1 %more, label %loop, label %done
failed:
  ret i32 {RAISED}
done:
  ret i32 0
}}
"""


def _memory(kind: str) -> str:
    return MEMORY.get(kind) or "i" + kind[1:]


class _Lines:
    """IR for one element."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def new(self, instruction: str) -> str:
        name = f"%t{len(self.lines)}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def place(self, i: int, memory: str, move: str) -> str:
        at = "%i" if move == "v" else self.new(f"mul i64 %i, %s{i}")
        return self.new(f"getelementptr {memory}, ptr %p{i}, i64 {at}")

    def load(self, i: int, kind: str, move: str) -> str:
        return self.new(f"load {MEMORY[kind]}, ptr {self.place(i, MEMORY[kind], move)}")

    def store(self, i: int, value: str, kind: str, move: str) -> None:
        self.lines.append(f"  store {MEMORY[kind]} {value}, ptr {self.place(i, MEMORY[kind], move)}")

    def cast(self, value: str, source: str, to: str) -> str:
        """`value` from one kind to another; a truth value (i1) is a byte of 0 or 1."""
        if source == to:
            return value
        if source in HALVES:
            return self.cast(self.widened(value, source), "f32", to)
        if to in HALVES:
            return self.narrowed(self.cast(value, source, "f32"), to)
        have, want, floats = _memory(source), _memory(to), (source[0] == "f", to[0] == "f")
        unsigned = source[0] == "u" or source == "i1"
        if to == "i1":
            test = self.new(f"fcmp une {have} {value}, 0.0" if floats[0] else f"icmp ne {have} {value}, 0")
            return self.new(f"zext i1 {test} to i8")
        if floats[0] and floats[1]:
            return self.new(f"{'fpext' if to == 'f64' else 'fptrunc'} {have} {value} to {want}")
        if floats[1]:
            return self.new(f"{'uitofp' if unsigned else 'sitofp'} {have} {value} to {want}")
        bits = int(have[1:]), int(want[1:])
        if bits[0] == bits[1]:
            return value
        word = "trunc" if bits[0] > bits[1] else "zext" if unsigned else "sext"
        return self.new(f"{word} {have} {value} to {want}")

    def widened(self, bits: str, kind: str) -> str:
        """As `Emitter` does it: the bits of halves as float32."""
        if kind == "f16":
            return self.new(f"fpext half {self.new(f'bitcast i16 {bits} to half')} to float")
        upper = self.new(f"shl i32 {self.new(f'zext i16 {bits} to i32')}, 16")
        return self.new(f"bitcast i32 {upper} to float")

    def narrowed(self, value: str, kind: str) -> str:
        """As `Emitter` does it: float32 as the bits of halves."""
        if kind == "f16":
            return self.new(f"bitcast half {self.new(f'fptrunc float {value} to half')} to i16")
        bits = self.new(f"bitcast float {value} to i32")
        upper = self.new(f"lshr i32 {bits}, 16")
        raised = self.new(f"add i32 {self.new(f'add i32 {bits}, 32767')}, {self.new(f'and i32 {upper}, 1')}")
        nearest, quiet = self.new(f"lshr i32 {raised}, 16"), self.new(f"or i32 {upper}, 64")
        nan = self.new(f"fcmp uno float {value}, {value}")
        return self.new(f"trunc i32 {self.new(f'select i1 {nan}, i32 {quiet}, i32 {nearest}')} to i16")

    def product(self, slope: str, factors: list[str], memory: str) -> str:
        """slope · factors, and 0 where the slope is 0, even beside an infinite factor: the branch was not taken."""
        value = slope
        for factor in factors:
            value = self.new(f"fmul {memory} {value}, {factor}")
        flat = self.new(f"fcmp oeq {memory} {slope}, 0.0")
        return self.new(f"select i1 {flat}, {memory} 0.0, {memory} {value}")
