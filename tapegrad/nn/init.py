"""Starting values, written into a tensor in place. Drawn with `tg.uniform` and `tg.normal`, so `tg.seed` fixes them.

A name with an underscore behind it writes: `xavier_uniform_(weight)`. Without one it makes an initialiser, for `apply`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import PathError, ShapeError
from ..ops.random import normal as draw_normal
from ..ops.random import uniform as draw_uniform
from ..paths import resolve
from ..tape.create import tensor
from ..tape.state import no_grad
from ..tape.tensor import Tensor
from .tags import tags_of

Initialiser = Callable[[Tensor], Any]


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


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a layer's spread is enlarged so that it survives the activation behind it (He et al. 2015).

    param: the negative slope of a leaky ReLU, 0.01 where it is None.

    >>> calculate_gain("relu") == 2.0 ** 0.5, round(calculate_gain("tanh"), 4)
    (True, 1.6667)
    """
    slope = 0.01 if param is None else param
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0), "selu": 0.75}
    gains |= {f"{kind}{n}d": 1.0 for kind in ("conv", "conv_transpose") for n in (1, 2)}
    gains["leaky_relu"] = math.sqrt(2.0 / (1.0 + slope * slope))
    if nonlinearity not in gains:
        raise ShapeError(f"init: no gain is known for nonlinearity {nonlinearity!r}; known are {', '.join(gains)}")
    return gains[nonlinearity]


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


def eye_(t: Tensor) -> Tensor:
    """Ones on the diagonal of a matrix, zeros elsewhere."""
    if t.ndim != 2:
        raise ShapeError(f"init.eye_: the tensor has shape {t.shape}, wanted a matrix")
    return _write(t, tensor(np.eye(t.shape[0], t.shape[1]), dtype=t.dtype))


def uniform_(t: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Drawn evenly from [a, b)."""
    return _write(t, draw_uniform(a, b, t.shape, t.dtype))


def normal_(t: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Drawn from the normal distribution."""
    return _write(t, draw_normal(mean, std, t.shape, t.dtype))


def trunc_normal_(t: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """Drawn from the normal distribution with what lies outside [a, b] cut off; a and b are values, not multiples of std.

    By rejection: exact in the tails too.

    >>> import tapegrad as tg
    >>> t = trunc_normal_(tg.zeros(1000), std=2.0)
    >>> bool((t.abs() <= 2.0).all())
    True
    """
    low, high = (a - mean) / std if std > 0 else -math.inf, (b - mean) / std if std > 0 else math.inf
    if not (a < b and std > 0):
        raise ShapeError(f"init.trunc_normal_: a={a!r} must be below b={b!r} and std={std!r} above 0")
    return _write(t, tensor(mean + std * _truncated(t.size, low, high).reshape(t.shape), dtype=t.dtype))


def _truncated(count: int, low: float, high: float) -> np.ndarray:
    """Standard normal numbers between low and high.

    Where much of the distribution lies between them, normal numbers are drawn until enough of them do; else even numbers,
    accepted with a probability that is proportional to the density.
    """
    mass = 0.5 * (math.erf(high / math.sqrt(2.0)) - math.erf(low / math.sqrt(2.0)))
    peak = min(max(0.0, low), high)  # where the density is largest
    low, high = max(low, peak - 9.0), min(high, peak + 9.0)  # beyond: less than 1e-18 of it
    found = np.empty(0)
    while found.size < count:
        more = max(2 * (count - found.size), 64)
        if mass > 0.25:
            drawn = draw_normal(size=more, dtype="float64").numpy()
        else:
            drawn = draw_uniform(low, high, more, "float64").numpy()
            accepted = draw_uniform(size=more, dtype="float64").numpy() < np.exp(0.5 * (peak * peak - drawn * drawn))
            drawn = drawn[accepted]
        found = np.concatenate([found, drawn[(drawn >= low) & (drawn <= high)]])
    return found[:count]


def xavier_uniform_(t: Tensor, gain: float = 1.0) -> Tensor:
    """Glorot & Bengio 2010: even over ±gain·√(6 / (fan in + fan out))."""
    bound = gain * math.sqrt(6.0 / sum(fans(t)))
    return uniform_(t, -bound, bound)


def xavier_normal_(t: Tensor, gain: float = 1.0) -> Tensor:
    """Glorot & Bengio 2010, normal: standard deviation gain·√(2 / (fan in + fan out))."""
    return normal_(t, 0.0, gain * math.sqrt(2.0 / sum(fans(t))))


def _he_spread(t: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ShapeError(f'init: mode is "fan_in" or "fan_out", not {mode!r}')
    fan = fans(t)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))


def kaiming_uniform_(t: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """He et al. 2015, for a leaky ReLU of negative slope `a`: even over ±√(6 / ((1 + a²) · fan in))."""
    bound = math.sqrt(3.0) * _he_spread(t, a, mode, nonlinearity)
    return uniform_(t, -bound, bound)


def kaiming_normal_(t: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """He et al. 2015, normal: standard deviation √(2 / ((1 + a²) · fan in))."""
    return normal_(t, 0.0, _he_spread(t, a, mode, nonlinearity))


def orthogonal_(t: Tensor, gain: float = 1.0) -> Tensor:
    """gain times a matrix with orthonormal rows, or columns where there are fewer of those (Saxe et al. 2013).

    Axes behind the first count as one. From the QR decomposition of a normal matrix, signs corrected so that all rotations
    are equally likely.

    >>> import tapegrad as tg
    >>> w = orthogonal_(tg.zeros((2, 5)))
    >>> bool(((w @ w.T - tg.eye(2)).abs() < 1e-6).all())
    True
    """
    if t.ndim < 2:
        raise ShapeError(f"init.orthogonal_: the tensor has shape {t.shape}, wanted two axes or more")
    rows, columns = t.shape[0], t.size // max(t.shape[0], 1)
    if not t.size:
        return t
    q, r = np.linalg.qr(draw_normal(size=(max(rows, columns), min(rows, columns)), dtype="float64").numpy())
    q = q * np.sign(np.diag(r))
    return _write(t, tensor(gain * (q if rows >= columns else q.T).reshape(t.shape), dtype=t.dtype))


# initialisers, for apply


def constant(value: float) -> Initialiser:
    """An initialiser: every element `value`."""
    return lambda t: constant_(t, value)


def uniform(a: float = 0.0, b: float = 1.0) -> Initialiser:
    """An initialiser: drawn evenly from [a, b)."""
    return lambda t: uniform_(t, a, b)


def normal(mean: float = 0.0, std: float = 1.0) -> Initialiser:
    """An initialiser: drawn from the normal distribution."""
    return lambda t: normal_(t, mean, std)


def truncated_normal(mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Initialiser:
    """An initialiser: drawn from the normal distribution between a and b."""
    return lambda t: trunc_normal_(t, mean, std, a, b)


def orthogonal(gain: float = 1.0) -> Initialiser:
    """An initialiser: orthonormal rows or columns, times gain."""
    return lambda t: orthogonal_(t, gain)


def xavier(t: Tensor) -> Tensor:
    """xavier_uniform_ with gain 1."""
    return xavier_uniform_(t)


def he(t: Tensor) -> Tensor:
    """kaiming_normal_ for a ReLU."""
    return kaiming_normal_(t, nonlinearity="relu")


def apply(model, initialisers: Mapping[str, Initialiser]) -> list[str]:
    """Write starting values into the parameters whose paths the patterns name; of several, the more specific pattern wins.

    An initialiser is a function of a tensor: one of this module, or any other, which writes into the tensor or returns values
    of its shape. Patterns are those of `tapegrad.paths`: `*.weight` is every weight below the model, `head.*.bias` the
    biases of head's parts, `*<recurrent>.weight_hh*` the recurrent weights of modules with that tag. Returns the names of
    the parameters that were written. PathError where a pattern names no parameter.

    >>> import tapegrad as tg
    >>> from tapegrad import nn
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> nn.init.apply(model, {"*.weight": nn.init.he, "*.bias": nn.init.constant(0), "2.bias": nn.init.constant(1)})
    ['0.weight', '0.bias', '2.weight', '2.bias']
    >>> model[0].bias.tolist(), model[2].bias.tolist()
    ([0.0, 0.0, 0.0, 0.0], [1.0, 1.0])
    """
    named = dict(model.named_parameters())
    chosen = resolve(initialisers, named, tags_of(model))
    for name, initialiser in chosen.items():
        if not callable(initialiser):
            raise PathError(
                f"init.apply: the initialiser of {name} is {initialiser!r}, wanted a function of a tensor, as constant(0)"
            )
        value = initialiser(named[name])
        if value is None or value is named[name]:
            continue
        found = tuple(getattr(value, "shape", np.shape(value)))
        if found != named[name].shape:
            raise ShapeError(
                f"init.apply: the initialiser of {name} returned shape {found}, wanted the parameter's, {named[name].shape}"
            )
        _write(named[name], value)
    return list(chosen)
