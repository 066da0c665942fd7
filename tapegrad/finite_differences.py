"""Central finite differences against the reverse sweep: what `tapegrad.testing.check_grads` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .errors import DtypeError, GradientError
from .ops.registry import REGISTRY
from .tape.apply import is_tensor
from .tape.create import tensor
from .tape.functional import jvp, vjp
from .tape.state import no_grad
from .tape.tensor import Tensor

EXACT = 1e-9  # relative: what must be equal up to rounding in float64. Rounding to float32 on the way shows: it is 6e-8
ORDINALS = {1: "first", 2: "second", 3: "third", 4: "fourth"}


def name_of(f: Callable) -> str:
    name = getattr(f, "__name__", None) or type(f).__name__
    return "the function" if name == "<lambda>" else name


def argument(a, device: str):
    """An argument as a float64 array where it can be differentiated, else on the device."""
    if isinstance(a, bool | int | str) or a is None:
        return a
    if isinstance(a, float):
        return np.array(a, np.float64)
    if is_tensor(a) or isinstance(a, np.ndarray | np.generic | list | tuple):
        made = a if is_tensor(a) else tensor(a)
        if made.dtype.is_float:
            return np.asarray(a, np.float64) if not is_tensor(a) else a.numpy().astype(np.float64)
        return made.to(device)
    return a


def outputs_of(out) -> list[Tensor]:
    """The tensors in what a function returned."""
    if is_tensor(out):
        return [out]
    if isinstance(out, dict):
        out = list(out.values())
    return [t for part in out for t in outputs_of(part)] if isinstance(out, tuple | list) else []


def join(parts: list[Tensor]) -> Tensor:
    flat = [p.reshape((-1,)) for p in parts]
    return flat[0] if len(flat) == 1 else REGISTRY["concatenate"](flat)


class Flat:
    """f of its differentiable arguments alone, with all floating results in one vector."""

    def __init__(self, f: Callable, rest: list, places: list[int], check: Check):
        self.f, self.rest, self.places, self.check = f, rest, places, check

    def outputs(self, xs) -> list[Tensor]:
        args = list(self.rest)
        for p, x in zip(self.places, xs, strict=True):
            args[p] = x
        outs = [t for t in outputs_of(self.f(*args)) if t.dtype.is_float]
        if not outs:
            raise DtypeError(
                f"check_grads: {self.check.name} returned no floating tensor; there is nothing to differentiate"
            )
        for t in outs:
            if t.dtype.name != "float64":
                raise GradientError(
                    f"check_grads: {self.check.name} returned {t.dtype.name} for float64 arguments; its dtype rule is "
                    "wrong, or it rounds on the way, and finite differences cannot follow"
                )
        return outs

    def __call__(self, *xs):
        return join(self.outputs(xs))


def gradient_of(fn: Callable) -> Callable:
    """(*xs, u) -> the gradients of u · fn(*xs) with respect to all xs, in one vector."""

    def gradient(*arguments):
        *xs, u = arguments
        return join(list(vjp(fn, *xs)[1](u)))

    return gradient


def value_of(fn: Callable, points, device: str) -> np.ndarray:
    with no_grad():
        return fn(*(tensor(x, device=device) for x in points)).numpy()


def worst(expected: np.ndarray, got: np.ndarray) -> tuple[int, ...]:
    with np.errstate(invalid="ignore"):
        gap = np.abs(np.asarray(expected, float) - np.asarray(got, float))
    return tuple(int(i) for i in np.unravel_index(np.argmax(np.where(np.isnan(gap), np.inf, gap)), gap.shape))


def layouts_of(x: np.ndarray, device: str):
    """The same values with other strides."""
    if x.ndim >= 2:
        yield "transposed", tensor(np.ascontiguousarray(x.T), device=device).T
    if x.ndim:
        wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan)
        wide[..., ::2] = x
        yield "strided", tensor(wide, device=device)[..., ::2]
        yield "reversed", tensor(np.ascontiguousarray(np.flip(x)), device=device).flip()


@dataclass
class Check:
    name: str
    eps: float
    atol: float
    rtol: float
    directions: int
    rng: np.random.Generator
    modes: tuple[str, ...]
    device: str = "cpu"
    units: int = field(default=64)  # elements probed one by one to say where a gradient is wrong

    def tensor(self, x) -> Tensor:
        return tensor(x, device=self.device)

    def value_of(self, fn: Callable, points) -> np.ndarray:
        return value_of(fn, points, self.device)

    def level(self, fn: Callable, points: list[np.ndarray], names: list[str], k: int) -> None:
        """Check the first derivative of fn, which is the k-th of the user's function."""
        y, pull = vjp(fn, *(self.tensor(x) for x in points))
        cotangents = [self.rng.standard_normal(y.shape) for _ in range(self.directions)]
        pulled = [self.pull(pull, u, points, names, k) for u in cotangents]
        self.stale(fn, pull, cotangents[0], pulled[0], points, names, k)
        self.linear(pull, cotangents[0], pulled[0], points, names, k)
        for u, grads in zip(cotangents, pulled, strict=True):
            ways = [self.direction(points, i) for i in range(len(points))]
            for i in range(len(ways)):
                self.compare(fn, points, [w if i == j else None for j, w in enumerate(ways)], u, grads, names[i], k, i)
            if len(ways) > 1:
                self.compare(fn, points, ways, u, grads, "all arguments together", k, None)
        self.strides(fn, cotangents[0], pulled[0], points, names, k)

    def direction(self, points: list[np.ndarray], i: int) -> np.ndarray:
        """A random direction, as long as the argument is large."""
        x = points[i]
        return self.rng.standard_normal(x.shape) * max(1.0, float(np.max(np.abs(x), initial=0.0)))

    def pull(self, pull: Callable, u: np.ndarray, points, names, k: int) -> list[np.ndarray]:
        made = []
        for g, x, name in zip(pull(self.tensor(u)), points, names, strict=True):
            if g.shape != x.shape or g.dtype.name != "float64":
                raise GradientError(
                    f"{self.what(k, name)} has shape {g.shape} and dtype {g.dtype.name}, wanted {x.shape} and float64"
                )
            made.append(g.numpy())
        return made

    def slope(self, fn: Callable, points, ways) -> np.ndarray:
        """The derivative of fn along a direction, by central finite differences."""
        ahead = self.value_of(fn, [x if v is None else x + self.eps * v for x, v in zip(points, ways, strict=True)])
        behind = self.value_of(fn, [x if v is None else x - self.eps * v for x, v in zip(points, ways, strict=True)])
        return (ahead - behind) / (2 * self.eps)

    def compare(self, fn, points, ways, u, grads, name: str, k: int, place: int | None) -> None:
        slope = self.slope(fn, points, ways)
        if "forward" in self.modes:
            tangents = tuple(
                self.tensor(np.zeros_like(x) if v is None else v) for x, v in zip(points, ways, strict=True)
            )
            forward = jvp(fn, tuple(self.tensor(x) for x in points), tangents)[1].numpy()
            if not np.allclose(forward, slope, rtol=self.rtol, atol=self.atol * self.scale(ways)):
                at = worst(slope, forward)
                raise GradientError(
                    f"{self.what(k, name, 'jvp')} is wrong at element {at} of the result: "
                    f"finite differences give {slope[at]:.8g}, jvp gives {forward[at]:.8g}"
                )
        if "reverse" not in self.modes:
            return
        expected = float(u @ slope)
        got = float(sum(np.vdot(g, v) for g, v in zip(grads, ways, strict=True) if v is not None))
        if not np.isfinite(expected):
            raise GradientError(
                f"{self.what(k, name)} is {got:.8g}, and finite differences give {expected}; "
                f"choose arguments where {self.name} is smooth"
            )
        if not abs(expected - got) <= self.atol * self.scale(ways) + self.rtol * abs(expected):
            raise GradientError(
                f"{self.what(k, name)} is wrong: in a random direction finite differences give {expected:.8g}, "
                f"the reverse sweep gives {got:.8g}"
                f"{self.where(fn, points, place, u, grads)}"
            )

    @staticmethod
    def scale(ways) -> float:
        return max((float(np.max(np.abs(v), initial=0.0)) for v in ways if v is not None), default=1.0)

    def where(self, fn, points, place: int | None, u, grads) -> str:
        """The element whose derivative is furthest off, where there are few enough to try each."""
        if place is None or not 1 < points[place].size <= self.units:
            return ""
        expected = np.zeros(points[place].shape)
        for at in np.ndindex(expected.shape):
            way = np.zeros(expected.shape)
            way[at] = 1.0
            expected[at] = u @ self.slope(fn, points, [way if i == place else None for i in range(len(points))])
        at = worst(expected, grads[place])
        return f"; the largest difference is at element {at}: expected {expected[at]:.8g}, got {grads[place][at]:.8g}"

    def stale(self, fn, pull, u, grads, points, names, k: int) -> None:
        """A run elsewhere between recording and pulling changes nothing: nobody keeps values outside of the tape."""
        self.value_of(fn, [x + self.eps * self.rng.standard_normal(x.shape) for x in points])
        for name, got, expected in zip(names, self.pull(pull, u, points, names, k), grads, strict=True):
            self.same(
                got,
                expected,
                k,
                name,
                f"changes when {self.name} runs again before the reverse sweep "
                "(a value kept outside of the saved inputs)",
            )

    def linear(self, pull, u, grads, points, names, k: int) -> None:
        """Gradients are linear in the incoming gradient."""
        other = self.rng.standard_normal(u.shape)
        joined = self.pull(pull, 0.75 * u - 1.5 * other, points, names, k)
        for name, both, first, second in zip(
            names, joined, grads, self.pull(pull, other, points, names, k), strict=True
        ):
            self.same(
                both,
                0.75 * first - 1.5 * second,
                k,
                name,
                "is not linear in the incoming gradient (a lower precision on the way, or a missing factor g)",
            )

    def strides(self, fn, u, grads, points, names, k: int) -> None:
        """Gradients do not depend on the strides of the arguments."""
        plain = [self.tensor(x) for x in points]
        for i, x in enumerate(points):
            for layout, strided in layouts_of(x, self.device):
                _, pull = vjp(fn, *(strided if i == j else p for j, p in enumerate(plain)))
                for name, got, expected in zip(names, pull(self.tensor(u)), grads, strict=True):
                    self.same(got.numpy(), expected, k, name, f"changes when {names[i]} is {layout} in memory")

    def incoming(self, function: Flat, points, names) -> None:
        """Gradients do not depend on the strides of the incoming gradient: transposed, or one number broadcast."""
        xs = [self.tensor(x) for x in points]
        shapes = [t.shape for t in function.outputs(xs)]
        if not np.array_equal(self.value_of(function, points), self.value_of(function, points), equal_nan=True):
            raise GradientError(
                f"check_grads: {self.name} returned other values when it ran again with the same arguments; "
                "fix the seed inside it"
            )
        weights = [self.rng.standard_normal(s) for s in shapes]
        flat = np.concatenate([w.ravel() for w in weights])
        turned = np.concatenate([w.T.ravel() for w in weights])
        _, pull = vjp(function, *xs)
        _, pull_turned = vjp(lambda *a: join([t.T for t in function.outputs(a)]), *xs)
        _, pull_sum = vjp(lambda *a: sum(t.sum() for t in function.outputs(a)), *xs)
        for layout, u, other in (
            ("transposed", flat, pull_turned(self.tensor(turned))),
            ("broadcast", np.ones_like(flat), pull_sum(self.tensor(np.float64(1.0)))),
        ):
            for name, got, expected in zip(names, other, pull(self.tensor(u)), strict=True):
                self.same(
                    got.numpy(), expected.numpy(), 1, name, f"changes when the incoming gradient is {layout} in memory"
                )

    def same(self, got: np.ndarray, expected: np.ndarray, k: int, name: str, complaint: str) -> None:
        scale = EXACT * max(1.0, float(np.max(np.abs(expected), initial=0.0)))
        if not np.allclose(got, expected, rtol=0.0, atol=scale, equal_nan=True):
            at = worst(expected, got)
            raise GradientError(
                f"{self.what(k, name)} {complaint}: at element {at} expected {expected[at]:.12g}, got {got[at]:.12g}"
            )

    def what(self, k: int, name: str, kind: str = "gradient") -> str:
        order = f" ({ORDINALS.get(k, str(k))} order)" if k > 1 else ""
        return f"check_grads: the {kind} of {self.name} with respect to {name}{order}"
