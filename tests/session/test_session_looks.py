"""What reads a pending value and what does not have to; tensors that every pass makes from data."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from paired import SUMMED, agree, agrees

import tapegrad as tg
from tapegrad import nn
from tapegrad.nn import functional as F

LOOKS = {
    "numpy": lambda y: y.numpy(),
    "item": lambda y: y[0, 0].item(),
    "tolist": lambda y: y.tolist(),
    "asarray": lambda y: np.asarray(y),
    "asarray of a dtype": lambda y: np.asarray(y, dtype=np.float64),
    "dlpack": lambda y: np.from_dlpack(y).copy(),
    "from_dlpack": lambda y: tg.from_dlpack(y),
    "repr": repr,
    "str": str,
    "html": lambda y: y._repr_html_(),
    "format": lambda y: f"{y.sum():.2f} and {y}",
    "bool": lambda y: bool(y[0, 0]),
    "float": lambda y: float(y[1, 2]),
    "int": lambda y: int(y[1, 2]),
    "index": lambda y: [10, 20, 30][y.argmax(1)[0]],
    "len": len,
    "iteration": lambda y: [row.numpy() for row in y],
    "unpacking": lambda y: (lambda a, b: (a, b.numpy()))(*y),
    "shape": lambda y: (y.shape, y.dtype.name, y.ndim, y.size, y.nbytes, y.strides, y.device, y.is_contiguous()),
    "flags": lambda y: (y.requires_grad, y.is_leaf, y.grad is None),
    "NumPy function": lambda y: np.sin(y),
    "NumPy reduction": lambda y: np.sum(y, axis=0),
    "NumPy without an op": lambda y: np.percentile(y, 30),
    "array times tensor": lambda y: np.arange(3.0) * y,
    "tensor of a tensor": lambda y: tg.tensor(y, dtype=tg.float64),
    "tensor of a list": lambda y: tg.tensor([y[0], y[1] * 2]),
    "mask": lambda y: y[y > 0.5],
    "nonzero": lambda y: tg.nonzero(y > 0.5),
    "comparison": lambda y: (y == y).all().item(),
    "to": lambda y: y.to(tg.float64),
    "reference": lambda y: (y.to("reference") * 2).to("cpu"),
    "pickle": lambda y: pickle.loads(pickle.dumps(y)),
    "deepcopy": copy.deepcopy,
    "parameter": nn.Parameter,
}


@pytest.mark.parametrize("name", LOOKS)
@pytest.mark.parametrize("last", [True, False], ids=["at the end", "in the middle"])
def test_looks_at_a_pending_value(name, last):
    def program(make):
        session = make()
        for i in range(8):
            with session:
                y = tg.tensor([[1.0, -0.5, 2.0], [0.25, 1.5, -3.0]]) * (0.5 + 0.3 * i)
                seen = LOOKS[name](y)
                if not last:
                    z = tg.exp(-y) + 1
                    more = z.sum(0) * y
            yield seen, y.numpy() if last else more

    agree(program, ulps=0 if last else SUMMED)


def test_looking_at_shapes_runs_nothing():
    """A shape, a dtype, a length: no sync. So the plan still covers the whole pass."""

    def kernels(look) -> int:
        session = tg.Session()
        for i in range(6):
            with session:
                y = tg.full((3, 3), float(i)) * 2
                if look:
                    assert y.shape == (3, 3) and len(y) == 3 and y.dtype is tg.float32 and y.requires_grad is False
                z = (tg.exp(y) + 1).sum()
                del y
            z.item()
        return session.stats.kernels

    assert kernels(True) == kernels(False)


def test_a_view_of_pending_memory_stays_what_it_was():
    """A DLPack consumer keeps the buffer: later passes must not write into it."""
    session, views = tg.Session(), []
    for i in range(10):
        with session:
            y = tg.full((4,), float(i)) * 2
            if i % 2:
                views.append(np.from_dlpack(y))
        if i % 2 == 0:
            views.append(np.from_dlpack(y))
    assert [v.tolist() for v in views] == [[2.0 * i] * 4 for i in range(10)]


# fresh leaves


@agrees(steady=4)
def test_fresh_leaves_of_every_kind(make):
    session = make()
    for i in range(10):
        array = np.arange(6.0).reshape(2, 3) + i
        with session:
            leaves = [
                tg.tensor(array),
                tg.tensor(array, dtype=tg.float32),
                tg.tensor(array.astype(np.float16)),
                tg.tensor(array.T),
                tg.tensor(array[:, ::2]),
                tg.tensor(array.tolist()),
                tg.tensor([[i, 1], [2, 3]]),
                tg.tensor(float(i)),
                tg.tensor(i),
                tg.tensor(i % 2 == 0),
                tg.tensor(array > 3),
                tg.tensor(array.astype(np.uint8)),
                tg.tensor(array.astype(">f4")),
                tg.tensor(np.float32(i)),
                tg.from_dlpack(array),
                tg.zeros((2, 3)),
                tg.ones(3, dtype=tg.int32),
                tg.arange(5),
                tg.eye(3),
                tg.tensor(np.zeros((0, 3))),
            ]
            sums = [x.sum() for x in leaves]
            doubled = [x + x for x in leaves if x.dtype is not tg.bool]
        yield leaves, sums, doubled


@agrees(ulps=SUMMED)
def test_arrays_as_operands_and_arguments(make):
    session, rng = make(), np.random.default_rng(0)
    w = tg.tensor(rng.normal(size=(3, 4)), requires_grad=True)
    for i in range(10):
        x, c = rng.normal(size=(5, 3)), rng.integers(0, 4, 5)
        with session:
            w.grad = None
            out = x @ w + [0.0, 1.0, 2.0, float(i)]
            loss = (
                F.cross_entropy(out, c) + (out[np.arange(5), c] * rng.normal(size=5)).sum() + out[c[:2].tolist()].sum()
            )
            loss.backward()
            taken = tg.take(w, c[:2] % 3, 0), tg.where(x > 0, x, 0.0), tg.one_hot(c, 4)
        yield loss, w.grad, taken


@agrees()
def test_indices_that_change(make):
    session, x = make(), tg.arange(24).reshape((4, 6))
    for i in range(24):
        with session:
            y = x[i % 2] + 1
            z = x[:, i % 3 : i % 3 + 2] * 2
            n = x[tg.tensor([i % 2, 0])]
        yield y, z, n
