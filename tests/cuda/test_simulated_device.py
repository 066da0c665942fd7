"""The simulated device with Numba's simulator: templates prepared, launched and captured on it."""

from __future__ import annotations

import numpy as np
import pytest

from tapegrad import config
from tapegrad.dtypes import float32
from tapegrad.errors import KernelError, OutOfMemory
from tapegrad.kernels.cuda import template
from tapegrad.kernels.cuda.devices import Gpu
from tapegrad.kernels.cuda.faults import DriverMissing
from tapegrad.kernels.cuda.names import T, cuda
from tapegrad.kernels.cuda.simulated import simulated_driver, simulates
from tapegrad.kernels.cuda.words import Words
from tapegrad.ops.registry import REGISTRY


@template.template("x: *T, y: *T, n: int")
def accumulated(x, y, n):
    i = cuda.grid(1)
    while i < n:
        y[i] = T(y[i] + x[i])
        i += cuda.gridsize(1)


@pytest.fixture
def machine(monkeypatch):
    for name in ("block", "lanes", "blocks"):
        monkeypatch.setattr(template.MACHINE, name, getattr(template.MACHINE, name))


def test_two_devices(machine, monkeypatch):
    monkeypatch.setenv("TAPEGRAD_CUDA", "simulator")
    config.cuda.cache_clear()
    assert simulates()
    config.cuda.cache_clear()
    devices = [simulated_driver(i) for i in (0, 1)]
    assert [d.where for d in devices] == ["cuda:0", "cuda:1"]
    assert template.MACHINE.block * template.MACHINE.blocks <= 64
    kernel = accumulated.bind(T=float32)
    source, found = np.arange(20, dtype=np.float32), np.empty(20, np.float32)
    for device in devices:
        x, y = device.allocate(80), device.allocate(80)
        device.upload(x, source.ctypes.data, 80)
        device.fill(y, 0, 80)
        function, words = device.prepare(kernel), Words([x, y, 20])
        with device.capture() as graph:
            device.launch(function, 2, 4, 0, words)
        graph.launch()
        device.launch(function, 1, 4, 0, words)
        device.download(found.ctypes.data, y, 80)
        np.testing.assert_array_equal(found, 2 * source)
        assert device.counts.launches == 2
        with pytest.raises(KernelError, match=r"launching accumulated: .*element 20 lies outside the block"):
            device.launch(function, 1, 1, 0, Words([x, y, 21]))
    with pytest.raises(KernelError, match="that is an address of cuda:1"):
        devices[0].launch(function, 1, 1, 0, words)


@pytest.mark.parametrize("index", [2, -1])
def test_indices_out_of_range(machine, index):
    with pytest.raises(DriverMissing, match=f"cuda:{index} was asked for, but there are cuda:0 to cuda:1"):
        simulated_driver(index)


def test_scratch_memory_comes_back(machine):
    """Also where a launch fails, or the next scratch memory does not fit, and somebody keeps the error."""
    gpu = Gpu(0, simulated_driver(0), has_cublas=False)
    launch = template.Launch(accumulated.bind(T=float32), 1, 4, (2, 3), (4,))
    in_use = gpu.pool.stats()["reserved"] - gpu.pool.stats()["free"]

    def run(scratch, launches):
        gpu.run(REGISTRY["add"], template.Work(launches, scratch), (), (), [0, 0])

    run((64, 64), (launch,))
    with pytest.raises(KernelError, match=r"element 1\d lies outside") as failing:
        run((64, 64), (template.Launch(launch.kernel, 1, 4, (2, 3), (99,)),))
    gpu.pool.set_limit(1 << 22)
    with pytest.raises(OutOfMemory, match="scratch memory of add") as lacking:
        run((64, 1 << 23), (launch,))
    assert failing.traceback and lacking.traceback
    assert gpu.pool.stats()["reserved"] - gpu.pool.stats()["free"] == in_use
