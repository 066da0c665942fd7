"""The bits of a result follow from the operands alone: not from where in memory these and the result lie."""

from __future__ import annotations

import numpy as np
import pytest

import tapegrad as tg
from tapegrad.kernels.memory import array_at
from tapegrad.nn import functional as F
from tapegrad.tape import apply
from tapegrad.tape.tensor import Tensor

FAR = 8192
GAPS = (0, 64, 128, 192, 256, 512, 1024)
SIZES = ((1, 5), (1, 8), (1, 32), (2, 16), (3, 9), (3, 12), (4, 4), (4, 20), (7, 36))
CALLS = {
    "softmax": lambda x: tg.softmax(x, 1),
    "softmax of columns": lambda x: tg.softmax(x, 0),
    "log_softmax": lambda x: tg.log_softmax(x, 1),
    "cross_entropy": lambda x: F.cross_entropy(x, tg.argmax(x, 1)),
    "soft cross_entropy": lambda x: F.cross_entropy(x, tg.softmax(x, 1)),
    "logsumexp": lambda x: tg.logsumexp(x, 1),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "var": lambda x: tg.var(x, 0),
    "prod": lambda x: tg.prod(x, 1),
    "cumsum": lambda x: tg.cumsum(x, 1),
    "cumsum of columns": lambda x: tg.cumsum(x, 0),
    "matmul": lambda x: x @ x.T @ x,
    "normalize": lambda x: F.normalize(x),
    "tanh": lambda x: tg.tanh(x * 2) / (1 + x * x),
    "conv1d": lambda x: F.conv1d(x[:, None], x[:1, None, :3], padding=1),
    "max_pool1d": lambda x: F.max_pool1d(x[:, None], 2),
    "avg_pool1d": lambda x: F.avg_pool1d(x[:, None], 2),
    "sort": lambda x: tg.sort(x, 1),
    "take": lambda x: tg.take(x, tg.tensor([0, 3, 0]), 1),
}


@pytest.fixture
def calls(monkeypatch):
    """(launch, operands, inputs' layouts) of all kernels that ran."""
    seen: list = []
    call = apply.call

    def noting(op, inputs, attrs, launch, state):
        seen.append((op, launch.prepared, [apply.host_array(t).copy() for t in inputs], [t.layout for t in inputs]))
        return call(op, inputs, attrs, launch, state)

    monkeypatch.setattr(apply, "call", noting)
    return seen


def bits(op, prepared, arrays, layouts, block: np.ndarray, place: tuple[int, int] | None) -> bytes:
    """The results' bytes. place: the first of them begins (gap) bytes behind the operand of that number, or far from all."""
    at, inputs, results = -(-block.ctypes.data // 64) * 64 + FAR, [], []
    for i, (array, x) in enumerate(zip(arrays, layouts, strict=True)):
        low = sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True) if s < 0) * x.dtype.itemsize
        high = (sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True) if s > 0) + 1) * x.dtype.itemsize
        inputs.append(Tensor(None, at - low, x))  # type: ignore[arg-type]
        array_at(at - low, x)[...] = array
        at += -(-(high - low) // 64) * 64
        if place is not None and place[0] == i:
            results.append(Tensor(None, at + place[1], prepared.outs[0]))  # type: ignore[arg-type]
        at += FAR
    for x in prepared.outs[len(results) :]:
        results.append(Tensor(None, at, x))  # type: ignore[arg-type]
        at += FAR
    apply.run_prepared(op, prepared, tuple(inputs), tuple(results))
    return b"".join(array_at(t.address, t.layout).tobytes() for t in results)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CALLS)
def test_the_place_of_a_result_changes_no_bit(name, dtype, calls, rng):
    block = np.zeros(16 * FAR, np.uint8)
    for shape in SIZES:
        x = tg.tensor(rng.normal(size=shape), dtype=getattr(tg, dtype), requires_grad=True)
        (CALLS[name](x) ** 2).sum().backward()
    tried = 0
    for op, prepared, arrays, layouts in calls[:]:
        if prepared.copies or not all(x.size for x in layouts) or max(x.nbytes for x in prepared.outs) > FAR // 4:
            continue
        wanted = bits(op, prepared, arrays, layouts, block, None)
        for place in ((i, gap) for i in range(len(arrays)) for gap in GAPS):
            tried += 1
            assert bits(op, prepared, arrays, layouts, block, place) == wanted, (op.name, layouts, place)
    assert tried > 100
