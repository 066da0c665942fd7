"""Learn from a stream that never ends, in bounded memory: predict a drifting signal a few steps ahead, one sample at a time.

    python examples/online.py --plot     # writes out/online.png

--plot needs pip install 'tapegrad[plot]'.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from itertools import islice
from pathlib import Path

import numpy as np

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import nn, optim

PAST, AHEAD = 32, 8


def stream(seed: int):
    """Two tones whose frequencies wander, and noise; without end."""
    rng = np.random.default_rng(seed)
    phases, steps = np.zeros(2), np.array([0.11, 0.29])
    while True:
        steps = np.clip(steps + 0.0004 * rng.standard_normal(2), 0.05, 0.6)
        phases = (phases + steps) % (2 * np.pi)
        yield float(np.sin(phases[0]) + 0.5 * np.sin(phases[1]) + 0.05 * rng.standard_normal())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="2,000 samples")
    parser.add_argument("--plot", nargs="?", const="out/online.png", type=Path, help="draw into this file")
    args = parser.parse_args()
    count = 2000 if args.quick else args.samples

    tg.seed(args.seed)
    model = nn.Sequential(nn.Linear(PAST, 48), nn.Tanh(), nn.Linear(48, 1))
    optimizer, session = optim.Adam(model.parameters(), lr=2e-3), tg.Session()
    window = deque(maxlen=PAST + AHEAD)  # all that is kept of the stream
    seen = deque(maxlen=400)  # (signal, prediction) for the picture
    guessed = lazy = 0.0
    early = None
    start = time.perf_counter()
    for n, value in enumerate(islice(stream(args.seed), count)):
        window.append(value)
        if len(window) < window.maxlen:
            continue
        past = np.array(window, np.float32)
        with session:  # one step on the newest sample whose future is known
            guess = model(tg.tensor(past[None, :PAST]))
            loss = F.mse_loss(guess, tg.tensor(past[None, -1:]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        error = loss.item()
        guessed += (error - guessed) / 1000  # means that forget in some 1,000 samples
        lazy += ((past[-1] - past[PAST - 1]) ** 2 - lazy) / 1000
        seen.append((past[-1], guess.item()))
        if n == min(1500, count - 1):
            early = guessed
            memory = tg.memory_stats()["reserved"]
    pace = (time.perf_counter() - start) / count * 1e6
    growth = tg.memory_stats()["reserved"] - memory
    print(
        f"error {AHEAD} samples ahead: {early:.4f} after 1,500 samples, {guessed:.4f} now; the last value repeated {lazy:.4f}"
    )
    print(f"{pace:.0f} µs a sample, {session.stats.replays:,} passes replayed, memory grew by {growth} bytes since")
    if args.plot:
        try:
            import matplotlib.pyplot as plt
        except ImportError:
            sys.exit("--plot needs matplotlib: pip install 'tapegrad[plot]'")
        figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
        signal, predicted = np.array(seen).T
        axes.plot(signal, color="#9aa5b1", label="signal")
        axes.plot(predicted, color="#c0392b", lw=1, label=f"predicted {AHEAD} samples before")
        axes.set_xlabel("sample")
        axes.legend(loc="upper right")
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(args.plot, dpi=120)
        print(f"picture: {args.plot}")


if __name__ == "__main__":
    main()
