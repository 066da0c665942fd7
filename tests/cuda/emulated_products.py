"""A simulated GPU whose products go to an emulated cuBLAS and cuBLASLt."""

from __future__ import annotations

import itertools

from emulated_cublas import Emulated

from tapegrad.kernels.cuda.cublas import Cublas, bound
from tapegrad.kernels.cuda.cublas_table import CUBLAS, CUBLASLT
from tapegrad.kernels.cuda.cublaslt import CublasLt
from tapegrad.kernels.cuda.devices import Gpu
from tapegrad.kernels.cuda.products import Products
from tapegrad.kernels.cuda.simulated import simulated_driver
from tapegrad.kernels.prepare import BACKENDS
from tapegrad.tape import spaces


class OnHost:
    """The emulated library reads host memory: addresses of the device are translated, and calls wait their turn in its queue."""

    def __init__(self, gpu: Gpu, library: Emulated):
        self.gpu, self.calls = gpu, []
        self.cublas, self.cublaslt = Cublas(bound(library, CUBLAS)), CublasLt(bound(library, CUBLASLT))
        self.close_prepared = self.cublaslt.close_prepared

    def real(self, addresses) -> tuple[int, ...]:
        return tuple(self.gpu.driver.view(a, 1).__array_interface__["data"][0] for a in addresses)

    def use(self, *_) -> None:
        """There is one queue."""

    def prepare(self, call, addresses, nbytes):
        assert not self.gpu.driver.capturing, "the algorithm is chosen before a capture"
        return self.cublaslt.prepare(call, addresses, nbytes)

    def run(self, call, addresses, *more) -> None:
        """Of cuBLAS: (call, addresses); of cuBLASLt: (prepared, addresses, stream, workspace)."""
        real, library = self.real(addresses), self.cublaslt if more else self.cublas
        self.calls.append(call.call if more else call)
        self.gpu.driver.ask("product", "by an emulated library", lambda: library.run(call, real, *more))


numbers = itertools.count(20)


def gpu_with_products(monkeypatch, library: Emulated) -> tuple[str, Gpu, list]:
    """The GPU's name, which no other has had, since what ops launch is kept by it; the GPU; the calls that its libraries get."""
    device = f"cuda:{next(numbers)}"
    gpu = Gpu(1, simulated_driver(1))
    host = OnHost(gpu, library)
    gpu.products = Products(gpu, host, host)  # type: ignore[arg-type]
    monkeypatch.setitem(spaces._spaces, device, gpu)
    monkeypatch.setitem(BACKENDS, device, gpu.backend)
    return device, gpu, host.calls
