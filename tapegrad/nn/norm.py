"""Normalising layers with parameters: over batches, groups of channels, rows. LayerNorm is in `layers.py`."""

from __future__ import annotations

from ..dtypes import int64
from ..errors import ShapeError
from ..ops.elementwise import add, reciprocal
from ..tape.assign import update
from ..tape.create import ones, zeros
from ..tape.state import no_grad
from . import functional as F
from .lazy import sized_by
from .module import Module


def whole(value, layer: str, name: str) -> int:
    """A size: a whole number from 1."""
    if not hasattr(value, "__index__") or isinstance(value, bool) or hasattr(value, "layout") or value < 1:
        raise ShapeError(f"{layer}: {name} is a whole number from 1, not {value!r}")
    return value.__index__()


class RMSNorm(Module):
    """Rows divided by their root mean square over the trailing axes `normalized_shape`, times a weight (Zhang & Sennrich 2019).

    weight starts at 1; elementwise_affine=False has none. eps None is the dtype's machine epsilon.

    >>> import tapegrad as tg
    >>> RMSNorm(2)(tg.tensor([[3.0, 3.0]])).tolist()
    [[1.0, 1.0]]
    """

    def __init__(self, normalized_shape, eps: float | None = None, elementwise_affine: bool = True, dtype=None):
        super().__init__()
        listed = normalized_shape if isinstance(normalized_shape, tuple | list) else (normalized_shape,)
        shape = tuple(whole(n, "RMSNorm", "normalized_shape") for n in listed)
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        self.register_parameter("weight", ones(shape, dtype=dtype, requires_grad=True) if elementwise_affine else None)

    def forward(self, x):
        """x (..., *normalized_shape) -> the same shape."""
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self):
        """Shape, eps, and whether there is a weight."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """Each sample's channels in num_groups groups of mean 0 and variance 1; then channels scaled and shifted (Wu & He 2018).

    weight starts at 1 and bias at 0, both (num_channels,); affine=False has neither.

    >>> import tapegrad as tg
    >>> GroupNorm(2, 4)(tg.ones((1, 4, 3))).shape
    (1, 4, 3)
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, dtype=None):
        super().__init__()
        self.num_groups = whole(num_groups, "GroupNorm", "num_groups")
        self.num_channels = whole(num_channels, "GroupNorm", "num_channels")
        if num_channels % num_groups:
            raise ShapeError(f"GroupNorm: num_groups={num_groups} must divide num_channels={num_channels}")
        self.eps, self.affine = eps, affine
        self.register_parameter("weight", ones(num_channels, dtype=dtype, requires_grad=True) if affine else None)
        self.register_parameter("bias", zeros(num_channels, dtype=dtype, requires_grad=True) if affine else None)

    def forward(self, x):
        """x (N, num_channels, ...) -> the same shape."""
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self):
        """Groups, channels and eps."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


@sized_by("num_features", lambda layer, x: x.shape[1])
class _BatchNorm(Module):
    """What BatchNorm1d and BatchNorm2d share."""

    axes: tuple[int, ...] = ()
    wanted = ""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype=None,
    ):
        super().__init__()
        self.num_features = n = whole(num_features, type(self).__name__, "num_features")
        self.eps, self.momentum, self.affine, self.track_running_stats = eps, momentum, affine, track_running_stats
        self.register_parameter("weight", ones(n, dtype=dtype, requires_grad=True) if affine else None)
        self.register_parameter("bias", zeros(n, dtype=dtype, requires_grad=True) if affine else None)
        self.register_buffer("running_mean", zeros(n, dtype=dtype) if track_running_stats else None)
        self.register_buffer("running_var", ones(n, dtype=dtype) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", zeros((), dtype=int64) if track_running_stats else None)

    def forward(self, x):
        """x (N, num_features, ...) -> the same shape."""
        if x.ndim not in self.axes or x.shape[1] != self.num_features:
            raise ShapeError(
                f"{type(self).__name__}: input has shape {x.shape}, wanted {self.wanted} with C = {self.num_features}"
            )
        mean, var, count = self.running_mean, self.running_var, self.num_batches_tracked
        if not self.training:
            return F.batch_norm(x, mean, var, self.weight, self.bias, mean is None, 0.0, self.eps)
        share = self.momentum
        if count is not None:
            with no_grad():
                update((count,), add, (count, 1))
                if share is None:  # so that all batches count alike
                    share = reciprocal(count.astype(mean.dtype))
        return F.batch_norm(x, mean, var, self.weight, self.bias, True, 0.0 if share is None else share, self.eps)

    def extra_repr(self):
        """Channels and settings."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """Channels of mean 0 and variance 1 over the batch, scaled and shifted, of (N, C) or (N, C, L) (Ioffe & Szegedy 2015).

    In training mean and variance are those of the batch, and the buffers running_mean and running_var move towards them by the
    share `momentum` (None: they are the mean over all batches). In evaluation the buffers are used;
    track_running_stats=False has none and always takes the batch's.

    >>> import tapegrad as tg
    >>> layer = BatchNorm1d(3)
    >>> layer(tg.normal(size=(8, 3))).shape, layer.num_batches_tracked.item()
    ((8, 3), 1)
    """

    axes = (2, 3)
    wanted = "(N, C) or (N, C, L)"


class BatchNorm2d(_BatchNorm):
    """BatchNorm1d for images (N, C, H, W).

    >>> import tapegrad as tg
    >>> BatchNorm2d(3)(tg.normal(size=(2, 3, 4, 4))).shape
    (2, 3, 4, 4)
    """

    axes = (4,)
    wanted = "(N, C, H, W)"
