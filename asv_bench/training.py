"""Measures what training around the tape costs, and what it reaches, and prints a Markdown table.

    python -m asv_bench.training [--write docs/performance.md] [--only WORD ...] [--quick]

About 20 minutes with the full MNIST set (TAPEGRAD_DATA says where it is), 2 without; nothing else should be running. Times are
the least of many turns on one thread, contenders taking turns in one process; whole trainings use all cores. PyTorch and
pandas are in the extra "peers"; a row whose peer or data is missing says so.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import tapegrad as tg
from tapegrad import data, nn, optim, train

from .benchmarks import fresh
from .context import machine
from .document import Outcome, replace_section
from .timing import alternate, ratio

ROOT = Path(__file__).resolve().parents[1]


def missing(*packages: str) -> Outcome | None:
    """A row that says which package is not there, if one is."""
    absent = [p for p in packages if importlib.util.find_spec(p) is None]
    return Outcome(f"not measured: {', '.join(absent)} not installed", None) if absent else None


def trainer_overhead(quick: bool) -> Outcome:
    """A tiny network trained by `Trainer.fit`, with the hooks it has of itself, and by a loop over the same loader."""
    rng = np.random.default_rng(0)
    batches = 200 if quick else 2000
    x = rng.standard_normal((16 * batches, 8), dtype=np.float32)
    arrays = (x, np.sin(x.sum(1, keepdims=True)))

    def made():
        tg.seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
        return model, nn.MSELoss(), optim.Adam(model.parameters()), data.DataLoader(arrays, batch_size=16, shuffle=True)

    trained = made()
    trainer, trainer_loader = train.Trainer(*trained[:3]), trained[3]
    model, loss_of, optimizer, loader = made()
    session = tg.Session()

    def fit():
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.fit(trainer_loader, epochs=1)

    def loop():
        losses, read = [], []
        for inputs, targets in loader:
            with session:
                loss = loss_of(model(tg.tensor(inputs)), tg.tensor(targets))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            losses.append(loss)
            if len(losses) == 256:  # what a person does who wants the mean of an epoch
                read.extend([t.item() for t in losses])
                losses = []
        return read

    times = alternate({"fit": fit, "loop": loop}, rounds=3 if quick else 15)
    per = {name: min(values) / batches * 1e6 for name, values in times.items()}
    extra = per["fit"] - per["loop"]
    return Outcome(f"{extra:.1f} µs: {per['fit']:.1f} beside {per['loop']:.1f}", extra <= 5.0)


def convolutional(quick: bool) -> Outcome:
    """The command `python examples/mnist_cnn.py` on the full set."""
    folder = os.environ.get("TAPEGRAD_DATA")
    if quick or not folder:
        return Outcome("not measured: TAPEGRAD_DATA does not say where the full set is", None)
    accuracies, seconds = [], []
    for seed in ("0", "1", "2"):
        taken, said = fresh.run(
            (str(ROOT / "examples" / "mnist_cnn.py"), "--epochs", "3", "--seed", seed),
            None,
            TAPEGRAD_DATA=str(Path(folder).resolve()),
        )
        accuracies.append(float(re.findall(r"learned in .*: ([\d.]+)", said)[-1]))
        seconds.append(taken)
    listed = ", ".join(f"{a:.2f}" for a in accuracies)
    return Outcome(f"{listed} % with three seeds, {statistics.median(seconds):.0f} s each", min(accuracies) >= 98.9)


def sigmas_net(quick: bool) -> Outcome:
    """784-1000-800-10, dropout 0.2, 0.4, 0.4, Adagrad 0.02, batches of 100, by the trainer."""
    folder = os.environ.get("TAPEGRAD_DATA")
    if quick or not folder:
        return Outcome("not measured: TAPEGRAD_DATA does not say where the full set is", None)
    tg.set_num_threads(os.cpu_count() or 1)
    tg.seed(0)
    digits, test = data.mnist(folder)
    layers = [
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(784, 1000),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Linear(1000, 800),
        nn.ReLU(),
    ]
    model = nn.Sequential(*layers, nn.Dropout(0.4), nn.Linear(800, 10))
    nn.init.apply(model, {"*.weight": nn.init.xavier, "*.bias": nn.init.constant(0.0)})
    optimizer = optim.Adagrad(model.parameters(), lr=0.02)
    trainer = train.Trainer(model, nn.CrossEntropyLoss(), optimizer, metrics=["accuracy"], progress=False)
    start = time.perf_counter()
    trainer.fit(data.DataLoader(digits, batch_size=100, shuffle=True, seed=0), epochs=10)
    seconds = time.perf_counter() - start
    accuracy = trainer.evaluate(data.DataLoader(test, batch_size=500))["accuracy"] * 100
    tg.set_num_threads(1)
    return Outcome(f"{accuracy:.2f} % in {seconds:.0f} s", accuracy >= 97.6)


def lstm_layer(quick: bool) -> Outcome:
    """`nn.LSTM` forward and backward, T=64, B=16, I=64, H=128, in a session, beside PyTorch's in the same process."""
    if absent := missing("torch"):
        return absent
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 16, 64), dtype=np.float32)
    ours, theirs = nn.LSTM(64, 128), torch.nn.LSTM(64, 128)
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            p.copy_(torch.from_numpy(np.array(dict(ours.named_parameters())[name].detach().numpy())))
    inputs, wanted, session = tg.tensor(x), torch.from_numpy(x), tg.Session()

    def tapegrad():
        with session:
            for p in ours.parameters():
                p.grad = None
            out, _ = ours(inputs)
            (out * out).sum().backward()

    def pytorch():
        theirs.zero_grad(set_to_none=True)
        out, _ = theirs(wanted)
        (out * out).sum().backward()

    tapegrad()
    pytorch()
    for name, p in theirs.named_parameters():
        found = dict(ours.named_parameters())[name].grad.numpy()
        np.testing.assert_allclose(found, p.grad.numpy(), rtol=1e-3, atol=1e-3 * np.abs(found).max())
    times = alternate({"tapegrad": tapegrad, "PyTorch": pytorch}, rounds=5 if quick else 60)
    share = ratio(times, "tapegrad", "PyTorch")
    least = {name: min(values) * 1e3 for name, values in times.items()}
    return Outcome(f"{share:.2f} × (median): {least['tapegrad']:.2f} ms, PyTorch {least['PyTorch']:.2f}", share <= 1.0)


def loader_keeps_up(quick: bool) -> Outcome:
    """Steps of a 784-512-10 network on batches of 100 digits: from a shuffling loader, and on one batch again and again."""
    tg.seed(0)
    rng = np.random.default_rng(0)
    count = 20 if quick else 200
    images, labels = rng.random((100 * count, 784), dtype=np.float32), rng.integers(0, 10, 100 * count)
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10))
    optimizer, measure = optim.Adam(model.parameters()), nn.CrossEntropyLoss()
    loader = data.DataLoader((images, labels), batch_size=100, shuffle=True, seed=0)
    same = (images[:100].copy(), labels[:100].copy())

    def over(batches):
        session = tg.Session()

        def run():
            for x, y in batches:
                with session:
                    loss = measure(model(tg.tensor(x)), tg.tensor(y))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()

        return run

    times = alternate({"loader": over(loader), "same": over([same] * count)}, rounds=3 if quick else 15)
    share = ratio(times, "loader", "same") - 1
    per = {name: min(values) / count * 1e6 for name, values in times.items()}
    return Outcome(f"{share:+.1%} (median): {per['loader']:.0f} µs a step beside {per['same']:.0f}", share <= 0.05)


def csv(quick: bool) -> Outcome:
    """A million rows of ten floats, read by `data.read_csv` and by pandas."""
    if absent := missing("pandas"):
        return absent
    import pandas as pd

    rows = 20_000 if quick else 1_000_000
    table = np.random.default_rng(0).standard_normal((rows, 10))
    with tempfile.TemporaryDirectory(prefix="tapegrad-csv-") as folder:
        path = Path(folder, "table.csv")
        pd.DataFrame(table, columns=list("abcdefghij")).to_csv(path, index=False)
        found = data.read_csv(path)
        np.testing.assert_allclose(np.asarray(found["c"]), table[:, 2], rtol=1e-12)
        candidates: dict[str, Callable] = {
            "tapegrad": lambda: data.read_csv(path),
            "pandas": lambda: pd.read_csv(path),
        }
        times = alternate(candidates, rounds=3 if quick else 5)
    share = ratio(times, "tapegrad", "pandas")
    least = {name: min(values) for name, values in times.items()}
    way = "with pyarrow" if importlib.util.find_spec("pyarrow") else "without pyarrow"
    words = f"{share:.2f} × (median), {way}: {least['tapegrad']:.2f} s, pandas {least['pandas']:.2f}"
    return Outcome(words, share <= 2.0)


FIGURES: list[tuple[str, str, Callable[[bool], Outcome]]] = [
    ("`Trainer` beyond the bare loop, MLP 8-16-16-1, batch 16, an iteration", "≤ 5 µs", trainer_overhead),
    ("loader against the same batch repeated, MLP 784-512-10, batch 100", "≤ 5 % slower", loader_keeps_up),
    ("`nn.LSTM` T=64 B=16 I=64 H=128, forward+backward", "≤ PyTorch", lstm_layer),
    ("CSV, 1 M × 10 floats", "≤ 2 × pandas", csv),
    ("MNIST full, CNN of `examples/mnist_cnn.py`, 3 epochs", "≥ 98.9 %", convolutional),
    ("MNIST full, 784-1000-800-10, dropout, Adagrad, 10 epochs", "≥ 97.6 %", sigmas_net),
]


def main() -> None:
    """Measure, print, and write into the document where one is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="the Markdown file whose section is to be replaced")
    parser.add_argument("--only", nargs="+", default=[], help="rows whose name has one of these words")
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it runs")
    options = parser.parse_args()
    tg.set_num_threads(1)
    load = os.getloadavg()[0]
    lines = ["| what | bar | measured | met |", "|---|---|---|---|"]
    for name, bar, measure in FIGURES:
        if options.only and not any(word.lower() in name.lower() for word in options.only):
            continue
        row = measure(options.quick)
        met = "-" if row.met is None else "yes" if row.met else "**no**"
        lines.append(f"| {name} | {bar} | {row.text} | {met} |")
        print(lines[-1], file=sys.stderr, flush=True)
    text = "\n".join(
        ["## Training", "", "Made by `python -m asv_bench.training --write docs/performance.md`.", "", *lines]
    )
    print(text)
    if options.write:
        replace_section(options.write, "training", "\n".join([text, "", *machine(load)]))


if __name__ == "__main__":
    main()
