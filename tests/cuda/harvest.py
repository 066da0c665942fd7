"""The kernels that ops come to, without running them: an op prepared for layouts, and all that a call prepares on the way."""

from __future__ import annotations

from collections.abc import Iterator

from cuda_simulator import HostSpace

from tapegrad.errors import KernelError
from tapegrad.kernels.cuda import door
from tapegrad.kernels.cuda.backend import Cuda, work_of
from tapegrad.kernels.cuda.template import Kernel, Work
from tapegrad.kernels.prepare import BACKENDS, infer
from tapegrad.kernels.reference import Reference
from tapegrad.tape import spaces

DEVICE = "cuda:89"


def kernels_of(work: Work) -> Iterator[Kernel]:
    for launch in work.launches:
        yield launch.kernel
        if launch.unaligned is not None:
            yield launch.unaligned.kernel


def kernels(op, ins, **attrs) -> list[Kernel]:
    """The kernels of an op on inputs of those layouts."""
    outs, compute, _ = infer(op, tuple(ins), attrs)
    return list(kernels_of(work_of(op, tuple(ins), outs, attrs, compute)[0]))


class Harvester(Reference):
    """A device that prepares launches for CUDA, keeps their kernels, and computes with the NumPy reference instead."""

    def __init__(self):
        self.kernels: dict[Kernel, str] = {}  # with the name of the op that needed each first
        self.cuda = Cuda(None)

    def _collect(self, op, prepared) -> None:
        for kernel in kernels_of(prepared.work):
            self.kernels.setdefault(kernel, op.name)

    def prepare(self, op, ins, attrs):
        self._collect(op, self.cuda.prepare(op, ins, attrs))
        return super().prepare(op, ins, attrs)

    def into(self, op, ins, outs):
        self._collect(op, self.cuda.into(op, ins, outs))
        return super().into(op, ins, outs)


def install() -> Harvester:
    """Make the device known to this process."""
    found = BACKENDS.get(DEVICE)
    if found is None:
        found = BACKENDS[DEVICE] = Harvester()
        spaces._spaces[DEVICE] = HostSpace()
    return found


def ptx(kernel: Kernel, name: str, cc: tuple[int, int] = (9, 0)) -> str:
    """The kernel's PTX; a failure names the op and the kernel. One whose accesses were joined must be assembled, too."""
    try:
        text = kernel.ptx(cc)
        if kernel.aligned:
            door.assemble(text, cc)
        return text
    except Exception as error:
        raise KernelError(f"{name}: {kernel} does not compile for {cc}: {error}") from error
