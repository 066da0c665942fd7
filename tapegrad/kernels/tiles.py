"""The register tile that convolutions are made of, and a block transpose, as Numba intrinsics.

    C[r, :] (+)= sum over i of A[r, i] * B[i, :]        r < rows, a few vectors of columns

A's elements are broadcast, B's and C's rows are contiguous, and the sums stay in registers. Where A's elements and B's
rows lie is free: each index is either a stride (an integer) or a table of positions (a pointer to int64), so that a
convolution reads its image in place and no im2col copy is written.

Imported only to compile: this module imports Numba.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .jit import HOST

I32, I64 = ir.IntType(32), ir.IntType(64)
FLAGS = ("contract", "nsz", "arcp", "reassoc")  # contract: multiply and add become one FMA where there is one


class Tile:
    """Emits the code of one tile: `rows` x `vectors` sums, each a vector of as many elements as the host has lanes."""

    def __init__(self, builder: ir.IRBuilder, element: ir.Type, rows: int, vectors: int):
        self.builder, self.element, self.rows, self.vectors = builder, element, rows, vectors
        self.bytes = 4 if isinstance(element, ir.FloatType) else 8
        self.lanes = HOST.vector_bits // (8 * self.bytes)
        self.vector = ir.VectorType(element, self.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)
        self.sums = [[cgutils.alloca_once(builder, self.vector) for _ in range(vectors)] for _ in range(rows)]

    def splat(self, value):
        """A vector with `value` in each lane."""
        vector = ir.VectorType(value.type, self.lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        one = self.builder.insert_element(undefined, value, ir.Constant(I32, 0))
        order = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, undefined, order)

    def masks(self, columns):
        """For each vector, which of its lanes lie before `columns`."""
        wide = ir.VectorType(I64, self.lanes)
        limit = self.splat(columns)
        starts = [ir.Constant(wide, [v * self.lanes + i for i in range(self.lanes)]) for v in range(self.vectors)]
        return [self.builder.icmp_signed("<", start, limit) for start in starts]

    def _masked(self, what: str):
        module = self.builder.module
        pointer, mask = self.vector.as_pointer(), ir.VectorType(ir.IntType(1), self.lanes)
        name = f"llvm.masked.{what}.v{self.lanes}f{8 * self.bytes}.p0"
        if name in module.globals:
            return module.globals[name]
        if what == "load":
            function = ir.Function(module, ir.FunctionType(self.vector, [pointer, mask, self.vector]), name)
            function.args[0].attributes.align = self.bytes
        else:
            function = ir.Function(module, ir.FunctionType(ir.VoidType(), [self.vector, pointer, mask]), name)
            function.args[1].attributes.align = self.bytes
        return function

    def _vector_at(self, pointer, v: int):
        start = self.builder.gep(pointer, [ir.Constant(I64, v * self.lanes)])
        return self.builder.bitcast(start, self.vector.as_pointer())

    def load(self, pointer, v: int, masks):
        """Vector `v` of the row at `pointer`; lanes outside the masks are 0 and their memory is not touched."""
        where = self._vector_at(pointer, v)
        if masks is None:
            return self.builder.load(where, align=self.bytes)
        return self.builder.call(self._masked("load"), [where, masks[v], self.zero])

    def store(self, value, pointer, v: int, masks) -> None:
        where = self._vector_at(pointer, v)
        if masks is None:
            self.builder.store(value, where, align=self.bytes)
        else:
            self.builder.call(self._masked("store"), [value, where, masks[v]])

    def position(self, index, i):
        """Element `i` of an index: table[i], or i * stride."""
        if isinstance(index.type, ir.PointerType):
            return self.builder.load(self.builder.gep(index, [i]))
        return self.builder.mul(i, index)

    def emit(self, a, a_row, a_step, b, b_step, c, c_row, count, accumulate, masks) -> None:
        """The whole tile: `count` steps, then the sums go to C, or are added to it."""
        build = self.builder
        numbers = [ir.Constant(I64, r) for r in range(self.rows)]
        c_rows = [build.gep(c, [build.mul(n, c_row)]) for n in numbers]
        a_rows = [build.gep(a, [self.position(a_row, n)]) for n in numbers]
        for total in (s for sums in self.sums for s in sums):
            build.store(self.zero, total)
        with cgutils.for_range(build, count, intp=I64) as loop:
            b_row = build.gep(b, [self.position(b_step, loop.index)])
            values = [self.load(b_row, v, masks) for v in range(self.vectors)]
            step = self.position(a_step, loop.index)
            for row, sums in zip(a_rows, self.sums, strict=True):
                factor = self.splat(build.load(build.gep(row, [step])))
                for total, value in zip(sums, values, strict=True):
                    product = build.fmul(factor, value, flags=FLAGS)
                    build.store(build.fadd(build.load(total), product, flags=FLAGS), total)
        with build.if_then(accumulate):  # added at the end, so that a long sum is one of partial sums
            for row, sums in zip(c_rows, self.sums, strict=True):
                for v, total in enumerate(sums):
                    build.store(build.fadd(build.load(total), self.load(row, v, masks), flags=FLAGS), total)
        for row, sums in zip(c_rows, self.sums, strict=True):
            for v, total in enumerate(sums):
                self.store(build.load(total), row, v, masks)


@intrinsic(prefer_literal=True)
def tile(typingctx, rows, vectors, a, a_row, a_step, b, b_step, c, c_row, count, columns, accumulate):
    """C[r, :columns] = (C if accumulate else 0) + sum of A[r, i] * B[i, :columns] over i < count, r < rows.

    `rows` and `vectors` are literal; `columns` is at most `vectors` vectors. A[r, i] is a[a_row(r) + a_step(i)] and
    B[i, :] starts at b[b_step(i)], where each index is a stride or a table.
    """
    a_type = a
    shape = rows.literal_value, vectors.literal_value
    indices = [x if isinstance(x, types.CPointer) else types.int64 for x in (a_row, a_step, b_step)]
    signature = types.none(
        rows, vectors, a, indices[0], indices[1], b, indices[2], c, types.int64, types.int64, types.int64, types.int64
    )

    def codegen(context, builder, sig, args):
        _, _, a, a_row, a_step, b, b_step, c, c_row, count, columns, accumulate = args
        element = context.get_data_type(a_type.dtype)
        emitter = Tile(builder, element, *shape)
        more = builder.icmp_signed("!=", accumulate, ir.Constant(I64, 0))
        whole = builder.icmp_signed(">=", columns, ir.Constant(I64, shape[1] * emitter.lanes))
        same = (a, a_row, a_step, b, b_step, c, c_row, count, more)
        with builder.if_else(whole) as (full, part):
            with full:
                emitter.emit(*same, None)
            with part:
                emitter.emit(*same, emitter.masks(columns))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def add_products(typingctx, width, sums, a, a_step, b, b_step, count):
    """sums[c] += sum over i < count of a[i * a_step + c] * b[i * b_step + c], for c < `width` (literal)."""

    def codegen(context, builder, sig, args):
        _, sums, a, a_step, b, b_step, count = args
        element = context.get_data_type(sig.args[1].dtype)
        tile = Tile(builder, element, 1, width.literal_value // Tile(builder, element, 0, 0).lanes)
        totals = tile.sums[0]
        for v, total in enumerate(totals):
            builder.store(tile.load(sums, v, None), total)
        with cgutils.for_range(builder, count, intp=I64) as loop:
            left, right = (builder.gep(p, [tile.position(step, loop.index)]) for p, step in ((a, a_step), (b, b_step)))
            for v, total in enumerate(totals):
                product = builder.fmul(tile.load(left, v, None), tile.load(right, v, None), flags=FLAGS)
                builder.store(builder.fadd(builder.load(total), product, flags=FLAGS), total)
        for v, total in enumerate(totals):
            tile.store(builder.load(total), sums, v, None)
        return context.get_dummy_value()

    return types.none(width, sums, a, types.int64, b, types.int64, types.int64), codegen


@intrinsic
def lanes_of(typingctx, pointer):
    """The number of elements in one vector of the pointer's type."""

    def codegen(context, builder, sig, args):
        size = context.get_abi_sizeof(context.get_data_type(pointer.dtype))
        return ir.Constant(I64, HOST.vector_bits // (8 * size))

    return types.int64(pointer), codegen


@intrinsic
def turn_block(typingctx, to, to_row, source, source_row):
    """Transpose a square block with as many rows and columns as a vector has lanes: to[j, i] = source[i, j]."""

    def codegen(context, builder, sig, args):
        to, to_row, source, source_row = args
        tile = Tile(builder, context.get_data_type(sig.args[0].dtype), 0, 0)
        half = tile.lanes // 2
        numbers = [ir.Constant(I64, i) for i in range(tile.lanes)]
        rows = [tile.load(builder.gep(source, [builder.mul(n, source_row)]), 0, None) for n in numbers]
        kind = ir.VectorType(I32, tile.lanes)
        low, high = (
            ir.Constant(kind, [start + i // 2 + tile.lanes * (i % 2) for i in range(tile.lanes)]) for start in (0, half)
        )
        # each round interleaves the first half of the rows with the second; after log2(lanes) rounds it is transposed
        for _ in range(tile.lanes.bit_length() - 1):
            pairs = zip(rows[:half], rows[half:], strict=True)
            rows = [builder.shuffle_vector(x, y, order) for x, y in pairs for order in (low, high)]
        for n, row in zip(numbers, rows, strict=True):
            tile.store(row, builder.gep(to, [builder.mul(n, to_row)]), 0, None)
        return context.get_dummy_value()

    return types.none(to, types.int64, source, types.int64), codegen
