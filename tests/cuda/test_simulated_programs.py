"""Random programs of `tests/session` with their tensors on the simulated GPU: in sessions as eagerly, and as on the CPU.

`random_search.py --device cuda` goes on where these stop.
"""

from __future__ import annotations

import pytest
from random_search import KINDS, search

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
DEVICE = "cuda"


@pytest.fixture(autouse=True)
def simulator(monkeypatch):
    monkeypatch.setenv("TAPEGRAD_CUDA", "simulator")


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_programs(kind):
    error = search(kind, seed=1, count=3, device=DEVICE)
    if error is not None:
        raise error
