"""A product with what follows it, as one call of cuBLASLt; where that has none, the product and a kernel over its result.

What cuBLASLt adds here is the bias, and relu. Its gelu stays out: NVIDIA gives no bound for the error of its tanh, and the
instruction for it, tanh.approx, has 11 bits. The gradients of biases stay out too (BGRADA, BGRADB): their sum belongs to the
kernel that makes the gradient, and NVIDIA does not say how it is formed. Source: cublasLtEpilogue_t, docs.nvidia.com/cuda/cublas.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import OutOfMemory
from ...layouts import Layout, layout
from ...ops import expression as ex
from ...ops.activation import relu
from ...ops.elementwise import add
from ..fused import Load, Map
from . import elementwise
from .cublaslt import ALIGNED, CublasLt, Dense, Prepared, alignment, dense
from .gemm import Matrix, gemm, operands_to_copy
from .products import Multiply
from .template import Work

if TYPE_CHECKING:
    from .devices import Gpu

(ADD,), (RELU,) = add.expression(), relu.expression()
# What may follow a product, as an expression of it and of the bias -> the activation, and whether there is a bias.
EPILOGUES: dict[ex.Node, tuple[str | None, bool]] = {
    ADD: (None, True),
    RELU: ("relu", False),
    ex.substitute((RELU,), (ADD,))[0]: ("relu", True),
}
NAN = 0xFF  # the byte of which nan can be made


@dataclass(frozen=True, slots=True)
class Layer:
    """One call of cuBLASLt, or `otherwise`. operands: places of A, B, C and, where there is one, the bias."""

    call: Dense
    otherwise: tuple[Any, ...]  # calls of cuBLAS and launches
    operands: tuple[int, ...]

    def bound(self, gpu: Gpu, addresses: list[int]) -> Callable[[], None]:
        """A function that puts it on the device's queue; the algorithm is chosen here, for these addresses."""
        places = tuple([addresses[p] for p in self.operands])
        layers = gpu.products.layers
        prepared = layers.prepared(self.call, places)
        if prepared is not None:
            return lambda: layers.run(prepared, places)
        steps = [gpu.bound(launch, addresses) for launch in self.otherwise]

        def run() -> None:
            for step in steps:
                step()

        return run


def call_of(
    ins: tuple[Layout, ...], out: Layout, after: ex.Node, precision: str
) -> tuple[Dense | None, tuple[int, ...]]:
    """The call for a product and what follows it, and which inputs to copy to C order first; None where cuBLASLt has none.

    ins: A, B and, where `after` reads it, the bias along the last axis. after: a key of `EPILOGUES`.
    """
    found = EPILOGUES.get(after)
    a, b, *rest = ins
    if found is None or len(rest) != found[1] or out.dtype.name != "float32":
        return None, ()
    copies = operands_to_copy(a, b, out)
    a, b = (layout(x.shape, x.dtype, None, x.device) if i in copies else x for i, x in enumerate((a, b)))
    bias = rest[0] if rest else None
    return dense(a, b, out, bias=bias, activation=found[0], precision=precision), copies


def layer_work(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Work, tuple[int, ...]]:
    """The launch, and which inputs must be copied to C order first. attrs: `after`, and `precision` as of a product."""
    (out,), after, precision = outs, attrs["after"], attrs.get("precision", "float32")
    call, copies = call_of(ins, out, after, precision)
    assert call is not None, "a plan asks call_of before"
    a, b, *bias = [layout(x.shape, x.dtype, None, x.device) if i in copies else x for i, x in enumerate(ins)]
    at = len(ins)
    products = [Multiply(g, (0, 1, at)) for g in gemm(a, b, out, precision=precision).calls]
    reads = (out, *bias)
    loads = tuple(map(Load, range(len(reads))))
    chain = elementwise.Chain((*loads, Map(after, tuple(range(len(reads))), out.dtype, out.dtype, ())), (len(reads),))
    written = elementwise.work(chain, reads, (out,), places=(at, *range(2, at), at))
    return Work((Layer(call, (*products, *written.launches), (0, 1, at, *range(2, at))),)), copies  # type: ignore[arg-type]


class Layers:
    """The cuBLASLt handle of a device, and what it prepared: for each call and alignment of its addresses once.

    It shares the workspace and the lock of `Products`: a descriptor holds the address of the bias, so two threads take turns.
    """

    def __init__(self, gpu: Gpu, workspace: int, nbytes: int, lock: Any, library: CublasLt | None = None):
        self.gpu, self.workspace, self.nbytes, self._lock = gpu, workspace, nbytes, lock
        gpu.driver.enter()
        self.library = library or CublasLt()
        self._prepared: dict[tuple, Prepared | None] = {}

    def prepared(self, call: Dense, places: tuple[int, ...]) -> Prepared | None:
        """How cuBLASLt carries out the call on these addresses; None where it has no way, or its relu is not ours."""
        key = (call, *map(alignment, places))
        if key not in self._prepared:
            self.gpu.driver.enter()
            with self._lock:
                found = self.library.prepare(call, places, self.nbytes)
            if found is not None and call.activation == "relu" and not self._keeps_nan(found):
                self.library.close_prepared(found)
                found = None
            self._prepared[key] = found
        return self._prepared[key]

    def run(self, prepared: Prepared, places: tuple[int, ...]) -> None:
        """Put it on the device's queue, or into the graph that is captured."""
        driver = self.gpu.driver
        driver.enter()
        with self._lock:
            self.library.run(prepared, places, driver.stream, self.workspace)

    def _keeps_nan(self, prepared: Prepared) -> bool:
        """Whether nan stays nan: NVIDIA documents max(x, 0), and the GPU's max of nan and 0 is 0. It is tried once, on nan."""
        driver, call = self.gpu.driver, prepared.call
        product = call.gemm
        first, second, result = (
            reach(x, *shape)
            for x, shape in zip((product.first, product.second, product.result), call.shapes(), strict=True)
        )
        sizes = (max(first, second), result, product.m * 4)
        held = []
        with contextlib.suppress(OutOfMemory):
            held = [self.gpu.pool.allocate(n + ALIGNED, "a trial of cuBLASLt") for n in sizes]
        if not held:
            return False
        ins, out, bias = (buffer.address + -buffer.address % ALIGNED for buffer in held)
        for address, byte, n in ((ins, NAN, sizes[0]), (out, 0, sizes[1]), (bias, NAN, sizes[2])):
            driver.fill(address, byte, n)
        self.run(prepared, (ins, ins, out, bias))
        found = np.empty(sizes[1] // 4, np.float32)
        driver.download(found.ctypes.data, out, found.nbytes)
        rows = np.lib.stride_tricks.as_strided(found, (product.n, product.m), (4 * product.result.leading, 4))
        return bool(np.isnan(rows).all())


def reach(matrix: Matrix, rows: int, columns: int) -> int:
    """Bytes from the first element of a float32 matrix, by columns, to behind its last."""
    return 4 * ((columns - 1) * matrix.leading + rows)
