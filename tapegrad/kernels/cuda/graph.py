"""Work of a device that was recorded once and is launched as one."""

from __future__ import annotations

from typing import Any, Protocol

from ...errors import KernelError
from .pinned import Pinned


class Device(Protocol):
    """The device that a graph was captured on."""

    where: str

    def run_graph(self, made: Any) -> None:
        """Launch what was recorded."""

    def drop_graph(self, made: Any) -> None:
        """Forget what was recorded; never raises."""

    def read_until_now(self, block: Pinned) -> None:
        """Note that what was asked for until now may read the block."""


class Graph:
    """What `capture()` recorded. `nodes`: how many launches, copies and fills it has.

    It launches what it recorded with the addresses and words of then: whoever holds it keeps their memory. The pinned blocks
    that it copies from it keeps itself, and every launch reads them anew; `Pinned.wait` before their bytes change.
    """

    __slots__ = ("_device", "_made", "blocks", "nodes")

    def __init__(self, device: Device):
        self._device = device
        self._made: Any = None
        self.nodes = 0
        self.blocks: list[Pinned] = []

    def reads(self, block: Pinned) -> None:
        """Note that a node copies from the block."""
        if block not in self.blocks:
            self.blocks.append(block)

    def complete(self, made: Any, nodes: int) -> None:
        """The capture is over; `made` is what the device launches."""
        self._made, self.nodes = made, nodes

    def launch(self) -> None:
        """Put the whole work into the device's queue. It may be launched again before it is done."""
        made = self._made
        if made is None:
            raise KernelError(
                f"a graph of {self._device.where} was launched that is not there: its capture is not over or failed, or it was closed"
            )
        self._device.run_graph(made)
        for block in self.blocks:
            self._device.read_until_now(block)

    def close(self) -> None:
        """Let go of it; work that was launched goes on."""
        made, self._made = self._made, None
        self.blocks = []
        if made is not None:
            self._device.drop_graph(made)

    def __del__(self):
        self.close()
