"""What a user sees of a GPU that fails, of a fork, and of devices that are not there: tensors and sessions on simulated GPUs."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from emulated_cublas import Emulated
from emulated_products import gpu_with_products

import tapegrad as tg
from tapegrad import nn
from tapegrad.errors import DtypeError, KernelError, OutOfMemory
from tapegrad.kernels.cuda.cublas_table import CONSTANTS
from tapegrad.kernels.cuda.faults import ContextLost, DriverMissing

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def simulator(monkeypatch):
    monkeypatch.setenv("TAPEGRAD_CUDA", "simulator")


def step(w, x, session):
    with session:
        loss = (tg.tanh(w * x) ** 2).sum()
        w.grad = None
        loss.backward()
    return loss


@pytest.mark.parametrize(
    "status, name, sentence",
    [
        (719, "CUDA_ERROR_LAUNCH_FAILED", "a kernel failed"),
        (700, "CUDA_ERROR_ILLEGAL_ADDRESS", "a kernel read or wrote outside its memory"),
    ],
)
def test_a_launch_that_failed(monkeypatch, status, name, sentence):
    """Every later use says what happened and what to do, in and outside of a session, and the CPU goes on."""
    device, gpu, _ = gpu_with_products(monkeypatch, Emulated())
    w = tg.tensor(np.ones(3), dtype=tg.float32, device=device, requires_grad=True)
    x, session = w.detach() * 2, tg.Session()
    for _ in range(4):
        held = step(w, x, session)
    gpu.driver.fail(status, name)
    for use in (
        lambda: held.item(),
        lambda: step(w, x, session),
        lambda: step(w, x, tg.Session()),
        lambda: x + 1,
        lambda: tg.tensor(np.ones(30_000), device=device),
        lambda: x.numpy(),
        gpu.synchronize,
    ):
        with pytest.raises(
            ContextLost, match=f"{sentence} .{name}.*The GPU cannot be used any more in this process: restart"
        ):
            use()
    assert (tg.ones(3) + 1).tolist() == [2.0] * 3
    assert step(tg.ones(3, requires_grad=True), tg.ones(3), tg.Session()).item() > 0


@pytest.mark.parametrize(
    "function, status, kind, sentence",
    [
        (
            "cublasGemmEx_64",
            "EXECUTION_FAILED",
            KernelError,
            "cuBLAS: matmul of 4 x 3 by 3 x 5: the GPU failed while it ran",
        ),
        ("cublasLtMatmul", "EXECUTION_FAILED", KernelError, "cuBLASLt: dense layer of 4 x 3 by 3 x 5: the GPU failed"),
        (
            "cublasLtMatmulAlgoGetHeuristic",
            "ALLOC_FAILED",
            OutOfMemory,
            "cuBLASLt: choosing an algorithm: no memory was left",
        ),
    ],
)
def test_a_product_that_failed(monkeypatch, function, status, kind, sentence):
    library = Emulated(answers={function: CONSTANTS[f"CUBLAS_STATUS_{status}"]})
    device, *_ = gpu_with_products(monkeypatch, library)
    layer, x, session = nn.Linear(3, 5).to(device), tg.ones((4, 3), device=device), tg.Session()

    def run():
        for _ in range(4):
            with session, tg.no_grad():
                y = nn.functional.relu(layer(x))
        return y

    with pytest.raises(kind, match=sentence):
        run()
    library.answers.clear()
    want = np.maximum(layer.weight.numpy().sum(1) + layer.bias.numpy(), 0)
    np.testing.assert_allclose(run().numpy()[0], want, rtol=1e-5, atol=1e-6)  # the session is as good as new


@pytest.mark.parametrize("name", ["cuda:2", "cuda:7", "gpu:3", "cuda:999"])
def test_a_gpu_that_is_not_there(name):
    number = name.partition(":")[2]
    sentence = f"cuda:{number} was asked for, but there are cuda:0 to cuda:1"
    for use in (
        lambda: tg.ones(2, device=name),
        lambda: tg.tensor([1.0], device=name),
        lambda: tg.ones(2).to(name),
        lambda: tg.ones(2, device="cuda:1").to(name),
        lambda: nn.Linear(2, 2).to(name),
        lambda: tg.normal(size=3, device=name),
        lambda: tg.cuda.synchronize(name),
        lambda: tg.cuda.memory_stats(int(number)),
    ):
        with pytest.raises(DriverMissing, match=sentence):
            use()


@pytest.mark.parametrize("name", ["cuda:-1", "cuda:x", "cuda:1.5", "cuda:", "CUDA", "nvidia"])
def test_names_of_no_device(name):
    for use in (
        lambda: tg.ones(2, device=name),
        lambda: tg.ones(2).to(name),
        lambda: nn.Linear(2, 2).to(name),
        lambda: tg.cuda.synchronize(name),
    ):
        with pytest.raises(DtypeError, match=f'\'{name}\'.*"cpu", "cuda:0"'):
            use()


FORK = """
import os
import signal
import numpy as np
import tapegrad as tg
from tapegrad.errors import TapeError
from tapegrad.tape.spaces import space_of
w = tg.tensor(np.ones(3), dtype=tg.float32, device="cuda", requires_grad=True)
big, session = np.ones(100_000, np.float32), tg.Session()
there = tg.tensor(big, device="cuda")

def step():
    with session:
        loss = (tg.tanh(w) ** 2).sum()
        w.grad = None
        loss.backward()
    return loss

for _ in range(4):
    held = step()
staging = space_of("cuda:0").staging
uses = [lambda: w * 2, held.item, step, lambda: tg.tensor(big, device="cuda"), there.numpy, tg.cuda.synchronize,
        lambda: tg.tensor([1.0], device="cuda"), w.detach().cpu,
        lambda: space_of("cuda:0").upload(there.address, big.ctypes.data, big.nbytes)]
staging._lock.acquire(), staging._fetching.acquire()  # as a loader's thread may have them
child = os.fork()
if child == 0:
    signal.alarm(60)  # ends it where it waits for a lock
    wrong = []
    for number, use in enumerate(uses):
        try:
            use()
        except TapeError as error:
            if "forked child" in str(error) and "spawn" in str(error):
                continue
            wrong.append((number, str(error)))
        except BaseException as error:
            wrong.append((number, repr(error)))
        else:
            wrong.append((number, "no error"))
    print(wrong, flush=True)
    os._exit(0)
os.waitpid(child, 0)
staging._lock.release(), staging._fetching.release()
for use in uses:
    use()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_told_so():
    """Every use in the child is an error at once, also where a lock was held at the fork; the parent goes on."""
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stdout + done.stderr
