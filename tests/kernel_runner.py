"""Runs the steps of a kernel builder on NumPy arrays, so that a kernel can be tested without a tape."""

from __future__ import annotations

import ctypes
import itertools

import numpy as np

from tapegrad.dtypes import as_dtype
from tapegrad.kernels.launch import BUILDERS, Step
from tapegrad.layouts import layout

ABI = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
GUARD = 64  # bytes after each output and workspace that a kernel must leave alone
PATTERN = 0xA5


def guarded(nbytes: int) -> np.ndarray:
    """A 64-byte aligned block of `nbytes` bytes followed by a guard, filled with a pattern."""
    raw = np.full(nbytes + GUARD + 64, PATTERN, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes + GUARD]


def call(step: Step, addresses: list[int], pieces: int = 1) -> int:
    """Run one step, its range cut into `pieces` (run last to first, so that an order that matters shows)."""
    scratch = guarded(step.workspace)
    words = [addresses[i] for i in step.operands]
    if step.workspace:
        words.append(scratch.ctypes.data)
    args = np.array([*words, *step.static], np.int64)
    if step.grain == 0:
        pieces = 1
    edges = np.linspace(0, step.extent, min(pieces, step.extent) + 1).astype(int).tolist()
    entry = ABI(step.address)
    status = 0
    for begin, end in reversed(list(itertools.pairwise(edges))):
        status = max(status, entry(args.ctypes.data, begin, end))
    assert (scratch[step.workspace :] == PATTERN).all(), "the kernel wrote past its workspace"
    return status


def run_status(name: str, ins, outs, attrs=None, pieces: int = 1) -> tuple[int, list[np.ndarray]]:
    """The status and the outputs of op `name`. `outs` are (shape, dtype) pairs."""
    arrays = [np.ascontiguousarray(x).reshape(np.shape(x)) for x in ins]
    in_layouts = tuple(layout(a.shape, as_dtype(a.dtype)) for a in arrays)
    out_layouts = tuple(layout(tuple(shape), as_dtype(dtype)) for shape, dtype in outs)
    blocks = [guarded(o.nbytes) for o in out_layouts]
    addresses = [a.ctypes.data for a in arrays] + [b.ctypes.data for b in blocks]
    status = 0
    for step in BUILDERS[name](in_layouts, out_layouts, dict(attrs or {})):
        status = status or call(step, addresses, pieces)
    for o, block in zip(out_layouts, blocks, strict=True):
        assert (block[o.nbytes :] == PATTERN).all(), f"{name} wrote past its output"
    results = [b[: o.nbytes].view(o.dtype.numpy).reshape(o.shape) for o, b in zip(out_layouts, blocks, strict=True)]
    return status, results


def run(name: str, ins, outs, attrs=None, pieces: int = 1):
    """The outputs of op `name` (the array itself where there is one); fails on a status other than 0."""
    status, results = run_status(name, ins, outs, attrs, pieces)
    assert status == 0, f"{name} returned status {status}"
    return results[0] if len(results) == 1 else results


def steps_of(name: str, ins, outs, attrs=None) -> tuple[Step, ...]:
    """The steps the builder gives for arrays `ins` and (shape, dtype) pairs `outs`."""
    in_layouts = tuple(layout(np.shape(x), as_dtype(x.dtype)) for x in ins)
    return BUILDERS[name](in_layouts, tuple(layout(tuple(s), as_dtype(d)) for s, d in outs), dict(attrs or {}))
