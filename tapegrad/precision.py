"""In what precision matrices are multiplied: `tg.matmul_precision`, for float32 on GPUs, and `tg.autocast`, for the factors' dtype."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from .dtypes import DType, as_dtype
from .errors import ConfigError, DtypeError

# name: (bits of the significand, largest number) that the factors keep; sums are float32 with all of them
PRECISIONS = {"float32": (24, 3.4e38), "tf32": (11, 3.4e38), "bfloat16": (8, 3.4e38), "float16": (11, 65504.0)}


class _Local(threading.local):
    name = "float32"
    factors: DType | None = None  # what `autocast` has products of

    def __init__(self) -> None:
        self.outer: list[DType | None] = []  # what it was around each block of `autocast` that is open


_local = _Local()
used = False  # whether anybody ever set it: until then nobody asks
watch: Callable[[str], None] | None = None  # told of every change, in the thread that makes it


def _set(name: str) -> None:
    _local.name = name
    _changed()


def _cast(factors: DType | None) -> None:
    _local.factors = factors
    _changed()


def set_factors(factors: DType | None) -> DType | None:
    """Set what products take their factors in, for a while in which no session looks; what it was."""
    before, _local.factors = _local.factors, factors
    return before


def _changed() -> None:
    global used
    used = True
    if watch is not None:
        watch(mode())


def mode() -> str:
    """Both settings of this thread, in a word."""
    return sys.intern(_local.name if _local.factors is None else f"{_local.name} {_local.factors.name}")


class matmul_precision:
    """In what precision products of float32 matrices are computed on a GPU, from here on; in a `with` block, only inside it.

    precision: what the factors may be rounded to before they are multiplied. Sums are always float32.

    ============ =============================== ================================
    precision    bits of the significand         largest number
    ============ =============================== ================================
    "float32"    24: no rounding (the default)   3.4e38
    "tf32"       11                              3.4e38
    "bfloat16"   8, or 11 where cuBLAS chooses   3.4e38
    "float16"    11                              65504 where cuBLAS chooses so
    ============ =============================== ================================

    Each bit less doubles the relative error, to about 5e-4 with 11 bits and 4e-3 with 8; tensor cores multiply only rounded
    factors. It is the setting of this thread, as `no_grad` is, and other threads start with "float32". float64 is
    multiplied as float64 whatever is set, and on the CPU nothing changes: there float32 is always float32.

    Errors: ConfigError where the name is none of these.
    Sources: NVIDIA, "cuBLAS", cublasComputeType_t; PyTorch has it as set_float32_matmul_precision, JAX as
    default_matmul_precision.

    >>> import tapegrad as tg
    >>> with tg.matmul_precision("tf32"):
    ...     tg.matmul_precision.current()
    'tf32'
    >>> tg.matmul_precision.current()
    'float32'
    """

    def __init__(self, precision: str):
        if not isinstance(precision, str) or precision not in PRECISIONS:
            names = ", ".join(f'"{name}"' for name in PRECISIONS)
            raise ConfigError(
                f"matmul_precision: {precision!r} is none of the precisions {names}; "
                'PyTorch\'s "high" is "tf32" here, its "medium" is "bfloat16".'
            )
        self.precision = sys.intern(precision)
        self._before = [_local.name]
        self._fresh = True  # set by this call, and not yet undone by a block
        _set(self.precision)

    def __enter__(self) -> matmul_precision:
        if not self._fresh:
            self._before.append(_local.name)
        self._fresh = False
        _set(self.precision)
        return self

    def __exit__(self, *_) -> None:
        _set(self._before.pop())

    def __repr__(self) -> str:
        return f'tapegrad.matmul_precision("{self.precision}")'

    @staticmethod
    def current() -> str:
        """The precision that this thread has set.

        >>> matmul_precision.current()
        'float32'
        """
        return _local.name


class autocast:
    """Matrix products take their factors in a dtype of two bytes inside a `with` block, or in a function so decorated.

    dtype: bfloat16 or float16. enabled: False for a block without autocast inside one with it.

    What `matmul`, `@`, `linear`, `einsum` and what is made of them (attention, bilinear) are given in float32 is converted first, and
    their result has that dtype; sums in it are float32. Elementwise ops then keep the dtype. Reductions, normalizations, softmax
    and losses are computed in float32, and inside the block their result is float32, too. Convolutions and recurrent layers stay
    float32. Parameters stay float32, and so do their gradients. float64 is left alone. `backward` pays no heed to the block.

    It is the setting of this thread, as `no_grad` is. Where halves are not multiplied natively, as on the CPU, products are computed
    in float32 from the converted factors: the numbers are those of a GPU, the time is not.

    float16 ends at 65504, and gradients below 6e-8 become 0: scale the loss with `optim.GradScaler`. bfloat16 has the range of
    float32, and needs that not.

    Errors: DtypeError where the dtype is not one of the two.
    Sources: Micikevicius et al. 2018, "Mixed precision training"; torch.autocast.

    >>> import tapegrad as tg
    >>> a = tg.ones((2, 2))
    >>> with tg.autocast("bfloat16"):
    ...     y = a @ a
    ...     y.dtype, y.sum().dtype
    (tapegrad.bfloat16, tapegrad.float32)
    >>> (a @ a).dtype
    tapegrad.float32
    """

    def __init__(self, dtype="bfloat16", enabled: bool = True):
        found = None
        with suppress(DtypeError):
            found = as_dtype(dtype)
        if found is None or not found.is_half:
            raise DtypeError(f'autocast: dtype {dtype!r} came; wanted is "bfloat16" or "float16"')
        self.factors = found if enabled else None

    def __enter__(self) -> autocast:
        _local.outer.append(_local.factors)
        _cast(self.factors)
        return self

    def __exit__(self, *_) -> None:
        _cast(_local.outer.pop())

    def __call__(self, fn: Callable) -> Callable:
        @functools.wraps(fn)
        def inside(*args, **kwargs):
            with self:
                return fn(*args, **kwargs)

        return inside

    @staticmethod
    def current() -> DType | None:
        """What products take their factors in; None outside such a block.

        >>> autocast.current()
        """
        return _local.factors
