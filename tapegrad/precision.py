"""In what precision GPUs multiply matrices of float32: the setting `tg.matmul_precision`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from .errors import ConfigError

# name: (bits of the significand, largest number) that the factors keep; sums are float32 with all of them
PRECISIONS = {"float32": (24, 3.4e38), "tf32": (11, 3.4e38), "bfloat16": (8, 3.4e38), "float16": (11, 65504.0)}


class _Local(threading.local):
    name = "float32"


_local = _Local()
used = False  # whether anybody ever set it: until then nobody asks
watch: Callable[[str], None] | None = None  # told of every change, in the thread that makes it


def _set(name: str) -> None:
    global used
    used = True
    _local.name = name
    if watch is not None:
        watch(name)


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

    Each bit less doubles the relative error, to about 5e-4 with 11 bits and 4e-3 with 8, and tensor cores are several times
    faster. It is the setting of this thread, as `no_grad` is, and other threads start with "float32". float64 is
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
