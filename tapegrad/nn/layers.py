"""Layers with parameters, and layers that only change shapes."""

from __future__ import annotations

import math

from ..errors import ShapeError, TapegradError
from ..ops import convolution, network, pooling
from ..ops.movement import flatten
from ..ops.network import linear
from ..tape.create import ones, zeros
from ..tape.session.match import expected
from ..tape.tensor import Tensor
from . import init
from .functional import layer_norm
from .lazy import sized_by
from .module import Module


def _is_size(value) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool | Tensor) and value >= 1


def _sizes(layer: str, **sizes: int) -> None:
    for name, value in sizes.items():
        if not _is_size(value):
            raise ShapeError(f"{layer}: {name} is a whole number from 1, not {value!r}")


def _bias_of(weight: Tensor, count: int, wanted: bool) -> Tensor | None:
    """PyTorch's default: even over ±1/√(fan in)."""
    if not wanted:
        return None
    bias = zeros(count, dtype=weight.dtype, requires_grad=True)
    bound = 1.0 / math.sqrt(max(init.fans(weight)[0], 1))
    return init.uniform_(bias, -bound, bound)


def _weight(*shape: int, dtype=None) -> Tensor:
    return init.kaiming_uniform_(zeros(shape, dtype=dtype, requires_grad=True), a=math.sqrt(5.0))


@sized_by("in_features", lambda layer, x: x.shape[-1])
class Linear(Module):
    """y = x @ weight.T + bias. weight is (out_features, in_features); x (..., in_features).

    With in_features None the first call says how many there are.

    >>> import tapegrad as tg
    >>> Linear(3, 2)(tg.ones((5, 3))).shape
    (5, 2)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, dtype=None):
        super().__init__()
        _sizes("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = _weight(out_features, in_features, dtype=dtype)
        self.register_parameter("bias", _bias_of(self.weight, out_features, bias))

    def forward(self, x):
        """x (..., in_features) -> (..., out_features)."""
        if type(x) is Tensor:
            out = expected(linear, x, self.weight, self.bias)  # 0.15 µs in place of 0.5, where a session expects it
            if out is not None:
                return out
        return linear(x, self.weight, self.bias)

    def extra_repr(self):
        """in, out and bias."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


@sized_by("in_channels", lambda layer, x: x.shape[-layer.axes - 1])
class _Conv(Module):
    """What Conv1d and Conv2d share."""

    axes = 2
    op = staticmethod(convolution.conv2d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups: int = 1,
        bias: bool = True,
        dtype=None,
    ):
        super().__init__()
        name = type(self).__name__
        _sizes(name, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ShapeError(
                f"{name}: groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}"
            )
        kernel = tuple(kernel_size) if isinstance(kernel_size, tuple | list) else (kernel_size,) * self.axes
        if len(kernel) != self.axes or not all(map(_is_size, kernel)):
            wanted = "a whole number from 1" + (", or two of them" if self.axes == 2 else "")
            raise ShapeError(f"{name}: kernel_size is {wanted}, not {kernel_size!r}")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.weight = _weight(out_channels, in_channels // groups, *kernel, dtype=dtype)
        self.register_parameter("bias", _bias_of(self.weight, out_channels, bias))

    def forward(self, x):
        """Images or sequences -> the same with out_channels channels."""
        return self.op(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self):
        """Channels, kernel and what differs from the defaults."""
        more = [
            f"{n}={getattr(self, n)!r}"
            for n, d in (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1))
            if getattr(self, n) != d
        ]
        return ", ".join([f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}", *more])


class Conv2d(_Conv):
    """Cross-correlation of images (N, C, H, W) with out_channels filters. Arguments as in PyTorch.

    >>> import tapegrad as tg
    >>> Conv2d(3, 8, 3, padding=1)(tg.ones((2, 3, 5, 5))).shape
    (2, 8, 5, 5)
    """


class Conv1d(_Conv):
    """Cross-correlation of sequences (N, C, L) with out_channels filters."""

    axes = 1
    op = staticmethod(convolution.conv1d)


class Embedding(Module):
    """A table of num_embeddings rows, looked up by integers. weight is drawn from the normal distribution."""

    def __init__(self, num_embeddings: int, embedding_dim: int, dtype=None):
        super().__init__()
        _sizes("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = init.normal_(zeros((num_embeddings, embedding_dim), dtype=dtype, requires_grad=True))

    def forward(self, x):
        """Integers (...) -> (..., embedding_dim)."""
        return network.embedding(x, self.weight)

    def extra_repr(self):
        """Rows and columns."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


class LayerNorm(Module):
    """Rows normalised over the trailing axes `normalized_shape`, then scaled and shifted. Arguments as in PyTorch.

    weight starts at 1 and bias at 0, both of the shape normalized_shape; elementwise_affine=False has neither.

    >>> import tapegrad as tg
    >>> LayerNorm(4)(tg.ones((2, 4))).tolist()
    [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """

    def __init__(
        self, normalized_shape, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True, dtype=None
    ):
        super().__init__()
        several = isinstance(normalized_shape, tuple | list)
        shape = tuple(normalized_shape) if several else (normalized_shape,)
        if not shape or not all(map(_is_size, shape)):
            raise ShapeError(
                f"LayerNorm: normalized_shape is a whole number from 1, or some of them, not {normalized_shape!r}"
            )
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        weight = ones(shape, dtype=dtype, requires_grad=True) if elementwise_affine else None
        shift = zeros(shape, dtype=dtype, requires_grad=True) if elementwise_affine and bias else None
        self.register_parameter("weight", weight)
        self.register_parameter("bias", shift)

    def forward(self, x):
        """x (..., *normalized_shape) -> the same shape."""
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self):
        """Shape, eps, and whether there are parameters."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class _Pool(Module):
    """What MaxPool2d and AvgPool2d share."""

    op = staticmethod(pooling.max_pool2d)

    def __init__(self, kernel_size, stride=None, padding=0):
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x):
        """Images -> smaller images."""
        return self.op(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self):
        """The window."""
        return f"kernel_size={self.kernel_size}, stride={self.stride or self.kernel_size}, padding={self.padding}"


class MaxPool2d(_Pool):
    """The maximum of each window of images (N, C, H, W)."""


class AvgPool2d(_Pool):
    """The mean of each window of images (N, C, H, W)."""

    op = staticmethod(pooling.avg_pool2d)


class Dropout(Module):
    """In training, each element is 0 with probability p and divided by 1 - p otherwise; in evaluation, unchanged."""

    def __init__(self, p: float = 0.5):
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ShapeError(f"Dropout: p is a probability between 0 and 1, not {p!r}")
        self.p = p

    def forward(self, x):
        """x of any shape."""
        return network.dropout(x, self.p, self.training)

    def extra_repr(self):
        """The probability."""
        return f"p={self.p}"


class Flatten(Module):
    """Axes start_dim to end_dim joined into one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x):
        """(N, ...) -> (N, features)."""
        return flatten(x, self.start_dim, self.end_dim)


class Sequential(Module):
    """Modules one after the other; indexable. Takes modules, or one dict of named modules.

    >>> import tapegrad as tg
    >>> model = Sequential(Linear(2, 8), Linear(8, 1))
    >>> model(tg.ones((4, 2))).shape, len(model)
    ((4, 1), 2)
    """

    def __init__(self, *modules):
        super().__init__()
        named = (
            modules[0].items()
            if len(modules) == 1 and isinstance(modules[0], dict)
            else ((str(i), m) for i, m in enumerate(modules))
        )
        for name, module in named:
            self.add_module(name, module)

    def forward(self, x):
        """x through every module in turn."""
        name, module, call = None, self, Module.__call__
        try:
            for name, module in self._modules.items():  # noqa: B007  the last name is that of the one that failed
                x = module.forward(x) if type(module).__call__ is call else module(x)
        except TapegradError as error:
            if type(module).__call__ is call:
                module._locate(error)
            error.add_note(f"which is {name!r} of {type(self).__name__}")
            raise
        return x

    def made_with(self):
        """Its modules by name; of a subclass with an `__init__` of its own, the arguments of that."""
        own = type(self).__init__ is Sequential.__init__
        return ((dict(self._modules),), {}) if own else super().made_with()

    def append(self, module: Module) -> Sequential:
        """Add one at the end."""
        self.add_module(str(len(self)), module)
        return self

    def __len__(self):
        return len(self._modules)

    def __iter__(self):
        return iter(self._modules.values())

    def __getitem__(self, i):
        made = list(self._modules.values())[i]
        return Sequential(*made) if isinstance(i, slice) else made


class ModuleList(Module):
    """A list of modules whose parameters are found."""

    def __init__(self, modules=()):
        super().__init__()
        for module in modules:
            self.append(module)

    def made_with(self):
        """Its modules; of a subclass with an `__init__` of its own, the arguments of that."""
        own = type(self).__init__ is ModuleList.__init__
        return ((list(self._modules.values()),), {}) if own else super().made_with()

    def append(self, module: Module) -> ModuleList:
        """Add one at the end."""
        self.add_module(str(len(self)), module)
        return self

    def __len__(self):
        return len(self._modules)

    def __iter__(self):
        return iter(self._modules.values())

    def __getitem__(self, i):
        return list(self._modules.values())[i]
