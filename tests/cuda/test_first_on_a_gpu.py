"""One test for each layer below an op, from the driver up: on a GPU, the first that fails says where to look. `pytest -m gpu`."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

import tapegrad as tg
from tapegrad.kernels.cuda import door, library, template
from tapegrad.kernels.cuda.devices import open_device
from tapegrad.kernels.cuda.names import T, cuda
from tapegrad.kernels.cuda.streams import COPIES, MAIN
from tapegrad.kernels.cuda.words import Words

USABLE = os.environ.get("TAPEGRAD_CUDA", "driver") == "driver" and tg.cuda.is_available()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not USABLE, reason=f"no GPU: {tg.cuda.why_not()}")]
N = 1000


@template.template("x: *T, y: *T, n: int")
def accumulated(x, y, n):
    i = cuda.grid(1)
    while i < n:
        y[i] = T(y[i] + x[i])
        i += cuda.gridsize(1)


@pytest.fixture(name="gpu", scope="module")
def first_gpu():
    return open_device("cuda:0")


def put(gpu, array: np.ndarray) -> int:
    address = gpu.driver.allocate(array.nbytes)
    gpu.driver.upload(address, array.ctypes.data, array.nbytes)
    return address


def get(gpu, address: int, n: int = N) -> np.ndarray:
    found = np.empty(n, np.float32)
    gpu.driver.download(found.ctypes.data, address, found.nbytes)
    return found


def numbers(seed: int = 0, n: int = N) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n).astype(np.float32)


def in_a_thread(work) -> None:
    failed: list[BaseException] = []

    def run():
        try:
            work()
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failed


def test_01_driver():
    assert library.device_count() >= 1


def test_02_context_and_properties(gpu):
    p = gpu.driver.properties
    print(p)
    assert p.capability >= (7, 5) and p.processors > 0 and p.version >= (12, 0) and p.memory > 1 << 30
    free, total = gpu.driver.memory()
    assert 0 < free <= total


def test_03_memory(gpu):
    x = numbers()
    a, b = put(gpu, x), gpu.driver.allocate(x.nbytes)
    gpu.driver.fill(b, 0, x.nbytes)
    gpu.driver.copy(b + 4, a + 4, x.nbytes - 8)
    np.testing.assert_array_equal(get(gpu, b), np.r_[np.float32(0), x[1:-1], np.float32(0)])
    gpu.driver.free(b)


def test_04_another_thread(gpu):
    in_a_thread(lambda: np.testing.assert_array_equal(get(gpu, put(gpu, numbers(1))), numbers(1)))


def test_05_page_locked_memory(gpu):
    block = gpu.driver.pinned(4 * N)
    view = np.asarray(block).view(np.float32)
    view[:] = numbers()
    address = gpu.driver.allocate(4 * N)
    gpu.driver.upload(address, block.address, 4 * N)
    block.wait()
    view[:] = 0
    gpu.driver.fetch(block, address, 4 * N)
    block.wait()
    np.testing.assert_array_equal(view, numbers())


@pytest.mark.parametrize("n", [1, N, 1 << 20])
def test_06_pageable_memory_may_change_at_once(gpu, n):
    """While the queue has work: the driver must have read the source when it returns."""
    busy, place = gpu.driver.allocate(1 << 28), gpu.driver.allocate(4 * n)
    for i in range(20):
        x = numbers(i, n)
        gpu.driver.fill(busy, i, 1 << 28)
        gpu.driver.upload(place, x.ctypes.data, x.nbytes)
        x[:] = np.nan
        np.testing.assert_array_equal(get(gpu, place, n), numbers(i, n))
    gpu.driver.free(busy)


def test_07_queues_and_events(gpu):
    block, event = gpu.driver.pinned(4 * N), gpu.driver.event()
    np.asarray(block).view(np.float32)[:] = numbers()
    a, b = gpu.driver.allocate(4 * N), gpu.driver.allocate(4 * N)
    gpu.driver.fill(a, 0, 4 * N)
    gpu.driver.record(event)
    gpu.driver.wait(COPIES, event)
    gpu.driver.upload(a, block.address, 4 * N, COPIES)
    gpu.driver.wait(MAIN, block)
    gpu.driver.copy(b, a, 4 * N)
    gpu.follow()
    np.testing.assert_array_equal(get(gpu, b), numbers())


def test_08_the_compiler(gpu):
    """PTX by numba-cuda and NVVM, for this GPU or an older one. Its version may be newer than the driver's."""
    ptx = accumulated.bind(T=tg.float32).compiled(gpu.driver.properties.capability)
    print([line for line in ptx.splitlines() if line.startswith((".version", ".target", "// Cuda compilation"))])
    assert ".visible .entry kernel_accumulated(" in ptx


@pytest.mark.parametrize("how", ["PTX", "PTX of the driver's version", "machine code"])
def test_09_loading_and_launching(gpu, how):
    kernel, p = accumulated.bind(T=tg.float32), gpu.driver.properties
    text = kernel.ptx(p.capability)
    if how != "PTX":
        text = door.lowered(text, p.version)
    code = door.assemble(text, p.capability) if how == "machine code" else text
    function = gpu.driver.load(code, door.entry(text), kernel.arguments)
    x, y = put(gpu, numbers(0)), put(gpu, numbers(1))
    gpu.driver.launch(function, 2, 128, 0, Words([x, y, N - 1]))
    want = numbers(1)
    want[:-1] += numbers(0)[:-1]
    np.testing.assert_array_equal(get(gpu, y), want)


def test_10_a_graph(gpu):
    kernel = accumulated.bind(T=tg.float32)
    function = gpu.driver.prepare(kernel)
    block = gpu.driver.pinned(4 * N)
    view = np.asarray(block).view(np.float32)
    x, y, z = (put(gpu, np.zeros(N, np.float32)) for _ in range(3))
    with gpu.driver.capture() as graph:
        gpu.driver.upload(x, block.address, 4 * N)
        gpu.driver.launch(function, 4, 64, 0, Words([x, y, N]))
        gpu.driver.copy(z, y, 4 * N)
        gpu.driver.free(gpu.driver.allocate(64))
        other = threading.Thread(target=lambda: put(gpu, numbers()))  # memory of another thread
        other.start()
        other.join()
    assert graph.nodes == 3
    for i in range(3):
        block.wait()
        view[:] = i + 1
        graph.launch()
    np.testing.assert_array_equal(get(gpu, z), np.full(N, 6, np.float32))
    graph.launch()
    graph.close()  # while it runs
    np.testing.assert_array_equal(get(gpu, z), np.full(N, 9, np.float32))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "bool"])
def test_11_an_elementwise_op(dtype):
    x = (np.arange(1025) % 7).astype(dtype)
    t = tg.tensor(x, device="cuda")
    np.testing.assert_array_equal((t == t).numpy(), np.ones(1025, bool))
    np.testing.assert_array_equal((t[1:] == t[:-1]).numpy(), x[1:] == x[:-1])  # not at multiples of 16 bytes


def test_12_shared_memory_and_barriers():
    x = np.arange(70_001, dtype=np.int64)
    t = tg.tensor(x, device="cuda")
    assert t.sum().item() == x.sum() and t.argmax().item() == 70_000
    np.testing.assert_array_equal(tg.cumsum(t, 0).numpy(), np.cumsum(x))


def test_13_cublas():
    a, b = numbers(0, 600).reshape(20, 30), numbers(1, 600).reshape(30, 20)
    x, y = tg.tensor(a, device="cuda"), tg.tensor(b, device="cuda")
    print("cuBLAS", open_device("cuda:0").products.cublas.version())
    exact = a.astype(np.float64) @ b
    np.testing.assert_allclose((x @ y).numpy(), exact, rtol=1e-5, atol=1e-5)
    in_a_thread(lambda: np.testing.assert_allclose((x @ y).numpy(), exact, rtol=1e-5, atol=1e-5))


def test_14_cublaslt_in_a_graph():
    w, b = tg.tensor(numbers(0, 64 * 64).reshape(64, 64), device="cuda"), tg.tensor(numbers(1, 64), device="cuda")
    x, session = tg.tensor(numbers(2, 640).reshape(10, 64), device="cuda"), tg.Session()
    want = np.maximum(x.numpy().astype(np.float64) @ w.numpy().T + b.numpy(), 0)
    for _ in range(5):
        with session, tg.no_grad():
            y = tg.nn.functional.relu(tg.nn.functional.linear(x, w, b))
        np.testing.assert_allclose(y.numpy(), want, rtol=1e-4, atol=1e-4)


def test_15_a_session():
    x, session = tg.tensor(numbers(), device="cuda", requires_grad=True), tg.Session()
    for i in range(6):
        with session:
            loss = (tg.tanh(x) * float(i)).sum()
            x.grad = None
            loss.backward()
        np.testing.assert_allclose(x.grad.numpy(), i * (1 - np.tanh(numbers().astype(np.float64)) ** 2), atol=1e-5)
    print(session.explain())
    assert "graph" in session.explain()


def test_16_a_failure_is_told_when_a_value_is_read():
    t = tg.take(tg.ones(3, device="cuda"), tg.tensor([0, 7], device="cuda"))
    with pytest.raises(IndexError, match="take"):
        t.numpy()
    assert tg.ones(3, device="cuda").sum().item() == 3


def test_17_beside_pytorch():
    """Both ways without a wait in between, while PyTorch's stream is busy, and memory that changes hands under it."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    big = torch.zeros(1 << 27, device="cuda:0")
    for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
        with torch.cuda.stream(stream):
            for i in range(5):
                for _ in range(5):
                    big += 1
                mine = tg.from_dlpack(big[-N:])
                np.testing.assert_array_equal(mine.numpy(), np.full(N, big[-1].item(), np.float32))
                lent = torch.from_dlpack(tg.full((1 << 24,), float(i), device="cuda"))
                out = [lent * 2 for _ in range(5)][-1]
                if stream.cuda_stream:  # no default stream: to be waited for
                    stream.synchronize()
                del lent
                other = tg.full((1 << 24,), -1.0, device="cuda")  # may get the same memory
                assert (out == 2 * i).all().item()
                assert other[-1].item() == -1
    view = torch.as_tensor(tg.ones(5, device="cuda"))
    assert view.is_cuda and view.tolist() == [1.0] * 5


def test_18_a_large_array_in_pieces():
    x = numbers(3, 5_000_001)
    np.testing.assert_array_equal(tg.tensor(x, device="cuda").numpy(), x)
