"""Tests of the CUDA kernels without a GPU. Two processes are needed, since the simulator replaces numba.cuda:

NUMBA_ENABLE_CUDASIM=1 pytest tests/cuda     what kernels compute, in Numba's simulator
pytest tests/cuda                            that they compile, to PTX and machine code
"""

from __future__ import annotations

import importlib.util
import os

import pytest

from tapegrad import config

INSTALLED = importlib.util.find_spec("numba_cuda") is not None
SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
MISSING = "numba-cuda is not installed: pip install 'tapegrad[cuda]'"


def pytest_collection_modifyitems(items):
    for item in items:
        if "cuda" not in item.path.parts:
            continue
        item.add_marker(pytest.mark.filterwarnings("ignore::RuntimeWarning"))  # NumPy's, where kernels overflow
        if item.path.name.startswith(("test_simulated", "test_ptx")) and not INSTALLED:
            item.add_marker(pytest.mark.skip(reason=MISSING))
        if item.path.name.startswith("test_simulated") and not SIMULATED:
            item.add_marker(pytest.mark.skip(reason="runs in the simulator only: NUMBA_ENABLE_CUDASIM=1"))
        if item.path.name.startswith("test_ptx") and SIMULATED:
            item.add_marker(pytest.mark.skip(reason="the simulator makes no PTX: unset NUMBA_ENABLE_CUDASIM"))


@pytest.fixture(autouse=True)
def settings_of_now():
    """TAPEGRAD_CUDA is read anew in each test, whatever the one before it had set."""
    config.cuda.cache_clear()
    yield
    config.cuda.cache_clear()


@pytest.fixture(scope="session")
def device():
    """The name of a CUDA device on host memory, in the simulator."""
    from cuda_simulator import install

    return install()
