"""Sessions: eager code that repeats is matched against what was recorded, and run as planned, compiled segments.

Map: `iteration.py` holds Session, the pass it follows and what users see of it; `rows.py` what is remembered; `match.py` compares
calls with it; `record.py` writes down what is new; `run.py` runs what was matched; `keep.py` hands out what users keep;
`stats.py` is what users see of all that.
"""

from .iteration import Session, session, warmup

__all__ = ["Session", "session", "warmup"]
