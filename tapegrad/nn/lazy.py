"""Layers that size themselves at their first call: `Linear(None, 64)`.

A layer whose size is None becomes an instance of a subclass that waits for its first input, then makes the parameters, and is
an ordinary layer from then on. Until then its parameters cannot be used: whoever asks for them, such as an optimizer, gets an
error that says so.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from ..errors import TapeError
from .module import Module

ROOMS = ("_parameters", "_buffers", "_modules")


class Unsized:
    """Stands where a layer's parameters will be. Every use of it raises."""

    def __init__(self, layer: str, size: str):
        self.__dict__.update(_layer=layer, _missing=size)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # what Python asks of any object
        raise TapeError(
            f"{self._layer}: {self._missing} is not known before the first call, so there are no parameters yet; call the model once "
            "with an input of the right shape, then make the optimizer, load a state, or change parameters"
        )

    def __repr__(self) -> str:
        return f"<{self._layer}'s parameters, before {self._missing} is known>"


def sized_by(size: str, from_input: Callable[[Any, Any], int]) -> Callable[[Any], Any]:
    """A class decorator: the argument `size` of `__init__` may be None, and is from_input(layer, x) of the first input then.

    >>> import tapegrad as tg
    >>> @sized_by("features", lambda layer, x: x.shape[-1])
    ... class Scale(Module):
    ...     def __init__(self, features):
    ...         super().__init__()
    ...         self.weight = tg.ones(features, requires_grad=True)
    ...     def forward(self, x):
    ...         return x * self.weight
    >>> layer = Scale(None)
    >>> layer
    Scale(features=None)
    >>> layer(tg.ones((2, 3))).shape, layer.weight.shape
    ((2, 3), (3,))
    """

    def decorate(cls: Any) -> Any:
        init = cls.__init__
        signature = inspect.signature(init)
        _SIZED[cls] = init, size, from_input

        @functools.wraps(init)
        def __init__(self, *args, **kwargs):
            given = signature.bind(self, *args, **kwargs)
            if given.arguments.get(size, 0) is None:
                _wait(self, cls, _arguments(given))
            else:
                init(self, *args, **kwargs)

        cls.__init__ = __init__
        return cls

    return decorate


_SIZED: dict[
    type, tuple[Callable, str, Callable]
] = {}  # decorated class -> its own __init__, the size, how it is found


def _arguments(given: inspect.BoundArguments) -> dict:
    """All arguments but the layer itself, by name."""
    arguments = dict(list(given.arguments.items())[1:])
    for name, parameter in given.signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name, {}))
    return arguments


def _wait(layer: Module, cls: type, arguments: dict) -> None:
    """Make the layer one that waits. `cls`, of its classes, is the one whose size is missing."""
    Module.__init__(layer)
    layer.__dict__["_waits"] = cls, arguments
    layer._parameters["unsized"] = Unsized(type(layer).__name__, _SIZED[cls][1])  # type: ignore[assignment]
    layer.__class__ = _waiting(type(layer))


_WAITING: dict[type, type] = {}


def _waiting(cls: Any) -> Any:
    """The subclass that a layer of this class is an instance of while it waits. It goes by the same name."""
    if cls in _WAITING:
        return _WAITING[cls]
    body = {"forward": _first_call, "extra_repr": _what_is_missing, "__reduce_ex__": _reduced}
    names = ("__module__", "__qualname__", "__doc__")
    made = _WAITING[cls] = type(cls.__name__, (cls,), {**body, **{name: getattr(cls, name) for name in names}})
    return made


def _first_call(self, x, *args, **kwargs):
    """Make the parameters for this input, then compute."""
    settle(self, _SIZED[self.__dict__["_waits"][0]][2](self, x))
    return type(self).forward(self, x, *args, **kwargs)  # past what watches self.forward, which sees this very call


def settle(layer: Any, found: int) -> None:
    """Make the parameters of a layer that waits, for that size; `layer._settled` says it from then on."""
    own = layer.__dict__
    before = {k: v.copy() if k in ROOMS else v for k, v in own.items()}
    cls, arguments = own["_waits"]
    init, size, _ = _SIZED[cls]
    waiting, training = type(layer), layer.training
    layer.__class__ = waiting.__mro__[1]
    try:
        init(layer, **{**arguments, size: found})
    except Exception:
        layer.__class__ = waiting  # as before: the next input may fit
        own.clear()
        own.update(before)
        raise
    del own["_waits"]
    own["_settled"] = found
    for room in ROOMS:
        for name, value in before[room].items():
            if name not in own[room] and type(value) is not Unsized:  # what a subclass added
                layer._keep(name, value, own[room])
    layer.train(training)


def _what_is_missing(self) -> str:
    return f"{_SIZED[self.__dict__['_waits'][0]][1]}=None"


def _reduced(self, protocol):
    return _restored, (type(self).__mro__[1], dict(self.__dict__))


def _restored(cls: type, state: dict) -> Module:
    """A copy, or an unpickled layer, that waits."""
    layer: Any = object.__new__(_waiting(cls))
    layer.__dict__.update(state)
    return layer
