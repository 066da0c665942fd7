"""Gradients and parameters of a whole model: clipping, vectors, freezing. Named as in `torch.nn.utils`."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..errors import ShapeError, TrainingError
from ..ops.elementwise import clip, multiply, sqrt
from ..ops.joining import concatenate, stack
from ..ops.movement import reshape
from ..ops.reduce import max_, norm
from ..ops.reduce import sum_ as sum_over
from ..paths import find
from ..tape.assign import update
from ..tape.state import no_grad
from ..tape.tensor import Tensor
from .module import Module
from .tags import tags_of


def _gradients(parameters) -> list[Tensor]:
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p.grad for p in listed if p.grad is not None]


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale all gradients in place by one factor, so that their norm, as one vector, is at most max_norm (Pascanu et al. 2013).

    Returns the norm before. norm_type: its order, `math.inf` for the largest element. error_if_nonfinite: raise TrainingError
    where the norm is nan or infinite; that reads it, which a session has to wait for. In a session nothing else does.

    >>> import tapegrad as tg
    >>> p = tg.tensor([0.0, 0.0], requires_grad=True)
    >>> (p * tg.tensor([3.0, 4.0])).sum().backward()
    >>> clip_grad_norm_([p], 1.0).item(), [round(g, 3) for g in p.grad.tolist()]
    (5.0, [0.6, 0.8])
    """
    if not max_norm >= 0:
        raise ShapeError(f"clip_grad_norm_: max_norm is {max_norm!r}; it must not be below 0")
    grads = _gradients(parameters)
    with no_grad():
        if not grads:
            from ..tape.create import zeros

            return zeros(())
        if norm_type == 2:
            parts = [sum_over(g * g) for g in grads]
            total = sqrt(sum_over(stack(parts, 0)))
        else:
            lengths = stack([norm(g, None, False, norm_type) for g in grads], 0)
            total = max_(lengths) if norm_type == math.inf else norm(lengths, None, False, norm_type)
        if error_if_nonfinite and not math.isfinite(total.item()):
            raise TrainingError(
                f"clip_grad_norm_: the norm of the gradients is {total.item()}, so there is no factor to scale them by; look for "
                "the first nan with tg.detect_anomaly()"
            )
        factor = clip(max_norm / (total + 1e-6), max=1.0)
        for g in grads:
            update((g,), multiply, (g, factor))
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit each element of the gradients to [-clip_value, clip_value], in place.

    >>> import tapegrad as tg
    >>> p = tg.tensor([0.0, 0.0], requires_grad=True)
    >>> (p * tg.tensor([3.0, -0.5])).sum().backward()
    >>> clip_grad_value_(p, 1.0)
    >>> p.grad.tolist()
    [1.0, -0.5]
    """
    if not clip_value >= 0:
        raise ShapeError(f"clip_grad_value_: clip_value is {clip_value!r}; it must not be below 0")
    with no_grad():
        for g in _gradients(parameters):
            g.copy_(clip(g, -clip_value, clip_value))


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters one after the other in one vector. Gradients flow through it.

    >>> import tapegrad as tg
    >>> parameters_to_vector([tg.ones((2, 2)), tg.zeros(1)]).tolist()
    [1.0, 1.0, 1.0, 1.0, 0.0]
    """
    listed = list(parameters)
    if not listed:
        raise ShapeError("parameters_to_vector: there are no parameters")
    return concatenate([reshape(p, (p.size,)) for p in listed], 0)


def vector_to_parameters(vector: Tensor, parameters: Iterable[Tensor]) -> None:
    """Write the parts of a vector into the parameters, in place: the reverse of parameters_to_vector.

    >>> import tapegrad as tg
    >>> w = tg.zeros((2, 2))
    >>> vector_to_parameters(tg.arange(4.0), [w])
    >>> w.tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """
    listed = list(parameters)
    count = sum(p.size for p in listed)
    if vector.shape != (count,):
        raise ShapeError(
            f"vector_to_parameters: the vector has shape {vector.shape}, and the parameters have {count} elements"
        )
    place = 0
    with no_grad():
        for p in listed:
            p.copy_(reshape(vector[place : place + p.size], p.shape))
            place += p.size


def _switch(model: Module, patterns: tuple[str, ...], on: bool) -> list[str]:
    named = dict(model.named_parameters())
    chosen: dict[str, Tensor] = {}
    for pattern in patterns or ("**",):
        chosen.update(find(pattern, named, tags_of(model)))
    for p in chosen.values():
        p.requires_grad = on
    return [name for name in named if name in chosen]


def freeze(model: Module, *patterns: str) -> list[str]:
    """Stop the parameters whose paths the patterns name from learning, all without a pattern; returns their names.

    Patterns are those of `tapegrad.paths`; PathError where one names nothing. They stay parameters: saved, moved, shown.

    >>> from tapegrad import nn
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    >>> freeze(model, "0.*"), [p.requires_grad for p in model.parameters()]
    (['0.weight', '0.bias'], [False, False, True, True])
    >>> unfreeze(model, "0.bias")
    ['0.bias']
    """
    return _switch(model, patterns, False)


def unfreeze(model: Module, *patterns: str) -> list[str]:
    """The reverse of `freeze`."""
    return _switch(model, patterns, True)
