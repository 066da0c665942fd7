"""Comparisons, logic, and tests for nan and inf: elementwise ops that give truth values."""

from __future__ import annotations

import numpy as np

from .registry import elementwise


@elementwise(dtypes="compare", reference=np.less)
def less(x, y):
    """x < y."""
    return x < y


@elementwise(dtypes="compare", reference=np.less_equal)
def less_equal(x, y):
    """x <= y."""
    return x <= y


@elementwise(dtypes="compare", reference=np.greater)
def greater(x, y):
    """x > y."""
    return x > y


@elementwise(dtypes="compare", reference=np.greater_equal)
def greater_equal(x, y):
    """x >= y."""
    return x >= y


@elementwise(dtypes="compare", reference=np.equal)
def equal(x, y):
    """x == y."""
    return x == y


@elementwise(dtypes="compare", reference=np.not_equal)
def not_equal(x, y):
    """x != y."""
    return x != y


@elementwise(dtypes="logic", truths=(0, 1), reference=np.logical_and)
def logical_and(x, y):
    """True where both are true (not 0)."""
    return (x != 0) & (y != 0)


@elementwise(dtypes="logic", truths=(0, 1), reference=np.logical_or)
def logical_or(x, y):
    """True where either is true (not 0)."""
    return (x != 0) | (y != 0)


@elementwise(dtypes="logic", truths=(0, 1), reference=np.logical_xor)
def logical_xor(x, y):
    """True where exactly one is true (not 0)."""
    return (x != 0) ^ (y != 0)


@elementwise(dtypes="logic", truths=(0,), reference=np.logical_not)
def logical_not(x):
    """True where x is 0."""
    return x == 0


@elementwise(dtypes="compare", method=True, reference=np.isnan)
def isnan(x):
    """True where x is nan."""
    return np.isnan(x)


@elementwise(dtypes="compare", method=True, reference=np.isinf)
def isinf(x):
    """True where x is inf or -inf."""
    return np.isinf(x)


@elementwise(dtypes="compare", method=True, reference=np.isfinite)
def isfinite(x):
    """True where x is neither infinite nor nan."""
    return np.isfinite(x)
