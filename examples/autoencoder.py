"""Squeeze MNIST digits through a few numbers and draw what comes out again.

    python examples/autoencoder.py --plot        # writes out/autoencoder.png

--plot needs pip install 'tapegrad[plot]'.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import tapegrad as tg
from tapegrad import data, nn, optim, train


class Autoencoder(nn.Module):
    """784 pixels -> `code` numbers -> 784 pixels."""

    def __init__(self, code: int, hidden: int = 256):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, code))
        self.decoder = nn.Sequential(nn.Linear(code, hidden), nn.ReLU(), nn.Linear(hidden, 784), nn.Sigmoid())

    def forward(self, x):
        return self.decoder(self.encoder(x))


def plot(images: np.ndarray, again: np.ndarray, path: Path) -> None:
    """Digits above, their reconstructions below."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        sys.exit("--plot needs matplotlib: pip install 'tapegrad[plot]'")
    figure, rows = plt.subplots(2, len(images), figsize=(len(images) * 1.1, 2.6), layout="constrained")
    for row, pictures in zip(rows, (images, again)):
        for axes, picture in zip(row, pictures):
            axes.imshow(picture.reshape(28, 28), cmap="gray", vmin=0, vmax=1)
            axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--code", type=int, default=16, help="numbers that are left of a digit")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="1,000 digits, one epoch")
    parser.add_argument("--plot", nargs="?", const="out/autoencoder.png", type=Path, help="draw into this file")
    args = parser.parse_args()

    digits, test = data.mnist()
    count, epochs = (1000, 1) if args.quick else (len(digits), args.epochs)

    def loader(images, **settings):
        flat = images.reshape(len(images), 784)
        return data.DataLoader((images, flat), batch_size=100, **settings)

    tg.seed(args.seed)
    model = Autoencoder(args.code)
    trainer = train.Trainer(model, nn.MSELoss(), optim.Adam(model.parameters(), lr=2e-3))
    known, unknown = digits.arrays[0][:count], test.arrays[0]
    trainer.fit(loader(known, shuffle=True, seed=args.seed), epochs=epochs)
    error = trainer.evaluate(loader(unknown))["loss"]
    flat = unknown.reshape(len(unknown), -1)
    plain = float(((flat - known.reshape(count, -1).mean(0)) ** 2).mean())
    print(
        f"{args.code} numbers a digit: mean squared error {error:.4f} on others, {plain:.4f} if all were the mean digit"
    )
    if args.plot:
        first = unknown[:10]
        again = np.concatenate(list(trainer.predict(loader(first))))
        plot(first, again, args.plot)
        print(f"picture: {args.plot}")


if __name__ == "__main__":
    main()
