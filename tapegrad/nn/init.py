"""Starting values, written into a tensor in place. Drawn with `tg.uniform` and `tg.normal`, so `tg.seed` fixes them."""

from __future__ import annotations

import math

from ..ops.random import normal, uniform
from ..tape.state import no_grad
from ..tape.tensor import Tensor


def fans(t: Tensor) -> tuple[int, int]:
    """How many inputs and outputs one element of a weight (out, in, ...) connects.

    >>> import tapegrad as tg
    >>> fans(tg.zeros((8, 4, 3, 3)))
    (36, 72)
    """
    if t.ndim < 2:
        return t.size, t.size
    field = math.prod(t.shape[2:])
    return t.shape[1] * field, t.shape[0] * field


def _write(t: Tensor, value) -> Tensor:
    with no_grad():
        return t.copy_(value)


def constant_(t: Tensor, value: float) -> Tensor:
    """Every element `value`."""
    return _write(t, value)


def zeros_(t: Tensor) -> Tensor:
    """Zeros."""
    return _write(t, 0.0)


def ones_(t: Tensor) -> Tensor:
    """Ones."""
    return _write(t, 1.0)


def uniform_(t: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Drawn evenly from [a, b)."""
    return _write(t, uniform(a, b, t.shape, t.dtype))


def normal_(t: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Drawn from the normal distribution."""
    return _write(t, normal(mean, std, t.shape, t.dtype))


def xavier_uniform_(t: Tensor, gain: float = 1.0) -> Tensor:
    """Glorot & Bengio 2010: even over ±gain·√(6 / (fan in + fan out))."""
    bound = gain * math.sqrt(6.0 / sum(fans(t)))
    return uniform_(t, -bound, bound)


def kaiming_uniform_(t: Tensor, a: float = 0.0) -> Tensor:
    """He et al. 2015, for a leaky ReLU of negative slope `a`: even over ±√(6 / ((1 + a²) · fan in))."""
    bound = math.sqrt(6.0 / ((1.0 + a * a) * max(fans(t)[0], 1)))
    return uniform_(t, -bound, bound)


def kaiming_normal_(t: Tensor, a: float = 0.0) -> Tensor:
    """He et al. 2015, normal: standard deviation √(2 / ((1 + a²) · fan in))."""
    return normal_(t, 0.0, math.sqrt(2.0 / ((1.0 + a * a) * max(fans(t)[0], 1))))
