"""Datasets and batches. Knows NumPy only: what a loader yields goes into `tg.tensor` as it is."""

from __future__ import annotations

from .dataset import ArrayDataset
from .digits import Digits, mnist
from .idx import read_idx
from .loader import DataLoader, collate

__all__ = ["ArrayDataset", "DataLoader", "Digits", "collate", "mnist", "read_idx"]
