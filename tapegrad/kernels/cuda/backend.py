"""The device "cuda": prepares ops as launches of the kernels in this folder.

How launches are run, and on which memory, is the business of an object with `run(work, prepared, ins, outs, addresses)`;
the backend itself only says what to launch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ...errors import KernelError
from ...layouts import Layout, layout
from ...ops.registry import Op
from ..prepare import Prepared, compute_dtype, infer
from . import elementwise
from .kernels import ACCEPTS, KERNELS
from .template import MACHINE, Work


@dataclass(slots=True)
class CudaPrepared(Prepared):
    """A prepared call with its launches."""

    work: Work = field(default_factory=Work)


class Cuda:
    """Kernels for NVIDIA GPUs.

    `runner(op, work, ins, outs, addresses)` runs the launches of a prepared call. `products(ins, outs, attrs)` gives a matrix
    product as calls of a library, and which inputs to copy; None where it has none. blocks: the most of a launch; see `Machine`.
    """

    name = "cuda"

    def __init__(self, runner: Callable, products: Callable | None = None, blocks: int | None = None):
        self.runner = runner
        self.products = products
        self.halves = frozenset() if products is None else frozenset({"matmul"})  # as `prepare.CPU.halves`
        self.blocks = blocks

    def prepare(self, op: Op, ins: tuple[Layout, ...], attrs: dict) -> Prepared:
        with MACHINE.of(self.blocks):
            return self._prepare(op, ins, attrs)

    def _prepare(self, op: Op, ins: tuple[Layout, ...], attrs: dict) -> Prepared:
        outs, compute, offset = infer(op, ins, attrs)
        if op.kind == "view":
            return CudaPrepared(outs, (), offset=offset)
        if all(x.size == 0 for x in outs):
            return self._prepared(outs, Work())
        if self.products is not None and op.kernel is None and op.builder in ("matmul", "matmul_layer"):
            found = self.products(ins, outs, attrs)
            if found is not None:
                return self._prepared(outs, *found)
        return self._prepared(outs, *work_of(op, ins, outs, attrs, compute))

    def into(self, op: Op, ins: tuple[Layout, ...], outs: tuple[Layout, ...]) -> Prepared:
        """An elementwise op that writes to memory of given layouts."""
        compute = compute_dtype(op, ins, outs)
        with MACHINE.of(self.blocks):
            return self._prepared(outs, elementwise.work(elementwise.chain_of(op, ins, outs, compute), ins, outs))

    def _prepared(self, outs: tuple[Layout, ...], work: Work, copies: tuple[int, ...] = ()) -> Prepared:
        def run(op: Op, ins: list[Layout], outs: list[Layout], addresses: list[int]) -> None:
            self.runner(op, work, ins, outs, addresses)

        return CudaPrepared(outs, (), copies, run, work=work)


def work_of(
    op: Op, ins: tuple[Layout, ...], outs: tuple[Layout, ...], attrs: dict, compute
) -> tuple[Work, tuple[int, ...]]:
    """The launches of an op, and which inputs must be copied to C order first."""
    if op.kind == "elementwise":
        return elementwise.work(elementwise.chain_of(op, ins, outs, compute), ins, outs), ()
    if op.kernel is not None and op.cuda_kernel is None:
        raise KernelError(
            f'{op.name} is an array kernel without a CUDA body, so it runs on the device "cpu" only; give it one with '
            f"@{op.name}.cuda, or bring its inputs to the CPU with .cpu()"
        )
    builder = op.cuda_kernel or KERNELS.get(op.builder)
    if builder is None:
        raise KernelError(f"{op.name} has no CUDA kernel; register one with @cuda_kernel({op.builder!r})")
    accepts = ACCEPTS.get(op.builder)
    copies = tuple(i for i, x in enumerate(ins) if not x.contiguous and not (accepts and accepts(x)))
    plain = tuple(layout(x.shape, x.dtype, None, x.device) if i in copies else x for i, x in enumerate(ins))
    return builder(plain, outs, attrs), copies
