"""Launches: what running an op on given layouts comes to, as data.

A launch is a tuple of steps. A step is a kernel's address, the operands it takes (by their place in the launch's operand
list: inputs first, then outputs) and the static words that follow the pointers. The same steps run one by one outside a
session and become the records of a program inside one.

Kernel ABI: `int32_t kernel(const int64_t *args, int64_t begin, int64_t end)`. `args` holds 8-byte words: operand
addresses, then the workspace's address if the step has one, then the static words. `begin..end` is a range of the
kernel's independent items; disjoint ranges may run at the same time. The result is a code of `status.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..layouts import Layout


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel call. `extent` items may be split among threads; `grain` of them are about 25 µs of work (0: never split).

    `workspace` is the number of scratch bytes that each thread needs. `parts`: into how many ranges per thread the extent
    is best cut; 1 where every range has a large cost of its own, such as packing a matrix.
    """

    address: int
    operands: tuple[int, ...]
    static: tuple[int, ...] = ()
    extent: int = 1
    grain: int = 0
    workspace: int = 0
    parts: int = 4


Builder = Callable[[tuple[Layout, ...], tuple[Layout, ...], dict], tuple[Step, ...]]
BUILDERS: dict[str, Builder] = {}
ACCEPTS: dict[
    str, Callable[[Layout], bool]
] = {}  # which input layouts a builder takes; those in C order where nothing is said
SURE: set[str] = set()  # builders whose kernels never report a failure; of all others it is assumed that they may


def kernel(
    *names: str, accepts: Callable[[Layout], bool] | None = None, sure: bool = False
) -> Callable[[Builder], Builder]:
    """Register the decorated function as the CPU builder of the ops named.

    The builder gets the layouts of the inputs and of the outputs and the op's attributes by name, and returns the steps.
    Inputs that `accepts` declines are copied to C order first. `sure`: the kernels return 0 whatever the elements are, so a
    plan may leave out a call that nobody needs, and move it.
    """

    def register(builder: Builder) -> Builder:
        for name in names:
            BUILDERS[name] = builder
            if accepts is not None:
                ACCEPTS[name] = accepts
            if sure:
                SURE.add(name)
        return builder

    return register
