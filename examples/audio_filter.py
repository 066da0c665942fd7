"""Fit a digital filter: gradients outside machine learning.

A resonator (two poles, two zeros) with unknown coefficients is heard only through what it does to noise. Its frequency response,
complex arithmetic written out in real tensors, is fitted to the measured one by L-BFGS.

    python examples/audio_filter.py --plot       # writes out/audio_filter.png

--plot needs pip install 'tapegrad[plot]'.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import tapegrad as tg
from tapegrad import optim

RATE = 8000.0  # samples a second
TRUE = {"b": [0.3, 0.1, -0.2], "a": [-1.4, 0.85]}  # H(z) = (b0 + b1/z + b2/z²) / (1 + a0/z + a1/z²)


def response(b, a, w):
    """|H|² at the angular frequencies w (radians a sample)."""
    c1, s1, c2, s2 = tg.cos(w), tg.sin(w), tg.cos(2.0 * w), tg.sin(2.0 * w)
    top = (b[0] + b[1] * c1 + b[2] * c2) ** 2 + (b[1] * s1 + b[2] * s2) ** 2
    bottom = (1.0 + a[0] * c1 + a[1] * c2) ** 2 + (a[0] * s1 + a[1] * s2) ** 2
    return top / bottom


def measured(seconds: float, seed: int, bins: int):
    """The filter's power response, estimated from noise that went through it: angular frequencies, and |H|²."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(int(seconds * RATE))
    y = np.zeros_like(x)
    b, a = TRUE["b"], TRUE["a"]
    for n in range(2, len(x)):
        y[n] = b[0] * x[n] + b[1] * x[n - 1] + b[2] * x[n - 2] - a[0] * y[n - 1] - a[1] * y[n - 2]
    window = np.hanning(2 * bins)
    cut = len(x) // (2 * bins) * 2 * bins
    power = [np.abs(np.fft.rfft(s[:cut].reshape(-1, 2 * bins) * window)) ** 2 for s in (x, y)]
    return np.linspace(0, np.pi, bins + 1)[1:-1], (power[1].mean(0) / power[0].mean(0))[1:-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of noise to listen to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="three seconds")
    parser.add_argument("--plot", nargs="?", const="out/audio_filter.png", type=Path, help="draw into this file")
    args = parser.parse_args()
    w, heard = measured(min(args.seconds, 3.0) if args.quick else args.seconds, args.seed, 128)
    w, heard = tg.tensor(w, dtype=tg.float64), tg.tensor(heard, dtype=tg.float64)
    b = tg.tensor([0.5, 0.0, 0.0], dtype=tg.float64, requires_grad=True)
    a = tg.tensor([-1.0, 0.5], dtype=tg.float64, requires_grad=True)
    optimizer = optim.LBFGS([b, a], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = (tg.log(response(b, a, w)) - tg.log(heard)).square().mean()  # as the ear has it: in decibels
        loss.backward()
        return loss

    first = optimizer.step(closure).item()
    last = closure().item()
    pole = np.roots([1.0, *a.detach().tolist()])[0]
    true = np.roots([1.0, *TRUE["a"]])[0]
    hertz, wanted = (abs(np.angle(p)) * RATE / (2 * np.pi) for p in (pole, true))
    print(f"mean squared error of the log response {first:.3f} -> {last:.5f}")
    print(f"resonance at {hertz:.1f} Hz (true {wanted:.1f}), pole radius {abs(pole):.4f} (true {abs(true):.4f})")
    if args.plot:
        try:
            import matplotlib.pyplot as plt
        except ImportError:
            sys.exit("--plot needs matplotlib: pip install 'tapegrad[plot]'")
        figure, axes = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
        frequencies = w.numpy() * RATE / (2 * np.pi)
        with tg.no_grad():
            fitted = response(b, a, w).numpy()
        axes.plot(frequencies, 10 * np.log10(heard.numpy()), ".", ms=4, color="#9aa5b1", label="measured")
        axes.plot(frequencies, 10 * np.log10(fitted), color="#c0392b", label="fitted")
        axes.set(xlabel="Hz", ylabel="dB")
        axes.legend()
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(args.plot, dpi=120)
        print(f"picture: {args.plot}")


if __name__ == "__main__":
    main()
