"""One program run twice, eagerly and in sessions: what it saw must be the same.

A program is a generator function that takes `make`, a function that gives it a session (or, run eagerly, something that
does nothing), and yields whatever it looks at, once a pass:

    def program(make):
        session = make()
        for _ in range(10):
            with session:
                y = tg.exp(x)
            yield y            # a held tensor, read when all passes are over; y.numpy() is read at once

`agree` runs it both ways and compares everything that was yielded.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import tapegrad as tg
from tapegrad import nn

# How far results may differ where sums run in another order, in ulps of the largest element of each array: one result, and
# the parameters of some dozen training steps, in which such differences add up.
SUMMED = 32
TRAINED = 1024
SEED = 7
EPS = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}  # an ulp of 1

Program = Callable[[Callable[[], Any]], Iterator[Any]]


class Eager(contextlib.nullcontext):
    """In place of a session: nothing happens. As a decorator it gives the function back."""

    def __call__(self, fn):
        return fn

    def clear(self):
        pass


@dataclass
class Passes:
    """What a run in sessions left: the sessions in the order in which they were made, and their counts after each yield.

    wanted: what the eager run yielded.
    """

    wanted: list = field(default_factory=list)
    sessions: list = field(default_factory=list)
    counts: list[list[tuple[int, int, int]]] = field(default_factory=list)

    @property
    def session(self):
        return self.sessions[0]

    def make(self):
        self.sessions.append(tg.Session())
        return self.sessions[-1]

    def note(self) -> None:
        stats = [s.stats for s in self.sessions]
        self.counts.append([(s.iterations, s.recordings, s.replays) for s in stats])

    def steady(self, since: int, until: int | None = None, sessions: slice = slice(None)) -> None:
        """After the yield numbered `since` (from 0) nothing new is recorded, and every pass is a replay."""
        for k in range(len(self.sessions))[sessions]:
            iterations, recordings, replays = zip(*(c[k] for c in self.counts if len(c) > k))
            gained = [seen[since:until][-1] - seen[since] for seen in (iterations, recordings, replays)]
            assert gained[0] > 0
            assert gained[1] == 0, f"recordings of session {k}: {recordings}"
            assert gained[2] == gained[0], f"replays of session {k}: {replays}, of passes {iterations}"


@dataclass
class Within:
    """A result with a tolerance of its own."""

    ulps: float
    value: Any


@dataclass(frozen=True)
class Tolerance:
    """How far elements of an array may be off: so many ulps of its largest element.

    scale: what ulps of arrays of smaller elements are of, for programs in which rounding alone may be all that an array holds.
    eps: an ulp of 1 in the coarsest dtype that results were rounded to on the way, where theirs is finer, as a Python number's.
    """

    ulps: float = 0
    scale: float = 0.0
    eps: float = 0.0


def agree(
    program: Program,
    *,
    ulps: float | Tolerance = 0,
    seed: int = SEED,
    restless: bool = False,
) -> Passes:
    """Run the program eagerly and in sessions, compare all that it yields, and return what the sessions counted.

    restless: so many passes differ that a session may warn of it.
    """
    within = ulps if isinstance(ulps, Tolerance) else Tolerance(ulps)
    tg.seed(seed)
    wanted = list(program(Eager))
    tg.seed(seed)
    passes = Passes(wanted=wanted)
    got = []
    with warnings.catch_warnings():
        if restless:
            warnings.filterwarnings("ignore", "a session recorded", RuntimeWarning)
        for seen in program(passes.make):
            got.append(seen)
            passes.note()
    same(got, wanted, within, "pass")
    stats = [s.stats for s in passes.sessions]
    assert all(s.replays + s.recordings <= s.iterations for s in stats)
    return passes


def same(got, wanted, within: Tolerance, where: str = "result") -> None:
    """Compare nested results: tensors and arrays by dtype, shape and elements, everything else by equality."""
    if isinstance(wanted, Within):
        same(got.value, wanted.value, Tolerance(wanted.ulps), where)
    elif isinstance(wanted, tg.Tensor):
        assert isinstance(got, tg.Tensor), f"{where}: {got!r} in place of a tensor"
        assert got.requires_grad is wanted.requires_grad and got.is_leaf is wanted.is_leaf, where
        same(got.numpy(), wanted.numpy(), within, where)
    elif isinstance(wanted, np.ndarray):
        assert isinstance(got, np.ndarray), f"{where}: {got!r} in place of an array"
        assert got.dtype == wanted.dtype and got.shape == wanted.shape, (
            f"{where}: {got.dtype} {got.shape} in place of {wanted.dtype} {wanted.shape}"
        )
        same_elements(got, wanted, within, where)
    elif isinstance(wanted, dict):
        assert list(got) == list(wanted), where
        for key in wanted:
            same(got[key], wanted[key], within, f"{where}, {key}")
    elif isinstance(wanted, list | tuple):
        assert type(got) is type(wanted) and len(got) == len(wanted), f"{where}: {got!r} in place of {wanted!r}"
        for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
            same(a, b, within, f"{where}, {i}")
    elif isinstance(wanted, float):
        assert type(got) is float, where
        same_elements(np.array(got), np.array(wanted), within, where)
    else:
        assert type(got) is type(wanted) and got == wanted, f"{where}: {got!r} in place of {wanted!r}"


def same_elements(got: np.ndarray, wanted: np.ndarray, within: Tolerance, where: str) -> None:
    if got.tobytes() == wanted.tobytes():
        return
    if within.ulps == 0 or wanted.dtype.name not in EPS:
        differing = np.flatnonzero(got.ravel() != wanted.ravel())
        raise AssertionError(f"{where}: {len(differing)} of {got.size} elements differ:\n{got}\nin place of\n{wanted}")
    eps = max(EPS[wanted.dtype.name], within.eps)
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(b)
    np.testing.assert_array_equal(a[~finite], b[~finite], err_msg=where)
    scale = np.abs(b[finite]).max(initial=within.scale)
    off = np.abs(a[finite] - b[finite]).max(initial=0.0)
    assert off <= within.ulps * eps * scale, (
        f"{where}: off by {off:.3g}, {off / eps / scale:.0f} ulps:\n{got}\nin place of\n{wanted}"
    )


def agrees(*, ulps: float = 0, steady: int | None = None, sessions: slice = slice(None), restless: bool = False):
    """A test from a program: it agrees, and after the pass numbered `steady` the sessions only replay."""

    def wrap(program: Callable[..., Iterator[Any]]):
        @functools.wraps(program)
        def test(**given):
            passes = agree(lambda make: program(make, **given), ulps=ulps, restless=restless)
            if steady is not None:
                passes.steady(steady, None, sessions)

        signature = inspect.signature(program)
        test.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
        return test

    return wrap


# models and data


def mlp(dropout: float = 0.0, dtype=tg.float64, sizes: tuple[int, ...] = (6, 16, 4)) -> nn.Sequential:
    """A small network of tanh layers; its weights follow from the seed."""
    layers: list[nn.Module] = []
    for n, m in zip(sizes[:-1], sizes[1:]):
        layers += [nn.Linear(n, m, dtype=dtype), nn.Tanh()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers[: -2 if dropout else -1])


def batches(count: int, size: int = 8, features: int = 6, classes: int = 4, seed: int = 3) -> list[tuple]:
    """(inputs, classes) as float64 and int64 arrays."""
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(size, features)), rng.integers(0, classes, size)) for _ in range(count)]


def said(f: Callable[[], Any]) -> str | None:
    """The kind of the error that f raises, without its text; None where it raises none."""
    try:
        f()
    except tg.errors.TapegradError as error:
        return type(error).__name__
    return None


def state(model: nn.Module) -> dict[str, np.ndarray]:
    """A copy of all parameters and their gradients."""
    return {
        **{name: p.numpy() for name, p in model.named_parameters()},
        **{f"{name}.grad": p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None},
    }
