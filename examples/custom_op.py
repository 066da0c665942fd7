"""Two ops of your own: a scalar function with a loop, and an array kernel, fitted by gradient descent.

Kepler's equation M = E - e sin E has no closed solution; Newton's method finds E. Here it is one op, differentiated
without further words, and the eccentricity of an orbit is fitted to noisy positions.

    python examples/custom_op.py
"""

from __future__ import annotations

import argparse
import math

import tapegrad as tg


@tg.elementwise
def anomaly(mean, e):
    """The eccentric anomaly E of a mean anomaly M in [0, 2π] on an orbit of eccentricity e < 1."""
    E = mean + e * math.sin(mean)
    for _ in range(50):
        step = (E - e * math.sin(E) - mean) / (1.0 - e * math.cos(E))
        E -= step
        if abs(step) < 1e-12:
            break
    return E


@tg.kernel("(n,2),(m,2)->()")
def chamfer(a, b, out):
    """The mean squared distance of each point of a to the nearest point of b."""
    out[0] = 0
    for i in range(a.shape[0]):
        nearest = math.inf
        for j in range(b.shape[0]):
            nearest = min(nearest, (a[i, 0] - b[j, 0]) ** 2 + (a[i, 1] - b[j, 1]) ** 2)
        out[0] += nearest / a.shape[0]


@tg.kernel("(),(),(n,2),(m,2)->(n,2),(m,2)")
def chamfer_adjoint(g, y, a, b, ga, gb):
    """The gradients of `chamfer`, which go to the nearest pairs."""
    gb[:] = 0
    for i in range(a.shape[0]):
        nearest, at = math.inf, 0
        for j in range(b.shape[0]):
            square = (a[i, 0] - b[j, 0]) ** 2 + (a[i, 1] - b[j, 1]) ** 2
            if square < nearest:
                nearest, at = square, j
        for k in range(2):
            ga[i, k] = 2 * g * (a[i, k] - b[at, k]) / a.shape[0]
            gb[at, k] -= ga[i, k]


chamfer.adjoint(chamfer_adjoint)


def orbit(mean, e):
    """Positions on an orbit of half axis 1 around a focus at the origin, one row each."""
    E = anomaly(mean, e)
    return tg.stack([tg.cos(E) - e, tg.sqrt(1 - e * e) * tg.sin(E)], axis=-1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    steps = 20 if parser.parse_args().quick else 200
    tg.seed(0)
    mean = tg.linspace(0.0, 2 * math.pi, 100, dtype=tg.float64)
    observed = orbit(mean, 0.6) + 0.01 * tg.normal(size=(100, 2), dtype=tg.float64)
    known, unknown = (lambda at: ((at - observed) ** 2).mean()), (lambda at: chamfer(observed, at))
    for name, loss in (("times known  ", known), ("times unknown", unknown)):
        slope, e = tg.value_and_grad(lambda e, loss=loss: loss(orbit(mean, e))), tg.tensor(0.2, dtype=tg.float64)
        session = tg.Session()
        for _ in range(steps):
            with session:
                value, g = slope(e)
                e = tg.clip(e - 0.1 * g, 0.0, 0.95)
        print(f"{name}  eccentricity {e.item():.4f} (true 0.6)  loss {value.item():.6f}")


if __name__ == "__main__":
    main()
