"""Scalar functions that are primitive for kernels but have no name in `math`."""

from __future__ import annotations

import math


def logistic(x):
    """1 / (1 + exp(-x)), without overflow.

    >>> logistic(0.0)
    0.5
    """
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0.0 else 1.0 - 1.0 / (1.0 + math.exp(x))


PRIMITIVES = {logistic: "sigmoid"}
