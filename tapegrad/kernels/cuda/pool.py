"""A device's buffer pool: the size classes of `kernels/blocks.py` over the device's own memory, in slabs of 2 MiB.

The driver hands out memory in steps of 2 MiB, and takes it back only when the device has done everything asked for; a pool
asks for neither in a steady loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ...errors import OutOfMemory
from ..blocks import Pool


class Memory(Protocol):
    """Where a pool's memory comes from: a `Driver`, or a `Simulated`."""

    where: str
    carves: bool

    def allocate(self, nbytes: int) -> int:
        """The address of new memory; OutOfMemory where there is none."""

    def free(self, address: int) -> None:
        """Give it back."""

    def memory(self) -> tuple[int, int]:
        """Bytes that are free, and all."""


class DevicePool(Pool):
    """Owns the memory of a device's tensors. Its limit is at first all of the device.

    A block may be taken again while kernels that were asked for earlier still use it: those asked for later run behind them.
    """

    slab = 2 << 20
    carved = slab // 4
    advice = "Use smaller batches, drop tensors that are no longer needed, or free what other programs hold on the GPU."

    def __init__(self, device: Memory):
        super().__init__(device.memory()[1])
        self._device = device
        self.spare: Callable[[], None] = lambda: None  # gives back what memory is held for speed alone
        self.where = f" on {device.where}"
        if not device.carves:
            self.carved = 0

    def _take(self, size: int) -> int | None:
        try:
            return self._device.allocate(size)
        except OutOfMemory:
            return None

    def _give_back(self, address: int) -> None:
        self._device.free(address)

    def _trim(self) -> None:
        self.spare()
        super()._trim()

    def _exhausted(self) -> str:
        free, total = self._device.memory()
        return f"{self._used()}, and {free:,} of the GPU's {total:,} bytes are left"
