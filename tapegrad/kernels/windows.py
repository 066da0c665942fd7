"""The maximum of windows, a vector of neighbouring windows at a time, as a Numba intrinsic.

Imported only to compile: this module imports Numba.
"""

# mypy: ignore-errors
# Numba calls and types these functions, by its own rules
from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .jit import HOST

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


class Windows:
    """Emits the code of as many windows, `step` elements apart, as a vector of the element and one of int32 have lanes."""

    def __init__(self, builder: ir.IRBuilder, element: ir.Type, size: int, signed: bool, step: int):
        self.builder, self.element, self.size, self.signed, self.step = builder, element, size, signed, step
        self.lanes = HOST.vector_bits // (8 * max(size, 4))
        self.vector, self.places = ir.VectorType(element, self.lanes), ir.VectorType(I32, self.lanes)

    def splat(self, value):
        """A vector with `value` in each lane."""
        undefined = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        one = self.builder.insert_element(undefined, value, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(one, undefined, ir.Constant(self.places, [0] * self.lanes))

    def within(self, numbers: list[int], low, high):
        """Which of the numbers lie in low..high (low: None for no bound)."""
        build, wide = self.builder, ir.Constant(self.places, numbers)
        below = build.icmp_signed("<", wide, self.splat(build.trunc(high, I32)))
        return (
            below
            if low is None
            else build.and_(below, build.icmp_signed(">=", wide, self.splat(build.trunc(low, I32))))
        )

    def _masked(self, what: str, vector: ir.VectorType, align: int):
        module, pointer, mask = self.builder.module, vector.as_pointer(), ir.VectorType(I1, self.lanes)
        letter = "i" if isinstance(vector.element, ir.IntType) else "f"
        name = f"llvm.masked.{what}.v{self.lanes}{letter}{8 * align}.p0"
        if name in module.globals:
            return module.globals[name]
        if what == "load":
            function = ir.Function(module, ir.FunctionType(vector, [pointer, mask, vector]), name)
            function.args[0].attributes.align = align
        else:
            function = ir.Function(module, ir.FunctionType(ir.VoidType(), [vector, pointer, mask]), name)
            function.args[1].attributes.align = align
        return function

    def load(self, pointer, bounds):
        """Elements 0, step, 2 step, ... at `pointer`; none behind the last one is read, and none outside the bounds."""
        build, parts, last = self.builder, [], (self.step - 1) * self.lanes
        back = self.step - 1 if bounds is None else 0  # by how much the last vector is moved to end at that element
        for first in range(0, last + 1, self.lanes):
            where = build.gep(pointer, [ir.Constant(I64, first - (back if first == last else 0))])
            where = build.bitcast(where, self.vector.as_pointer())
            if bounds is None:
                parts.append(build.load(where, align=self.size))
            else:
                mask = self.within([first + i for i in range(self.lanes)], *bounds)
                nothing = ir.Constant(self.vector, None)
                parts.append(build.call(self._masked("load", self.vector, self.size), [where, mask, nothing]))
        wanted = [i * self.step for i in range(self.lanes)]
        return self.pick(parts, [p + back if p >= last else p for p in wanted])

    def pick(self, parts: list, positions: list[int]):
        """The elements at `positions` of the parts laid end to end."""
        value = parts[0]
        for v in range(1, len(parts)):
            order = []
            for lane, p in enumerate(positions):
                part, i = divmod(p, self.lanes)
                kept = i if v == 1 else lane  # where an element of an earlier part is by now
                order.append(self.lanes + i if part == v else kept if part < v else 0)
            value = self.builder.shuffle_vector(value, parts[v], ir.Constant(self.places, order))
        return value

    def store(self, value, pointer, size: int, count) -> None:
        """One element for each window; for the first `count` where it is given."""
        where = self.builder.bitcast(pointer, value.type.as_pointer())
        if count is None:
            self.builder.store(value, where, align=size)
        else:
            mask = self.within(list(range(self.lanes)), None, count)
            self.builder.call(self._masked("store", value.type, size), [value, where, mask])

    def better(self, value, best):
        """Where `value` replaces `best`: it is larger, or the first NaN."""
        build = self.builder
        if isinstance(self.element, ir.IntType):
            return (build.icmp_signed if self.signed else build.icmp_unsigned)(">", value, best)
        return build.and_(build.fcmp_unordered(">", value, best), build.fcmp_ordered("ord", best, best))

    def emit(self, x, row_step, column_step, rows, columns, out, at, position, count=None, low=None, high=None) -> None:
        """All lanes; `count` of them where it is given; of whose elements only columns low..high exist, where given."""
        build, bounds = self.builder, None
        chosen = [i * self.step for i in range(self.lanes)]
        starts = build.add(ir.Constant(self.places, chosen), self.splat(build.trunc(position, I32)))
        best, where = cgutils.alloca_once(build, self.vector), cgutils.alloca_once(build, self.places)
        if high is not None:
            build.store(ir.Constant(self.vector, None), best)
            build.store(self.splat(ir.Constant(I32, -1)), where)
        else:
            if count is not None:
                bounds = None, build.sub(build.mul(count, ir.Constant(I64, self.step)), ir.Constant(I64, self.step - 1))
            build.store(self.load(x, bounds), best)
            build.store(starts, where)
        with cgutils.for_range(build, rows, intp=I64) as row, cgutils.for_range(build, columns, intp=I64) as column:
            across = build.mul(column.index, column_step)
            skip = build.add(build.mul(row.index, row_step), across)
            if high is not None:
                bounds = build.sub(low, across), build.sub(high, across)
            value = self.load(build.gep(x, [skip]), bounds)
            better = self.better(value, build.load(best))
            if high is not None:
                none = build.icmp_signed("<", build.load(where), ir.Constant(self.places, None))
                better = build.and_(build.or_(better, none), self.within(chosen, *bounds))
            build.store(build.select(better, value, build.load(best)), best)
            place = build.add(starts, self.splat(build.trunc(skip, I32)))
            build.store(build.select(better, place, build.load(where)), where)
        self.store(build.load(best), out, self.size, count)
        self.store(build.load(where), at, 4, count)


def _maxima(step, x, out, at, limits: int):
    """What an intrinsic returns: its signature, with so many limits at the end, and its code."""
    word = types.int64
    signature = types.none(step, x, word, word, word, word, out, at, word, *[word] * limits)

    def codegen(context, builder, sig, args):
        element = sig.args[1].dtype
        machine = context.get_data_type(element)
        size = context.get_abi_sizeof(machine)
        Windows(builder, machine, size, getattr(element, "signed", True), sig.args[0].literal_value).emit(*args[1:])
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def all_maxima(typingctx, step, x, row_step, column_step, rows, columns, out, at, position):
    """out[s] = the largest of x[s * step + i * row_step + j * column_step], i < rows, j < columns; at[s] = which."""
    return _maxima(step, x, out, at, 0)


@intrinsic(prefer_literal=True)
def some_maxima(typingctx, step, x, row_step, column_step, rows, columns, out, at, position, count):
    """The same for s < count, which is less than a vector has lanes."""
    return _maxima(step, x, out, at, 1)


@intrinsic(prefer_literal=True)
def clipped_maxima(typingctx, step, x, row_step, column_step, rows, columns, out, at, position, count, low, high):
    """The same for s < count at most, where only x[low] to x[high - 1] of each row exist; at[s] = -1 where none does."""
    return _maxima(step, x, out, at, 3)
