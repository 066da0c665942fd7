"""Train a network on MNIST digits: a multilayer perceptron, or with --cnn a small convolutional network.

    python examples/mnist.py --plot                     # the subset that ships with tapegrad
    TAPEGRAD_DATA=/path/to/data python examples/mnist.py --hidden 1024 1024 --epochs 3      # the full set
The model and the learning curve go to out/, or where --save and --plot say.
"""

import argparse
import sys
import time
from itertools import pairwise
from pathlib import Path

import tapegrad as tg
import tapegrad.nn.functional as F
from tapegrad import data, nn, optim


class MLP(nn.Module):
    """784 pixels, hidden layers with ReLU, 10 logits."""

    def __init__(self, hidden):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([784, *hidden, 10]))

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def cnn() -> nn.Module:
    """Two convolutions with pooling, two linear layers."""
    filters = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()]
    head = [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 7 * 7, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, 10)]
    return nn.Sequential(*filters, *head)


def accuracy(model, digits) -> float:
    """The share of digits whose largest logit is the right one."""
    model.eval()
    with tg.no_grad():
        hits = [model(tg.tensor(x)).argmax(1) == tg.tensor(y) for x, y in data.DataLoader(digits, batch_size=500)]
    model.train()
    return sum(hit.sum().item() for hit in hits) / len(digits)


def train(model, digits, test, args):
    """Adam on cross entropy, its learning rate falling to zero. The loss of each step, the accuracy of each epoch."""
    loader = data.DataLoader(digits, batch_size=args.batch_size, shuffle=True, drop_last=True, seed=args.seed)
    optimizer = optim.Adam(model.parameters(), lr=args.lr)
    losses, accuracies, session = [], [], tg.Session()  # from the third on, an iteration runs as compiled code
    back = "\r" if sys.stdout.isatty() else ""  # on a terminal each epoch is one line that changes
    for epoch in range(1, args.epochs + 1):
        name, start = f"{back}epoch {epoch}/{args.epochs}", time.perf_counter()
        for i, (images, labels) in enumerate(loader, 1):
            with session:
                loss = F.cross_entropy(model(tg.tensor(images)), tg.tensor(labels))
                optimizer.zero_grad()
                loss.backward()
                optimizer.param_groups[0]["lr"] = args.lr * (1.0 - len(losses) / (args.epochs * len(loader)))
                optimizer.step()
            losses.append(loss.item())
            if back and i % 20 == 0:
                print(f"{name}  {i / len(loader):4.0%}  loss {losses[-1]:.4f}", end="", flush=True)
        pace = (time.perf_counter() - start) / len(loader) * 1e3
        accuracies.append(accuracy(model, test))
        result = f"loss {sum(losses[-len(loader) :]) / len(loader):.4f}  test accuracy {accuracies[-1]:.2%}"
        print(f"{name}  {result}  {pace:.2f} ms per iteration")
    return losses, accuracies


def plot(losses, accuracies, path) -> None:
    """The learning curve as a picture."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        sys.exit("--plot needs matplotlib: pip install 'tapegrad[plot]'")
    figure, left = plt.subplots(figsize=(7, 4), layout="constrained")
    width = max(len(losses) // 100, 1)  # a hundred means are a readable curve
    starts = range(0, len(losses) - width + 1, width)
    left.plot([i + width / 2 for i in starts], [sum(losses[i : i + width]) / width for i in starts], color="tab:blue")
    left.set(xlabel="iteration", ylabel="training loss (blue)", yscale="log")
    right, epoch = left.twinx(), len(losses) // len(accuracies)
    right.plot([epoch * i for i in range(1, len(accuracies) + 1)], [100 * a for a in accuracies], "C1o-")
    right.set(ylabel="test accuracy in % (orange)")
    figure.savefig(path, dpi=120)
    print(f"learning curve: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cnn", action="store_true", help="a convolutional network instead of an MLP")
    parser.add_argument("--hidden", type=int, nargs="+", default=[256], help="hidden layers of the MLP")
    for name, value in {"epochs": 8, "batch-size": 64, "lr": 1e-3, "seed": 0, "threads": tg.get_num_threads()}.items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"default {value}")
    parser.add_argument("--save", default="out/mnist.safetensors", help="where the trained model goes")
    parser.add_argument("--plot", nargs="?", const="out/mnist.png", help="draw the learning curve, as PNG")
    parser.add_argument("--quick", action="store_true", help="one short epoch, to see that it runs")
    args = parser.parse_args()
    tg.set_num_threads(args.threads)
    for path in filter(None, (args.save, args.plot)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    tg.seed(args.seed)
    digits, test = data.mnist()
    if args.quick:
        args.epochs, digits, test = 1, data.ArrayDataset(*digits[:1000]), data.ArrayDataset(*test[:500])
    start, model = time.perf_counter(), cnn() if args.cnn else MLP(args.hidden)
    size = sum(p.size for p in model.parameters())
    print(f"{len(digits):,} training and {len(test):,} test digits, {size:,} parameters")
    losses, accuracies = train(model, digits, test, args)
    tg.save(args.save, model.state_dict())
    print(f"test accuracy {accuracies[-1]:.2%} after {time.perf_counter() - start:.1f} s; model: {args.save}")
    if args.plot:
        plot(losses, accuracies, args.plot)


if __name__ == "__main__":
    main()
