"""Session: one iteration that repeats. See docs/design/sessions.md."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

from ... import config, precision
from ...errors import TapeError
from ...ops import registry
from ..spaces import allocations
from ..state import line_of, local, order, user_place
from ..tensor import leaf_changes, passes
from . import keep, record, run
from .calls import Calls
from .routine import Routine, learn
from .rows import End, SessionRow
from .stats import Stats, explain, figures, trace

VARIANTS = 8  # recorded paths that a session keeps
WINDOW = (
    32  # of so many passes half may be recordings; with more, the session runs eagerly for a while, each time longer
)


class Session(Calls):
    """An iteration that repeats: its body is recorded once, then matched, and what it computes runs as compiled code.

    Use it as `with session:` around the body, or as a decorator. The Python code of the body runs every time; every value is
    what eager execution gives. Nothing runs before a value is needed, or the body ends.

    >>> import tapegrad as tg
    >>> x, total = tg.tensor([1.0, 2.0]), 0.0
    >>> session = tg.Session()
    >>> for i in range(4):
    ...     with session:
    ...         y = (x * i).sum()
    ...     total += y.item()
    >>> total, session.stats.replays
    (18.0, 3)
    """

    def reset(self) -> None:
        super().reset()
        self.misses = self.seen = self.skip = 0  # recordings among so many passes; passes to run eagerly
        self.patience = 8 * WINDOW
        self.warned = False
        self.fit = False  # for another pass as it is: the last one left nothing behind

    # entering and leaving

    def __enter__(self) -> Session:
        state = local.state
        if self.depth or not self.lock.acquire(False):
            return self.enter_again(state)
        self.depth, self.state = 1, state
        registry.sessions_used = True
        if state.session is not None or state.anomaly or self.skip or config.session_off():
            return self.stand_aside(state)
        if self.fit:
            self.usual = True
        else:
            self.begin()
        self.fit = False
        self.counts.iterations += 1
        passes[0] = self.stamp = self.first_pass = passes[0] + 1
        self.base = order()
        state.session, state.moment = self, self.moment
        if self.seen_changes != leaf_changes[0]:
            self.seen_changes = leaf_changes[0]
            self.check_slots()
        root = self.settled = self.root
        if root.children:
            self.replaying = True
            self.cursor.next = root.next
        else:
            self.record_from(root)
        if not state.recording:
            self.mode(False)
        if precision.used:
            self.mode(precision.mode())
        return self

    def enter_again(self, state) -> Session:
        """Enter a session that is in use."""
        if not self.depth:
            raise TapeError("a session was entered by two threads at once; make a session for each thread")
        if self.state is not state:
            raise TapeError(
                f"a session was entered in thread {state.thread!r} while thread {self.state.thread!r} is inside it; "
                "make a session for each thread"
            )
        self.depth += 1
        return self

    def stand_aside(self, state) -> Session:
        """A pass that is another session's, or nobody's."""
        self.absorbed = 1
        if state.session is None and not state.anomaly and not config.session_off():
            self.skip -= 1
            self.counts.iterations += 1
            self.counts.eager += 1
        return self

    def __exit__(self, kind, error, _traceback) -> None:
        routine = self.routine
        if (
            routine is not None
            and self.cursor.next is routine.end
            and self.usual
            and kind is None
            and self.depth == 1
            and routine.fits(self)
        ):
            self.end_as_before(routine)
            return
        if not self.depth:
            raise TapeError("a session was left that was not entered; use it as `with session:`")
        if self.depth > 1:
            self.depth -= 1
            return
        try:
            if not self.absorbed and self.state.session is self:
                self.finish(failed=kind is not None)
        finally:
            self.leave()

    def leave(self) -> None:
        """Be entered no longer."""
        state = self.state
        if state.session is self:
            state.session = None
        if not self.absorbed:
            state.moment = None
        self.depth = self.absorbed = 0
        self.replaying = self.slots_changed = False
        self.cursor.next = self.nowhere
        self.lock.release()

    def end_as_before(self, routine: Routine) -> None:
        """End a pass in which nothing was out of the ordinary."""
        try:
            routine.run(self)
        except BaseException as failure:
            self.recover(routine, failure)
            raise
        self.undo.clear()
        self.gradients.clear()
        self.spans.clear()
        self.counts.replays += 1
        self.seen += 1
        if self.seen > WINDOW:
            self.seen = self.misses = 0
        routine.end.used = self.stamp
        self.fit = True
        state = self.state
        state.session = state.moment = None
        self.depth = 0
        self.replaying = False
        self.cursor.next = self.nowhere
        self.lock.release()

    def recover(self, routine: Routine, failure: BaseException) -> None:
        """A routine's program failed: end the pass as any other."""
        self.routine, self.end = None, routine.end
        try:
            for gradients in self.gradients:
                gradients.cover.lift()
            self.settled = routine.end.prev
            run.explain_failure(self, routine.execution, failure)
            self.cursor.next = self.nowhere
            keep.finish(self)
            self.count(failed=True)
        finally:
            self.leave()

    def finish(self, failed: bool) -> None:
        """Run what is pending, hand out what is held, and count."""
        self.end = self.cursor.next
        self.routine = None
        try:
            if self.replaying:
                run.sync(self)
        finally:
            self.cursor.next = self.nowhere
            keep.finish(self)
            if self.replaying and not failed and type(self.end) is End:
                self.routine = learn(self, self.end)
            self.count(failed)

    def count(self, failed: bool) -> None:
        """Statistics, the variants' ages, and when to stop recording."""
        stats = self.counts
        self.seen += 1
        if self.seen > WINDOW:
            self.seen = self.misses = 0
        if self.planned or not self.replaying:
            stats.warm = allocations()
        if self.ran:
            self.executions = self.ran
        if self.replaying or not self.pass_rows:
            stats.replays += 1
            end = self.end
            if type(end) is End:
                end.used = self.stamp
            return
        stats.recordings += 1
        end = self.tail.next
        if type(end) is End and end not in self.ends:
            end.used = self.stamp
            self.ends.append(end)
        self.ends = [e for e in self.ends if e.prev.next is e]
        while len(self.ends) > VARIANTS:
            oldest = min(self.ends, key=lambda e: e.used)
            self.ends.remove(oldest)
            record.prune(self, oldest)
        self.misses += 1
        if self.misses > WINDOW // 2:
            self.warn()
            self.misses = self.seen = 0
            self.skip = self.patience
            self.patience = min(4 * self.patience, 1 << 16)

    def warn(self) -> None:
        """Say once that the session keeps recording, and where the paths part."""
        if self.warned:
            return
        self.warned = True
        row = self.tail
        while row.prev is not None and len(row.prev.children) < 2:
            row = row.prev
        what = getattr(row.op, "title", getattr(row.op, "__name__", row.op)) or row.kind
        name, number = user_place() or ("", 0)
        warnings.warn_explicit(
            f"a session recorded {self.misses} of its last {self.seen} passes: at {what}, {line_of(row.place)}, they differ. "
            "Shapes, branches or arguments that change in every pass are best kept outside the session.",
            RuntimeWarning,
            name,
            number,
        )

    def __call__(self, fn: Callable) -> Callable:
        if not callable(fn):
            raise TypeError(f"session: wanted a function to decorate, not {fn!r}; use `with session:` around a block")

        @functools.wraps(fn)
        def wrapped(*args, **kwargs):
            with self:
                return fn(*args, **kwargs)

        wrapped.session = self  # type: ignore[attr-defined]
        return wrapped

    def abandon(self) -> None:
        """Run the rest of the pass eagerly, unrecorded."""
        if self.replaying:
            self.diverge()
        self.state.session = self.state.moment = None
        self.finish(failed=False)
        self.absorbed = 1

    # what users see

    def clear(self) -> None:
        """Forget everything recorded, and free its buffers."""
        if self.depth:
            raise TapeError("clear: the session is in use; call it after the `with` block")
        rows: list[SessionRow] = []
        stack = [self.root]
        while stack:
            row = stack.pop()
            rows.append(row)
            stack += row.children
        for row in rows:
            row.children = []
        record.forget(self, rows)
        self.reset()

    @property
    def stats(self) -> Stats:
        """Figures: iterations, replays, recordings, variants, rows, kernels, bytes and more."""
        return figures(self)

    def explain(self) -> str:
        """The plan of the latest pass, for a person."""
        return explain(self)

    def trace(self, path) -> None:
        """Write the times of each kernel of the latest pass, in the format that Chrome and Perfetto show."""
        trace(self, path)


def session(fn: Callable) -> Callable:
    """A decorator: every call of the function is one pass of a session of its own, which is its attribute `session`."""
    return Session()(fn)


def warmup(fn: Callable, *args, passes: int = 3, **kwargs) -> Callable:
    """Call a function a few times in its session, so that what it needs is compiled, and stored for later processes.

    Returns the function as `session` decorates it. What the calls change stays changed: give a training step a copy of its
    model, or count the passes.

    >>> import tapegrad as tg
    >>> step = tg.warmup(lambda x: tg.exp(x) * 2.0, tg.ones(3))
    >>> step.session.stats.replays
    2
    """
    step = fn if isinstance(getattr(fn, "session", None), Session) else session(fn)
    for _ in range(passes):
        step(*args, **kwargs)
    return step
