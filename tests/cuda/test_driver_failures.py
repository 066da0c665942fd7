"""What the CUDA driver says when something fails or is missing, and that its stand-in is like the real bindings."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import fake_bindings
import pytest
from driver_devices import (  # noqa: F401  fixtures
    ADD,
    BINDINGS,
    adding,
    either_device,
    fake_add,
    get,
    made,
    put,
    simulated_add,
    stand_in_driver,
)
from fake_bindings import SIGNATURES, CUresult, Fake

from tapegrad.errors import KernelError, OutOfMemory, TapeError
from tapegrad.kernels.cuda import library
from tapegrad.kernels.cuda.driver import Driver
from tapegrad.kernels.cuda.faults import COMPILING, LOST, MISSING, CaptureUnsafe, ContextLost, DriverMissing, NotLoaded
from tapegrad.kernels.cuda.words import Words

# statuses

OPERATIONS = {
    "cuMemAlloc": lambda d: d.allocate(4),
    "cuMemFree": lambda d: d.free(d.allocate(4)),
    "cuMemGetInfo": lambda d: d.memory(),
    "cuMemHostAlloc": lambda d: d.pinned(4),
    "cuEventCreate": lambda d: d.pinned(4),
    "cuCtxSetCurrent": lambda d: d.memory(),
    "cuMemcpyHtoDAsync": lambda d: put(d, [1]),
    "cuMemcpyDtoHAsync": lambda d: get(d, put(d, [1]), 1),
    "cuMemcpyDtoDAsync": lambda d: d.copy(d.allocate(4), d.allocate(4), 4),
    "cuMemsetD8Async": lambda d: d.fill(d.allocate(4), 0, 4),
    "cuStreamSynchronize": lambda d: d.synchronize(),
    "cuModuleLoadDataEx": adding,
    "cuModuleGetFunction": adding,
    "cuFuncLoad": adding,
    "cuLaunchKernel": lambda d: d.launch(adding(d), 1, 1, 0, Words([0, 0, 0])),
    "cuFuncSetAttribute": lambda d: d.launch(adding(d), 1, 1, 64 << 10, Words([0, 0, 0])),
    "cuStreamBeginCapture": lambda d: d.capture().__enter__(),
    "cuEventRecord": lambda d: d.upload(d.allocate(4), d.pinned(4).address, 4),
}


@pytest.mark.parametrize("call", OPERATIONS)
def test_no_status_is_overlooked(driver, call):
    for status, kind, sentence in [
        (2, OutOfMemory, "no more memory"),
        (700, ContextLost, "a kernel read or wrote outside its memory"),
        (719, ContextLost, "restart it"),
        (999, KernelError, "CUDA_ERROR_UNKNOWN"),
    ]:
        block = driver.pinned(4)  # cuEventRecord needs one that lives
        operation = OPERATIONS[call]
        if call == "cuEventRecord":
            operation = lambda d: d.upload(d.allocate(4), block.address, 4)  # noqa: B023, E731
        driver.api.answers[call] = [status]
        with pytest.raises(kind, match=sentence) as caught:
            operation(driver)
        assert str(caught.value).startswith("cuda:0, ")
        assert CUresult(status).name in str(caught.value)
        assert driver.api.answers[call] == []


@pytest.mark.parametrize("status", [s for s in CUresult if s])
def test_every_status_is_a_sentence(driver, status):
    driver.api.answers["cuStreamSynchronize"] = [status]
    with pytest.raises((KernelError, OutOfMemory, TapeError)) as caught:
        driver.synchronize()
    text = str(caught.value)
    assert text.endswith(".")
    number = int(status)
    expected = (
        OutOfMemory
        if number == 2
        else TapeError
        if number == 3
        else ContextLost
        if number in LOST
        else DriverMissing
        if number in MISSING
        else CaptureUnsafe
        if 900 <= number <= 908
        else KernelError
    )
    assert type(caught.value) is expected
    for table in (LOST, MISSING, COMPILING):
        assert number not in table or table[number] in text


def test_numbers_of_statuses_are_those_of_the_bindings():
    for table in (LOST, MISSING, COMPILING):
        for number in table:
            assert CUresult(number)


def test_an_unnamed_status(driver):
    driver.api.answers["cuStreamSynchronize"] = [999]
    driver.api.answers["cuGetErrorName"] = [1]
    with pytest.raises(KernelError, match="waiting for the GPU: CUDA reports error 999"):
        driver.synchronize()


def test_compilers_log(driver):
    driver.api.log = b"ptxas application ptx input, line 9; fatal: Parsing error near 'bad': syntax error\0"
    with pytest.raises(NotLoaded) as caught:
        driver.load("bad PTX", "add", ADD)
    assert "cuda:0, loading the kernel add: the PTX code has an error (CUDA_ERROR_INVALID_PTX)" in str(caught.value)
    assert "line 9; fatal: Parsing error near 'bad'" in str(caught.value)
    assert "\0" not in str(caught.value)
    assert caught.value.status == 218


def test_code_is_loaded_once(driver):
    driver.api.kernels[b"other"], driver.api.words[b"other"] = fake_add, 3
    for code in ("one", "one", "two", b"\x7fELF"):
        driver.load(code, "add", ADD)
    driver.load("one", "other", ADD)
    assert driver.api.calls.count("cuModuleLoadDataEx") == 3
    assert [h.image for h in driver.api.made if h.kind == "module"] == [b"one\0", b"two\0", b"\x7fELF"]
    with pytest.raises(KernelError, match="finding the kernel missing: the code has no kernel of that name"):
        driver.load("one", "missing", ADD)


def test_more_shared_memory_is_asked_for_once(driver):
    function = adding(driver)
    words = Words([put(driver, [1]), put(driver, [1]), 1])
    for shared in (1024, 64 << 10, 64 << 10, 96 << 10):
        driver.launch(function, 1, 1, shared, words)
    assert driver.api.calls.count("cuFuncSetAttribute") == 2


class Kernel:
    """What `prepare` asks of a `template.Kernel`."""

    arguments = ADD
    name = "add"

    def ptx(self, cc):
        assert cc == (9, 0)
        return ".version 9.5 .visible .entry add("

    def function(self):
        return simulated_add


def test_prepare(device, monkeypatch):
    from tapegrad.kernels.cuda import door

    function = device.prepare(Kernel())
    assert (function.name, function.arguments) == ("add", ADD)
    if isinstance(device, Driver):
        lower = b".version 9.0 .visible .entry add("
        monkeypatch.setattr(door, "assemble", lambda ptx, cc: b"\x7fELF of " + ptx.encode())

        def prepared(*statuses):
            device._modules.clear()
            device.api.answers["cuModuleLoadDataEx"] = list(statuses)
            return device.prepare(Kernel()).handle.module.image

        assert prepared(222) == lower + b"\0" == prepared()  # newer than the driver: under its version, from then on
        assert prepared(218) == b"\x7fELF of " + lower == prepared()  # an instruction that is newer: machine code
        assert device.api.calls.count("cuModuleLoadDataEx") == 7
        device.form = 0
        assert prepared(221, 221) == b"\x7fELF of " + lower  # a driver without a compiler
        device.form = 0
        for statuses, sentence in (((209,), "for another GPU"), ((222, 222, 209), "newer than the NVIDIA driver")):
            with pytest.raises(NotLoaded, match=sentence):
                prepared(*statuses)

        def missing(ptx, cc):
            raise KernelError("nvJitLink is not there")

        monkeypatch.setattr(door, "assemble", missing)
        with pytest.raises(KernelError, match=r"newer than the NVIDIA driver.* Nor does .* nvJitLink is not there"):
            prepared(222, 222)


# starting


@pytest.mark.parametrize(
    "index, devices, sentence",
    [
        (3, 2, "cuda:3 was asked for, but there are cuda:0 to cuda:1"),
        (1, 1, "cuda:1 was asked for, but there is cuda:0"),
        (0, 0, "cuda:0 was asked for, but there is no GPU"),
        (-1, 1, "cuda:-1 was asked for, but there is cuda:0"),
    ],
)
def test_indices_out_of_range(index, devices, sentence):
    with pytest.raises(DriverMissing, match=f"{sentence}; CUDA_VISIBLE_DEVICES"):
        Driver(index, Fake(devices))


@pytest.mark.parametrize("version, fine", [(13000, True), (13050, True), (14000, True), (12090, False), (11080, False)])
def test_versions_of_the_driver(version, fine):
    if fine:
        assert Driver(api=Fake(version=version)).properties.version == (version // 1000, version % 1000 // 10)
        return
    with pytest.raises(DriverMissing) as caught:
        Driver(api=Fake(version=version))
    have = f"CUDA {version // 1000}.{version % 1000 // 10}"
    assert f"the NVIDIA driver supports {have}, but the installed packages are made for CUDA 13" in str(caught.value)


@pytest.mark.parametrize(
    "status, sentence", [(100, "finds no GPU"), (803, "restart the machine"), (999, "CUDA_ERROR_UNKNOWN")]
)
def test_a_driver_that_does_not_start(status, sentence):
    api = Fake()
    api.answers["cuInit"] = [status]
    with pytest.raises(KernelError, match=f"CUDA, starting the driver: .*{sentence}"):
        Driver(api=api)


def test_no_library():
    class Without(Fake):
        def do_cuDriverGetVersion(self):
            raise RuntimeError('"cuda" is an NVIDIA driver library')

    Fake.do_cuDriverGetVersion, before = Without.do_cuDriverGetVersion, Fake.do_cuDriverGetVersion
    try:
        with pytest.raises(DriverMissing, match=r"the NVIDIA driver is not installed.*nvidia\.com"):
            Driver(api=Fake())
    finally:
        Fake.do_cuDriverGetVersion = before


def test_no_bindings(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(DriverMissing, match=r"pip install 'tapegrad\[cuda\]'"):
        Driver()
    with pytest.raises(DriverMissing):
        library.device_count()


def test_start_that_fails_half_way():
    for call in ("cuDevicePrimaryCtxRetain", "cuStreamCreate", "cuDeviceGetAttribute", "cuDeviceGetCount"):
        api = Fake()
        api.answers[call] = [2]
        with pytest.raises(OutOfMemory):
            Driver(api=api)


def test_threads_have_the_context(driver):
    seen = []
    thread = threading.Thread(target=lambda: seen.append(get(driver, put(driver, [3]), 1)))
    thread.start()
    thread.join()
    assert seen == [[3]]


FORK = """
import os, sys
sys.path.insert(0, {folder!r})
from tapegrad.errors import TapeError
from tapegrad.kernels.cuda.pool import DevicePool
from driver_devices import adding, get, made, put
from tapegrad.kernels.cuda.words import Words
device = made({kind!r})
pool = DevicePool(device)
a, function, block, held = put(device, [1]), adding(device), device.pinned(4), pool.allocate(100)
with device.capture() as graph:
    device.fill(a, 0, 4)
uses = [lambda: put(device, [1]), lambda: get(device, a, 1), device.synchronize, device.memory, graph.launch,
        lambda: device.fill(a, 0, 4), lambda: device.launch(function, 1, 1, 0, Words([a, a, 1])), lambda: device.free(a),
        lambda: device.pinned(4), lambda: device.capture().__enter__(), lambda: pool.allocate(8)]
child = os.fork()
if child == 0:
    refused = 0
    for use in uses:
        try:
            use()
        except TapeError as error:
            refused += "forked child" in str(error) and "spawn" in str(error)
    del graph, block, held
    os._exit(0 if refused == len(uses) else 3)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
for use in uses[:6]:
    use()
print(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("kind", ["driver", "simulated"])
def test_a_forked_child_is_refused(kind):
    folder = str(Path(__file__).parent)
    program = FORK.format(folder=folder, kind=kind)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "0\n", done.stderr


def test_cuda_that_started_before_a_fork(driver):
    """Another library started CUDA, and the driver says so in the child."""
    api = Fake()
    api.answers["cuInit"] = [3]
    with pytest.raises(TapeError, match="forked child"):
        Driver(api=api)


# the stand-in is like the bindings


def test_signatures_are_those_of_the_bindings():
    if not BINDINGS:
        pytest.skip("cuda-bindings are not installed")
    from cuda.bindings import driver as real

    for name, parameters in SIGNATURES.items():
        assert list(inspect.signature(getattr(real, name)).parameters) == parameters.split(), name
    for kind in fake_bindings.ENUMS:
        for member in kind:
            assert getattr(getattr(real, kind.__name__), member.name).value == member.value
    assert Fake.CU_MEMHOSTALLOC_PORTABLE == real.CU_MEMHOSTALLOC_PORTABLE
    assert real.CUDA_VERSION >= 12000


def test_every_call_is_in_the_table():
    """The driver calls nothing that the stand-in does not know, and the stand-in knows nothing more."""
    import tapegrad.kernels.cuda.driver as source

    text = "".join(Path(m.__file__).read_text() for m in (source, library))
    assert set(re.findall(r"api\.(cu[A-Z]\w+)", text)) == set(SIGNATURES)


def test_the_real_bindings(tmp_path):
    """All calls by way of cuda-bindings, with a library of the driver's name that `libcuda.c` is built to."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux") or not BINDINGS:
        pytest.skip("needs Linux, a C compiler and cuda-bindings")
    folder = Path(__file__).parent
    build = [compiler, "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", folder / "libcuda.c"]
    subprocess.run(build, check=True, timeout=120)
    paths = os.pathsep.join([str(folder.parent.parent), *sys.path])
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": paths}
    program = [sys.executable, folder / "with_stub.py"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["launch", "graph", "fill"]
