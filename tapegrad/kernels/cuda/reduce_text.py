"""The text of kernels that compute a chain and reduce it in the same walk: what they have in common, and `Everything`.

`Everything` walks as an elementwise kernel does; threads gather, a block brings together what its threads have. The walks of
rows and columns are in `reduce_row_text.py`.

Reductions accumulate as those of eager ops do: `reduce.MONOIDS`. Where one block does not see all that a reduction is of, the
accumulators are written, for another launch to finish.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...dtypes import DType
from ..fused import Load, Reduce
from .elementwise import Form, Source
from .functions import exchange
from .reduce import MONOIDS, Monoid
from .scalar import SUFFIX, Body, Lines, Value
from .template import MACHINE, Inline, storage


@dataclass(frozen=True, slots=True)
class Gathered:
    """A reduction that is known only at the end. direct: one block has all of it, and writes the result itself."""

    node: int
    direct: bool


@dataclass(frozen=True, slots=True)
class ReduceForm(Form):
    """What the text depends on beside the chain, whose outputs here are those that are written as elements.

    moves: along a row; o is an operand that does not change within a group. whole: for each written output, whether it has an
    element for each of the space or for each row. stages: for each node, after how many passes over the row it is known.
    constant: nodes that are the same all along a row. outer, inner: axes above a row, and of one. team: threads side by side in
    a row. turns: groups of a row that a thread has, where they stay in registers; else 0.
    """

    gathered: tuple[Gathered, ...] = ()
    whole: tuple[bool, ...] = ()
    stages: tuple[int, ...] = ()
    constant: tuple[bool, ...] = ()
    outer: int = 1
    inner: int = 1
    team: int = 1
    turns: int = 0


class Gathering(Source):
    """What these kernels have in common: reductions as text, nodes in several passes."""

    form: ReduceForm

    def __init__(self, form: ReduceForm):
        super().__init__(form)
        self.nodes = form.chain.nodes

    # parameters

    def arguments(self) -> tuple[str, ...]:
        f = self.form
        kinds = [d.name for d in f.operands] + ["uint32"] * len(f.worded)
        kinds += [self.target(g).name for g in f.gathered]
        return (*kinds, *("int",) * len(self.words()))

    def target(self, g: Gathered) -> DType:
        """The dtype of the elements that a reduction is written as."""
        n = self.reduction(g.node)
        return storage(n.result) if g.direct else self.monoid(g.node).dtype

    def head(self) -> None:
        f = self.form
        pointers = [f"p{i}" for i in range(len(f.operands))] + [f"w{i}" for i in f.worded]
        pointers += [f"g{g.node}" for g in f.gathered]
        self.add(0, f"def elementwise({', '.join(pointers + self.words())}):")

    # reductions

    def reduction(self, k: int) -> Reduce:
        n = self.nodes[k]
        assert isinstance(n, Reduce)
        return n

    def dtype(self, k: int) -> DType:
        """The dtype of a node."""
        n = self.nodes[k]
        return self.form.inputs[n.operand] if isinstance(n, Load) else n.result

    def monoid(self, k: int) -> Monoid:
        n = self.reduction(k)
        return MONOIDS[n.kind](self.dtype(n.arg))

    def scope(self) -> dict[str, object]:
        return {"exchange": Inline(exchange())}

    def start(self, k: int) -> str:
        monoid = self.monoid(k)
        return f"{monoid.dtype.name}({monoid.bound['start']})"

    def combined(self, k: int, a: str, b: str) -> str:
        """The combination of two accumulators, which are names."""
        kind = self.reduction(k).kind
        return f"{a} + {b}" if kind == "sum" else f"{a} if {a} {'>' if kind == 'max' else '<'} {b} else {b}"

    def gather(self, depth: int, name: str, k: int, v: Value) -> None:
        """Add a value to an accumulator; as text, because Numba takes long to inline the functions of `blocks.py` in so many places."""
        monoid, kind, x = self.monoid(k), self.reduction(k).kind, self.dtype(self.reduction(k).arg)
        number = monoid.dtype.name
        if kind == "sum":  # accumulators are float64 or int64, in which Numba and NumPy add narrower numbers
            self.add(depth, f"{name} = {name} + {v.text}")
            return
        if not x.is_float:
            self.add(depth, f"key{k} = {number}({v.text})")
        else:
            top, end = monoid.bound["TOP"], monoid.bound["TOP" if kind == "max" else "LOW"]
            self.add(
                depth,
                f"pattern{k} = bits_{SUFFIX[x.name]}({v.text})",
                f"key{k} = pattern{k} if pattern{k} >= 0 else {number}(pattern{k} ^ {number}({top}))",
                f"nan{k} = {number}(pattern{k} & {number}({top})) > {number}({monoid.bound['INFINITY']})",
                f"key{k} = {number}({end}) if nan{k} else key{k}",
            )
        self.add(depth, f"{name} = {self.combined(k, name, f'key{k}')}")

    def finished(self, k: int, name: str) -> str:
        """The result of what an accumulator has, as memory holds it."""
        x, monoid, result = self.dtype(self.reduction(k).arg), self.monoid(k), storage(self.reduction(k).result).name
        if self.reduction(k).kind == "sum" or not x.is_float:
            return f"{result}({name})"
        number = monoid.dtype.name
        other = f"{number}({name} ^ {number}({monoid.bound['TOP']}))"
        return f"{result}(from_bits_{SUFFIX[x.name]}({name} if {name} >= 0 else {other}))"

    def shared(self, depth: int, name: str, count: int, k: int) -> None:
        self.add(depth, f"{name} = cuda.shared.array({count}, {self.monoid(k).dtype.name})")

    def brought_together(self, depth: int, name: str, k: int, team: int) -> None:
        """The combination of a team's accumulators, for all its threads; `slots` has made the memory for it."""
        lanes = MACHINE.lanes
        if team > 1:
            self.add(
                depth,
                f"distance = {min(team, lanes) // 2}",
                "while distance > 0:",
                f"    other{k} = exchange({name}, distance)",
                f"    {name} = {self.combined(k, name, f'other{k}')}",
                "    distance //= 2",
            )
        if team <= lanes:
            return
        self.add(
            depth,
            f"if cuda.threadIdx.x % {lanes} == 0:",
            f"    s{name}[cuda.threadIdx.x // {lanes}] = {name}",
            "cuda.syncthreads()",
            f"{name} = s{name}[0]",
            f"for warp in range(1, {team // lanes}):",
            f"    other{k} = s{name}[warp]",
            f"    {name} = {self.combined(k, name, f'other{k}')}",
            "cuda.syncthreads()",
        )

    def slots(self, depth: int, name: str, k: int, team: int) -> None:
        """The shared memory that `brought_together` needs."""
        if team > MACHINE.lanes:
            self.shared(depth, f"s{name}", team // MACHINE.lanes, k)

    def totals(self) -> list[int]:
        """The reductions of everything."""
        return [g.node for g in self.form.gathered if self.reduction(g.node).over == "all"]

    def totals_begin(self) -> None:
        for k in self.totals():
            self.slots(1, f"a{k}", k, MACHINE.block)
            self.add(1, f"a{k} = {self.start(k)}")

    def totals_end(self) -> None:
        for g in self.form.gathered:
            if self.reduction(g.node).over != "all":
                continue
            name = f"a{g.node}"
            self.brought_together(1, name, g.node, MACHINE.block)
            value = self.finished(g.node, name) if g.direct else name
            self.add(1, "if cuda.threadIdx.x == 0:", f"    g{g.node}[cuda.blockIdx.x] = {value}")

    # nodes

    def value(self, k: int, known: dict[int, Value], lines: Lines, bodies: dict[tuple, Body], name: Callable) -> Value:
        """The value of node k, computed from those known; loads are found under `name(operand)`."""
        found = known.get(k)
        if found is None:
            n = self.nodes[k]
            assert not isinstance(n, Reduce)
            if isinstance(n, Load):
                found = self.loaded(lines, n.operand, name(n.operand))
            else:
                args = [self.value(a, known, lines, bodies, name) for a in n.args]
                found = self.computed(lines, n, args, bodies)
            known[k] = found
        return found

    def loads(self, roots: Sequence[int], known: dict[int, Value]) -> list[int]:
        """The operands that have to be read for these nodes, beside what is known."""
        found: set[int] = set()
        left, seen = list(roots), set(known)
        while left:
            k = left.pop()
            if k in seen:
                continue
            seen.add(k)
            n = self.nodes[k]
            if isinstance(n, Load):
                found.add(n.operand)
            elif not isinstance(n, Reduce):
                left += n.args
        return sorted(found)

    def outputs(self) -> list[tuple[int, int, bool]]:
        """(operand, node, whether whole) of each output that is written as elements."""
        f = self.form
        numbers = range(len(f.inputs), len(f.operands))
        return [(i, k, w) for i, k, w in zip(numbers, f.chain.outputs, f.whole, strict=True)]


class Everything(Gathering):
    """One walk of elements, as `Source` has it; all reductions are of everything."""

    def text(self) -> str:
        self.head()
        self.add(1, "thread = cuda.grid(1)", "step = cuda.gridsize(1)")
        self.totals_begin()
        if self.form.axes > 1:
            self.rows()
        else:
            self.flat()
        self.totals_end()
        return "\n".join(self.lines) + "\n"

    def elements(self, depth: int, places: dict[int, str], group: int) -> None:
        f, totals = self.form, self.totals()
        roots = [self.reduction(k).arg for k in totals]
        for i in self.loads([*roots, *f.chain.outputs], {}):
            if f.moves[i] != "s":
                self.load(depth, i, places[i], group)
        made: list[dict[int, Value]] = []
        for lane in range(group):
            lines, known, bodies = Lines(f"_{lane}"), dict[int, Value](), dict[tuple, Body]()

            def name(i: int, lane: int = lane) -> str:
                return f"c{i}" if f.moves[i] == "s" else f"x{i}_{lane}"

            for k in roots:
                self.value(k, known, lines, bodies, name)
            made.append({k: self.stored(lines, self.value(k, known, lines, bodies, name)) for k in f.chain.outputs})
            self.add(depth, *lines.lines)
            for k in totals:
                self.gather(depth, f"a{k}", k, known[self.reduction(k).arg])
        for i, k, _ in self.outputs():
            self.store(depth, i, places[i], [values[k].text for values in made])
