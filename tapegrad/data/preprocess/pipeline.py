"""Transformations one after the other, and one for each field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from ...errors import DataError
from ..dataset import ArrayDataset
from ..table import Table, near
from .transform import Transform, applied, restore


class Pipeline(Transform):
    """Transformations in a row: each is fitted on what those before it make of the training data.

    >>> from tapegrad.data.preprocess.impute import Impute
    >>> from tapegrad.data.preprocess.scaling import Standardize
    >>> pipeline = Pipeline([Impute(), Standardize()]).fit([[1.0], [3.0], [np.nan]])
    >>> pipeline.transform([[2.0], [np.nan]])
    array([[0.],
           [0.]])
    """

    def __init__(self, steps: Sequence[Transform]):
        self.steps = list(steps)
        if not self.steps or not all(isinstance(step, Transform) for step in self.steps):
            raise DataError(f"Pipeline: the steps are {self.steps}; wanted are one or more transformations.")

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether a step is an augmentation."""
        return any(step.random for step in self.steps)

    def fit(self, x: Any) -> Self:
        for step in self.steps[:-1]:
            x = step.fit_transform(x)
        self.steps[-1].fit(x)
        return self

    def transform(self, x: Any, rng: np.random.Generator | None = None) -> Any:
        for step in self.steps:
            x = applied(step, x, rng)
        return x

    def inverse_transform(self, x: Any) -> Any:
        for step in reversed(self.steps):
            x = step.inverse_transform(x)
        return x

    def state_dict(self) -> dict[str, Any]:
        return {"kind": "Pipeline", "steps": [step.state_dict() for step in self.steps]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.get("kind") != "Pipeline":
            raise DataError(f"Pipeline: what was saved is a {state.get('kind')}; build the same pipeline.")
        if not hasattr(self, "steps"):  # being restored
            self.steps = [restore(one) for one in state["steps"]]
            return
        if len(state["steps"]) != len(self.steps):
            raise DataError(f"Pipeline: {len(state['steps'])} steps were saved, and this one has {len(self.steps)}.")
        for step, one in zip(self.steps, state["steps"]):
            step.load_state_dict(one)

    def __repr__(self) -> str:
        return f"Pipeline({self.steps})"


class ByField(Transform):
    """A transformation for each named field of a sample (scikit-learn's `ColumnTransformer`); other fields stay.

    Takes dicts of arrays, a `Table`, tuples of arrays and an `ArrayDataset`, whose fields are 0, 1, …, and gives the same.

    >>> from tapegrad.data.preprocess.scaling import Standardize
    >>> scale = ByField({"x": Standardize()}).fit({"x": np.array([[1.0], [3.0]]), "y": np.array([0, 1])})
    >>> scale.transform({"x": np.array([[3.0]]), "y": np.array([1])})
    {'x': array([[1.]]), 'y': array([1])}
    """

    def __init__(self, fields: Mapping[str | int, Transform]):
        self.fields = dict(fields)
        if not self.fields or not all(isinstance(field, Transform) for field in self.fields.values()):
            raise DataError(
                f"ByField: the fields are {self.fields}; wanted is a transformation for each of one or more."
            )

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Whether a field has an augmentation."""
        return any(field.random for field in self.fields.values())

    def fit(self, x: Any) -> Self:
        found = self._of(x)
        for name, field in self.fields.items():
            field.fit(found[name])
        return self

    def transform(self, x: Any, rng: np.random.Generator | None = None) -> Any:
        found = self._of(x)
        return self._as(x, {name: applied(self.fields[name], found[name], rng) for name in self.fields})

    def inverse_transform(self, x: Any) -> Any:
        found = self._of(x)
        return self._as(x, {name: self.fields[name].inverse_transform(found[name]) for name in self.fields})

    def _of(self, x: Any) -> dict:
        """The fields of a batch or dataset by name."""
        if isinstance(x, Table):
            found: dict = dict(x.data)
        elif isinstance(x, ArrayDataset):
            found = dict(enumerate(x.arrays))
        elif isinstance(x, tuple | list):
            found = dict(enumerate(x))
        elif isinstance(x, Mapping):
            found = dict(x)
        else:
            raise DataError(
                f"ByField: a {type(x).__name__} has no fields; wanted is a dict, a Table or a tuple of arrays."
            )
        for name in self.fields:
            if name not in found:
                raise DataError(f"ByField: there is no field {name!r}. {near(name, map(str, found))}")
        return found

    def _as(self, x: Any, changed: dict) -> Any:
        found = {**self._of(x), **changed}
        if isinstance(x, Table):
            return Table(found)
        if isinstance(x, ArrayDataset):
            return ArrayDataset(*found.values())
        return tuple(found.values()) if isinstance(x, tuple | list) else found

    def state_dict(self) -> dict[str, Any]:
        fields = [[name, field.state_dict()] for name, field in self.fields.items()]
        return {"kind": "ByField", "fields": fields}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.get("kind") != "ByField":
            raise DataError(f"ByField: what was saved is a {state.get('kind')}; build the same pipeline.")
        saved = dict(state["fields"])
        if not hasattr(self, "fields"):  # being restored
            self.fields = {name: restore(one) for name, one in saved.items()}
            return
        if set(saved) != set(self.fields):
            raise DataError(f"ByField: fields {list(saved)} were saved, and this one has {list(self.fields)}.")
        for name, field in self.fields.items():
            field.load_state_dict(saved[name])

    def __repr__(self) -> str:
        return f"ByField({self.fields})"
