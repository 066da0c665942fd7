"""L-BFGS: a quasi-Newton method that evaluates the loss several times in a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import CheckpointError, ShapeError, TapeError
from ..tape.create import tensor
from ..tape.state import enable_grad, no_grad
from ..tape.tensor import Tensor
from .line_search import strong_wolfe
from .optimizer import Optimizer

ENOUGH_CURVATURE = 1e-10


class LBFGS(Optimizer):
    """Liu & Nocedal 1989, "On the limited memory BFGS method for large scale optimization". Arguments as in PyTorch.

    `step` takes a closure that drops the gradients, computes the loss, calls backward() and returns the loss. All parameters are
    one group. line_search_fn: None, or "strong_wolfe" (Nocedal & Wright 2006, algorithms 3.5 and 3.6).

    >>> import tapegrad as tg
    >>> x = tg.tensor([-1.5, 2.0], dtype=tg.float64, requires_grad=True)
    >>> optimizer = LBFGS([x], line_search_fn="strong_wolfe", max_iter=50)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = (1.0 - x[0]) ** 2 + 100.0 * (x[1] - x[0] ** 2) ** 2
    ...     loss.backward()
    ...     return loss
    >>> _ = optimizer.step(closure)
    >>> [round(v, 4) for v in x.tolist()]
    [1.0, 1.0]
    """

    def __init__(
        self,
        params,
        lr: float = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ):
        super().__init__(
            params,
            dict(
                lr=lr,
                max_iter=max_iter,
                max_eval=max_iter * 5 // 4 if max_eval is None else max_eval,
                tolerance_grad=tolerance_grad,
                tolerance_change=tolerance_change,
                history_size=history_size,
                line_search_fn=line_search_fn,
            ),
        )
        self.memory: dict[str, Any] = {}

    def add_param_group(self, group):
        """One group only."""
        if self.param_groups:
            raise TapeError("LBFGS: all parameters have the same settings; give them in one group")
        super().add_param_group(group)

    def check(self, group):
        """Refuse settings that make no sense."""
        super().check(group)
        for key in ("max_iter", "max_eval", "history_size"):
            value = group[key]
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ShapeError(f"LBFGS: {key} is a whole number from 1, not {value!r}")
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise ShapeError(f"LBFGS: line_search_fn is None or 'strong_wolfe', not {group['line_search_fn']!r}")

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor:
        """Up to max_iter iterations; the loss that the closure gave first."""
        if closure is None:
            raise TapeError(
                "LBFGS: step needs a closure that computes the loss, calls backward() on it and returns it: step(closure)"
            )
        return _Run(self, closure).run()

    def state_dict(self) -> dict[str, Any]:
        """Settings and the memory of past steps."""
        group = {k: v for k, v in self.param_groups[0].items() if k != "params"}
        memory = {k: tensor(v) if isinstance(v, np.ndarray) else v for k, v in self.memory.items()}
        return {"memory": memory, "param_groups": [group]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave."""
        try:
            group, memory = dict(state["param_groups"][0]), dict(state["memory"])
        except (KeyError, IndexError, TypeError) as error:
            raise CheckpointError(f"load_state_dict: this is no state of LBFGS: {error!r}") from None
        if set(group) != set(self.defaults):
            raise CheckpointError(
                f"load_state_dict: the state has the settings {sorted(group)}, LBFGS has {sorted(self.defaults)}"
            )
        size = sum(p.size for p in self.param_groups[0]["params"])
        arrays = {k: v.numpy().copy() if isinstance(v, Tensor) else v for k, v in memory.items()}
        if arrays and arrays["direction"].shape != (size,):
            raise CheckpointError(
                f"load_state_dict: the state is of {arrays['direction'].size} elements, the parameters have {size}"
            )
        self.param_groups[0].update(group)
        self.memory = arrays


class _Run:
    """One step: the parameters as one vector, and what the closure says at points of it."""

    def __init__(self, optimizer: LBFGS, closure: Callable[[], Tensor]):
        self.optimizer, self.closure = optimizer, closure
        self.group = optimizer.param_groups[0]
        self.params: list[Tensor] = [p for p in self.group["params"] if p.requires_grad]
        self.loss: Tensor | None = None  # the first

    def evaluate(self) -> tuple[float, np.ndarray]:
        """Loss and gradient here."""
        with enable_grad():
            loss = self.closure()
        if not isinstance(loss, Tensor):
            raise TapeError(f"LBFGS: the closure gave a {type(loss).__name__}; it has to return the loss")
        self.loss = loss if self.loss is None else self.loss
        parts = [
            (np.zeros(p.shape, p.numpy().dtype) if p.grad is None else p.grad.numpy()).ravel() for p in self.params
        ]
        return loss.item(), np.concatenate(parts)

    def here(self) -> np.ndarray:
        """The parameters as a vector."""
        return np.concatenate([p.numpy().ravel() for p in self.params])

    def go(self, x: np.ndarray) -> None:
        """Write a vector into the parameters."""
        at = 0
        with no_grad():
            for p in self.params:
                p.copy_(tensor(x[at : at + p.size].reshape(p.shape), dtype=p.dtype))
                at += p.size

    def run(self) -> Tensor:
        """The step."""
        group, memory = self.group, self.optimizer.memory
        loss, g = self.evaluate()
        first = self.loss
        assert first is not None
        evaluations, iterations = 1, 0
        while np.abs(g).max(initial=0.0) > group["tolerance_grad"]:
            iterations += 1
            d = self.direction(g)
            memory["direction"], memory["gradient"] = d, g.copy()
            before, slope = loss, float(g @ d)
            t = group["lr"] * (min(1.0, 1.0 / float(np.abs(g).sum())) if memory["iterations"] == 1 else 1.0)
            memory["length"] = t
            if slope > -group["tolerance_change"]:
                break
            left = group["max_eval"] - evaluations
            loss, g, t, count = self.move(d, t, loss, g, slope, iterations, left)
            memory["length"] = t
            evaluations += count
            if (
                iterations >= group["max_iter"]
                or evaluations >= group["max_eval"]
                or float(np.abs(d * t).max()) <= group["tolerance_change"]
                or abs(loss - before) < group["tolerance_change"]
                or not math.isfinite(loss)
            ):
                break
        return first

    def move(self, d, t: float, loss: float, g, slope: float, iterations: int, left: int):
        """Go along d: the loss and gradient there, how far, and how many evaluations that took."""
        x = self.here()
        if self.group["line_search_fn"] is None:
            self.go(x + x.dtype.type(t) * d)
            if iterations == self.group["max_iter"]:
                return loss, g, t, 0
            return (*self.evaluate(), t, 1)

        def at(t: float) -> tuple[float, np.ndarray]:
            self.go(x + x.dtype.type(t) * d)
            return self.evaluate()

        loss, g, t, count = strong_wolfe(at, t, d, loss, g, slope, self.group["tolerance_change"], left)
        self.go(x + x.dtype.type(t) * d)
        return loss, g, t, count

    def direction(self, g: np.ndarray) -> np.ndarray:
        """-H g, H being what the past steps say of the inverse of the second derivatives (the two-loop recursion)."""
        memory = self.optimizer.memory
        if not memory:
            empty = np.zeros((0, g.size), g.dtype)
            memory.update(iterations=1, steps=empty, changes=empty, scale=1.0)
            return -g
        memory["iterations"] += 1
        change, step = g - memory["gradient"], memory["direction"] * g.dtype.type(memory["length"])
        curvature = float(change @ step)
        if curvature > ENOUGH_CURVATURE:
            keep = self.group["history_size"] - 1
            first = max(len(memory["steps"]) - keep, 0)
            memory["steps"] = np.concatenate([memory["steps"][first:], step[None]])
            memory["changes"] = np.concatenate([memory["changes"][first:], change[None]])
            memory["scale"] = curvature / float(change @ change)
        steps, changes = memory["steps"], memory["changes"]
        weights = [1.0 / float(c @ s) for c, s in zip(changes, steps, strict=True)]
        q, shares = -g, []
        for s, c, w in zip(reversed(steps), reversed(changes), reversed(weights), strict=True):
            shares.append(float(s @ q) * w)
            q = q - g.dtype.type(shares[-1]) * c
        q = q * g.dtype.type(memory["scale"])
        for s, c, w, share in zip(steps, changes, weights, reversed(shares), strict=True):
            q = q + g.dtype.type(share - float(c @ q) * w) * s
        return q
