"""Batches that arrive in a queue of their own, in training on a simulated GPU whose queues are as late or as early as they may be."""

from __future__ import annotations

import numpy as np
import pytest
from emulated_products import numbers

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.data import DataLoader
from tapegrad.kernels.cuda import staging
from tapegrad.kernels.cuda.devices import Gpu
from tapegrad.kernels.cuda.simulated import Simulated, simulated_driver
from tapegrad.kernels.cuda.streams import COPIES, MAIN
from tapegrad.kernels.prepare import BACKENDS
from tapegrad.tape import spaces
from tapegrad.train import Trainer

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
ROWS = 40


@pytest.fixture(autouse=True)
def simulator(monkeypatch):
    monkeypatch.setenv("TAPEGRAD_CUDA", "simulator")
    monkeypatch.setattr(staging, "STAGED", 8)
    monkeypatch.setattr(staging, "AHEAD", 16)
    monkeypatch.setattr(staging, "PIECE", 32)


def gpu_that_waits(monkeypatch, deferred) -> tuple[str, Gpu]:
    simulated_driver(1)  # cuts launches to a few threads
    name = f"cuda:{next(numbers)}"
    gpu = Gpu(1, Simulated(1, deferred=deferred), has_cublas=False)
    monkeypatch.setitem(spaces._spaces, name, gpu)
    monkeypatch.setitem(BACKENDS, name, gpu.backend)
    return name, gpu


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(ROWS, 3)).astype(np.float32), rng.normal(size=(ROWS, 2)).astype(np.float32)


def model_on(device: str):
    tg.seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(device)


def by_hand(device: str, workers: int) -> list[np.ndarray]:
    """Training by batches that the loader's threads bring to the device."""
    model, session, losses = model_on(device), tg.Session(), []
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def there(batch):
        return tuple([tg.tensor(x, device=device) for x in batch])

    loader = DataLoader(data(), 5, shuffle=True, seed=1, transform=there, num_workers=workers)
    for _ in range(2):
        for x, y in loader:
            assert x.device == y.device == device
            with session:
                loss = ((model(x) - y) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            losses.append(loss)
    return [np.array([t.item() for t in losses]), *(p.numpy() for p in model.parameters())]


def by_a_trainer(device: str, workers: int) -> list[np.ndarray]:
    model = model_on(device)
    loader = DataLoader(data(), 5, shuffle=True, seed=1, num_workers=workers)
    Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1)).fit(loader, epochs=2)
    return [p.numpy() for p in model.parameters()]


@pytest.mark.parametrize("deferred", [(MAIN, COPIES), (MAIN,), ()])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("work", [by_hand, by_a_trainer])
def test_training_gives_what_the_cpu_gives(monkeypatch, work, workers, deferred):
    device, gpu = gpu_that_waits(monkeypatch, deferred)
    for a, b in zip(work(device, workers), work("cpu", 0), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert gpu.staging._rings and gpu.driver.counts.graph_launches > 4


def test_a_copy_that_is_not_waited_for_is_seen(monkeypatch):
    device, gpu = gpu_that_waits(monkeypatch, (MAIN, COPIES))
    wait = gpu.driver.wait
    monkeypatch.setattr(
        gpu.driver, "wait", lambda stream, event: stream == COPIES and wait(stream, event), raising=False
    )
    have, want = by_hand(device, 0), by_hand("cpu", 0)
    assert not all(np.allclose(a, b) for a, b in zip(have, want, strict=True))


def test_reading_a_loss_is_one_small_copy(monkeypatch):
    device, gpu = gpu_that_waits(monkeypatch, (MAIN, COPIES))
    w = tg.tensor(np.ones(3), dtype=tg.float32, device=device, requires_grad=True)
    session = tg.Session()
    for _ in range(4):
        with session:
            loss = (tg.tanh(w) ** 2).sum()
            w.grad = None
            loss.backward()
    before = gpu.driver.counts.downloads, gpu.driver.counts.downloaded, gpu.driver.counts.synchronizations
    value = loss.item()
    after = gpu.driver.counts.downloads, gpu.driver.counts.downloaded, gpu.driver.counts.synchronizations
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 4, 1]
    assert value == pytest.approx(3 * np.tanh(1) ** 2, rel=1e-6)
