"""Two networks against each other: one makes points, the other tells them from those of a ring of eight clusters.

    python examples/gan.py --plot        # writes out/gan.png

Goodfellow et al. 2014, with the loss for the generator that does not vanish; the judge sees four points at a time, by which it
notices a generator that makes only a few kinds (PacGAN, Lin et al. 2018). --plot needs pip install 'tapegrad[plot]'.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import nn, optim

PACK = 4
CENTRES = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], 1) * 2


def real(rng, count: int) -> np.ndarray:
    """Points of the ring, (count, 2)."""
    return (CENTRES[rng.integers(0, 8, count)] + 0.1 * rng.standard_normal((count, 2))).astype(np.float32)


def network(*sizes: int) -> nn.Sequential:
    """Linear layers with leaky ReLU between them."""
    layers: list[nn.Module] = []
    for a, b in zip(sizes, sizes[1:]):
        layers += [nn.Linear(a, b), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


def covered(points: np.ndarray) -> tuple[int, float]:
    """How many of the clusters have a fair share of the points, and the share of points within 0.4 of a centre."""
    distance = np.linalg.norm(points[:, None] - CENTRES, axis=2)
    near = distance.min(1) < 0.4
    counts = np.bincount(distance.argmin(1)[near], minlength=8)
    return int((counts > len(points) / 8 / 4).sum()), float(near.mean())


def train(steps: int, batch: int, seed: int):
    """The trained generator."""
    tg.seed(seed)
    rng = np.random.default_rng(seed)
    generator, judge = network(16, 128, 128, 2), network(2 * PACK, 128, 128, 1)
    of_generator = optim.Adam(generator.parameters(), lr=5e-4, betas=(0.5, 0.999))
    of_judge = optim.Adam(judge.parameters(), lr=1e-3, betas=(0.5, 0.999))
    ones, zeros, session = tg.ones((batch // PACK, 1)), tg.zeros((batch // PACK, 1)), tg.Session()
    for _ in range(steps):
        points = real(rng, batch).reshape(-1, 2 * PACK)
        with session:  # both steps in one pass
            made = generator(tg.normal(size=(batch, 16))).reshape(-1, 2 * PACK)
            loss = F.binary_cross_entropy_with_logits(judge(tg.tensor(points)), 0.9 * ones)
            loss = loss + F.binary_cross_entropy_with_logits(judge(made.detach()), zeros)
            of_judge.zero_grad()
            loss.backward()
            of_judge.step()
            loss = F.binary_cross_entropy_with_logits(judge(made), ones)
            of_generator.zero_grad()
            loss.backward()
            of_generator.step()
    return generator, session


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="200 steps")
    parser.add_argument("--plot", nargs="?", const="out/gan.png", type=Path, help="draw into this file")
    args = parser.parse_args()
    generator, session = train(min(args.steps, 200) if args.quick else args.steps, args.batch, args.seed)
    with tg.no_grad():
        points = generator(tg.normal(size=(2000, 16))).numpy()
    clusters, share = covered(points)
    print(
        f"{clusters} of 8 clusters found, {share:.0%} of the points in them; {session.stats.replays:,} passes replayed"
    )
    if args.plot:
        try:
            import matplotlib.pyplot as plt
        except ImportError:
            sys.exit("--plot needs matplotlib: pip install 'tapegrad[plot]'")
        figure, axes = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
        axes.plot(*real(np.random.default_rng(1), 1000).T, ".", ms=3, color="#9aa5b1", label="real")
        axes.plot(*points[:1000].T, ".", ms=3, color="#c0392b", label="made")
        axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
        axes.legend(loc="center")
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(args.plot, dpi=120)
        print(f"picture: {args.plot}")


if __name__ == "__main__":
    main()
