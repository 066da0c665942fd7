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
    unreachable = {"full", "ramp", "alias", "detach_view"} | {  # the last two: by derivatives, and in sessions
        f"{name}_kernel" for name in ("uniform", "normal", "bernoulli", "randint", "permutation")
    }
    private = {op.name for op in REGISTRY.values() if op.kind in ("primitive", "view") and not op.public}
    reached = {op.name for op in REGISTRY.values() if op.launches}
    assert private - reached <= unreachable
