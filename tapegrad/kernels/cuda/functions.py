"""The names that kernels may use beside Python's: scalar functions for each dtype, bits, exchange within a warp.

On a GPU they are NVIDIA's libdevice, without its approximations (`fast_…`); in the simulator they are NumPy's. A function
ends in the dtype that it takes, `exp_f32`. Both tables have the same names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import numpy as np

from ... import halves
from . import door

# name here -> libdevice's name for float64; float32's has an f behind it
LIBDEVICE = {
    "exp": "exp",
    "exp2": "exp2",
    "expm1": "expm1",
    "log": "log",
    "log1p": "log1p",
    "log2": "log2",
    "log10": "log10",
    "sin": "sin",
    "cos": "cos",
    "tan": "tan",
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arctan2": "atan2",
    "sinh": "sinh",
    "cosh": "cosh",
    "tanh": "tanh",
    "erf": "erf",
    "pow": "pow",
    "sqrt": "sqrt",
    "abs": "fabs",
    "floor": "floor",
    "ceil": "ceil",
    "rint": "rint",
    "trunc": "trunc",
    "copysign": "copysign",
    "fmod": "fmod",
    "fma": "fma",
}
SHORT = {"f32": "float32", "f64": "float64"}


def _fma(a, b, c):
    """Rounded once for float32; for float64 twice, which the tests' tolerance allows for."""
    return type(c)(np.longdouble(a) * np.longdouble(b) + np.longdouble(c))


def _simulated_functions() -> dict[str, Callable]:
    named: dict[str, Any] = {"pow": np.power, "abs": np.abs, "fma": _fma, "erf": math.erf}
    table: dict[str, Any] = {name: named[name] if name in named else getattr(np, name) for name in LIBDEVICE}

    def quiet(fn: Callable, number: type) -> Callable:
        def call(*args):
            with np.errstate(all="ignore"):
                return number(fn(*map(number, args)))

        return call

    made = {f"{name}_{s}": quiet(fn, np.dtype(d).type) for name, fn in table.items() for s, d in SHORT.items()}
    for s in SHORT:
        made[f"mul_{s}"] = lambda a, b: a * b
    return made | {
        "bits_f32": lambda x: np.float32(x).view(np.int32),
        "bits_f64": lambda x: np.float64(x).view(np.int64),
        "from_bits_f32": lambda i: np.int32(i).view(np.float32),
        "from_bits_f64": lambda i: np.int64(i).view(np.float64),
        "multiply_high": lambda a, b: np.uint64(int(a) * int(b) >> 64),
        "widened": lambda bits: halves.widened(np.uint16(bits).reshape(1))[0],
        "narrowed": lambda x: halves.narrowed(np.float32(x).reshape(1))[0],
    }


def _simulated_exchange(value, distance):
    me = cuda.threadIdx.x  # noqa: F821  a kernel's globals have cuda and MAILBOX
    MAILBOX[me] = value  # noqa: F821
    cuda.syncthreads()  # noqa: F821
    found = MAILBOX[me ^ distance]  # noqa: F821
    cuda.syncthreads()  # noqa: F821
    return found


def _device_exchange(value, distance):
    return cuda.shfl_xor_sync(0xFFFFFFFF, value, distance)  # noqa: F821


def _device_functions() -> dict[str, Callable]:
    libdevice = door.libdevice()
    made = {f"{name}_f64": getattr(libdevice, theirs) for name, theirs in LIBDEVICE.items()}
    made |= {f"{name}_f32": getattr(libdevice, theirs + "f") for name, theirs in LIBDEVICE.items()}
    return made | {
        "mul_f32": libdevice.fmul_rn,
        "mul_f64": libdevice.dmul_rn,
        "bits_f32": libdevice.float_as_int,
        "bits_f64": libdevice.double_as_longlong,
        "from_bits_f32": libdevice.int_as_float,
        "from_bits_f64": libdevice.longlong_as_double,
        "multiply_high": libdevice.umul64hi,
        **{
            name: door.inlined(FunctionType(f.__code__, {"np": np, "libdevice": libdevice}))
            for name, f in _HALVES.items()
        },
    }


def _widened(bits):
    """bfloat16 as float32: its bits are the upper half of float32's."""
    return libdevice.int_as_float(np.int32(np.uint32(bits) << np.uint32(16)))  # noqa: F821  as in `_narrowed`


def _narrowed(x):
    """float32 as the bits of bfloat16: to the nearest, ties to even; nan stays nan."""
    bits = np.uint32(libdevice.float_as_int(x))  # noqa: F821
    upper = np.uint32(bits >> np.uint32(16))
    nearest = np.uint32(np.uint32(bits + np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16))
    return np.uint16(nearest if x == x else upper | np.uint32(0x40))


_HALVES = {"widened": _widened, "narrowed": _narrowed}


def exchange() -> Callable:
    """The function `exchange(value, distance)` of kernels: the value of the thread `distance` away, by exclusive or.

    The distance is less than a warp, and all threads of the block call it: in the simulator they meet at a barrier.
    """
    return _simulated_exchange if door.simulated() else _device_exchange


@cache
def namespace() -> dict[str, object]:
    """The globals of every kernel. MAILBOX is what threads in the simulator hand to each other; blocks run one by one there."""
    found: dict[str, object] = {"cuda": door.module(), "math": math, "INF": math.inf, "NAN": math.nan, "MAILBOX": 0}
    found |= {
        name: getattr(np, name)
        for name in ("float16", "uint16", "float32", "float64", "int32", "int64", "uint8", "uint32", "uint64")
    }
    return found | (_simulated_functions() | {"MAILBOX": {}} if door.simulated() else _device_functions())
