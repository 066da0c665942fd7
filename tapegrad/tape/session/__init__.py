"""Sessions: eager code that repeats is matched against what was recorded, and run as planned, compiled segments.

Map: `iteration.py` holds Session, how it is entered and left and what users see of it; `following.py` what the tape asks of it,
op by op; `calls.py` calls that are matched as a whole; `rows.py` and `values.py` what is remembered; `match.py` compares calls
with it; `record.py` and `spans.py` write down what is new, op by op and call by call; `run.py` runs what was matched, as
`translate.py` puts it for planning; `keep.py` hands out what users keep; `gradients.py` holds what a backward sets; `routine.py`
ends a pass that goes like the one before; `stats.py` is what users see of all that.
"""

from .iteration import Session, session, warmup

__all__ = ["Session", "session", "warmup"]
