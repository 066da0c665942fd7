"""The LLVM IR of @row of a fused kernel (see `fused.py`): the passes over one row.

What is the same all along a row is a vector with equal lanes. Accumulators of a row are kept on the stack between its passes
and in registers within one.
"""

from __future__ import annotations

from .access import ELEMENT, MEMORY, SIZE, read, read_one, write
from .body import Body
from .emit import BITS, Emitter, Value
from .fused import Accumulator, Form, Load, Map, Reduce, in_memory

INF = float("inf")


def start_of(e: Emitter, kind: str, type: str) -> Value:
    """What a reduction begins with, in all lanes."""
    if kind == "sum":
        return e.const(0, type)
    if type in ("f32", "f64"):
        return e.const(-INF if kind == "max" else INF, type)
    low, high = (0, 255) if type == "u8" else (-(1 << (BITS[type] - 1)), (1 << (BITS[type] - 1)) - 1)
    return e.const(low if kind == "max" else high, type)


def combined(e: Emitter, kind: str, a: Value, b: Value) -> Value:
    """One step of a reduction; a NaN wins over all numbers."""
    return {"sum": e.add, "max": e.maximum, "min": e.minimum}[kind](a, b)


def across(e: Emitter, kind: str, v: Value) -> Value:
    """The reduction of all lanes of v, in all lanes."""
    step = e.width // 2
    while step:
        lanes = ", ".join([f"i32 {lane ^ step}" for lane in range(e.width)])
        t = e.vector(v.type)
        v = combined(e, kind, v, e.raw(f"shufflevector {t} {v.name}, {t} poison, <{e.width} x i32> <{lanes}>", v.type))
        step //= 2
    return v


class Gathering:
    """A reduction in progress: its kind, the node reduced, the lane type, and where the vector of its lanes is kept."""

    __slots__ = ("arg", "kind", "place", "type")

    def __init__(self, kind: str, arg: int, type: str, place: str):
        self.kind, self.arg, self.type, self.place = kind, arg, type, place


class Row:
    """Writes @row: the passes over one row."""

    def __init__(self, form: Form):
        self.form = form
        self.e = Emitter(form.width)
        self.e.flags = ""  # every operation as written: IEEE arithmetic, nothing contracted
        self.known: dict[int, Value] = {}  # nodes that are the same all along the row
        self.stacked: list[str] = []  # allocations, which go to the top of the function
        self.rows_of = {node: k for k, node in enumerate(form.stored)}  # place of a node's row in the workspace
        self.filled: set[int] = set()  # stored nodes whose row has been written by an earlier pass

    def text(self) -> str:
        """The function."""
        form, e = self.form, self.e
        n = len(form.moves)
        pointers = [f"ptr %p{i}" for i in range(n)]
        strides = [f"i64 %s{i}" for i in range(n)]
        params = ", ".join([*pointers, *strides, "i64 %b", "i64 %e", "ptr %acc", "ptr %ws", "ptr %tail"])
        self.begin()
        for stage, roots in enumerate(form.passes):
            self.constants(stage)
            last = stage == len(form.passes) - 1
            if roots:
                self.run_pass(stage, last)
        self.constants(len(form.passes))
        self.write_rows()
        e.lines.append("  ret void")
        body = "\n".join(["entry:", *self.stacked, *e.lines])
        return f"define internal void @row({params}) {{\n{body}\n}}\n"

    def begin(self) -> None:
        """What all passes need: lane numbers, the whole vectors and what is left, the tail's mask."""
        e, w = self.e, self.form.width
        iota = "<" + ", ".join(f"i64 {lane}" for lane in range(w)) + ">"
        e.lines += [
            f"  %iota = add <{w} x i64> zeroinitializer, {iota}",
            "  %n = sub i64 %e, %b",
            f"  %whole = and i64 %n, -{w}",
            "  %stop = add i64 %b, %whole",
            "  %some = icmp sgt i64 %whole, 0",
            "  %left = sub i64 %e, %stop",
            "  %any = icmp sgt i64 %left, 0",
            f"  %li = insertelement <{w} x i64> poison, i64 %left, i32 0",
            f"  %lv = shufflevector <{w} x i64> %li, <{w} x i64> poison, <{w} x i32> zeroinitializer",
            f"  %mask = icmp slt <{w} x i64> %iota, %lv",
        ]
        for i, move in enumerate(self.form.moves):
            if move == "g":
                e.lines += [
                    f"  %si{i} = insertelement <{w} x i64> poison, i64 %s{i}, i32 0",
                    f"  %sv{i} = shufflevector <{w} x i64> %si{i}, <{w} x i64> poison, <{w} x i32> zeroinitializer",
                    f"  %lanes{i} = mul <{w} x i64> %iota, %sv{i}",
                ]
        for k in range(len(self.rows_of)):
            self.word(f"%line{k}", self.form.first_line + k)

    # what is the same all along a row

    def constants(self, stage: int) -> None:
        """Compute the nodes that are the same all along the row and can be known after `stage` passes."""
        form = self.form
        for node, n in enumerate(form.nodes):
            if not form.constant[node] or node in self.known or form.stages[node] > stage:
                continue
            if isinstance(n, Load):
                self.known[node] = read_one(self.e, form.inputs[n.operand], f"%p{n.operand}")
            elif isinstance(n, Map):
                self.known[node] = self.mapped(n, [self.known[a] for a in n.args])

    def mapped(self, n: Map, args: list[Value]) -> Value:
        """The expression of a Map."""
        e, compute = self.e, ELEMENT[n.compute.name]
        given = [
            (v if v.type == "i1" else e.cast(v, "i1")) if k in n.truths else e.cast(v, compute)
            for k, v in enumerate(args)
        ]
        (v,) = Body(e, given, compute).outputs((n.expression,))
        return e.cast(v, ELEMENT[n.result.name])

    def write_rows(self) -> None:
        """Store the results of which there is one a row."""
        form, e = self.form, self.e
        for k, (r, whole) in enumerate(zip(form.written, form.whole, strict=True)):
            if whole:
                continue
            kind, v = form.results[k], e.cast(self.known[r.node], form.results[k])
            v = e.cast(v, "i8") if kind == "i1" else v
            one, memory = e.new(), MEMORY[kind]
            e.lines += [
                f"  {one} = extractelement {e.vector(v.type)} {v.name}, i32 0",
                f"  store {memory} {one}, ptr %p{len(form.inputs) + k}, align {SIZE[memory]}",
            ]

    # passes

    def run_pass(self, stage: int, last: bool) -> None:
        """Go along the row once: reduce what has to be reduced, or write the results."""
        form, e = self.form, self.e
        gathering: list[Gathering] = []
        for node, n in enumerate(form.nodes):
            if isinstance(n, Reduce) and n.over == "row" and form.stages[n.arg] == stage and not self.is_late(node):
                type, place = form.accumulates(n), f"%a{node}"
                self.stacked.append(f"  {place} = alloca {e.vector(type)}, align 64")
                write(e, start_of(e, n.kind, type), type, place, None)
                gathering.append(Gathering(n.kind, n.arg, type, place))
        made = [node for node, n in enumerate(form.nodes) if any(g.place == f"%a{node}" for g in gathering)]
        columns: list[tuple[Accumulator, str]] = []
        if last:
            for a in form.accumulators:
                start, place = e.new(), e.new()
                self.word(start, 3 + form.accumulators.index(a))
                e.lines.append(f"  {place} = getelementptr i8, ptr %acc, i64 {start}")
                if a.columns:
                    columns.append((a, place))
                else:
                    gathering.append(Gathering(a.reduction, a.arg, a.kind, place))
        self.nest(Loop(self, last, gathering, columns))
        for node in made:
            n = form.nodes[node]
            assert isinstance(n, Reduce)
            total = across(e, n.kind, read(e, form.accumulates(n), f"%a{node}", None))
            self.known[node] = e.cast(total, form.kinds[node])
        self.filled.update([n for n in form.stored if n in form.reached(form.passes[stage])])

    def is_late(self, node: int) -> bool:
        """True of a reduction that nothing needs."""
        return self.form.stages[node] >= len(self.form.passes)

    def nest(self, loop: Loop) -> None:
        """The loop over the innermost axis, within loops over the other axes of a row."""
        form, e = self.form, self.e
        n, depth = len(form.moves), len(form.within)
        pointers, base, ends = [f"%p{i}" for i in range(n)], "", []
        for d in range(depth):
            extent, header, latch, index = e.new(), e.label("axis"), e.label("latch"), e.new()
            self.word(extent, form.first_extent + d)
            before = e.block
            e.lines.append(f"  br label %{header}")
            e.start(header)
            e.lines.append(f"  {index} = phi i64 [0, %{before}], [{index}n, %{latch}]")
            ends.append((header, latch, index, extent))
            moved = []
            for i in range(n):
                stride, way, place = e.new(), e.new(), e.new()
                memory = MEMORY[(form.inputs + form.results)[i]]
                self.word(stride, form.first_extent + depth * (1 + i) + d)
                e.lines += [
                    f"  {way} = mul i64 {index}, {stride}",
                    f"  {place} = getelementptr {memory}, ptr {pointers[i]}, i64 {way}",
                ]
                moved.append(place)
            pointers = moved
            if base:
                scaled, total = e.new(), e.new()
                e.lines += [f"  {scaled} = mul i64 {base}, {extent}", f"  {total} = add i64 {scaled}, {index}"]
                base = total
            else:
                base = index
        if base:
            offset = e.new()
            e.lines.append(f"  {offset} = mul i64 {base}, %n")
            base = offset
        loop.write(pointers, base)
        for header, latch, index, extent in reversed(ends):
            more = e.new()
            e.lines.append(f"  br label %{latch}")
            e.start(latch)
            e.lines += [
                f"  {index}n = add nuw nsw i64 {index}, 1",
                f"  {more} = icmp slt i64 {index}n, {extent}",
                f"  br i1 {more}, label %{header}, label %{latch}x",
            ]
            e.start(f"{latch}x")

    def word(self, name: str, number: int) -> None:
        """Load one of the words behind the walk's."""
        self.e.lines += [
            f"  {name}p = getelementptr i64, ptr %tail, i64 {number}",
            f"  {name} = load i64, ptr {name}p, align 8",
        ]


class Loop:
    """One pass along the innermost axis: whole vectors, then what is left under a mask."""

    def __init__(self, row: Row, last: bool, gathering: list[Gathering], columns: list[tuple[Accumulator, str]]):
        self.row, self.form, self.e = row, row.form, row.e
        self.last, self.gathering, self.columns = last, gathering, columns
        self.pointers: list[str] = []
        self.base = ""
        self.splats: dict[int, Value] = {}

    def write(self, pointers: list[str], base: str) -> None:
        """The loop; `base` names how many elements of the row lie before, empty for none."""
        e = self.e
        self.pointers, self.base = pointers, base
        self.splats = {
            i: read_one(e, self.form.inputs[i], pointers[i]) for i, move in enumerate(self.form.moves) if move == "o"
        }
        loop, tail, rest, done = e.label("loop"), e.label("tail"), e.label("rest"), e.label("done")
        at, before = e.new(), e.block
        first = [read(e, g.type, g.place, None) for g in self.gathering]
        e.lines.append(f"  br i1 %some, label %{loop}, label %{tail}")
        e.start(loop)
        place = len(e.lines)
        e.lines.append("")
        running = [Value(e.new(), g.type) for g in self.gathering]
        totals = self.elements(at, None, running)
        phis = [f"  {at} = phi i64 [%b, %{before}], [{at}n, %{e.block}]"]
        for r, f, t in zip(running, first, totals, strict=True):
            phis.append(f"  {r.name} = phi {e.vector(r.type)} [{f.name}, %{before}], [{t.name}, %{e.block}]")
        e.lines[place] = "\n".join(phis)
        e.lines += [
            f"  {at}n = add nuw nsw i64 {at}, {self.form.width}",
            f"  {at}m = icmp slt i64 {at}n, %stop",
            f"  br i1 {at}m, label %{loop}, label %{tail}",
        ]
        after = e.block
        e.start(tail)
        ends = []
        for g, f, t in zip(self.gathering, first, totals, strict=True):
            ends.append(e.raw(f"phi {e.vector(g.type)} [{f.name}, %{before}], [{t.name}, %{after}]", g.type))
        for g, v in zip(self.gathering, ends, strict=True):
            write(e, v, g.type, g.place, None)
        e.lines.append(f"  br i1 %any, label %{rest}, label %{done}")
        e.start(rest)
        for g, v in zip(self.gathering, self.elements("%stop", "%mask", ends), strict=True):
            write(e, v, g.type, g.place, None)
        e.lines.append(f"  br label %{done}")
        e.start(done)

    def elements(self, at: str, mask: str | None, running: list[Value]) -> list[Value]:
        """One vector of elements: what the reductions come to with it."""
        form, e = self.form, self.e
        local: dict[int, Value] = {}
        totals = []
        for g, r in zip(self.gathering, running, strict=True):
            v = combined(e, g.kind, r, e.cast(self.value(g.arg, at, mask, local), g.type))
            if mask is not None:
                v = e.select(Value(mask, "i1"), v, r)
            totals.append(v)
        for a, place in self.columns:
            v = e.cast(self.value(a.arg, at, mask, local), a.kind)
            here = self.along(place, a.kind, at)
            write(e, combined(e, a.reduction, read(e, a.kind, here, mask), v), a.kind, here, mask)
        if self.last:
            ready = []
            for k, (result, whole) in enumerate(zip(form.written, form.whole, strict=True)):
                if whole:
                    ready.append((k, self.value(result.node, at, mask, local)))
            for k, v in ready:  # after all reads: an output may be the same memory as an input
                pointer, lanes = self.place(len(form.inputs) + k, form.results[k], at)
                write(e, v, form.results[k], pointer, mask, lanes)
        return totals

    def value(self, node: int, at: str, mask: str | None, local: dict[int, Value]) -> Value:
        """A node's vector."""
        if node in self.row.known:
            return self.row.known[node]
        if node in local:
            return local[node]
        form, e = self.form, self.e
        n = form.nodes[node]
        if isinstance(n, Load):
            i = n.operand
            v = self.splats[i] if form.moves[i] == "o" else self.read(i, at, mask)
        else:
            assert isinstance(n, Map)
            kind = in_memory(form.kinds[node])
            if node in self.row.filled:
                v = read(e, kind, self.stored(node, kind, at), mask)
                v = e.cast(v, form.kinds[node])
            else:
                v = self.row.mapped(n, [self.value(a, at, mask, local) for a in n.args])
                if node in self.row.rows_of:
                    write(e, e.cast(v, kind), kind, self.stored(node, kind, at), mask)
        local[node] = v
        return v

    def read(self, i: int, at: str, mask: str | None) -> Value:
        pointer, lanes = self.place(i, self.form.inputs[i], at)
        return read(self.e, self.form.inputs[i], pointer, mask, lanes)

    def place(self, i: int, kind: str, at: str) -> tuple[str, str | None]:
        """Where element `at` of operand i's row lies, and how far from there the next lanes do, if not side by side."""
        e, pointer = self.e, self.e.new()
        if self.form.moves[i] == "v":
            e.lines.append(f"  {pointer} = getelementptr {MEMORY[kind]}, ptr {self.pointers[i]}, i64 {at}")
            return pointer, None
        way = e.new()
        e.lines += [
            f"  {way} = mul i64 {at}, %s{i}",
            f"  {pointer} = getelementptr {MEMORY[kind]}, ptr {self.pointers[i]}, i64 {way}",
        ]
        return pointer, f"%lanes{i}"

    def stored(self, node: int, kind: str, at: str) -> str:
        """Where a stored node's element lies in the workspace."""
        e, start = self.e, self.e.new()
        e.lines.append(f"  {start} = getelementptr i8, ptr %ws, i64 %line{self.row.rows_of[node]}")
        return self.along(start, kind, at)

    def along(self, pointer: str, kind: str, at: str) -> str:
        """Element `at` of the innermost axis behind a pointer to what belongs to the row's first element."""
        e, number = self.e, at
        if self.base:
            number = e.new()
            e.lines.append(f"  {number} = add i64 {self.base}, {at}")
        found = e.new()
        e.lines.append(f"  {found} = getelementptr {MEMORY[kind]}, ptr {pointer}, i64 {number}")
        return found
