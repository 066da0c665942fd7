"""Devices for the tests of the CUDA driver: on a stand-in for NVIDIA's bindings, and simulated."""

from __future__ import annotations

import ctypes
import importlib.util

import numpy as np
import pytest
from fake_bindings import Fake

from tapegrad.kernels.cuda.driver import Driver
from tapegrad.kernels.cuda.simulated import Simulated

BINDINGS = bool(importlib.util.find_spec("cuda") and importlib.util.find_spec("cuda.bindings"))
ADD = ("float32", "float32", "int")


def fake_add(grid, block, shared, words):
    """y += x, on addresses."""
    x, y, n = words
    a, b = ((ctypes.c_float * n).from_address(p) for p in (x, y))
    for i in range(n):
        b[i] += a[i]


def simulated_add(x, y, n):
    for i in range(n):
        y[i] += x[i]


def run_directly(function, grid, block, shared, arguments):
    function(*arguments)


def made(kind: str, **settings):
    """A device of either kind."""
    if kind == "simulated":
        return Simulated(run=run_directly, memory=1 << 24, **settings)
    api = Fake(**settings)
    api.kernels[b"add"], api.words[b"add"] = fake_add, 3
    return Driver(api=api)


@pytest.fixture(name="device", params=["driver", "simulated"])
def either_device(request):
    """A device of each kind in turn, for the tests that import this."""
    return made(request.param)


@pytest.fixture(name="driver")
def stand_in_driver():
    """A driver on the stand-in for NVIDIA's bindings."""
    return made("driver")


def adding(device):
    return device.load(simulated_add if isinstance(device, Simulated) else "add's PTX", "add", ADD)


def put(device, values, address: int | None = None) -> int:
    array = np.asarray(values, np.float32)
    address = device.allocate(array.nbytes) if address is None else address
    device.upload(address, array.ctypes.data, array.nbytes)
    return address


def get(device, address: int, n: int) -> list[float]:
    array = np.empty(n, np.float32)
    device.download(array.ctypes.data, address, array.nbytes)
    return array.tolist()
