"""Memory for numbers that the host writes and kernels read: seeds, learning rates, a number that differs in each pass.

Slots lie side by side in a page, of which the host has a copy. A write goes there; whatever is asked of the device next brings what
was written since in one copy of a page. Nothing but the host writes to slots, so what lies between them may be copied too.
"""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING

from ..blocks import ALIGNMENT, Buffer

if TYPE_CHECKING:
    from .devices import Gpu

PAGE = 4096
LARGEST = PAGE // 8


class Page:
    """A block on the device, the host's copy of it, and the range of bytes in which that is newer."""

    __slots__ = ("buffer", "high", "low", "mirror", "source", "used")

    def __init__(self, buffer: Buffer):
        self.buffer = buffer
        self.mirror = (ctypes.c_char * PAGE)()
        self.source = ctypes.addressof(self.mirror)
        self.used, self.low, self.high = 0, PAGE, 0


class Slots:
    """The slots of a device. `dirty`: something was written since the last copy."""

    def __init__(self, gpu: Gpu):
        self.gpu, self.dirty = gpu, False
        self._pages: list[Page] = []
        self._at: dict[int, tuple[Page, int]] = {}  # address of a slot -> its page, and its place there
        self._free: dict[int, list[int]] = {}
        self._lock = threading.Lock()

    def allocate(self, nbytes: int, what: str = "a number") -> Buffer:
        """A slot of that many bytes, whose contents are undefined; ordinary memory where that is much. As `Pool.allocate`."""
        size = max(-(-nbytes // ALIGNMENT), 1) * ALIGNMENT
        if size > LARGEST:
            return self.gpu.pool.allocate(nbytes, what)
        with self._lock:
            free = self._free.setdefault(size, [])
            return Buffer(free.pop() if free else self._carve(size, what), free)

    def _carve(self, size: int, what: str) -> int:
        if not self._pages or self._pages[-1].used + size > PAGE:
            self._pages.append(Page(self.gpu.pool.allocate(PAGE, what)))
        page = self._pages[-1]
        address = page.buffer.address + page.used
        self._at[address] = page, page.used
        page.used += size
        return address

    def write(self, address: int, source: int, nbytes: int) -> bool:
        """Write to the slot that begins there, for all that is asked of the device from now on; False where none does."""
        found = self._at.get(address)
        if found is None:
            return False
        page, at = found
        self.gpu.driver.enter()  # in the child of a fork the lock may be held for ever
        with self._lock:
            ctypes.memmove(page.source + at, source, nbytes)
            page.low, page.high = min(page.low, at), max(page.high, at + nbytes)
            self.dirty = True
        return True

    def bring(self) -> None:
        """Copy what was written to the device."""
        driver = self.gpu.driver
        driver.enter()
        with self._lock:
            for page in self._pages:
                if page.low < page.high:
                    driver.upload(page.buffer.address + page.low, page.source + page.low, page.high - page.low)
                    page.low, page.high = PAGE, 0
            self.dirty = False
