"""Every registered op by dtype and memory layout, against its NumPy reference in float64 (int64 for integers)."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from registry_cases import DTYPES, params

import tapegrad as tg
from tapegrad.errors import TapegradError
from tapegrad.ops import samples

# Relative, of the largest element: what accumulates over the samples' few dozen elements.
TOLERANCE = {"float32": 4e-6, "float64": 1e-11}

LAYOUTS = ("contiguous", "transposed", "strided", "reversed", "broadcast")


def laid_out(x: np.ndarray, how: str) -> tuple[tg.Tensor, np.ndarray]:
    """x as a tensor of that layout, and its values (which differ for "broadcast": there one row stands for all)."""
    if how == "transposed":
        return tg.tensor(x.T.copy()).T, x
    if how == "strided" and x.ndim:
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1] + 1), x.dtype)
        wide[..., 1::2] = x
        return tg.tensor(wide)[..., 1::2], x
    if how == "reversed":
        return tg.tensor(np.flip(x).copy()).flip(), x
    if how == "broadcast" and x.ndim and x.shape[0]:
        return tg.broadcast_to(tg.tensor(x[:1]), x.shape), np.broadcast_to(x[:1], x.shape)
    return tg.tensor(x), x


def typed(x: np.ndarray, dtype: str) -> np.ndarray:
    """Drawn numbers in a dtype: integers of about that range."""
    if dtype.startswith("float"):
        return x.astype(dtype)
    whole = np.rint(x * 1.5)
    return (np.abs(whole) if dtype == "uint8" else whole).astype(dtype)


def check(op, drawn, dtype: str, how: str) -> None:
    pairs = [laid_out(typed(x, dtype), how) for x in drawn.tensors]
    out = drawn.call(op, [t for t, _ in pairs], tg.tensor)
    outs = out if isinstance(out, tuple) else (out,)
    whole = not any(y.dtype.is_float for y in outs) and not dtype.startswith("float")
    for y, e in zip(outs, expected_of(op, drawn, [x for _, x in pairs], whole), strict=True):
        compare(y.numpy(), np.asarray(e))


def expected_of(op, drawn, arrays: list[np.ndarray], whole: bool) -> tuple:
    """What the op's reference gives, in int64 where all is whole and the reference can, else in float64."""
    with np.errstate(all="ignore"):
        try:
            found = drawn.call(op.reference, [x.astype(np.int64 if whole else np.float64) for x in arrays])
        except OverflowError:  # a pool's padding of -inf
            found = drawn.call(op.reference, [x.astype(np.float64) for x in arrays])
    return found if isinstance(found, tuple) else (found,)


def compare(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected.astype(got.dtype))
        return
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE[got.dtype.name] * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", params())
def test_layouts(op, dtype):
    if not dtype.startswith("float") and (op.name == "cross_entropy" or op.namespace == "linalg"):
        pytest.skip("class probabilities are floats; matrices of small integers are singular or not positive definite")
    for i, drawn in enumerate(samples.draw(op, np.random.default_rng(1))):
        for how in LAYOUTS if i == 0 else LAYOUTS[:1]:
            if how == "broadcast" and op.namespace == "linalg":
                continue  # equal rows make singular matrices
            check(op, drawn, dtype, how)


def shapes_like(shape: tuple[int, ...], square: bool):
    """Shapes of as many axes at the edges: one element, and none."""
    yield (1,) * len(shape)
    if square:
        yield (*shape[:-2], 0, 0)
        return
    for axis in range(len(shape)):
        yield (*shape[:axis], 0, *shape[axis + 1 :])


@pytest.mark.parametrize("op", params())
def test_edges(op):
    """0-d, one element, none: NumPy's answer, or a TapegradError where it has none; gradients have the shape."""
    for sample in op.samples or [{}]:
        first = sample.get("shapes", samples.STANDARD.get(op.arity, [()])[0])
        if sample.get("args") or len(set(first)) != 1:
            continue
        for shape in shapes_like(first[0], "well_conditioned" in sample or "positive_definite" in sample):
            [drawn] = samples.draw(op, np.random.default_rng(2), [{**sample, "shapes": (shape,) * len(first)}])
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("error")
                try:
                    expected = drawn.call(op.reference, drawn.tensors)
                except (ValueError, IndexError, RuntimeWarning):
                    expected = None
            tensors = [tg.tensor(x, requires_grad=True) for x in drawn.tensors]
            try:
                out = drawn.call(op, tensors)
            except TapegradError:
                assert expected is None, f"NumPy gives {expected!r} for shape {shape}"
                continue
            outs = out if isinstance(out, tuple) else (out,)
            if expected is not None:
                for y, e in zip(outs, expected if isinstance(expected, tuple) else (expected,), strict=True):
                    compare(y.numpy(), np.asarray(e))
            total = sum((y.sum() for y in outs if y.requires_grad), tg.zeros((), dtype="float64"))
            if total.requires_grad:
                total.backward()
                assert all(t.grad is None or t.grad.shape == t.shape for t in tensors)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", params("elementwise"))
def test_numbers_beside_long_rows(op, dtype):
    """0-d inputs beside vectors with a tail, and rows long enough for several blocks."""
    rng = np.random.default_rng(3)
    sample = {k: v for k, v in (op.samples or [{}])[0].items() if k != "shapes"}
    for shapes in (((),) * op.arity, ((2, 71),) + ((),) * (op.arity - 1)):
        [drawn] = samples.draw(op, rng, [{**sample, "shapes": shapes}])
        check(op, drawn, dtype, "contiguous")
