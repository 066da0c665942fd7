"""Learn XOR with a small network, and with --plot draw the decision surface as it forms.

    python examples/xor.py --plot        # writes out/xor.gif

--plot needs pip install 'tapegrad[plot]'.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import nn, optim

POINTS = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
LABELS = [[0.0], [1.0], [1.0], [0.0]]


def train(hidden: int, steps: int, seed: int, every: int):
    """The trained network, and the surface it had every so many steps."""
    tg.seed(seed)
    model = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 1))
    optimizer = optim.Adam(model.parameters(), lr=0.05)
    x, y = tg.tensor(POINTS), tg.tensor(LABELS)
    axis = tg.linspace(-0.5, 1.5, 60)
    grid = tg.stack([tg.tile(axis, 60), tg.repeat(axis, 60)], 1)
    session, frames = tg.Session(), []
    for step in range(steps + 1):
        with session:
            loss = F.binary_cross_entropy_with_logits(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if step % every == 0:
            with tg.no_grad():
                frames.append((step, loss.item(), tg.sigmoid(model(grid)).reshape(60, 60).numpy()))
    return model, frames


def animate(frames, path: str) -> None:
    """The decision surface, frame by frame, as a GIF."""
    try:
        import matplotlib.pyplot as plt
        from matplotlib.animation import FuncAnimation, PillowWriter
    except ImportError:
        sys.exit("--plot needs matplotlib and pillow: pip install 'tapegrad[plot]'")
    figure, axes = plt.subplots(figsize=(4.5, 4.2), layout="constrained")
    image = axes.imshow(frames[0][2], origin="lower", extent=(-0.5, 1.5, -0.5, 1.5), vmin=0, vmax=1, cmap="coolwarm")
    for (a, b), (label,) in zip(POINTS, LABELS):
        axes.plot(a, b, "o" if label else "s", color="white", markeredgecolor="black", markersize=11)
    figure.colorbar(image, label="probability of 1")

    def draw(frame):
        step, loss, surface = frame
        image.set_data(surface)
        axes.set_title(f"step {step}, loss {loss:.4f}")
        return [image]

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    FuncAnimation(figure, draw, frames=frames).save(path, PillowWriter(fps=12))
    print(f"decision surface: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=4, help="units of the hidden layer, 2 or more")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", nargs="?", const="out/xor.gif", help="animate the decision surface, as GIF")
    parser.add_argument("--quick", action="store_true", help="few steps, to see that it runs")
    args = parser.parse_args()
    if args.hidden < 2:
        parser.error("XOR needs a hidden layer of at least 2 units")
    steps = 60 if args.quick else args.steps
    model, frames = train(args.hidden, steps, args.seed, max(steps // 40, 1))
    with tg.no_grad():
        answers = tg.sigmoid(model(tg.tensor(POINTS))).flatten().tolist()
    for (a, b), (label,), answer in zip(POINTS, LABELS, answers):
        print(f"{a:.0f} xor {b:.0f} = {label:.0f}   network: {answer:.3f}")
    right = sum((answer > 0.5) == bool(label) for answer, (label,) in zip(answers, LABELS))
    print(f"{right} of 4 right after {steps} steps, loss {frames[-1][1]:.4f}")
    if args.plot:
        animate(frames, args.plot)


if __name__ == "__main__":
    main()
