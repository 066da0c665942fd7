"""The ways of arrays between the host and a device: by page-locked memory, so that the device copies by itself.

To the device. A small array goes to its place in the order of all work. A large one, a batch as a rule, first goes to memory of the
device that only this module uses, in a queue of its own: the next batch arrives while the kernels of the last one run. What is
asked of the device then waits for the arrival, and copies the array to its place, in the order of all work. So whatever the place
was used for before, by kernels that are still queued, is over by then, and nobody has to know of it.

From the device. A large array comes in pieces: while one is copied out of page-locked memory, the next one arrives.

Source: CUDA C++ Best Practices Guide, "Pinned Memory" and "Asynchronous and Overlapping Transfers with Computation".
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from ...errors import OutOfMemory
from ..blocks import Buffer, class_size
from .pinned import Pinned
from .streams import COPIES, MAIN, Event

if TYPE_CHECKING:
    from .devices import Gpu

# Bytes from which arrays go by page-locked memory, from which they go by the second queue, and up to which: beyond, the
# staging memory would be too much. All three are to be measured: no GPU has run this.
STAGED, AHEAD, MOST = 1 << 14, 1 << 18, 1 << 28
RING = 3  # blocks of a size: one that is filled, one that is copied, one that waits behind a kernel
SIZES = 8  # of which blocks are kept
PIECE = 1 << 20  # bytes of the pieces in which arrays come from the device; arrays of one piece come as they are


class Slot:
    """A page-locked block, and memory of the device that it is copied to; `read`: when that memory was last read."""

    __slots__ = ("block", "read", "room")

    def __init__(self, block: Pinned, room: Buffer | None, read: Event):
        self.block, self.room, self.read = block, room, read


class Ring:
    """The slots of one size that nobody uses, the one that was used last at the end, and how many there are in all."""

    __slots__ = ("free", "made")

    def __init__(self) -> None:
        self.free: deque[Slot] = deque()
        self.made = 0


class Staging:
    """Page-locked memory of one device, and the copies by way of it. Several threads may copy at once."""

    def __init__(self, gpu: Gpu):
        self.driver, self.pool = gpu.driver, gpu.pool
        self._rings: OrderedDict[int, Ring] = OrderedDict()
        self._lock = threading.Lock()
        self._pieces: list[Pinned] = []
        self._fetching = threading.Lock()

    # to the device

    def upload(self, address: int, source: int, nbytes: int) -> None:
        """Copy from the host; the source may change as soon as this returns."""
        driver = self.driver
        driver.enter()  # before any lock: in the child of a fork a lock may be held for ever
        if not STAGED <= nbytes <= MOST or driver.capturing:
            driver.upload(address, source, nbytes)  # within a capture it says that this cannot be
            return
        ring, slot = self._take(class_size(nbytes))
        try:
            slot.block.wait()
            ctypes.memmove(slot.block.address, source, nbytes)
            if slot.room is None:
                driver.upload(address, slot.block.address, nbytes)
            else:
                self._ahead(slot, address, nbytes)
        finally:
            ring.free.append(slot)

    def _ahead(self, slot: Slot, address: int, nbytes: int) -> None:
        """Copy a filled block to the device while other work goes on, and in its turn to where it belongs."""
        driver, block, room = self.driver, slot.block, slot.room
        assert room is not None
        driver.wait(COPIES, slot.read)
        driver.upload(room.address, block.address, nbytes, COPIES)
        driver.wait(MAIN, block)
        driver.copy(address, room.address, nbytes)
        driver.record(slot.read)

    def _take(self, size: int) -> tuple[Ring, Slot]:
        """A slot for arrays up to that size, which nobody else uses until it is put back."""
        with self._lock:
            ring = self._rings.setdefault(size, Ring())
            self._rings.move_to_end(size)
            old = self._rings.popitem(last=False) if len(self._rings) > SIZES else None
            if ring.made >= RING and ring.free:
                return ring, ring.free.popleft()
            ring.made += 1
        del old  # its slots wait until nothing reads them, which is no time to hold the lock
        return ring, self._slot(size)

    def _slot(self, size: int) -> Slot:
        room = None
        if size >= AHEAD:
            with contextlib.suppress(OutOfMemory):  # then copies wait in the order of all work
                room = self.pool.allocate(size, "memory for arrays that arrive")
        slot = Slot(self.driver.pinned(size), room, self.driver.event())
        self.driver.record(slot.read)  # kernels that are queued may still use what the pool gave
        return slot

    def release(self) -> None:
        """Give the device's memory back to its pool, and the page-locked memory to the system."""
        with self._lock:
            old, self._rings = self._rings, OrderedDict()
        del old

    # from the device

    def download(self, target: int, address: int, nbytes: int) -> None:
        """Copy to the host, when everything asked of MAIN before is done, and wait for it."""
        driver = self.driver
        driver.enter()
        if nbytes <= PIECE or driver.capturing:
            driver.download(target, address, nbytes)
            return
        with self._fetching:
            while len(self._pieces) < 2:
                self._pieces.append(driver.pinned(PIECE))
            coming: deque[tuple[Pinned, int, int]] = deque()
            for number, start in enumerate(range(0, nbytes, PIECE)):
                block, n = self._pieces[number % 2], min(PIECE, nbytes - start)
                driver.fetch(block, address + start, n)
                coming.append((block, target + start, n))
                if len(coming) == 2:
                    self._arrived(*coming.popleft())
            for piece in coming:
                self._arrived(*piece)

    @staticmethod
    def _arrived(block: Pinned, target: int, nbytes: int) -> None:
        block.wait()
        ctypes.memmove(target, block.address, nbytes)
