"""What holds with and without the simulator: every op has a kernel, the door says what is missing, imports stay light."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tapegrad
from tapegrad.errors import KernelError
from tapegrad.kernels.cache import ObjectCache
from tapegrad.kernels.cuda import blocks, door, elementwise, library, movement, stored, template
from tapegrad.kernels.cuda.kernels import ACCEPTS, KERNELS
from tapegrad.kernels.fused import Load
from tapegrad.layouts import layout
from tapegrad.ops.registry import REGISTRY

INSTALLED = importlib.util.find_spec("numba_cuda") is not None


def test_every_op_has_a_kernel():
    """Composites are made of other ops, views are layouts, elementwise kernels are generated: the rest needs a builder."""
    primitives = {op.builder for op in REGISTRY.values() if op.kind == "primitive"}
    assert primitives - set(KERNELS) == set()
    assert set(ACCEPTS) <= set(KERNELS)


def test_importing_the_library_imports_no_cuda():
    code = (
        "import sys, tapegrad, tapegrad.kernels.cuda.kernels, tapegrad.kernels.cuda.backend\n"
        "print([m for m in sys.modules if m.startswith(('numba.cuda', 'numba_cuda', 'cuda'))])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_numba_cuda_has_one_door():
    folder = Path(door.__file__).parent
    for path in sorted(folder.glob("*.py")):
        found = re.search(r"^\s*(from numba import .*\bcuda\b|(from|import) numba(\.|_)cuda)", path.read_text(), re.M)
        assert (found is None) == (path.name != "door.py"), (path.name, found)


def test_without_the_package(monkeypatch):
    door.module.cache_clear()
    monkeypatch.setattr(door.importlib.util, "find_spec", lambda name: None)
    try:
        assert not tapegrad.cuda.is_available()
        assert "numba-cuda is not installed" in door.why_not() and "tapegrad[cuda]" in door.why_not()
        with pytest.raises(KernelError, match="numba-cuda is not installed"):
            door.module()
    finally:
        door.module.cache_clear()


SUCCESS, NO_DEVICE, BROKEN = 0, 100, 999


class Driver:
    """Stands for cuda.bindings.driver."""

    CUDA_VERSION = 13000

    def __init__(self, started=SUCCESS, devices=1):
        self.started, self.devices = started, devices

    def cuDriverGetVersion(self):
        return SUCCESS, 13000

    def cuInit(self, flags):
        return (self.started,)

    def cuDeviceGetCount(self):
        return SUCCESS, self.devices

    def cuGetErrorName(self, status):
        return SUCCESS, b"CUDA_ERROR_SOMETHING"


class Without(Driver):
    """The bindings, where there is no library of the driver."""

    def cuDriverGetVersion(self):
        raise RuntimeError("Failed to dlopen libcuda.so.1")


def test_without_a_driver(monkeypatch):
    monkeypatch.setattr(door, "simulated", lambda: False)
    monkeypatch.setattr(library, "bindings", Without)
    assert not tapegrad.cuda.is_available()
    assert "the NVIDIA driver is not installed" in door.why_not()


@pytest.mark.parametrize(
    "driver, words",
    [
        (Driver(), None),
        (Driver(started=NO_DEVICE), "finds no GPU"),
        (Driver(devices=0), "finds no GPU"),
        (Driver(started=BROKEN), "does not start (CUDA_ERROR_SOMETHING)"),
    ],
)
def test_what_the_driver_says(monkeypatch, driver, words):
    monkeypatch.setattr(door, "simulated", lambda: False)
    monkeypatch.setattr(library, "bindings", lambda: driver)
    monkeypatch.setattr(door, "find_compiler", lambda: "a toolkit")
    assert tapegrad.cuda.is_available() == (words is None)
    assert (door.why_not() is None) if words is None else (words in door.why_not())


def test_in_the_child_of_a_fork(monkeypatch):
    monkeypatch.setattr(door, "simulated", lambda: False)
    monkeypatch.setattr(library, "bindings", lambda: Driver(started=3))
    assert not tapegrad.cuda.is_available()
    assert "forked child process" in door.why_not()


@pytest.mark.skipif(not INSTALLED, reason="numba-cuda is not installed")
def test_the_simulator_is_no_gpu(monkeypatch):
    monkeypatch.setattr(door, "simulated", lambda: True)
    assert not tapegrad.cuda.is_available() and "NUMBA_ENABLE_CUDASIM" in door.why_not()


def test_text_without_a_kernel():
    with pytest.raises(KernelError, match="no kernel in it"):
        door.entry(".version 8.0")


# PTX on disk


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """How often a kernel is compiled; the cache is empty at first."""
    (tmp_path / "cache").mkdir(mode=0o700)
    made = ObjectCache(tmp_path / "cache", "1")
    count = []

    def compile_ptx(function, arguments, cc, aligned):
        count.append((arguments, cc, aligned))
        return f"ptx {len(count)}"

    monkeypatch.setattr(stored, "object_cache", lambda: made)
    monkeypatch.setattr(door, "compile_ptx", compile_ptx)
    monkeypatch.setattr(template.Kernel, "function", lambda self: self.body)
    monkeypatch.setattr(elementwise.Written, "function", lambda self: self.body)
    return count


def kernel(dtype=tapegrad.float32, **bound):
    return template.Template(movement.fill_range.function, "start: *T, step: *T, y: *T, n: int").bind(
        T=dtype, A=dtype, **bound
    )


def test_ptx_is_stored(compiled):
    assert kernel().ptx((9, 0)) == kernel().ptx((9, 0)) == "ptx 1"
    assert kernel().ptx((8, 0)) == "ptx 2" and kernel(tapegrad.float64).ptx((9, 0)) == "ptx 3"
    assert kernel(aligned=True).ptx((9, 0)) == "ptx 4" and kernel(N=3).ptx((9, 0)) == "ptx 5"
    assert kernel(load=blocks.add).ptx((9, 0)) == "ptx 6" and kernel(load=blocks.less).ptx((9, 0)) == "ptx 7"
    assert kernel(load=blocks.add).ptx((9, 0)) == "ptx 6" and len(compiled) == 7


def test_ptx_of_written_kernels_is_stored(compiled):
    x, chain = layout((64,), tapegrad.float32), movement.COPY
    form = elementwise.Form(chain, (x.dtype,), (x.dtype,), "vv", 1, 4)
    assert (
        elementwise.Written(elementwise.Source(form)).ptx((9, 0))
        == elementwise.Written(elementwise.Source(form)).ptx((9, 0))
        == "ptx 1"
    )
    double = elementwise.Form(chain, (tapegrad.float64,), (tapegrad.float64,), "vv", 1, 4)
    assert elementwise.Written(elementwise.Source(double)).ptx((9, 0)) == "ptx 2"


def test_inline_functions_by_other_names(compiled):
    """The same body, in which a free name is another: it is another function, for the cache too."""
    assert blocks.order_top.function.__code__.co_names.count("TOP") == 2
    assert repr(blocks.order_top) == "<inline order_top>" and blocks.order_top.function.__module__ == blocks.__name__
    assert kernel(load=blocks.order_top).ptx((9, 0)) != kernel(load=blocks.order_bottom).ptx((9, 0))
    with pytest.raises(KernelError, match="<inline add> has no free name B, combine"):
        blocks.add.renamed("other", combine="larger", B="T")


def test_ptx_of_other_peoples_functions_is_not_stored(compiled):
    foreign = template.inline(lambda a, b: a)
    assert kernel(load=foreign).ptx((9, 0)) != kernel(load=foreign).ptx((9, 0))

    def own(x, n):
        x[0] = n

    made = [template.Template(own, "x: *float32, n: int").bind() for _ in range(2)]
    assert made[0].ptx((9, 0)) != made[1].ptx((9, 0))
    called = elementwise.Chain((Load(0), elementwise.Call(own, (0,), tapegrad.float32, tapegrad.float32)), (1,))
    form = elementwise.Form(called, (tapegrad.float32,), (tapegrad.float32,), "vv", 1, 1)
    assert elementwise.Written(elementwise.Source(form)).ptx((9, 0)) != elementwise.Written(
        elementwise.Source(form)
    ).ptx((9, 0))
