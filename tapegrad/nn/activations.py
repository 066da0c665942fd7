"""Activations as modules: one row of a table each."""

from __future__ import annotations

import inspect

from ..errors import ShapeError
from ..ops import network
from ..tape.create import full
from ..tape.session.match import expected_of_one
from ..tape.tensor import Tensor
from . import functional as F
from .module import Module

REQUIRED = inspect.Parameter.empty


def module_of(
    name: str,
    fn,
    doc: str,
    tensors: tuple[str, ...] = ("input",),
    held: tuple[str, ...] = (),
    home: str = __name__,
    **defaults,
) -> type[Module]:
    """A module class that calls `fn` on its inputs, named `tensors`, with the settings it was made with.

    Settings follow the inputs by position: that is the shortest way into an op, and to what a session compares a call with.
    held: those that may be tensors, which are buffers then, so that they move and are saved with the module. home: the
    Python module that the class is found in.
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
        for key in held:
            value = self.settings[key]
            if value is not None and not isinstance(value, Tensor):
                raise ShapeError(f"nn.{name}: {key} is a {type(value).__name__}, wanted a tensor or None")
            self.register_buffer(key, value)

    def plain(self, input):
        if type(input) is Tensor:
            out = expected_of_one(fn, input)
            if out is not None:
                return out
        return fn(input)

    def activation(self, input):
        return fn(input, *self.settings.values())

    def compared(self, input, target):
        return fn(input, target, *self.settings.values())

    def several(self, *inputs, **named):
        if named:
            inputs += tuple([named.pop(key) for key in tensors[len(inputs) :] if key in named])
        if named or len(inputs) != len(tensors):
            raise TypeError(f"nn.{name} is called with ({', '.join(tensors)})")
        return fn(*inputs, *self.settings.values())

    def with_buffers(self, input, target):
        own = self.__dict__
        return fn(input, target, *[own[k] if k in held else v for k, v in self.settings.items()])

    by_count = {1: activation if defaults else plain, 2: with_buffers if held else compared}
    forward = by_count.get(len(tensors), several)
    forward.__name__, forward.__qualname__ = "forward", f"{name}.forward"
    forward.__doc__ = f"({', '.join(tensors)}) -> {fn.__name__} of them."

    def extra_repr(self):
        """The settings that differ from the defaults."""
        return ", ".join(
            f"{k}={f'tensor of shape {v.shape}' if isinstance(v, Tensor) else repr(v)}"
            for k, v in self.settings.items()
            if v is not defaults[k] and (isinstance(v, Tensor) or v != defaults[k])
        )

    body = {
        "__init__": __init__,
        "forward": forward,
        "extra_repr": extra_repr,
        "__doc__": doc,
        "__module__": home,
        "__signature__": signature,
    }
    return type(name, (Module,), body)


ReLU = module_of("ReLU", F.relu, "max(x, 0).")
ReLU6 = module_of("ReLU6", F.relu6, "min(max(x, 0), 6).")
LeakyReLU = module_of("LeakyReLU", F.leaky_relu, "x where x > 0, negative_slope * x elsewhere.", negative_slope=0.01)
ELU = module_of("ELU", F.elu, "x where x > 0, alpha * (exp(x) - 1) elsewhere.", alpha=1.0)
SELU = module_of("SELU", F.selu, "ELU with the constants that keep mean 0 and variance 1.")
CELU = module_of("CELU", F.celu, "x where x > 0, alpha * (exp(x / alpha) - 1) elsewhere.", alpha=1.0)
GELU = module_of("GELU", F.gelu, "x times the normal distribution function of x.", approximate="none")
SiLU = module_of("SiLU", F.silu, "x * sigmoid(x).")
Mish = module_of("Mish", F.mish, "x * tanh(softplus(x)).")
Sigmoid = module_of("Sigmoid", F.sigmoid, "1 / (1 + exp(-x)).")
LogSigmoid = module_of("LogSigmoid", F.logsigmoid, "log(sigmoid(x)).")
Hardsigmoid = module_of("Hardsigmoid", F.hardsigmoid, "x / 6 + 1/2 between -3 and 3, 0 below, 1 above.")
Hardswish = module_of("Hardswish", F.hardswish, "x * hardsigmoid(x).")
Tanh = module_of("Tanh", F.tanh, "The hyperbolic tangent.")
Hardtanh = module_of("Hardtanh", F.hardtanh, "x limited to [min_val, max_val].", min_val=-1.0, max_val=1.0)
Tanhshrink = module_of("Tanhshrink", F.tanhshrink, "x - tanh(x).")
Softplus = module_of("Softplus", F.softplus, "log(1 + exp(x)).")
Softsign = module_of("Softsign", F.softsign, "x / (1 + |x|).")
Softshrink = module_of("Softshrink", F.softshrink, "x moved towards 0 by lambd, 0 within lambd.", lambd=0.5)
Hardshrink = module_of("Hardshrink", F.hardshrink, "x where |x| > lambd, 0 elsewhere.", lambd=0.5)
Threshold = module_of(
    "Threshold", F.threshold, "x where x > threshold, value elsewhere.", threshold=REQUIRED, value=REQUIRED
)
GLU = module_of("GLU", F.glu, "The first half along dim times the sigmoid of the second.", dim=-1)
Softmax = module_of("Softmax", network.softmax, "exp(x) / sum(exp(x)) along dim.", dim=-1)
Softmin = module_of("Softmin", F.softmin, "softmax(-x) along dim.", dim=-1)
LogSoftmax = module_of("LogSoftmax", network.log_softmax, "log(softmax(x)) along dim.", dim=-1)


class PReLU(Module):
    """x where x > 0, weight * x elsewhere, with a learned weight: one, or one for each of num_parameters channels (axis 1).

    >>> import tapegrad as tg
    >>> PReLU()(tg.tensor([-2.0, 2.0])).tolist()
    [-0.5, 2.0]
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, dtype=None):
        super().__init__()
        self.weight = full((num_parameters,), float(init), dtype=dtype, requires_grad=True)

    def forward(self, x):
        """x (N, C, ...) -> the same shape."""
        return F.prelu(x, self.weight)

    def extra_repr(self):
        """How many weights."""
        return f"num_parameters={self.weight.size}"
