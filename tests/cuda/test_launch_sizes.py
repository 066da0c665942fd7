"""Launches are cut to the processors of the GPU that they are for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_bindings import Fake

from tapegrad.dtypes import float32
from tapegrad.kernels.cuda.devices import Gpu
from tapegrad.kernels.cuda.driver import Driver
from tapegrad.kernels.cuda.template import MACHINE, Launch
from tapegrad.layouts import layout
from tapegrad.ops.registry import REGISTRY
from tapegrad.plan.gpu import Target
from tapegrad.plan.planner import plan
from tapegrad.plan.segment import Row, Segment, Value

N = 1 << 22


@pytest.fixture(scope="module")
def gpus() -> list[Gpu]:
    api = Fake(devices=2)
    api.processors = (132, 20)
    return [Gpu(i, Driver(i, api), has_cublas=False) for i in range(2)]


def grids(gpu: Gpu, n: int = N) -> set[int]:
    """Of an elementwise op, a reduction, and a fused chain of a plan."""
    x, rows = (layout(shape, float32, None, gpu.name) for shape in ((n,), (n, 64)))
    work = [
        gpu.backend.prepare(REGISTRY["tanh"], (x,), {}).work,
        gpu.backend.prepare(REGISTRY["sum"], (rows,), {"axes": (1,), "keepdims": False}).work,
        gpu.backend.into(REGISTRY["tanh"], (x,), (x,)).work,
    ]
    segment = Segment()
    segment.values = [Value(x, True), Value(x), Value(x, True)]
    segment.rows = [Row(REGISTRY[name], (i,), (i + 1,), {}) for i, name in enumerate(("tanh", "exp"))]
    (record,) = plan(segment, Target(gpu)).records
    segment.values, segment.rows = [Value(x, True), Value(x, True)], segment.rows[:1]
    (alone,) = plan(segment, Target(gpu)).records
    first = [w.launches[0] for w in work]
    assert all(type(launch) is Launch for launch in first)
    return {launch.grid for launch in (*first, record.step, alone.step)}


def test_each_gpu_has_its_own(gpus):
    assert [gpu.driver.properties.processors for gpu in gpus] == [132, 20]
    before = MACHINE.blocks
    assert [grids(gpu) for gpu in gpus] == [{1056}, {160}]
    assert MACHINE.blocks == before
    assert max(grids(gpus[1], 64)) < 160


def test_threads_do_not_disturb_each_other(gpus):
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda i: grids(gpus[i % 2], N + i), range(16)))
    assert found == [{1056}, {160}] * 8


def test_without_a_gpu_and_nested(gpus, monkeypatch):
    monkeypatch.setattr(MACHINE, "blocks", 7)
    with MACHINE.of(5), MACHINE.of(9):
        assert MACHINE.blocks == 9
    with MACHINE.of(None):
        assert MACHINE.blocks == 7 and MACHINE.grid(1 << 30) == 7 and MACHINE.grid(0) == 1
    assert grids(gpus[0]) == {1056}
    with pytest.raises(ZeroDivisionError), MACHINE.of(5):
        1 / 0
    assert MACHINE.blocks == 7
