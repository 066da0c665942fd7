"""Recurrent layers: RNN, GRU and LSTM over whole sequences, stacked and in both directions, and their cells.

The recurrence itself is one op a layer and direction (`ops/recurrent.py`). Sequences of different lengths need nothing else:
what lies behind a sequence's end cannot reach what lies before it, so the layer runs over all steps, and outputs behind the
end are set to 0, gradients with them. The other direction reads each sequence from its own end.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import ShapeError
from ..ops.creation import arange
from ..ops.elementwise import where
from ..ops.indexing import take
from ..ops.joining import concatenate, stack
from ..ops.movement import expand_dims, flip, reshape, squeeze, swapaxes
from ..ops.network import dropout as drop
from ..ops.sorting import argsort
from ..tape.create import tensor, zeros
from ..tape.tensor import Tensor
from . import functional as F
from . import init
from .lazy import sized_by
from .module import Module
from .norm import whole


def _parameters(module: Module, gates: int, inputs: int, hidden: int, bias: bool, dtype, suffix: str = "") -> None:
    """Weights and biases of one layer and direction, even over ±1/√hidden as in PyTorch."""
    bound = 1.0 / math.sqrt(hidden)
    shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates * hidden, inputs), "weight_hh": (gates * hidden, hidden)}
    shapes |= {"bias_ih": (gates * hidden,), "bias_hh": (gates * hidden,)}
    for name, shape in shapes.items():
        value = None
        if bias or name.startswith("weight"):
            value = init.uniform_(zeros(shape, dtype=dtype, requires_grad=True), -bound, bound)
        module.register_parameter(name + suffix, value)


class Steps:
    """Which steps of which sequences are real, and in which order each direction takes them.

    real (T, B): the mask. Positions count through the flattened steps, t · B + b.
    """

    def __init__(self, lengths, mask, steps: int, batch: int, batch_first: bool, device: str, layer: str):
        t = expand_dims(arange(steps, device=device), 1)
        self.column, self.batch, self.steps, self.t = arange(batch, device=device), batch, steps, t
        if mask is not None:
            self.real = self._mask(mask, (batch, steps) if batch_first else (steps, batch), batch_first, device, layer)
            self.counts = self.real.astype("int64").sum(0)
            self.packed = False
        else:
            self.counts = self._lengths(lengths, steps, batch, device, layer)
            self.real = t < self.counts
            self.packed = True  # real steps come first already

    @staticmethod
    def _mask(mask, wanted: tuple[int, int], batch_first: bool, device: str, layer: str) -> Tensor:
        mask = mask if isinstance(mask, Tensor) else tensor(np.asarray(mask), device=device)
        if mask.shape != wanted or mask.dtype.name != "bool":
            raise ShapeError(
                f"{layer}: mask has shape {mask.shape} and dtype {mask.dtype.name}, wanted {wanted} of bool, True where a step "
                "is real"
            )
        return swapaxes(mask, 0, 1) if batch_first else mask

    @staticmethod
    def _lengths(lengths, steps: int, batch: int, device: str, layer: str) -> Tensor:
        if not isinstance(lengths, Tensor):
            given = np.asarray(lengths)
            if given.dtype.kind in "iu" and given.size and (given.min() < 0 or given.max() > steps):
                raise ShapeError(
                    f"{layer}: lengths from {given.min()} to {given.max()} came; the input has {steps} steps, so they are 0 to {steps}"
                )
            lengths = tensor(given, device=device)
        if lengths.shape != (batch,) or lengths.dtype.kind not in "iu":
            raise ShapeError(
                f"{layer}: lengths has shape {lengths.shape} and dtype {lengths.dtype.name}, wanted ({batch},) of integers, one "
                "for each sequence"
            )
        return lengths.astype("int64")

    def orders(self, backward: bool) -> tuple[Tensor | None, Tensor | None]:
        """(T, B) positions in the order in which the direction takes them, and the reverse of that; None: as they lie."""
        if self.packed and not backward:
            return None, None
        if self.packed:
            order = where(self.real, self.counts - 1 - self.t, self.t)
            return self._flat(order), self._flat(order)
        place = self.steps - 1 - self.t if backward else self.t
        order = argsort(where(self.real, place, self.t + self.steps), 0)
        return self._flat(order), self._flat(argsort(order, 0))

    def _flat(self, order: Tensor) -> Tensor:
        return order * self.batch + self.column

    def moved(self, x: Tensor, order: Tensor | None) -> Tensor:
        """x (T, B, F) with its steps in that order."""
        if order is None:
            return x
        return take(reshape(x, (self.steps * self.batch, x.shape[2])), order, 0)

    def last(self, states: Tensor, first: Tensor) -> Tensor:
        """(B, H): each sequence's state (T, B, H) after its last real step, or `first` where it has none."""
        some = self.counts > 0
        at = where(some, self.counts - 1, 0) * self.batch + self.column
        found = take(reshape(states, (self.steps * self.batch, states.shape[2])), at, 0)
        return where(expand_dims(some, 1), found, first)

    def only_real(self, x: Tensor) -> Tensor:
        """x (T, B, F), 0 where no step is real."""
        return where(expand_dims(self.real, 2), x, 0.0)


@sized_by("input_size", lambda layer, x: x.shape[-1])
class _Recurrent(Module):
    """What RNN, GRU and LSTM share: layers, directions, lengths, states."""

    tags = ("recurrent",)
    gates = 1
    states = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype=None,
    ):
        super().__init__()
        name = type(self).__name__
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        self.input_size, self.hidden_size, self.num_layers = (whole(v, name, k) for k, v in sizes.items())
        if not 0.0 <= dropout <= 1.0:
            raise ShapeError(f"{name}: dropout is a probability between 0 and 1, not {dropout!r}")
        self.bias, self.batch_first, self.dropout, self.bidirectional = bias, batch_first, dropout, bidirectional
        self.directions = ("", "_reverse") if bidirectional else ("",)
        for layer in range(num_layers):
            inputs = input_size if layer == 0 else hidden_size * len(self.directions)
            for way in self.directions:
                _parameters(self, self.gates, inputs, hidden_size, bias, dtype, f"_l{layer}{way}")

    def forward(self, input, hx=None, lengths=None, mask=None):
        """input (T, B, I), (B, T, I) with batch_first, or (T, I) -> outputs of all steps, and the last state of each layer.

        hx: the state to start from, 0 where it is None: (layers · directions, B, H), for an LSTM a pair of them. lengths
        (B,): how many steps of each sequence are real. mask, of the input's shape without its last axis: True where a step
        is real; the others are as if they were not there. Outputs of steps that are not real are 0.
        """
        single = input.ndim == 2
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            wanted = f"(batch, time, {self.input_size})" if self.batch_first else f"(time, batch, {self.input_size})"
            raise ShapeError(
                f"{type(self).__name__}: input has shape {input.shape}, wanted {wanted}, or (time, {self.input_size})"
            )
        x = expand_dims(input, 1) if single else swapaxes(input, 0, 1) if self.batch_first else input
        steps = self._steps(lengths, mask, x, single)
        first = self._first_states(hx, x, single)
        out, last = self._layers(x, first, steps)
        if single:
            return squeeze(out, 1), self._packed([squeeze(s, 1) for s in last])
        return (swapaxes(out, 0, 1) if self.batch_first else out), self._packed(last)

    def _steps(self, lengths, mask, x, single: bool) -> Steps | None:
        name = type(self).__name__
        if lengths is None and mask is None:
            return None
        if single or (lengths is not None and mask is not None):
            raise ShapeError(f"{name}: give lengths or mask, one of them, and with a batch of sequences")
        return Steps(lengths, mask, x.shape[0], x.shape[1], self.batch_first, x.device, name)

    def _first_states(self, hx, x, single: bool) -> tuple[Tensor, ...]:
        """The states (layers · directions, B, H) to start from."""
        count, batch, name = self.num_layers * len(self.directions), x.shape[1], type(self).__name__
        wanted = (count, self.hidden_size) if single else (count, batch, self.hidden_size)
        if hx is None:
            blank = zeros((count, batch, self.hidden_size), dtype=self.weight_hh_l0.dtype, device=x.device)
            return (blank,) * self.states
        given = (hx,) if self.states == 1 else tuple(hx) if isinstance(hx, tuple | list) else ()
        if len(given) != self.states or any(getattr(s, "shape", None) != wanted for s in given):
            came = [getattr(s, "shape", type(s).__name__) for s in given] or type(hx).__name__
            what = f"a pair (h0, c0), each of shape {wanted}" if self.states == 2 else f"a tensor of shape {wanted}"
            raise ShapeError(f"{name}: hx is {came}, wanted {what} (layers · directions, batch, hidden)")
        return tuple(expand_dims(s, 1) for s in given) if single else given

    def _layers(self, x, first, steps: Steps | None):
        """Outputs (T, B, D · H), and the last states, (layers · directions, B, H) each."""
        lasts: list[tuple[Tensor, ...]] = []
        orders = (
            [(None, None)] * 2 if steps is None else [steps.orders(way == 1) for way in range(len(self.directions))]
        )
        out = x if steps is None else steps.only_real(x)
        for layer in range(self.num_layers):
            if layer and self.dropout:
                out = drop(out, self.dropout, self.training)
            made = []
            for way, suffix in enumerate(self.directions):
                place = layer * len(self.directions) + way
                hs, last = self._direction(
                    out, [s[place] for s in first], f"_l{layer}{suffix}", way == 1, steps, orders[way]
                )
                made.append(hs)
                lasts.append(last)
            out = made[0] if len(made) == 1 else concatenate(made, 2)
        return out, [stack(part, 0) if len(part) > 1 else expand_dims(part[0], 0) for part in zip(*lasts)]

    def _direction(self, x, first, suffix: str, backward: bool, steps: Steps | None, orders):
        """One layer in one direction: outputs of all steps, last states."""
        if steps is None:
            found = self._run(flip(x, 0) if backward else x, first, suffix)
            last = tuple(states[-1] for states in found)
            return (flip(found[0], 0) if backward else found[0]), last
        order, back = orders
        found = self._run(steps.moved(x, order), first, suffix)
        last = tuple(steps.last(states, start) for states, start in zip(found, first, strict=True))
        return steps.only_real(steps.moved(found[0], back)), last

    def _run(self, x, first, suffix: str) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def _packed(self, last: list[Tensor]):
        return last[0]

    def _named(self, suffix: str) -> tuple:
        """Weights and biases of one layer and direction."""
        return tuple(getattr(self, name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))

    def extra_repr(self):
        """Sizes, and what differs from the defaults."""
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        more = [f"{n}={getattr(self, n)!r}" for n, d in defaults.items() if getattr(self, n) != d]
        return ", ".join([str(self.input_size), str(self.hidden_size), *more])


def _sum(a, b):
    return None if a is None else a + b


class RNN(_Recurrent):
    """h = tanh(weight_ih x + bias_ih + weight_hh h + bias_hh), step after step, in num_layers layers (Elman 1990).

    nonlinearity: "tanh" or "relu". dropout: between layers, in training. bidirectional: a second set of weights reads from the
    end; outputs are side by side. Parameters are named as in PyTorch: weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0,
    and weight_ih_l0_reverse for the other direction.

    >>> import tapegrad as tg
    >>> out, h = RNN(3, 5, num_layers=2)(tg.ones((7, 2, 3)))
    >>> out.shape, h.shape
    ((7, 2, 5), (2, 2, 5))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", **settings):
        if nonlinearity not in ("tanh", "relu"):
            raise ShapeError(f'RNN: nonlinearity is "tanh" or "relu", not {nonlinearity!r}')
        super().__init__(input_size, hidden_size, num_layers, **settings)
        self.nonlinearity = nonlinearity

    def _run(self, x, first, suffix):
        w_ih, w_hh, b_ih, b_hh = self._named(suffix)
        return (F.rnn(x, first[0], w_ih, w_hh, _sum(b_ih, b_hh), self.nonlinearity),)


class GRU(_Recurrent):
    """Gated recurrent units (Cho et al. 2014), in PyTorch's variant; arguments and parameter names as in RNN.

    >>> import tapegrad as tg
    >>> out, h = GRU(3, 5, batch_first=True)(tg.ones((2, 7, 3)), lengths=[7, 4])
    >>> out.shape, h.shape, out[1, 4:].abs().sum().item()
    ((2, 7, 5), (1, 2, 5), 0.0)
    """

    gates = 3

    def _run(self, x, first, suffix):
        return (F.gru(x, first[0], *self._named(suffix)),)


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997); arguments and parameter names as in RNN. The state is (h, c).

    >>> import tapegrad as tg
    >>> layer = LSTM(3, 5, bidirectional=True)
    >>> out, (h, c) = layer(tg.ones((7, 2, 3)))
    >>> out.shape, h.shape, c.shape
    ((7, 2, 10), (2, 2, 5), (2, 2, 5))
    >>> out, state = layer(tg.ones((7, 2, 3)), (h, c))  # goes on from there
    """

    gates = 4
    states = 2

    def _run(self, x, first, suffix):
        w_ih, w_hh, b_ih, b_hh = self._named(suffix)
        return F.lstm(x, *first, w_ih, w_hh, _sum(b_ih, b_hh))

    def _packed(self, last):
        return tuple(last)


@sized_by("input_size", lambda layer, x: x.shape[-1])
class _Cell(Module):
    """What the cells share: one step for a batch (B, I), or for one sample (I,)."""

    tags = ("recurrent",)
    gates = 1
    states = 1

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, dtype=None):
        super().__init__()
        name = type(self).__name__
        self.input_size = whole(input_size, name, "input_size")
        self.hidden_size = whole(hidden_size, name, "hidden_size")
        _parameters(self, self.gates, input_size, hidden_size, bias, dtype)

    def forward(self, input, hx=None):
        """input (B, I) or (I,), hx (B, H) or (H,), 0 where it is None -> the new state; an LSTM's states are pairs."""
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            raise ShapeError(
                f"{type(self).__name__}: input has shape {input.shape}, wanted (batch, {self.input_size}) or ({self.input_size},)"
            )
        single = input.ndim == 1
        x = expand_dims(input, 0) if single else input
        wanted = (*input.shape[:-1], self.hidden_size)
        if hx is None:
            first = (zeros((x.shape[0], self.hidden_size), dtype=self.weight_hh.dtype, device=x.device),) * self.states
        else:
            first = (hx,) if self.states == 1 else tuple(hx)
            if len(first) != self.states or any(s.shape != wanted for s in first):
                what = "a pair (h, c), each" if self.states == 2 else "a tensor"
                came = " and ".join(str(s.shape) for s in first)
                raise ShapeError(f"{type(self).__name__}: hx has shape {came}, wanted {what} of shape {wanted}")
            first = tuple(expand_dims(s, 0) for s in first) if single else first
        made = tuple(squeeze(s, 0) for s in self._step(expand_dims(x, 0), first))
        made = tuple(squeeze(s, 0) for s in made) if single else made
        return made[0] if self.states == 1 else made

    def _step(self, x, first) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def extra_repr(self):
        """Sizes."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias_ih is not None else ", bias=False")


class RNNCell(_Cell):
    """One step of an RNN: h = tanh(weight_ih x + bias_ih + weight_hh h + bias_hh), or max(·, 0) with nonlinearity "relu".

    >>> import tapegrad as tg
    >>> RNNCell(3, 5)(tg.ones((2, 3))).shape
    (2, 5)
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", dtype=None):
        if nonlinearity not in ("tanh", "relu"):
            raise ShapeError(f'RNNCell: nonlinearity is "tanh" or "relu", not {nonlinearity!r}')
        super().__init__(input_size, hidden_size, bias, dtype)
        self.nonlinearity = nonlinearity

    def _step(self, x, first):
        bias = _sum(self.bias_ih, self.bias_hh)
        return (F.rnn(x, first[0], self.weight_ih, self.weight_hh, bias, self.nonlinearity),)


class GRUCell(_Cell):
    """One step of a GRU.

    >>> import tapegrad as tg
    >>> GRUCell(3, 5)(tg.ones((2, 3)), tg.zeros((2, 5))).shape
    (2, 5)
    """

    gates = 3

    def _step(self, x, first):
        return (F.gru(x, first[0], self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh),)


class LSTMCell(_Cell):
    """One step of an LSTM; the state is (h, c).

    >>> import tapegrad as tg
    >>> h, c = LSTMCell(3, 5)(tg.ones(3))
    >>> h.shape, c.shape
    ((5,), (5,))
    """

    gates = 4
    states = 2

    def _step(self, x, first):
        return F.lstm(x, *first, self.weight_ih, self.weight_hh, _sum(self.bias_ih, self.bias_hh))
