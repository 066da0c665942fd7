"""Every registered op on its samples: values against NumPy, first and second derivatives against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from registry_cases import params

import tapegrad as tg
from tapegrad.ops import samples
from tapegrad.ops.registry import REGISTRY


@pytest.mark.parametrize("op", params())
def test_values_and_derivatives(op):
    tg.testing.check_op(op)


# Ops without samples: random ones are tested for their distribution, the others make tensors from numbers.
WITHOUT_SAMPLES = {
    "arange",
    "linspace",
    "eye",
    "uniform",
    "normal",
    "bernoulli",
    "randint",
    "permutation",
    "nn.dropout",
}


def test_every_public_op_has_samples_and_a_reference():
    silent = {name for name, op in REGISTRY.items() if op.public and op.kind != "elementwise" and not op.samples}
    assert silent == WITHOUT_SAMPLES
    missing = [
        name for name, op in REGISTRY.items() if op.public and name not in WITHOUT_SAMPLES and op.reference is None
    ]
    assert missing == []


def test_every_primitive_is_reached():
    """The private kernels behind public ops are run, and their adjoints too, by the samples of the public ones."""
    for op in REGISTRY.values():
        op.launches.clear()
    rng = np.random.default_rng(0)
    for op in REGISTRY.values():
        for d in samples.draw(op, rng) if op.samples and op.kind == "composite" else []:
            tensors = [tg.tensor(x, requires_grad=op.differentiable) for x in d.tensors]
            out = d.call(op, tensors, tg.tensor)
            for y in out if isinstance(out, tuple) else (out,):
                if y.requires_grad:
                    y.sum().backward(retain_graph=True)
    x = tg.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    for key in (0, (1, 2), [0, 0], x.detach() > 2, (slice(None), None, -1)):
        x[key].sum().backward()
    heads = tg.ones((2, 3, 4, 5), requires_grad=True)
    (tg.permute(heads, 0, 2, 1, 3) @ tg.ones((2, 4, 5, 6))).sum().backward()
    unreachable = {"full", "ramp", "alias", "detach_view"} | {  # the last two: by derivatives, and in sessions
        f"{name}_kernel" for name in ("uniform", "normal", "bernoulli", "randint", "permutation")
    }
    private = {op.name for op in REGISTRY.values() if op.kind in ("primitive", "view") and not op.public}
    reached = {op.name for op in REGISTRY.values() if op.launches}
    assert private - reached <= unreachable


VIEWS = [(0, 2, 1, 3), (0, 1, 3, 2), (0, 2, 3, 1), (2, 0, 1, 3), (1, 0, 3, 2), (3, 1, 0, 2), (0, 3, 1, 2)]


def behind(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that has to be permuted by `axes` to give `shape`."""
    return tuple(shape[axes.index(a)] for a in range(len(axes)))


@pytest.mark.parametrize(
    "shapes", [((2, 3, 4, 5), (2, 3, 5, 6)), ((2, 1, 4, 5), (2, 1, 5, 1)), ((1, 3, 1, 2), (2, 3, 2, 4))]
)
@pytest.mark.parametrize("left", VIEWS)
@pytest.mark.parametrize("right", VIEWS)
def test_gradients_of_products_of_permuted_views(left, right, shapes):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(behind(s, v)) for s, v in zip(shapes, (left, right), strict=True))

    def product(a, b):
        y = tg.permute(a, left) @ tg.permute(b, right)
        return (y * y).sum()

    x, y = np.transpose(a, left), np.transpose(b, right)
    slope = 2 * (x @ y)
    wanted = [slope @ np.swapaxes(y, -1, -2), np.swapaxes(x, -1, -2) @ slope]
    for g, want, s, v in zip(tg.grad(product, (0, 1))(a, b), wanted, shapes, (left, right), strict=True):
        total = want.sum(0, keepdims=True) if s[0] == 1 else want
        np.testing.assert_allclose(np.transpose(g.numpy(), v), total, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("views", list(zip(VIEWS, reversed(VIEWS), strict=True)))
def test_second_derivatives_of_products_of_permuted_views(views):
    rng = np.random.default_rng(1)
    shapes = (2, 1, 2, 3), (2, 1, 3, 2)
    a, b = (rng.standard_normal(behind(s, v)) for s, v in zip(shapes, views, strict=True))
    tg.testing.check_grads(lambda a, b: tg.tanh(tg.permute(a, views[0]) @ tg.permute(b, views[1])), a, b)


def test_gradients_of_permuted_views_lie_as_what_is_behind_them():
    """Attention moves its heads before time, and turns its keys; nobody has to copy their gradients."""
    for product in (
        lambda x: tg.permute(x, 0, 2, 1, 3) @ tg.ones((2, 3, 4, 6)),
        lambda x: tg.ones((2, 3, 6, 5)) @ tg.permute(x, 0, 2, 1, 3),
        lambda x: tg.ones((2, 3, 7, 4)) @ tg.permute(x, 0, 2, 3, 1),
        lambda x: tg.permute(x, 0, 2, 3, 1) @ tg.ones((2, 3, 5, 6)),
    ):
        g = tg.grad(lambda x, product=product: product(x).sum())(tg.ones((2, 5, 3, 4)))
        assert g.layout.contiguous
    weight = tg.ones((4, 3))
    g = tg.grad(lambda w: REGISTRY["nn.linear"](tg.ones((5, 3)), w).sum())(weight)
    assert g.layout.contiguous and g.shape == (4, 3)
