"""The host's buffer pool: 64-byte aligned memory in size classes (`kernels/blocks.py`), in slabs of 1 MiB where it is small."""

from __future__ import annotations

import numpy as np

from .. import config
from ..kernels.blocks import ALIGNMENT, Buffer, Pool, SizeClass, class_size

__all__ = ["POOL", "Buffer", "Pool", "SizeClass", "class_size", "writes"]

# Large blocks start at different places within a page. Where a load comes a little behind a store of the same page offset,
# it falsely waits for it ("4K aliasing"): an add of 1 M float32 took 146 µs with blocks 0 or 1088 bytes apart, 164 with 64.
PAGE, STAGGER = 4096, 17 * ALIGNMENT

# The last in-place write to each block: its order number and where the user wrote it. Keyed by address, so that buffers that are
# never written, nearly all, pay nothing. A row checks only blocks that it keeps alive, whose address nobody else can have.
writes: dict[int, tuple[int, tuple[str, int] | None]] = {}


class HostPool(Pool):
    """Owns all host memory of tensors."""

    advice = "Use smaller batches, drop tensors that are no longer needed, or raise the limit with tg.set_memory_limit."

    def __init__(self, limit: int):
        super().__init__(limit)
        self._backing: dict[int, np.ndarray] = {}  # address of the block -> the array that owns it

    def _take(self, size: int) -> int | None:
        try:
            backing = np.empty(size + 2 * PAGE, np.uint8)
        except MemoryError:
            return None
        address = -(-backing.ctypes.data // PAGE) * PAGE + self.allocations * STAGGER % PAGE
        self._backing[address] = backing
        return address

    def _give_back(self, address: int) -> None:
        del self._backing[address]


POOL = HostPool(config.memory_limit())
