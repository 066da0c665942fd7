"""Writes elementwise kernels: chains of scalar expressions over operands that broadcast, in one walk of memory.

Map: `Chain` says what is computed, in the terms of `kernels/fused.py` (Load and Map nodes), so that a fused chain of a plan
is given to it as it is; `work()` is the builder: it merges axes as the CPU's generator does and cuts the launch;
`Source` writes the text of a kernel.

A thread computes groups of elements that lie side by side along the innermost axis, so that each operand is read and written
by accesses of 16 bytes: 4 elements, or 8 where an operand has elements of two bytes, or 16 where all have one byte. Bytes come
as words of four. Where lengths, strides or addresses do not allow that, it computes one element at a time. Threads loop
(grid-stride).

Words: the innermost length, the lengths of the other axes but the first, then operand by operand its strides from the first
axis to the innermost; nothing but the length where there is one axis.
"""

from __future__ import annotations

import linecache
import math
from collections.abc import Callable
from dataclasses import dataclass

from ...dtypes import DType, bool_
from ...errors import KernelError
from ...layouts import Layout
from ...ops import expression as ex
from ...ops.reader import Unreadable
from ...ops.registry import Op
from ..elementwise import aligned, merged
from ..fused import Load, Map, Reduce
from .functions import namespace
from .scalar import Body, Lines, Value
from .template import MACHINE, Kernel, Launch, Work, specialised, storage

GROUP = 4  # elements of 4 bytes in an access of 16; of 8 bytes in two accesses
PAIRS = 8  # elements of a group where an operand has elements of two bytes
BYTES = 16  # elements of a group where all have one byte


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the user's that cannot be read as an expression, of other nodes; computed in `compute`.

    The first `factors` arguments multiply its result; a result of 0 stays 0 beside infinite factors.
    """

    function: Callable
    args: tuple[int, ...]
    compute: DType
    result: DType
    truths: tuple[int, ...] = ()
    factors: int = 0
    title: str = ""  # of the op, for errors


Node = Load | Map | Reduce | Call  # reductions are for the kernels of reduce_text.py


@dataclass(frozen=True, slots=True)
class Chain:
    """What a kernel computes for each element: nodes in order, and which of them are outputs."""

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]

    def text(self) -> str:
        """A complete text of the chain, for keys."""
        parts = []
        for n in self.nodes:
            if isinstance(n, Load):
                parts.append(f"load {n.operand}")
            elif isinstance(n, Map):
                parts.append(f"{ex.text((n.expression,))} {n.args} {n.compute.name} {n.result.name} {n.truths}")
            elif isinstance(n, Reduce):
                parts.append(f"{n.kind} {n.arg} {n.over} {n.result.name}")
            else:
                parts.append(f"{id(n.function)} {n.args} {n.compute.name} {n.result.name} {n.truths} {n.factors}")
        return "; ".join([*parts, repr(self.outputs)])


@dataclass(frozen=True, slots=True)
class Form:
    """What the text of a kernel depends on.

    moves: per operand, how it goes along the innermost axis: v by one, s not at all, g by any stride. axes: after merging.
    group: elements that a thread computes together.
    """

    chain: Chain
    inputs: tuple[DType, ...]
    results: tuple[DType, ...]
    moves: str
    axes: int
    group: int

    @property
    def operands(self) -> tuple[DType, ...]:
        return tuple(storage(d) for d in (*self.inputs, *self.results))

    @property
    def worded(self) -> list[int]:
        """The operands that come in words of four bytes too."""
        if self.group == 1:
            return []
        return [i for i, d in enumerate(self.operands) if d.itemsize == 1 and self.moves[i] == "v"]


class Source:
    """The text of the kernel of a form."""

    def __init__(self, form: Form):
        self.form = form
        self.functions: dict[str, Callable] = {}
        self.lines: list[str] = []

    def add(self, depth: int, *lines: str) -> None:
        self.lines += ["    " * depth + line for line in lines]

    def arguments(self) -> tuple[str, ...]:
        """The kinds of the kernel's parameters."""
        f = self.form
        kinds = [d.name for d in f.operands] + ["uint32"] * len(f.worded)
        return (*kinds, *("int",) * len(self.words()))

    def words(self) -> list[str]:
        """The names of the parameters that are integers."""
        f = self.form
        operands = range(len(f.operands))
        words = ["n"]
        if f.axes > 1:
            words += ["items"] + [f"e{d}" for d in range(1, f.axes - 1)]
            words += [f"s{i}_{d}" for i in operands for d in range(f.axes)]
        elif "g" in f.moves:
            words += [f"s{i}_0" for i in operands]
        return words

    def text(self) -> str:
        f = self.form
        pointers = [f"p{i}" for i in range(len(f.operands))] + [f"w{i}" for i in f.worded]
        self.add(0, f"def elementwise({', '.join(pointers + self.words())}):")
        self.add(1, "thread = cuda.grid(1)", "step = cuda.gridsize(1)")
        if f.axes > 1:
            self.rows()
        else:
            self.flat()
        return "\n".join(self.lines) + "\n"

    def flat(self) -> None:
        """One axis: whole groups, then the elements that are left."""
        f = self.form
        constants = [i for i, m in enumerate(f.moves) if m == "s" and i < len(f.inputs)]
        self.add(1, *[f"c{i} = p{i}[0]" for i in constants])
        places = {i: f"at * s{i}_0" if m == "g" else "at" for i, m in enumerate(f.moves)}
        if f.group == 1:
            self.add(1, "at = thread", "while at < n:")
            self.elements(2, places, 1)
            self.next(2, "at")
            return
        self.add(
            1, f"groups = n // {f.group}", "group = thread", "while group < groups:", f"    at = group * {f.group}"
        )
        self.elements(2, places, f.group)
        self.next(2, "group")
        self.add(1, f"at = groups * {f.group} + thread", "while at < n:")
        self.elements(2, places, 1)
        self.next(2, "at")

    def rows(self) -> None:
        """Several axes: an item is a group along the innermost, whose length is a multiple of it."""
        f = self.form
        operands, last = range(len(f.operands)), f.axes - 1
        self.add(1, f"length = n // {f.group}" if f.group > 1 else "length = n", "item = thread", "while item < items:")
        inner = "(item - row * length)" + (f" * {f.group}" if f.group > 1 else "")
        self.add(2, "row = item // length", f"at = {inner}")
        for i in operands:
            start = {"v": "at", "s": "0", "g": f"at * s{i}_{last}"}[f.moves[i]]
            self.add(2, f"b{i} = {start}")
        for d in range(last - 1, 0, -1):
            self.add(2, f"rest = row // e{d}", f"place = row - rest * e{d}", "row = rest")
            self.add(2, *[f"b{i} += place * s{i}_{d}" for i in operands])
        self.add(2, *[f"b{i} += row * s{i}_0" for i in operands])
        self.add(2, *[f"c{i} = p{i}[b{i}]" for i, m in enumerate(f.moves) if m == "s" and i < len(f.inputs)])
        self.elements(2, {i: f"b{i}" for i in operands}, f.group)
        self.next(2, "item")

    def next(self, depth: int, item: str) -> None:
        """To the thread's next item. NVVM does not unroll a loop with two ends: four copies of a long body gain nothing here,
        and take a third longer to compile than one."""
        self.add(depth, f"{item} += step", f"if {item} < 0:", "    break")

    def elements(self, depth: int, places: dict[int, str], group: int) -> None:
        """Reads, computes and writes `group` elements; operand i's first is at places[i]."""
        f = self.form
        read = sorted({n.operand for n in f.chain.nodes if isinstance(n, Load)})
        for i in read:
            if f.moves[i] != "s":
                self.load(depth, i, places[i], group)
        made: list[list[Value]] = []
        for lane in range(group):
            lines = Lines(f"_{lane}")
            made.append(self.chain(lines, lane))
            self.add(depth, *lines.lines)
        for j, i in enumerate(range(len(f.inputs), len(f.operands))):
            self.store(depth, i, places[i], [values[j].text for values in made])

    def load(self, depth: int, i: int, place: str, group: int, first: int = 0) -> None:
        """Reads `group` elements of operand i from a place on, as numbers x{i}_{first} and so on."""
        if group > 1 and i in self.form.worded:
            self.add(depth, f"f{i} = ({place}) // 4")
            for word in range(group // 4):
                self.add(depth, f"u{i} = w{i}[f{i} + {word}]")
                names = [f"x{i}_{first + 4 * word + k}" for k in range(4)]
                self.add(depth, *[f"{x} = uint8((u{i} >> {8 * k}) & 255)" for k, x in enumerate(names)])
            return
        self.add(depth, *[f"x{i}_{first + lane} = p{i}[{place} + {lane}]" for lane in range(group)])

    def store(self, depth: int, i: int, place: str, values: list[str]) -> None:
        if len(values) > 1 and i in self.form.worded:
            self.add(depth, f"f{i} = ({place}) // 4")
            for word in range(len(values) // 4):
                parts = [f"(uint32({v}) << {8 * k})" for k, v in enumerate(values[4 * word : 4 * word + 4])]
                self.add(depth, f"w{i}[f{i} + {word}] = uint32({' | '.join(parts)})")
            return
        self.add(depth, *[f"p{i}[{place} + {lane}] = {v}" for lane, v in enumerate(values)])

    def chain(self, lines: Lines, lane: int) -> list[Value]:
        """The chain's outputs for one element, as numbers that can be stored."""
        values: list[Value] = []
        bodies: dict[tuple, Body] = {}
        for n in self.form.chain.nodes:
            if isinstance(n, Load):
                i = n.operand
                values.append(self.loaded(lines, i, f"c{i}" if self.form.moves[i] == "s" else f"x{i}_{lane}"))
            else:
                assert not isinstance(n, Reduce)
                values.append(self.computed(lines, n, [values[a] for a in n.args], bodies))
        return [self.stored(lines, values[k]) for k in self.form.chain.outputs]

    def loaded(self, lines: Lines, i: int, name: str) -> Value:
        """The number of input i that was read under that name."""
        dtype = self.form.inputs[i]
        return lines.cast(Value(name, storage(bool_)), bool_) if dtype is bool_ else Value(name, dtype)

    def computed(self, lines: Lines, n: Map | Call, values: list[Value], bodies: dict[tuple, Body]) -> Value:
        """The value of a node; `bodies`: what was computed in these lines, by the arguments."""
        args = [lines.cast(v, bool_ if k in n.truths else n.compute) for k, v in enumerate(values)]
        if isinstance(n, Call):
            return self.call(lines, n, args)
        key = (n.args, n.compute, n.truths)
        body = bodies.get(key)
        if body is None:
            body = bodies[key] = Body(lines, args, n.compute)
        (v,) = body.outputs((n.expression,))
        return lines.cast(v, n.result)

    def stored(self, lines: Lines, v: Value) -> Value:
        """A value as what memory holds."""
        return lines.let(f"uint8({v.text})", storage(bool_)) if v.dtype is bool_ else v

    def scope(self) -> dict[str, object]:
        """Globals of the function beside those of all kernels: functions of tapegrad's that the text names."""
        return {}

    def call(self, lines: Lines, n: Call, args: list[Value]) -> Value:
        name = f"function{len(self.functions)}"
        name = next((k for k, fn in self.functions.items() if fn is n.function), name)
        self.functions[name] = n.function
        number = "bool" if n.compute is bool_ else n.compute.name
        made = lines.let(f"{number}({name}({', '.join(a.text for a in args[n.factors :])}))", n.compute)
        if n.factors:
            product = " * ".join([made.text, *(a.text for a in args[: n.factors])])
            zero = f"{n.compute.name}(0)"
            made = lines.let(f"{zero} if {made.text} == {zero} else {product}", n.compute)
        return lines.cast(made, n.result)


_kernels: dict[tuple, Kernel] = {}


def kernel_of(form: Form) -> Kernel:
    """The kernel of a form; the same object for the same form."""
    key = (form.chain.text(), form.inputs, form.results, form.moves, form.axes, form.group)
    found = _kernels.get(key)
    if found is None:
        found = _kernels[key] = Written(Source(form))
    return found


class Written(Kernel):
    """A kernel whose function is written as text."""

    def __init__(self, source: Source):
        self.source, self.form = source, source.form
        self.text, self.functions = source.text(), source.functions
        self.nodes = self.form.chain.nodes
        super().__init__(Source.text, source.arguments(), aligned=self.form.group > 1)
        self.name = "elementwise"

    def __repr__(self) -> str:
        return f"<kernel {self.text}>"

    def function(self) -> Callable:
        if self._function is None:
            name = f"<elementwise kernel {id(self):x} for CUDA>"
            linecache.cache[name] = (len(self.text), None, self.text.splitlines(keepends=True), name)  # for errors
            scope: dict = dict(namespace()) | self.functions | self.source.scope()
            exec(compile(self.text, name, "exec"), scope)
            self._function = specialised(scope["elementwise"], scope)
        assert self._function is not None
        return self._function

    def compiled(self, cc: tuple[int, int]) -> str:
        from .user_code import checked_scalar

        calls = [n for n in self.nodes if isinstance(n, Call)]
        try:
            return super().compiled(cc)
        except Exception as error:
            for n in calls:
                checked_scalar(n.title, n.function, n.compute, len(n.args) - n.factors, cc, error)
            raise

    def what(self) -> str | None:
        return None if self.functions else self.text


def chain(
    exprs: tuple[ex.Node, ...], inputs: int, results: tuple[Layout, ...], compute: DType, truths: tuple[int, ...] = ()
) -> Chain:
    """Expressions of the same inputs as a chain of one step."""
    places = tuple(range(inputs))
    maps = [Map(e, places, compute, x.dtype, truths) for e, x in zip(exprs, results, strict=True)]
    return Chain((*map(Load, places), *maps), tuple(range(inputs, inputs + len(maps))))


def chain_of(op: Op, ins: tuple[Layout, ...], outs: tuple[Layout, ...], compute: DType) -> Chain:
    """An elementwise op as a chain of one step."""
    try:
        return chain(op.expression(), len(ins), outs, compute, op.truths)
    except Unreadable:
        from .user_code import called

        function, factors = called(op)
        places = tuple(range(len(ins)))
        call = Call(function, places, compute, outs[0].dtype, op.truths, factors, op.title)
        return Chain((*map(Load, places), call), (len(ins),))


def work(
    chain: Chain,
    ins: tuple[Layout, ...],
    outs: tuple[Layout, ...],
    places: tuple[int, ...] | None = None,
    offsets: tuple[int, ...] = (),
) -> Work:
    """The launch that walks `ins`, broadcast to the shape of `outs`, and writes `outs`.

    places: of the operands in the launch (0, 1, … if not given); offsets: in elements, their firsts.
    """
    operands = (*ins, *outs)
    shape = outs[0].shape
    if outs[0].size == 0:
        return Work()
    places = places if places is not None else tuple(range(len(operands)))
    if len(places) != len(operands):
        raise KernelError(f"elementwise: {len(operands)} operands at {len(places)} places")
    shifts = tuple(o * x.dtype.itemsize for o, x in zip(offsets, operands, strict=True)) if offsets else ()
    extents, strides = merged(shape, [aligned(x, shape) for x in operands])
    extents, strides = extents or [1], [s or [0] for s in strides]
    count = len(ins)
    moves = "".join(
        "s" if s[-1] == 0 and i < count else "v" if s[-1] == 1 or extents[-1] == 1 else "g"
        for i, s in enumerate(strides)
    )
    moves = "".join("v" if m == "s" and i >= count else m for i, m in enumerate(moves))
    dtypes = tuple(x.dtype for x in ins), tuple(x.dtype for x in outs)
    cut = (chain, dtypes, moves, extents, strides, places, shifts)
    plain = _launch(*cut, 1)
    sizes = {x.dtype.itemsize for x in operands}
    group = BYTES if sizes == {1} else PAIRS if 2 in sizes else GROUP
    if not grouped(moves, extents, strides, group):
        return Work((plain,))
    return Work((_launch(*cut, group, plain),))


def words_of(moves: str, extents: list[int], strides: list[list[int]], group: int) -> tuple[int, ...]:
    """What `Source.words` names."""
    if len(extents) > 1:
        items = math.prod(extents) // group
        return (extents[-1], items, *extents[1:-1], *(s for each in strides for s in each))
    return (extents[-1], *(each[0] for each in strides if "g" in moves))


def grouped(moves: str, extents: list[int], strides: list[list[int]], group: int) -> bool:
    """Whether groups of elements lie side by side, each from a multiple of its length on."""
    if "g" in moves or math.prod(extents) < group:
        return False
    if len(extents) == 1:
        return True
    steps = [s for m, outer in zip(moves, strides, strict=True) if m == "v" for s in outer[:-1]]
    return extents[-1] % group == 0 and all(s % group == 0 for s in steps)


def _launch(
    chain, dtypes, moves, extents, strides, places, shifts, group: int, unaligned: Launch | None = None
) -> Launch:
    form = Form(chain, dtypes[0], dtypes[1], moves, len(extents), group)
    kernel, items, words = kernel_of(form), math.prod(extents) // group, words_of(moves, extents, strides, group)
    extra = tuple(places[i] for i in form.worded)
    if shifts and extra:
        shifts = (*shifts, *(shifts[i] for i in form.worded))
    wide = tuple(i for i, m in enumerate(moves) if m == "v")
    return Launch(kernel, MACHINE.grid(items), MACHINE.block, (*places, *extra), words, shifts, unaligned, wide)
