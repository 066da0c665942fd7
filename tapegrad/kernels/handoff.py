"""The compiled half of `threads.py`, as LLVM IR: what callers and workers do with the block that they share.

    BUSY      1 while a job is published; who finds it taken runs his job alone. Beside it, the time before which nobody
              splits, see below
    GATE      a count of jobs, OPEN while this one may be entered, and how many workers have entered it
    LEFT      how many of them have left; beside it, 1 if the caller sleeps until the last one leaves
    NEXT      the first item that nobody has claimed; one fetch-and-add claims a chunk
    STATUS    the highest status that a chunk returned
    SLEEPERS  workers that sleep
    JOB       record, words and mode of the job, which only those read who have entered; then how often a caller looks
    LIMIT     threads, the caller included, that may work
    ACTIVE    callers inside sweeps or jobs: where they are as many as LIMIT, all cores have work and nobody splits

A cache line to each. A caller closes the gate when nothing is left to claim and waits until all who entered have left;
it never waits for anybody to enter. Where he waited so long that the job would have been done sooner alone (other
processes have the cores, and a worker lost its own in the middle of a chunk), nobody splits for `PENALTY` times as long.

Record (words): kernel, words, extent, chunk, number of words, place of the workspace's address among them (-1: none),
bytes of workspace per thread, threads that there is workspace for, and 1 if it is large enough for waking a worker that
sleeps.
"""

from __future__ import annotations

from .processor import declarations, flush, restore, rouse, sleep, spin, ticks

BUSY, GATE, LEFT, WAITING, NEXT, STATUS, SLEEPERS, JOB, LIMIT, ACTIVE = 0, 64, 128, 132, 192, 256, 320, 384, 448, 512
PATIENCE, UNTIL = JOB + 24, BUSY + 8
PENALTY = 8  # so at most 1/9 of the time is lost to that
SIZE = 576  # bytes of the block
RECORD = 9  # words
ENTRANTS, OPEN, ONE_JOB = 1023, 1024, 2048  # parts of the gate
COPIED = 256  # words that a worker can copy, in order to put the address of its own workspace among them


def module(*functions: str) -> str:
    """A module of those functions and all that they call."""
    return "\n".join([declarations(), claims(), *functions])


def field(name: str, offset: int) -> str:
    """IR of a pointer %<name> into the pool's block."""
    return f"  %{name} = getelementptr i8, ptr %pool, i64 {offset}\n"


def record_field(name: str, index: int) -> str:
    """IR that loads word `index` of %record."""
    return f"  %{name}.p = getelementptr i64, ptr %record, i64 {index}\n  %{name} = load i64, ptr %{name}.p, align 8\n"


def claims() -> str:
    """IR of @claims: run chunks of a record until none is left; how many it were."""
    return f"""define internal i64 @claims(ptr %pool, ptr %record, ptr %words) {{
entry:
{field("next", NEXT)}{field("status", STATUS)}{record_field("address", 0)}{record_field("extent", 2)}{record_field("chunk", 3)}
  %kernel = inttoptr i64 %address to ptr
  br label %claim
claim:
  %chunks = phi i64 [0, %entry], [%chunks1, %run], [%chunks1, %failed]
  %begin = atomicrmw add ptr %next, i64 %chunk monotonic, align 8
  %some = icmp slt i64 %begin, %extent
  br i1 %some, label %run, label %done
run:
  %chunks1 = add i64 %chunks, 1
  %full = add i64 %begin, %chunk
  %short = icmp slt i64 %extent, %full
  %end = select i1 %short, i64 %extent, i64 %full
  %result = call i32 %kernel(ptr %words, i64 %begin, i64 %end)
  %fine = icmp eq i32 %result, 0
  br i1 %fine, label %claim, label %failed
failed:
  %before = atomicrmw umax ptr %status, i32 %result monotonic, align 4
  br label %claim
done:
  ret i64 %chunks
}}
"""


def spread(linkage: str = "") -> str:
    """IR of @spread(pool, record, words, flushed): run a record on all threads; the status.

    `flushed`: the caller has denormals flushed, so workers shall, too. Alone, the chunks are the same, in order: what a
    library does may depend on them in the last bit.
    """
    return f"""define {linkage} i32 @spread(ptr %pool, ptr %record, ptr %words, i64 %flushed) {{
entry:
{field("busy", BUSY)}{field("gate", GATE)}{field("left", LEFT)}{field("waiting", WAITING)}{field("next", NEXT)}
{field("status", STATUS)}{field("sleepers", SLEEPERS)}{field("until", UNTIL)}
{field("job", JOB)}{field("limit", LIMIT)}{field("active", ACTIVE)}
  %most = load atomic i32, ptr %limit monotonic, align 4
  %callers = load atomic i32, ptr %active monotonic, align 4
  %room = icmp slt i32 %callers, %most
  br i1 %room, label %try, label %alone
try:
  %taken = cmpxchg ptr %busy, i32 0, i32 1 acquire monotonic, align 4
  %mine = extractvalue {{ i32, i1 }} %taken, 1
  br i1 %mine, label %first, label %alone
first:
{ticks("t0")}  %resume = load atomic i64, ptr %until monotonic, align 8
  %early = icmp slt i64 %t0, %resume
  %dozing = load atomic i32, ptr %sleepers monotonic, align 4
  %workers = sub i32 %most, 1
  %ready = icmp slt i32 %dozing, %workers
{record_field("wakes", 8)}  %large = icmp ne i64 %wakes, 0
  %worth = or i1 %ready, %large
  %late = xor i1 %early, true
  %goes = and i1 %worth, %late
  br i1 %goes, label %publish, label %give
give:
  store atomic i32 0, ptr %busy release, align 4
  br label %alone
publish:
  %job1 = getelementptr i64, ptr %job, i64 1
  %job2 = getelementptr i64, ptr %job, i64 2
  store ptr %record, ptr %job, align 8
  store ptr %words, ptr %job1, align 8
  store i64 %flushed, ptr %job2, align 8
  store atomic i64 0, ptr %next monotonic, align 8
  store atomic i32 0, ptr %status monotonic, align 4
  store atomic i32 0, ptr %left monotonic, align 4
  store atomic i32 0, ptr %waiting monotonic, align 4
  %last = load atomic i32, ptr %gate monotonic, align 4
  %kept = and i32 %last, {-ONE_JOB}
  %count = add i32 %kept, {ONE_JOB + OPEN}
  store atomic i32 %count, ptr %gate seq_cst, align 4
  %asleep = load atomic i32, ptr %sleepers seq_cst, align 4
  %some_asleep = icmp sgt i32 %asleep, 0
  %rouses = and i1 %some_asleep, %large
  br i1 %rouses, label %wake, label %work
wake:
{rouse("%gate", "%asleep")}  br label %work
work:
  %mine_done = call i64 @claims(ptr %pool, ptr %record, ptr %words)
{ticks("t1")}  %closed = atomicrmw and ptr %gate, i32 {~OPEN} acq_rel, align 4
  %entered = and i32 %closed, {ENTRANTS}
  br label %look
look:
  %tries = phi i64 [0, %work], [%tries1, %again]
  %gone = load atomic i32, ptr %left acquire, align 4
  %over = icmp eq i32 %gone, %entered
  br i1 %over, label %finish, label %more
more:
  %tries1 = add i64 %tries, 1
  %job3 = getelementptr i64, ptr %job, i64 3
  %patience = load i64, ptr %job3, align 8
  %spins = icmp slt i64 %tries, %patience
  br i1 %spins, label %spin, label %rest
spin:
{spin("spin", "again")}rest:
  store atomic i32 1, ptr %waiting seq_cst, align 4
  %still = load atomic i32, ptr %left seq_cst, align 4
  %now = icmp eq i32 %still, %entered
  br i1 %now, label %finish, label %doze
doze:
{sleep("%left", "%still")}  br label %again
again:
  br label %look
finish:
{ticks("t2")}{record_field("items", 2)}{record_field("each", 3)}
  %rounded = add i64 %items, %each
  %rounded1 = sub i64 %rounded, 1
  %chunks = sdiv i64 %rounded1, %each
  %worked = sub i64 %t1, %t0
  %took = sub i64 %t2, %t0
  %spent = mul i64 %took, %mine_done
  %alone_would = mul i64 %worked, %chunks
  %waited = icmp sgt i64 %tries, 0
  %longer = icmp sgt i64 %spent, %alone_would
  %loss = and i1 %waited, %longer
  br i1 %loss, label %penalty, label %release
penalty:
  %lost = sub i64 %t2, %t1
  %pause = mul i64 %lost, {PENALTY}
  %resume1 = add i64 %t2, %pause
  store atomic i64 %resume1, ptr %until monotonic, align 8
  br label %release
release:
  %result = load atomic i32, ptr %status monotonic, align 4
  store atomic i32 0, ptr %busy release, align 4
  ret i32 %result
alone:
{record_field("address", 0)}{record_field("extent", 2)}{record_field("chunk", 3)}
  %kernel = inttoptr i64 %address to ptr
  br label %single
single:
  %begin = phi i64 [0, %alone], [%full, %single]
  %worst = phi i32 [0, %alone], [%worst1, %single]
  %full = add i64 %begin, %chunk
  %short = icmp slt i64 %extent, %full
  %end = select i1 %short, i64 %extent, i64 %full
  %one = call i32 %kernel(ptr %words, i64 %begin, i64 %end)
  %worse = icmp ugt i32 %one, %worst
  %worst1 = select i1 %worse, i32 %one, i32 %worst
  %on = icmp slt i64 %full, %extent
  br i1 %on, label %single, label %ended
ended:
  ret i32 %worst1
}}
"""


def share() -> str:
    """IR of @share: `spread` for a caller that is not inside a sweep."""
    return f"""define i32 @share(ptr %pool, ptr %record, ptr %words) {{
{field("active", ACTIVE)}  %before = atomicrmw add ptr %active, i32 1 monotonic, align 4
  %result = call i32 @spread(ptr %pool, ptr %record, ptr %words, i64 0)
  %after = atomicrmw sub ptr %active, i32 1 monotonic, align 4
  ret i32 %result
}}
"""


def admit() -> str:
    """IR of @admit(pool, limit): set LIMIT and let sleeping workers look at it."""
    return f"""define void @admit(ptr %pool, i32 %count) {{
{field("gate", GATE)}{field("limit", LIMIT)}  store atomic i32 %count, ptr %limit seq_cst, align 4
  %before = atomicrmw add ptr %gate, i32 {ONE_JOB} seq_cst, align 4
{rouse("%gate", str(ENTRANTS))}  ret void
}}
"""


def work() -> str:
    """IR of @work(pool, index, spins, sleeps): serve jobs as thread `index`, from 1, until LIMIT excludes it: 0.

    After `spins` looks without a job it sleeps, or returns 1 where `sleeps` is 0.
    """
    return f"""define i32 @work(ptr %pool, i32 %index, i64 %spins, i32 %sleeps) {{
entry:
{field("gate", GATE)}{field("left", LEFT)}{field("waiting", WAITING)}{field("sleepers", SLEEPERS)}{field("limit", LIMIT)}
  br label %fresh
fresh:
  %seen = phi i32 [-1, %entry], [%seen, %slept], [%epoch, %leave], [%epoch, %signal]
  br label %look
look:
  %tries = phi i64 [0, %fresh], [%tries1, %spin], [%tries1, %spin.yield], [%tries, %enter]
  %most = load atomic i32, ptr %limit monotonic, align 4
  %wanted = icmp slt i32 %index, %most
  br i1 %wanted, label %check, label %dismissed
dismissed:
  ret i32 0
check:
  %value = load atomic i32, ptr %gate acquire, align 4
  %epoch = lshr i32 %value, 11
  %open = and i32 %value, {OPEN}
  %is_open = icmp ne i32 %open, 0
  %is_new = icmp ne i32 %epoch, %seen
  %may = and i1 %is_open, %is_new
  br i1 %may, label %enter, label %none
enter:
  %entered = add i32 %value, 1
  %pair = cmpxchg ptr %gate, i32 %value, i32 %entered acq_rel monotonic, align 4
  %inside = extractvalue {{ i32, i1 }} %pair, 1
  br i1 %inside, label %serve, label %look
serve:
  call void @serve(ptr %pool, i32 %index)
  br label %leave
leave:
  %others = atomicrmw add ptr %left, i32 1 seq_cst, align 4
  %awaited = load atomic i32, ptr %waiting seq_cst, align 4
  %quiet = icmp eq i32 %awaited, 0
  br i1 %quiet, label %fresh, label %signal
signal:
{rouse("%left", "1")}  br label %fresh
none:
  %tries1 = add i64 %tries, 1
  %patient = icmp slt i64 %tries1, %spins
  br i1 %patient, label %spin, label %tired
spin:
{spin("spin", "look")}tired:
  %stays = icmp ne i32 %sleeps, 0
  br i1 %stays, label %doze, label %idle
idle:
  ret i32 1
doze:
  %more = atomicrmw add ptr %sleepers, i32 1 seq_cst, align 4
{sleep("%gate", "%value")}  %fewer = atomicrmw sub ptr %sleepers, i32 1 seq_cst, align 4
  br label %slept
slept:
  br label %fresh
}}

define internal void @serve(ptr %pool, i32 %index) {{
entry:
  %mode.at = alloca i32, align 4
  %mine = alloca [{COPIED} x i64], align 8
{field("job", JOB)}
  %job1 = getelementptr i64, ptr %job, i64 1
  %job2 = getelementptr i64, ptr %job, i64 2
  %record = load ptr, ptr %job, align 8
  %words = load ptr, ptr %job1, align 8
  %flushed = load i64, ptr %job2, align 8
{record_field("position", 5)}  %needs = icmp sge i64 %position, 0
  br i1 %needs, label %own, label %mode
own:
{record_field("slots", 7)}  %self = sext i32 %index to i64
  %fits = icmp slt i64 %self, %slots
  br i1 %fits, label %copy, label %out
copy:
{record_field("count", 4)}{record_field("stride", 6)}  %bytes = mul i64 %count, 8
  call void @llvm.memcpy.p0.p0.i64(ptr align 8 %mine, ptr align 8 %words, i64 %bytes, i1 false)
  %place = getelementptr i64, ptr %mine, i64 %position
  %first = load i64, ptr %place, align 8
  %shift = mul i64 %self, %stride
  %there = add i64 %first, %shift
  store i64 %there, ptr %place, align 8
  br label %mode
mode:
  %args = phi ptr [%words, %entry], [%mine, %copy]
  %strict = icmp eq i64 %flushed, 0
  br i1 %strict, label %plain, label %flushing
plain:
  call i64 @claims(ptr %pool, ptr %record, ptr %args)
  br label %out
flushing:
{flush("mode")}  call i64 @claims(ptr %pool, ptr %record, ptr %args)
{restore("mode")}  br label %out
out:
  ret void
}}
"""
