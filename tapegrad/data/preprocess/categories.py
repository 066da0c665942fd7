"""Categories: texts or numbers that name kinds, as codes or as one-hot vectors."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ...errors import DataError
from ..table import near
from .transform import Transform, as_array

MOST = 1_000_000  # categories of one column


class Categories(Transform):
    """Categories to codes: int64 from 0, in sorted order, or in that of `order`.

    unknown: what a value becomes that was not among the training data: "error" raises and names it, "other" gives it a
    code of its own, the last one.

    `classes` are the categories by code, `len()` the number of codes. DataError for NaN, and for a code that there is not
    in `inverse_transform`.

    >>> colours = Categories().fit(["red", "blue", "red"])
    >>> colours.transform(["blue", "red"]), colours.inverse_transform([1, 0])
    (array([0, 1]), array(['red', 'blue'], dtype='<U4'))
    """

    options = ("unknown", "order")
    learned = ("classes",)

    def __init__(self, unknown: str = "error", order: Any = None):
        self.unknown = unknown
        self.order = None if order is None else np.asarray(order).tolist()
        self.classes: Any = None  # a list of texts or numbers
        if unknown not in ("error", "other"):
            raise DataError(f"{type(self).__name__}: unknown is {unknown!r}; wanted is 'error' or 'other'.")

    def fit(self, x: Any) -> Self:
        values = _values(x, type(self).__name__)
        found = np.unique(values)
        if self.order is not None:
            absent = [value for value in found.tolist() if value not in self.order]
            if absent:
                raise DataError(f"{type(self).__name__}: {absent[0]!r} is not among the order that was given.")
            if len(set(self.order)) < len(self.order):
                raise DataError(f"{type(self).__name__}: a category stands twice in the order that was given.")
            self.classes = list(self.order)
        else:
            if not found.size:
                raise DataError(f"{type(self).__name__}: no sample came to be fitted on.")
            self.classes = found.tolist()
        if len(self.classes) > MOST:
            raise DataError(f"{type(self).__name__}: {len(self.classes):,} categories; is this a column of numbers?")
        return self

    def __len__(self) -> int:
        self.check_fitted()
        return len(self.classes) + int(self.unknown == "other")

    def transform(self, x: Any) -> np.ndarray:
        codes, known = self._codes(x)
        if self.unknown == "other":
            codes[~known] = len(self.classes)
        return codes

    def _codes(self, x: Any) -> tuple[np.ndarray, np.ndarray]:
        """Codes, and which of them are of a known category; DataError for the others, where they are errors."""
        self.check_fitted()
        values = _values(x, type(self).__name__)
        classes = np.array(self.classes)
        if (values.dtype.kind in "UO") != (classes.dtype.kind in "UO"):
            raise DataError(
                f"{type(self).__name__}: {values.dtype} came, and it was fitted on {classes.dtype}; give values of that kind."
            )
        sorter = np.argsort(classes, kind="stable")
        place = np.minimum(np.searchsorted(classes, values, sorter=sorter), len(classes) - 1)
        codes = sorter[place]
        known = np.asarray(classes[codes] == values)
        if self.unknown == "error" and not known.all():
            where = np.argwhere(~known)[0]
            value = values[tuple(where)].item() if hasattr(values[tuple(where)], "item") else values[tuple(where)]
            raise DataError(
                f"{type(self).__name__}: {value!r}, sample {where[0]}, is not among the {len(self.classes)} categories it was "
                f"fitted on. {near(value, map(str, self.classes))} Give another policy for unknown ones when it is made."
            )
        return codes.astype(np.int64), known

    def inverse_transform(self, x: Any) -> np.ndarray:
        self.check_fitted()
        codes = as_array(x, type(self).__name__)
        if codes.dtype.kind not in "iu" or (codes.size and not 0 <= codes.min() <= codes.max() < len(self.classes)):
            raise DataError(
                f"{type(self).__name__}: codes are whole numbers from 0 to {len(self.classes) - 1}; got {codes!r}."
            )
        found: np.ndarray = np.array(self.classes)[codes]
        return found


class OneHot(Categories):
    """Categories to vectors of zeros with a single one: float32 (N, C).

    unknown: "error" raises, "ignore" gives zeros alone. Else as `Categories`. `inverse_transform` takes the largest entry
    of a vector, so that it reads a model's output too.

    >>> OneHot().fit_transform(["red", "blue", "red"])
    array([[0., 1.],
           [1., 0.],
           [0., 1.]], dtype=float32)
    """

    def __init__(self, unknown: str = "error", order: Any = None):
        super().__init__("error", order)
        self.unknown = unknown
        if unknown not in ("error", "ignore"):
            raise DataError(f"OneHot: unknown is {unknown!r}; wanted is 'error' or 'ignore'.")

    def transform(self, x: Any) -> np.ndarray:
        codes, known = self._codes(x)
        out = np.zeros((*codes.shape, len(self.classes)), np.float32)
        np.put_along_axis(out, codes[..., None], known[..., None].astype(np.float32), axis=-1)
        return out

    def inverse_transform(self, x: Any) -> np.ndarray:
        vectors = as_array(x, "OneHot")
        self.check_fitted()
        if vectors.shape[-1] != len(self.classes):
            raise DataError(
                f"OneHot: vectors of {vectors.shape[-1]} entries came, and there are {len(self.classes)} categories."
            )
        return super().inverse_transform(vectors.argmax(axis=-1))


def _values(x: Any, who: str) -> np.ndarray:
    values = as_array(x, who)
    if values.dtype == object:
        texts = [value for value in values.reshape(-1) if isinstance(value, str)]
        if len(texts) < values.size:
            raise DataError(f"{who}: Python objects came; wanted are texts or numbers, and no missing value.")
    elif values.dtype.kind == "f" and np.isnan(values).any():
        raise DataError(f"{who}: NaN is no category; fill gaps with Impute first, or leave these samples out.")
    return values
