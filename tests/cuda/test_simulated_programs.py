"""Random programs of `tests/session` with their tensors on the simulated GPU: in sessions as eagerly, and as on the CPU.

`random_search.py --device cuda` goes on where these stop.
"""

from __future__ import annotations

import pytest
from random_search import KINDS, search

from tapegrad.kernels.cuda import staging

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def simulator(monkeypatch):
    monkeypatch.setenv("TAPEGRAD_CUDA", "simulator")


@pytest.mark.parametrize("device", ["cuda", "late"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_few_programs(kind, device, monkeypatch):
    for name in ("STAGED", "AHEAD", "PIECE"):  # which the device that is late lowers
        monkeypatch.setattr(staging, name, getattr(staging, name))
    error = search(kind, seed=len(device), count=4 if device == "cuda" else 3, device=device)
    if error is not None:
        raise error
