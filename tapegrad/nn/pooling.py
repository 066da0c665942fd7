"""Pooling layers: maxima and means of windows, and of as many even windows as wanted. MaxPool2d and AvgPool2d are in `layers.py`."""

from __future__ import annotations

from ..ops import pooling
from .module import Module


class MaxPool1d(Module):
    """The maximum of each window of sequences (N, C, L) or (C, L).

    >>> import tapegrad as tg
    >>> MaxPool1d(2)(tg.tensor([[[1.0, 3.0, 2.0, 5.0]]])).tolist()
    [[[3.0, 5.0]]]
    """

    def __init__(self, kernel_size, stride=None, padding=0, dilation=1):
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation

    def forward(self, x):
        """Sequences -> shorter sequences."""
        return pooling.max_pool1d(x, self.kernel_size, self.stride, self.padding, self.dilation)

    def extra_repr(self):
        """The window."""
        return f"kernel_size={self.kernel_size}, stride={self.stride or self.kernel_size}, padding={self.padding}"


class AvgPool1d(Module):
    """The mean of each window of sequences (N, C, L) or (C, L); padding counts as zeros unless count_include_pad is False.

    >>> import tapegrad as tg
    >>> AvgPool1d(2)(tg.tensor([[[1.0, 3.0, 2.0, 5.0]]])).tolist()
    [[[2.0, 3.5]]]
    """

    def __init__(self, kernel_size, stride=None, padding=0, count_include_pad: bool = True):
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.count_include_pad = count_include_pad

    def forward(self, x):
        """Sequences -> shorter sequences."""
        return pooling.avg_pool1d(x, self.kernel_size, self.stride, self.padding, self.count_include_pad)

    def extra_repr(self):
        """The window."""
        return f"kernel_size={self.kernel_size}, stride={self.stride or self.kernel_size}, padding={self.padding}"


class _Adaptive(Module):
    """What the adaptive layers share."""

    op = staticmethod(pooling.adaptive_avg_pool2d)

    def __init__(self, output_size):
        super().__init__()
        self.output_size = output_size

    def forward(self, x):
        """(N, C, ...) -> (N, C, *output_size)."""
        return self.op(x, self.output_size)

    def extra_repr(self):
        """The size of the result."""
        return f"output_size={self.output_size!r}"


class AdaptiveAvgPool1d(_Adaptive):
    """The means of output_size even windows of sequences (N, C, L) or (C, L)."""

    op = staticmethod(pooling.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_Adaptive):
    """The means of output_size, a number or (rows, columns), even windows of images; None keeps an axis.

    >>> import tapegrad as tg
    >>> AdaptiveAvgPool2d(1)(tg.ones((2, 3, 5, 7))).shape
    (2, 3, 1, 1)
    """


class AdaptiveMaxPool1d(_Adaptive):
    """The maxima of output_size even windows of sequences (N, C, L) or (C, L)."""

    op = staticmethod(pooling.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_Adaptive):
    """The maxima of output_size, a number or (rows, columns), even windows of images; None keeps an axis."""

    op = staticmethod(pooling.adaptive_max_pool2d)
