"""What `test_driver_failures.py` runs in a process of its own: the driver by way of the real cuda-bindings, on `libcuda.c`."""

from __future__ import annotations

import gc
import sys
import timeit

import numpy as np

from tapegrad.errors import KernelError, OutOfMemory
from tapegrad.kernels.cuda.driver import Driver
from tapegrad.kernels.cuda.pool import DevicePool
from tapegrad.kernels.cuda.streams import COPIES, MAIN
from tapegrad.kernels.cuda.words import Words

GRID, BLOCK = (3, 2, 1), (32, 4, 1)


def message(kind, work) -> str:
    try:
        work()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def get(device: Driver, address: int, n: int) -> list[float]:
    found = np.empty(n, np.float32)
    device.download(found.ctypes.data, address, found.nbytes)
    return found.tolist()


def main() -> None:
    device = Driver()
    p = device.properties
    assert (p.name, p.capability, p.processors, p.memory, p.shared, p.version) == (
        "Stub",
        (9, 0),
        132,
        5 << 30,
        232448,
        (13, 0),
    ), p
    assert device.memory() == (3, 5 << 30)
    assert isinstance(device.stream, int) and device.stream
    x, y = device.allocate(12), device.allocate(12)
    assert type(x) is int
    source = np.array([1, 2, 3], np.float32)
    device.upload(x, source.ctypes.data, 12)
    device.fill(y, 0, 12)
    add = device.load("PTX", "add", ("float32", "float32", "int"))
    words = Words([x, y, 3])
    device.launch(add, GRID, BLOCK, 0, words)
    device.launch(add, GRID, BLOCK, 60 << 10, words)
    assert get(device, y, 3) == [2, 4, 6]
    device.copy(x, y, 4)
    assert get(device, x, 3) == [2, 2, 3]
    text = message(KernelError, lambda: device.load("bad", "add", ()))
    assert "CUDA_ERROR_INVALID_PTX" in text and text.endswith("line 1; fatal: this is bad"), text
    assert "CUDA_ERROR_NOT_FOUND" in message(KernelError, lambda: device.load(b"\x7fELF", "missing", ()))
    assert "error 1" in message(KernelError, lambda: device.launch(add, 1, 1, 0, words))
    assert "CUDA_ERROR_OUT_OF_MEMORY" in message(OutOfMemory, lambda: device.allocate(6 << 30))

    block = device.pinned(12)
    np.asarray(block).view(np.float32)[:] = [7, 8, 9]
    with device.capture() as graph:
        device.upload(x, block.address, 12)
        device.launch(add, GRID, BLOCK, 0, words)
        z = device.allocate(64)
        device.fill(z, 0, 64)
        device.copy(z, y, 4)
        device.free(device.allocate(64))
    assert graph.nodes == 4, graph.nodes
    assert get(device, y, 3) == [2, 4, 6]
    graph.launch()
    block.wait()
    assert get(device, y, 3) == [9, 12, 15]
    graph.close()

    view, event = np.asarray(block).view(np.float32), device.event()
    view[:] = [1, 2, 3]
    device.record(event)
    device.wait(COPIES, event)
    device.upload(x, block.address, 12, COPIES)
    device.wait(MAIN, block)
    device.copy(y, x, 12)
    block.wait()
    view[:] = 0
    device.fetch(block, y, 12)
    block.wait()
    assert view.tolist() == [1, 2, 3]
    del view, event

    pool = DevicePool(device)
    held = pool.allocate(1000)
    address = held.address
    del held
    assert pool.allocate(1000).address == address
    pool.trim()
    assert pool.stats()["reserved"] == 0
    del block, graph
    gc.collect()

    with device.capture() as empty:
        pass
    n = 20000
    for name, work in {
        "launch": lambda: device.launch(add, GRID, BLOCK, 0, words),
        "graph": empty.launch,
        "fill": lambda: device.fill(y, 0, 4),
    }.items():
        print(f"{name} {min(timeit.repeat(work, number=n, repeat=5)) / n * 1e6:.2f} µs")


if __name__ == "__main__":
    sys.exit(main())
