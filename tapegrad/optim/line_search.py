"""A line search for the strong Wolfe conditions (Nocedal & Wright 2006, algorithms 3.5 and 3.6), in the form that PyTorch has."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

DECREASE, CURVATURE = 1e-4, 0.9


class Point(NamedTuple):
    """How far along the direction, and loss, gradient and slope there."""

    t: float
    loss: float
    gradient: np.ndarray
    slope: float


def cubic(a: Point, b: Point, low: float, high: float) -> float:
    """The minimum, between low and high, of the cubic through two points and their slopes (3.59 in the book)."""
    first = a.slope + b.slope - 3.0 * (a.loss - b.loss) / (a.t - b.t)
    square = first * first - a.slope * b.slope
    if not square >= 0.0:
        return (low + high) / 2.0
    second = math.sqrt(square)
    if a.t > b.t:
        a, b = b, a
    bottom = b.slope - a.slope + 2.0 * second
    if bottom == 0.0:
        return (low + high) / 2.0
    at = b.t - (b.t - a.t) * ((b.slope + second - first) / bottom)
    return min(max(at, low), high)


def strong_wolfe(
    at: Callable[[float], tuple[float, np.ndarray]],
    t: float,
    d: np.ndarray,
    loss: float,
    gradient: np.ndarray,
    slope: float,
    smallest: float,
    most: int = 25,
) -> tuple[float, np.ndarray, float, int]:
    """Loss, gradient and distance of a point along d that is low and flat enough, and the number of evaluations.

    at: loss and gradient at a distance. t: where to begin. smallest: a bracket narrower than this is not searched on. most: evaluations
    besides the first.
    """
    count = 0

    def look(t: float) -> Point:
        nonlocal count
        count += 1
        f, g = at(t)
        return Point(t, f, g, float(g @ d))

    start = Point(0.0, loss, gradient, slope)

    def too_high(p: Point) -> bool:
        return p.loss > start.loss + DECREASE * p.t * start.slope

    def flat(p: Point) -> bool:
        return abs(p.slope) <= -CURVATURE * start.slope

    before, new, tries = start, look(t), 0
    while True:  # until two points lie around what is wanted
        if tries == most:
            bracket = [start, new]
            break
        if too_high(new) or (tries > 1 and new.loss >= before.loss) or not math.isfinite(new.loss):
            bracket = [before, new]
            break
        if flat(new):
            return new.loss, new.gradient, new.t, count
        if new.slope >= 0.0:
            bracket = [before, new]
            break
        far = cubic(before, new, new.t + 0.01 * (new.t - before.t), new.t * 10.0)
        before, new = new, look(far)
        tries += 1
    low, high = (0, 1) if bracket[0].loss <= bracket[1].loss else (1, 0)
    width, stuck = float(np.abs(d).max()), False
    while tries < most and abs(bracket[1].t - bracket[0].t) * width >= smallest:
        left, right = sorted((bracket[0].t, bracket[1].t))
        t = cubic(bracket[0], bracket[1], left, right)
        margin = 0.1 * (right - left)
        if min(right - t, t - left) < margin:
            if stuck or t >= right or t <= left:
                t = right - margin if abs(t - right) < abs(t - left) else left + margin
                stuck = False
            else:
                stuck = True
        else:
            stuck = False
        new = look(t)
        tries += 1
        if too_high(new) or new.loss >= bracket[low].loss or not math.isfinite(new.loss):
            bracket[high] = new
            low, high = (0, 1) if bracket[0].loss <= bracket[1].loss else (1, 0)
            continue
        done = flat(new)
        if not done and new.slope * (bracket[high].t - bracket[low].t) >= 0.0:
            bracket[high] = bracket[low]
        bracket[low] = new
        if done:
            break
    best = bracket[low]
    return best.loss, best.gradient, best.t, count
