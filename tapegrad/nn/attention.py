"""Attention with learned projections, and the encoder layer of a transformer (Vaswani et al. 2017)."""

from __future__ import annotations

import copy
from collections.abc import Callable

from ..errors import ShapeError
from ..ops.attention import attend
from ..ops.movement import expand_dims, permute, reshape, squeeze, swapaxes
from ..tape.create import zeros
from ..tape.tensor import Tensor
from . import functional as F
from . import init
from .layers import Dropout, LayerNorm, Linear, ModuleList
from .module import Module
from .norm import whole


class MultiheadAttention(Module):
    """num_heads attentions side by side, each over embed_dim / num_heads features. Arguments and names as in PyTorch.

    kdim, vdim: features of keys and values, embed_dim where they are None. dropout: of the attention weights, in training.
    batch_first: inputs are (N, L, E), otherwise (L, N, E).

    >>> import tapegrad as tg
    >>> layer = MultiheadAttention(8, 2, batch_first=True)
    >>> x = tg.normal(size=(3, 5, 8))
    >>> out, weights = layer(x, x, x)
    >>> out.shape, weights.shape
    ((3, 5, 8), (3, 5, 5))
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        dtype=None,
    ):
        super().__init__()
        self.embed_dim = whole(embed_dim, "MultiheadAttention", "embed_dim")
        self.num_heads = whole(num_heads, "MultiheadAttention", "num_heads")
        if embed_dim % num_heads:
            raise ShapeError(f"MultiheadAttention: num_heads={num_heads} must divide embed_dim={embed_dim}")
        if not 0.0 <= dropout <= 1.0:
            raise ShapeError(f"MultiheadAttention: dropout is a probability between 0 and 1, not {dropout!r}")
        self.kdim = embed_dim if kdim is None else whole(kdim, "MultiheadAttention", "kdim")
        self.vdim = embed_dim if vdim is None else whole(vdim, "MultiheadAttention", "vdim")
        self.dropout, self.batch_first = dropout, batch_first
        shapes = {"in_proj_weight": (3 * embed_dim, embed_dim)}
        if (self.kdim, self.vdim) != (embed_dim, embed_dim):
            widths = {"q": embed_dim, "k": self.kdim, "v": self.vdim}
            shapes = {f"{name}_proj_weight": (embed_dim, width) for name, width in widths.items()}
        for name, shape in shapes.items():
            self.register_parameter(name, init.xavier_uniform_(zeros(shape, dtype=dtype, requires_grad=True)))
        start = zeros(3 * embed_dim, dtype=dtype, requires_grad=True) if bias else None
        self.register_parameter("in_proj_bias", start)
        self.out_proj = Linear(embed_dim, embed_dim, bias, dtype=dtype)
        if bias:
            init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query,
        key,
        value,
        key_padding_mask=None,
        need_weights: bool = True,
        attn_mask=None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ):
        """query (L, N, E), key (S, N, kdim), value (S, N, vdim) -> (L, N, E) and the weights (N, L, S), None if not needed.

        Without a batch (L, E), (S, kdim), (S, vdim). Masks are as in PyTorch: booleans are True where attention is NOT
        allowed, floats are added to the scores. key_padding_mask (N, S); attn_mask (L, S) or (N · heads, L, S).
        is_causal: each query sees the keys up to its own place; no mask is needed for that. average_attn_weights=False
        gives the weights of each head, (N, heads, L, S). A query that may see nothing gets zeros.
        """
        single = query.ndim == 2
        same = query is key and key is value
        query, key, value = self._batches(query, key, value, single)
        n, length, source, heads = query.shape[0], query.shape[1], key.shape[1], self.num_heads
        q, k, v = self._projected(query, key, value, same)
        allowed, added = self._masks(key_padding_mask, attn_mask, single, (n, heads, length, source))
        rate = self.dropout if self.training else 0.0
        out, weights = attend(q, k, v, allowed, added, rate, is_causal)
        out = self.out_proj(reshape(swapaxes(out, 1, 2), (n, length, self.embed_dim)))
        weights = (weights.mean(1) if average_attn_weights else weights) if need_weights else None
        if single:
            return squeeze(out, 0), None if weights is None else squeeze(weights, 0)
        return (out if self.batch_first else swapaxes(out, 0, 1)), weights

    def _batches(self, query, key, value, single: bool):
        """Inputs as (N, L, E), checked."""
        widths = (self.embed_dim, self.kdim, self.vdim)
        named = {"query": query, "key": key, "value": value}
        for (name, x), width in zip(named.items(), widths, strict=True):
            if x.ndim != (2 if single else 3) or x.shape[-1] != width:
                wanted = "(L, E)" if single else "(N, L, E)" if self.batch_first else "(L, N, E)"
                raise ShapeError(
                    f"MultiheadAttention: {name} has shape {x.shape}, wanted {wanted} with E = {width}, as query has {query.ndim} axes"
                )
        query, key, value = (
            expand_dims(x, 0) if single else x if self.batch_first else swapaxes(x, 0, 1) for x in (query, key, value)
        )
        if not query.shape[0] == key.shape[0] == value.shape[0] or key.shape[1] != value.shape[1]:
            raise ShapeError(
                f"MultiheadAttention: query, key and value have batches of {query.shape[0]}, {key.shape[0]} and {value.shape[0]}, "
                f"and there are {key.shape[1]} keys for {value.shape[1]} values; batches, and keys and values, must be equal"
            )
        return query, key, value

    def _projected(self, query, key, value, same: bool):
        """Queries, keys and values of each head: (N, heads, L, E / heads)."""
        size, heads = self.embed_dim // self.num_heads, self.num_heads
        bias = self.in_proj_bias
        if same and "in_proj_weight" in self._parameters:
            n, length = query.shape[:2]
            rows = reshape(F.linear(query, self.in_proj_weight, bias), (n, length, 3, heads, size))
            parts = permute(rows, (2, 0, 3, 1, 4))
            return parts[0], parts[1], parts[2]
        e = self.embed_dim
        made = []
        for i, (name, x) in enumerate((("q", query), ("k", key), ("v", value))):
            if "in_proj_weight" in self._parameters:
                weight = self.in_proj_weight[i * e : (i + 1) * e]
            else:
                weight = getattr(self, f"{name}_proj_weight")
            rows = F.linear(x, weight, None if bias is None else bias[i * e : (i + 1) * e])
            made.append(swapaxes(reshape(rows, (*x.shape[:2], heads, size)), 1, 2))
        return tuple(made)

    def _masks(self, padding, attn, single: bool, shape: tuple[int, int, int, int]):
        """One mask of booleans, True where attention is allowed, and one of floats to add; None where there is none."""
        n, heads, length, source = shape
        allowed, added = None, None
        if padding is not None:
            wanted = (source,) if single else (n, source)
            if padding.shape != wanted:
                raise ShapeError(f"MultiheadAttention: key_padding_mask has shape {padding.shape}, wanted {wanted}")
            mask = reshape(padding, (n, 1, 1, source))
            allowed, added = (~mask, None) if mask.dtype.name == "bool" else (None, mask)
        if attn is not None:
            if attn.shape not in ((length, source), (n * heads, length, source)):
                raise ShapeError(
                    f"MultiheadAttention: attn_mask has shape {attn.shape}, wanted {(length, source)} or {(n * heads, length, source)}"
                )
            mask = attn if attn.ndim == 2 else reshape(attn, shape)
            if mask.dtype.name == "bool":
                allowed = ~mask if allowed is None else allowed & ~mask
            else:
                added = mask if added is None else added + mask
        return allowed, added

    def extra_repr(self):
        """Sizes."""
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, dropout={self.dropout}, batch_first={self.batch_first}"


def causal_mask(length: int, device: str = "cpu") -> Tensor:
    """(length, length) of booleans, True above the diagonal: what a query must not see, as MultiheadAttention takes it.

    >>> causal_mask(2).tolist()
    [[False, True], [False, False]]
    """
    from ..ops.creation import arange

    places = arange(length, device=device)
    return expand_dims(places, 1) < places


class TransformerEncoderLayer(Module):
    """Self-attention, then two linear layers, each added to its input and normalised (Vaswani et al. 2017). As in PyTorch.

    norm_first: normalise before each part instead of behind the sum. activation: "relu", "gelu" or a function.

    >>> import tapegrad as tg
    >>> layer = TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    >>> layer(tg.normal(size=(3, 5, 8))).shape
    (3, 5, 8)
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        dtype=None,
    ):
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, dtype=dtype)
        self.linear1 = Linear(d_model, dim_feedforward, bias, dtype=dtype)
        self.linear2 = Linear(dim_feedforward, d_model, bias, dtype=dtype)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.dropout, self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout), Dropout(dropout)
        if not callable(activation) and activation not in ("relu", "gelu"):
            raise ShapeError(f'TransformerEncoderLayer: activation is "relu", "gelu" or a function, not {activation!r}')
        self.activation = activation if callable(activation) else getattr(F, activation)
        self.norm_first = norm_first

    def forward(self, src, src_mask=None, src_key_padding_mask=None, is_causal: bool = False):
        """src (L, N, d_model), or (N, L, d_model) with batch_first -> the same shape. Masks as in MultiheadAttention."""
        masks = (src_mask, src_key_padding_mask, is_causal)
        if self.norm_first:
            x = src + self._attended(self.norm1(src), *masks)
            return x + self._fed(self.norm2(x))
        x = self.norm1(src + self._attended(src, *masks))
        return self.norm2(x + self._fed(x))

    def _attended(self, x, mask, padding, is_causal: bool):
        out, _ = self.self_attn(x, x, x, padding, need_weights=False, attn_mask=mask, is_causal=is_causal)
        return self.dropout1(out)

    def _fed(self, x):
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))


class TransformerEncoder(Module):
    """num_layers copies of an encoder layer, one after the other, each with its own parameters, which start out equal.

    >>> import tapegrad as tg
    >>> encoder = TransformerEncoder(TransformerEncoderLayer(8, 2, 16), 3)
    >>> encoder(tg.normal(size=(5, 3, 8)), is_causal=True).shape, len(encoder.layers)
    ((5, 3, 8), 3)
    """

    def __init__(self, encoder_layer: Module, num_layers: int, norm: Module | None = None):
        super().__init__()
        whole(num_layers, "TransformerEncoder", "num_layers")
        self.layers = ModuleList([copy.deepcopy(encoder_layer) for _ in range(num_layers)])
        self.norm = norm

    def forward(self, src, mask=None, src_key_padding_mask=None, is_causal: bool = False):
        """As TransformerEncoderLayer's."""
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, is_causal)
        return src if self.norm is None else self.norm(src)
