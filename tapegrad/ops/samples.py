"""Samples: the inputs that an op is tested on. Every op of the registry says here where it is smooth, nothing else.

A sample is a dict of any of these fields:

=================  =====================================================================================
shapes             the shape of each floating tensor; an elementwise op without them gets `STANDARD`
values             the (low, high) range of each tensor's elements
domain             one such range for all of them; (-2, 2) where neither is given
avoid              numbers from which elements keep 0.1 away: kinks and poles
well_conditioned   True: the first tensor holds square matrices far from singular
positive_definite  True: the first tensor holds symmetric positive definite matrices
args               the other positional arguments; arrays among them are tensors without gradient: indices, classes
at                 the places of the tensors among all positional arguments; the first ones, if not given
attrs              the keyword arguments
gather             True: the tensors are passed as one list
=================  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from .registry import Op

DOMAIN = (-2.0, 2.0)
CLEARANCE = 0.1  # from the numbers to avoid; finite differences step by about 1e-6

# Shapes of the inputs of elementwise ops, by arity: vector bodies with a tail, broadcasting on every side, numbers.
STANDARD = {
    1: (((3, 4),), ((37,),), ((),)),
    2: (((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (2, 1, 4)), ((), (35,))),
    3: (((3, 4), (3, 4), (3, 4)), ((4,), (3, 1), (2, 1, 1)), ((33,), (), ())),
    4: (((3, 4), (3, 4), (3, 4), (3, 4)), ((4,), (3, 1), (), (3, 4))),
}


@dataclass
class Drawn:
    """An op's arguments, drawn from a sample."""

    tensors: list[np.ndarray]
    args: tuple = ()
    at: tuple[int, ...] | None = None
    attrs: dict = field(default_factory=dict)
    gather: bool = False

    def call(self, fn: Callable, tensors: Iterable, other: Callable = lambda x: x):
        """fn called with `tensors` in place of the drawn ones; `other` is applied to the other arrays."""
        listed = list(tensors)
        if self.gather:
            listed = [listed]
        rest = [other(a) if isinstance(a, np.ndarray) else a for a in self.args]
        places = range(len(listed)) if self.at is None else self.at
        arguments = list(rest)
        for place, x in zip(places, listed, strict=True):
            arguments.insert(place, x)
        return fn(*arguments, **self.attrs)


def draw(op: Op, rng: np.random.Generator, samples: list[dict] | None = None) -> list[Drawn]:
    """The arguments of each call that the op's samples ask for, in float64."""
    listed = op.samples if samples is None else samples
    if not listed and op.kind == "elementwise":
        listed = [{}]
    made = []
    for sample in listed:
        every = (sample["shapes"],) if "shapes" in sample else STANDARD[op.arity]
        for shapes in every:
            tensors = [_draw(rng, tuple(shape), sample, i) for i, shape in enumerate(shapes)]
            made.append(
                Drawn(
                    tensors,
                    tuple(sample.get("args", ())),
                    sample.get("at"),
                    dict(sample.get("attrs", {})),
                    sample.get("gather", False),
                )
            )
    return made


def _draw(rng: np.random.Generator, shape: tuple[int, ...], sample: dict, i: int) -> np.ndarray:
    low, high = sample["values"][i] if "values" in sample else sample.get("domain", DOMAIN)
    x = np.asarray(rng.uniform(low, high, shape))
    for point in sample.get("avoid", ()):
        near = np.abs(x - point) < CLEARANCE
        x = np.where(near, x + np.copysign(CLEARANCE, x - point), x)
    if i == 0 and sample.get("well_conditioned"):
        x = x + 2 * shape[-1] * np.eye(shape[-1])
    if i == 0 and sample.get("positive_definite"):
        x = x @ np.swapaxes(x, -1, -2) + np.eye(shape[-1])
    return x
