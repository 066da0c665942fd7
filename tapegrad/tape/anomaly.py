"""`detect_anomaly`: names the first op, forward or backward, that makes a nan, and the user's line."""

from __future__ import annotations

import numpy as np

from ..errors import TapeError
from .apply import host_array
from .state import local, user_line


class detect_anomaly:
    """Inside, every op's result is looked at, and the first nan raises TapeError. Slow: for finding, not for training.

    >>> import tapegrad as tg
    >>> with tg.detect_anomaly():
    ...     tg.log(tg.tensor([-1.0]))
    Traceback (most recent call last):
    tapegrad.errors.TapeError: log made a nan ...
    """

    def __init__(self):
        self.before: list[bool] = []

    def __enter__(self):
        if local.state.session is not None:  # from here on every op runs at once
            local.state.session.abandon()
        self.before.append(local.state.anomaly)
        local.state.anomaly = True
        return self

    def __exit__(self, *_):
        local.state.anomaly = self.before.pop()


def _has_nan(t) -> bool:
    return t.dtype.is_float and t.size > 0 and bool(np.isnan(host_array(t)).any())


def inspect(op, inputs, results) -> None:
    """Raise where a result holds a nan."""
    if not any(_has_nan(t) for t in results):
        return
    guilty = [i for i, t in enumerate(inputs) if _has_nan(t)]
    what = f"{op.title} received a nan in input {guilty[0]}" if guilty else f"{op.title} made a nan"
    shapes = ", ".join(str(t.shape) for t in inputs)
    where = f"at {user_line()}"
    row = local.state.sweeping
    if row is not None:
        where = f"in the backward of {row.op.title}, recorded at {row.line or 'a line outside detect_anomaly'}"
    raise TapeError(
        f"{what} (input shapes {shapes}) {where}. Look at the values there: a log or sqrt of 0, a division by 0, an overflow."
    )
