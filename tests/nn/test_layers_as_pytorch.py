"""Every layer and loss gives PyTorch's values and gradients, in both dtypes, and in sessions what it gives eagerly."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import Case, cases, objective

import tapegrad as tg
from tapegrad import nn

EVERY = {
    name: c for kind in ("layers", "recurrent", "attention", "activations", "losses") for name, c in cases(kind).items()
}
TOLERANCE = {"float32": 2e-5, "float64": 1e-10}
ROUGH = {"Hardsigmoid": 1e-7, "Hardswish": 1e-7}  # PyTorch's 1/6 is a float32 in float64 too
ULPS = 64  # how far a session may be off where it adds in another order, of the largest element


def gradients(module: nn.Module, inputs: list[tg.Tensor]) -> dict[str, np.ndarray]:
    found = {f"gp/{n}": p.grad.numpy() for n, p in module.named_parameters()}
    return found | {f"gin{i}": x.grad.numpy() for i, x in enumerate(inputs) if x.requires_grad}


def near(got: np.ndarray, wanted: np.ndarray, tolerance: float, what: str) -> None:
    assert got.shape == wanted.shape and got.dtype == wanted.dtype, what
    scale = max(np.abs(wanted).max(initial=0.0), 1.0)
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance * scale, err_msg=what)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", EVERY)
def test_values_and_gradients_are_those_of_pytorch(name, dtype):
    case, tolerance = Case(*EVERY[name], dtype), max(TOLERANCE[dtype], ROUGH.get(name, 0.0))
    module, inputs = case.module(), case.inputs()
    for _ in range(2 if name.endswith("cumulative") else 1):
        outs = case.outputs(module, inputs)
    objective(outs).backward()
    wanted = case.some("out")
    assert len(outs) == len(wanted)
    for i, out in enumerate(outs):
        near(out.numpy(), wanted[str(i)], tolerance, f"result {i}")
    found = gradients(module, inputs)
    assert set(found) == {k for k in case.arrays if k.startswith(("gp/", "gin"))}
    for key, value in found.items():
        near(value, case.arrays[key], 10 * tolerance, key)
    for key, value in case.some("after/").items():
        near(dict(module.named_buffers())[key].numpy(), value, tolerance, key)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", EVERY)
def test_sessions_give_the_same(name, dtype):
    """Three passes, recorded once: results, gradients and buffers are those of three eager passes."""

    def passes(session):
        case = Case(*EVERY[name], dtype)
        module, inputs = case.module(), case.inputs()
        seen = []
        for _ in range(3):
            with session:
                outs = case.outputs(module, inputs)
                for x in (*module.parameters(), *inputs):
                    if x.requires_grad:
                        x.grad = None
                objective(outs).backward()
            found = gradients(module, inputs) | {f"out{i}": o.numpy() for i, o in enumerate(outs)}
            seen.append(found | {f"after/{n}": b.numpy() for n, b in module.named_buffers()})
        return seen

    session = tg.Session()
    wanted, got = passes(Eager()), passes(session)
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert a.keys() == b.keys()
        for key in a:
            scale = np.abs(b[key]).max(initial=0.0) * np.finfo(dtype).eps
            np.testing.assert_allclose(a[key], b[key], rtol=0, atol=ULPS * scale, err_msg=f"pass {i}, {key}")
    assert session.stats.recordings == 1
    assert session.stats.replays == 2


class Eager:
    """In place of a session."""

    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass
