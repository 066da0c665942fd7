"""Tags: words that a module's class goes by in patterns, as in `*<recurrent>.weight_hh*`. See `tapegrad.paths`."""

from __future__ import annotations

from collections.abc import Callable

from .module import Module


def tags_of(model: Module) -> Callable[[str], frozenset[str]]:
    """A function from paths to the tags of the modules there; no tags where there is no module.

    A class declares its own as `tags = ("recurrent",)`; its parents' count too, and so does its name in lower case.

    >>> from tapegrad import nn
    >>> tags = tags_of(nn.Sequential(nn.Linear(2, 2), nn.GRU(2, 2)))
    >>> sorted(tags("1")), sorted(tags("0")), sorted(tags("1.weight_hh_l0"))
    (['gru', 'recurrent'], ['linear'], [])
    """
    modules = dict(model.named_modules())

    def tags(path: str) -> frozenset[str]:
        module = modules.get(path)
        if module is None:
            return frozenset()
        found = {type(module).__name__.lower()}
        for cls in type(module).__mro__:
            found.update(vars(cls).get("tags", ()))
        return frozenset(found)

    return tags
