"""The same bits whatever the order of blocks: no kernel of tapegrad's adds up across blocks while they run."""

from __future__ import annotations

import numpy as np
import pytest
from registry_cases import params
from test_ops_reference import run

import tapegrad as tg
from tapegrad.ops import samples
from tapegrad.ops.registry import REGISTRY

ORDERS = ("reversed", "shuffled")


class Reordered:
    """NumPy as Numba's simulator sees it, which walks over `np.ndindex(grid)`: in another order."""

    def __init__(self, order: str):
        self.order, self.rng, self.grids = order, np.random.default_rng(7), 0

    def __getattr__(self, name: str):
        return getattr(np, name)

    def ndindex(self, *shape: int):
        places = list(np.ndindex(*shape))
        self.grids += len(places) > 1
        return places[::-1] if self.order == "reversed" else [places[i] for i in self.rng.permutation(len(places))]


def reorder(monkeypatch, order: str) -> Reordered:
    made = Reordered(order)
    monkeypatch.setattr("numba.cuda.simulator.kernel.np", made)
    return made


def same_bits(monkeypatch, make) -> int:
    """`make()` gives the same arrays in any order of blocks; how many launches had several."""
    first, grids = make(), 0
    for order in ORDERS:
        with monkeypatch.context() as patched:
            seen = reorder(patched, order)
            again = make()
        grids += seen.grids
        for a, b in zip(first, again, strict=True):
            assert a.dtype == b.dtype and a.tobytes() == b.tobytes()
    return grids


@pytest.mark.parametrize("op", params("primitive", "composite"))
def test_every_op_and_its_gradients(op, device, monkeypatch):
    drawn = samples.draw(op, np.random.default_rng(0))[0]

    def make() -> list[np.ndarray]:
        tg.seed(5)
        return run(op, drawn, "float32", device)

    same_bits(monkeypatch, make)


SUMS = {
    "few indices": lambda t, i: REGISTRY["index_add"](t((40, 3)), i((40,)), 0, 4),
    "many indices": lambda t, i: REGISTRY["index_add"](t((90, 2)), i((90,)), 0, 4),
    "indices of lines": lambda t, i: REGISTRY["scatter_kernel"](t((60, 3)), i((60, 3)), 0, 4),
    "sum in parts": lambda t, i: t((700,)).sum(),
    "columns in parts": lambda t, i: t((300, 3)).sum(0),
    "running sum in parts": lambda t, i: tg.cumsum(t((300,)), 0),
    "logsumexp in parts": lambda t, i: tg.logsumexp(t((500,))),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_of_many(name, device, monkeypatch):
    """Float32 numbers of many magnitudes, whose sum shows its order."""

    def make() -> list[np.ndarray]:
        rng = np.random.default_rng(3)

        def tensor(shape):
            x = rng.normal(size=shape) * 10.0 ** rng.integers(-3, 4, shape)
            return tg.tensor(x.astype(np.float32), device=device)

        return [SUMS[name](tensor, lambda shape: tg.tensor(rng.integers(0, 4, shape), device=device)).numpy()]

    assert same_bits(monkeypatch, make) > 0


def test_a_kernel_that_does_depend_on_the_order_is_found(device, monkeypatch):
    from numba import cuda

    @tg.kernel("(n)->()")
    def total(x, out):
        out[0] = x.sum()

    @total.cuda(zeroed=True, threads=lambda n: n)
    def _(x, out):
        i = cuda.grid(1)
        if i < x.shape[0]:
            cuda.atomic.add(out, 0, x[i])

    numbers = np.array([1e8, 1.0, -1e8, 3.0] * 4, np.float32)
    with pytest.raises(AssertionError):
        same_bits(monkeypatch, lambda: [total(tg.tensor(numbers, device=device)).numpy()])
