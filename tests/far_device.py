"""A device on which the host cannot read: its memory is the host's, at addresses that are shifted. Ops run by the NumPy reference.

What the tape does for a device that is not the host is tested with it, without a GPU: whoever reads or writes elements from
the host crashes, whoever forgets to copy gets nothing.
"""

from __future__ import annotations

import ctypes

import numpy as np

from tapegrad.kernels.prepare import BACKENDS, Prepared
from tapegrad.kernels.reference import Reference
from tapegrad.tape import spaces
from tapegrad.tape.pool import HostPool

FAR = "cuda:77"
SHIFT = 1 << 60  # no address of a process is that large


class FarPool(HostPool):
    """Host memory under shifted addresses."""

    def _take(self, size: int) -> int | None:
        real = super()._take(size)
        return None if real is None else real + SHIFT

    def _give_back(self, address: int) -> None:
        super()._give_back(address - SHIFT)


class FarSpace:
    """Copies in and out, counted."""

    def __init__(self):
        self.pool = FarPool(1 << 32)
        self.counts = {"upload": 0, "download": 0, "copy": 0}
        self.followed: list[int] = []  # streams of others

    def upload(self, address: int, source: int, nbytes: int) -> None:
        self.counts["upload"] += 1
        ctypes.memmove(address - SHIFT, source, nbytes)

    def download(self, target: int, address: int, nbytes: int) -> None:
        self.counts["download"] += 1
        ctypes.memmove(target, address - SHIFT, nbytes)

    def synchronize(self) -> None:
        self.counts["synchronize"] = self.counts.get("synchronize", 0) + 1

    queue = 4711

    def follow(self, stream: int = 1) -> None:
        self.followed.append(stream)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        self.counts["copy"] += 1
        ctypes.memmove(target - SHIFT, source - SHIFT, nbytes)


class FarBackend(Reference):
    """The reference, on shifted addresses."""

    name = "far"

    def prepare(self, op, ins, attrs) -> Prepared:
        return self.shifted(super().prepare(op, ins, attrs))

    def into(self, op, ins, outs) -> Prepared:
        return self.shifted(super().into(op, ins, outs))

    @staticmethod
    def shifted(prepared: Prepared) -> Prepared:
        run = prepared.run
        if run is not None:
            prepared.run = lambda op, i, o, addresses: run(op, i, o, [a - SHIFT for a in addresses])
        return prepared


def install() -> FarSpace:
    """Make the device known to this process."""
    if FAR not in BACKENDS:
        BACKENDS[FAR] = FarBackend()
        spaces._spaces[FAR] = FarSpace()
    return spaces._spaces[FAR]  # type: ignore[return-value]


def array(t) -> np.ndarray:
    """The elements, read past the tape."""
    assert t.device == FAR
    return spaces.host_copy(t.address, t.layout)
