"""What only the simulated device sees: wrong ranges, wrong kernels, work that waits."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from driver_devices import ADD, adding, get, made, put

from tapegrad.errors import KernelError
from tapegrad.kernels.cuda.faults import ContextLost
from tapegrad.kernels.cuda.simulated import Simulated
from tapegrad.kernels.cuda.streams import COPIES, MAIN
from tapegrad.kernels.cuda.words import Words


@pytest.fixture
def simulated():
    return made("simulated")


def test_wrong_ranges(simulated):
    a, host = simulated.allocate(10), np.zeros(100, np.uint8)
    there = host.ctypes.data
    cases = {
        "the block there has 10 bytes from .* on, 1 too few": lambda: simulated.upload(a, there, 11),
        "2 too few": lambda: simulated.fill(a + 8, 0, 4),
        "that is an address of the host": lambda: simulated.copy(a, there, 4),
        "is no address of the host": lambda: simulated.download(a, a, 4),
        "copying from the host 4 bytes: .* is no address of the host": lambda: simulated.upload(a, a, 4),
        "the ranges overlap": lambda: simulated.copy(a, a + 1, 4),
        "that is an address of cuda:1": lambda: simulated.copy(a, Simulated(1).allocate(4), 4),
        "nothing was ever allocated there": lambda: simulated.fill(a - 200, 0, 4),
        "reading 4 bytes": lambda: simulated.view(a + 7, 4),
    }
    for sentence, wrong in cases.items():
        with pytest.raises(KernelError, match=sentence):
            wrong()
    simulated.free(a)
    again = simulated.allocate(10)
    assert again != a
    for wrong in (lambda: simulated.fill(a, 0, 1), lambda: simulated.free(a), lambda: get(simulated, a, 1)):
        with pytest.raises(KernelError, match="that block of 10 bytes was freed"):
            wrong()
    with pytest.raises(KernelError, match=r"cuda:0, freeing"):
        simulated.free(again + 1)


def test_wrong_kernels(simulated):
    a, b, function = put(simulated, [1, 2]), put(simulated, [1, 2]), adding(simulated)
    with pytest.raises(KernelError, match=r"launching add: element 2 lies outside the block of .*, which has 0 to 1"):
        simulated.launch(function, 1, 1, 0, Words([a, b, 3]))
    with pytest.raises(KernelError, match=r"parameter 1 is .*multiple of 4"):
        simulated.launch(function, 1, 1, 0, Words([a, b + 2, 1]))
    with pytest.raises(KernelError, match=r"parameter 0 is .*address of the host"):
        simulated.launch(function, 1, 1, 0, Words([4096, b, 1]))
    with pytest.raises(KernelError, match="runs Python functions"):
        simulated.load("PTX", "add", ADD)

    def wrong(x, y, n):
        x[0] = 1.5

    def wrong_index(x, y, n):
        x[n * 0.5] = 1

    for body in (wrong, wrong_index):
        with pytest.raises(TypeError, match="integer, not float"):
            simulated.launch(simulated.load(body, "wrong", ("int64", "float32", "int")), 1, 1, 0, Words([a, b, 1]))
    simulated.launch(function, 1, 1, 0, Words([a, b, 2]))
    assert get(simulated, b, 2) == [3, 6]  # the first launch came to two elements


def test_pointers_reach_backwards(simulated):
    a = put(simulated, [1, 2, 3])

    def back(x):
        x[-2] = x[0]

    simulated.launch(simulated.load(back, "back", ("float32",)), 1, 1, 0, Words([a + 8]))
    assert get(simulated, a, 3) == [3, 2, 3]


def test_new_memory_is_nan(simulated):
    assert np.isnan(get(simulated, simulated.allocate(8), 2)).all()


def test_a_graph_on_memory_that_is_gone(simulated):
    a = simulated.allocate(4)
    with simulated.capture() as graph:
        simulated.fill(a, 0, 4)
    simulated.free(a)
    with pytest.raises(KernelError, match="was freed"):
        graph.launch()


def test_counts(simulated):
    x, y, function = put(simulated, [1, 2]), put(simulated, [3, 4]), adding(simulated)
    with simulated.capture() as graph:
        simulated.launch(function, 1, 1, 0, Words([x, y, 2]))
        simulated.copy(x, y, 8)
        simulated.fill(y, 0, 4)
    c = simulated.counts
    assert (c.launches, c.copies, c.fills, c.graph_launches, c.captures) == (0, 0, 0, 0, 1)
    graph.launch()
    graph.launch()
    get(simulated, x, 2)
    simulated.synchronize()
    simulated.free(x)
    assert (c.launches, c.copies, c.fills, c.graph_launches, c.captures) == (2, 2, 2, 2, 1)
    assert (c.uploads, c.uploaded, c.downloads, c.downloaded) == (2, 16, 1, 8)
    assert (c.copied, c.filled, c.allocations, c.frees, c.synchronizations) == (16, 8, 2, 1, 2)


def test_deferred_work_waits():
    device = made("simulated", deferred=(MAIN, COPIES))
    x, y, function = put(device, [1, 2]), put(device, [3, 4]), adding(device)
    words = Words([x, y, 2])
    device.launch(function, 1, 1, 0, words)
    words[0] = 0
    assert device.counts.launches == device.counts.uploads == 0
    assert np.isnan(device.view(y, 8).view(np.float32)).all()
    device.synchronize()
    assert device.view(y, 8).view(np.float32).tolist() == [4, 6]
    device.launch(function, 1, 1, 0, Words([x, y, 2]))
    device.free(x)
    assert get(device, y, 2) == [5, 8]
    block = device.pinned(8)
    device.upload(y, block.address, 8)
    np.asarray(block)[:] = 0
    del block
    assert get(device, y, 2) == [0, 0]
    device.launch(function, 1, 1, 0, Words([y, y, 3]))  # fails where it is waited for
    device.launch(function, 1, 1, 0, Words([y, y, 1]))
    with pytest.raises(KernelError, match="outside the block"):
        device.synchronize()
    device.synchronize()


def test_other_work_has_its_turn(simulated):
    """What a stand-in for cuBLAS does."""
    a, seen = put(simulated, [2]), []
    with simulated.capture() as graph:
        simulated.ask("gemm", "1 by 1", lambda: seen.append(simulated.view(a, 4).view(np.float32)[0]))
    assert seen == [] and graph.nodes == 1
    graph.launch()
    assert seen == [2]


def test_a_simulated_failure(simulated):
    a = put(simulated, [1])
    simulated.fail()
    for use in (
        lambda: get(simulated, a, 1),
        simulated.synchronize,
        lambda: simulated.allocate(1),
        lambda: simulated.free(a),
    ):
        with pytest.raises(ContextLost, match="a kernel failed .*restart it"):
            use()


def test_the_host_cannot_follow_an_address():
    """Reading it ends the process at once, on x86-64 and on AArch64, rather than giving some number."""
    program = "import ctypes; from tapegrad.kernels.cuda.simulated import Simulated; ctypes.string_at(Simulated().allocate(4), 1)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert done.returncode != 0
    if os.name == "posix":
        assert done.returncode < 0, done.stderr


@pytest.mark.parametrize(
    "value, expected", [(None, "driver"), ("simulator", "simulator"), ("Driver", "driver"), ("gpu", None)]
)
def test_the_setting(monkeypatch, value, expected):
    from tapegrad import config
    from tapegrad.errors import ConfigError

    config.cuda.cache_clear()
    monkeypatch.delenv("TAPEGRAD_CUDA", raising=False)
    if value is not None:
        monkeypatch.setenv("TAPEGRAD_CUDA", value)
    if expected is None:
        with pytest.raises(ConfigError, match=r"""TAPEGRAD_CUDA is 'gpu'; it is "driver" or "simulator"\."""):
            config.cuda()
    else:
        assert config.cuda() == expected
    config.cuda.cache_clear()
