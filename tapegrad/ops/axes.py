"""Axis arguments: checked, non-negative, in order."""

from __future__ import annotations

import operator

from ..errors import DtypeError, ShapeError


def one_axis(axis, ndim: int, op_name: str, extra: int = 0) -> int:
    """`axis` counted from the front; `extra` more axes may exist in the result.

    >>> one_axis(-1, 3, "sum")
    2
    """
    try:
        found = operator.index(axis)
    except TypeError:
        raise DtypeError(f"{op_name}: axis is an integer, not {axis!r}") from None
    ndim += extra
    if not -ndim <= found < ndim:
        span = f"-{ndim} to {ndim - 1}" if ndim else "none: the tensor is 0-d"
        raise ShapeError(f"{op_name}: axis {found} is out of range for {ndim} axes; valid axes are {span}")
    return found % ndim


def many_axes(axis, ndim: int, op_name: str) -> tuple[int, ...]:
    """`axis`, None for all of them, as an ascending tuple without repeats.

    >>> many_axes((-1, 0), 3, "sum")
    (0, 2)
    """
    if axis is None:
        return tuple(range(ndim))
    listed = axis if isinstance(axis, tuple | list) else (axis,)
    found = tuple(sorted(one_axis(a, ndim, op_name) for a in listed))
    if len(set(found)) != len(found):
        raise ShapeError(f"{op_name}: axis {axis!r} names an axis twice")
    return found


def pair(value, op_name: str, argument: str, least: int = 0) -> tuple[int, int]:
    """One integer or two, as two.

    >>> pair(3, "conv2d", "stride")
    (3, 3)
    """
    listed = tuple(value) if isinstance(value, tuple | list) else (value, value)
    try:
        found = tuple(operator.index(v) for v in listed)
    except TypeError:
        found = ()
    if len(found) != 2:
        raise DtypeError(f"{op_name}: {argument} is an integer or two of them, not {value!r}")
    if min(found) < least:
        raise ShapeError(f"{op_name}: {argument} must be at least {least}, not {value!r}")
    return found
