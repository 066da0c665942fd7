"""Functions of neural networks, named and ordered as in `torch.nn.functional`. `dim` is the axis."""

from __future__ import annotations

from ..ops import network
from ..ops.activation import elu, gelu, leaky_relu, relu, sigmoid, silu, softplus, softsign
from ..ops.convolution import conv1d, conv2d, conv_transpose1d, conv_transpose2d
from ..ops.elementwise import tanh
from ..ops.indexing import one_hot
from ..ops.losses import binary_cross_entropy_with_logits, l1_loss, mse_loss, nll_loss
from ..ops.movement import pad_last_axes as pad
from ..ops.network import cross_entropy, dropout, embedding, linear
from ..ops.normalization import layer_norm, normalize
from ..ops.pooling import avg_pool1d, avg_pool2d, max_pool1d, max_pool2d
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
    "layer_norm",
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
