"""Activations and losses as modules: one row of a table each."""

from __future__ import annotations

import inspect

from ..ops import network
from ..tape.session.match import expected_of_one
from ..tape.tensor import Tensor
from . import functional as F
from .module import Module


def _module(name: str, fn, doc: str, tensors: int = 1, **defaults) -> type[Module]:
    """A module class that calls `fn` with the settings it was made with. In `fn` they follow the tensors in this order.

    By position: that is the shortest way into an op, and to what a session compares a call with.
    """
    signature = inspect.Signature(
        [inspect.Parameter(k, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=v) for k, v in defaults.items()]
    )

    def __init__(self, *args, **kwargs):
        Module.__init__(self)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"nn.{name}{signature}: {error}") from None
        self.settings = {**defaults, **bound.arguments}

    def plain(self, input):
        if type(input) is Tensor:
            out = expected_of_one(fn, input)
            if out is not None:
                return out
        return fn(input)

    def activation(self, input):
        return fn(input, *self.settings.values())

    def loss(self, input, target):
        return fn(input, target, *self.settings.values())

    forward = loss if tensors == 2 else activation if defaults else plain
    forward.__name__, forward.__qualname__ = "forward", f"{name}.forward"

    def extra_repr(self):
        return ", ".join(f"{k}={v!r}" for k, v in self.settings.items() if v != defaults[k])

    body = {
        "__init__": __init__,
        "forward": forward,
        "extra_repr": extra_repr,
        "__doc__": doc,
        "__module__": __name__,
        "__signature__": signature,
    }
    return type(name, (Module,), body)


ReLU = _module("ReLU", F.relu, "max(x, 0).")
LeakyReLU = _module("LeakyReLU", F.leaky_relu, "x where x > 0, negative_slope * x elsewhere.", negative_slope=0.01)
ELU = _module("ELU", F.elu, "x where x > 0, alpha * (exp(x) - 1) elsewhere.", alpha=1.0)
GELU = _module("GELU", F.gelu, "x times the normal distribution function of x.", approximate="none")
SiLU = _module("SiLU", F.silu, "x * sigmoid(x).")
Sigmoid = _module("Sigmoid", F.sigmoid, "1 / (1 + exp(-x)).")
Tanh = _module("Tanh", F.tanh, "The hyperbolic tangent.")
Softplus = _module("Softplus", F.softplus, "log(1 + exp(x)).")
Softsign = _module("Softsign", F.softsign, "x / (1 + |x|).")
Softmax = _module("Softmax", network.softmax, "exp(x) / sum(exp(x)) along dim.", dim=-1)
LogSoftmax = _module("LogSoftmax", network.log_softmax, "log(softmax(x)) along dim.", dim=-1)


def _loss(name: str, fn, **defaults) -> type[Module]:
    return _module(name, fn, f"`functional.{fn.__name__}` as a module.", 2, **defaults)


CrossEntropyLoss = _loss("CrossEntropyLoss", F.cross_entropy, ignore_index=-100, reduction="mean")
MSELoss = _loss("MSELoss", F.mse_loss, reduction="mean")
L1Loss = _loss("L1Loss", F.l1_loss, reduction="mean")
NLLLoss = _loss("NLLLoss", F.nll_loss, reduction="mean")
BCEWithLogitsLoss = _loss("BCEWithLogitsLoss", F.binary_cross_entropy_with_logits, reduction="mean")
