"""Data: sources, readers, preprocessing, splits, batches. Knows NumPy only: what a loader yields goes into `tg.tensor`.

Each name is imported when it is first used, so that `import tapegrad` does not wait for readers of formats it may never
meet.

| from | to |
|---|---|
| `File`, `Folder`, `URL`, `Compressed`, `Member`, `FirstOf` | bytes |
| `read_csv`, `read_jsonl`, `read_parquet`, `read_records` | a `Table` of named columns |
| `read_idx`, `read_npy`, `read_npz`, `memory_map`, `read_image`, `ImageFolder`, `read_text`, `Vocabulary` | arrays |
| `Sections`, `ArrayDataset`, `Blocks` | samples with fields |
| `preprocess` | transformations that are fitted, applied and saved |
| `split`, `k_fold`, `describe` | parts of a dataset, and what is in them |
| `DataLoader` and samplers | batches |
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names again, for type checkers; a test compares the lists
    from . import preprocess as preprocess
    from .dataset import ArrayDataset as ArrayDataset
    from .dataset import Subset as Subset
    from .description import Description as Description
    from .description import describe as describe
    from .loading.blocks import Blocks as Blocks
    from .loading.collate import collate as collate
    from .loading.loader import DataLoader as DataLoader
    from .loading.samplers import BatchSampler as BatchSampler
    from .loading.samplers import BucketedBatches as BucketedBatches
    from .loading.samplers import RandomSampler as RandomSampler
    from .loading.samplers import Sampler as Sampler
    from .loading.samplers import SequentialSampler as SequentialSampler
    from .loading.samplers import StratifiedBatches as StratifiedBatches
    from .loading.samplers import UndividedBatches as UndividedBatches
    from .loading.samplers import WeightedSampler as WeightedSampler
    from .readers.arrays import memory_map as memory_map
    from .readers.arrays import read_npy as read_npy
    from .readers.arrays import read_npz as read_npz
    from .readers.csv import read_csv as read_csv
    from .readers.idx import read_idx as read_idx
    from .readers.images import ImageFolder as ImageFolder
    from .readers.images import read_image as read_image
    from .readers.json_lines import iterate_jsonl as iterate_jsonl
    from .readers.json_lines import read_jsonl as read_jsonl
    from .readers.parquet import read_parquet as read_parquet
    from .readers.records import read_records as read_records
    from .readers.text import byte_tokens as byte_tokens
    from .readers.text import characters as characters
    from .readers.text import read_text as read_text
    from .readers.text import tokens as tokens
    from .readers.text import words as words
    from .sections import Sections as Sections
    from .sections import Span as Span
    from .sets.digits import Digits as Digits
    from .sets.digits import mnist as mnist
    from .sets.fashion import FASHION_CLASSES as FASHION_CLASSES
    from .sets.fashion import fashion_mnist as fashion_mnist
    from .sets.generated import addition as addition
    from .sets.generated import blobs as blobs
    from .sets.generated import logic_gate as logic_gate
    from .sets.generated import sine_mixtures as sine_mixtures
    from .sets.generated import spirals as spirals
    from .sets.tables import Measurements as Measurements
    from .sets.tables import breast_cancer as breast_cancer
    from .sets.tables import iris as iris
    from .sets.tictactoe import tic_tac_toe as tic_tac_toe
    from .sources.archive import Member as Member
    from .sources.archive import extract as extract
    from .sources.archive import member_names as member_names
    from .sources.compressed import Compressed as Compressed
    from .sources.source import File as File
    from .sources.source import FirstOf as FirstOf
    from .sources.source import Folder as Folder
    from .sources.source import Source as Source
    from .sources.url import URL as URL
    from .splits import k_fold as k_fold
    from .splits import split as split
    from .table import Table as Table
    from .vocabulary import Vocabulary as Vocabulary

_HOMES = {
    "dataset": "ArrayDataset Subset",
    "description": "Description describe",
    "loading.blocks": "Blocks",
    "loading.collate": "collate",
    "loading.loader": "DataLoader",
    "loading.samplers": "BatchSampler BucketedBatches RandomSampler Sampler SequentialSampler StratifiedBatches "
    "UndividedBatches WeightedSampler",
    "readers.arrays": "memory_map read_npy read_npz",
    "readers.csv": "read_csv",
    "readers.idx": "read_idx",
    "readers.images": "ImageFolder read_image",
    "readers.json_lines": "iterate_jsonl read_jsonl",
    "readers.parquet": "read_parquet",
    "readers.records": "read_records",
    "readers.text": "byte_tokens characters read_text tokens words",
    "sections": "Sections Span",
    "sets.digits": "Digits mnist",
    "sets.fashion": "FASHION_CLASSES fashion_mnist",
    "sets.generated": "addition blobs logic_gate sine_mixtures spirals",
    "sets.tables": "Measurements breast_cancer iris",
    "sets.tictactoe": "tic_tac_toe",
    "sources.archive": "Member extract member_names",
    "sources.compressed": "Compressed",
    "sources.source": "File FirstOf Folder Source",
    "sources.url": "URL",
    "splits": "k_fold split",
    "table": "Table",
    "vocabulary": "Vocabulary",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [*sorted(_HOME), "preprocess"]  # noqa: PLE0604  names of _HOMES


def __getattr__(name: str) -> Any:
    if name == "preprocess":
        return importlib.import_module(".preprocess", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module("." + _HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
