"""Containers and small modules: ModuleDict, Lambda, Identity, Unflatten. Sequential and ModuleList are in `layers.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from ..errors import ShapeError, TapeError
from ..ops.axes import one_axis
from ..ops.movement import reshape
from .module import Module


class ModuleDict(Module):
    """Modules by name, whose parameters are found. Reads and changes like a dict.

    >>> heads = ModuleDict({"a": Identity(), "b": Identity()})
    >>> list(heads), "b" in heads, len(heads)
    (['a', 'b'], True, 2)
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()):
        super().__init__()
        self.update(modules)

    def made_with(self):
        """Its modules by name; of a subclass with an `__init__` of its own, the arguments of that."""
        own = type(self).__init__ is ModuleDict.__init__
        return ((dict(self._modules),), {}) if own else super().made_with()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace modules."""
        for name, module in modules.items() if isinstance(modules, Mapping) else modules:
            self[name] = module

    def __getitem__(self, name: str) -> Module:
        if name not in self._modules:
            raise KeyError(f"ModuleDict has no module {name!r}; it has {', '.join(self._modules) or 'none'}")
        return self._modules[name]

    def __setitem__(self, name: str, module: Module) -> None:
        self.add_module(name, module)

    def __delitem__(self, name: str) -> None:
        self[name]
        delattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self):
        return iter(self._modules)

    def keys(self):
        """The names."""
        return self._modules.keys()

    def values(self):
        """The modules."""
        return self._modules.values()

    def items(self):
        """Names and modules."""
        return self._modules.items()


class Lambda(Module):
    """A function as a module, to stand in a Sequential. What it uses of other modules' parameters is not found through it.

    >>> import tapegrad as tg
    >>> Lambda(lambda x: x * 2)(tg.ones(2)).tolist()
    [2.0, 2.0]
    """

    def __init__(self, function: Callable):
        super().__init__()
        if not callable(function):
            raise TapeError(f"Lambda: wanted a function, got {function!r}")
        self.function = function

    def forward(self, *args, **kwargs):
        """function(*args, **kwargs)."""
        return self.function(*args, **kwargs)

    def extra_repr(self):
        """The function's name."""
        return getattr(self.function, "__name__", repr(self.function))


class Identity(Module):
    """Its input. Arguments are taken and ignored, so that it can stand in for any layer.

    >>> import tapegrad as tg
    >>> Identity(54, unused=True)(tg.ones(1)).tolist()
    [1.0]
    """

    def __init__(self, *_, **__):
        super().__init__()

    def forward(self, x):
        """x -> x."""
        return x


class Unflatten(Module):
    """Axis `dim` as several axes: the reverse of Flatten. One size may be -1.

    >>> import tapegrad as tg
    >>> Unflatten(1, (2, -1))(tg.ones((3, 8))).shape
    (3, 2, 4)
    """

    def __init__(self, dim: int, unflattened_size):
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, x):
        """(..., n, ...) -> (..., *unflattened_size, ...)."""
        axis = one_axis(self.dim, x.ndim, "Unflatten")
        sizes, n = self.unflattened_size, x.shape[axis]
        known = math.prod(s for s in sizes if s != -1)
        if sizes.count(-1) > 1 or (n != known if -1 not in sizes else not known or n % known):
            raise ShapeError(f"Unflatten: axis {axis} of shape {x.shape} has {n} elements, which do not become {sizes}")
        return reshape(x, (*x.shape[:axis], *(n // known if s == -1 else s for s in sizes), *x.shape[axis + 1 :]))

    def extra_repr(self):
        """The axis and its sizes."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
