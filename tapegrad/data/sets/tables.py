"""Small classical sets of measurements that ship with the package.

`iris.csv`: R. A. Fisher, The use of multiple measurements in taxonomic problems, Annals of Eugenics 7, 1936; the measurements
are E. Anderson's. `breast_cancer.csv`: W. N. Street, W. H. Wolberg, O. L. Mangasarian, Nuclear feature extraction for breast
tumor diagnosis, 1993, the Wisconsin diagnostic set of the UCI Machine Learning Repository. Both files are the copies that
scikit-learn ships (1.9, `sklearn/datasets/data`); UCI gives both sets under CC BY 4.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import DataError
from ..dataset import ArrayDataset


class Measurements(ArrayDataset):
    """Measurements with their class; sample `i` is `(inputs[i], targets[i])`.

    `inputs` is float32 (N, features), `targets` int64 (N,); `features` and `classes` are their names.
    """

    def __init__(self, inputs: np.ndarray, targets: np.ndarray, features: tuple[str, ...], classes: tuple[str, ...]):
        super().__init__(inputs, targets)
        self.features, self.classes = features, classes

    @property
    def inputs(self) -> np.ndarray:
        """float32 (N, features)."""
        return self.arrays[0]

    @property
    def targets(self) -> np.ndarray:
        """int64 (N,)."""
        return self.arrays[1]


class _Shipped(NamedTuple):
    file: str
    features: tuple[str, ...]


_IRIS = _Shipped("iris.csv", ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"))
_NUCLEUS = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave points",
    "symmetry",
    "fractal dimension",
)
_CANCER = _Shipped(
    "breast_cancer.csv",
    tuple(
        f"{kind} {name}" if kind != "error" else f"{name} error"
        for kind in ("mean", "error", "worst")
        for name in _NUCLEUS
    ),
)


def iris() -> Measurements:
    """Iris: 150 flowers of three kinds, 50 each, by four measurements in cm (Fisher, 1936).

    >>> flowers = iris()
    >>> flowers.inputs.shape, flowers.classes
    ((150, 4), ('setosa', 'versicolor', 'virginica'))
    """
    return _read(_IRIS)


def breast_cancer() -> Measurements:
    """Wisconsin breast cancer: 569 tumours, 212 malignant (0) and 357 benign (1), by 30 measurements of cell nuclei.

    >>> tumours = breast_cancer()
    >>> tumours.inputs.shape, tumours.classes
    ((569, 30), ('malignant', 'benign'))
    """
    return _read(_CANCER)


def _read(shipped: _Shipped) -> Measurements:
    path = Path(__file__).with_name(shipped.file)
    try:
        with open(path, encoding="ascii") as file:
            count, width, *classes = file.readline().rstrip("\n").split(",")
            values = np.loadtxt(file, delimiter=",", ndmin=2)
    except (OSError, ValueError) as reason:
        raise DataError(f"{path} is missing or damaged ({reason}). Reinstall tapegrad.") from reason
    if values.shape != (int(count), int(width) + 1) or len(shipped.features) != int(width):
        raise DataError(f"{path} holds {values.shape} values and announces {count} by {width}. Reinstall tapegrad.")
    return Measurements(
        values[:, :-1].astype(np.float32), values[:, -1].astype(np.int64), shipped.features, tuple(classes)
    )
