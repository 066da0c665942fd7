"""Every op and its gradients on both devices: the compiled kernels against the slow NumPy backend."""

from __future__ import annotations

import numpy as np
import pytest
from registry_cases import params

import tapegrad as tg
from tapegrad.errors import DtypeError, IndexOutOfRange, KernelError
from tapegrad.kernels.builders import BUILDERS
from tapegrad.kernels.reference import FUNCTIONS
from tapegrad.ops import samples
from tapegrad.ops.registry import REGISTRY

TOLERANCE = {"float32": 2e-5, "float64": 1e-10}


def run(op, drawn, dtype: str, device: str):
    """Values, gradients and second derivatives of an op on a device, as arrays."""

    def place(x):
        return tg.tensor(x, device=device)

    tensors = [tg.tensor(x, dtype=dtype, device=device, requires_grad=True) for x in drawn.tensors]
    out = drawn.call(op, tensors, place)
    outs = list(out if isinstance(out, tuple) else (out,))
    found = list(outs)
    rng = np.random.default_rng(1)
    weighted = [
        (y * tg.tensor(rng.standard_normal(y.shape), dtype=y.dtype, device=device)).sum()
        for y in outs
        if y.requires_grad
    ]
    if weighted and drawn.tensors:
        total = sum(weighted[1:], weighted[0])
        total.backward(retain_graph=True)
        found += [t.grad for t in tensors if t.grad is not None]

        def slope(*xs):
            o = drawn.call(op, xs, place)
            return sum(
                ((y * y).sum() for y in (o if isinstance(o, tuple) else (o,)) if y.requires_grad),
                tg.zeros((), dtype=dtype, device=device),
            )

        plain = [t.detach() for t in tensors]
        second = tg.hvp(slope, plain, [tg.ones_like(x) for x in plain])
        found += second if isinstance(second, tuple) else (second,)
    assert all(t.device == device for t in found)
    return [t.numpy() for t in found]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("op", params())
def test_both_devices_agree(op, dtype):
    for drawn in samples.draw(op, np.random.default_rng(0)):
        for got, expected in zip(run(op, drawn, dtype, "cpu"), run(op, drawn, dtype, "reference"), strict=True):
            assert got.dtype == expected.dtype and got.shape == expected.shape
            if got.dtype.kind == "f":
                scale = max(1.0, np.abs(expected).max(initial=0.0))
                np.testing.assert_allclose(
                    got, expected, rtol=TOLERANCE[got.dtype.name], atol=TOLERANCE[got.dtype.name] * scale
                )
            else:
                np.testing.assert_array_equal(got, expected)


def test_every_primitive_has_a_reference():
    builders = {op.builder for op in REGISTRY.values() if op.kind == "primitive"}
    assert builders - set(FUNCTIONS) == set()
    assert set(BUILDERS) >= builders


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [(), (1,), (7,), (3, 50), (1000,)])
def test_the_same_random_numbers(dtype, size):
    draws = {
        "uniform": lambda device: tg.uniform(size=size, dtype=dtype, device=device),
        "randint": lambda device: tg.randint(-5, 1 << 40, size=size, device=device),
        "bernoulli": lambda device: tg.bernoulli(0.3, size=size, device=device),
        "permutation": lambda device: tg.permutation(len(size) and size[-1], device=device),
    }
    for name, draw in draws.items():
        tg.seed(2**62 + 12345)
        cpu = [draw("cpu").numpy() for _ in range(2)]
        tg.seed(2**62 + 12345)
        np.testing.assert_array_equal(cpu, [draw("reference").numpy() for _ in range(2)], err_msg=name)
    tg.seed(3)
    cpu = tg.normal(size=size, dtype=dtype).numpy()
    tg.seed(3)
    np.testing.assert_allclose(
        cpu,
        tg.normal(size=size, dtype=dtype, device="reference").numpy(),
        rtol=1e-6 if dtype == "float32" else 1e-12,
        atol=1e-12,
    )


def test_dropout_has_the_same_mask():
    x = np.ones((20, 30), np.float32)
    tg.seed(7)
    cpu = REGISTRY["nn.dropout"](tg.tensor(x), 0.4)
    tg.seed(7)
    assert (cpu.numpy() == REGISTRY["nn.dropout"](tg.tensor(x, device="reference"), 0.4).numpy()).all()


def test_errors_of_the_reference():
    x = tg.tensor([1.0, 2.0], device="reference")
    with pytest.raises(IndexOutOfRange, match="outside its axis"):
        tg.take(x, [0, 2])
    with pytest.raises(KernelError, match="singular"):
        tg.linalg.solve(tg.zeros((2, 2), device="reference"), x)
    with pytest.raises(KernelError, match="not positive definite"):
        tg.linalg.cholesky(-tg.eye(2, device="reference"))
    with pytest.raises(DtypeError, match="add: input 0 is on reference, input 1 is on cpu"):
        x + tg.tensor([1.0, 2.0])
    with pytest.raises(DtypeError, match="device 'tpu' is not known"):
        tg.eye(2, device="tpu")


def test_arrays_go_where_the_tensors_are():
    x = tg.tensor([1.0, 2.0], device="reference")
    assert (
        (x + np.array([1.0, 2.0])).device == (np.float32(2) * x).device == tg.take(x, [0, 1, 1]).device == "reference"
    )
