"""Settings of every test run: a private kernel cache that stays warm, fixed seeds, Hypothesis without a clock."""

from __future__ import annotations

import os
from pathlib import Path

# Before tapegrad is imported: these would make BLAS choose other kernels on this machine than on a user's.
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

if "TAPEGRAD_CACHE" not in os.environ:
    kernels = Path(__file__).resolve().parent.parent / ".pytest_cache" / "kernels"
    kernels.parent.mkdir(exist_ok=True)
    kernels.mkdir(mode=0o700, exist_ok=True)
    os.environ["TAPEGRAD_CACHE"] = str(kernels)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

import tapegrad as tg  # noqa: E402

settings.register_profile(
    "tapegrad",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("tapegrad")


@pytest.fixture(autouse=True)
def _seeded():
    """Every test draws the same numbers, alone or in company."""
    tg.seed(20240229)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that starts the same in every test."""
    return np.random.default_rng(20240229)
