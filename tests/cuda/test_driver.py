"""What a CUDA device does: copies, launches, pinned memory, graphs; on a stand-in for the bindings, and simulated."""

from __future__ import annotations

import ctypes
import gc
import threading

import numpy as np
import pytest
from driver_devices import adding, either_device, get, made, put, stand_in_driver  # noqa: F401  fixtures
from fake_bindings import Fake

from tapegrad.errors import KernelError, OutOfMemory
from tapegrad.kernels.cuda.driver import Driver
from tapegrad.kernels.cuda.faults import CaptureUnsafe
from tapegrad.kernels.cuda.streams import COPIES, MAIN
from tapegrad.kernels.cuda.words import Words

# copies and launches


def test_copies_and_fills(device):
    a, b = put(device, [1, 2, 3]), device.allocate(12)
    device.fill(b, 0, 12)
    assert get(device, b, 3) == [0, 0, 0]
    device.copy(b, a, 8)
    assert get(device, b, 3) == [1, 2, 0]
    device.upload(b, 0, 0)
    device.copy(b, a, 0)
    device.fill(b, 7, 0)
    assert get(device, b, 3) == [1, 2, 0]
    assert device.memory()[1] == 1 << 24
    assert device.memory()[0] == (1 << 24) - 24
    device.free(a)
    assert device.memory()[0] == (1 << 24) - 12


def test_a_launch_reads_its_words_at_once(device):
    x, y = put(device, [1, 2, 3]), put(device, [10, 20, 30])
    words = Words([x, y, 2])
    device.launch(adding(device), 1, 32, 0, words)
    words[2] = 3
    assert get(device, y, 3) == [11, 22, 30]
    device.launch(adding(device), (1, 2, 1), (8, 1, 1), 0, words)
    assert get(device, y, 3) == [12, 24, 33]


def test_properties(device):
    p = device.properties
    assert p.capability == (9, 0)
    assert p.version == (13, 0)
    assert p.memory == 1 << 24
    assert p.processors > 0
    assert p.shared >= 48 << 10
    assert p.name in ("Fake 0", "simulated GPU")
    assert device.where == "cuda:0"


@pytest.mark.parametrize(
    "grid, block, sentence",
    [
        (0, 1, "a grid of 0 blocks"),
        (2**31, 1, "a grid of 2147483648 blocks"),
        ((1, 2**16, 1), 1, "65536"),
        (1, 0, "a block of 0 threads"),
        (1, 1025, "a block of 1025 threads; there are 1 to 1,024"),
        (1, (32, 33, 1), "a block of"),
    ],
)
def test_extents_that_no_launch_can_have(device, grid, block, sentence):
    x = put(device, [1])
    with pytest.raises(KernelError, match=f"launching add: .*{sentence}"):
        device.launch(adding(device), grid, block, 0, Words([x, x, 1]))


def test_too_few_words(device):
    with pytest.raises(KernelError, match="launching add: 2 words for 3 parameters"):
        device.launch(adding(device), 1, 1, 0, Words([1, 2]))


def test_words():
    words = Words([3, -1, 2**63, 2**64 - 1])
    assert list(words) == [3, -1, -(2**63), -1]
    pointers = (ctypes.c_void_p * 4).from_address(words.pointers)
    assert [ctypes.c_int64.from_address(p).value for p in pointers] == list(words)
    words[0] = 9
    assert words[0] == 9 and ctypes.c_int64.from_address(pointers[0]).value == 9
    for i in (-1, 4):
        with pytest.raises(IndexError):
            words[i] = 0
        with pytest.raises(IndexError):
            words[i]
    assert len(Words([])) == 0


# pinned memory


def test_pinned_blocks(device):
    block = device.pinned(12)
    view = np.asarray(block).view(np.float32)
    assert view.shape == (3,) and view.ctypes.data == block.address
    view[:] = [4, 5, 6]
    a = device.allocate(12)
    device.upload(a + 4, block.address + 4, 8)
    assert block.busy
    block.wait()
    assert not block.busy
    view[:] = 0
    assert get(device, a, 3)[1:] == [5, 6]


def test_a_pinned_block_is_freed_with_its_last_view(driver):
    block = driver.pinned(64)
    view = np.asarray(block)
    driver.upload(driver.allocate(64), block.address, 64)
    del block
    assert driver.api.alive("host") == 1
    del view
    assert driver.api.alive("host") == driver.api.alive("event") == 0
    assert driver.api.calls.index("cuEventSynchronize") < driver.api.calls.index("cuMemFreeHost")


def test_pageable_memory_may_change_at_once_and_pinned_memory_behind_wait():
    device = made("simulated", deferred=(MAIN, COPIES))
    a, b = device.allocate(4), device.allocate(4)
    source, block = np.ones(1, np.float32), device.pinned(4)
    pinned = np.asarray(block).view(np.float32)
    pinned[0] = 1
    device.upload(a, source.ctypes.data, 4)
    device.upload(b, block.address, 4)
    source[0] = pinned[0] = 2  # too early for the pinned one
    assert get(device, a, 1) == [1]
    assert get(device, b, 1) == [2]
    pinned[0] = 3
    device.upload(b, block.address, 4)
    block.wait()
    pinned[0] = 4
    assert get(device, b, 1) == [3]


# graphs


@pytest.mark.parametrize("coherent", [False, True])
def test_a_gpu_that_reads_pageable_memory_by_itself_is_waited_for(coherent):
    api = Fake()
    api.coherent = coherent
    device = Driver(api=api)
    put(device, [1.0, 2.0])
    assert device.properties.coherent is coherent and api.calls.count("cuStreamSynchronize") == coherent
    block = device.pinned(8)
    device.upload(device.allocate(8), block.address, 8)
    assert api.calls.count("cuStreamSynchronize") == coherent


def test_a_graph_runs_when_it_is_launched(device):
    x, y, function = put(device, [1, 2]), put(device, [0, 0]), adding(device)
    words = Words([x, y, 2])
    with device.capture() as graph:
        assert device.capturing
        device.launch(function, 1, 2, 0, words)
        device.copy(x, y, 4)
        device.fill(y, 0, 4)
    words[2] = 0  # the graph has what they were
    assert not device.capturing
    assert graph.nodes == 3
    assert get(device, y, 2) == [0, 0]
    graph.launch()
    assert get(device, y, 2) == [0, 2]
    assert get(device, x, 2) == [1, 2]
    graph.launch()
    graph.launch()
    assert get(device, y, 2) == [0, 6]


def test_a_graph_reads_pinned_blocks_anew(device):
    a, block = device.allocate(8), device.pinned(8)
    view = np.asarray(block).view(np.float32)
    view[:] = 9
    with device.capture() as graph:
        device.upload(a, block.address, 8)
    assert not block.busy
    del block
    gc.collect()
    for value in (1, 2):
        view.base.wait() if hasattr(view.base, "wait") else graph.blocks[0].wait()
        view[:] = value
        graph.launch()
        assert graph.blocks[0].busy
        assert get(device, a, 2) == [value, value]


def refusals(device, a):
    host = np.zeros(1, np.float32)
    return {
        "pageable memory": lambda: device.upload(a, host.ctypes.data, 4),
        "reading": lambda: device.download(host.ctypes.data, a, 4),
        "waiting": device.synchronize,
        "a graph within": lambda: device.capture().__enter__(),
    }


@pytest.mark.parametrize("what", ["pageable memory", "reading", "waiting", "a graph within"])
def test_what_a_capture_refuses(device, what):
    a = put(device, [1])
    graphs = []

    def work():
        with device.capture() as graph:
            graphs.append(graph)
            device.fill(a, 0, 4)
            refusals(device, a)[what]()

    with pytest.raises(CaptureUnsafe, match=r"cuda:0, .*outside of a capture"):
        work()
    assert not device.capturing
    assert get(device, a, 1) == [1]  # nothing has run
    with pytest.raises(KernelError, match="its capture is not over or failed"):
        graphs[0].launch()
    with device.capture() as again:  # and the device is as good as new
        device.fill(a, 0, 4)
    again.launch()
    assert get(device, a, 1) == [0]


def test_an_exception_ends_a_capture(device):
    a, graphs = put(device, [1]), []

    def work():
        with device.capture() as graph:
            graphs.append(graph)
            device.fill(a, 0, 4)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert get(device, a, 1) == [1]
    with pytest.raises(KernelError, match="failed"):
        graphs[0].launch()


def test_a_graph_is_no_part_of_a_graph(device):
    with device.capture() as graph:
        device.fill(device.allocate(4), 0, 4)
    with pytest.raises(CaptureUnsafe, match="launching a graph"), device.capture():
        graph.launch()


def test_closed_graphs(device):
    with device.capture() as graph:
        device.fill(device.allocate(4), 0, 4)
    graph.close()
    graph.close()
    with pytest.raises(KernelError, match="closed"):
        graph.launch()


def test_an_empty_graph(device):
    with device.capture() as graph:
        pass
    graph.launch()
    assert graph.nodes == 0


def test_memory_within_a_capture(device):
    old = put(device, [1])
    free = device.memory()[0]
    with device.capture() as graph:
        new = device.allocate(4)
        device.copy(new, old, 4)
        device.free(old)
        function = adding(device)
        device.launch(function, 1, 1, 0, Words([new, new, 1]))
        assert device.memory()[0] == free - 4  # given back behind the capture
        assert device.pinned(4).address
    assert device.memory()[0] == free
    assert graph.nodes == 2


def test_another_thread_works_beside_a_capture(device):
    a, b = put(device, [1]), put(device, [1])
    seen = []

    def other():
        put(device, [5], b)
        device.synchronize()
        device.free(put(device, [2]))
        seen.append((device.capturing, get(device, b, 1)))

    with device.capture() as graph:
        device.fill(a, 0, 4)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert seen == [(False, [5])]
    assert graph.nodes == 1
    assert get(device, a, 1) == [1]


def test_captures_of_two_threads_take_turns(device):
    a = put(device, [1])
    order = []

    def other():
        with device.capture():
            order.append("second")

    with device.capture():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.1)
        device.fill(a, 0, 4)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_the_driver_lets_go_of_graphs(driver):
    with driver.capture() as graph:
        driver.fill(driver.allocate(4), 0, 4)
    assert driver.api.alive("graph") == 0
    assert driver.api.alive("exec") == 1
    del graph
    assert driver.api.alive("exec") == 0
    with pytest.raises(ZeroDivisionError), driver.capture():
        1 / 0
    assert driver.api.alive("graph") == driver.api.alive("exec") == 0


def test_a_capture_that_the_driver_ends(driver):
    driver.api.answers["cuStreamEndCapture"] = [901]
    with pytest.raises(CaptureUnsafe, match="CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"), driver.capture():
        pass
    assert not driver.capturing
    driver.api.capture = None
    driver.api.answers["cuGraphInstantiate"] = [2]
    with pytest.raises(OutOfMemory, match="making a graph"), driver.capture():
        pass
    assert driver.api.alive("graph") == 0


def test_a_replay_is_two_calls(driver):
    with driver.capture() as graph:
        driver.fill(driver.allocate(4), 0, 4)
    del driver.api.calls[:]
    graph.launch()
    assert driver.api.calls == ["cuCtxSetCurrent", "cuGraphLaunch"]
