"""Cases of the fixtures, which `scripts/make_nn_fixtures.py` made with PyTorch: the module, its inputs, and what has to come out."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np

import tapegrad as tg
from tapegrad import nn

FOLDER = Path(__file__).parent / "fixtures"


class Case:
    """One case, for one dtype."""

    def __init__(self, found: dict, numbers: np.ndarray, dtype: str = "float64"):
        self.module_name, self.args, self.kwargs, self.call = (found[k] for k in ("module", "args", "kwargs", "call"))
        self.dtype = getattr(tg, dtype)
        self.arrays = {}
        for name, (place, shape, kind) in found["arrays"].items():
            x = numbers[place : place + int(np.prod(shape))].reshape(shape)
            self.arrays[name] = x.astype(np.int64) if kind == "i" else x.astype(dtype)

    def some(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose names start so, by the rest of their names."""
        return {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}

    def module(self) -> nn.Module:
        """The module with the case's parameters and buffers."""
        cls = getattr(nn, self.module_name)
        kwargs = {k: tg.tensor(v) if k in ("weight", "pos_weight") else v for k, v in self.kwargs.items()}
        listed = [tuple(a) if isinstance(a, list) else a for a in self.args]
        kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in kwargs.items()}
        if "dtype" in inspect.signature(cls).parameters:
            kwargs["dtype"] = self.dtype
        module = cls(*listed, **kwargs).to(self.dtype)
        state = self.some("p/") | self.some("b/")
        module.load_state_dict({k: tg.tensor(v) for k, v in state.items()}, strict=False)
        assert {n for n, _ in module.named_parameters()} == set(self.some("p/"))
        return module.eval() if self.call.get("eval") else module

    def inputs(self) -> list[tg.Tensor]:
        """Fresh leaves; those that PyTorch gave a gradient require one."""
        learn = self.some("gin")
        return [
            tg.tensor(x, requires_grad=str(i) in learn)
            for i, x in sorted((int(k), v) for k, v in self.some("in").items())
        ]

    def outputs(self, module: nn.Module, inputs: list[tg.Tensor]) -> list[tg.Tensor]:
        """What the module returns, as a flat list."""
        call = {k: v for k, v in self.call.items() if k not in ("eval", "same")}
        if "lengths" in call:
            call["lengths"] = np.array(call["lengths"])
        call = {
            k: tg.tensor(v, dtype=None if isinstance(v[0][0], bool) else self.dtype) if k.endswith("mask") else v
            for k, v in call.items()
        }
        if self.call.get("same"):
            inputs = inputs * 3
        if len(inputs) > 1 and self.module_name.startswith(("RNN", "GRU", "LSTM")):
            state = tuple(inputs[1:]) if len(inputs) > 2 else inputs[1]
            return flat(module(inputs[0], state, **call))
        return flat(module(*inputs, **call))


def flat(found) -> list[tg.Tensor]:
    """The tensors of a nested result."""
    return [found] if isinstance(found, tg.Tensor) else [t for part in found if part is not None for t in flat(part)]


def objective(outs: list[tg.Tensor]) -> tg.Tensor:
    """The sum of all results' elements, weighed with cos(0), cos(1), …."""
    total = None
    for o in outs:
        weights = np.cos(np.arange(o.size, dtype=np.float64)).reshape(o.shape).astype(o.dtype.name)
        part = (o * tg.tensor(weights)).sum()
        total = part if total is None else total + part
    return total


def cases(kind: str) -> dict[str, tuple[dict, np.ndarray]]:
    """All cases of one fixture, by name: what `Case` takes."""
    with np.load(FOLDER / f"{kind}.npz") as stored:
        found, numbers = json.loads(stored["cases"].tobytes()), stored["numbers"]
    return {name: (c, numbers) for name, c in found.items()}
