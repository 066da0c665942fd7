"""Figures of merit of outputs against targets, gathered batch by batch. NumPy in, floats out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import TrainingError


class Metric:
    """The parent of all metrics: `update` takes a batch, `result` says what has come together since `reset`."""

    def reset(self) -> None:
        """Forget all batches."""
        raise TrainingError(f"{type(self).__name__} has no reset(); define it")

    def update(self, output: np.ndarray, target: np.ndarray) -> None:
        """Add a batch: outputs (N, ...) and targets (N, ...)."""
        raise TrainingError(f"{type(self).__name__} has no update(output, target); define it")

    def result(self) -> float:
        """The figure; nan where there was no batch."""
        raise TrainingError(f"{type(self).__name__} has no result(); define it")


def classes_of(output: np.ndarray, target: np.ndarray, who: str) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true classes, flat: of scores (N, C) the largest, of one score each (N,) or (N, 1) whether it is above 0."""
    if output.ndim >= 2 and output.shape[-1] > 1 and output.shape[:-1] == target.shape:
        found = output.argmax(-1)
    elif output.size == target.size:
        found = (output > 0).astype(np.int64)
    else:
        raise TrainingError(f"{who}: outputs of shape {output.shape} do not fit targets of shape {target.shape}")
    return found.reshape(-1), target.reshape(-1).astype(np.int64)


class Accuracy(Metric):
    """The share of samples whose predicted class is the true one. Scores (N, C), or logits (N,) of two classes.

    >>> m = Accuracy(); m.reset()
    >>> m.update(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1])); m.result()
    0.5
    """

    def reset(self) -> None:
        """Forget all batches."""
        self.right = self.count = 0

    def update(self, output: np.ndarray, target: np.ndarray) -> None:
        """Count."""
        found, true = classes_of(output, target, "Accuracy")
        self.right += int((found == true).sum())
        self.count += true.size

    def result(self) -> float:
        """Between 0 and 1."""
        return self.right / self.count if self.count else math.nan


class TopK(Metric):
    """The share of samples whose true class is among the k with the largest scores (N, C)."""

    def __init__(self, k: int = 5):
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise TrainingError(f"TopK: k is a whole number from 1, not {k!r}")
        self.k = k

    def reset(self) -> None:
        """Forget all batches."""
        self.right = self.count = 0

    def update(self, output: np.ndarray, target: np.ndarray) -> None:
        """Count."""
        if output.ndim < 2 or output.shape[-1] < self.k or output.shape[:-1] != target.shape:
            raise TrainingError(
                f"TopK: wanted scores (N, C) of at least {self.k} classes and targets (N,), got {output.shape} and {target.shape}"
            )
        scores, true = output.reshape(-1, output.shape[-1]), target.reshape(-1).astype(np.int64)
        own = np.take_along_axis(scores, true[:, None], 1)
        self.right += int(((scores > own).sum(1) < self.k).sum())
        self.count += true.size

    def result(self) -> float:
        """Between 0 and 1."""
        return self.right / self.count if self.count else math.nan


class ConfusionMatrix(Metric):
    """How often each true class (row) was taken for each class (column). `matrix` has the counts, `result` the accuracy.

    >>> m = ConfusionMatrix(2); m.reset()
    >>> m.update(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1])); m.matrix.tolist()
    [[0, 0], [1, 1]]
    """

    def __init__(self, classes: int):
        self.classes = classes

    def reset(self) -> None:
        """Forget all batches."""
        self.matrix = np.zeros((self.classes, self.classes), np.int64)

    def update(self, output: np.ndarray, target: np.ndarray) -> None:
        """Count."""
        found, true = classes_of(output, target, type(self).__name__)
        wrong = (true < 0) | (true >= self.classes) | (found >= self.classes)
        if wrong.any():
            raise TrainingError(
                f"{type(self).__name__}: class {int(max(true[wrong].max(), found[wrong].max()))} is not among {self.classes}"
            )
        np.add.at(self.matrix, (true, found), 1)

    def result(self) -> float:
        """The accuracy."""
        total = int(self.matrix.sum())
        return float(np.trace(self.matrix)) / total if total else math.nan


class F1(ConfusionMatrix):
    """The harmonic mean of precision and recall, averaged over the classes ("macro"), or of class 1 of two ("binary").

    A class that is neither true nor predicted anywhere is left out of the mean.
    """

    def __init__(self, classes: int = 2, average: str = "macro"):
        if average not in ("macro", "binary"):
            raise TrainingError(f"F1: average is 'macro' or 'binary', not {average!r}")
        if average == "binary" and classes != 2:
            raise TrainingError(f"F1: average='binary' is for two classes, not {classes}")
        super().__init__(classes)
        self.average = average

    def result(self) -> float:
        """Between 0 and 1."""
        both = self.matrix.sum(0) + self.matrix.sum(1)
        scores = 2.0 * np.diag(self.matrix) / np.maximum(both, 1)
        if self.average == "binary":
            return float(scores[1]) if both[1] else math.nan
        return float(scores[both > 0].mean()) if both.any() else math.nan


class MAE(Metric):
    """The mean absolute error."""

    def reset(self) -> None:
        """Forget all batches."""
        self.total, self.count = 0.0, 0

    def update(self, output: np.ndarray, target: np.ndarray) -> None:
        """Add up."""
        _alike("MAE", output, target)
        self.total += float(np.abs(output.astype(np.float64) - target).sum())
        self.count += target.size

    def result(self) -> float:
        """In the units of the target."""
        return self.total / self.count if self.count else math.nan


class R2(Metric):
    """The share of the targets' variance that the outputs explain: 1 - Σ(t - y)² / Σ(t - mean t)²."""

    def reset(self) -> None:
        """Forget all batches."""
        self.errors: float = 0.0
        self.count, self.center, self.spread = 0, 0.0, 0.0

    def update(self, output: np.ndarray, target: np.ndarray) -> None:
        """Add up; mean and spread are merged as by Chan, Golub & LeVeque (1983), without cancellation."""
        _alike("R2", output, target)
        t = target.astype(np.float64)
        self.errors += float(((output - t) ** 2).sum())
        n, center = t.size, float(t.mean())
        total = self.count + n
        self.spread += float(((t - center) ** 2).sum()) + (center - self.center) ** 2 * self.count * n / total
        self.center += (center - self.center) * n / total
        self.count = total

    def result(self) -> float:
        """At most 1; nan where all targets are equal."""
        return 1.0 - self.errors / self.spread if self.spread > 0 else math.nan


def _alike(who: str, output: np.ndarray, target: np.ndarray) -> None:
    if output.shape != target.shape:
        raise TrainingError(f"{who}: outputs of shape {output.shape} do not fit targets of shape {target.shape}")


class Mean(Metric):
    """The mean over samples of a function (output, target) -> one number for each sample of the batch, or for the batch."""

    def __init__(self, function: Callable[[np.ndarray, np.ndarray], Any]):
        self.function = function

    def reset(self) -> None:
        """Forget all batches."""
        self.total, self.count = 0.0, 0

    def update(self, output: np.ndarray, target: np.ndarray) -> None:
        """Add up."""
        found = np.asarray(self.function(output, target), np.float64)
        size = len(target) if target.ndim else 1
        self.total += float(found.sum()) if found.ndim else float(found) * size
        self.count += found.size if found.ndim else size

    def result(self) -> float:
        """The mean."""
        return self.total / self.count if self.count else math.nan


NAMED: dict[str, Callable[[], Metric]] = {
    "accuracy": Accuracy, "top5": TopK, "f1": lambda: F1(2, "binary"), "mae": MAE, "r2": R2,
}  # fmt: skip


def as_metrics(given: Any) -> dict[str, Metric]:
    """Metrics by name, from names, functions, metrics, lists of these or dicts with names of one's own.

    >>> list(as_metrics(["accuracy", MAE()]))
    ['accuracy', 'mae']
    """
    if isinstance(given, dict):
        return {str(name): _metric(one) for name, one in given.items()}
    if isinstance(given, str | Metric) or callable(given):
        given = [given]
    found: dict[str, Metric] = {}
    for one in given:
        metric = _metric(one)
        name = one if isinstance(one, str) else _name(one)
        if name in found:
            raise TrainingError(f"metrics: {name!r} is there twice; give a dict with names of your own")
        found[name] = metric
    return found


def _metric(one: Any) -> Metric:
    if isinstance(one, str):
        if one not in NAMED:
            raise TrainingError(f"metrics: there is no {one!r}; there are {', '.join(NAMED)}, or give a Metric")
        return NAMED[one]()
    if isinstance(one, Metric):
        return one
    if callable(one):
        return Mean(one)
    raise TrainingError(f"metrics: a {type(one).__name__} is no metric; give a name, a Metric, or a function")


def _name(one: Any) -> str:
    if isinstance(one, Metric):
        return type(one).__name__.lower()
    return getattr(one, "__name__", type(one).__name__)
