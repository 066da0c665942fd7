"""Imports every module that registers CPU builders."""

from . import (  # noqa: F401
    conv,
    conv_weight,
    fill,
    gather,
    linalg,
    matmul,
    movement,
    pooling,
    random,
    reduce,
    search,
    softmax,
    sort,
)
from .launch import BUILDERS

__all__ = ["BUILDERS"]
