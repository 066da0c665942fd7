"""Plans for a GPU: the same graph, other kernels; and programs that run as one CUDA graph.

Elementwise chains become one kernel each. Reductions, products and all else are the kernels of eager ops, on places in one arena.
"""

from __future__ import annotations

import functools
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ..dtypes import float64
from ..errors import KernelError
from ..kernels.blocks import Buffer
from ..kernels.cuda import elementwise, fused_reduce
from ..kernels.cuda.devices import Gpu
from ..kernels.cuda.elementwise import Chain
from ..kernels.cuda.faults import CaptureUnsafe
from ..kernels.cuda.template import MACHINE, STATUS, Work
from ..kernels.fused import Fused, Reduce
from ..layouts import Layout, layout
from ..ops import expression as ex
from .emit import Kernel, Overlay, distinct, shape_of, used
from .epilogues import with_epilogues
from .fusion import OUT, Group, Limits
from .gpu_segments import together
from .graph import MAP, REDUCE, Graph, Task
from .program import Memory, Plan, Record
from .rewrite import ON_GPU

GRAPHS = 8  # of a program, for different addresses of the values that it does not own
WARM = 1  # runs with the same addresses after which they are captured
MOVES = 1  # of a value, after which memory of the program stands for it


def cut(method: Callable) -> Callable:
    """Cut the launches that a method of a Target makes to its GPU."""

    @functools.wraps(method)
    def made(self: Target, *args: Any) -> Any:
        with MACHINE.of(self.gpu.backend.blocks):
            return method(self, *args)

    return made


class Target:
    """What planning asks of one GPU."""

    # as_row: 16 elements for each thread of the one block that then has them
    limits = Limits(as_row=4096, mixed=False, few=64, long=1 << 15)

    def __init__(self, gpu: Gpu):
        self.gpu = gpu
        self.rules = (*ON_GPU, with_epilogues) if gpu.backend.products else ON_GPU

    @cut
    def single(self, g: Graph, t: Task) -> list[Record]:
        """The launches of a task by itself."""
        values = g.values
        ins, outs = tuple([values[i].layout for i in t.ins]), tuple([values[o].layout for o in t.outs])
        if not any(x.size for x in outs):
            return []
        title = f"{t.title} {' '.join([shape_of(x) for x in ins])}"
        if t.kind == MAP:
            assert t.compute is not None
            work = elementwise.work(elementwise.chain(t.exprs, len(ins), outs, t.compute, t.truths), ins, outs)
            return self.records(g, work, (*t.ins, *t.outs), len(outs), title, t.rows)
        if t.kind == REDUCE and t.group.fusible and t.level == OUT and t.group.space.split:
            return self.fused(g, t.group)[0]  # of columns: its tiles have more threads than an eager op's kernel
        prepared: Any = self.gpu.backend.prepare(t.op, ins, t.attrs)
        numbers, made = list(t.ins), []
        for i in prepared.copies:
            numbers[i], new = self.copied(g, numbers[i], ins[i], t.rows)
            made += new
        return made + self.records(g, prepared.work, (*numbers, *t.outs), len(outs), title, t.rows)

    def copied(self, g: Graph, number: int, x: Layout, rows: tuple[int, ...]) -> tuple[int, list[Record]]:
        """A value in C order, and the launch that makes it."""
        plain = layout(x.shape, x.dtype, None, x.device)
        to = g.add(plain)
        work = elementwise.work(elementwise.chain((ex.argument(0),), 1, (plain,), x.dtype.compute), (x,), (plain,))
        return to, self.records(g, work, (number, to), 1, f"copy {shape_of(x)}", rows)

    @cut
    def fused(self, g: Graph, group: Group) -> tuple[list[Record], list[Overlay]]:
        """One kernel for a chain of elementwise tasks and reductions, and those that finish the latter."""
        kernel = Kernel(g, group, in_nodes=True)
        values, inputs, outputs, title, rows, moved = kernel.gather()
        nodes, numbers = used(kernel.nodes, [node for node, _ in outputs])
        written = tuple([(numbers[node], x) for node, x in outputs])
        # a kernel without a reduction has results for each row, too: of what is computed once a row, and broadcast
        if any(isinstance(n, Reduce) for n in nodes) or any(x.shape != kernel.shape for _, x in written):
            work = fused_reduce.work(Fused(kernel.shape, kernel.row, inputs, nodes, written))
        else:
            joined = Chain(nodes, tuple([node for node, _ in written]))
            work = elementwise.work(joined, inputs, tuple([x for _, x in written]))
        return self.records(g, work, values, len(outputs), title, rows, moved), kernel.overlays

    def together(
        self, g: Graph, made: list[Record], overlays: dict[int, list[Overlay]]
    ) -> tuple[list[Record], dict[int, list[Overlay]]]:
        """The same chain over several arrays is one launch."""
        return together(g, made, overlays)

    def records(
        self,
        g: Graph,
        work: Work,
        values: tuple[int, ...],
        outputs: int,
        title: str,
        rows: tuple[int, ...],
        moved: int | None = None,
    ) -> list[Record]:
        """One record for each launch; scratch memories are values that the plan places.

        moved: bytes read and written; those of the values where nothing is said.
        """
        if not work.launches:
            return []
        device = g.values[values[-1]].layout.device
        scratch = tuple([g.add(layout((-(-nbytes // 8),), float64, None, device)) for nbytes in work.scratch])
        if moved is None:
            moved = sum([distinct(g.values[v].layout) for v in dict.fromkeys(values)])
        each, written = moved // len(work.launches), outputs + len(scratch)
        return [Record(launch, (*values, *scratch), title, rows, each, written) for launch in work.launches]


class Program:
    """A plan in a GPU's memory, ready to run: launches with their words, and the CUDA graphs that were made of them.

    As `program.Program` for the host: `allocate(nbytes)` gives the arena, `bind` says where fixed values lie. The first runs with
    the same addresses launch kernel by kernel, later ones a graph. A launch that cannot be captured is never tried again.
    """

    def __init__(self, plan: Plan, allocate: Callable[[int], Memory], gpu: Gpu):
        self.plan, self.gpu = plan, gpu
        self.failed: Record | None = None  # a device tells of failures later
        self.unsafe: str | None = None  # why launches are not captured
        self._memory = allocate(plan.arena) if plan.arena else None
        self._addresses: dict[int, int] = (
            {n: self._memory.address + at for n, at in plan.places.items()} if self._memory else {}
        )
        self._status = [self._word(r) for r in plan.records]
        self._launches: list[Callable[[], None]] | None = None
        self._graphs: OrderedDict[tuple, Any] = OrderedDict()
        self._runs: dict[tuple, int] = {}
        self._graph: Any = None  # that for the present addresses
        self._fixed = dict.fromkeys(sorted({self._root(n) for r in plan.records for n in r.values} - set(plan.places)))
        self._written = {self._root(n) for r in plan.records for n in r.values[len(r.values) - r.outputs :]}
        self._read = self._reads()
        self._moves: dict[int, int] = {}  # value -> how often another address was bound
        self._staged: dict[int, Buffer] = {}  # value -> memory here that stands for it
        self._targets: dict[int, int] = {}  # value -> where it lies outside
        self._ahead: list[tuple[int, int, int]] = []  # (value, its memory here, bytes) of those copied before a run
        self._behind: list[tuple[int, int, int]] = []  # and after it
        lasting = [place for place in self._status if place is not None]
        self._fails = bool(lasting)
        weakref.finalize(self, gpu.failures.give_back, lasting)

    def _word(self, record: Record) -> int | None:
        fails = STATUS in record.step.operands
        return self.gpu.failures.word(record.title, lasting=True) if fails else None

    def _root(self, number: int) -> int:
        base = self.plan.values[number].base
        return number if base is None else base

    def notes(self) -> str:
        """How it runs, in a sentence."""
        if self.unsafe is not None:
            return f"launched kernel by kernel, because {self.unsafe}"
        if not self._graphs:
            return "launched kernel by kernel so far"
        nodes = next(reversed(self._graphs.values())).nodes
        return f"launched as a graph of {nodes} nodes; {len(self._staged)} values that move are copied"

    # addresses

    def _reads(self) -> set[int]:
        """The fixed values that are read before the program itself wrote them."""
        written: set[int] = set()
        found = set()
        for r in self.plan.records:
            inner = len(r.values) - r.outputs
            found.update({self._root(n) for n in r.values[:inner]} - written)
            written.update([self._root(n) for n in r.values[inner:]])
        return found

    def bind(self, value: int, address: int) -> None:
        """Say where value number `value` lies. Views of it follow.

        A value that lies elsewhere in every pass, as what is held in a list does, would need a graph for each. Memory here then
        stands for it, and is copied.
        """
        if value in self._staged:
            self._targets[value] = address
            return
        if self._addresses.get(value, address) != address:
            moves = self._moves[value] = self._moves.get(value, 0) + 1
            if moves > MOVES and value in self._fixed:
                buffer = self._staged[value] = self.gpu.pool.allocate(
                    self.plan.values[value].layout.nbytes, "a value of a session"
                )
                self._targets[value], address = address, buffer.address
                entry = (value, address, self.plan.values[value].layout.nbytes)
                self._ahead += [entry] if value in self._read else []
                self._behind += [entry] if value in self._written else []
        if self._addresses.get(value) != address:
            self._addresses[value] = address
            self._launches = self._graph = None

    def address(self, value: int) -> int:
        """Where value number `value` lies now."""
        v = self.plan.values[value]
        if v.base is None:
            return self._addresses[value]
        return self._addresses[v.base] + v.offset * v.layout.dtype.itemsize

    def _prepared(self) -> list[Callable[[], None]]:
        """Every launch, for the present addresses."""
        if self._launches is None:
            made = []
            for record, word in zip(self.plan.records, self._status, strict=True):
                addresses = [self.address(n) for n in record.values]
                addresses.append(0 if word is None else self.gpu.failures.address + 4 * word)
                made.append(self.gpu.bound(record.step, addresses))
            self._launches = made
        return self._launches

    # running

    def run(self) -> int:
        """Put all launches into the device's queue. 0: failures come to light when a value is read."""
        self.gpu.bring()
        for value, address, nbytes in self._ahead:
            self.gpu.copy(address, self._targets[value], nbytes)
        if self._graph is not None:
            self._graph.launch()
        else:
            self._find()
        if self._fails:  # afterwards: somebody who reads the words meanwhile has not seen these
            self.gpu.failures.pending = True
        for value, address, nbytes in self._behind:
            self.gpu.copy(self._targets[value], address, nbytes)
        return 0

    def _find(self) -> None:
        """Run, with the graph for the present addresses where there is one, or make it."""
        key = tuple([self._addresses.get(n, 0) for n in self._fixed])
        graph = self._graphs.get(key)
        if graph is not None:
            self._graphs.move_to_end(key)
            self._graph = graph
            graph.launch()
            return
        if 0 in key:
            raise KernelError(
                f"value {list(self._fixed)[key.index(0)]} of the program was not bound to memory. This is a fault in tapegrad, not in "
                "your code."
            )
        count = self._runs[key] = self._runs.get(key, 0) + 1
        if count > WARM and self.unsafe is None:
            self._capture(key)
        else:
            self._launch()

    def _launch(self) -> None:
        for launch in self._prepared():
            launch()

    def _capture(self, key: tuple) -> None:
        """Make a graph of the launches and run it."""
        self._prepared()  # loading is no part of a capture
        try:
            with self.gpu.driver.capture() as graph:
                self._launch()
        except CaptureUnsafe as error:
            self.unsafe = str(error)
            self._launch()
            return
        while len(self._graphs) >= GRAPHS:
            _, old = self._graphs.popitem(last=False)
            old.close()
        self._graphs[key] = self._graph = graph
        self._runs.clear()
        graph.launch()

    def run_timed(self) -> list[tuple[str, int, int]]:
        """Run launch by launch, and give (title, start, duration) of each, in nanoseconds; waiting for the device between them."""
        found = []
        self.gpu.bring()
        self.gpu.driver.synchronize()
        for record, launch in zip(self.plan.records, self._prepared(), strict=True):
            start = time.perf_counter_ns()
            launch()
            self.gpu.driver.synchronize()
            found.append((record.title, start, time.perf_counter_ns() - start))
        if self._fails:
            self.gpu.failures.pending = True
        return found
