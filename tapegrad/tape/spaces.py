"""Where the memory of tensors lies. On the host an address is what it is; on a device only copies lead in and out.

The tape touches elements outside kernels in few places: new data, Python numbers, values that are read. All of them go through
`put`, `get` and `host_copy`, and all memory comes from the pool of the layout's device.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Protocol

import numpy as np

from ..kernels.memory import array_at
from ..layouts import Layout, device_named
from .pool import POOL, Pool

HOST = frozenset({"cpu", "reference"})  # devices whose memory Python can address


class Space(Protocol):
    """The memory of one device, in the order of whose queue copies happen."""

    @property
    def pool(self) -> Pool:
        """Where its buffers come from."""

    def upload(self, address: int, source: int, nbytes: int) -> None:
        """Copy from the host; the source may be changed as soon as this returns."""

    def download(self, target: int, address: int, nbytes: int) -> None:
        """Copy to the host, after everything that was asked of the device before."""

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy within the device."""

    def synchronize(self) -> None:
        """Wait until everything that was asked of the device is done."""

    @property
    def queue(self) -> int:
        """The handle of that queue, for other libraries."""

    def follow(self, stream: int = 1) -> None:
        """Let what is asked from now on come behind what another library asked of a queue of its own; 1: CUDA's default stream."""


_spaces: dict[str, Space] = {}


def space_of(device: str) -> Space:
    """The memory of a device that is not the host."""
    found = _spaces.get(device)
    if found is None:
        device = device_named(device)
        from ..kernels.cuda import devices

        found = _spaces[device] = devices.open_device(device)
    return found


def plans(device: str) -> bool:
    """Whether sessions run on that device by programs."""
    if device in HOST:
        return device == "cpu"
    return hasattr(space_of(device), "driver")


def pool_of(device: str) -> Pool:
    """Where buffers for that device come from."""
    return POOL if device in HOST else space_of(device).pool


def numbers_of(device: str) -> Pool:
    """Where buffers come from that only the host writes, by `put` at their first byte, as numbers that differ from pass to pass."""
    if device in HOST:
        return POOL
    space = space_of(device)
    return getattr(space, "slots", space.pool)


def writer_of(device: str) -> Callable[[int, bytes, int], object]:
    """A function of (address, bytes, how many) that writes to that device."""
    return ctypes.memmove if device in HOST else lambda address, data, _: put(device, address, data)


def allocations() -> int:
    """Blocks that were ever made, in all pools."""
    return (
        POOL.allocations + sum([space.pool.allocations for space in _spaces.values()]) if _spaces else POOL.allocations
    )


def put(device: str, address: int, data: bytes | np.ndarray) -> None:
    """Write bytes, or a contiguous array's elements, to an address of a device."""
    if isinstance(data, bytes):
        source, nbytes = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0, len(data)
    else:
        source, nbytes = data.__array_interface__["data"][0], data.nbytes
    if not nbytes:
        return
    if device in HOST:
        ctypes.memmove(address, source, nbytes)
    else:
        space_of(device).upload(address, source, nbytes)


def copied(device: str, target: int, source: int, nbytes: int) -> None:
    """Copy within a device."""
    if device in HOST:
        ctypes.memmove(target, source, nbytes)
    elif nbytes:
        space_of(device).copy(target, source, nbytes)


def get(device: str, address: int, nbytes: int) -> bytes:
    """The bytes at an address of a device."""
    if device in HOST:
        return ctypes.string_at(address, nbytes)
    block = ctypes.create_string_buffer(max(nbytes, 1))
    if nbytes:
        space_of(device).download(ctypes.addressof(block), address, nbytes)
    return block.raw[:nbytes]


def host_copy(address: int, x: Layout) -> np.ndarray:
    """The elements at an address, wherever that is: a view of host memory, a copy of a device's."""
    if x.device in HOST:
        return array_at(address, x)
    if x.size == 0:
        return np.empty(x.shape, x.dtype.numpy)
    item = x.dtype.itemsize
    low = sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True) if s < 0)
    high = sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True) if s > 0)
    flat = np.empty(high - low + 1, x.dtype.numpy)
    space_of(x.device).download(flat.ctypes.data, address + low * item, flat.nbytes)
    return np.lib.stride_tricks.as_strided(flat[-low:], x.shape, tuple(s * item for s in x.strides))
