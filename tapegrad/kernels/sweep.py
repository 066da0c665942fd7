"""The compiled driver: walks a table of records, calls their kernels in order, stops at the first that fails.

A frame (words): address of the table, number of records, address of the pool's block (0: nothing is split), address for
time stamps (0: none), address of the clock, the clock's number, and 1 to wake the workers at once. `handoff.py` says what
the words of a record are; the chunk of one that is not to be split is 0. Denormals are flushed to 0 inside, on this
thread and on those that help, and the caller's mode is back afterwards. A record costs about 2 ns above its kernel.
"""

from __future__ import annotations

import ctypes
import sys
import time
from functools import cache

from . import handoff, processor
from .jit import load

FRAME = 8  # words, the last of them unused
STAMP = 2  # words of a time: seconds and nanoseconds


def clock() -> tuple[int, int] | None:
    """The address of `clock_gettime` and the number of the clock of `time.perf_counter_ns`; None where it is another."""
    if not hasattr(time, "CLOCK_MONOTONIC") or sys.platform == "darwin":
        return None
    function = ctypes.CDLL(None).clock_gettime
    return ctypes.cast(function, ctypes.c_void_p).value or 0, time.CLOCK_MONOTONIC


@cache
def function(keeps_lock: bool):
    """`sweep(frame) -> int`: 0, or number of the record that failed << 32 | its status. May keep Python's lock."""
    address = load("sweep", "sweep", lambda: handoff.module(handoff.spread("internal"), driver()))
    return (ctypes.PYFUNCTYPE if keeps_lock else ctypes.CFUNCTYPE)(ctypes.c_int64, ctypes.c_void_p)(address)


def driver() -> str:
    """IR of @sweep."""
    words = "".join(
        f"  %{name}.p = getelementptr i64, ptr %frame, i64 {i}\n  %{name} = load i64, ptr %{name}.p, align 8\n"
        for i, name in enumerate(("rows", "count", "block", "times", "ticks", "which", "wanted"))
    )
    return f"""define i64 @sweep(ptr %frame) {{
entry:
  %mode.at = alloca i32, align 4
{words}  %table = inttoptr i64 %rows to ptr
  %pool = inttoptr i64 %block to ptr
  %stamps = inttoptr i64 %times to ptr
  %clock = inttoptr i64 %ticks to ptr
  %timed = icmp ne i64 %times, 0
  %splits = icmp ne i64 %block, 0
{handoff.field("gate", handoff.GATE)}{handoff.field("sleepers", handoff.SLEEPERS)}{handoff.field("active", handoff.ACTIVE)}
{handoff.field("until", handoff.UNTIL)}{processor.flush("mode")}  br i1 %splits, label %join, label %first
join:
  %callers = atomicrmw add ptr %active, i32 1 monotonic, align 4
  %asleep = load atomic i32, ptr %sleepers monotonic, align 4
  %some_asleep = icmp sgt i32 %asleep, 0
  %wake_wanted = icmp ne i64 %wanted, 0
  %may_wake = and i1 %some_asleep, %wake_wanted
  br i1 %may_wake, label %consider, label %first
consider:
{processor.ticks("now")}  %resume = load atomic i64, ptr %until monotonic, align 8
  %wakes = icmp sge i64 %now, %resume
  br i1 %wakes, label %wake, label %first
wake:
{processor.rouse("%gate", "%asleep")}  br label %first
first:
  br i1 %timed, label %start, label %check
start:
  call i32 %clock(i64 %which, ptr %stamps)
  br label %check
check:
  %some = icmp sgt i64 %count, 0
  br i1 %some, label %loop, label %leave
loop:
  %i = phi i64 [0, %check], [%i1, %next]
  %at = mul i64 %i, {handoff.RECORD}
  %record = getelementptr i64, ptr %table, i64 %at
{handoff.record_field("address", 0)}{handoff.record_field("pointers", 1)}{handoff.record_field("extent", 2)}
{handoff.record_field("chunk", 3)}
  %words = inttoptr i64 %pointers to ptr
  %whole = icmp eq i64 %chunk, 0
  br i1 %whole, label %one, label %many
one:
  %kernel = inttoptr i64 %address to ptr
  %single = call i32 %kernel(ptr %words, i64 0, i64 %extent)
  br label %after
many:
  %shared = call i32 @spread(ptr %pool, ptr %record, ptr %words, i64 1)
  br label %after
after:
  %status = phi i32 [%single, %one], [%shared, %many]
  %i1 = add i64 %i, 1
  br i1 %timed, label %stamp, label %verdict
stamp:
  %place = mul i64 %i1, {STAMP}
  %here = getelementptr i64, ptr %stamps, i64 %place
  call i32 %clock(i64 %which, ptr %here)
  br label %verdict
verdict:
  %fine = icmp eq i32 %status, 0
  br i1 %fine, label %next, label %leave
next:
  %more = icmp slt i64 %i1, %count
  br i1 %more, label %loop, label %leave
leave:
  %code = phi i32 [0, %check], [%status, %verdict], [0, %next]
  %where = phi i64 [0, %check], [%i, %verdict], [0, %next]
  br i1 %splits, label %part, label %end
part:
  %others = atomicrmw sub ptr %active, i32 1 monotonic, align 4
  br label %end
end:
{processor.restore("mode")}  %high = shl i64 %where, 32
  %low = zext i32 %code to i64
  %result = or i64 %high, %low
  ret i64 %result
}}
"""
