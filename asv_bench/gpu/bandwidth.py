"""How fast memory-bound kernels move bytes, as a share of what a plain copy on the same GPU moves."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from .rows import DEVICE, Outcome, Row, device_seconds

ELEMENTS = 1 << 26  # float32: 256 MiB an array, far past every cache
WIDTH = 1024
ELEMENTWISE, REDUCTION = 0.90, 0.85  # of the copy's bandwidth


def _array(*shape: int):
    import tapegrad as tg

    return tg.normal(size=shape, device=DEVICE)


@cache
def copied() -> float:
    """Bytes per second of a copy from device to device of 256 MiB, read and written bytes counted; PyTorch's copy_."""
    import torch

    x = torch.ones(ELEMENTS, device=DEVICE)
    y = torch.empty_like(x)
    return 8 * ELEMENTS / device_seconds({"copy": lambda: y.copy_(x)})["copy"]


def _copy() -> Outcome:
    return Outcome(f"{copied() / 1e12:.2f} TB/s")


def _share(make: Callable[[], Callable[[], object]], arrays: int, least: float) -> Outcome:
    """make: gives the call; arrays: how many arrays of 256 MiB it cannot but read or write."""
    seconds = device_seconds({"call": make()})["call"]
    rate = 4 * ELEMENTS * arrays / seconds
    share = rate / copied()
    return Outcome(f"{rate / 1e12:.2f} TB/s, {share:.0%} of the copy", share >= least)


def _add():
    x, y = _array(ELEMENTS), _array(ELEMENTS)
    return lambda: x + y


def _own_copy():
    import tapegrad as tg

    x = _array(ELEMENTS)
    return lambda: tg.copy(x)


def _exp():
    import tapegrad as tg

    x = _array(ELEMENTS)
    return lambda: tg.exp(x)


def _broadcast():
    x, row = _array(ELEMENTS // WIDTH, WIDTH), _array(WIDTH)
    return lambda: x * row


def _chain():
    """Six functions and five products and sums of one array, in a session."""
    import tapegrad as tg

    x, session = _array(ELEMENTS), tg.Session()

    def step():
        with session, tg.no_grad():
            return tg.tanh(1.5 * x + 0.3) * tg.sigmoid(x) + tg.exp(-x * x)

    return step


def _sum(axis: int | None):
    x = _array(ELEMENTS // WIDTH, WIDTH)
    return lambda: x.sum(axis)


def _softmax():
    import tapegrad as tg

    x = _array(ELEMENTS // WIDTH, WIDTH)
    return lambda: tg.softmax(x, 1)


def _layer_norm():
    import tapegrad.nn.functional as F

    x, scale, shift = _array(ELEMENTS // WIDTH, WIDTH), _array(WIDTH), _array(WIDTH)
    return lambda: F.layer_norm(x, (WIDTH,), scale, shift, 1e-5)


def _row(what: str, make: Callable[[], Callable[[], object]], arrays: int, least: float) -> Row:
    return Row(f"{what}, float32, 256 MiB", f"≥ {least:.0%} of the copy", partial(_share, make, arrays, least))


ROWS = (
    Row("copy from device to device, 256 MiB, by PyTorch: what others are compared with", "about 4.3 TB/s", _copy),
    _row("copy", _own_copy, 2, ELEMENTWISE),
    _row("x + y", _add, 3, ELEMENTWISE),
    _row("x * row, broadcast", _broadcast, 2, ELEMENTWISE),
    _row("exp", _exp, 2, ELEMENTWISE),
    _row("fused chain tanh(1.5x+.3)·σ(x)+exp(-x²)", _chain, 2, ELEMENTWISE),
    _row("sum of everything", partial(_sum, None), 1, REDUCTION),
    _row("sum along rows of 1024", partial(_sum, 1), 1, REDUCTION),
    _row("sum along columns of 65536", partial(_sum, 0), 1, REDUCTION),
    _row("softmax over rows of 1024", _softmax, 2, REDUCTION),
    _row("layer norm over rows of 1024", _layer_norm, 2, REDUCTION),
)
