"""A device's buffer pool, on both kinds of device."""

from __future__ import annotations

import threading

import pytest
from driver_devices import either_device, made, stand_in_driver  # noqa: F401  fixtures

from tapegrad.errors import OutOfMemory
from tapegrad.kernels.blocks import class_size
from tapegrad.kernels.cuda.faults import ContextLost
from tapegrad.kernels.cuda.pool import DevicePool


@pytest.mark.parametrize("kind", ["driver", "simulated"])
def test_blocks_come_back(kind):
    device = made(kind)
    pool = DevicePool(device)
    a = pool.allocate(1000)
    assert class_size(1000) == 1024
    address = a.address
    assert address % 64 == 0
    del a
    assert pool.allocate(900).address == address
    stats = pool.stats()
    assert stats["allocations"] == 1
    assert stats["limit"] == 1 << 24
    for _ in range(100):
        pool.allocate(1000)
    assert pool.stats()["allocations"] == 1
    held = [pool.allocate(n) for n in (64, 600 << 10, 65, 1024)]
    assert len({b.address for b in held}) == 4
    assert pool.stats()["reserved"] - pool.stats()["free"] == 64 + class_size(600 << 10) + 128 + 1024
    del held
    assert pool.stats()["reserved"] == pool.stats()["free"]


@pytest.mark.parametrize("kind", ["driver", "simulated"])
def test_trim_gives_back_what_is_free(kind):
    device = made(kind)
    pool = DevicePool(device)
    large, small = pool.allocate(1 << 20), [pool.allocate(640) for _ in range(10)]
    free = device.memory()[0]
    pool.trim()
    assert device.memory()[0] == free
    kept = small.pop()
    del large, small
    pool.trim()
    address = kept.address
    reserved = pool.stats()["reserved"]
    assert reserved == ((2 << 20) if pool.carved else 640)
    assert (1 << 24) - device.memory()[0] == reserved
    again = [pool.allocate(640) for _ in range(5000)]
    assert address not in {b.address for b in again}
    assert len({b.address for b in again}) == 5000
    del again
    pool.trim()  # of two slabs, the one that holds nothing goes
    assert pool.stats()["reserved"] == reserved
    device.fill(address, 0, 640)
    assert address not in {pool.allocate(640).address for _ in range(10)}
    del kept
    pool.trim()
    assert pool.stats()["reserved"] == pool.stats()["free"] == 0
    assert device.memory()[0] == 1 << 24
    assert pool.allocate(640).address % 64 == 0


@pytest.mark.parametrize("kind", ["driver", "simulated"])
def test_out_of_memory(kind):
    device = made(kind)
    pool = DevicePool(device)
    live = pool.allocate(3 << 20)
    cached = pool.allocate(4 << 20)
    del cached
    bystander = device.allocate(2 << 20)  # of another library
    one = pool.allocate(10 << 20)  # fits when what is cached was given back
    assert pool.stats()["reserved"] == (3 << 20) + (10 << 20)
    with pytest.raises(OutOfMemory) as caught:
        pool.allocate(3 << 20, "the result of exp")
    text = str(caught.value)
    assert "the result of exp of 3,145,728 bytes does not fit on cuda:0" in text
    assert "13,631,488 bytes are in use, 0 are cached in free blocks" in text
    assert "1,048,576 of the GPU's 16,777,216 bytes are left" in text
    assert "Use smaller batches" in text
    del one
    assert pool.allocate(3 << 20).address
    del live
    device.free(bystander)
    pool.trim()
    assert pool.stats()["reserved"] == 0


@pytest.mark.parametrize("kind", ["driver", "simulated"])
def test_limits(kind):
    device = made(kind)
    pool = DevicePool(device)
    pool.set_limit(3 << 20)
    a = pool.allocate(2 << 20)
    with pytest.raises(
        OutOfMemory, match=r"2,097,152 bytes are in use, 0 are cached in free blocks and the limit is 3,145,728"
    ):
        pool.allocate(2 << 20)
    del a
    assert pool.allocate(3 << 20).address  # the free block goes first
    pool.set_limit(1 << 30)
    with pytest.raises(OutOfMemory, match="the GPU's"):
        pool.allocate(1 << 29)
    for wrong in (0, -1, 1.5, True, "1GB", None):
        with pytest.raises(ValueError, match="a whole number of bytes above 0"):
            pool.set_limit(wrong)
    assert pool.stats()["peak"] == 3 << 20


def test_a_lost_context_is_no_lack_of_memory(driver):
    pool = DevicePool(driver)
    driver.api.answers["cuMemAlloc"] = [700]
    with pytest.raises(ContextLost):
        pool.allocate(100)
    assert pool.stats()["reserved"] == 0
    assert pool.allocate(100).address


def test_a_pool_in_threads(device):
    pool = DevicePool(device)
    held: list[list] = [[] for _ in range(4)]

    def work(mine):
        for i in range(300):
            mine.append(pool.allocate(64 * (1 + i % 5)))
            if i % 3 == 0:
                mine.pop(0)
            if i % 50 == 0:
                pool.trim()

    threads = [threading.Thread(target=work, args=(mine,)) for mine in held]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    addresses = [b.address for mine in held for b in mine]
    assert len(set(addresses)) == len(addresses) == 800
    del held[:]
