"""Imports every module that registers CUDA builders."""

from . import (  # noqa: F401
    conv,
    gather,
    linalg,
    matmul,
    movement,
    pooling,
    random,
    recurrent,
    reduce,
    search,
    softmax,
    sort,
)
from .template import ACCEPTS, KERNELS

__all__ = ["ACCEPTS", "KERNELS"]
