"""The text of kernels that compute and reduce by rows, or reduce columns.

In `Rows` a team of threads shares a row, as in `reduce.py`. A node that waits for a reduction of the row takes another pass over it;
where a thread has few elements of the row, what it read and computed stays in registers, or else it is read (from cache) and
computed again. In `Columns` a thread has one group of columns and some rows; threads above each other are brought together by
halves, in shared memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...dtypes import bool_
from ..fused import Load, Reduce
from .reduce_text import Gathered, Gathering
from .scalar import Body, Lines, Value
from .template import MACHINE, storage

AT_ONCE = 4  # rows of a column that are read before they are computed


class InRows(Gathering):
    """What walks of rows and of columns have in common: an element's place is its row's and that within the row."""

    def words(self) -> list[str]:
        f = self.form
        words = ["n", "rows"] + [f"e{d}" for d in range(1, f.outer)] + [f"h{d}" for d in range(1, f.inner)]
        words += [f"s{i}_{d}" for i in range(len(f.operands)) for d in range(f.outer)]
        return words + [f"t{i}_{d}" for i in self.placed() for d in range(f.inner)]

    def placed(self) -> list[int]:
        """The operands whose place within a row takes strides."""
        f = self.form
        if f.inner > 1:
            return [i for i in range(len(f.operands)) if f.moves[i] != "s"]
        return [i for i, m in enumerate(f.moves) if m == "g"]

    def bases(self, depth: int, row: str, tag: str = "") -> None:
        """b{i}: where the row of each operand begins."""
        f = self.form
        operands, rest = range(len(f.operands)), row
        for d in range(f.outer - 1, 0, -1):
            self.add(depth, f"above = {rest} // e{d}", f"place = {rest} - above * e{d}", "rest = above")
            first = d == f.outer - 1
            self.add(depth, *[f"b{i}{tag} {'=' if first else '+='} place * s{i}_{d}" for i in operands])
            rest = "rest"
        sign = "=" if f.outer == 1 else "+="
        self.add(depth, *[f"b{i}{tag} {sign} {rest} * s{i}_0" for i in operands])

    def offsets(self, depth: int, j: str, tag: str) -> dict[int, str]:
        """The place within the row of each operand's element j."""
        f = self.form
        if f.inner == 1:
            return {i: f"{j} * t{i}_0" if m == "g" else "0" if m == "s" else j for i, m in enumerate(f.moves)}
        rest = j
        for d in range(f.inner - 1, 0, -1):
            self.add(depth, f"above = {rest} // h{d}", f"place = {rest} - above * h{d}", "rest = above")
            first = d == f.inner - 1
            self.add(depth, *[f"o{i}{tag} {'=' if first else '+='} place * t{i}_{d}" for i in self.placed()])
            rest = "rest"
        self.add(depth, *[f"o{i}{tag} += rest * t{i}_0" for i in self.placed()])
        return {i: "0" if m == "s" else f"o{i}{tag}" for i, m in enumerate(f.moves)}

    def read(self, depth: int, i: int, place: str, first: int) -> None:
        """Reads a group of operand i as x{i}_{first} and so on."""
        group = self.form.group
        if self.form.moves[i] == "o":
            self.add(depth, f"x{i}_{first} = p{i}[{place}]")
            self.add(depth, *[f"x{i}_{first + lane} = x{i}_{first}" for lane in range(1, group)])
        else:
            self.load(depth, i, place, group, first)

    def varying(self, operands: Sequence[int]) -> list[int]:
        return [i for i in operands if self.form.moves[i] != "s"]


class Rows(InRows):
    """A team for each row."""

    def text(self) -> str:
        f = self.form
        self.head()
        per = MACHINE.block // f.team
        self.add(1, f"lane = cuda.threadIdx.x % {f.team}", f"first = cuda.blockIdx.x * {per}")
        self.row_wise = [k for k, n in enumerate(self.nodes) if isinstance(n, Reduce) and n.over == "row"]
        for k in self.row_wise:
            self.slots(1, f"a{k}", k, f.team)
        self.totals_begin()
        self.known: dict[int, Value] = {}  # the same all along the row
        self.kept: list[list[dict[int, Value]]] = [[{} for _ in range(f.group)] for _ in range(f.turns)]
        self.add(1, "while first < rows:")
        self.add(2, f"row = first + cuda.threadIdx.x // {f.team}", "if row < rows:")
        self.bases(3, "row")
        read = {n.operand for n in self.nodes if isinstance(n, Load) and f.moves[n.operand] == "s"}
        self.add(3, *[f"c{i} = p{i}[b{i}]" for i in sorted(read)])
        for stage in range(self.last + 1):
            self.one_pass(stage)
        self.of_rows()
        self.add(2, f"first += cuda.gridDim.x * {per}", "if first < 0:", "    break")
        self.totals_end()
        return "\n".join(self.lines) + "\n"

    @property
    def last(self) -> int:
        """The stage at which everything is known."""
        f = self.form
        ends = [f.stages[k] for k in f.chain.outputs] + [f.stages[self.reduction(k).arg] for k in self.totals()]
        return max(ends, default=0)

    def one_pass(self, stage: int) -> None:
        """What is known once a row at this stage, then a walk of the row."""
        f, last = self.form, stage == self.last
        reduces = [k for k in self.row_wise if f.stages[self.reduction(k).arg] == stage and f.stages[k] <= self.last]
        self.constants(stage)
        self.add(2, *[f"a{k} = {self.start(k)}" for k in reduces])
        totals = self.totals() if last else []
        outputs = [(i, k) for i, k, whole in self.outputs() if whole] if last else []
        if not reduces and not totals and not outputs:
            return
        self.add(2, "if row < rows:")
        gathers = [*reduces, *totals]
        if f.turns:
            for turn in range(f.turns):
                j = f"j{turn}"
                self.add(3, f"{j} = lane * {f.group} + {turn * f.team * f.group}", f"if {j} < n:")
                self.walk(4, j, stage, self.kept[turn], turn, gathers, outputs)
        else:
            self.add(3, f"j = lane * {f.group}", "while j < n:")
            self.walk(4, "j", stage, [{} for _ in range(f.group)], 0, gathers, outputs)
            self.add(4, f"j += {f.team * f.group}")
        for k in reduces:
            self.brought_together(2, f"a{k}", k, f.team)

    def constants(self, stage: int) -> None:
        """The nodes that are the same all along a row and are known from this stage on."""
        f, lines, bodies = self.form, Lines(f"_r{stage}"), dict[tuple, Body]()
        for k, n in enumerate(self.nodes):
            if not f.constant[k] or f.stages[k] != stage:
                continue
            if isinstance(n, Reduce):
                made = lines.let(self.finished(k, f"a{k}"), storage(n.result))
                self.known[k] = lines.cast(made, bool_) if n.result is bool_ else made
            else:
                self.value(k, self.known, lines, bodies, lambda i: f"c{i}")
        if lines.lines:
            self.add(2, "if row < rows:")
            self.add(3, *lines.lines)

    def walk(
        self,
        depth: int,
        j: str,
        stage: int,
        known: list[dict[int, Value]],
        turn: int,
        gathers: list[int],
        outputs: list[tuple[int, int]],
    ) -> None:
        """A group of the row: what is reduced in this pass, and what is written in the last."""
        f = self.form
        roots = [self.reduction(k).arg for k in gathers]
        ends = [*roots, *[k for _, k in outputs]]
        needed = self.varying(self.loads(ends, self.known | known[0]))
        offsets = self.offsets(depth, j, f"_{turn}") if needed or outputs else {}
        for i in needed:
            self.read(depth, i, f"b{i} + {offsets[i]}", turn * f.group)
        made: dict[int, list[str]] = {i: [] for i, _ in outputs}
        for lane in range(f.group):
            lines, bodies = Lines(f"_{stage}_{turn}_{lane}"), dict[tuple, Body]()
            number = turn * f.group + lane
            here = self.known | known[lane]
            for k in ends:
                self.value(k, here, lines, bodies, lambda i, number=number: f"x{i}_{number}")
            for i, k in outputs:
                made[i].append(self.stored(lines, here[k]).text)
            known[lane].update(here)
            self.add(depth, *lines.lines)
            for k in gathers:
                self.gather(depth, f"a{k}", k, here[self.reduction(k).arg])
        for i, _ in outputs:
            self.store(depth, i, f"b{i} + {offsets[i]}", made[i])

    def of_rows(self) -> None:
        """Write what there is once a row. It may lie where a row's input lay: all of the team have read that before."""
        written = [(i, k) for i, k, whole in self.outputs() if not whole]
        if not written:
            return
        if "s" in self.form.moves[: len(self.form.inputs)]:
            self.add(2, "cuda.syncthreads()")
        lines = Lines("_e")
        stores = [f"p{i}[b{i}] = {self.stored(lines, self.known[k]).text}" for i, k in written]
        self.add(2, "if row < rows and lane == 0:")
        self.add(3, *lines.lines, *stores)


class Columns(InRows):
    """A thread for a group of columns and some rows; `team` threads have neighbouring groups."""

    def words(self) -> list[str]:
        return [*super().words(), "across", "parts", "height"]

    def text(self) -> str:
        f, wide = self.form, self.form.team
        high = MACHINE.block // wide
        self.head()
        self.add(1, f"x = cuda.threadIdx.x % {wide}", f"y = cuda.threadIdx.x // {wide}")
        self.columns = [g for g in f.gathered if self.reduction(g.node).over == "columns"]
        lanes = [(g, lane) for g in self.columns for lane in range(f.group)]
        if high > 1:
            for g, lane in lanes:
                self.shared(1, f"sa{g.node}_{lane}", MACHINE.block, g.node)
        self.totals_begin()
        self.add(1, "item = cuda.blockIdx.x", "while item < across * parts:")
        self.add(2, "part = item // across", f"j = ((item - part * across) * {wide} + x) * {f.group}")
        self.add(2, *[f"a{g.node}_{lane} = {self.start(g.node)}" for g, lane in lanes])
        self.add(2, "if j < n:")
        offsets = self.offsets(3, "j", "")
        self.add(3, "row = part * height + y", "stop = min(rows, (part + 1) * height)")
        self.add(3, f"while row + {(AT_ONCE - 1) * high} < stop:")
        self.several(4, [f"(row + {u * high})" if u else "row" for u in range(AT_ONCE)], offsets)
        self.add(4, f"row += {AT_ONCE * high}")
        self.add(3, "while row < stop:")
        self.several(4, ["row"], offsets)
        self.add(4, f"row += {high}")
        self.halves(high, lanes)
        self.add(2, "if y == 0 and j < n:")
        for g, lane in lanes:
            name = f"a{g.node}_{lane}"
            value = self.finished(g.node, name) if g.direct else name
            self.add(3, f"g{g.node}[part * n + j + {lane}] = {value}")
        self.add(2, "item += cuda.gridDim.x")
        self.totals_end()
        return "\n".join(self.lines) + "\n"

    def several(self, depth: int, rows: list[str], offsets: dict[int, str]) -> None:
        """The thread's columns of several rows: all are read, then all are computed, then all are written."""
        f, totals = self.form, self.totals()
        gathers = [*[g.node for g in self.columns], *totals]
        roots = [self.reduction(k).arg for k in gathers]
        read = self.loads([*roots, *f.chain.outputs], {})
        for u, row in enumerate(rows):
            self.bases(depth, row, f"_{u}")
            for i in read:
                if f.moves[i] == "s":
                    self.add(depth, f"c{i}_{u} = p{i}[b{i}_{u}]")
                else:
                    self.read(depth, i, f"b{i}_{u} + {offsets[i]}", u * f.group)
        stores: list[tuple[int, str, list[str]]] = []
        for u in range(len(rows)):
            made: dict[int, list[str]] = {i: [] for i, _, _ in self.outputs()}
            for lane in range(f.group):
                lines, known, bodies = Lines(f"_{len(rows)}_{u}_{lane}"), dict[int, Value](), dict[tuple, Body]()

                def name(i: int, u: int = u, lane: int = lane) -> str:
                    return f"c{i}_{u}" if f.moves[i] == "s" else f"x{i}_{u * f.group + lane}"

                for k in roots:
                    self.value(k, known, lines, bodies, name)
                for i, k, _ in self.outputs():
                    made[i].append(self.stored(lines, self.value(k, known, lines, bodies, name)).text)
                self.add(depth, *lines.lines)
                for k in gathers:
                    accumulator = f"a{k}" if k in totals else f"a{k}_{lane}"
                    self.gather(depth, accumulator, k, known[self.reduction(k).arg])
            stores += [(i, f"b{i}_{u} + {offsets[i]}", made[i]) for i in made]
        for i, place, values in stores:
            self.store(depth, i, place, values)

    def halves(self, high: int, lanes: list[tuple[Gathered, int]]) -> None:
        """Bring together the accumulators of threads above each other."""
        names = [(g.node, f"a{g.node}_{lane}") for g, lane in lanes]
        half = high // 2
        while half:
            self.add(2, *[f"s{name}[cuda.threadIdx.x] = {name}" for _, name in names], "cuda.syncthreads()")
            self.add(2, f"if y < {half}:")
            distance = half * self.form.team
            for k, name in names:
                self.add(
                    3,
                    f"other{k} = s{name}[cuda.threadIdx.x + {distance}]",
                    f"{name} = {self.combined(k, name, f'other{k}')}",
                )
            self.add(2, "cuda.syncthreads()")
            half //= 2
