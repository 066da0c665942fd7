"""tapegrad: define-by-run automatic differentiation on compiled kernels.

>>> import tapegrad as tg
>>> x = tg.tensor([1.0, 2.0, 3.0], requires_grad=True)
>>> y = (x * x).sum()
>>> y.backward()
>>> x.grad
tensor([2., 4., 6.])
"""

from __future__ import annotations

from . import cuda, errors, linalg
from .custom import elementwise, kernel
from .dtypes import DType, bfloat16, float16, float32, float64, int32, int64, uint8
from .dtypes import bool_ as bool
from .info import info
from .kernels.run import get_num_threads, set_num_threads
from .ops.activation import elu, gelu, leaky_relu, relu, sigmoid, silu, softplus, softsign
from .ops.comparison import (
    equal,
    greater,
    greater_equal,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    not_equal,
)
from .ops.creation import arange, eye, linspace, tril, triu
from .ops.einsum import einsum
from .ops.elementwise import (
    abs_ as abs,
)
from .ops.elementwise import (
    add,
    arccos,
    arcsin,
    arctan,
    arctan2,
    ceil,
    clip,
    cos,
    cosh,
    divide,
    erf,
    exp,
    exp2,
    expm1,
    floor,
    floor_divide,
    log,
    log1p,
    log2,
    log10,
    maximum,
    minimum,
    multiply,
    negative,
    power,
    reciprocal,
    remainder,
    rsqrt,
    sign,
    sin,
    sinh,
    sqrt,
    square,
    subtract,
    tan,
    tanh,
    where,
)
from .ops.elementwise import (
    round_ as round,
)
from .ops.indexing import nonzero, one_hot, scatter_add, take, take_along_axis
from .ops.joining import concatenate, pad, repeat, roll, split, stack, tile
from .ops.linalg import diagonal, dot, matmul, outer
from .ops.movement import (
    astype,
    broadcast_to,
    contiguous,
    copy,
    expand_dims,
    flatten,
    flip,
    permute,
    reshape,
    squeeze,
    swapaxes,
    transpose,
)
from .ops.network import log_softmax, softmax
from .ops.random import bernoulli, normal, permutation, randint, seed, uniform
from .ops.reduce import all_ as all
from .ops.reduce import any_ as any
from .ops.reduce import argmax, argmin, cumsum, logsumexp, mean, norm, prod, std, var
from .ops.reduce import max_ as max
from .ops.reduce import min_ as min
from .ops.reduce import sum_ as sum
from .ops.sorting import argsort, sort, topk
from .precision import autocast, matmul_precision
from .saving import load, save
from .tape import assign, interop, methods  # noqa: F401  complete Tensor
from .tape.anomaly import detect_anomaly
from .tape.create import (
    empty_cache,
    full,
    full_like,
    memory_stats,
    ones,
    ones_like,
    set_memory_limit,
    tensor,
    zeros,
    zeros_like,
)
from .tape.functional import grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp
from .tape.interop import from_dlpack
from .tape.session import Session, session, warmup
from .tape.state import enable_grad, no_grad
from .tape.tensor import Tensor

from . import data, nn, optim, testing  # isort: skip  they stand on everything above

__version__ = "0.1.0"

__all__ = [
    "DType",
    "Session",
    "Tensor",
    "abs",
    "add",
    "all",
    "any",
    "arange",
    "arccos",
    "arcsin",
    "arctan",
    "arctan2",
    "argmax",
    "argmin",
    "argsort",
    "astype",
    "autocast",
    "bernoulli",
    "bfloat16",
    "bool",
    "broadcast_to",
    "ceil",
    "clip",
    "concatenate",
    "contiguous",
    "copy",
    "cos",
    "cosh",
    "cuda",
    "cumsum",
    "data",
    "detect_anomaly",
    "diagonal",
    "divide",
    "dot",
    "einsum",
    "elementwise",
    "elu",
    "empty_cache",
    "enable_grad",
    "equal",
    "erf",
    "errors",
    "exp",
    "exp2",
    "expand_dims",
    "expm1",
    "eye",
    "flatten",
    "flip",
    "float16",
    "float32",
    "float64",
    "floor",
    "floor_divide",
    "from_dlpack",
    "full",
    "full_like",
    "gelu",
    "get_num_threads",
    "grad",
    "greater",
    "greater_equal",
    "hessian",
    "hvp",
    "info",
    "int32",
    "int64",
    "isfinite",
    "isinf",
    "isnan",
    "jacobian",
    "jvp",
    "kernel",
    "leaky_relu",
    "less",
    "less_equal",
    "linalg",
    "linspace",
    "load",
    "log",
    "log10",
    "log1p",
    "log2",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logsumexp",
    "matmul",
    "matmul_precision",
    "max",
    "maximum",
    "mean",
    "memory_stats",
    "min",
    "minimum",
    "multiply",
    "negative",
    "nn",
    "no_grad",
    "nonzero",
    "norm",
    "normal",
    "not_equal",
    "one_hot",
    "ones",
    "ones_like",
    "optim",
    "outer",
    "pad",
    "permutation",
    "permute",
    "power",
    "prod",
    "randint",
    "reciprocal",
    "relu",
    "remainder",
    "repeat",
    "reshape",
    "roll",
    "round",
    "rsqrt",
    "save",
    "scatter_add",
    "seed",
    "session",
    "set_memory_limit",
    "set_num_threads",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "sinh",
    "softmax",
    "softplus",
    "softsign",
    "sort",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "subtract",
    "sum",
    "swapaxes",
    "take",
    "take_along_axis",
    "tan",
    "tanh",
    "tensor",
    "testing",
    "tile",
    "topk",
    "transpose",
    "tril",
    "triu",
    "uint8",
    "uniform",
    "value_and_grad",
    "var",
    "vjp",
    "warmup",
    "where",
    "zeros",
    "zeros_like",
]
