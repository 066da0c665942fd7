"""Page-locked host memory, from which and to which a device copies by itself while the host goes on."""

from __future__ import annotations

import weakref
from typing import Any, Protocol

from .streams import Event


class Owner(Protocol):
    """The device that a block was made by."""

    def wait_for(self, block: Pinned) -> None:
        """Wait until no copy from or to the block is left."""

    def release(self, block: Pinned) -> None:
        """Free the block."""


class Pinned(Event):
    """A block of page-locked host memory; it is freed with the object, when no copy from or to it is left.

    address: where the host sees it. nbytes: its length. memory: what keeps it, where that is not the owner. As an event it is
    the moment when the copy that was asked for last is done. `numpy.asarray(block)` is a uint8 view that keeps it alive. Copies
    may still be waiting when `upload` or `fetch` has returned: call `wait()` before its bytes change, or are read.
    """

    __slots__ = ("address", "busy", "memory", "nbytes", "owner")

    def __init__(self, owner: Owner, address: int, nbytes: int, made: Any = None, memory: Any = None):
        self.owner, self.address, self.nbytes, self.made, self.memory = owner, address, nbytes, made, memory
        self.busy = False

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (self.nbytes,), "typestr": "|u1", "data": (self.address, False), "version": 3}

    def wait(self) -> None:
        """Wait until every copy from or to the block that was asked for is done; nothing else is waited for."""
        if self.busy:
            self.owner.wait_for(self)
            self.busy = False

    def __del__(self):
        self.owner.release(self)


def block_at(blocks: dict[int, weakref.ref[Pinned]], address: int, nbytes: int) -> Pinned | None:
    """The block that holds the whole range, or None. There are few blocks."""
    for start, ref in list(blocks.items()):
        if start <= address:
            block = ref()
            if block is not None and address + nbytes <= start + block.nbytes:
                return block
    return None
