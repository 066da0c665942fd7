"""What the machine reaches: tapegrad's own products and streams, on the threads that this process may use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import tapegrad as tg
from tapegrad import optim

from ..timing import alternate


def product(side: int = 1024) -> float:
    """float32 operations a second of a large matrix product."""
    a, b = [tg.tensor(m) for m in np.random.default_rng(0).standard_normal((2, side, side), dtype=np.float32)]
    with tg.no_grad():
        return 2.0 * side**3 / _least(lambda: a @ b, 100)


def stream(size: int) -> float:
    """Bytes a second, read and written both counted, of a copy of `size` bytes or of p - lr · g in place, the faster.

    A copy has the processor read the target's lines before it overwrites them, which nobody counts; an update in place
    needs what it reads.
    """
    source, target = tg.ones(size // 4), tg.zeros(size // 4, requires_grad=True)
    target.grad = source
    update = optim.SGD([target], lr=0.0)
    with tg.no_grad():
        return max(2.0 * size / _least(lambda: target.copy_(source), 40), 3.0 * size / _least(update.step, 40))


def _least(call: Callable, rounds: int) -> float:
    return min(alternate({"it": call}, rounds)["it"])
