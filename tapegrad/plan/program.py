"""Plans made ready to run: one table of records and one block of words for the compiled sweep."""

from __future__ import annotations

import ctypes
import os
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import KernelError
from ..kernels import sweep
from ..kernels.blocks import refuse
from ..kernels.handoff import RECORD
from ..kernels.run import can_split, get_num_threads, share_words, whole_lines
from ..kernels.threads import POOL
from .segment import Value

LONG = 30_000  # ns of work from which Python's lock is dropped: taking it back costs 5 to 50 µs where others want it
BYTES_PER_NS = 20  # that a kernel moves, at a guess
GRAIN_NS = 25_000  # that `Step.grain` items take
RECORD_NS = 30  # that the smallest kernel takes


@dataclass(frozen=True, slots=True)
class Record:
    """One kernel call of a plan.

    `step.operands` index into `values`, which holds value numbers: the launch's inputs, then its outputs, of which there are
    `outputs`. `title` names the work for people, `rows` are the numbers of the segment rows that it computes, `moved` the
    bytes read and written.
    """

    step: Any  # a Step, or on a GPU a Launch
    values: tuple[int, ...]
    title: str
    rows: tuple[int, ...]
    moved: int = 0
    outputs: int = 1


@dataclass(slots=True)
class Plan:
    """What a segment compiles to: kernel calls in running order and a place for every value that exists.

    `values`: the segment's, then those that planning added. `places`: number of each value that exists and is neither
    fixed nor a view -> byte offset in the arena, a multiple of 64. `arena`: the arena's size in bytes. `unplanned`: the
    bytes that all such values of the segment, dead ones too, would take with memory of their own. `fused`: the number of
    rows that went into fused kernels.
    """

    values: list[Value]
    records: list[Record]
    places: dict[int, int]
    arena: int
    unplanned: int
    fused: int


class Memory(Protocol):
    """A block of memory, free again when the object goes."""

    address: int


class Program:
    """A plan in memory, ready to run: arena, scratch memory, the words of every kernel, the table that the sweep walks.

    `allocate(nbytes)` gives 64-byte aligned memory, which may be shared with other programs that do not run at the same
    time. Each fixed value that a record uses has to be bound before the first run, and again when its address changes.
    """

    __slots__ = (
        "__weakref__",
        "_allocate",
        "_at",
        "_call",
        "_frame",
        "_memory",
        "_size",
        "_splits",
        "_spots",
        "_table",
        "_threads",
        "_words",
        "_workspaces",
        "plan",
    )

    def __init__(self, plan: Plan, allocate: Callable[[int], Memory]):
        self.plan = plan
        self._at = -1  # number of the record that failed last
        self._allocate = allocate
        self._memory: Memory | None = None
        self._size = -1
        self._threads = 1
        self._splits = tuple([i for i, r in enumerate(plan.records) if can_split(r.step)])
        self._lay_out()
        if self._splits:
            POOL.start(get_num_threads())
        self._fit()
        self._call: Callable[[int], int] = self._first_call
        _programs.add(self)

    # laying out

    def _lay_out(self) -> None:
        """Write frame, table and static words; note where the address of each value and of the workspace goes."""
        records = self.plan.records
        starts = [sweep.FRAME + RECORD * len(records)]
        for r in records:
            starts.append(starts[-1] + len(r.step.operands) + (r.step.workspace > 0) + len(r.step.static))
        self._words = words = (ctypes.c_int64 * starts[-1])()
        self._frame = address = ctypes.addressof(words)
        self._table = sweep.FRAME
        self._spots: dict[int, list[tuple[int, int]]] = {}  # value number -> (index of a word, bytes from its address)
        self._workspaces: list[int] = []  # indices of words
        words[0], words[1] = address + 8 * self._table, len(records)
        for i, (r, start) in enumerate(zip(records, starts, strict=False)):
            step, at = r.step, start
            for operand in step.operands:
                root, offset = self._root(r.values[operand], r)
                self._spots.setdefault(root, []).append((at, offset))
                at += 1
            if step.workspace:
                self._workspaces.append(at)
                at += 1
            words[at : starts[i + 1]] = list(step.static)
            self._write(i, share_words(step, 1))
            words[self._table + RECORD * i + 1] = address + 8 * start

    def _write(self, i: int, row: tuple[int, ...]) -> None:
        """Write record `i`, except for where its words are."""
        at = self._table + RECORD * i
        self._words[at] = row[0]
        self._words[at + 2 : at + RECORD] = list(row[2:])

    def _root(self, number: int, record: Record) -> tuple[int, int]:
        """The value whose memory holds value `number`, and at which byte it begins there."""
        value, offset = self.plan.values[number], 0
        if value.base is not None:
            offset = value.offset * value.layout.dtype.itemsize
            number = value.base
        if not self.plan.values[number].fixed and number not in self.plan.places:
            raise KernelError(
                f"{record.title}: value {number}, {self.plan.values[number].layout}, has no place in the plan. This is a fault in "
                "tapegrad, not in your code."
            )
        return number, offset

    def _fit(self) -> None:
        """Take memory for the present number of threads, and say how the table is split among them."""
        words, plan = self._words, self.plan
        threads = self._threads = POOL.limit if self._splits else 1
        each = max((whole_lines(r.step.workspace) for r in plan.records), default=0)
        arena = whole_lines(plan.arena)
        size = arena + each * threads
        if size > self._size:
            self._memory, self._size = (self._allocate(size) if size else None), size
            base = self._memory.address if self._memory else 0
            for number, place in plan.places.items():
                self.bind(number, base + place)
            for i in self._workspaces:
                words[i] = base + arena
        for i in self._splits:
            self._write(i, share_words(plan.records[i].step, threads))
        long = self._long()
        words[2] = POOL.address if threads > 1 or long else 0
        words[6] = threads > 1 and long

    def _long(self) -> bool:
        """Whether a run, on one thread, takes long enough to let go of Python's lock."""
        return sum(nanoseconds(r) for r in self.plan.records) > LONG

    # addresses

    def bind(self, value: int, address: int) -> None:
        """Say where value number `value` lies. Views of it follow; a value that no record uses is ignored."""
        words = self._words
        for i, offset in self._spots.get(value, ()):
            words[i] = address + offset

    def address(self, value: int) -> int:
        """Where value number `value`, which a record uses or whose base one does, lies now."""
        v, offset = self.plan.values[value], 0
        if v.base is not None:
            value, offset = v.base, v.offset * v.layout.dtype.itemsize
        i, beyond = self._spots[value][0]
        return self._words[i] - beyond + offset

    # running

    def run(self) -> int:
        """Run all records in order: 0, or the status of the one that failed, which is then `failed`."""
        if self._splits:
            if self._threads != POOL.limit:
                self._fit()
            if POOL.resting:
                POOL.wake()
        code = self._call(self._frame)
        return self._fail(code) if code else 0

    def _fail(self, code: int) -> int:
        self._at = code >> 32
        return code & 0xFFFFFFFF

    def notes(self) -> str:
        """What is to be said of how it runs beside the plan: nothing."""
        return ""

    @property
    def failed(self) -> Record | None:
        """The record at which a run stopped last."""
        return None if self._at < 0 else self.plan.records[self._at]

    def _first_call(self, frame: int) -> int:
        """The first run: see that all values are bound."""
        missing = sorted(v for v, spots in self._spots.items() if self._words[spots[0][0]] == spots[0][1])
        if missing:
            raise KernelError(
                f"values {', '.join(map(str, missing))} of the program were not bound to memory. This is a fault in tapegrad, "
                "not in your code."
            )
        self._call = sweep.function(not self._long())
        return self._call(frame)

    def run_timed(self) -> list[tuple[str, int, int]]:
        """Run, and give (title, start, duration) of each record, in nanoseconds of `time.perf_counter_ns`."""
        count, words = len(self.plan.records), self._words
        clock = sweep.clock()
        if clock is None:
            return self._run_slowly()
        stamps = (ctypes.c_int64 * (sweep.STAMP * (count + 1)))()
        words[3], words[4], words[5] = ctypes.addressof(stamps), *clock
        try:
            status = self.run()
        finally:
            words[3] = 0
        if status:
            count = self._at + 1
        times = [stamps[2 * i] * 1_000_000_000 + stamps[2 * i + 1] for i in range(count + 1)]
        return [(r.title, t, u - t) for r, t, u in zip(self.plan.records, times, times[1:])]

    def _run_slowly(self) -> list[tuple[str, int, int]]:
        """`run_timed` by a call for each record, some 0.3 µs of which are counted as the kernel's."""
        words, frame = self._words, self._frame
        first, count = words[0], words[1]
        found = []
        words[1] = 1
        try:
            for i, record in enumerate(self.plan.records):
                words[0] = first + 8 * RECORD * i
                start = time.perf_counter_ns()
                code = self._call(frame)
                found.append((record.title, start, time.perf_counter_ns() - start))
                if code:
                    self._fail(code | i << 32)
                    break
        finally:
            words[0], words[1] = first, count
        return found


def nanoseconds(record: Record) -> float:
    """About how long a record takes on one thread."""
    step = record.step
    computing = step.extent / step.grain * GRAIN_NS if step.grain else 0.0
    return max(RECORD_NS, record.moved / BYTES_PER_NS, computing)


_programs: weakref.WeakSet[Program] = weakref.WeakSet()


def _forked() -> None:
    """Make every program of the parent raise in the child of a fork."""
    for program in list(_programs):
        program._call = refuse


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
