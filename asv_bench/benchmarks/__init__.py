"""Benchmarks of tapegrad in asv's layout, on one thread and with OpenBLAS's kernels for this processor.

The environment is set here, before anything loads OpenBLAS, because asv ignores its configuration's environment
variables where it is told to use an existing Python.
"""

from __future__ import annotations

import os

# They make OpenBLAS run another processor's kernels: 1024³ float32 on one core at 125 instead of 230 GFLOP/s.
FORCING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

for _name in FORCING:
    os.environ.pop(_name, None)
for _name in ("OPENBLAS_NUM_THREADS", "TAPEGRAD_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
