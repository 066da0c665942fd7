"""Compare settings: every combination of width and learning rate is trained on the same spirals, side by side.

    python examples/sweep.py --plot      # writes out/sweep.png

--plot needs pip install 'tapegrad[plot]'.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from tapegrad import data, nn, optim, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2, help="trainings at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="four combinations, five epochs")
    parser.add_argument("--plot", nargs="?", const="out/sweep.png", type=Path, help="draw the table into this file")
    args = parser.parse_args()
    widths, rates = [4, 16, 64], [0.001, 0.003, 0.01, 0.03, 0.1]
    if args.quick:
        widths, rates, args.epochs = widths[:2], rates[2:4], 5

    known, check = data.spirals(600, seed=1), data.spirals(300, seed=2)

    def run(width: int, lr: float, seed: int) -> dict[str, float]:
        """One training; what it returns becomes a row of the table."""
        model = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2))
        trainer = train.Trainer(
            model,
            nn.CrossEntropyLoss(),
            optim.Adam(model.parameters(), lr),
            metrics="accuracy",
            seed=seed,
            progress=False,
        )
        trainer.fit(data.DataLoader(known, 50, True, seed=seed), epochs=args.epochs)
        return trainer.evaluate(data.DataLoader(check, 300))

    results = train.sweep(run, train.grid(width=widths, lr=rates), threads=args.threads, seed=args.seed)
    print(results)
    best = results.best("accuracy", "max")
    print(f"best of {len(results)}: width {best['width']}, learning rate {best['lr']}, accuracy {best['accuracy']:.1%}")
    if args.plot:
        try:
            import matplotlib.pyplot as plt
        except ImportError:
            sys.exit("--plot needs matplotlib: pip install 'tapegrad[plot]'")
        table = np.array([row["accuracy"] for row in results]).reshape(len(widths), len(rates))
        figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
        image = axes.imshow(table, vmin=0.5, vmax=1.0, cmap="viridis", aspect="auto")
        axes.set(xticks=range(len(rates)), xticklabels=rates, yticks=range(len(widths)), yticklabels=widths)
        axes.set(xlabel="learning rate", ylabel="width")
        for (i, j), value in np.ndenumerate(table):
            axes.text(j, i, f"{value:.0%}", ha="center", va="center", color="white" if value < 0.85 else "black")
        figure.colorbar(image, label="accuracy")
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(args.plot, dpi=120)
        print(f"picture: {args.plot}")


if __name__ == "__main__":
    main()
