"""Copies in a queue of their own: their order, whatever the speed of the queues, and that a missing wait is seen."""

from __future__ import annotations

import ctypes
import gc
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from driver_devices import get, made

from tapegrad.errors import KernelError, OutOfMemory
from tapegrad.kernels.cuda import staging
from tapegrad.kernels.cuda.devices import Gpu
from tapegrad.kernels.cuda.faults import CaptureUnsafe
from tapegrad.kernels.cuda.simulated_streams import Node, Queues
from tapegrad.kernels.cuda.streams import COPIES, MAIN

N = 100  # float32 of an array that goes ahead
KINDS = ["driver", "simulated"]
LATE, EARLY = (MAIN, COPIES), (MAIN,)  # copies happen as late, or as early, as what they wait for lets them


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(staging, "STAGED", 64)
    monkeypatch.setattr(staging, "AHEAD", 256)
    monkeypatch.setattr(staging, "PIECE", 128)


def opened(kind: str, deferred=LATE) -> Gpu:
    more = {"memory": 1 << 28} if kind == "driver" else {}
    return Gpu(0, made(kind, deferred=deferred, **more), has_cublas=False)


def queues(gpu: Gpu) -> Queues:
    return gpu.driver.queues if hasattr(gpu.driver, "queues") else gpu.driver.api.queues


def batches(gpu: Gpu, count: int = 9) -> np.ndarray:
    """Arrays that arrive in one place one after the other, each of them copied out of it by the device; as they came out."""
    size = 4 * N
    place, out = gpu.pool.allocate(size), gpu.pool.allocate(count * size)
    for i in range(count):
        source = np.full(N, i + 1, np.float32)
        gpu.upload(place.address, source.ctypes.data, size)
        source[:] = -1  # it may change at once
        gpu.copy(out.address + i * size, place.address, size)
    found = np.empty((count, N), np.float32)
    gpu.download(found.ctypes.data, out.address, found.nbytes)
    return found


def old_and_new(gpu: Gpu) -> np.ndarray:
    """Memory that a queued copy still reads goes back to the pool, which gives it to the staging of arrays."""
    size = 4 * N
    old, out, place = (gpu.pool.allocate(size) for _ in range(3))
    gpu.driver.fill(old.address, 0, size)
    gpu.driver.copy(out.address, old.address, size)
    at = old.address
    del old
    source = np.full(N, 7, np.float32)
    gpu.upload(place.address, source.ctypes.data, size)
    (ring,) = gpu.staging._rings.values()
    assert ring.free[-1].room.address == at
    return np.concatenate([get(gpu.driver, out.address, N), get(gpu.driver, place.address, N)])


RIGHT = {batches: np.repeat(np.arange(1.0, 10), N).reshape(9, N), old_and_new: np.repeat([0.0, 7.0], N)}


@pytest.mark.parametrize("work", RIGHT)
@pytest.mark.parametrize("deferred", [LATE, EARLY, (COPIES,), ()])
@pytest.mark.parametrize("kind", KINDS)
def test_arrays_arrive(kind, deferred, work):
    np.testing.assert_array_equal(work(opened(kind, deferred)), RIGHT[work])


def without(monkeypatch, gpu: Gpu, what: str) -> None:
    """Leave one thing out of the staging."""
    driver = gpu.driver
    wait, record = driver.wait, driver.record
    if what == "work waits for the copy":
        monkeypatch.setattr(
            driver, "wait", lambda stream, event: stream == COPIES and wait(stream, event), raising=False
        )
    if what == "the copy waits for what reads":
        monkeypatch.setattr(driver, "wait", lambda stream, event: stream == MAIN and wait(stream, event), raising=False)
    if what == "the host waits for the copy":
        monkeypatch.setattr(staging.Pinned, "wait", lambda block: None)
    if what == "memory of the pool may be in use":
        plain = gpu.staging._slot

        def slot(size):
            monkeypatch.setattr(driver, "record", lambda event, stream=MAIN: None, raising=False)
            found = plain(size)
            monkeypatch.setattr(driver, "record", record, raising=False)
            return found

        monkeypatch.setattr(gpu.staging, "_slot", slot)


@pytest.mark.parametrize(
    "what, deferred, work",
    [
        ("work waits for the copy", LATE, batches),
        ("work waits for the copy", LATE, old_and_new),
        ("the copy waits for what reads", EARLY, batches),
        ("the host waits for the copy", LATE, batches),
        ("memory of the pool may be in use", EARLY, old_and_new),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_out_is_seen(monkeypatch, kind, what, deferred, work):
    gpu = opened(kind, deferred)
    without(monkeypatch, gpu, what)
    assert not np.array_equal(work(gpu), RIGHT[work])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", KINDS)
def test_any_speed_of_the_queues(kind, seed):
    """Arrays come and go, memory changes hands, and either queue gets on as chance has it."""
    rng = np.random.default_rng(seed)
    gpu = opened(kind)
    held: list[tuple] = []  # memory, and what it should hold
    checks = []
    log = gpu.pool.allocate(400 * 4 * N)
    for i in range(60):
        n = int(rng.integers(1, N))
        what = rng.random()
        if what < 0.5:
            buffer = gpu.pool.allocate(4 * n)
            source = np.full(n, i + 1, np.float32)
            gpu.upload(buffer.address, source.ctypes.data, source.nbytes)
            held.append((buffer, n, i + 1))
            source[:] = -1
            del buffer
        elif what < 0.8 and held:
            buffer, n, value = held[int(rng.integers(len(held)))]
            at = log.address + 4 * N * len(checks)
            gpu.copy(at, buffer.address, 4 * n)
            checks.append((at, n, value))
            del buffer
        elif what < 0.95 and held:
            del held[int(rng.integers(len(held)))]  # its memory may go to the next array, or to the staging
        else:
            gpu.pool.trim()
        for _ in range(int(rng.integers(0, 5))):
            queues(gpu).step(int(rng.integers(2)))
    assert len(checks) > 5
    for at, n, value in checks:
        assert get(gpu.driver, at, n) == [value] * n


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_goes_on_while_work_waits(kind):
    """The point of it all: a copy waits for what its staging memory was used for last, not for all that was asked before it."""
    gpu = opened(kind)
    place, source, order = gpu.pool.allocate(4 * N), np.ones(N, np.float32), []

    def upload() -> None:
        queues(gpu).ask(MAIN, Node("launch", "a long kernel", lambda: order.append("kernel")))
        gpu.upload(place.address, source.ctypes.data, source.nbytes)
        (ring,) = gpu.staging._rings.values()
        gpu.driver.wait_for(ring.free[-1].block)

    for _ in range(staging.RING):
        upload()  # kernels may still use what the pool gave for staging
    assert order == ["kernel"] * staging.RING
    upload()
    assert len(order) == staging.RING, "the copy is done, and the kernel before it has not begun"
    gpu.synchronize()
    assert len(order) == staging.RING + 1


def test_sizes_and_queues():
    """Small arrays go in the order of work, large ones ahead, and the largest without staging."""
    gpu = opened("driver", ())
    api, place = gpu.driver.api, gpu.pool.allocate(1 << 20)

    def calls(nbytes: int) -> list[str]:
        source = np.zeros(nbytes, np.uint8)
        gpu.upload(place.address, source.ctypes.data, nbytes)
        del api.calls[:]
        gpu.upload(place.address, source.ctypes.data, nbytes)
        return [name for name in api.calls if name.startswith(("cuMemcpy", "cuStreamWait", "cuEventRecord"))]

    assert calls(32) == ["cuMemcpyHtoDAsync"]
    assert calls(128) == ["cuEventRecord", "cuMemcpyHtoDAsync", "cuEventRecord"]
    ahead = [
        "cuStreamWaitEvent",
        "cuMemcpyHtoDAsync",
        "cuEventRecord",
        "cuStreamWaitEvent",
        "cuMemcpyDtoDAsync",
        "cuEventRecord",
    ]
    assert calls(256) == ["cuEventRecord", *ahead]
    for _ in range(4):
        found = calls(256)
    assert found == ahead, "a steady loop makes no blocks"
    assert api.alive("host") == 2 * staging.RING - 1


def test_the_memory_of_staging_is_the_pools():
    gpu = opened("simulated", ())
    place, source = gpu.pool.allocate(1 << 12), np.zeros(1 << 12, np.uint8)
    before = gpu.pool.stats()
    for n in range(600, 4000, 100):
        for _ in range(5):
            gpu.upload(place.address, source.ctypes.data, n)
    assert len(gpu.staging._rings) == staging.SIZES and all(r.made <= staging.RING for r in gpu.staging._rings.values())
    assert gpu.pool.stats()["reserved"] > before["reserved"]
    gpu.pool.trim()
    assert gpu.pool.stats()["reserved"] == before["reserved"] and not gpu.staging._rings
    gc.collect()
    assert gpu.driver._pinned == {}


@pytest.mark.parametrize("kind", KINDS)
def test_without_memory_for_it_copies_take_their_turn(kind):
    gpu = opened(kind)
    place = gpu.pool.allocate(4 * N)
    gpu.pool.set_limit(gpu.pool.reserved)
    if kind == "simulated":  # the driver's pool cuts blocks out of larger ones
        with pytest.raises(OutOfMemory):
            gpu.pool.allocate(4 * N)
    else:
        gpu.pool._take = lambda size: None
        gpu.pool.size_class(4 * N).free.clear()
    for i in range(5):
        source = np.full(N, i, np.float32)
        gpu.upload(place.address, source.ctypes.data, source.nbytes)
        assert get(gpu.driver, place.address, N) == [i] * N
    assert all(slot.room is None for ring in gpu.staging._rings.values() for slot in ring.free)


@pytest.mark.parametrize("kind", KINDS)
def test_within_a_capture(kind):
    """What a graph would read anew at each launch is refused, and the device is as good as new."""
    gpu = opened(kind)
    place, source = gpu.pool.allocate(4 * N), np.ones(N, np.float32)
    event = gpu.driver.event()
    block = gpu.driver.pinned(64)
    for use in (
        lambda: gpu.upload(place.address, source.ctypes.data, source.nbytes),
        lambda: gpu.driver.record(event),
        lambda: gpu.driver.wait(MAIN, event),
        lambda: gpu.driver.upload(place.address, block.address, 64, COPIES),
        lambda: gpu.driver.fetch(block, place.address, 64),
        lambda: gpu.download(source.ctypes.data, place.address, source.nbytes),
    ):
        with pytest.raises(CaptureUnsafe, match=r"cuda:0, .*outside of a capture"), gpu.driver.capture():
            use()
    gpu.upload(place.address, source.ctypes.data, source.nbytes)
    assert get(gpu.driver, place.address, N) == [1] * N


@pytest.mark.parametrize("kind", KINDS)
def test_loader_threads_beside_captures(kind):
    """Nothing of a thread that uploads lands in another's capture, or invalidates it."""
    gpu = opened(kind)
    mine = gpu.pool.allocate(64)

    def load(number: int) -> list:
        kept = []
        for i in range(200):
            place, source = gpu.pool.allocate(4 * N), np.full(N, 1000 * number + i, np.float32)
            gpu.upload(place.address, source.ctypes.data, source.nbytes)
            if i % 20 == 0:
                kept.append((place, 1000 * number + i))
        return kept

    graphs = []
    with ThreadPoolExecutor(3) as threads:
        loading = [threads.submit(load, number) for number in range(3)]
        for i in range(20):
            with gpu.driver.capture() as graph:
                gpu.driver.fill(mine.address, i, 64)
                gpu.driver.copy(mine.address, mine.address + 32, 32)
            graphs.append(graph)
            graph.launch()
            gpu.synchronize()
        kept = [pair for work in loading for pair in work.result()]
    assert [graph.nodes for graph in graphs] == [2] * 20 and len(kept) == 30
    for place, value in kept:
        assert get(gpu.driver, place.address, N) == [value] * N


# from the device


@pytest.mark.parametrize("n", [0, 1, 32, 33, 64, 65, 1000])
@pytest.mark.parametrize("deferred", [LATE, ()])
@pytest.mark.parametrize("kind", KINDS)
def test_large_arrays_come_in_pieces(kind, deferred, n):
    gpu = opened(kind, deferred)
    place, source = gpu.pool.allocate(4 * n + 8), np.arange(n, dtype=np.float32)
    gpu.driver.upload(place.address + 4, source.ctypes.data, source.nbytes)
    found = np.full(n + 2, -1, np.float32)
    gpu.download(found[1:].ctypes.data, place.address + 4, 4 * n)
    assert found[0] == found[-1] == -1
    np.testing.assert_array_equal(found[1:-1], source)
    assert len(gpu.staging._pieces) == (2 if 4 * n > staging.PIECE else 0)


def test_pieces_that_are_not_waited_for(monkeypatch):
    gpu = opened("simulated")
    place, source = gpu.pool.allocate(4 * N), np.ones(N, np.float32)
    gpu.driver.upload(place.address, source.ctypes.data, source.nbytes)
    monkeypatch.setattr(staging.Pinned, "wait", lambda block: None)
    found = np.zeros(N, np.float32)
    gpu.download(found.ctypes.data, place.address, found.nbytes)
    assert not np.array_equal(found, source)


# the model


def test_work_comes_behind_that_of_other_libraries():
    gpu = opened("driver", (MAIN, ("foreign", 1), ("foreign", 99)))
    place = gpu.pool.allocate(16)
    gpu.driver.fill(place.address, 0, 16)
    there = queues(gpu)
    for stream, value in ((1, 3), (99, 5)):
        array = np.full(4, value, np.float32)
        there.ask(("foreign", stream), Node("work", "", partial(ctypes.memmove, place.address, array.ctypes.data, 16)))
        gpu.follow(*(() if stream == 1 else (stream,)))
        assert get(gpu.driver, place.address, 4) == [value] * 4
        assert gpu.driver.api.alive("event") == 0
    array = np.full(4, 7, np.float32)
    with gpu.driver.capture() as graph:
        there.ask(("foreign", 1), Node("work", "", partial(ctypes.memmove, place.address, array.ctypes.data, 16)))
        gpu.follow()  # behind the capture, and before the graph
        gpu.driver.fill(place.address, 0, 4)
    graph.launch()
    assert get(gpu.driver, place.address, 4) == [0, 7, 7, 7]


def test_queues_by_themselves():
    done: list[str] = []

    def node(name: str) -> Node:
        return Node("work", name, lambda: done.append(name))

    made = Queues(("a", "b"))
    made.wait("a", None)
    made.ask("b", node("b1"))
    moment = made.now("b")
    made.ask("b", node("b2"))
    made.ask("a", node("a1"))
    made.wait("a", moment)
    made.ask("a", node("a2"))
    assert done == []
    made.step("a")
    assert done == ["a1"]
    made.finish("a")
    assert done == ["a1", "b1", "a2"]
    made.ask("c", node("c1"))  # not deferred
    assert done[-1] == "c1"
    made.wait("c", made.now("b"))
    assert done[-1] == "b2"

    def fails() -> None:
        raise KernelError("it failed")

    made.ask("a", Node("work", "", fails), node("a3"))
    with pytest.raises(KernelError, match="it failed"):
        made.finish("a")
    made.finish("a")
    assert "a3" not in done
