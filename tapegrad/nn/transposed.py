"""Transposed convolutions, and Bilinear: layers with weights of three axes and more that `layers.py` does not have."""

from __future__ import annotations

import math

from ..errors import ShapeError
from ..ops import convolution
from ..tape.create import zeros
from ..tape.tensor import Tensor
from . import functional as F
from . import init
from .lazy import sized_by
from .module import Module
from .norm import whole


def _start(shape: tuple[int, ...], bound: float, dtype) -> Tensor:
    return init.uniform_(zeros(shape, dtype=dtype, requires_grad=True), -bound, bound)


class Bilinear(Module):
    """y[o] = x1 · weight[o] · x2 + bias[o]. weight (out_features, in1_features, in2_features), bias (out_features,).

    Both start even over ±1/√in1_features, as in PyTorch.

    >>> import tapegrad as tg
    >>> Bilinear(3, 4, 5)(tg.ones((2, 3)), tg.ones((2, 4))).shape
    (2, 5)
    """

    def __init__(self, in1_features: int, in2_features: int, out_features: int, bias: bool = True, dtype=None):
        super().__init__()
        self.in1_features = whole(in1_features, "Bilinear", "in1_features")
        self.in2_features = whole(in2_features, "Bilinear", "in2_features")
        self.out_features = whole(out_features, "Bilinear", "out_features")
        bound = 1.0 / math.sqrt(in1_features)
        self.weight = _start((out_features, in1_features, in2_features), bound, dtype)
        self.register_parameter("bias", _start((out_features,), bound, dtype) if bias else None)

    def forward(self, x1, x2):
        """x1 (..., in1_features), x2 (..., in2_features) -> (..., out_features)."""
        return F.bilinear(x1, x2, self.weight, self.bias)

    def extra_repr(self):
        """Sizes and bias."""
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


@sized_by("in_channels", lambda layer, x: x.shape[-layer.axes - 1])
class _ConvTranspose(Module):
    """What ConvTranspose1d and ConvTranspose2d share."""

    axes = 2
    op = staticmethod(convolution.conv_transpose2d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size,
        stride=1,
        padding=0,
        output_padding=0,
        groups: int = 1,
        bias: bool = True,
        dilation=1,
        dtype=None,
    ):
        super().__init__()
        name = type(self).__name__
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "groups": groups}
        self.in_channels, self.out_channels, self.groups = (whole(v, name, k) for k, v in sizes.items())
        if in_channels % groups or out_channels % groups:
            raise ShapeError(
                f"{name}: groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}"
            )
        kernel = tuple(kernel_size) if isinstance(kernel_size, tuple | list) else (kernel_size,) * self.axes
        if len(kernel) != self.axes:
            raise ShapeError(
                f"{name}: kernel_size is a whole number from 1, or {self.axes} of them, not {kernel_size!r}"
            )
        self.kernel_size = tuple(whole(k, name, "kernel_size") for k in kernel)
        self.stride, self.padding, self.output_padding, self.dilation = stride, padding, output_padding, dilation
        shape = (in_channels, out_channels // groups, *self.kernel_size)
        bound = 1.0 / math.sqrt(math.prod(shape[1:]))  # PyTorch's: fan in counts the filters' second axis here too
        self.weight = _start(shape, bound, dtype)
        self.register_parameter("bias", _start((out_channels,), bound, dtype) if bias else None)

    def forward(self, x):
        """(N, in_channels, ...) -> (N, out_channels, ...), about `stride` times as long."""
        how = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        return self.op(x, self.weight, self.bias, *how)

    def extra_repr(self):
        """Channels, kernel and what differs from the defaults."""
        defaults = {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}
        more = [f"{n}={getattr(self, n)!r}" for n, d in defaults.items() if getattr(self, n) != d]
        return ", ".join([f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}", *more])


class ConvTranspose2d(_ConvTranspose):
    """The transpose of Conv2d: upsamples images by `stride`. weight (in_channels, out_channels / groups, KH, KW).

    >>> import tapegrad as tg
    >>> ConvTranspose2d(3, 8, 4, stride=2, padding=1)(tg.ones((2, 3, 5, 5))).shape
    (2, 8, 10, 10)
    """


class ConvTranspose1d(_ConvTranspose):
    """The transpose of Conv1d: upsamples sequences (N, C, L) by `stride`.

    >>> import tapegrad as tg
    >>> ConvTranspose1d(3, 8, 4, stride=2, padding=1)(tg.ones((2, 3, 5))).shape
    (2, 8, 10)
    """

    axes = 1
    op = staticmethod(convolution.conv_transpose1d)
