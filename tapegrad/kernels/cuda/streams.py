"""The queues of a device, and moments in them.

What is asked of one queue happens in the order of asking. Between queues there is no order but what `wait` makes:

    driver.upload(room, block.address, n, COPIES)     # a block is the moment when its last copy is done
    driver.wait(MAIN, block)                          # what is asked of MAIN from here on comes behind it
"""

from __future__ import annotations

from typing import Any, Protocol

MAIN = 0  # everything that does not say otherwise
COPIES = 1  # copies from the host that need not wait for what MAIN does
LEGACY = 1  # the handle of CUDA's own default stream, CU_STREAM_LEGACY, which PyTorch and CuPy use where nothing else is said


class Maker(Protocol):
    """The device that an event was made by."""

    def drop_event(self, event: Event) -> None:
        """Let go of it; never raises."""


class Event:
    """A moment in a queue: when what was asked of it before `record` is done. Before the first `record` it has passed."""

    __slots__ = ("__weakref__", "_maker", "made")

    def __init__(self, maker: Maker, made: Any = None):
        self._maker, self.made = maker, made

    def __del__(self):
        self._maker.drop_event(self)
