"""The registry as test parameters. A new op appears here by itself."""

from __future__ import annotations

import pytest

import tapegrad  # noqa: F401  registers the ops
from tapegrad.ops.registry import REGISTRY, Op

DTYPES = ("float32", "float64", "int32", "int64", "uint8", "bool")


def params(*kinds: str, differentiable: bool = False) -> list:
    """Ops that can be called with drawn arguments: elementwise ones, and all that give samples."""
    return [
        pytest.param(op, id=name)
        for name, op in REGISTRY.items()
        if (not kinds or op.kind in kinds)
        and (op.samples or op.kind == "elementwise")
        and op.name != "cast"
        and (op.differentiable or not differentiable)
    ]


def elementwise() -> list[Op]:
    """The elementwise ops that take their inputs as they come (`cast` needs a dtype)."""
    return [op for op in REGISTRY.values() if op.kind == "elementwise" and op.name != "cast"]
