"""Batches as a trainer takes them, and means over them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import TrainingError
from ..tape.create import tensor
from ..tape.tensor import Tensor


def mean(numbers: Iterable[float]) -> float:
    """The mean; nan of none."""
    found = list(numbers)
    return math.fsum(found) / len(found) if found else math.nan


def parts_of(batch: Any) -> tuple[tuple[Any, ...], Any]:
    """A batch as inputs and target, as tensors."""
    if isinstance(batch, Mapping):
        if "inputs" not in batch or "targets" not in batch:
            raise TrainingError(
                f"Trainer: a batch with the fields {', '.join(map(str, batch))} has no 'inputs' and 'targets'; name them so, "
                "or define loss_of(batch) in a subclass"
            )
        return (as_tensor(batch["inputs"]),), as_tensor(batch["targets"])
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise TrainingError(
            f"Trainer: a batch is (input, target) or a dict of inputs and targets, not a {type(batch).__name__}; define "
            "loss_of(batch) in a subclass"
        )
    *inputs, targets = batch
    return tuple([as_tensor(x) for x in inputs]), as_tensor(targets)


def as_tensor(x: Any) -> Tensor:
    """x itself, or a tensor with its elements."""
    return x if isinstance(x, Tensor) else tensor(x)
