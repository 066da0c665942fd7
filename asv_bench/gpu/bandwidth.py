"""How fast memory-bound kernels move bytes, as a share of what a plain copy on the same GPU moves."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from .rows import DEVICE, Outcome, Row, device_seconds

ELEMENTS = 1 << 26  # float32: 256 MiB an array, far past every cache
WIDTH = 1024
ELEMENTWISE, REDUCTION = 0.90, 0.85  # of the copy's bandwidth


def _array(*shape: int, dtype: str = "float32"):
    import tapegrad as tg

    return tg.normal(size=shape, device=DEVICE).astype(dtype)


@cache
def copied() -> float:
    """Bytes per second of a copy from device to device of 256 MiB, read and written bytes counted; PyTorch's copy_."""
    import torch

    x = torch.ones(ELEMENTS, device=DEVICE)
    y = torch.empty_like(x)
    return 8 * ELEMENTS / device_seconds({"copy": lambda: y.copy_(x)})["copy"]


def _copy() -> Outcome:
    return Outcome(f"{copied() / 1e12:.2f} TB/s")


def _share(make: Callable[[], Callable[[], object]], arrays: float, least: float) -> Outcome:
    """make: gives the call; arrays: how many arrays of 256 MiB it cannot but read or write."""
    seconds = device_seconds({"call": make()})["call"]
    rate = 4 * ELEMENTS * arrays / seconds
    share = rate / copied()
    return Outcome(f"{rate / 1e12:.2f} TB/s, {share:.0%} of the copy", share >= least)


def _add(dtype: str = "float32"):
    x, y = (_array(_count(dtype), dtype=dtype) for _ in range(2))
    return lambda: x + y


def _count(dtype: str) -> int:
    """Elements of 256 MiB."""
    return ELEMENTS if dtype == "float32" else 2 * ELEMENTS


def _cast():
    """Reads 256 MiB of float32, writes half of that."""
    x = _array(ELEMENTS)
    return lambda: x.astype("bfloat16")


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


def _chain(dtype: str = "float32"):
    """Six functions and five products and sums of one array, in a session."""
    import tapegrad as tg

    x, session = _array(_count(dtype), dtype=dtype), tg.Session()

    def step():
        with session, tg.no_grad():
            return tg.tanh(1.5 * x + 0.3) * tg.sigmoid(x) + tg.exp(-x * x)

    return step


def _sum(axis: int | None):
    x = _array(ELEMENTS // WIDTH, WIDTH)
    return lambda: x.sum(axis)


def _sum_of_halves():
    """In a session, where the conversion to float32 is part of the sum's kernel."""
    import tapegrad as tg

    x, session = _array(2 * ELEMENTS // WIDTH, WIDTH, dtype="bfloat16"), tg.Session()

    def step():
        with session, tg.no_grad():
            return x.sum(1)

    return step


def _softmax():
    import tapegrad as tg

    x = _array(ELEMENTS // WIDTH, WIDTH)
    return lambda: tg.softmax(x, 1)


def _layer_norm():
    import tapegrad.nn.functional as F

    x, scale, shift = _array(ELEMENTS // WIDTH, WIDTH), _array(WIDTH), _array(WIDTH)
    return lambda: F.layer_norm(x, (WIDTH,), scale, shift, 1e-5)


def _row(
    what: str, make: Callable[[], Callable[[], object]], arrays: float, least: float, dtype: str = "float32"
) -> Row:
    return Row(f"{what}, {dtype}, 256 MiB", f"≥ {least:.0%} of the copy", partial(_share, make, arrays, least))


ROWS = (
    Row("copy from device to device, 256 MiB, by PyTorch: what others are compared with", "about 4.3 TB/s", _copy),
    _row("copy", _own_copy, 2, ELEMENTWISE),
    _row("x + y", _add, 3, ELEMENTWISE),
    _row("x * row, broadcast", _broadcast, 2, ELEMENTWISE),
    _row("exp", _exp, 2, ELEMENTWISE),
    _row("fused chain tanh(1.5x+.3)·σ(x)+exp(-x²)", _chain, 2, ELEMENTWISE),
    _row("x + y", partial(_add, "bfloat16"), 3, ELEMENTWISE, "bfloat16"),
    _row("x + y", partial(_add, "float16"), 3, ELEMENTWISE, "float16"),
    _row("conversion to bfloat16", _cast, 1.5, ELEMENTWISE),
    _row("fused chain, the same", partial(_chain, "bfloat16"), 2, ELEMENTWISE, "bfloat16"),
    _row("sum along rows of 1024, in a session", _sum_of_halves, 1, REDUCTION, "bfloat16"),
    _row("sum of everything", partial(_sum, None), 1, REDUCTION),
    _row("sum along rows of 1024", partial(_sum, 1), 1, REDUCTION),
    _row("sum along columns of 65536", partial(_sum, 0), 1, REDUCTION),
    _row("softmax over rows of 1024", _softmax, 2, REDUCTION),
    _row("layer norm over rows of 1024", _layer_norm, 2, REDUCTION),
)
