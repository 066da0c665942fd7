"""Random programs of `tests/session` with their tensors on the simulated GPU: in sessions as eagerly, and as on the CPU.

`random_search.py --device cuda` goes on where these stop.
"""

from __future__ import annotations

import pytest
from random_search import KINDS, search
from searched_devices import SMALL, found

from tapegrad.kernels.cuda import staging

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def simulator(monkeypatch):
    monkeypatch.setenv("TAPEGRAD_CUDA", "simulator")


@pytest.mark.parametrize(
    "device, kind", [*(("cuda", kind) for kind in KINDS), ("late", "models"), ("library", "straight")]
)
def test_a_few_programs(device, kind, monkeypatch):
    for setting in SMALL:
        monkeypatch.setattr(staging, setting, getattr(staging, setting))
    error = search(kind, seed=len(device), count=2, device=found(device))
    if error is not None:
        raise error
