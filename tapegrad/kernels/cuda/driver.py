"""One GPU by way of NVIDIA's driver: memory, copies, loaded kernels, launches, graphs.

A `Driver` uses the device's primary context, which every CUDA library of the process shares, and streams of its own that do
not wait for others. Everything happens in the order in which it was asked for, whichever thread asked, but for copies that
are asked of COPIES (`streams.py`). The host waits only in `download`, `synchronize`, `free` and `Pinned.wait`, and for
COPIES only as far as MAIN does. The thread that asks gets the context as its current one.

The calls are those of `cuda.bindings.driver` (cuda-bindings 12.6 or newer, or 13), each of which returns its status and what
it made. `simulated.py` has the same methods over host memory. Source: CUDA Driver API, docs.nvidia.com/cuda/cuda-driver-api.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from ...errors import TapeError
from ..blocks import FORKED
from .faults import COMPILING, CaptureUnsafe, DriverMissing, NotLoaded
from .graph import Graph
from .library import device_count, fault_of, properties_of, started
from .loading import prepared
from .pinned import Pinned, block_at
from .streams import COPIES, LEGACY, MAIN, Event
from .template import blocks_for
from .words import Extent, Function, Words, extents, see_words

LOG = 8192  # bytes of the log of the driver's compiler
get_ident = threading.get_ident


class Driver:
    """One GPU. `index`: its number. `api`: what to use for `cuda.bindings.driver`.

    Raises DriverMissing where there is no such GPU or its driver does not fit. Every method raises OutOfMemory, ContextLost
    after a kernel failed, CaptureUnsafe for what a capture cannot record, and TapeError in the child of a fork.
    """

    carves = True  # the pool cuts small blocks out of larger ones

    def __init__(self, index: int = 0, api: Any = None):
        self.index, self.where = index, f"cuda:{index}"
        self.api = api = started(api)
        count = device_count(api)
        if not 0 <= index < count:
            have = "is cuda:0" if count == 1 else f"are cuda:0 to cuda:{count - 1}" if count else "is no GPU"
            raise DriverMissing(f"cuda:{index} was asked for, but there {have}; CUDA_VISIBLE_DEVICES may hide others")
        self._forked = False
        self._device = self._done(api.cuDeviceGet(index), "finding the GPU")
        self._context = self._done(api.cuDevicePrimaryCtxRetain(self._device), "making a context")
        self.enter()
        self.properties = properties_of(api, self._device, self.where)
        self.most_blocks = blocks_for(self.properties.processors)
        flag = api.CUstream_flags.CU_STREAM_NON_BLOCKING.value
        self._stream = self._done(api.cuStreamCreate(flag), "making a stream")
        self._streams = {MAIN: self._stream, COPIES: self._done(api.cuStreamCreate(flag), "making a stream")}
        self._side = self._done(api.cuStreamCreate(flag), "making a stream")  # what is captured goes here
        self._capturing = threading.Lock()
        self._recorder = 0  # the thread that captures
        self._recorded: Graph | None = None
        self._retired: list[tuple[Callable, Any]] = []  # what a capture keeps from being freed
        self._modules: dict[bytes, Any] = {}
        self._pinned: dict[int, weakref.ref[Pinned]] = {}
        self.form = 0  # in which the driver takes kernels
        _drivers.add(self)

    # calls

    def enter(self) -> None:
        """Make the context current in this thread. Another library may have changed that since the last call."""
        if self._forked:
            raise TapeError(FORKED)
        (status,) = self.api.cuCtxSetCurrent(self._context)
        if status:
            self._fail(status, "entering the context")

    def _done(self, returned: tuple, doing: str) -> Any:
        if returned[0]:
            self._fail(returned[0], doing)
        return returned[1] if len(returned) > 1 else None

    def _fail(self, status: Any, doing: str) -> None:
        raise fault_of(self.api, status, self.where, doing)

    def _here(self) -> Any:
        """The stream for what this thread asks."""
        return self._side if self._recorder and self._recorder == get_ident() else self._stream

    @property
    def stream(self) -> int:
        """The stream's handle, for libraries that launch kernels of their own. Within a capture, the one that is captured."""
        return int(self._here())

    @property
    def capturing(self) -> bool:
        """Whether this thread is in `capture()`."""
        return self._recorder == get_ident()

    def _outside(self, doing: str) -> None:
        """CaptureUnsafe within a capture; the context is current otherwise."""
        if self._recorder and self._recorder == get_ident():
            raise CaptureUnsafe(
                f"{self.where}, {doing}: this cannot be part of a graph; it has to run outside of a capture."
            )
        self.enter()

    @contextlib.contextmanager
    def _unrecorded(self) -> Iterator[None]:
        """Enter, and do something that happens at once even within a capture."""
        self.enter()
        if not self.capturing:
            yield
            return
        api = self.api
        before = self._done(
            api.cuThreadExchangeStreamCaptureMode(api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED), "capturing"
        )
        try:
            yield
        finally:
            api.cuThreadExchangeStreamCaptureMode(before)

    def _retire(self, destroy: Callable[[Any], Any], handle: Any) -> None:
        """Destroy something now, or behind this thread's capture. Never raises: finalisers call it."""
        if self._forked:
            return
        if self.capturing:
            self._retired.append((destroy, handle))
            return
        self.api.cuCtxSetCurrent(self._context)
        destroy(handle)

    # memory

    def allocate(self, nbytes: int) -> int:
        """The address of new memory on the device, a multiple of 256. It is not cleared."""
        with self._unrecorded():
            return int(self._done(self.api.cuMemAlloc(max(nbytes, 1)), f"allocating {nbytes:,} bytes"))

    def free(self, address: int) -> None:
        """Give memory back, when everything asked for before is done. Within a capture: when that is over."""
        if self.capturing:
            self._retired.append((self.api.cuMemFree, address))
            return
        self.enter()
        self._done(self.api.cuStreamSynchronize(self._stream), "waiting for the GPU")
        self._done(self.api.cuMemFree(address), "freeing memory")

    def memory(self) -> tuple[int, int]:
        """Bytes of the device that are free, and all. Other processes and libraries take their share."""
        with self._unrecorded():
            status, free, total = self.api.cuMemGetInfo()
            if status:
                self._fail(status, "asking its memory")
            return free, total

    def pinned(self, nbytes: int) -> Pinned:
        """Page-locked host memory: copies from it run while the host goes on, and a capture can record them."""
        api = self.api
        with self._unrecorded():
            made = self._new_event()
            address = self._done(
                api.cuMemHostAlloc(max(nbytes, 1), api.CU_MEMHOSTALLOC_PORTABLE), f"page-locking {nbytes:,} bytes"
            )
        block = Pinned(self, int(address), nbytes, made)
        self._pinned[block.address] = weakref.ref(block)
        return block

    def read_until_now(self, block: Pinned, stream: int = MAIN) -> None:
        """Note that what was asked of a stream until now may copy from the pinned block, or to it."""
        self._done(self.api.cuEventRecord(block.made, self._streams[stream]), "recording an event")
        block.busy = True

    def wait_for(self, block: Pinned) -> None:
        """Wait until no copy from or to the pinned block is left; `Pinned.wait`."""
        self.enter()
        self._done(self.api.cuEventSynchronize(block.made), "waiting for a copy")

    def release(self, block: Pinned) -> None:
        """Free a pinned block that nobody holds any more."""
        self._pinned.pop(block.address, None)
        if block.busy:
            self._retire(self.api.cuEventSynchronize, block.made)
        self._retire(self.api.cuEventDestroy, block.made)
        self._retire(self.api.cuMemFreeHost, block.address)

    # streams

    def event(self) -> Event:
        """A moment, still to be recorded."""
        with self._unrecorded():
            return Event(self, self._new_event())

    def _new_event(self) -> Any:
        flag = self.api.CUevent_flags.CU_EVENT_DISABLE_TIMING.value
        return self._done(self.api.cuEventCreate(flag), "making an event")

    def drop_event(self, event: Event) -> None:
        """Let go of an event."""
        self._retire(self.api.cuEventDestroy, event.made)

    def record(self, event: Event, stream: int = MAIN) -> None:
        """Make the event the moment when what was asked of a stream until now is done."""
        self._outside("recording an event")
        self._done(self.api.cuEventRecord(event.made, self._streams[stream]), "recording an event")

    def wait(self, stream: int, event: Event) -> None:
        """Let what is asked of a stream from now on come behind the event; the host goes on."""
        self._outside("waiting for an event")
        self._done(self.api.cuStreamWaitEvent(self._streams[stream], event.made, 0), "waiting for an event")

    def follow(self, stream: int = LEGACY) -> None:
        """Let what is asked of MAIN from now on come behind what another library asked of a stream of its own; the host goes on.

        stream: its handle. Within a capture it is done when that is over, which is before the graph can be launched.
        """
        if self.capturing:
            self._retired.append((self.follow, stream))
            return
        self.enter()
        api, doing, event = self.api, "waiting for another library", self._new_event()
        try:
            self._done(api.cuEventRecord(event, stream), doing)
            self._done(api.cuStreamWaitEvent(self._stream, event, 0), doing)
        finally:
            api.cuEventDestroy(event)  # it goes when it has passed

    # copies

    def upload(self, address: int, source: int, nbytes: int, stream: int = MAIN) -> None:
        """Copy from the host, in the order of MAIN or of COPIES.

        The source may change as soon as this returns, unless it lies in a pinned block: then behind `Pinned.wait`. A
        capture records copies from pinned blocks, which every launch of the graph reads anew, and refuses others.
        """
        if nbytes <= 0:
            return
        block = block_at(self._pinned, source, nbytes) if self._pinned else None
        graph = self._recorded if self.capturing else None
        if graph is not None and block is None:
            raise CaptureUnsafe(
                f"{self.where}, copying from the host: the graph would read memory that may be gone by then; copy from a pinned "
                "block, or outside of a capture."
            )
        if stream == COPIES:
            self._outside("copying from the host in a queue of its own")
        self.enter()
        to = self._here() if stream == MAIN else self._streams[stream]
        (status,) = self.api.cuMemcpyHtoDAsync(address, source, nbytes, to)
        if status:
            self._fail(status, f"copying {nbytes:,} bytes from the host")
        if block is not None:
            if graph is not None:
                graph.reads(block)
            else:
                self.read_until_now(block, stream)
        elif self.properties.coherent:  # nothing says that the driver then reads the source before it returns
            self._done(self.api.cuStreamSynchronize(to), "waiting for a copy")

    def fetch(self, block: Pinned, address: int, nbytes: int) -> None:
        """Copy to a pinned block, when everything asked for before is done; its bytes are there behind `Pinned.wait`."""
        self._outside("copying to the host")
        self._done(
            self.api.cuMemcpyDtoHAsync(block.address, address, nbytes, self._stream),
            f"copying {nbytes:,} bytes to the host",
        )
        self.read_until_now(block)

    def download(self, target: int, address: int, nbytes: int) -> None:
        """Copy to the host, when everything asked for before is done, and wait for it."""
        doing = "copying to the host"
        self._outside(doing)
        if nbytes > 0:
            self._done(self.api.cuMemcpyDtoHAsync(target, address, nbytes, self._stream), doing)
        self._done(self.api.cuStreamSynchronize(self._stream), doing)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy within the device; the ranges do not overlap."""
        if nbytes > 0:
            self.enter()
            self._done(self.api.cuMemcpyDtoDAsync(target, source, nbytes, self._here()), "copying")

    def fill(self, address: int, byte: int, nbytes: int) -> None:
        """Set every byte to one value, from 0 to 255."""
        if nbytes > 0:
            self.enter()
            self._done(self.api.cuMemsetD8Async(address, byte, nbytes, self._here()), "filling")

    def synchronize(self) -> None:
        """Wait until everything asked for is done."""
        self._outside("waiting for the GPU")
        self._done(self.api.cuStreamSynchronize(self._stream), "waiting for the GPU")

    # kernels

    def load(self, code: str | bytes, name: str, arguments: tuple[str, ...]) -> Function:
        """The kernel of that name in a PTX text or machine code, ready to launch. The same code is loaded once.

        arguments: for each parameter "int", or the dtype of the elements at an address. KernelError, with the compiler's
        log, where the code does not fit the device.
        """
        image = code.encode() + b"\0" if isinstance(code, str) else code
        digest = hashlib.sha256(image).digest()
        api = self.api
        with self._unrecorded():
            module = self._modules.get(digest)
            if module is None:
                module = self._modules[digest] = self._compiled(image, name)
            handle = self._done(api.cuModuleGetFunction(module, name.encode()), f"finding the kernel {name}")
            if self.properties.version >= (12, 4) and hasattr(api, "cuFuncLoad"):
                self._done(api.cuFuncLoad(handle), f"loading {name}")  # else its first launch may not be captured
        return Function(handle, name, arguments)

    def _compiled(self, image: bytes, name: str) -> Any:
        api = self.api
        option = api.CUjit_option
        log = bytearray(LOG)
        keys = [option.CU_JIT_ERROR_LOG_BUFFER, option.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES]
        status, module = api.cuModuleLoadDataEx(image, len(keys), keys, [log, LOG])
        if not status:
            return module
        error = fault_of(api, status, self.where, f"loading the kernel {name}")
        if int(status) not in COMPILING:
            raise error
        text = log.split(b"\0")[0].decode(errors="replace").strip()
        raise NotLoaded(f"{error} The driver's compiler says:\n{text}" if text else str(error), int(status))

    def prepare(self, kernel: Any) -> Function:
        """A `template.Kernel` on this device, in the form that its driver takes (`loading.py`)."""
        return prepared(self, kernel)

    def launch(self, function: Function, grid: Extent, block: Extent, shared: int, words: Words) -> None:
        """Run a kernel: `grid` blocks of `block` threads, each an int or three, with `shared` bytes of shared memory."""
        see_words(function, words)
        api = self.api
        self.enter()
        if shared > function.shared:
            largest = api.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self._done(
                api.cuFuncSetAttribute(function.handle, largest, shared), f"asking shared memory for {function.name}"
            )
            function.shared = shared
        (status,) = api.cuLaunchKernel(
            function.handle, *extents(grid, block, function.name), shared, self._here(), words.pointers, 0
        )
        if status:
            self._fail(status, f"launching {function.name} with {grid} blocks of {block} threads")

    # graphs

    @contextlib.contextmanager
    def capture(self) -> Iterator[Graph]:
        """Record what this thread asks for as a graph, instead of running it; `graph.launch()` then runs it.

        Allocations and loads happen at once; memory freed meanwhile, by any thread, is given back behind the capture. An
        exception in the body, or CaptureUnsafe at its end, leaves a graph that cannot be launched, and nothing has run.
        """
        self._outside("capturing")
        api, graph = self.api, Graph(self)
        with self._capturing:
            mode = api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
            self._done(api.cuStreamBeginCapture(self._side, mode), "capturing")
            self._recorded, self._recorder = graph, get_ident()
            captured = None
            try:
                yield graph
                captured = self._end_capture()
                self._instantiate(graph, captured)
            finally:
                if self.capturing:
                    _, captured = api.cuStreamEndCapture(self._side)
                self._recorder, self._recorded = 0, None
                if captured:
                    api.cuGraphDestroy(captured)
                self._let_go()

    def _end_capture(self) -> Any:
        status, captured = self.api.cuStreamEndCapture(self._side)
        self._recorder, self._recorded = 0, None
        if status:
            self._fail(status, "capturing")
        return captured

    def _let_go(self) -> None:
        """Destroy what the capture kept from it."""
        if self._retired:
            self.api.cuStreamSynchronize(self._stream)
        while self._retired:
            destroy, handle = self._retired.pop(0)
            destroy(handle)

    def _instantiate(self, graph: Graph, captured: Any) -> None:
        """Make a captured graph ready to launch."""
        self.enter()
        api, doing = self.api, "making a graph"
        status, _, nodes = api.cuGraphGetNodes(captured)
        if status:
            self._fail(status, doing)
        graph.complete(self._done(api.cuGraphInstantiate(captured, 0), doing), nodes)

    def run_graph(self, made: Any) -> None:
        """Launch what a capture made; `Graph.launch`."""
        self._outside("launching a graph")
        (status,) = self.api.cuGraphLaunch(made, self._stream)
        if status:
            self._fail(status, "launching a graph")

    def drop_graph(self, made: Any) -> None:
        """Let go of what a capture made; `Graph.close`."""
        self._retire(self.api.cuGraphExecDestroy, made)


_drivers: weakref.WeakSet[Driver] = weakref.WeakSet()


def _after_fork() -> None:
    for driver in list(_drivers):
        driver._forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
