"""Module: a function with parameters, made of smaller ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import CheckpointError, TapeError, TapegradError
from ..layouts import is_device
from ..tape.assign import replace
from ..tape.create import tensor
from ..tape.reverse import drop_gradients
from ..tape.state import no_grad
from ..tape.tensor import Leaf, Tensor


def Parameter(data, requires_grad: bool = True) -> Tensor:
    """A leaf tensor with a copy of `data` that requires a gradient: a Module that holds it as an attribute owns it.

    >>> Parameter([1.0, 2.0])
    tensor([1., 2.], requires_grad=True)
    """
    return tensor(data, requires_grad=requires_grad)


MISSING: Any = type("Missing", (), {"__repr__": lambda self: "..."})()  # no first argument


class Unmatched(NamedTuple):
    """The names that `load_state_dict` did not find on both sides."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Unset:
    """An attribute that `Module.__init__` sets, where it was not called."""

    def __new__(cls) -> Any:
        return super().__new__(cls)

    def __get__(self, module, owner):
        if module is None:
            return self
        raise TapeError(f"{owner.__name__}: call super().__init__() at the start of __init__")


class Module:
    """The parent of everything with parameters. Give it a `forward`.

    Attributes are found by name: a leaf tensor with requires_grad=True is a parameter, a module a child.
    `register_buffer` adds tensors that are saved but not trained.

    >>> import tapegrad as tg
    >>> class Line(Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.slope = Parameter(2.0)
    ...     def forward(self, x):
    ...         return self.slope * x
    >>> Line()(tg.tensor(3.0)).item()
    6.0
    >>> [name for name, p in Line().named_parameters()]
    ['slope']
    """

    # What a module owns stands in one of three rooms, in the order in which it came, and, so that reading it costs no more
    # than any attribute, in the module's __dict__ too: `_keep` and `_drop` write both. For the same reason there is no
    # __getattr__: with one, Python looks up every attribute and method at length.
    _parameters: dict[str, Tensor | None] = Unset()
    _buffers: dict[str, Tensor | None] = Unset()
    _modules: dict[str, Any] = Unset()
    _transient: set[str]  # names of buffers that state_dict leaves out
    training: bool = Unset()
    tags: tuple[str, ...] = ()  # what patterns of paths may ask for, as in "*<recurrent>.weight"

    def __new__(cls, *args, **kwargs):
        made = super().__new__(cls)
        made.__dict__["_made_with"] = args, kwargs  # by which it can be described, and built again, without pickle
        return made

    def __init__(self) -> None:
        own = self.__dict__
        for room in ("_parameters", "_buffers", "_modules"):
            for name in own.get(room, ()):
                own.pop(name, None)  # a second call starts anew
            own[room] = {}
        own.update(_transient=set(), training=True)

    def made_with(self) -> tuple[tuple, dict[str, Any]]:
        """Arguments that make a module with the same parts: those of its making, or, of a container, what it holds now."""
        return self.__dict__["_made_with"]

    # attributes

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if "_modules" not in own:
            raise TapeError(f"{type(self).__name__}: call super().__init__() before setting {name!r}")
        parameters, buffers, modules = own["_parameters"], own["_buffers"], own["_modules"]
        room: dict | None = None
        if isinstance(value, Tensor):
            leaf = type(value.node) is Leaf
            if not leaf and parameters.get(name) is not None:
                raise TapeError(
                    f"{type(self).__name__}.{name} is a parameter and would be lost: the new value is no leaf that "
                    f"requires a gradient. Assign nn.Parameter(value), or write {name}.copy_(value) inside tg.no_grad()."
                )
            room = buffers if name in buffers else parameters if leaf else None
        elif isinstance(value, Module):
            room = modules
        elif value is None:
            room = next((r for r in (parameters, buffers, modules) if name in r), None)
        for other in (parameters, buffers, modules):
            if name in other and other is not room:
                self._drop(name, other)
        if room is None:
            object.__setattr__(self, name, value)
        else:
            self._keep(name, value, room)

    def _keep(self, name: str, value: Any, room: dict) -> None:
        """Put something that the module owns into its room. Methods of every module are not hidden by it."""
        room[name] = value
        if not hasattr(Module, name):
            self.__dict__[name] = value

    def _drop(self, name: str, room: dict) -> None:
        """The reverse of `_keep`."""
        del room[name]
        self.__dict__.pop(name, None)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __delattr__(self, name: str) -> None:
        for room in (self._parameters, self._buffers, self._modules):
            if name in room:
                self._drop(name, room)
                return
        object.__delattr__(self, name)

    def __dir__(self):
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    def __copy__(self):
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        for room in ("_parameters", "_buffers", "_transient", "_modules"):
            made.__dict__[room] = self.__dict__[room].copy()  # a name set on one is not set on the other
        return made

    def register_parameter(self, name: str, value: Tensor | None) -> None:
        """Add a parameter under a name; None reserves the name."""
        self._check_name(name, self._parameters, "register_parameter")
        if value is not None and not (isinstance(value, Tensor) and type(value.node) is Leaf):
            raise TapeError(
                f"register_parameter: {name!r} is no leaf tensor that requires a gradient; make it with nn.Parameter"
            )
        self._keep(name, value, self._parameters)

    def register_buffer(self, name: str, value: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that belongs to the module but is not trained. state_dict has it where it is persistent."""
        self._check_name(name, self._buffers, "register_buffer")
        if value is not None and not isinstance(value, Tensor):
            raise TapeError(f"register_buffer: {name!r} is a {type(value).__name__}, wanted a tensor or None")
        self._keep(name, value, self._buffers)
        (self._transient.discard if persistent else self._transient.add)(name)

    def add_module(self, name: str, module: Module) -> None:
        """Add a child under a name that need not be an attribute name."""
        if not isinstance(module, Module):
            raise TapeError(f"add_module: {name!r} is a {type(module).__name__}, wanted a Module")
        self._check_name(name, self._modules, "add_module")
        self._keep(name, module, self._modules)

    def _check_name(self, name: str, room: dict, what: str) -> None:
        """Refuse names that dotted paths could not tell apart, or that something else has."""
        if not isinstance(name, str) or not name or "." in name:
            raise TapeError(f"{what}: {name!r} is no name; wanted a string without dots, not empty")
        if name not in room and hasattr(self, name):
            raise TapeError(f"{what}: {type(self).__name__} already has an attribute {name!r}")

    # running

    def __call__(self, x=MISSING, /, *args, **kwargs):
        try:
            if args or kwargs or x is MISSING:
                return self.forward(*(() if x is MISSING else (x,)), *args, **kwargs)
            return self.forward(x)  # without packing and unpacking: 140 ns in place of 200
        except TapegradError as error:
            self._locate(error)
            raise

    def _locate(self, error: TapegradError) -> None:
        """Say on an error of `forward` that it came up in this module."""
        if not self._modules:  # the innermost module says where; the ones around it would only repeat it
            error.add_note(f"in {self!r}")

    def forward(self, *args, **kwargs):
        """What the module computes. Every module defines its own."""
        raise TapeError(
            f"{type(self).__name__} has no forward method; define forward(self, ...) to say what it computes"
        )

    # walking

    def children(self) -> Iterator[Module]:
        """The modules that are attributes of this one."""
        return (m for m in self._modules.values() if m is not None)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, each once, with dotted names."""
        seen: set[int] = set()
        stack = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield name, module
            below = [(f"{name}.{k}" if name else k, m) for k, m in module._modules.items() if m is not None]
            stack.extend(reversed(below))

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (m for _, m in self.named_modules())

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """All parameters with dotted names; one that is shared comes once."""
        return self._once("_parameters", prefix)

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """All buffers with dotted names."""
        return self._once("_buffers", prefix)

    def _once(self, room: str, prefix: str) -> Iterator[tuple[str, Tensor]]:
        seen: set[int] = set()
        for name, module in self.named_modules(prefix):
            for key, value in getattr(module, room).items():
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{name}.{key}" if name else key), value

    def _stored(self) -> Iterator[tuple[str, Tensor]]:
        """What state_dict holds: as in PyTorch, under every name, so that a shared tensor comes more than once."""

        def below(module: Module, path: str) -> Iterator[tuple[str, Tensor]]:
            for key, value in (*module._parameters.items(), *module._buffers.items()):
                if value is not None and not (key in module._transient and key in module._buffers):
                    yield path + key, value
            for key, child in module._modules.items():
                if child is not None:
                    yield from below(child, f"{path}{key}.")

        return below(self, "")

    def parameters(self) -> Iterator[Tensor]:
        """All parameters, each once."""
        return (p for _, p in self.named_parameters())

    def buffers(self) -> Iterator[Tensor]:
        """All buffers, each once."""
        return (b for _, b in self.named_buffers())

    def apply(self, fn: Callable[[Module], Any]) -> Module:
        """Call fn on every module below, then on this one."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def summary(self, *inputs, **named):
        """A table of the modules below: output shapes, parameters, bytes. See `nn.summary`."""
        from .summary import summary

        return summary(self, *inputs, **named)

    # modes

    def train(self, mode: bool = True) -> Module:
        """Switch training mode on, here and below: dropout drops."""
        for module in self.modules():
            object.__setattr__(module, "training", bool(mode))
        return self

    def eval(self) -> Module:
        """Switch training mode off, here and below."""
        return self.train(False)

    def requires_grad_(self, on: bool = True) -> Module:
        """Freeze (False) or unfreeze all parameters."""
        for p in self.parameters():
            p.requires_grad = on
        return self

    def zero_grad(self) -> None:
        """Drop the gradients of all parameters."""
        drop_gradients([p.node for p in self.parameters() if type(p.node) is Leaf])

    def to(self, target) -> Module:
        """Move all parameters and buffers to another device, or convert all that are floating to another dtype.

        They stay the same tensors, so an optimizer keeps its parameters. Gradients are dropped. A backward through
        values recorded before raises.
        """
        moves = is_device(target)
        for value in (*self.parameters(), *self.buffers()):
            if (moves or value.dtype.is_float) and value.is_leaf:
                moved = value.detach().to(target)
                if moved.layout is not value.layout:
                    replace(value, moved)
        return self

    # state

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all parameters and buffers by dotted name: what `tg.save` takes."""
        return {name: value.detach().copy() for name, value in self._stored()}

    def load_state_dict(self, state: dict[str, Tensor], strict: bool = True) -> Unmatched:
        """Write saved values into the parameters and buffers, in place.

        Raises CheckpointError where names or shapes differ, listing them, before anything is written. strict=False
        takes the names that are on both sides; the result lists the others.
        """
        if not isinstance(state, dict):
            raise CheckpointError(
                f"load_state_dict: wanted a dict of tensors, got {type(state).__name__}; tg.load(path) reads one"
            )
        own = dict(self._stored())
        missing, unexpected = [n for n in own if n not in state], [str(n) for n in state if n not in own]
        both = [(n, state[n], own[n].shape) for n in own if n in state]
        kinds = [f"{n} is a {type(value).__name__}" for n, value, _ in both if not hasattr(value, "shape")]
        shapes = [
            f"{n} (saved {tuple(value.shape)}, here {shape})"
            for n, value, shape in both
            if hasattr(value, "shape") and tuple(value.shape) != shape
        ]
        problems = [f"no tensors: {', '.join(kinds)}"] if kinds else []
        problems += [f"shapes differ: {', '.join(shapes)}"] if shapes else []
        if strict and missing:
            problems.append(f"missing: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected: {', '.join(unexpected)}")
        if problems:
            raise CheckpointError(
                f"load_state_dict: the state does not belong to {type(self).__name__}; {'; '.join(problems)}"
            )
        with no_grad():
            for name, value in own.items():
                if name in state:
                    value.copy_(state[name])
        return Unmatched(missing, unexpected)

    # showing

    def extra_repr(self) -> str:
        """What stands in the brackets of the repr."""
        return ""

    def __repr__(self) -> str:
        lines = []
        for name, module in self._modules.items():
            body = repr(module).replace("\n", "\n  ")
            lines.append(f"  ({name}): {body}")
        head = f"{type(self).__name__}({self.extra_repr()}"
        return head + ("\n" + "\n".join(lines) + "\n)" if lines else ")")
