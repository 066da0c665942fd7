"""Segments built by hand, for tests of planning: run row by row, run as planned, and compared."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

import tapegrad  # noqa: F401  fills the registry
from tapegrad.dtypes import as_dtype
from tapegrad.kernels import elementwise as generator
from tapegrad.kernels.prepare import backend, infer
from tapegrad.kernels.run import Ready
from tapegrad.layouts import Layout, layout
from tapegrad.ops import registry
from tapegrad.ops.registry import REGISTRY, Op, elementwise_dtypes
from tapegrad.plan.explain import explain
from tapegrad.plan.planner import plan
from tapegrad.plan.program import Plan, Program
from tapegrad.plan.segment import Row, Segment, Value

NAMED: dict[str, Op] = {op.name: op for op in REGISTRY.values()}
GUARD = 64


class Memory:
    """A block whose bytes are a pattern, so that what was never written shows."""

    def __init__(self, nbytes: int):
        self.block = np.full(nbytes + GUARD, 0xA5, np.uint8)
        self.address = self.block.ctypes.data + -self.block.ctypes.data % 64


class Recorder:
    """Builds a segment by hand: each method records a row, or a view, and gives the number of the result."""

    def __init__(self) -> None:
        self.segment = Segment()
        self.arrays: dict[int, np.ndarray] = {}

    def layout(self, number: int) -> Layout:
        return self.segment.values[number].layout

    def given(self, array) -> int:
        """A value from outside."""
        a = np.ascontiguousarray(array).reshape(np.shape(array))
        self.segment.values.append(Value(layout(a.shape, as_dtype(a.dtype)), True))
        self.arrays[len(self.segment.values) - 1] = a
        return len(self.segment.values) - 1

    def __call__(self, op: str | Op, *ins: int, keep: bool = False, **attrs):
        """A row of that op."""
        op = NAMED[op] if isinstance(op, str) else op
        outs = infer(op, tuple(self.layout(i) for i in ins), attrs)[0]
        numbers = []
        for x in outs:
            self.segment.values.append(Value(x))
            numbers.append(len(self.segment.values) - 1)
        self.segment.rows.append(Row(op, ins, tuple(numbers), attrs))
        if keep:
            self.keep(*numbers)
        return numbers[0] if len(numbers) == 1 else tuple(numbers)

    def view(self, op: str, i: int, **attrs) -> int:
        """A view, by the op that makes it."""
        (x,), _, offset = infer(NAMED[op], (self.layout(i),), attrs)
        v = self.segment.values[i]
        base = i if v.base is None else v.base
        self.segment.values.append(Value(x, False, base, offset + v.offset))
        return len(self.segment.values) - 1

    def assign(self, op: Op, targets: tuple[int, ...], *ins: int) -> None:
        """An assigning row."""
        self.segment.rows.append(Row(op, ins, targets, {}, assigns=True))

    def keep(self, *numbers: int) -> None:
        """Somebody holds these values."""
        for n in numbers:
            v = self.segment.values[n]
            root = n if v.base is None else v.base
            self.segment.values[root].fixed = True


def one_by_one(r: Recorder) -> dict[int, np.ndarray]:
    """The fixed values after running each row by itself, with memory of its own for each result."""
    values = r.segment.values
    memory = {n: np.copy(r.arrays[n]) if n in r.arrays else np.zeros(max(v.layout.size, 1), v.layout.dtype.numpy)
              for n, v in enumerate(values) if v.base is None}  # fmt: skip

    def address(n: int) -> int:
        v = values[n]
        if v.base is None:
            return memory[n].ctypes.data
        return memory[v.base].ctypes.data + v.offset * v.layout.dtype.itemsize

    for row in r.segment.rows:
        keep: list[np.ndarray] = []
        ins = [values[i].layout for i in row.ins]
        at = [address(i) for i in row.ins]
        for k, x in enumerate(ins):  # no input overlaps what is written, and copies are made where kernels want them
            a = np.ascontiguousarray(array_at(at[k], x)).reshape(x.shape)
            keep.append(a)
            if row.assigns or not x.contiguous:
                ins[k], at[k] = layout(x.shape, x.dtype), a.ctypes.data
        outs = [values[o].layout for o in row.outs]
        if row.assigns:
            compute = elementwise_dtypes(row.op, tuple(x.dtype for x in ins))[0]
            compute = outs[0].dtype if row.op is registry.IDENTITY else compute
            steps = generator.steps(row.op.expression(), tuple(ins), tuple(outs), compute, truths=row.op.truths)
        else:
            prepared = backend("cpu").prepare(row.op, tuple(ins), row.attrs)
            assert not prepared.copies
            steps = prepared.steps

        def workspace(nbytes: int, keep=keep) -> int:
            keep.append(np.empty(nbytes + 64, np.uint8))
            return keep[-1].ctypes.data

        for step in steps:
            assert Ready(step).run([*at, *(address(o) for o in row.outs)], workspace) == 0
    return {n: memory[n] for n, v in enumerate(values) if v.fixed}


def array_at(address: int, x: Layout) -> np.ndarray:
    """The memory at an address as an array of that layout."""
    low = sum((n - 1) * s for n, s in zip(x.shape, x.strides) if s < 0 and n)
    high = sum((n - 1) * s for n, s in zip(x.shape, x.strides) if s > 0 and n)
    size = x.dtype.itemsize
    block = (ctypes.c_char * ((high - low + 1) * size)).from_address(address + low * size)
    flat = np.frombuffer(block, x.dtype.numpy)
    return np.lib.stride_tricks.as_strided(flat[-low:], x.shape, [s * size for s in x.strides])


def planned(r: Recorder, make: Callable[[Segment], Plan] = plan) -> tuple[Plan, dict[int, np.ndarray]]:
    """The plan, and the fixed values after it ran twice, the second time on fresh inputs."""
    p = make(r.segment)
    program = Program(p, Memory)
    fixed: dict[int, np.ndarray] = {}
    for _ in range(2):
        for n, v in enumerate(p.values):
            if v.fixed:
                new = np.copy(r.arrays[n]) if n in r.arrays else np.zeros(max(v.layout.size, 1), v.layout.dtype.numpy)
                fixed[n] = new
                program.bind(n, new.ctypes.data)
        assert program.run() == 0
    return p, fixed


def agree(r: Recorder, ulps: float = 0.0) -> Plan:
    """Compare the plan's results with those of the rows one by one: to the bit, or within ulps of the largest element."""
    want = one_by_one(r)
    p, have = planned(r)
    for n in want:
        a, b = want[n].ravel(), have[n].ravel()
        if a.dtype.kind != "f" or not ulps:
            np.testing.assert_array_equal(a, b, err_msg=f"value {n}")
            continue
        finite = np.isfinite(a)
        np.testing.assert_array_equal(a[~finite], b[~finite], err_msg=f"value {n}")
        scale = np.float32(np.abs(a[finite]).max(initial=0.0))  # a float64 may have been computed from float32
        np.testing.assert_allclose(a[finite], b[finite], rtol=0, atol=ulps * np.spacing(scale), err_msg=f"value {n}")
    check(r.segment, p)
    return p


def check(segment: Segment, p: Plan, stops: bool = True) -> None:
    """What is true of every plan: aligned places without overlap while both values live, and every fixed value written.

    stops: a row that fails stops the program, as on the host. A GPU's queue goes on, and the failure is told later.
    """
    lives: dict[int, list[int]] = {}
    for at, record in enumerate(p.records):
        for v in record.values:
            base = p.values[v].base
            lives.setdefault(v if base is None else base, []).append(at)
    placed = [
        (p.places[v], p.places[v] + p.values[v].layout.nbytes, min(at), max(at), v)
        for v, at in lives.items()
        if v in p.places
    ]
    for place, end, *_ in placed:
        assert place % 64 == 0
        assert end <= p.arena
    for a in placed:
        for b in placed:
            if (
                a[4] < b[4] and a[0] < b[1] and b[0] < a[1]
            ):  # they share memory: then not at one time, or handed over in place
                assert a[3] <= b[2] or b[3] <= a[2], (a, b)
    assert {v for v in lives if not p.values[v].fixed} <= set(p.places)
    assert explain(p)
    for number, row in enumerate(segment.rows):
        if stops and row.op.name == "take_kernel":
            check_failure(segment, p, number)


def check_failure(segment: Segment, p: Plan, number: int) -> None:
    """If this row failed, what was recorded before it would have happened, and no assignment after it."""
    place = {row: at for at, record in enumerate(p.records) for row in record.rows}
    if number not in place:  # an equal row, before it, stands for it
        return
    written: dict[int, list[int]] = {}
    for at, record in enumerate(p.records):
        for v in record.values[len(record.values) - record.outputs :]:
            base = p.values[v].base
            written.setdefault(v if base is None else base, []).append(at)
    assigned = {root(segment, o) for row in segment.rows if row.assigns for o in row.outs}
    for other, row in enumerate(segment.rows):
        if row.assigns:
            assert (place[other] < place[number]) == (other < number)
        elif other < number:
            for o in row.outs:
                if segment.values[o].fixed and o not in assigned:
                    assert max(written[o]) < place[number]


def root(segment: Segment, number: int) -> int:
    base = segment.values[number].base
    return number if base is None else base


def arrays(seed: int, *shapes, dtype="f4") -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(0.5, 1.5, s).astype(dtype) for s in shapes]
