"""Page-locked host memory, from which a device copies by itself while the host goes on."""

from __future__ import annotations

import weakref
from typing import Any, Protocol


class Owner(Protocol):
    """The device that a block was made by."""

    def wait_for(self, block: Pinned) -> None:
        """Wait until nothing reads the block."""

    def release(self, block: Pinned) -> None:
        """Free the block."""


class Pinned:
    """A block of page-locked host memory; it is freed with the object, when nothing reads it any more.

    address: where the host sees it. nbytes: its length. `numpy.asarray(block)` is a uint8 view that keeps it alive. Copies
    from it may still be waiting when `upload` has returned: call `wait()` before its bytes change.
    """

    __slots__ = ("__weakref__", "address", "busy", "event", "nbytes", "owner")

    def __init__(self, owner: Owner, address: int, nbytes: int, event: Any):
        self.owner, self.address, self.nbytes, self.event = owner, address, nbytes, event
        self.busy = False

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (self.nbytes,), "typestr": "|u1", "data": (self.address, False), "version": 3}

    def wait(self) -> None:
        """Wait until every copy from the block that was asked for is done; nothing else is waited for."""
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
