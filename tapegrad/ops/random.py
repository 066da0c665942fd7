"""Random numbers from a counter: a draw depends on the seed, the op's place in the sequence of draws, and the element.

The kernels are Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
"""

from __future__ import annotations

import operator
import threading

import numpy as np

from ..dtypes import DEFAULT, as_dtype, bfloat16, bool_, int64
from ..errors import DtypeError, ShapeError
from . import registry
from .elementwise import floor
from .indexing import take
from .movement import astype
from .registry import Tensor, composite, primitive

SEED_BITS = 63


class _Generator(threading.local):
    """Each thread's seed and the number of draws made."""

    def __init__(self):
        self.seed, self.draws = 0, 0


_generator = _Generator()


def seed(value: int) -> None:
    """Start the random numbers of this thread anew: the same seed gives the same draws, on any device and any number of threads.

    >>> import tapegrad as tg
    >>> tg.seed(1); a = tg.uniform(size=3)
    >>> tg.seed(1); b = tg.uniform(size=3)
    >>> bool((a == b).all())
    True
    """
    try:
        value = operator.index(value)
    except TypeError:
        raise DtypeError(f"seed: wanted an integer, not {value!r}") from None
    if not 0 <= value < 1 << SEED_BITS:
        raise ShapeError(f"seed: {value} is not between 0 and 2**{SEED_BITS} - 1")
    _generator.seed, _generator.draws = value, 0


def get_seed_state() -> tuple[int, int]:
    """The seed and the number of draws made since."""
    return _generator.seed, _generator.draws


def set_seed_state(state: tuple[int, int]) -> None:
    """Continue from a state that `get_seed_state` gave."""
    seed(state[0])
    _generator.draws = int(state[1])


def _next_state(device):
    """The int64 pair that one draw reads."""
    return registry._interpreter.draw(next_state(), device)


def next_state() -> np.ndarray:
    """Seed and number of the next draw, which is counted by that."""
    _generator.draws += 1
    return np.array([_generator.seed, _generator.draws - 1], np.int64)


def _size(size, op_name: str) -> tuple[int, ...]:
    if size is None:
        return ()
    listed = tuple(size) if isinstance(size, tuple | list) else (size,)
    try:
        found = tuple(operator.index(n) for n in listed)
    except TypeError:
        raise DtypeError(f"{op_name}: size is made of integers, not {size!r}") from None
    if any(n < 0 for n in found):
        raise ShapeError(f"{op_name}: size {found} has a negative length")
    return found


def _draw(name: str, doc: str):
    def draw(state: Tensor, *parameters, shape, dtype):
        return (state, *parameters), {"shape": shape, "dtype": dtype}

    draw.__name__, draw.__doc__ = name + "_kernel", doc
    op = primitive(public=False, differentiable=False, builder=name)(draw)
    op.shape(lambda state, *parameters, shape, dtype: (shape, dtype))
    return op


_uniform = _draw("uniform", "Uniform numbers in [0, 1).")
_normal = _draw("normal", "Standard normal numbers.")
_bernoulli = _draw("bernoulli", "True with probability p.")
_randint = _draw("randint", "Integers from low to high - 1.")
_permutation = _draw("permutation", "0 to n - 1 in random order.")


def _float(dtype, op_name: str):
    found = DEFAULT if dtype is None else as_dtype(dtype)
    if not found.is_float:
        raise DtypeError(f"{op_name}: dtype must be a floating-point one, such as float32, not {found.name}")
    return found


@composite(samples=[])
def uniform(low=0.0, high=1.0, size=None, dtype=None, device="cpu"):
    """Numbers drawn evenly from [low, high), of shape `size`. float32 unless said otherwise."""
    if isinstance(low, tuple | list):
        raise DtypeError(f"uniform: low is {low!r}; give the shape as size={low!r}")
    found = _float(dtype, "uniform")
    drawn = _uniform(_next_state(device), shape=_size(size, "uniform"), dtype=found.compute)
    if found.is_half:  # cut, not rounded, or the largest of them would become 1
        steps = 2.0 ** (8 if found is bfloat16 else 11)
        drawn = astype(floor(drawn * steps) / steps, found)
    if isinstance(low, int | float) and isinstance(high, int | float) and (low, high) == (0.0, 1.0):
        return drawn
    return drawn * (high - low) + low


@composite(samples=[])
def normal(loc=0.0, scale=1.0, size=None, dtype=None, device="cpu"):
    """Numbers from the normal distribution of mean `loc` and standard deviation `scale`, of shape `size`.

    Gradients flow to loc and scale where these are tensors.
    """
    if isinstance(loc, tuple | list):
        raise DtypeError(f"normal: loc is {loc!r}; give the shape as size={loc!r}")
    drawn = _normal(_next_state(device), shape=_size(size, "normal"), dtype=_float(dtype, "normal"))
    if isinstance(loc, int | float) and isinstance(scale, int | float) and (loc, scale) == (0.0, 1.0):
        return drawn
    return drawn * scale + loc


@composite(samples=[])
def bernoulli(p=0.5, size=None, device="cpu"):
    """True with probability p, False otherwise; a bool tensor of shape `size`."""
    if not isinstance(p, int | float) or not 0.0 <= p <= 1.0:
        raise ShapeError(f"bernoulli: p is a number between 0 and 1, not {p!r}")
    from .registry import _interpreter

    return _bernoulli(
        _next_state(device),
        _interpreter.tensor(float(p), "bernoulli", device),
        shape=_size(size, "bernoulli"),
        dtype=bool_,
    )


@composite(samples=[])
def randint(low, high=None, size=None, dtype=None, device="cpu"):
    """Integers drawn evenly from low to high - 1 (0 to low - 1 where high is not given), of shape `size`."""
    if high is None:
        low, high = 0, low
    low, high = operator.index(low), operator.index(high)
    if low >= high:
        raise ShapeError(f"randint: no integer is at least {low} and below {high}")
    from .registry import _interpreter

    wanted = int64 if dtype is None else as_dtype(dtype)
    if wanted.kind != "i":
        raise DtypeError(f"randint: dtype must be int32 or int64, not {wanted.name}")
    bounds = [_interpreter.tensor(bound, "randint", device) for bound in (low, high)]
    return astype(_randint(_next_state(device), *bounds, shape=_size(size, "randint"), dtype=int64), wanted)


@composite(samples=[])
def permutation(x, device="cpu"):
    """The integers 0 to x - 1 in random order, or a tensor with the rows of x in random order."""
    if isinstance(x, int | np.integer):
        if x < 0:
            raise ShapeError(f"permutation: {x} is negative")
        return _permutation(_next_state(device), shape=(int(x),), dtype=int64)
    from .registry import _interpreter

    t = _interpreter.tensor(x, "permutation")
    if t.ndim == 0:
        raise DtypeError(f"permutation: wanted a whole number or a tensor of rows, got {x!r}")
    return take(t, permutation(t.shape[0], t.device), 0)
