"""Preprocessing: transformations that are fitted on training data and saved with a model.

Each has `fit`, `transform`, `fit_transform`, `inverse_transform` where there is an inverse, `state_dict` and
`load_state_dict`; `restore` makes one of a saved state alone.
"""

from __future__ import annotations

from .augment import Augmentation, GaussianNoise, RandomCrop, RandomFlip, RandomRotate
from .categories import Categories, OneHot
from .impute import Impute
from .layout import Permute, Shuffle, Window
from .pipeline import ByField, Pipeline
from .scaling import Normalize, Standardize
from .transform import Transform, restore

__all__ = [
    "Augmentation",
    "ByField",
    "Categories",
    "GaussianNoise",
    "Impute",
    "Normalize",
    "OneHot",
    "Permute",
    "Pipeline",
    "RandomCrop",
    "RandomFlip",
    "RandomRotate",
    "Shuffle",
    "Standardize",
    "Transform",
    "Window",
    "restore",
]
