"""Checks of settings that several optimizers have."""

from __future__ import annotations

from numbers import Real
from typing import Any

from ..errors import ShapeError


def share(optimizer: Any, group: dict[str, Any], key: str) -> None:
    """Refuse a setting that is no number from 0 to 1."""
    value = group[key]
    if not isinstance(value, Real) or not 0.0 <= float(value) <= 1.0:
        raise ShapeError(f"{type(optimizer).__name__}: {key} is a number from 0 to 1, not {value!r}")
