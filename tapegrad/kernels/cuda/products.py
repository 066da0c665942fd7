"""Products by cuBLAS among the launches of a work: on a GPU, in place of the kernel of `matmul.py`."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...layouts import Layout, layout
from .cublas import Cublas, workspace_bytes
from .gemm import Gemm, gemm, has_gemm, operands_to_copy
from .template import Work

if TYPE_CHECKING:
    from .cublaslt import CublasLt
    from .dense import Layers
    from .devices import Gpu


@dataclass(frozen=True, slots=True)
class Multiply:
    """One call of cuBLAS. operands: places of A, B and C among the op's operands."""

    call: Gemm
    operands: tuple[int, ...] = (0, 1, 2)

    def bound(self, gpu: Gpu, addresses: list[int]) -> Callable[[], None]:
        """A function that puts the call on the device's queue."""
        places, run, call = tuple([addresses[p] for p in self.operands]), gpu.products.run, self.call
        return lambda: run(call, places)


@dataclass(frozen=True, slots=True)
class Clear:
    """Zeros for an operand, where a product has nothing to add up."""

    nbytes: int
    operands: tuple[int, ...] = (2,)

    def bound(self, gpu: Gpu, addresses: list[int]) -> Callable[[], None]:
        """A function that puts the fill on the device's queue."""
        address, fill, nbytes = addresses[self.operands[0]], gpu.driver.fill, self.nbytes
        return lambda: fill(address, 0, nbytes)


def product_work(ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict) -> tuple[Work, tuple[int, ...]] | None:
    """The calls of a product, and which inputs must be copied to C order first; None where cuBLAS has none for the dtype.

    attrs: `turned`: b is given transposed; `order`: the result's axes as they lie in memory; `precision`: of float32; `after`:
    what follows the product, as in `dense.py`.
    """
    if "after" in attrs:
        from .dense import layer_work

        return layer_work(ins, outs, attrs)
    (a, b), (out,) = ins, outs
    if not has_gemm(out.dtype.name):
        return None
    order, is_turned = attrs.get("order"), bool(attrs.get("turned"))
    copies = operands_to_copy(a, b, out, turned_b=is_turned, order=order)
    a, b = [layout(x.shape, x.dtype, None, x.device) if i in copies else x for i, x in enumerate((a, b))]
    made = gemm(a, b, out, turned_b=is_turned, order=order, precision=attrs.get("precision", "float32"))
    if made.zero:
        return Work((Clear(out.nbytes),)), copies  # type: ignore[arg-type]
    return Work(tuple(map(Multiply, made.calls))), copies  # type: ignore[arg-type]


class Products:
    """The handles of cuBLAS and cuBLASLt of a device, with memory of their own to work in, on whatever stream its work goes to.

    The handle keeps a stream, which is another one while a graph is captured, so threads take turns.
    """

    def __init__(self, gpu: Gpu, cublas: Cublas | None = None, cublaslt: CublasLt | None = None):
        self.gpu, self.driver = gpu, gpu.driver
        gpu.driver.enter()  # a handle is of the device whose context is current
        self.cublas, self._cublaslt = cublas or Cublas(), cublaslt
        self.nbytes = workspace_bytes(gpu.driver.properties.capability)
        self.workspace = gpu.driver.allocate(self.nbytes)
        self.stream: int | None = None
        self._lock = threading.Lock()

    @functools.cached_property
    def layers(self) -> Layers:
        """Products with what follows them, by cuBLASLt."""
        from .dense import Layers

        return Layers(self.gpu, self.workspace, self.nbytes, self._lock, self._cublaslt)

    def run(self, call: Gemm, addresses: tuple[int, ...]) -> None:
        """Put one call on the device's queue, or into the graph that is captured."""
        self.driver.enter()
        with self._lock:
            stream = self.driver.stream
            if stream != self.stream:
                self.cublas.use(stream, self.workspace, self.nbytes)
                self.stream = stream
            self.cublas.run(call, addresses)
