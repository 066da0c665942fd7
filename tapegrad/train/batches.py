"""Batches as a trainer takes them, and means over them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import TrainingError
from ..tape.create import tensor
from ..tape.tensor import Tensor


def mean(numbers: Iterable[float]) -> float:
    """The mean; nan of none."""
    found = list(numbers)
    return math.fsum(found) / len(found) if found else math.nan


def parts_of(batch: Any, device: str = "cpu") -> tuple[tuple[Any, ...], Any]:
    """A batch as inputs and target, as tensors on a device."""
    if isinstance(batch, Mapping):
        if "inputs" not in batch or "targets" not in batch:
            raise TrainingError(
                f"Trainer: a batch with the fields {', '.join(map(str, batch))} has no 'inputs' and 'targets'; name them so, "
                "or define loss_of(batch) in a subclass"
            )
        return (as_tensor(batch["inputs"], device),), as_tensor(batch["targets"], device)
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise TrainingError(
            f"Trainer: a batch is (input, target) or a dict of inputs and targets, not a {type(batch).__name__}; define "
            "loss_of(batch) in a subclass"
        )
    *inputs, targets = batch
    return tuple([as_tensor(x, device) for x in inputs]), as_tensor(targets, device)


def as_tensor(x: Any, device: str = "cpu") -> Tensor:
    """x itself, or a tensor with its elements, on a device."""
    if isinstance(x, Tensor):
        return x if x.layout.device == device else x.to(device)
    return tensor(x, None, device)


def array_of(output: Tensor) -> np.ndarray:
    """A model's output as NumPy has it: of halves in float32."""
    return output.astype(output.dtype.compute).numpy()
