"""Generates elementwise kernels: from scalar expressions to vector LLVM IR.

Map: `address()` is the door: it takes expressions, the dtypes of inputs and outputs and how each operand moves along the
inner loop, and returns the address of a compiled kernel. `_module()` writes the IR: an inner function over one row
(`_inner`: vector loop and masked tail, whose body `body.py` emits), and a driver that walks the outer
dimensions. `steps()` is the builder: it merges dimensions and lays out the static words.

Static words: inner length, number of outer dimensions d, then for each operand its start offset, for each its inner
stride, the d outer extents, and operand by operand its d outer strides; all in elements. With d = 0 the range runs over
elements, else over rows.
"""

from __future__ import annotations

import math

from ..dtypes import DType
from ..layouts import Layout
from ..ops import expression as ex
from .access import ELEMENT, MEMORY, read, read_one, write
from .body import Body
from .emit import Emitter, Value
from .jit import HOST, load
from .launch import Step

# Kernels that wait for memory run on vectors of at most this width: on Zen 4, an add of 1 M float32 takes 143 µs with 256
# bits and 151 with 512 (NumPy 140).
LIGHT_BITS = 256
GRAIN = 131_072  # elements of a cheap kernel that take about 25 µs; see run.py for when a kernel is split


class Kernel:
    """What one kernel is made from; `key` names it completely."""

    def __init__(
        self,
        outputs,
        inputs: tuple[DType, ...],
        compute: DType,
        results: tuple[DType, ...],
        moves: str,
        truths: tuple[int, ...],
    ):
        self.outputs = outputs
        self.inputs = [ELEMENT[d.name] for d in inputs]
        self.results = [ELEMENT[d.name] for d in results]
        self.compute = ELEMENT[compute.name]
        self.moves = moves  # per operand: v contiguous, s constant, g any stride; along the inner loop
        self.truths = truths
        widest = max([compute.itemsize] + [d.itemsize for d in results if d.is_float] + [4])
        light = not any(n.kind in ex.MATH for n in ex.walk(outputs))
        bits = min(HOST.vector_bits, LIGHT_BITS) if light else HOST.vector_bits
        self.width = max(bits // (8 * widest), 2)
        self.key = "|".join(
            [
                ex.text(outputs),
                ",".join(self.inputs),
                self.compute,
                ",".join(self.results),
                moves,
                str(truths),
                str(self.width),
            ]
        )

    @property
    def operands(self) -> list[str]:
        return self.inputs + self.results


_addresses: dict[tuple, int] = {}


def address(
    outputs: tuple[ex.Node, ...],
    inputs: tuple[DType, ...],
    compute: DType,
    results: tuple[DType, ...],
    moves: str,
    truths: tuple[int, ...] = (),
) -> int:
    """The address of the kernel that computes `outputs` from inputs of those dtypes, in dtype `compute`."""
    key = (outputs, inputs, compute, results, moves, truths)
    found = _addresses.get(key)
    if found is None:
        made = Kernel(outputs, inputs, compute, results, moves, truths)
        found = _addresses[key] = load("elementwise", made.key, lambda: _module(made, "elementwise"))
    return found


def _read(e: Emitter, k: Kernel, i: int, at: str, mask: str | None, splats: dict[int, Value]) -> Value:
    """Operand i's vector at element `at` of the row."""
    if k.moves[i] == "s":
        return splats[i]
    pointer, lanes = _place(e, k, i, k.inputs[i], at)
    return read(e, k.inputs[i], pointer, mask, lanes)


def _place(e: Emitter, k: Kernel, i: int, kind: str, at: str) -> tuple[str, str | None]:
    """Where element `at` of operand i's row lies, and how far from there the next lanes do, if not side by side."""
    pointer = e.new()
    if k.moves[i] == "v":
        e.lines.append(f"  {pointer} = getelementptr {MEMORY[kind]}, ptr %p{i}, i64 {at}")
        return pointer, None
    first, lanes = e.new(), e.new()
    e.lines += [
        f"  {first} = mul i64 {at}, %s{i}",
        f"  {pointer} = getelementptr {MEMORY[kind]}, ptr %p{i}, i64 {first}",
        f"  {lanes} = mul <{k.width} x i64> %iota, %sv{i}",
    ]
    return pointer, lanes


def _inner(k: Kernel, e: Emitter) -> str:
    """The row function: elements %b to %e of one row, vectors of `width`, then a masked tail."""
    w, n = k.width, len(k.operands)
    params = ", ".join([f"ptr %p{i}" for i in range(n)] + [f"i64 %s{i}" for i in range(n)] + ["i64 %b", "i64 %e"])
    iota = "<" + ", ".join(f"i64 {lane}" for lane in range(w)) + ">"
    e.start("entry")
    e.lines.append(f"  %iota = add <{w} x i64> zeroinitializer, {iota}")
    splats: dict[int, Value] = {}
    for i, move in enumerate(k.moves):
        if move == "g":
            e.lines.append(f"  %si{i} = insertelement <{w} x i64> poison, i64 %s{i}, i32 0")
            e.lines.append(
                f"  %sv{i} = shufflevector <{w} x i64> %si{i}, <{w} x i64> poison, <{w} x i32> zeroinitializer"
            )
        elif move == "s":
            splats[i] = read_one(e, k.inputs[i], f"%p{i}")
    e.lines += [
        "  %n = sub i64 %e, %b",
        f"  %whole = and i64 %n, -{w}",
        "  %stop = add i64 %b, %whole",
        "  %some = icmp sgt i64 %whole, 0",
        "  br i1 %some, label %loop, label %tail",
    ]
    before = e.block
    e.start("loop")
    e.lines.append("  PHI")
    place = len(e.lines) - 1
    _body(k, e, "%i", None, splats)
    e.lines[place] = f"  %i = phi i64 [%b, %{before}], [%next, %{e.block}]"
    e.lines += [
        f"  %next = add nuw nsw i64 %i, {w}",
        "  %more = icmp slt i64 %next, %stop",
        "  br i1 %more, label %loop, label %tail",
    ]
    e.start("tail")
    e.lines += [
        "  %left = sub i64 %e, %stop",
        "  %any = icmp sgt i64 %left, 0",
        "  br i1 %any, label %rest, label %done",
    ]
    e.start("rest")
    e.lines += [
        f"  %li = insertelement <{w} x i64> poison, i64 %left, i32 0",
        f"  %lv = shufflevector <{w} x i64> %li, <{w} x i64> poison, <{w} x i32> zeroinitializer",
        f"  %mask = icmp slt <{w} x i64> %iota, %lv",
    ]
    _body(k, e, "%stop", "%mask", splats)
    e.lines.append("  br label %done")
    e.start("done")
    e.lines.append("  ret void")
    return f"define internal void @row({params}) {{\n" + "\n".join(e.lines) + "\n}\n"


def _body(k: Kernel, e: Emitter, at: str, mask: str | None, splats: dict[int, Value]) -> None:
    read = ex.inputs_of(k.outputs)
    values: list = [None] * len(k.inputs)
    for i in read:
        v = _read(e, k, i, at, mask, splats)
        if i in k.truths:
            values[i] = v if v.type == "i1" else e.cast(v, "i1")
        else:
            values[i] = v if v.type == k.compute else e.cast(v, k.compute)
    for j, v in enumerate(Body(e, values, k.compute).outputs(k.outputs)):
        i = len(k.inputs) + j
        pointer, lanes = _place(e, k, i, k.results[j], at)
        write(e, v, k.results[j], pointer, mask, lanes)


def driver(
    operands: list[str], symbol: str, checked: bool = False, passed: tuple[str, ...] = (), hidden: int = 0
) -> str:
    """The ABI function: one call of @row for a flat range, or one per row of the outer dimensions.

    `checked`: @row returns a status, other than 0 to stop, and takes a pointer to the words that follow the walk's.
    `passed`: pointers that an internal function takes besides, and hands on to @row. `hidden`: words between the addresses
    of the operands and the walk's words.
    """
    n = len(operands)
    first = n + hidden
    tail = (", ptr %tail" if checked else "") + "".join([f", ptr %{name}" for name in passed])
    load_word = "  %{0}p = getelementptr i64, ptr %args, i64 {1}\n  %{0} = load i64, ptr %{0}p, align 8\n"
    kind = "internal i32" if passed else "i32"
    more = "".join([f", ptr %{name}" for name in passed])
    out = [f"define {kind} @{symbol}(ptr %args, i64 %begin, i64 %end{more}) {{\nentry:\n"]
    out.append(load_word.format("inner", first) + load_word.format("dims", first + 1))
    for i, kind in enumerate(operands):
        memory = MEMORY[kind]
        out.append(
            load_word.format(f"a{i}", i)
            + load_word.format(f"o{i}", first + 2 + i)
            + load_word.format(f"s{i}", first + n + 2 + i)
        )
        out.append(f"  %q{i} = inttoptr i64 %a{i} to ptr\n  %p{i} = getelementptr {memory}, ptr %q{i}, i64 %o{i}\n")
    strides = ", ".join(f"i64 %s{i}" for i in range(n))
    flat = ", ".join(f"ptr %p{i}" for i in range(n))
    out.append(f"  %extents = getelementptr i64, ptr %args, i64 {first + 2 * n + 2}\n")
    if checked:
        out.append(f"  %walked = mul i64 %dims, {n + 1}\n  %tail = getelementptr i64, ptr %extents, i64 %walked\n")
    out.append(f"""  %flat = icmp eq i64 %dims, 0
  br i1 %flat, label %one, label %check
one:
  {"%all = call i32" if checked else "call void"} @row({flat}, {strides}, i64 %begin, i64 %end{tail})
  ret i32 {"%all" if checked else "0"}
check:
  %steps = getelementptr i64, ptr %extents, i64 %dims
  %last = sub i64 %dims, 1
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %rows, label %done
rows:
  %r = phi i64 [%begin, %check], [%r1, %call]
  br label %axis
axis:
  %d = phi i64 [%last, %rows], [%d1, %axis]
  %left = phi i64 [%r, %rows], [%left1, %axis]
""")
    for i in range(n):
        out.append(f"  %f{i} = phi i64 [0, %rows], [%f{i}n, %axis]\n")
    out.append(
        "  %xp = getelementptr i64, ptr %extents, i64 %d\n  %x = load i64, ptr %xp, align 8\n"
        "  %left1 = udiv i64 %left, %x\n  %lm = mul i64 %left1, %x\n  %at = sub i64 %left, %lm\n"
    )
    for i in range(n):
        out.append(
            f"  %b{i} = mul i64 %dims, {i}\n  %c{i} = add i64 %b{i}, %d\n  %tp{i} = getelementptr i64, ptr %steps, i64 %c{i}\n"
            f"  %t{i} = load i64, ptr %tp{i}, align 8\n  %m{i} = mul i64 %at, %t{i}\n  %f{i}n = add i64 %f{i}, %m{i}\n"
        )
    out.append("  %d1 = sub i64 %d, 1\n  %up = icmp sge i64 %d1, 0\n  br i1 %up, label %axis, label %call\ncall:\n")
    for i, kind in enumerate(operands):
        out.append(f"  %w{i} = getelementptr {MEMORY[kind]}, ptr %p{i}, i64 %f{i}n\n")
    rows = ", ".join(f"ptr %w{i}" for i in range(n))
    out.append(f"""  {"%status = call i32" if checked else "call void"} @row({rows}, {strides}, i64 0, i64 %inner{tail})
  %r1 = add i64 %r, 1
  %more = icmp slt i64 %r1, %end
""")
    if checked:
        out.append("""  %fine = icmp eq i32 %status, 0
  %on = and i1 %more, %fine
  br i1 %on, label %rows, label %done
done:
  %result = phi i32 [0, %check], [%status, %call]
  ret i32 %result
}
""")
    else:
        out.append("  br i1 %more, label %rows, label %done\ndone:\n  ret i32 0\n}\n")
    return "".join(out)


def _module(k: Kernel, symbol: str) -> str:
    e = Emitter(k.width)
    row = _inner(k, e)
    return "\n".join([*e.declared.values(), *e.definitions, row, driver(k.operands, symbol)])


def merged(shape: tuple[int, ...], strides: list[tuple[int, ...]]) -> tuple[list[int], list[list[int]]]:
    """The same walk with as few dimensions as possible: axes of length 1 dropped, neighbours joined where all operands allow.

    >>> merged((2, 3, 4), [(12, 4, 1), (0, 0, 0)])
    ([24], [[1], [0]])
    """
    extents: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for axis, n in enumerate(shape):
        if n == 1:
            continue
        here = [s[axis] for s in strides]
        if extents and all(s[-1] == h * n for s, h in zip(steps, here, strict=True)):
            extents[-1] *= n
            for s, h in zip(steps, here, strict=True):
                s[-1] = h
        else:
            extents.append(n)
            for s, h in zip(steps, here, strict=True):
                s.append(h)
    return extents, steps


def aligned(x: Layout, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides with which x is walked as if broadcast to `shape`."""
    lead = len(shape) - x.ndim
    return (0,) * lead + tuple(0 if n == 1 else s for n, s in zip(x.shape, x.strides, strict=True))


def steps(
    outputs: tuple[ex.Node, ...],
    ins: tuple[Layout, ...],
    outs: tuple[Layout, ...],
    compute: DType,
    *,
    truths: tuple[int, ...] = (),
    places: tuple[int, ...] | None = None,
    offsets: tuple[int, ...] = (),
) -> tuple[Step, ...]:
    """The step that walks `ins`, broadcast to the shape of `outs`, and writes `outs`.

    `places` are the operands' positions in the launch (0, 1, … if not given), `offsets` their first elements.
    """
    shape = outs[0].shape
    operands = (*ins, *outs)
    walked = [aligned(x, shape) for x in operands]
    extents, strides = merged(shape, walked)
    inner = extents.pop() if extents else 1
    inner_strides = [s.pop() if s else 0 for s in strides]
    count = len(ins)
    moves = "".join(
        "s" if (s == 0 and i < count) else "v" if s == 1 or inner == 1 else "g" for i, s in enumerate(inner_strides)
    )
    kernel = address(outputs, tuple(x.dtype for x in ins), compute, tuple(x.dtype for x in outs), moves, truths)
    words = (
        inner,
        len(extents),
        *(offsets or (0,) * len(operands)),
        *inner_strides,
        *extents,
        *(t for s in strides for t in s),
    )
    places = places if places is not None else tuple(range(len(operands)))
    cost = 1 + sum(4 for n in ex.walk(outputs) if n.kind in ex.MATH)
    if not extents:
        return (Step(kernel, places, words, inner, max(GRAIN // cost, 4096)),)
    return (Step(kernel, places, words, math.prod(extents), max(GRAIN // (cost * max(inner, 1)), 1)),)
