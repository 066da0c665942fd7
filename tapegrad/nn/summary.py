"""What a model is made of: a table of its modules, the shapes they give, their parameters and memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..tape.state import no_grad
from ..tape.tensor import Tensor
from .module import Module


@dataclass
class SummaryRow:
    """One module. `parameters` and `nbytes` are its own and those below it; `own` are its own parameters alone."""

    path: str
    name: str
    depth: int
    shape: Any  # of what it returned: a shape, nested as the result is; None where it was not called
    parameters: int
    own: int
    nbytes: int
    calls: int


@dataclass
class Summary:
    """What `summary` found. Printed, it is a table."""

    rows: list[SummaryRow] = field(default_factory=list)
    parameters: int = 0
    trainable: int = 0
    nbytes: int = 0
    buffer_bytes: int = 0

    def __str__(self) -> str:
        cells = [("module", "output", "parameters", "bytes")]
        for row in self.rows:
            label = "  " * row.depth + (f"{row.path.rpartition('.')[2]}: " if row.path else "") + row.name
            label += f" ×{row.calls}" if row.calls > 1 else ""
            shape = "not called" if row.shape is None else _text(row.shape)
            cells.append(
                (label, shape, f"{row.parameters:,}" if row.parameters else "", f"{row.nbytes:,}" if row.nbytes else "")
            )
        widths = [max(len(c[i]) for c in cells) for i in range(4)]
        lines = [
            f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}".rstrip() for a, b, c, d in cells
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        lines.append(lines[1])
        frozen = self.parameters - self.trainable
        lines.append(
            f"{self.parameters:,} parameters, {self.trainable:,} trainable"
            + (f", {frozen:,} frozen" if frozen else "")
            + f"; {self.nbytes:,} bytes"
            + (f", and {self.buffer_bytes:,} of buffers" if self.buffer_bytes else "")
        )
        return "\n".join(lines)

    __repr__ = __str__


def _text(shape: Any) -> str:
    if isinstance(shape, tuple) and all(isinstance(n, int) for n in shape):
        return str(shape)
    return ", ".join(_text(s) for s in shape) if isinstance(shape, list) else str(shape)


def _shape(result: Any) -> Any:
    """The shape of a tensor, a list of shapes for several, the type's name for anything else."""
    if isinstance(result, Tensor):
        return result.shape
    if isinstance(result, tuple | list):
        return [_shape(part) for part in result if part is not None]
    if isinstance(result, dict):
        return [_shape(part) for part in result.values()]
    return type(result).__name__


@contextmanager
def _watched(modules: dict[str, Module], seen: dict[int, list]) -> Iterator[None]:
    """Note what each module returns, while it lasts."""

    def watch(module: Module) -> None:
        def forward(*args, **kwargs):
            result = type(module).forward(module, *args, **kwargs)
            seen.setdefault(id(module), []).append(_shape(result))
            return result

        module.__dict__["forward"] = forward

    for module in modules.values():
        watch(module)
    try:
        yield
    finally:
        for module in modules.values():
            module.__dict__.pop("forward", None)


def summary(model: Module, *inputs, **named_inputs) -> Summary:
    """Call the model on the inputs, in evaluation mode and without recording, and list its modules.

    Each with the shape that it returned (of its last call), its parameters (with those of the modules below it) and their
    bytes. Shared parameters count once in each row and once in the totals. Without inputs nothing is called, and there are
    no shapes.

    >>> import tapegrad as tg
    >>> from tapegrad import nn
    >>> print(summary(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), tg.ones((5, 4))))
    module       output  parameters  bytes
    --------------------------------------
    Sequential   (5, 2)          58    232
      0: Linear  (5, 8)          40    160
      1: ReLU    (5, 8)
      2: Linear  (5, 2)          18     72
    --------------------------------------
    58 parameters, 58 trainable; 232 bytes
    """
    modules = dict(model.named_modules())
    seen: dict[int, list] = {}
    if inputs or named_inputs:
        modes = {id(m): m.training for m in modules.values()}
        model.eval()
        try:
            with no_grad(), _watched(modules, seen):
                model(*inputs, **named_inputs)
        finally:
            for module in modules.values():
                object.__setattr__(module, "training", modes[id(module)])
    found = Summary()
    for path, module in modules.items():
        own = sum(p.size for p in module._parameters.values() if p is not None)
        below = list(module.parameters())
        calls = seen.get(id(module), [])
        found.rows.append(
            SummaryRow(
                path,
                type(module).__name__,
                path.count(".") + 1 if path else 0,
                calls[-1] if calls else None,
                sum(p.size for p in below),
                own,
                sum(p.layout.nbytes for p in below),
                len(calls),
            )
        )
    listed = list(model.parameters())
    found.parameters = sum(p.size for p in listed)
    found.trainable = sum(p.size for p in listed if p.requires_grad)
    found.nbytes = sum(p.layout.nbytes for p in listed)
    found.buffer_bytes = sum(b.layout.nbytes for b in model.buffers())
    return found
