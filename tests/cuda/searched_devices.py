"""Simulated GPUs for random programs, beside "cuda:0": each by its name in `random_search.py --device`."""

from __future__ import annotations

import functools

import pytest
from emulated_cublas import Emulated
from emulated_products import gpu_with_products

from tapegrad.kernels.cuda import staging
from tapegrad.kernels.cuda.devices import Gpu
from tapegrad.kernels.cuda.simulated import Simulated, simulated_driver
from tapegrad.kernels.cuda.streams import COPIES, MAIN
from tapegrad.kernels.prepare import BACKENDS
from tapegrad.tape import spaces

SMALL = {"STAGED": 8, "AHEAD": 16, "PIECE": 32}  # bytes from which on arrays from the host are treated as large


@functools.cache
def late() -> str:
    """Its work happens as late as it may, and small arrays go to it as large ones do, where `staging` is set so (`SMALL`)."""
    simulated_driver(1)  # cuts launches to what a simulator can run
    gpu = Gpu(1, Simulated(1, deferred=(MAIN, COPIES)), has_cublas=False)
    spaces._spaces["cuda:99"], BACKENDS["cuda:99"] = gpu, gpu.backend
    return "cuda:99"


@functools.cache
def library() -> str:
    """Products are those of an emulated cuBLAS and cuBLASLt."""
    return gpu_with_products(pytest.MonkeyPatch(), Emulated())[0]


def found(name: str) -> str:
    """The device's name for tensors; devices of other names are what they are."""
    if name == "late":
        for setting, nbytes in SMALL.items():
            setattr(staging, setting, nbytes)
        return late()
    return library() if name == "library" else name
