"""What does a network take for a three? Optimise the picture instead of the weights.

    python examples/maximise_digit.py --plot     # writes out/maximise_digit.png

--plot needs pip install 'tapegrad[plot]'.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import data, nn, optim, train


def maximise(model, steps: int, smooth: float):
    """Ten pictures, each optimised towards one class, and the probabilities that the model gives these classes."""
    model.eval()
    for p in model.parameters():
        p.requires_grad = False
    pictures = (0.1 * tg.normal(size=(10, 1, 28, 28))).requires_grad_()
    targets, session = tg.arange(10), tg.Session()
    optimizer = optim.Adam([pictures], lr=0.05)
    for _ in range(steps):
        with session:
            ink = tg.sigmoid(pictures)
            # little ink and few edges, or the picture fills with specks that no digit has
            edges = (ink[..., 1:] - ink[..., :-1]).square().mean() + (
                ink[..., 1:, :] - ink[..., :-1, :]
            ).square().mean()
            loss = F.cross_entropy(model(ink), targets) + smooth * edges + 0.5 * ink.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with tg.no_grad():
        ink = tg.sigmoid(pictures)
        shares = tg.softmax(model(ink), 1).numpy()
    return ink.numpy()[:, 0], shares[np.arange(10), np.arange(10)]


def plot(pictures, shares, path: Path) -> None:
    """The ten pictures."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        sys.exit("--plot needs matplotlib: pip install 'tapegrad[plot]'")
    figure, rows = plt.subplots(2, 5, figsize=(7, 3.2), layout="constrained")
    for digit, axes in enumerate(rows.flat):
        axes.imshow(pictures[digit], cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"{digit}: {shares[digit]:.0%}")
        axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--smooth", type=float, default=20.0, help="how much edges cost")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="1,000 digits, one epoch, 50 steps")
    parser.add_argument("--plot", nargs="?", const="out/maximise_digit.png", type=Path, help="draw into this file")
    args = parser.parse_args()

    digits, test = data.mnist()
    if args.quick:
        digits, args.epochs, args.steps = data.ArrayDataset(*digits[:1000]), 1, 50
    tg.seed(args.seed)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5, padding=2), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 49, 10),
    )  # fmt: skip
    trainer = train.Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=2e-3), metrics="accuracy")
    trainer.fit(data.DataLoader(digits, 100, True, seed=args.seed), epochs=args.epochs)
    found = trainer.evaluate(data.DataLoader(test, 500))["accuracy"]
    pictures, shares = maximise(model, args.steps, args.smooth)
    print(f"the network knows {found:.1%} of the test digits; its own are {shares.min():.1%} sure at least")
    if args.plot:
        plot(pictures, shares, args.plot)
        print(f"picture: {args.plot}")


if __name__ == "__main__":
    main()
