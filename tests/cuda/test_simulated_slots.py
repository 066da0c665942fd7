"""Memory for numbers that the host writes: what is written arrives in one copy of a page, before whatever is asked next."""

from __future__ import annotations

import struct

import pytest

from tapegrad.errors import KernelError
from tapegrad.kernels.cuda.devices import Gpu
from tapegrad.kernels.cuda.simulated import simulated_driver
from tapegrad.kernels.cuda.slots import LARGEST, PAGE
from tapegrad.tape import spaces


@pytest.fixture
def gpu(monkeypatch):
    made = Gpu(8, simulated_driver(0))
    monkeypatch.setitem(spaces._spaces, "cuda:8", made)
    return made


def read(buffer) -> float:
    return struct.unpack("d", spaces.get("cuda:8", buffer.address, 8))[0]


def test_a_copy_for_each_page(gpu):
    slots = [spaces.numbers_of("cuda:8").allocate(8) for _ in range(100)]
    for k, slot in enumerate(slots):
        spaces.put("cuda:8", slot.address, struct.pack("d", k))
    assert gpu.driver.counts.uploads == 0, "nothing has asked for them"
    assert [read(slot) for slot in slots] == list(range(100))
    assert gpu.driver.counts.uploads == 2 and gpu.driver.counts.uploaded <= 2 * PAGE
    spaces.put("cuda:8", slots[3].address, struct.pack("d", -3))
    spaces.put("cuda:8", slots[5].address, struct.pack("d", -5))
    assert [read(slot) for slot in slots[2:7]] == [2, -3, 4, -5, 6]
    assert gpu.driver.counts.uploads == 3


@pytest.mark.parametrize("ask", ["copy", "synchronize", "download"])
def test_whatever_is_asked_next_finds_them(gpu, ask):
    slot, other = gpu.slots.allocate(8), gpu.pool.allocate(8)
    spaces.put("cuda:8", slot.address, struct.pack("d", 0.5))
    if ask == "copy":
        spaces.copied("cuda:8", other.address, slot.address, 8)
        assert read(other) == 0.5
    elif ask == "synchronize":
        gpu.synchronize()
        assert gpu.driver.view(slot.address, 8).tobytes() == struct.pack("d", 0.5)
    else:
        assert read(slot) == 0.5


def test_slots_are_used_again_and_large_ones_are_ordinary_memory(gpu):
    first = gpu.slots.allocate(40)
    address = first.address
    del first
    again = gpu.slots.allocate(33)
    assert again.address == address
    large = gpu.slots.allocate(LARGEST + 1)
    spaces.put("cuda:8", large.address, struct.pack("d", 1.5))
    assert gpu.driver.counts.uploads == 1 and read(large) == 1.5


def test_a_copy_that_fails_is_made_again(gpu, monkeypatch):
    slot = gpu.slots.allocate(8)
    spaces.put("cuda:8", slot.address, struct.pack("d", 2.5))

    def refuse(*_):
        raise KernelError("no")

    with monkeypatch.context() as patch:
        patch.setattr(gpu.driver, "upload", refuse)
        with pytest.raises(KernelError):
            gpu.synchronize()
    assert read(slot) == 2.5
