"""What a launch needs: a loaded kernel, and its parameters as the driver reads them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

from ...errors import KernelError

MOST_X, MOST_YZ, MOST_THREADS = 2**31 - 1, 65535, 1024


class Function:
    """A kernel on one device.

    handle: what the device launches. arguments: for each parameter "int", or the dtype of the elements at an address.
    """

    __slots__ = ("arguments", "handle", "name", "shared")

    def __init__(self, handle: Any, name: str, arguments: tuple[str, ...]):
        self.handle, self.name, self.arguments = handle, name, arguments
        self.shared = 48 << 10  # bytes of dynamic shared memory that a launch may ask for without more ado

    def __repr__(self) -> str:
        return f"<CUDA function {self.name}({', '.join(self.arguments)})>"


class Words:
    """The parameters of a launch: 8-byte words, each an address or an integer, and behind them the address of each.

    The driver reads them during the launch, or during its capture, and never again: they may change right after it.

    >>> words = Words([7, -1])
    >>> words[0] = 9
    >>> list(words), len(words)
    ([9, -1], 2)
    """

    __slots__ = ("block", "count", "pointers")

    def __init__(self, values: Sequence[int]):
        self.count = n = len(values)
        self.block = (ctypes.c_int64 * (2 * n))(*values)
        start = ctypes.addressof(self.block)
        self.pointers = start + 8 * n  # the address of the array of addresses
        self.block[n:] = list(range(start, self.pointers, 8))

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(self.block[: self.count])

    def __getitem__(self, i: int) -> int:
        return self.block[self._place(i)]

    def __setitem__(self, i: int, value: int) -> None:
        self.block[self._place(i)] = value

    def _place(self, i: int) -> int:
        if not 0 <= i < self.count:
            raise IndexError(f"word {i} of {self.count}")
        return i


Extent = int | tuple[int, int, int]


def extents(grid: Extent, block: Extent, name: str) -> tuple[int, int, int, int, int, int]:
    """The three extents of the grid and of a block of threads. KernelError where a launch cannot have them."""
    gx, gy, gz = (grid, 1, 1) if isinstance(grid, int) else grid
    bx, by, bz = (block, 1, 1) if isinstance(block, int) else block
    if not (0 < gx <= MOST_X and 0 < gy <= MOST_YZ and 0 < gz <= MOST_YZ):
        raise KernelError(
            f"launching {name}: a grid of {grid} blocks; there are 1 to {MOST_X:,}, by up to {MOST_YZ:,} twice"
        )
    if not (bx > 0 and by > 0 and bz > 0 and bx * by * bz <= MOST_THREADS):
        raise KernelError(f"launching {name}: a block of {block} threads; there are 1 to {MOST_THREADS:,}")
    return gx, gy, gz, bx, by, bz


def see_words(function: Function, words: Words) -> None:
    """KernelError where a launch would read other than the words there are."""
    if words.count != len(function.arguments):
        raise KernelError(f"launching {function.name}: {words.count} words for {len(function.arguments)} parameters")
