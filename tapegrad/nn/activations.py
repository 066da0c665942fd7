"""Activations and losses as modules: one row of a table each."""

from __future__ import annotations

import inspect

from . import functional as F
from .module import Module


def _module(name: str, fn, doc: str, **defaults) -> type[Module]:
    """A module class that calls `fn` with the settings it was made with."""
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

    def forward(self, *inputs):
        return fn(*inputs, **self.settings)

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
Softmax = _module("Softmax", F.softmax, "exp(x) / sum(exp(x)) along dim.", dim=-1)
LogSoftmax = _module("LogSoftmax", F.log_softmax, "log(softmax(x)) along dim.", dim=-1)

CrossEntropyLoss = _module(
    "CrossEntropyLoss", F.cross_entropy, "`functional.cross_entropy` as a module.", ignore_index=-100, reduction="mean"
)
MSELoss = _module("MSELoss", F.mse_loss, "`functional.mse_loss` as a module.", reduction="mean")
L1Loss = _module("L1Loss", F.l1_loss, "`functional.l1_loss` as a module.", reduction="mean")
NLLLoss = _module("NLLLoss", F.nll_loss, "`functional.nll_loss` as a module.", reduction="mean")
BCEWithLogitsLoss = _module(
    "BCEWithLogitsLoss",
    F.binary_cross_entropy_with_logits,
    "`functional.binary_cross_entropy_with_logits` as a module.",
    reduction="mean",
)
