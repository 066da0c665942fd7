"""Tell three kinds of iris apart by four measurements: preprocessing, a split, a trainer with early stopping.

    python examples/iris.py --plot       # writes out/iris.png

--plot needs pip install 'tapegrad[plot]'.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import tapegrad as tg
from tapegrad import data, nn, optim, train
from tapegrad.data import preprocess


def plot(model, scale, flowers, test, path: Path) -> None:
    """Petals, their kinds, and what the model says of each point between them."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        sys.exit("--plot needs matplotlib: pip install 'tapegrad[plot]'")
    length, width = np.meshgrid(np.linspace(0.5, 7.5, 200), np.linspace(0.0, 2.7, 200))
    points = np.tile(flowers.inputs.mean(0), (length.size, 1)).astype(np.float32)
    points[:, 2], points[:, 3] = length.ravel(), width.ravel()
    with tg.no_grad():
        kinds = model(tg.tensor(scale.transform(points))).argmax(1).numpy().reshape(length.shape)
    figure, axes = plt.subplots(figsize=(6, 4.2), layout="constrained")
    axes.contourf(length, width, kinds, levels=[-0.5, 0.5, 1.5, 2.5], colors=["#f4c7c3", "#c3d9f4", "#c8e6c9"])
    for kind, color in enumerate(["#c0392b", "#2962a8", "#2e7d32"]):
        own = flowers.targets == kind
        axes.plot(*flowers.inputs[own][:, 2:].T, "o", ms=4, color=color, label=flowers.classes[kind])
    axes.plot(*flowers.inputs[test][:, 2:].T, "o", ms=8, mfc="none", mec="black", label="held out")
    axes.set(xlabel="petal length (cm)", ylabel="petal width (cm)", title="other measurements at their mean")
    axes.legend(loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="fewer epochs")
    parser.add_argument("--plot", nargs="?", const="out/iris.png", type=Path, help="draw the result into this file")
    args = parser.parse_args()
    epochs = min(args.epochs, 30) if args.quick else args.epochs

    flowers = data.iris()
    order = np.random.default_rng(args.seed).permutation(len(flowers))
    known, check, test = order[:90], order[90:120], order[120:]
    scale = preprocess.Standardize().fit(flowers.inputs[known])  # of the training flowers alone

    def loader(which, size):
        return data.DataLoader((scale.transform(flowers.inputs[which]), flowers.targets[which]), size, True, seed=1)

    tg.seed(args.seed)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
    trainer = train.Trainer(
        model,
        nn.CrossEntropyLoss(),
        optim.Adam(model.parameters(), lr=0.02),
        metrics="accuracy",
        hooks=[train.EarlyStopping(patience=30)],
        progress=False,
        preprocessing=scale,
    )
    trainer.fit(loader(known, 15), epochs=epochs, validation=loader(check, 30))
    found = trainer.evaluate(loader(test, 30))
    print(
        f"{len(known)} flowers learned in {trainer.epoch} epochs; of {len(test)} others {found['accuracy']:.1%} right"
    )
    if args.plot:
        plot(model, scale, flowers, test, args.plot)
        print(f"picture: {args.plot}")


if __name__ == "__main__":
    main()
