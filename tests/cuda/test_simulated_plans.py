"""Plans for a GPU of random segments, run in the simulator: the fixed values come out as they do row by row on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_rows import Recorder, arrays, check, one_by_one
from test_plan_random import drawn

from tapegrad.layouts import layout
from tapegrad.plan import gpu
from tapegrad.plan.planner import plan
from tapegrad.plan.segment import Row, Segment, Value
from tapegrad.tape import spaces

ULPS = 2048
DEVICE = "cuda:0"


@pytest.fixture(scope="module", autouse=True)
def simulator():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAPEGRAD_CUDA", "simulator")
        yield


def moved(segment: Segment) -> Segment:
    """The same rows on the device."""
    made = Segment()
    for v in segment.values:
        x = v.layout
        made.values.append(Value(layout(x.shape, x.dtype, x.strides, DEVICE), v.fixed, v.base, v.offset))
    for row in segment.rows:
        attrs = {k: DEVICE if k == "device" else v for k, v in row.attrs.items()}
        made.rows.append(Row(row.op, row.ins, row.outs, attrs, row.assigns))
    return made


def on_gpu(r: Recorder) -> dict[int, np.ndarray]:
    """The fixed values after the program ran four times, by launches and as a graph, each time on fresh inputs."""
    space = spaces.space_of(DEVICE)
    segment = moved(r.segment)
    p = plan(segment, gpu.Target(space))
    check(segment, p, stops=False)
    program = gpu.Program(p, space.pool.allocate, space)
    fixed = {n: space.pool.allocate(max(v.layout.nbytes, 8)) for n, v in enumerate(p.values) if v.fixed}
    for n, buffer in fixed.items():
        program.bind(n, buffer.address)
    for _ in range(4):
        for n, buffer in fixed.items():
            x = p.values[n].layout
            spaces.put(
                DEVICE, buffer.address, np.copy(r.arrays[n]) if n in r.arrays else np.zeros(x.size, x.dtype.numpy)
            )
        assert program.run() == 0
    assert not p.records or "graph" in program.notes()
    return {n: spaces.host_copy(buffer.address, p.values[n].layout).copy() for n, buffer in fixed.items()}


def test_a_program_follows_its_values():
    """Where a value is bound elsewhere, the next run reads and writes there: by launches, another graph, or a copy."""
    r = Recorder()
    x = r.given(np.zeros(5, np.float32))
    y = r("tanh", x)
    r.keep(y)
    space = spaces.space_of(DEVICE)
    p = plan(moved(r.segment), gpu.Target(space))
    program = gpu.Program(p, space.pool.allocate, space)
    places = [[space.pool.allocate(20) for _ in range(2)] for _ in range(3)]
    rng = np.random.default_rng(3)
    for k in (0, 0, 0, 1, 1, 1, 0, 2, 2, 2, 0, 1, 2, 2):
        source, target = places[k]
        program.bind(x, source.address)
        program.bind(y, target.address)
        data = rng.normal(size=5).astype(np.float32)
        spaces.put(DEVICE, source.address, data)
        spaces.put(DEVICE, target.address, np.zeros(5, np.float32))
        program.run()
        np.testing.assert_allclose(spaces.host_copy(target.address, p.values[y].layout), np.tanh(data), rtol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_random_segments(data):
    r = drawn(data)
    want, have = one_by_one(r), on_gpu(r)
    for n in want:
        a, b = want[n].ravel()[: have[n].size], have[n].ravel()
        if a.dtype.kind != "f":
            np.testing.assert_array_equal(a, b, err_msg=f"value {n}")
            continue
        finite = np.isfinite(a)
        np.testing.assert_array_equal(a[~finite], b[~finite], err_msg=f"value {n}")
        scale = np.float32(np.abs(a[finite]).max(initial=0.0))
        np.testing.assert_allclose(a[finite], b[finite], rtol=0, atol=ULPS * np.spacing(scale), err_msg=f"value {n}")


@pytest.mark.parametrize("lead", [(), (1,), (4,), (3, 4)])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_what_is_computed_once_a_row_beside_what_is_computed_for_each_element(lead, dtype):
    """Both are kept, of one kernel without a reduction, whose results are of two lengths."""
    r = Recorder()
    few, many = (r.given(x) for x in arrays(3, (*lead, 1), (*lead, 6), dtype=dtype))
    small = r("tanh", few)
    r.keep(small, r("add", many, small))
    want, have = one_by_one(r), on_gpu(r)
    for n in want:
        np.testing.assert_allclose(have[n].ravel(), want[n].ravel(), rtol=1e-5, err_msg=f"value {n}")
    assert len(plan(moved(r.segment), gpu.Target(spaces.space_of(DEVICE))).records) == 1
