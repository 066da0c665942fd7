"""Parameter groups by pattern."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..paths import resolve
from ..tape.tensor import Tensor


def groups(model: Any, settings: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What an optimizer takes: one group for each pattern, of the parameters for which it is the most specific one, and one of
    the rest.

    model: a Module, or a dict of tensors by path. settings: pattern -> settings; see `tapegrad.paths`. PathError where a
    pattern names nothing.

    >>> from tapegrad import nn, optim
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    >>> made = groups(model, {"*.bias": dict(weight_decay=0.0), "1.*": dict(lr=0.01)})
    >>> [len(group["params"]) for group in made]
    [1, 1, 2]
    >>> optimizer = optim.AdamW(made, lr=0.1)
    """
    named: dict[str, Tensor] = dict(model) if isinstance(model, Mapping) else dict(model.named_parameters())
    chosen = resolve({pattern: pattern for pattern in settings}, named)
    found = [
        {"params": [p for path, p in named.items() if chosen.get(path) == pattern], **own}
        for pattern, own in settings.items()
    ]
    rest = [p for path, p in named.items() if path not in chosen]
    return [group for group in ([{"params": rest}] if rest else []) + found if group["params"]]
