"""Sets that are made up: small problems whose answer is known. The same arguments give the same set everywhere."""

from __future__ import annotations

import numpy as np

from ...errors import DataError
from ..dataset import ArrayDataset
from ..order import normal, uniform
from ..table import Table

GATES = {"xor": (0, 1, 1, 0), "and": (0, 0, 0, 1), "or": (0, 1, 1, 1)}  # of inputs 00, 01, 10, 11


def logic_gate(gate: str = "xor", count: int = 4, *, noise: float = 0.0, seed: int = 0) -> ArrayDataset:
    """Two inputs of 0 or 1 and what a gate makes of them: "xor", "and" or "or".

    Inputs float32 (count, 2), the four pairs in turn with normal noise of that standard deviation added; targets int64
    (count,), 0 or 1.

    >>> inputs, targets = logic_gate("xor")[:]
    >>> inputs.tolist(), targets.tolist()
    ([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 1, 1, 0])
    """
    if gate not in GATES:
        raise DataError(f"logic_gate: there is no gate {gate!r}; there are {', '.join(GATES)}.")
    pair = np.arange(_positive("logic_gate", count=count)) % 4
    inputs = np.stack([pair // 2, pair % 2], axis=1) + noise * normal(2 * count, seed).reshape(count, 2)
    return ArrayDataset(inputs.astype(np.float32), np.array(GATES[gate])[pair])


def spirals(
    count: int = 200, *, classes: int = 2, turns: float = 1.5, noise: float = 0.02, seed: int = 0
) -> ArrayDataset:
    """Spirals wound into each other in the plane, one for each class, within the unit circle.

    Inputs float32 (count, 2), with normal noise of that standard deviation; targets int64 (count,), in turn.

    >>> inputs, targets = spirals(100, classes=3)[:]
    >>> inputs.shape, np.bincount(targets).tolist()
    ((100, 2), [34, 33, 33])
    """
    _positive("spirals", count=count, classes=classes)
    target = np.arange(count) % classes
    radius = np.sqrt((np.arange(count) + 1) / count)
    angle = 2 * np.pi * (turns * radius + target / classes)
    inputs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return ArrayDataset((inputs + noise * normal(2 * count, seed).reshape(count, 2)).astype(np.float32), target)


def blobs(count: int = 200, *, classes: int = 3, features: int = 2, spread: float = 0.1, seed: int = 0) -> ArrayDataset:
    """Normal clouds of standard deviation `spread`, their centres at random in [-1, 1] (scikit-learn's `make_blobs`).

    Inputs float32 (count, features); targets int64 (count,), in turn.

    >>> blobs(6, classes=2, features=4)
    ArrayDataset(6 samples: float32 (6, 4), int64 (6,))
    """
    _positive("blobs", count=count, classes=classes, features=features)
    centres = 2 * uniform(classes * features, seed, 0).reshape(classes, features) - 1
    target = np.arange(count) % classes
    inputs = centres[target] + spread * normal(count * features, seed, 1).reshape(count, features)
    return ArrayDataset(inputs.astype(np.float32), target)


def addition(count: int = 1000, *, digits: int = 3, seed: int = 0) -> Table:
    """Sums as text, for character models: "question" such as "12+345 ", "answer" such as "357 ".

    Numbers have 1 to `digits` digits, each length alike often; texts are filled with spaces to a fixed
    width, 2 digits + 1 and digits + 1. No question comes twice. DataError where there are not so many.

    >>> sums = addition(5, digits=2)
    >>> all(eval(record["question"]) == int(record["answer"]) for record in sums)
    True
    >>> sums
    Table(5 records: question: <U5, answer: <U3)
    """
    _positive("addition", count=count, digits=digits)
    most = 10**digits
    if count > most**2:
        raise DataError(f"addition: {count:,} sums are wanted, and there are {most**2:,} of {digits} digits.")
    pairs: dict[tuple[int, int], None] = {}
    part = 0
    while len(pairs) < count:
        if part > 20:  # few are left to be found by chance: take the rest in order
            rest = ((i // most, i % most) for i in range(most**2))
            pairs.update((pair, None) for pair in rest if len(pairs) < count)
            break
        lengths = 1 + (uniform(2 * count, seed, part, 0) * digits).astype(np.int64)
        numbers = (uniform(2 * count, seed, part, 1) * 10.0**lengths).astype(np.int64).reshape(-1, 2)
        pairs.update((tuple(pair), None) for pair in numbers.tolist())
        part += 1
    chosen = list(pairs)[:count]
    return Table(
        {
            "question": np.array([f"{a}+{b}".ljust(2 * digits + 1) for a, b in chosen]),
            "answer": np.array([str(a + b).ljust(digits + 1) for a, b in chosen]),
        }
    )


def sine_mixtures(
    count: int = 100, *, length: int = 256, components: int = 3, noise: float = 0.0, seed: int = 0
) -> Table:
    """Sums of sines: "signal" float32 (count, length), and what it is made of, (count, components) each.

    signal[t] = sum of amplitude * sin(2 pi frequency t / length + phase) + noise: "frequency" in periods over the signal,
    1 to length / 8, rising; "amplitude" 0.2 to 1; "phase" in radians, 0 to 2 pi; normal noise of that standard deviation.
    "clean" is the signal without noise.

    >>> sine_mixtures(10, length=64)
    Table(10 records: signal: float32(64,), clean: float32(64,), frequency: float32(3,), amplitude: float32(3,), phase: float32(3,))
    """
    _positive("sine_mixtures", count=count, length=length, components=components)
    shape = (count, components)
    drawn = [uniform(count * components, seed, i).reshape(shape) for i in range(3)]
    frequency = np.sort(1 + drawn[0] * max(0.0, length / 8 - 1), axis=1)
    amplitude, phase = 0.2 + 0.8 * drawn[1], 2 * np.pi * drawn[2]
    angle = 2 * np.pi * frequency[:, :, None] * (np.arange(length) / length) + phase[:, :, None]
    clean = (amplitude[:, :, None] * np.sin(angle)).sum(axis=1)
    signal = clean + noise * normal(count * length, seed, 3).reshape(count, length)
    columns = {"signal": signal, "clean": clean, "frequency": frequency, "amplitude": amplitude, "phase": phase}
    return Table({name: column.astype(np.float32) for name, column in columns.items()})


def _positive(who: str, **numbers: int) -> int:
    """The first number; DataError where one is below 1."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
            raise DataError(f"{who}: {name} is {number!r}; a whole number from 1 is wanted.")
    return int(next(iter(numbers.values())))
