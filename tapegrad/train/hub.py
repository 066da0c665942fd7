"""One file that another person opens with one call: how a model is built, its weights, and what prepares its inputs.

    hub.save("digits.tapegrad", model, preprocessing=pipeline, about={"by": "Ada", "accuracy": 0.99})
    shared = hub.load("digits.tapegrad")
    shared(samples)

The file is one of `tg.save`: safetensors with JSON, nothing in it is executed. A model is described by its classes and the
arguments that they were made with. Classes of `tapegrad.nn` are known; those of a program must be handed to `load`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import nn
from ..data.preprocess.transform import Transform, restore
from ..data.sources.source import Source
from ..dtypes import DType, as_dtype
from ..errors import CheckpointError, TapegradError
from ..nn.lazy import settle
from ..nn.module import Module
from ..ops.random import get_seed_state, set_seed_state
from ..ops.registry import REGISTRY, Op
from ..saving import load as read
from ..saving import save as write
from ..tape.assign import replace
from ..tape.create import tensor
from ..tape.state import no_grad
from ..tape.tensor import Tensor

FORMAT = "tapegrad-model-1"


@dataclass
class Shared:
    """What `load` gives. Called with samples, it prepares them and gives the model's output, without a graph.

    model: in evaluation mode. preprocessing: None, or a fitted transformation of inputs. about: what was said with it.
    """

    model: Module
    preprocessing: Transform | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def __call__(self, x: Any) -> Any:
        if self.preprocessing is not None:
            x = self.preprocessing(x)
        with no_grad():
            return self.model(x if isinstance(x, Tensor) else tensor(x))


def save(
    path: str | os.PathLike,
    model: Module,
    *,
    preprocessing: Transform | None = None,
    about: dict[str, Any] | None = None,
) -> None:
    """Write a model so that `load` builds it again.

    preprocessing: a fitted transformation. about: numbers, texts, lists and dicts that go with it, such as names of classes.
    Raises CheckpointError where an argument that a part was made with is no plain value, module or op, and where the model
    was changed after it was made, so that building it again would give another.

    >>> import tempfile, os
    >>> import tapegrad as tg
    >>> from tapegrad import nn
    >>> from tapegrad.train import hub
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> path = os.path.join(tempfile.mkdtemp(), "three.tapegrad")
    >>> hub.save(path, model, about={"classes": ["a", "b", "c"]})
    >>> shared = hub.load(path)
    >>> shared.about["classes"], bool((shared([[1.0, 2.0, 3.0, 4.0]]) == model([[1.0, 2.0, 3.0, 4.0]])).all())
    (['a', 'b', 'c'], True)
    """
    if not isinstance(model, Module):
        raise CheckpointError(f"hub.save: a {type(model).__name__} came, wanted a Module")
    if preprocessing is not None and not isinstance(preprocessing, Transform):
        raise CheckpointError(
            f"hub.save: preprocessing is a {type(preprocessing).__name__}; wanted is a transformation of data.preprocess"
        )
    kinds = {type(m) for m in model.modules()}
    description = {
        "format": FORMAT,
        "model": _Describer().module(model, type(model).__name__),
        "settled": {name: m.__dict__["_settled"] for name, m in model.named_modules() if "_settled" in m.__dict__},
        "frozen": [name for name, p in model.named_parameters() if not p.requires_grad],
        "dtypes": {name: value.dtype.name for name, value in model._stored()},
        "state": model.state_dict(),
        "preprocessing": None if preprocessing is None else preprocessing.state_dict(),
        "about": about or {},
    }
    again = _build(description, {_name(kind): kind for kind in kinds}, "hub.save")
    if repr(again) != repr(model):
        raise CheckpointError(
            f"hub.save: the model was changed after it was made, and building it again gives another:\n{again!r}\nMake the "
            f"change in the class, or by an argument; or send the weights alone: tg.save(path, model.state_dict())."
        )
    write(path, {**description, "sha256": _digest(description)})


def load(path: str | os.PathLike | Source, classes: Iterable[type[Module]] = ()) -> Shared:
    """The model in a file that `save` wrote, ready to be called.

    path: a file, or a source, such as `data.URL(address, sha256=...)`. classes: those that the model is made of, besides
    those of tapegrad.nn. Random numbers that come after are what they would have been without.
    """
    description = read(path.path() if isinstance(path, Source) else path)
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise CheckpointError(
            f"hub.load: {path} is no file of hub.save; weights alone are read with model.load_state_dict(tg.load(path))"
        )
    try:
        if description.pop("sha256") != _digest(description):
            raise CheckpointError(
                f"hub.load: what is in {path} is not what was saved (its SHA-256 differs); fetch the file again"
            )
        model = _build(description, {_name(kind): kind for kind in classes}, f"hub.load: {path}")
        prepared = description["preprocessing"]
        return Shared(model.eval(), None if prepared is None else restore(prepared), description["about"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, TapegradError):
            raise
        raise CheckpointError(
            f"hub.load: the description in {path} is damaged: {type(error).__name__} {error}"
        ) from None


def _digest(value: Any, total: Any = None) -> str:
    """SHA-256 of everything in a description."""
    total = total or hashlib.sha256()
    if isinstance(value, dict):
        value = [x for item in value.items() for x in item]
    if isinstance(value, list | tuple):
        total.update(f"{type(value).__name__} {len(value)}\0".encode())
        for x in value:
            _digest(x, total)
    elif isinstance(value, Tensor) or hasattr(value, "__array__"):
        array = np.array(value.numpy() if isinstance(value, Tensor) else value, order="C")
        total.update(f"{array.dtype} {array.shape}\0".encode() + array.tobytes())
    else:
        total.update(f"{value!r}\0".encode())
    return total.hexdigest()


def _name(kind: type) -> str:
    """What a file calls a class: its name in tapegrad.nn, or that in its own Python module."""
    return kind.__qualname__


def _known(name: str, classes: dict[str, type], who: str, arguments: str) -> type:
    found = classes.get(name) or getattr(nn, name, None)
    if not (isinstance(found, type) and issubclass(found, Module)):
        raise CheckpointError(
            f"{who}: the model is made of {name}({arguments}), which is no class of tapegrad.nn. Give it your class of that "
            f"name: hub.load(path, classes=[{name}])."
        )
    return found


class _Describer:
    """Modules and arguments as plain values; a module that stands in two places is described once."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}

    def module(self, module: Module, place: str) -> list:
        if id(module) in self.numbers:
            return ["again", self.numbers[id(module)]]
        number = self.numbers[id(module)] = len(self.numbers)
        args, kwargs = module.made_with()
        name = _name(type(module))
        listed = [self.value(v, f"argument {i} of {place}") for i, v in enumerate(args)]
        named = {k: self.value(v, f"{k} of {place}") for k, v in kwargs.items()}
        return ["module", {"class": name, "number": number, "args": listed, "kwargs": named}]

    def value(self, value: Any, place: str) -> list:
        if isinstance(value, Module):
            return self.module(value, f"{type(value).__name__} in {place}")
        if isinstance(value, Op) and REGISTRY.get(_key(value)) is value:
            return ["op", _key(value)]
        if isinstance(value, DType):
            return ["dtype", value.name]
        if isinstance(value, list | tuple):
            kind = "tuple" if isinstance(value, tuple) else "list"
            return [kind, [self.value(v, place) for v in value]]
        if isinstance(value, dict) and all(isinstance(k, str) for k in value):
            return ["dict", {k: self.value(v, place) for k, v in value.items()}]
        if value is None or isinstance(value, bool | int | float | str | Tensor) or hasattr(value, "__array__"):
            return ["plain", value]
        raise CheckpointError(
            f"hub.save: {place} is a {type(value).__name__}, which a file cannot hold: plain values, tensors, modules and ops "
            "of tapegrad can. Put it into the class, or send the weights alone: tg.save(path, model.state_dict())."
        )


def _key(op: Op) -> str:
    return f"{op.namespace}.{op.name}" if op.namespace else op.name


class _Builder:
    """The reverse of `_Describer`."""

    def __init__(self, classes: dict[str, type], who: str) -> None:
        self.classes, self.who = classes, who
        self.made: dict[int, Module] = {}

    def value(self, described: list) -> Any:
        kind, content = described
        if kind == "plain":
            return content
        if kind in ("list", "tuple"):
            made = [self.value(v) for v in content]
            return tuple(made) if kind == "tuple" else made
        if kind == "dict":
            return {k: self.value(v) for k, v in content.items()}
        if kind == "op":
            return REGISTRY[content]
        if kind == "dtype":
            return as_dtype(content)
        if kind == "again":
            return self.made[content]
        if kind == "module":
            args = [self.value(v) for v in content["args"]]
            kwargs = {k: self.value(v) for k, v in content["kwargs"].items()}
            listed = ", ".join([*map(_short, args), *(f"{k}={_short(v)}" for k, v in kwargs.items())])
            made = self.made[content["number"]] = _known(content["class"], self.classes, self.who, listed)(
                *args, **kwargs
            )
            return made
        raise CheckpointError(f"{self.who}: the description has a {kind!r}, which this version does not know")


def _short(value: Any) -> str:
    return f"{type(value).__name__}(…)" if isinstance(value, Module) else repr(value)


def _build(description: dict, classes: dict[str, type], who: str) -> Module:
    """The model that is described, with its weights. Draws no random numbers that anybody else would have drawn."""
    before = get_seed_state()
    try:
        model = _Builder(classes, who).value(description["model"])
        modules = dict(model.named_modules())
        for name, size in description["settled"].items():
            if name in modules and "_waits" in modules[name].__dict__:
                settle(modules[name], size)
    finally:
        set_seed_state(before)
    dtypes = description["dtypes"]
    with no_grad():
        for name, value in model._stored():
            if name in dtypes and value.dtype.is_float and dtypes[name] != value.dtype.name:
                replace(value, value.detach().to(as_dtype(dtypes[name])))
    model.load_state_dict(description["state"])
    for name, p in model.named_parameters():
        p.requires_grad = name not in description["frozen"]
    return model
