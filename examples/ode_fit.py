"""Find the parameters of a differential equation from noisy observations, through a solver that is a Python loop.

The Lotka-Volterra equations x' = a·x - b·x·y, y' = c·x·y - d·y describe prey and predators. The solver is a classical
Runge-Kutta loop on tensors; its gradient with respect to the parameters needs nothing special.

    python examples/ode_fit.py --plot    # writes out/ode_fit.png; needs pip install 'tapegrad[plot]'
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import tapegrad as tg
from tapegrad import optim

TRUE = [1.1, 0.4, 0.1, 0.4]
NAMES = ("a", "b", "c", "d")
START = [10.0, 5.0]


def system(p):
    """The equations as s' = s * (growth + meetings @ s), for s = (prey, predators) and parameters p = (a, b, c, d)."""
    a, b, c, d = p
    zero = tg.tensor(0.0)
    return tg.stack([a, -d]), tg.stack([zero, -b, c, zero]).reshape(2, 2)


def solve(p, steps: int, dt: float, each: int):
    """Every `each`-th state of the solution (Runge & Kutta, order 4)."""
    growth, meetings = system(p)

    def slope(s):
        return s * (growth + meetings @ s)

    state, states = tg.tensor(START), []
    for i in range(1, steps + 1):
        k1 = slope(state)
        k2 = slope(state + 0.5 * dt * k1)
        k3 = slope(state + 0.5 * dt * k2)
        k4 = slope(state + dt * k3)
        state = state + dt / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        if i % each == 0:
            states.append(state)
    return tg.stack(states)


def fit(observed, steps: int, dt: float, each: int, iterations: int):
    """Adam on the logarithms of the parameters, which keeps them positive."""
    logs = tg.log(tg.tensor([0.8, 0.3, 0.15, 0.5])).detach().requires_grad_()
    optimizer = optim.Adam([logs], lr=0.05)
    session = tg.Session()
    for i in range(iterations):
        with session:  # the solver's loop runs in Python each time; its few thousand ops run as one compiled call
            loss = (tg.log(solve(tg.exp(logs), steps, dt, each)) - tg.log(observed)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if i % 50 == 0:
            print(f"iteration {i:3d}  loss {loss:.5f}")
    return tg.exp(logs).detach()


def plot(observed, found, steps: int, dt: float, each: int, path: str) -> None:
    """Observations and the fitted solution."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        sys.exit("--plot needs matplotlib: pip install 'tapegrad[plot]'")
    curve = solve(found, steps, dt, 1).numpy()
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for k, (name, colour) in enumerate((("prey", "tab:green"), ("predators", "tab:red"))):
        axes.plot([dt * (i + 1) for i in range(steps)], curve[:, k], color=colour, label=f"{name}, fitted")
        times = [dt * each * (i + 1) for i in range(len(observed))]
        axes.plot(times, observed.numpy()[:, k], "o", color=colour, label=f"{name}, observed")
    axes.set(xlabel="time", ylabel="population")
    axes.legend()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"fit: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", nargs="?", const="out/ode_fit.png", help="draw observations and fit, as PNG")
    parser.add_argument("--quick", action="store_true", help="few iterations, to see that it runs")
    args = parser.parse_args()
    steps, dt, each = 100, 0.1, 5
    tg.seed(args.seed)
    clean = solve(tg.tensor(TRUE), steps, dt, each)
    observed = clean * tg.exp(0.02 * tg.normal(size=clean.shape))
    start = time.perf_counter()
    iterations = 5 if args.quick else args.iterations
    found = fit(observed, steps, dt, each, iterations)
    seconds = time.perf_counter() - start
    for name, value, true in zip(NAMES, found.tolist(), TRUE):
        print(f"{name} = {value:.4f}   true {true}")
    worst = max(abs(v - t) / t for v, t in zip(found.tolist(), TRUE))
    each_ms = seconds / iterations * 1e3
    print(f"largest error {worst:.1%} after {iterations} iterations of {steps} solver steps, {each_ms:.0f} ms each")
    if args.plot:
        plot(observed, found, steps, dt, each, args.plot)


if __name__ == "__main__":
    main()
