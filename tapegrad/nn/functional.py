"""Functions of neural networks, named and ordered as in `torch.nn.functional`. `dim` is the axis."""

from __future__ import annotations

from ..errors import ShapeError
from ..ops import network, normalization
from ..ops.activation import (
    celu,
    elu,
    gelu,
    glu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    logsigmoid,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softplus,
    softshrink,
    softsign,
    tanhshrink,
    threshold,
)
from ..ops.attention import bilinear, scaled_dot_product_attention
from ..ops.convolution import conv1d, conv2d, conv_transpose1d, conv_transpose2d
from ..ops.elementwise import tanh
from ..ops.indexing import one_hot
from ..ops.joining import pad_last_axes as pad
from ..ops.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)
from ..ops.margins import (
    cosine_embedding_loss,
    cosine_similarity,
    hinge_embedding_loss,
    margin_ranking_loss,
    multi_margin_loss,
    pairwise_distance,
    triplet_margin_loss,
)
from ..ops.network import cross_entropy, dropout, embedding, linear
from ..ops.normalization import group_norm, layer_norm, normalize, rms_norm
from ..ops.pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    avg_pool1d,
    avg_pool2d,
    max_pool1d,
    max_pool2d,
)
from ..ops.recurrent import gru, lstm, rnn
from ..tape.assign import update
from ..tape.state import no_grad
from ..tape.tensor import Tensor

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "bilinear",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "gelu",
    "glu",
    "group_norm",
    "gru",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "logsigmoid",
    "lstm",
    "margin_ranking_loss",
    "max_pool1d",
    "max_pool2d",
    "mish",
    "mse_loss",
    "multi_margin_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "pairwise_distance",
    "prelu",
    "relu",
    "relu6",
    "rms_norm",
    "rnn",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    "triplet_margin_loss",
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


def softmin(input, dim: int = -1) -> Tensor:
    """softmax(-input) along `dim`."""
    return network.softmax(-input, dim)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight=None,
    bias=None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Channels of mean 0 and variance 1 over the batch, times weight, plus bias, each (C,) (Ioffe & Szegedy 2015).

    input (N, C) or (N, C, ...). training: mean and variance are those of the batch, and the running ones, where given, move
    towards them in place by the share `momentum` (the variance with count - 1). Otherwise the running ones are used.

    >>> import tapegrad as tg
    >>> mean, var = tg.zeros(1), tg.ones(1)
    >>> batch_norm(tg.tensor([[1.0], [3.0]]), mean, var, training=True, eps=0.0).tolist()
    [[-1.0], [1.0]]
    >>> mean.tolist(), [round(v, 4) for v in var.tolist()]
    ([0.20000000298023224], [1.1])
    """
    if input.ndim < 2:
        raise ShapeError(f"batch_norm: input has shape {input.shape}, wanted (N, C) or (N, C, ...)")
    channels = input.shape[1]
    named = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, given in named.items():
        if given is not None and given.shape != (channels,):
            raise ShapeError(
                f"batch_norm: {name} has shape {given.shape}, but the input of shape {input.shape} has {channels} channels"
            )
    if not training:
        if running_mean is None or running_var is None:
            raise ShapeError("batch_norm: running_mean and running_var are needed where training is False")
        return normalization.normalize_channels(input, running_mean, running_var, weight, bias, eps)
    y, mean, var = normalization.normalize_batch(input, weight, bias, eps)
    if running_mean is not None or running_var is not None:
        with no_grad():
            for running, new in ((running_mean, mean), (running_var, var)):
                if running is not None:
                    update((running,), normalization.moving_average, (running, new, momentum))
    return y
