"""The bars of the comparison, and verdicts on them."""

from __future__ import annotations

from dataclasses import dataclass

TORCH, COMPILED, JAX = "PyTorch", "torch.compile", "JAX jit"
PEERS = (TORCH, COMPILED, JAX)


@dataclass(frozen=True)
class Bar:
    """A step takes at most `seconds`, or at most `factor` times as long as the fastest of `rivals`."""

    seconds: float | None = None
    factor: float = 1.0
    rivals: tuple[str, ...] = PEERS

    def allowed(self, times: dict[str, float]) -> float | None:
        """Seconds; None where none of the rivals was measured."""
        if self.seconds is not None:
            return self.seconds
        found = [times[name] for name in self.rivals if name in times]
        return self.factor * min(found) if found else None

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"≤ {short(self.seconds)}"
        whose = "the best peer" if self.rivals == PEERS else " and ".join(self.rivals)
        return f"≤ {whose}" if self.factor == 1.0 else f"≤ {self.factor:g} × {whose}"


def short(seconds: float) -> str:
    """A time in three digits, in ms, or µs below 0.1 ms."""
    return f"{seconds * 1e6:#.3g} µs" if seconds < 1e-4 else f"{seconds * 1e3:#.3g} ms"


# by the beginning of the tasks' names
BARS: dict[str, Bar] = {
    "MLP 8-16-16-1": Bar(12e-6),
    "MLP 32-64-64-1": Bar(20e-6),
    "MLP 64-256-256-1": Bar(factor=0.9, rivals=(JAX,)),
    "MLP 784-512-512-1": Bar(factor=0.95, rivals=(JAX,)),
    "MLP 784-1024-1024-10": Bar(factor=1.1, rivals=(JAX,)),
    "Sigma": Bar(4e-3),
    "tanh(": Bar(factor=0.5, rivals=(JAX,)),
    "LSTM T=64 B=16": Bar(rivals=(TORCH, JAX)),
    "LSTM T=64 B=1 ": Bar(factor=1.2, rivals=(TORCH, JAX)),
    "CNN": Bar(factor=1.2, rivals=(TORCH,)),
    "transformer": Bar(),
    "layer norm": Bar(factor=0.7),
    "Adam over": Bar(rivals=(TORCH,)),
}


def bar_of(task: str) -> Bar:
    """The bar of a task."""
    if task.startswith("chain"):
        return Bar(0.40e-6 if "backward" in task else 0.25e-6)
    return next(bar for start, bar in BARS.items() if task.startswith(start))


def verdict(bar: Bar, own: float | None, times: dict[str, float], limit: float = 0.0) -> str:
    """ "met", or by how much it was missed; `limit`: the seconds that the machine needs at least."""
    allowed = bar.allowed(times)
    if own is None:
        return "not measured"
    if allowed is None:
        return "no peer"
    if own <= allowed:
        return "met"
    beyond = f"; the machine's limit alone is {limit / allowed:.2f} ×" if limit > allowed else ""
    return f"missed, {own / allowed:.2f} × the bar{beyond}"
