"""The GPUs of this process: each with its driver, its memory pool and its backend.

    gpu = open_device("cuda:0")
    gpu.backend.prepare(op, ins, attrs)         # what to launch
    gpu.pool, gpu.upload, gpu.download          # where, and the ways in and out

Launches run behind Python. A kernel that finds an index out of range says so in a status word of its own, and the error is raised
when the host next waits for the device: when an element is read, or at `synchronize`.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from ...errors import IndexOutOfRange, KernelError
from ..blocks import Buffer
from ..status import INDEX, SENTENCES
from .slots import Slots
from .staging import Staging
from .streams import LEGACY
from .template import STATUS, Kernel, Launch, Work
from .words import Words

if TYPE_CHECKING:
    from .products import Products

MOST = 4096  # status words


class Failures:
    """Status words on a device, and whose they are.

    An op takes the next word, a program keeps words for as long as it lives. They are read only where the host waits anyway. A word
    keeps its title until it was read, also where the program that wrote it is gone by then.
    """

    def __init__(self, gpu: Gpu):
        self.gpu = gpu
        self.address = gpu.driver.allocate(4 * MOST)
        gpu.driver.fill(self.address, 0, 4 * MOST)
        self.titles: dict[int, str] = {}  # of the words in use
        self.free = list(range(MOST - 1, -1, -1))
        self.read_next: list[int] = []  # words that no later launch writes to: free once they were read
        self.pending = False  # whether a launch may have failed since the words were read
        self.lock = threading.RLock()  # programs are given back by finalizers, which run anywhere

    def word(self, title: str, lasting: bool = False) -> int:
        """The place of a word for a launch that may fail.

        Where it is for one launch, the caller holds `lock` until that is in the device's queue: who reads the words frees it.
        """
        with self.lock:
            if not self.free:
                self.check(always=True)
            if not self.free:
                raise KernelError(
                    f"{title}: {MOST} programs that may fail are alive on {self.gpu.name}; clear some sessions"
                )
            place = self.free.pop()
            self.titles[place] = title
            if not lasting:
                self.read_next.append(place)
        return place

    def give_back(self, places: list[int]) -> None:
        """Words of a program that is gone. What it left in them is still to be read."""
        with self.lock:
            self.read_next += places

    def check(self, always: bool = False) -> None:
        """Wait for the device, and raise the first failure that was not raised yet."""
        if not (self.pending or always):
            return
        with self.lock:
            self.pending, last, self.read_next = False, self.read_next, []
            words = (ctypes.c_int32 * MOST)()
            self.gpu.driver.download(ctypes.addressof(words), self.address, 4 * MOST)
            found = [(title, words[place]) for place, title in list(self.titles.items()) if words[place]]
            for place in [place for place in list(self.titles) if words[place]]:
                self.gpu.driver.fill(self.address + 4 * place, 0, 4)
            for place in last:
                del self.titles[place]
            self.free += reversed(last)
        if found:
            title, code = found[0]
            kind = IndexOutOfRange if code == INDEX else KernelError
            raise kind(
                f"{title}: {SENTENCES.get(code, f'the kernel returned status {code}')}. On a GPU this is noticed when a value is read; "
                "what was computed from it since is not valid."
            )


class Gpu:
    """One device: memory, copies, launches, the backend that prepares ops for it."""

    def __init__(self, index: int, driver: Any, has_cublas: bool = True):
        from . import products
        from .backend import Cuda
        from .pool import DevicePool

        self.name = f"cuda:{index}"
        self.driver = driver
        self.pool = DevicePool(driver)
        self.failures = Failures(self)
        self.backend = Cuda(self.run, products.product_work if has_cublas else None, driver.most_blocks)
        self.slots, self.staging = Slots(self), Staging(self)
        self.pool.spare = self.staging.release
        self._functions: dict[Kernel, Any] = {}

    def upload(self, address: int, source: int, nbytes: int) -> None:
        """Copy from the host; the source may change as soon as this returns."""
        if not self.slots.write(address, source, nbytes):
            self.staging.upload(address, source, nbytes)

    def download(self, target: int, address: int, nbytes: int) -> None:
        """Copy to the host, after everything that was asked before; raises what failed meanwhile."""
        self.bring()
        self.failures.check()
        self.staging.download(target, address, nbytes)

    def synchronize(self) -> None:
        """Wait until everything that was asked is done; raises what failed meanwhile."""
        self.bring()
        self.failures.check()
        self.driver.synchronize()

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy within the device."""
        self.bring()
        self.driver.copy(target, source, nbytes)

    @property
    def queue(self) -> int:
        """The handle of the stream in whose order everything here happens, for other libraries."""
        return self.driver.stream

    def follow(self, stream: int = LEGACY) -> None:
        """Let what is asked from now on come behind what another library asked of a stream of its own, by its handle."""
        self.driver.follow(stream)

    def bring(self) -> None:
        """Let the device have the numbers that the host wrote to slots: before whatever may read them."""
        if self.slots.dirty:
            self.slots.bring()

    # launches

    def function(self, kernel: Kernel) -> Any:
        """The kernel, loaded."""
        found = self._functions.get(kernel)
        if found is None:
            found = self._functions[kernel] = self.driver.prepare(kernel)
        return found

    def bound(self, launch: Launch, addresses: list[int]) -> Callable[[], None]:
        """A function that puts the launch, or a library's call, with the operands at these addresses on the device's queue."""
        if not isinstance(launch, Launch):
            return launch.bound(self, addresses)
        launch = launch.fitting(addresses)
        return functools.partial(
            self.driver.launch,
            self.function(launch.kernel),
            launch.grid,
            launch.block,
            0,
            Words(launch.words(addresses)),
        )

    @functools.cached_property
    def products(self) -> Products:
        """cuBLAS on this device."""
        from .products import Products

        return Products(self)

    def run(self, op: Any, work: Work, _ins: Any, _outs: Any, addresses: list[int]) -> None:
        """Run the launches of an op; `Cuda.runner`."""
        self.bring()
        scratch: list[Buffer] = []
        try:
            for nbytes in work.scratch:
                scratch.append(self.pool.allocate(nbytes, f"scratch memory of {op.name}"))
            places = [*addresses, *[block.address for block in scratch]]
            fails = any(STATUS in launch.operands for launch in work.launches)
            with self.failures.lock if fails else nullcontext():
                places.append(self.failures.address + 4 * self.failures.word(op.title) if fails else 0)
                for launch in work.launches:
                    self.bound(launch, places)()
                if fails:
                    self.failures.pending = True
        finally:
            scratch.clear()  # not left to an error's traceback; whoever takes a block next comes behind in the queue


_lock = threading.Lock()


def open_device(name: str) -> Gpu:
    """The GPU of that name, such as "cuda:0". One object for each in a process. Raises where there is no such GPU."""
    with _lock:
        return _opened(name)


@functools.cache
def _opened(name: str) -> Gpu:
    from .simulated import simulated_driver, simulates

    index = int(name.partition(":")[2])
    if simulates():
        return Gpu(index, simulated_driver(index), has_cublas=False)
    from . import door
    from .driver import Driver

    missing = door.why_not()
    if missing is not None:
        from .faults import DriverMissing

        raise DriverMissing(f'the device "{name}" cannot be used: {missing}')
    return Gpu(index, Driver(index))
