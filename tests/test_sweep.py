"""The compiled sweep: order, statuses, views and bindings, scratch memory, denormals, times, and its use of threads."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import tapegrad as tg
from tapegrad.dtypes import float32, int64
from tapegrad.errors import KernelError
from tapegrad.kernels import handoff, jit, processor, sweep
from tapegrad.kernels.launch import Step
from tapegrad.kernels.prepare import CPU
from tapegrad.kernels.status import INDEX
from tapegrad.kernels.threads import POOL
from tapegrad.layouts import layout
from tapegrad.ops.registry import REGISTRY
from tapegrad.plan.program import Plan, Program, Record
from tapegrad.plan.segment import Value


class Block:
    """64-byte aligned memory; its size and address."""

    def __init__(self, nbytes: int):
        raw = np.zeros(nbytes + 64, np.uint8)
        self.bytes = raw[-raw.ctypes.data % 64 :][:nbytes]
        self.address = self.bytes.ctypes.data


class Memory:
    """An allocator that remembers what it gave."""

    def __init__(self):
        self.blocks: list[Block] = []

    def __call__(self, nbytes: int) -> Block:
        self.blocks.append(Block(nbytes))
        return self.blocks[-1]


@pytest.fixture
def threads():
    before = tg.get_num_threads()
    yield
    tg.set_num_threads(before)


def kernel(name: str, body: str) -> int:
    """A kernel of LLVM IR: `body` sees %args, %begin and %end."""
    text = f"define i32 @{name}(ptr %args, i64 %begin, i64 %end) {{\n{body}\n}}\n"
    return jit.load(name, text, lambda: text)


def word(name: str, index: int) -> str:
    return f"%{name}.p = getelementptr i64, ptr %args, i64 {index}\n%{name} = load i64, ptr %{name}.p\n"


def append() -> int:
    """args: a list whose first element is its length, a number. Append the number; its own value is the status if negative."""
    return kernel(
        "append",
        word("at", 0)
        + word("number", 1)
        + """%list = inttoptr i64 %at to ptr
%n = load i64, ptr %list
%n1 = add i64 %n, 1
store i64 %n1, ptr %list
%here = getelementptr i64, ptr %list, i64 %n1
store i64 %number, ptr %here
%bad = icmp slt i64 %number, 0
%minus = sub i64 0, %number
%code = trunc i64 %minus to i32
%status = select i1 %bad, i32 %code, i32 0
ret i32 %status""",
    )


def count_items() -> int:
    """args: int64 counts, one an item, workspace of 8 bytes per thread. Adds 1 to each item by way of the workspace, slowly."""
    return kernel(
        "count_items",
        word("at", 0)
        + word("work", 1)
        + """%counts = inttoptr i64 %at to ptr
%scratch = inttoptr i64 %work to ptr
br label %loop
loop:
%i = phi i64 [%begin, %0], [%i1, %slow]
%here = getelementptr i64, ptr %counts, i64 %i
%old = load i64, ptr %here
store volatile i64 %old, ptr %scratch
br label %wait
wait:
%k = phi i64 [0, %loop], [%k1, %wait]
%k1 = add i64 %k, 1
store volatile i64 %old, ptr %scratch
%more = icmp slt i64 %k1, 300
br i1 %more, label %wait, label %slow
slow:
%back = load volatile i64, ptr %scratch
%new = add i64 %back, 1
store i64 %new, ptr %here
%i1 = add i64 %i, 1
%on = icmp slt i64 %i1, %end
br i1 %on, label %loop, label %done
done:
ret i32 0""",
    )


def program(steps, values, places=None, arena=0, memory=None, moved=0) -> Program:
    """A program of (step, value numbers) pairs."""
    records = [Record(s, v, f"record {i}", (i,), moved) for i, (s, v) in enumerate(steps)]
    return Program(Plan(list(values), records, places or {}, arena, 0, 0), memory or Memory())


def op_program(name, arrays, attrs=None, repeat=1) -> tuple[Program, list[np.ndarray]]:
    """A program of one op on those arrays, bound; its outputs, and behind them the arrays: keep them while it runs."""
    ins = tuple(layout(a.shape, float32) for a in arrays)
    prepared = CPU().prepare(REGISTRY[name], ins, attrs or {})
    layouts = [*ins, *prepared.outs]
    moved = sum(x.nbytes for x in layouts)
    made = program(
        [(s, tuple(range(len(layouts)))) for s in prepared.steps] * repeat,
        [Value(x, True) for x in layouts],
        moved=moved,
    )
    outs = [np.zeros(x.shape, np.float32) for x in prepared.outs]
    for i, a in enumerate([*arrays, *outs]):
        made.bind(i, a.ctypes.data)
    return made, [*outs, *arrays]


LIST = Value(layout((64,), int64), True)


def test_records_run_in_order():
    step = append()
    made = program([(Step(step, (0,), (n,)), (0,)) for n in (3, 1, 4, 1, 5)], [LIST])
    seen = np.zeros(64, np.int64)
    made.bind(0, seen.ctypes.data)
    assert made.run() == 0 and made.run() == 0
    assert seen[: seen[0] + 1].tolist() == [10, 3, 1, 4, 1, 5, 3, 1, 4, 1, 5]


def test_an_empty_program():
    made = program([], [])
    assert made.run() == 0
    assert made.run_timed() == []


def test_the_first_failure_stops_the_sweep():
    step = append()
    made = program([(Step(step, (0,), (n,)), (0,)) for n in (3, -INDEX, 4, -7)], [LIST])
    seen = np.zeros(64, np.int64)
    made.bind(0, seen.ctypes.data)
    assert made.run() == INDEX
    assert made.failed is made.plan.records[1]
    assert seen[0] == 2
    assert [title for title, _, _ in made.run_timed()] == ["record 0", "record 1"]


def test_views_and_places_follow_what_they_lie_in():
    """Value 1 is a view at element 3 of value 0; value 2 lies in the arena, value 3 views it."""
    step = append()
    values = [LIST, Value(layout((8,), int64), base=0, offset=3), Value(layout((64,), int64)), None]
    values[3] = Value(layout((8,), int64), base=2, offset=5)
    memory = Memory()
    made = program([(Step(step, (0,), (10 + i,)), (i,)) for i in range(4)], values, {2: 128}, 1024, memory)
    for _ in range(2):  # again, elsewhere
        seen = np.zeros(64, np.int64)
        made.bind(0, seen.ctypes.data)
        assert made.address(1) == seen.ctypes.data + 24
        (block,) = memory.blocks
        arena = block.bytes.view(np.int64)
        arena[:] = 0
        assert made.run() == 0
        assert (seen[0], seen[1], seen[3], seen[4]) == (1, 10, 1, 11)
        assert (arena[16], arena[17], arena[21], arena[22]) == (1, 12, 1, 13)
        assert made.address(2) == block.address + 128 and made.address(3) == block.address + 168
    made.bind(99, 12345)  # of a value that no record uses


def test_what_is_not_bound_or_placed_is_a_sentence():
    step = append()
    made = program([(Step(step, (0,), (1,)), (0,))], [LIST])
    with pytest.raises(KernelError, match="values 0 of the program were not bound"):
        made.run()
    with pytest.raises(KernelError, match="record 0: value 0, .* has no place in the plan"):
        program([(Step(step, (0,), (1,)), (0,))], [Value(layout((64,), int64))])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_thread_has_scratch_memory_of_its_own(threads, count):
    tg.set_num_threads(count)
    memory = Memory()
    step = Step(count_items(), (0,), (), 3000, 10, 8)
    made = program([(step, (0,))] * 3, [Value(layout((3000,), int64), True)], {}, 0, memory)
    counts = np.zeros(3000, np.int64)
    made.bind(0, counts.ctypes.data)
    for _ in range(20):
        assert made.run() == 0
    assert (counts == 60).all()
    assert sum(len(b.bytes) for b in memory.blocks) == 64 * count


def test_more_threads_later(threads):
    tg.set_num_threads(1)
    step = Step(count_items(), (0,), (), 3000, 10, 8)
    made = program(
        [(step, (0,)), (step, (1,))],
        [Value(layout((3000,), int64), True), Value(layout((3000,), int64))],
        {1: 0},
        24000,
    )
    counts = np.zeros(3000, np.int64)
    made.bind(0, counts.ctypes.data)
    for n, threads_now in enumerate((1, 3, 2, 4, 1), 1):
        tg.set_num_threads(threads_now)
        assert made.run() == 0
        assert (counts == n).all()


def test_a_status_comes_back_from_any_chunk(threads):
    """Items from 700 on fail; the highest status of all is the result, with every number of threads."""
    step = kernel(
        "fails_late",
        """%last = icmp sge i64 %end, 3000
%late = icmp sge i64 %end, 2900
%some = select i1 %late, i32 4, i32 0
%status = select i1 %last, i32 9, i32 %some
ret i32 %status""",
    )
    for count in (1, 2, 3):
        tg.set_num_threads(count)
        made = program([(Step(step, (0,), (), 3000, 10), (0,))], [LIST])
        made.bind(0, 64)
        for _ in range(50):
            assert made.run() == 9
        assert made.failed is made.plan.records[0]


CASES = [
    ("add", ((300, 1001), (1001,)), {}),
    ("exp", ((1 << 18,),), {}),
    ("matmul_kernel", ((200, 300), (300, 100)), {}),
]


@pytest.mark.parametrize("name, shapes, attrs", CASES, ids=[c[0] for c in CASES])
def test_results_do_not_depend_on_threads(threads, rng, name, shapes, attrs):
    arrays = [rng.normal(size=s).astype(np.float32) for s in shapes]
    found = []
    for count in (1, 2, 3):
        tg.set_num_threads(count)
        made, outs = op_program(name, arrays, attrs)
        for _ in range(5):
            outs[0][...] = np.nan
            assert made.run() == 0
            found.append(outs[0].copy())
    for other in found[1:]:
        if name == "matmul_kernel":  # by BLAS, which may take another path for smaller pieces
            np.testing.assert_allclose(other, found[0], rtol=1e-5, atol=1e-4)
        else:
            assert other.tobytes() == found[0].tobytes()


def control_word() -> int:
    """The floating-point mode of this thread."""
    if processor.architecture() == "x86_64":
        body = """%at = alloca i32
call void @llvm.x86.sse.stmxcsr(ptr %at)
%word = load i32, ptr %at
%masked = and i32 %word, 65472
ret i32 %masked"""
        text = f"define i32 @mode(ptr %a, i64 %b, i64 %e) {{\n{body}\n}}\ndeclare void @llvm.x86.sse.stmxcsr(ptr)\n"
    else:
        body = "%word = call i64 @llvm.aarch64.get.fpcr()\n%low = trunc i64 %word to i32\nret i32 %low"
        text = f"define i32 @mode(ptr %a, i64 %b, i64 %e) {{\n{body}\n}}\ndeclare i64 @llvm.aarch64.get.fpcr()\n"
    address = jit.load("mode", text, lambda: text)
    return ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)(None, 0, 0)


@pytest.mark.skipif(
    processor.architecture() not in ("x86_64", "aarch64"), reason="this processor's mode is left as it is"
)
@pytest.mark.parametrize("size, count", [(100, 1), (1 << 19, 3)])
def test_denormals_are_flushed_inside_and_only_there(threads, size, count):
    tg.set_num_threads(count)
    tiny = np.full(size, 1e-40, np.float32)
    assert (tiny * np.float32(1.0)).max() > 0
    mode = control_word()
    for name, arrays in (("multiply", [tiny, np.ones_like(tiny)]), ("multiply", [np.sqrt(tiny)] * 2)):
        made, outs = op_program(name, arrays)
        for _ in range(20):
            outs[0][...] = 1.0
            assert made.run() == 0
            assert (outs[0] == 0).all(), name
        made, outs = op_program("multiply", arrays, repeat=2)
        made.run_timed()
        assert (outs[0] == 0).all()
    assert control_word() == mode
    assert (tiny * np.float32(1.0)).max() > 0
    eager = tg.tensor(tiny) * 1.0  # on the same worker threads, in the caller's mode
    assert eager.min().item() > 0


def test_times_of_a_run(monkeypatch):
    for clock in (sweep.clock, lambda: None):
        monkeypatch.setattr(sweep, "clock", clock)
        made, _ = op_program("exp", [np.ones(1 << 20, np.float32)], repeat=3)
        made.run()
        before = time.perf_counter_ns()
        times = made.run_timed()
        after = time.perf_counter_ns()
        assert [t[0] for t in times] == ["record 0", "record 1", "record 2"]
        assert before <= times[0][1] and times[-1][1] + times[-1][2] <= after
        assert all(t[1] + t[2] <= u[1] for t, u in zip(times, times[1:], strict=False))
        assert all(duration > 20_000 for _, _, duration in times)  # a million exponentials
        made.run()  # the stamps are gone


def test_a_long_sweep_lets_other_threads_run(threads):
    """While one sweep of some 0.3 s runs, another thread keeps counting; during short ones nothing is released."""
    tg.set_num_threads(1)
    made, _ = op_program("exp", [np.zeros(1 << 20, np.float32)], repeat=1000)
    made.run()
    ticks, stop = [], threading.Event()

    def count():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    other = threading.Thread(target=count)
    other.start()
    try:
        start = time.perf_counter()
        made.run()
        end = time.perf_counter()
    finally:
        stop.set()
        other.join()
    assert sum(start < t < end for t in ticks) >= 10


def test_two_threads_sweep_at_once(threads):
    """Both get the same bits as alone, whichever of them has the pool."""
    tg.set_num_threads(3)
    rng = np.random.default_rng(5)
    inputs = [[rng.normal(size=(256, 1 << 11)).astype(np.float32) for _ in range(2)] for _ in range(4)]
    wanted = []
    for arrays in inputs:
        made, outs = op_program("divide", arrays, repeat=3)
        made.run()
        wanted.append(outs[0].tobytes())
    wrong: list = []

    def go(arrays, expected):
        made, outs = op_program("divide", arrays, repeat=3)
        for _ in range(30):
            outs[0][...] = np.nan
            if made.run() or outs[0].tobytes() != expected:
                wrong.append(1)

    workers = [threading.Thread(target=go, args=pair) for pair in zip(inputs, wanted, strict=True)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong
    assert ctypes.c_int32.from_address(POOL.address + handoff.ACTIVE).value == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_refused():
    text = f"""
        import os, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import numpy as np
        import tapegrad as tg
        from test_sweep import op_program
        tg.set_num_threads(2)
        made, outs = op_program("exp", [np.zeros(1 << 20, np.float32)])
        made.run()
        child = os.fork()
        if child == 0:
            try:
                made.run()
            except tg.errors.TapeError as error:
                os._exit(0 if "forked child" in str(error) else 3)
            os._exit(4)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
        assert made.run() == 0 and (outs[0] == 1).all()
        print("fine")
        """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(text)], capture_output=True, text=True, timeout=100)
    assert ended.stdout == "fine\n", ended.stderr[-3000:]


def test_running_allocates_nothing():
    memory = Memory()
    step = append()
    made = program([(Step(step, (0,), (1,)), (0,))] * 3, [Value(layout((64,), int64))], {0: 0}, 512, memory)
    for _ in range(3):
        made.run()
        memory.blocks[0].bytes[:] = 0
    assert len(memory.blocks) == 1
