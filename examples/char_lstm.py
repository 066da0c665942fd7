"""An LSTM learns to write, character by character, from the texts of Python's standard library.

    python examples/char_lstm.py --plot      # writes out/char_lstm.png

--plot needs pip install 'tapegrad[plot]'.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import numpy as np

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import nn, optim

MODULES = "argparse asyncio collections configparser csv datetime decimal doctest email functools heapq inspect itertools json "
MODULES += "logging multiprocessing optparse pdb pickle platform pprint random shelve statistics string textwrap threading unittest"


def library_text() -> str:
    """The docstrings of some modules, their classes and functions."""
    parts = []
    for name in MODULES.split():
        module = importlib.import_module(name)
        named = [module, *[v for k, v in sorted(vars(module).items()) if getattr(v, "__module__", "") == name]]
        parts += [doc for doc in (getattr(v, "__doc__", None) for v in named) if isinstance(doc, str)]
    return "".join(c for c in "\n".join(parts) if c == "\n" or " " <= c <= "~")


class Writer(nn.Module):
    """Characters (N, T) and a state -> scores of the next characters (N, T, C), and the state after them."""

    def __init__(self, characters: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(characters, 32)
        self.lstm = nn.LSTM(32, width, batch_first=True)
        self.head = nn.Linear(width, characters)

    def forward(self, x, state=None):
        h, state = self.lstm(self.embedding(x), state)
        return self.head(h), state


def write(model, start: str, alphabet: str, count: int, warmth: float, seed: int) -> str:
    """`count` characters drawn one after the other, after `start`."""
    rng, text, state = np.random.default_rng(seed), start, None
    x = np.array([[alphabet.index(c) for c in start]])
    with tg.no_grad():
        for _ in range(count):
            scores, state = model(tg.tensor(x), state)
            shares = tg.softmax(scores[0, -1] / warmth).numpy().astype(np.float64)
            x = np.array([[rng.choice(len(alphabet), p=shares / shares.sum())]])
            text += alphabet[x[0, 0]]
    return text


def train(codes: np.ndarray, model, steps: int, batch: int, time: int, seed: int) -> list[float]:
    """The loss of each step, in bits a character."""
    rng, losses, session = np.random.default_rng(seed), [], tg.Session()
    optimizer = optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        starts = rng.integers(0, len(codes) - time - 1, batch)
        windows = codes[starts[:, None] + np.arange(time + 1)]
        with session:
            scores, _ = model(tg.tensor(windows[:, :-1]))
            loss = F.cross_entropy(scores.reshape(batch * time, -1), tg.tensor(windows[:, 1:]).reshape(batch * time))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item() / np.log(2))
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a small network, 30 steps")
    parser.add_argument("--plot", nargs="?", const="out/char_lstm.png", type=Path, help="draw the loss into this file")
    args = parser.parse_args()
    if args.quick:
        args.steps, args.width = 30, 32
    text = library_text()
    alphabet = "".join(sorted(set(text)))
    codes = np.array([alphabet.index(c) for c in text])
    tg.seed(args.seed)
    model = Writer(len(alphabet), args.width)
    losses = train(codes, model, args.steps, batch=32, time=64, seed=args.seed)
    print(write(model, "Return the ", alphabet, 200, 0.6, args.seed))
    last = float(np.mean(losses[-20:]))
    print(f"{len(text):,} characters of {len(alphabet)} kinds: {losses[0]:.2f} -> {last:.2f} bits a character")
    if args.plot:
        try:
            import matplotlib.pyplot as plt
        except ImportError:
            sys.exit("--plot needs matplotlib: pip install 'tapegrad[plot]'")
        figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
        axes.plot(losses, color="#2962a8")
        axes.set(xlabel="step", ylabel="bits a character", ylim=(0, None))
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(args.plot, dpi=120)
        print(f"picture: {args.plot}")


if __name__ == "__main__":
    main()
