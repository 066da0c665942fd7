"""Whole training steps beside PyTorch, eager and compiled, the host's share of them, and the memory of many."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from ..benchmarks.tasks import BETAS, EPS, LR, TASKS, draw
from .rows import DEVICE, NotMeasured, Outcome, Row, device_seconds, host_seconds, short, wait

SMALL = "MLP 8-16-16-1, batch 16, Adam"
MIDDLE = "MLP 64-256-256-1, batch 128, Adam"
SIGMA = next(name for name in TASKS if name.startswith("Sigma's net"))
BATCH = 256
STEPS = 5000


def _torch():
    """PyTorch, float32 multiplied as float32 in convolutions, too."""
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch


@cache
def ours(name: str):
    """A task in tapegrad, in a session."""
    from ..benchmarks import tasks_tapegrad

    return tasks_tapegrad.build(TASKS[name], device=DEVICE)


def theirs(name: str, compiled: bool) -> Callable[[], object]:
    """The step of a task in PyTorch; compiled with mode="reduce-overhead", which replays CUDA graphs."""
    torch = _torch()
    from ..peers import torch_

    task = TASKS[name]
    torch._dynamo.reset()
    wrap = partial(torch.compile, mode="reduce-overhead") if compiled else lambda f: f
    with torch.device(DEVICE):  # while it is made, since it costs every call of PyTorch some time
        return torch_.KINDS[task.kind](task.data(), wrap, **task.settings).step


def _step(name: str, bar: float, ahead_of_compiled: bool) -> Outcome:
    """Times of one task. The compiled contender runs last: where PyTorch fails, tapegrad has been timed."""
    candidates: dict[str, Callable[[], object]] = {"tapegrad": ours(name).step}
    eager = "not measured"
    try:
        step = theirs(name, False)
        step()
        candidates["eager"] = step
    except Exception as error:  # noqa: BLE001  said in the row
        eager = f"not measured: {type(error).__name__}"
    times = device_seconds(candidates)
    eager = short(times["eager"]) if "eager" in times else eager
    said = [f"{short(times['tapegrad'])}; PyTorch eager {eager}"]
    met: bool | None = times["tapegrad"] <= bar
    try:
        compiled = device_seconds({"compiled": theirs(name, True)})["compiled"]
    except Exception as error:  # noqa: BLE001  torch.compile needs a C++ compiler and Triton; the rest of the row stands
        said.append(f"compiled not measured: {type(error).__name__}")
        met = None if met and ahead_of_compiled else met
    else:
        said.append(f"compiled {short(compiled)}")
        met = met and (times["tapegrad"] < compiled or not ahead_of_compiled)
    return Outcome(", ".join(said), met)


def _same_as_on_the_cpu(name: str) -> Outcome:
    """Outputs and movements of the parameters after the task's steps, on the GPU and on the CPU."""
    from ..benchmarks import tasks_tapegrad

    task = TASKS[name]
    found = [tasks_tapegrad.build(task, device=device).results(task.steps) for device in (DEVICE, "cpu")]
    worst = max(
        float(np.linalg.norm(found[0][key] - found[1][key]) / max(np.linalg.norm(found[1][key]), 1e-30))
        for key in found[1]
    )
    return Outcome(f"‖a - b‖ / ‖b‖ at most {worst:.1e}", worst <= task.tolerance)


def network(nn):
    """The CNN of examples/mnist.py, in tapegrad's or PyTorch's layers, which have the same names."""
    filters = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()]
    head = [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 7 * 7, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, 10)]
    return nn.Sequential(*filters, *head)


def images() -> tuple[np.ndarray, np.ndarray]:
    """A batch of images (256, 1, 28, 28) and classes (256,)."""
    return draw(BATCH, 1, 28, 28), np.random.default_rng(3).integers(0, 10, BATCH)


@cache
def our_cnn() -> Callable[[], object]:
    """A step with Adam in a session."""
    import tapegrad as tg
    import tapegrad.nn.functional as F
    from tapegrad import nn, optim

    x, y = (tg.tensor(a, device=DEVICE) for a in images())
    model = network(nn).to(DEVICE)
    optimizer = optim.Adam(model.parameters(), lr=LR, betas=BETAS, eps=EPS)
    session = tg.Session()

    def step():
        with session:
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss

    return step


def their_cnn() -> Callable[[], object]:
    """The same in PyTorch."""
    torch = _torch()
    with torch.device(DEVICE):
        x, y = (torch.tensor(a) for a in images())
        model = network(torch.nn)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, betas=BETAS, eps=EPS, fused=True)

    def step():
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def _cnn() -> Outcome:
    times = device_seconds({"tapegrad": our_cnn(), "eager": their_cnn()})
    share = times["tapegrad"] / times["eager"]
    text = f"{short(times['tapegrad'])}; PyTorch eager {short(times['eager'])}; {share:.2f} of it"
    return Outcome(text, share <= 1.2)


WIDE = (784, 2048, 2048, 10)


def _autocast() -> Outcome:
    """A classifier of that many features a layer, batch 512, AdamW, under autocast to bfloat16."""
    x, y = draw(512, WIDE[0]), np.random.default_rng(3).integers(0, WIDE[-1], 512)
    times = device_seconds({"tapegrad": _our_autocast(x, y), "eager": _their_autocast(x, y)})
    share = times["tapegrad"] / times["eager"]
    return Outcome(
        f"{short(times['tapegrad'])}; PyTorch eager {short(times['eager'])}; {share:.2f} of it", share <= 1.0
    )


def _our_autocast(x: np.ndarray, y: np.ndarray) -> Callable[[], object]:
    import tapegrad as tg
    import tapegrad.nn.functional as F
    from tapegrad import nn, optim

    given, classes = tg.tensor(x, device=DEVICE), tg.tensor(y, device=DEVICE)
    model = wide_network(nn).to(DEVICE)
    optimizer, session = optim.AdamW(model.parameters(), lr=LR, betas=BETAS, eps=EPS), tg.Session()

    def step():
        with session:
            with tg.autocast("bfloat16"):
                loss = F.cross_entropy(model(given), classes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss

    return step


def _their_autocast(x: np.ndarray, y: np.ndarray) -> Callable[[], object]:
    torch = _torch()
    with torch.device(DEVICE):
        given, classes = torch.tensor(x), torch.tensor(y)
        model = wide_network(torch.nn)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=BETAS, eps=EPS, fused=True)

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(given), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def wide_network(nn):
    """Linear layers with relu between them, in tapegrad's or PyTorch's modules."""
    layers = [part for a, b in zip(WIDE, WIDE[1:], strict=False) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def _host() -> Outcome:
    made = ours(MIDDLE)
    seconds = host_seconds(made.step)
    if not made.ready():
        raise NotMeasured("the step is not replayed")
    return Outcome(short(seconds), seconds <= 12e-6)


def _memory() -> Outcome:
    """Bytes of the pool, and bytes that the driver says are taken, after 100 and after 5,100 steps, data fresh each time."""
    import torch

    import tapegrad as tg
    import tapegrad.nn.functional as F
    from tapegrad import cuda, nn, optim

    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, 1)).to(DEVICE)
    optimizer, session = optim.Adam(model.parameters(), lr=LR), tg.Session()
    batches = [(draw(128, 64, seed=i), draw(128, 1, seed=i)) for i in range(8)]
    found = []
    for steps in (100, STEPS):
        for i in range(steps):
            x, y = batches[i % len(batches)]
            with session:
                loss = F.mse_loss(model(tg.tensor(x, device=DEVICE)), tg.tensor(y, device=DEVICE))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        wait()
        free, total = torch.cuda.mem_get_info()
        found.append((cuda.memory_stats(DEVICE)["reserved"], total - free))
    pool, taken = (after - before for before, after in zip(*found, strict=True))
    return Outcome(f"pool {pool:+,} bytes, driver {taken:+,} bytes", pool <= 0 and taken <= 0)


def _row(name: str, bar: float, said: str, ahead: bool) -> Row:
    """PyTorch compiles for its column, which takes long: the other rows come first."""
    return Row(f"{name}, whole step", said, partial(_step, name, bar, ahead), late=True)


ROWS = (
    _row(SMALL, 25e-6, "≤ 25 µs; ahead of PyTorch compiled", True),
    _row(MIDDLE, 35e-6, "≤ 35 µs; ahead of PyTorch compiled", True),
    _row(SIGMA, 0.12e-3, "≤ 0.12 ms (Sigma: 5 ms on a GTX 1080)", False),
    Row(f"CNN of examples/mnist.py, batch {BATCH}, Adam, whole step", "≤ 1.2 × PyTorch eager", _cnn),
    Row(
        f"MLP {'-'.join(map(str, WIDE))}, batch 512, AdamW, autocast to bfloat16, whole step",
        "≤ PyTorch eager",
        _autocast,
    ),
    Row(f"host time of a replayed iteration, {MIDDLE}", "≤ 12 µs", _host),
    *(
        Row(
            f"{name}: {TASKS[name].steps} steps as on the CPU",
            f"≤ {TASKS[name].tolerance:g}",
            partial(_same_as_on_the_cpu, name),
        )
        for name in (SMALL, MIDDLE, SIGMA)
    ),
    Row(f"device memory after {STEPS:,} further steps, a batch from the host each", "no growth", _memory),
)
