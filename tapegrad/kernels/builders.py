"""Imports every module that registers CPU builders."""

from . import (  # noqa: F401
    conv,
    conv_input,
    conv_weight,
    fill,
    gather,
    gru,
    linalg,
    lstm,
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
from .launch import BUILDERS

__all__ = ["BUILDERS"]
