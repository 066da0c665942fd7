"""Names that bodies of templates use and that have their meaning when a kernel is bound: for readers and checkers only.

T, A, R, I, K, F: dtypes, as casts. BLOCK, LANES, TEAM, VEC and the like: numbers. load, combine, finish and the like: inline
functions. exp, log and the like: the functions of `functions.py` for the dtype bound to F, or else T.
"""

from __future__ import annotations

from typing import Any

T: Any = None
A: Any = None
R: Any = None
I: Any = None  # noqa: E741  the dtype of indices, as in the CPU's skeletons
K: Any = None
F: Any = None
P: Any = None
cuda: Any = None
INF: Any = None
NAN: Any = None
MAILBOX: Any = None
BLOCK: Any = None
LANES: Any = None
TEAM: Any = None
WARPS: Any = None
VEC: Any = None
load: Any = None
combine: Any = None
finish: Any = None
start: Any = None
exchange: Any = None
multiply_high: Any = None
exp_f64: Any = None
log_f64: Any = None
sqrt_f64: Any = None
fma_f64: Any = None
float32: Any = None
float64: Any = None
int32: Any = None
int64: Any = None
uint8: Any = None
uint32: Any = None
uint64: Any = None
bits: Any = None
from_bits: Any = None
exp: Any = None
log: Any = None
tanh: Any = None
sqrt: Any = None
copysign: Any = None
fma: Any = None
