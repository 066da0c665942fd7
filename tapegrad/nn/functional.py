"""Functions of neural networks, named and ordered as in `torch.nn.functional`. `dim` is the axis."""

from __future__ import annotations

from ..dtypes import promote
from ..errors import ShapeError
from ..ops import movement, network, reduce
from ..ops.activation import elu, gelu, leaky_relu, relu, sigmoid, silu, softplus, softsign
from ..ops.convolution import conv1d, conv2d, conv_transpose1d, conv_transpose2d
from ..ops.elementwise import tanh, where
from ..ops.indexing import one_hot, take_along_axis
from ..ops.movement import expand_dims, squeeze
from ..ops.network import cross_entropy, dropout, embedding, linear, reduce_losses
from ..ops.pooling import avg_pool1d, avg_pool2d, max_pool1d, max_pool2d
from ..tape.apply import as_tensor
from ..tape.tensor import Tensor

__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "gelu",
    "l1_loss",
    "leaky_relu",
    "linear",
    "log_softmax",
    "max_pool1d",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "tanh",
]


def softmax(input, dim: int = -1) -> Tensor:
    """exp(input) / sum(exp(input)) along `dim`.

    >>> softmax([0.0, 0.0])
    tensor([0.5, 0.5])
    """
    return network.softmax(input, dim)


def log_softmax(input, dim: int = -1) -> Tensor:
    """log(softmax(input)) along `dim`, without overflow."""
    return network.log_softmax(input, dim)


def normalize(input, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """input divided by its norm of order p along `dim`, at least eps."""
    input = as_tensor(input, "normalize")
    return input / reduce.norm(input, dim, True, p).clip(min=eps)


def _paired(input, target, op_name: str) -> tuple[Tensor, Tensor]:
    """Two tensors of one shape: broadcasting in a loss hides mistakes."""
    input, target = as_tensor(input, op_name), as_tensor(target, op_name)
    if input.shape != target.shape:
        raise ShapeError(
            f"{op_name}: input has shape {input.shape} and target {target.shape}; they must be equal; reshape one"
        )
    meet = promote(input.dtype, target.dtype)
    return input.astype(meet), target.astype(meet)


def mse_loss(input, target, reduction: str = "mean") -> Tensor:
    """The squared difference, averaged over all elements.

    >>> mse_loss([1.0, 2.0], [1.0, 4.0])
    tensor(2.)
    """
    input, target = _paired(input, target, "mse_loss")
    return reduce_losses((input - target).square(), reduction, "mse_loss")


def l1_loss(input, target, reduction: str = "mean") -> Tensor:
    """The absolute difference, averaged over all elements."""
    input, target = _paired(input, target, "l1_loss")
    return reduce_losses(abs(input - target), reduction, "l1_loss")


def binary_cross_entropy_with_logits(input, target, reduction: str = "mean") -> Tensor:
    """-t·log σ(x) - (1 - t)·log(1 - σ(x)), computed as softplus(x) - t·x, without overflow."""
    input, target = _paired(input, target, "binary_cross_entropy_with_logits")
    return reduce_losses(softplus(input) - target * input, reduction, "binary_cross_entropy_with_logits")


def nll_loss(input, target, reduction: str = "mean", ignore_index: int = -100) -> Tensor:
    """The negative log probability of each class: input (N, C) holds log probabilities, target (N,) the classes.

    Rows whose class is ignore_index count nothing. Raises IndexOutOfRange for other classes outside 0..C-1.

    >>> nll_loss([[-0.5, -1.0], [-3.0, -2.0]], [0, 1])
    tensor(1.25)
    """
    input, target = as_tensor(input, "nll_loss"), as_tensor(target, "nll_loss")
    if input.ndim != 2 or target.shape != input.shape[:1] or target.dtype.is_float:
        raise ShapeError(
            f"nll_loss: input has shape {input.shape}, wanted (N, C), and target has shape {target.shape} and dtype "
            f"{target.dtype.name}, wanted (N,) of integers"
        )
    counts = target != ignore_index
    place = where(counts, where(target < 0, input.shape[1], target), 0)  # -1 must not count from the end
    picked = squeeze(take_along_axis(input, expand_dims(place, 1), 1), 1)
    return reduce_losses(where(counts, -picked, 0.0), reduction, "nll_loss", counts.sum().astype(input.dtype))


def pad(input, pad, mode: str = "constant", value: float = 0.0) -> Tensor:
    """input with `value` around it. pad, as in PyTorch: (before, after) of the last axis, then of the one before it, ….

    `tg.pad` takes NumPy's order.

    >>> import tapegrad as tg
    >>> pad(tg.ones((2, 3)), (1, 1)).shape, pad(tg.ones((2, 3)), (0, 0, 2, 0)).shape
    ((2, 5), (4, 3))
    """
    input = as_tensor(input, "pad")
    if mode != "constant":
        raise ShapeError(f'pad: mode is "constant", not {mode!r}')
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ShapeError(
            f"pad: pad has {len(pad)} numbers; wanted two for each axis to pad, at most {2 * input.ndim} for shape "
            f"{input.shape}"
        )
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    return movement.pad(input, [(0, 0)] * (input.ndim - len(pairs)) + pairs[::-1], value)
