"""Every op of the registry in the simulator: values, gradients and second derivatives against the CPU's kernels."""

from __future__ import annotations

import numpy as np
import pytest
from registry_cases import DTYPES, elementwise, params
from test_ops_forward import laid_out, shapes_like, typed
from test_ops_reference import run
from test_special_values import arguments

import tapegrad as tg
from tapegrad.errors import TapegradError
from tapegrad.ops import samples

TOLERANCE = {"float32": 2e-5, "float64": 1e-10}
SLOW = ("conv", "attention", "matmul", "einsum")  # a thousand threads and more for a sample: the first one is enough


def close(got: np.ndarray, expected: np.ndarray) -> None:
    """Equal integers; floats within the tolerance of the largest of them."""
    assert got.dtype == expected.dtype and got.shape == expected.shape
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected)
        return
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
    np.testing.assert_allclose(got, expected, rtol=TOLERANCE[got.dtype.name], atol=TOLERANCE[got.dtype.name] * scale)


@pytest.mark.parametrize("op", params())
def test_values_and_gradients(op, device):
    """In float32 all samples, in float64 the first: the kernels are the same, bound to another dtype."""
    drawn = samples.draw(op, np.random.default_rng(0))
    for i, one in enumerate(drawn):
        for got, expected in zip(run(op, one, "float32", device), run(op, one, "float32", "cpu"), strict=True):
            close(got, expected)
        if i == 0:
            for got, expected in zip(run(op, one, "float64", device), run(op, one, "float64", "cpu"), strict=True):
                close(got, expected)


@pytest.mark.parametrize("op", params())
def test_dtypes(op, device):
    """Integers and truth values; of tensors that lie transposed, reversed or in steps, too."""
    if op.name == "cross_entropy" or op.namespace == "linalg":
        pytest.skip("class probabilities are floats; matrices of small integers are singular or not positive definite")
    drawn = samples.draw(op, np.random.default_rng(1))[0]
    layouts = dict(
        zip(DTYPES, ("reversed", "transposed", "strided", "reversed", "contiguous", "transposed"), strict=True)
    )
    for dtype, how in layouts.items():
        if dtype == "float64" or (dtype != "float32" and any(part in op.name for part in SLOW)):
            continue
        there, here = [], []
        for x in drawn.tensors:
            t, _ = laid_out(typed(x, dtype), how)
            here.append(t)
            there.append(laid_out_on(device, typed(x, dtype), how))
        got = drawn.call(op, there, lambda a: tg.tensor(a, device=device))
        expected = drawn.call(op, here, tg.tensor)
        for g, e in zip(many(got), many(expected), strict=True):
            assert g.device == device
            close(g.numpy(), e.numpy())


def many(x) -> tuple:
    return x if isinstance(x, tuple) else (x,)


def laid_out_on(device: str, x: np.ndarray, how: str) -> tg.Tensor:
    """As `laid_out`, on a device."""
    if how == "transposed":
        return tg.tensor(x.T.copy(), device=device).T
    if how == "strided" and x.ndim:
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1] + 1), x.dtype)
        wide[..., 1::2] = x
        return tg.tensor(wide, device=device)[..., 1::2]
    if how == "reversed":
        return tg.tensor(np.flip(x).copy(), device=device).flip()
    return tg.tensor(x, device=device)


@pytest.mark.parametrize("op", params())
def test_edges(op, device):
    """One element and none: the CPU's answer, or its error."""
    for sample in (op.samples or [{}])[:1]:
        first = sample.get("shapes", samples.STANDARD.get(op.arity, [()])[0])
        if sample.get("args") or len(set(first)) != 1:
            continue
        for shape in shapes_like(first[0], "well_conditioned" in sample or "positive_definite" in sample):
            [drawn] = samples.draw(op, np.random.default_rng(2), [{**sample, "shapes": (shape,) * len(first)}])
            try:
                expected = many(drawn.call(op, [tg.tensor(x, dtype="float32") for x in drawn.tensors]))
            except TapegradError as error:
                with pytest.raises(type(error)):
                    drawn.call(op, [tg.tensor(x, dtype="float32", device=device) for x in drawn.tensors])
                continue
            got = many(drawn.call(op, [tg.tensor(x, dtype="float32", device=device) for x in drawn.tensors]))
            for g, e in zip(got, expected, strict=True):
                if e.size or not np.isnan(e.numpy()).any():
                    close(g.numpy(), e.numpy())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in elementwise()])
def test_special_values(op, dtype, device):
    """The same nan, inf and signs as the CPU's kernels at zeros, infinities, subnormal and huge numbers."""
    xs = arguments(op, dtype)
    if len(xs[0]) > 120:
        chosen = np.random.default_rng(3).permutation(len(xs[0]))[:120]
        xs = [x[chosen] for x in xs]
    got = op(*(tg.tensor(x, device=device) for x in xs)).numpy()
    expected = op(*map(tg.tensor, xs)).numpy()
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected)
        return
    tiny = np.finfo(dtype).smallest_normal
    np.testing.assert_allclose(got, expected, rtol=3e-6 if dtype == "float32" else 1e-11, atol=4 * tiny + 1e-7)
