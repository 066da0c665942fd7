"""A device without a GPU: the methods of `driver.Driver` over host memory, for tests and for CI.

Code that reads an address of it from the host fails at once; a copy or a kernel that leaves its block, or comes back to one
that was freed, is an error that says so (`simulated_memory.py`). Kernels are Python functions, run by Numba's simulator.
`counts` says what was asked of the device. TAPEGRAD_CUDA=simulator, with NUMBA_ENABLE_CUDASIM=1, makes "cuda:0" and "cuda:1" such
devices.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import config
from ...errors import KernelError, TapeError, TapegradError
from ..blocks import FORKED
from .faults import CaptureUnsafe, DriverMissing, fault
from .graph import Graph
from .library import Properties
from .pinned import Pinned, block_at
from .simulated_memory import ALIGNMENT, PATTERN, Blocks
from .simulated_streams import Node, Queues
from .streams import COPIES, LEGACY, MAIN, Event
from .words import Extent, Function, Words, extents, see_words

COUNT = 2  # simulated devices of a process
get_ident = threading.get_ident


@dataclass(slots=True)
class Counts:
    """What was asked of a device. Nodes of a graph count at each launch of it; a capture by itself counts nothing else."""

    launches: int = 0
    uploads: int = 0
    downloads: int = 0
    copies: int = 0
    fills: int = 0
    uploaded: int = 0  # bytes, as below
    downloaded: int = 0
    copied: int = 0
    filled: int = 0
    allocations: int = 0
    frees: int = 0
    captures: int = 0
    graph_launches: int = 0
    synchronizations: int = 0  # downloads and waits for pinned blocks among them


_running = threading.Lock()  # Numba's simulator runs one kernel at a time


def simulate(function: Callable, grid: Extent, block: Extent, shared: int, arguments: tuple) -> None:
    """Run a kernel in Numba's simulator."""
    from . import door

    with _running:
        door.module().jit(function)[grid, block, 0, shared](*arguments)


class Simulated:
    """A device of `memory` bytes.

    run: what runs a kernel, given (function, grid, block, shared, arguments); an address comes as a `Pointer`. deferred: the
    queues whose work waits until something waits for it, as on a GPU, which shows who forgot to; MAIN, COPIES, or both.
    """

    most_blocks: int | None = None  # launches are cut for all simulated devices alike, in `simulated_driver`
    carves = False  # every block is an allocation of its own, so that kernels cannot leave it unseen

    def __init__(
        self,
        index: int = 0,
        memory: int = 1 << 30,
        capability: tuple[int, int] = (9, 0),
        run: Callable[..., None] = simulate,
        deferred: Collection[int] = (),
    ):
        self.index, self.where = index, f"cuda:{index}"
        self.total, self._run = memory, run
        self.properties = Properties("simulated GPU", capability, 2, memory, 48 << 10, (13, 0))
        self.counts = Counts()
        self.blocks = Blocks(index)
        self.queues = Queues(deferred)
        self._lock = threading.RLock()
        self._pinned: dict[int, weakref.ref[Pinned]] = {}
        self._capturing = threading.Lock()
        self._recorder = 0
        self._recorded: tuple[Graph, list[Node]] | None = None
        self._retired: list[int] = []
        self._broken: TapegradError | None = None
        self._forked = False
        _devices.add(self)

    # asking

    def enter(self) -> None:
        """Raise where the device cannot be used: after `fail`, and in the child of a fork."""
        if self._forked:
            raise TapeError(FORKED)
        if self._broken is not None:
            raise self._broken

    def fail(self, status: int = 719, name: str = "CUDA_ERROR_LAUNCH_FAILED") -> None:
        """Make every further call fail, as a GPU does after a kernel with that status."""
        self._broken = fault(status, name, self.where, "launching a kernel")

    @property
    def capturing(self) -> bool:
        """Whether this thread is in `capture()`."""
        return self._recorder == get_ident()

    @property
    def stream(self) -> int:
        """There is none: 0."""
        return 0

    def _outside(self, doing: str) -> None:
        if self.capturing:
            raise CaptureUnsafe(
                f"{self.where}, {doing}: this cannot be part of a graph; it has to run outside of a capture."
            )
        self.enter()

    def ask(self, kind: str, detail: str, action: Callable[[], None], stream: int = MAIN) -> None:
        """Have something done in its turn; within a capture, at each launch of the graph."""
        self.enter()
        node = Node(kind, detail, action)
        if self.capturing and self._recorded is not None:
            self._recorded[1].append(node)
        else:
            self.queues.ask(stream, node)

    # memory

    def allocate(self, nbytes: int) -> int:
        """As `Driver.allocate`; the bytes are 255 each."""
        self.enter()
        with self._lock:
            if self.blocks.live + nbytes > self.total:
                raise fault(2, "CUDA_ERROR_OUT_OF_MEMORY", self.where, f"allocating {nbytes:,} bytes")
            self.counts.allocations += 1
            return self.blocks.allocate(nbytes)

    def free(self, address: int) -> None:
        """As `Driver.free`; KernelError where no live block starts there."""
        self.enter()
        if self.capturing:
            self._retired.append(address)
            return
        self.queues.finish(MAIN)
        self.blocks.free(address)
        self.counts.frees += 1

    def memory(self) -> tuple[int, int]:
        """Bytes that are free, and all."""
        self.enter()
        return self.total - self.blocks.live, self.total

    def view(self, address: int, nbytes: int) -> np.ndarray:
        """The bytes of a range of the device's memory, now; KernelError where they are not all in one live block."""
        return self.blocks.view(address, nbytes, "reading")

    def pinned(self, nbytes: int) -> Pinned:
        """As `Driver.pinned`."""
        self.enter()
        raw = np.full(max(nbytes, 1) + ALIGNMENT, PATTERN, np.uint8)
        block = Pinned(self, raw.ctypes.data + -raw.ctypes.data % ALIGNMENT, nbytes, None, raw)
        self._pinned[block.address] = weakref.ref(block)
        return block

    def read_until_now(self, block: Pinned, stream: int = MAIN) -> None:
        """As `Driver.read_until_now`."""
        block.made = self.queues.now(stream)
        block.busy = True

    def wait_for(self, block: Pinned) -> None:
        """As `Driver.wait_for`."""
        self.enter()
        self.counts.synchronizations += 1
        self.queues.finish(*block.made)

    def release(self, block: Pinned) -> None:
        """As `Driver.release`."""
        self._pinned.pop(block.address, None)
        if block.busy and not self._forked:
            with contextlib.suppress(KernelError):  # of other work; a finaliser cannot report it
                self.queues.finish(*block.made)

    # streams

    def event(self) -> Event:
        """As `Driver.event`."""
        self.enter()
        return Event(self)

    def drop_event(self, event: Event) -> None:
        """As `Driver.drop_event`."""

    def record(self, event: Event, stream: int = MAIN) -> None:
        """As `Driver.record`."""
        self._outside("recording an event")
        event.made = self.queues.now(stream)

    def wait(self, stream: int, event: Event) -> None:
        """As `Driver.wait`."""
        self._outside("waiting for an event")
        self.queues.wait(stream, event.made)

    def follow(self, stream: int = LEGACY) -> None:
        """As `Driver.follow`; other libraries have no work here."""
        self.enter()

    # copies

    def upload(self, address: int, source: int, nbytes: int, stream: int = MAIN) -> None:
        """As `Driver.upload`."""
        if nbytes <= 0:
            return
        doing = "copying from the host"
        if stream == COPIES:
            self._outside(f"{doing} in a queue of its own")
        block = block_at(self._pinned, self.blocks.of_host(source, nbytes, doing), nbytes)
        if self.capturing and self._recorded is not None:
            if block is None:
                raise CaptureUnsafe(
                    f"{self.where}, {doing}: the graph would read memory that may be gone by then; copy from a pinned block, or "
                    "outside of a capture."
                )
            self._recorded[0].reads(block)
        kept = ctypes.string_at(source, nbytes) if block is None else None  # pageable memory may change at once

        def action() -> None:
            data = kept if kept is not None else ctypes.string_at(source, nbytes)
            self.blocks.view(address, nbytes, doing)[:] = np.frombuffer(data, np.uint8)
            self.counts.uploads += 1
            self.counts.uploaded += nbytes

        self.ask("upload", f"{nbytes} bytes", action, stream)
        if block is not None and not self.capturing:
            self.read_until_now(block, stream)

    def fetch(self, block: Pinned, address: int, nbytes: int) -> None:
        """As `Driver.fetch`."""
        doing = "copying to the host"
        self._outside(doing)

        def action() -> None:
            ctypes.memmove(block.address, self.blocks.view(address, nbytes, doing).ctypes.data, nbytes)
            self.counts.downloads += 1
            self.counts.downloaded += nbytes

        self.ask("download", f"{nbytes} bytes", action)
        self.read_until_now(block)

    def download(self, target: int, address: int, nbytes: int) -> None:
        """As `Driver.download`."""
        doing = "copying to the host"
        self._outside(doing)
        self.counts.synchronizations += 1
        self.queues.finish(MAIN)
        if nbytes > 0:
            found = self.blocks.view(address, nbytes, doing)
            ctypes.memmove(self.blocks.of_host(target, nbytes, doing), found.ctypes.data, nbytes)
            self.counts.downloads += 1
            self.counts.downloaded += nbytes

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """As `Driver.copy`; KernelError where the ranges overlap."""
        if nbytes <= 0:
            return
        if abs(target - source) < nbytes:
            raise KernelError(
                f"{self.where}, copying {nbytes:,} bytes from {source:#x} to {target:#x}: the ranges overlap"
            )

        def action() -> None:
            self.blocks.view(target, nbytes, "copying to")[:] = self.blocks.view(source, nbytes, "copying from")
            self.counts.copies += 1
            self.counts.copied += nbytes

        self.ask("copy", f"{nbytes} bytes", action)

    def fill(self, address: int, byte: int, nbytes: int) -> None:
        """As `Driver.fill`."""
        if not 0 <= byte <= 255:
            raise OverflowError(f"a byte is 0 to 255, not {byte}")

        def action() -> None:
            self.blocks.view(address, nbytes, "filling")[:] = byte
            self.counts.fills += 1
            self.counts.filled += nbytes

        if nbytes > 0:
            self.ask("fill", f"{nbytes} bytes", action)

    def synchronize(self) -> None:
        """As `Driver.synchronize`."""
        self._outside("waiting for the GPU")
        self.counts.synchronizations += 1
        self.queues.finish(MAIN)

    # kernels

    def load(self, code: Any, name: str, arguments: tuple[str, ...]) -> Function:
        """A kernel ready to launch. code: the Python function."""
        self.enter()
        if not callable(code):
            raise KernelError(
                f"{self.where}, loading the kernel {name}: a simulated device runs Python functions, not {code!r}"
            )
        return Function(code, name, arguments)

    def prepare(self, kernel: Any) -> Function:
        """As `Driver.prepare`."""
        return self.load(kernel.function(), kernel.name, kernel.arguments)

    def launch(self, function: Function, grid: Extent, block: Extent, shared: int, words: Words) -> None:
        """As `Driver.launch`."""
        see_words(function, words)
        extents(grid, block, function.name)
        values = tuple(words)  # as they are now

        def action() -> None:
            self._launch(function, grid, block, shared, values)

        self.ask("launch", f"{function.name} with {grid} blocks of {block} threads", action)

    def _launch(self, function: Function, grid: Extent, block: Extent, shared: int, values: tuple[int, ...]) -> None:
        arguments: list[Any] = []
        for number, (kind, value) in enumerate(zip(function.arguments, values, strict=True)):
            if kind == "int":
                arguments.append(np.int64(value))
                continue
            doing = f"launching {function.name}, whose parameter {number} is"
            arguments.append(self.blocks.pointer(value, kind, doing))
        try:
            self._run(function.handle, grid, block, shared, tuple(arguments))
        except KernelError as error:
            raise KernelError(f"{self.where}, launching {function.name}: {error}") from error
        self.counts.launches += 1

    # graphs

    @contextlib.contextmanager
    def capture(self) -> Iterator[Graph]:
        """As `Driver.capture`."""
        self._outside("capturing")
        graph, nodes = Graph(self), list[Node]()
        with self._capturing:
            self._recorded, self._recorder = (graph, nodes), get_ident()
            try:
                yield graph
                graph.complete(nodes, len(nodes))
                self.counts.captures += 1
            finally:
                self._recorder, self._recorded = 0, None
                while self._retired:
                    self.free(self._retired.pop())

    def run_graph(self, made: Any) -> None:
        """Launch what a capture made; `Graph.launch`."""
        self._outside("launching a graph")
        self.counts.graph_launches += 1
        self.queues.ask(MAIN, *made)

    def drop_graph(self, made: Any) -> None:
        """Let go of what a capture made; `Graph.close`. Work that was launched goes on."""


_devices: weakref.WeakSet[Simulated] = weakref.WeakSet()


def _after_fork() -> None:
    for device in list(_devices):
        device._forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def simulates() -> bool:
    """Whether the CUDA devices of this process are simulated: TAPEGRAD_CUDA is "simulator"."""
    return config.cuda() == "simulator"


def simulated_driver(index: int = 0) -> Simulated:
    """A simulated device, with launches cut to a few threads each. DriverMissing where kernels cannot run in the simulator."""
    from . import door, template

    if not 0 <= index < COUNT:
        raise DriverMissing(
            f"cuda:{index} was asked for, but there are cuda:0 to cuda:{COUNT - 1}, which are simulated"
        )
    if not door.simulated():
        raise DriverMissing(
            "TAPEGRAD_CUDA is simulator, but Numba's simulator is off; set NUMBA_ENABLE_CUDASIM=1 too, before Python starts"
        )
    door.settle_simulator()
    template.MACHINE.block, template.MACHINE.lanes, template.MACHINE.blocks = 4, 2, 3
    return Simulated(index)
