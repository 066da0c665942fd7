"""What one thread's tape knows: whether it records, and the order number of the next row."""

from __future__ import annotations

import functools
import itertools
import linecache
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from .. import precision

PACKAGE = str(Path(__file__).resolve().parent.parent)

# One counter for rows and in-place writes of all threads: a saved value is stale when it was written after its row.
order = itertools.count(1).__next__


class State:
    """The tape of one thread."""

    __slots__ = ("anomaly", "moment", "recording", "session", "sweeping", "thread")

    def __init__(self):
        self.recording = True
        self.session: Any = None  # the session whose pass is open; None also while it runs an op by itself
        self.anomaly = False
        self.moment: Any = None  # gives the order number of a write, where a session knows better than `order`
        self.sweeping: Any = None  # the row whose adjoint runs, where anomalies are watched for
        self.thread = threading.current_thread().name


class _Local(threading.local):
    def __init__(self):
        self.state = State()


local = _Local()


def _precision_changed(name: str) -> None:
    """Let a session know, so that it takes no row of another precision for this one."""
    session = local.state.session
    if session is not None:
        session.mode(name)


precision.watch = _precision_changed


class recording:
    """Switches recording on or off inside a `with` block, or around a function."""

    def __init__(self, on: bool):
        self.on = on
        self.before: list[bool] = []

    def __enter__(self):
        state = local.state
        self.before.append(state.recording)
        state.recording = self.on
        if state.session is not None:
            state.session.mode(self.on)

    def __exit__(self, *_):
        state = local.state
        state.recording = self.before.pop()
        if state.session is not None:
            state.session.mode(state.recording)

    def __call__(self, fn):
        @functools.wraps(fn)
        def wrapped(*args, **kwargs):
            with recording(self.on):
                return fn(*args, **kwargs)

        return wrapped


def no_grad() -> recording:
    """Nothing is recorded inside: `with tg.no_grad(): …`, or `@tg.no_grad()` on a function.

    >>> import tapegrad as tg
    >>> x = tg.tensor([1.0], requires_grad=True)
    >>> with tg.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """
    return recording(False)


def enable_grad() -> recording:
    """Records inside a `no_grad` block."""
    return recording(True)


def user_place() -> tuple[str, int] | None:
    """File and line number of the user's code that led here: the innermost frame outside this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return None if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def line_of(place: tuple[str, int] | None) -> str:
    """A place with its text, for a person."""
    if place is None:
        return "an unknown line"
    name, number = place
    source = linecache.getline(name, number).strip()
    return f"{name}:{number}" + (f" ({source})" if source else "")


def user_line() -> str:
    """File, line and text of the user's code that led here."""
    return line_of(user_place())
