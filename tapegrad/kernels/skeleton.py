"""Skeletons: kernels written as Python functions with type variables, compiled per dtype through Numba.

    @skeleton("x: *T, y: *A, n: int, eps: float")
    def scaled_sum(x, y, n, eps, begin, end):
        for o in range(begin, end):
            total = A(0)
            for i in range(n):
                total += A(x[o * n + i])
            y[o] = total * A(eps)
        return 0

    address = scaled_sum.address(T=float32, A=float64)      # a kernel with the ABI of launch.py

Parameters are `*T` (pointer to the dtype bound to T), `*int64` (pointer to that dtype), `int` and `float` (one word
each) and `address` (of a function, an int64). begin, end follow by themselves. The result is a status code, 0 when all
is well. A bool is one byte: T bound to bool_ compiles as uint8.

The first process that needs a (function, dtypes) pair imports Numba and compiles it, 50 to 120 ms; later ones load the
stored object code and never import Numba.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ..dtypes import BY_NAME, DType
from ..errors import KernelError
from . import jit
from .fingerprint import fingerprint
from .language import Inline, inline

__all__ = ["Skeleton", "inline", "skeleton"]

OURS = ("tapegrad.kernels.", "tapegrad.ops.")  # modules whose sources are part of the cache folder's name
_PARAMETER = re.compile(r"(\w+)\s*:\s*(\*?)\s*(\w+)$")


class Skeleton:
    """A function that is compiled once per binding of its type variables. Made by `@skeleton`."""

    def __init__(
        self,
        function: Callable,
        signature: str,
        *,
        reassoc: bool = True,
        unroll: bool = True,
        trusted_source: bool | None = None,
    ):
        self.function = function
        self.signature = signature
        self.parameters = parse(signature, function)
        self.reassoc = reassoc
        self.unroll = unroll
        self.trusted_source = function.__module__.startswith(OURS) if trusted_source is None else trusted_source
        self.__doc__ = function.__doc__
        self._addresses: dict[tuple, int] = {}

    def __repr__(self) -> str:
        return f"<skeleton {self.name}({self.signature})>"

    @property
    def name(self) -> str:
        return self.function.__name__

    def address(self, **bindings: DType | int | float | Inline) -> int:
        """The address of the kernel for these dtypes (or numbers, or inline functions), by type variable."""
        key = tuple(sorted((k, v if type(v) in (DType, Inline) else repr(v)) for k, v in bindings.items()))
        found = self._addresses.get(key)
        if found is None:
            found = self._addresses[key] = self._load(bindings)
        return found

    def _load(self, bindings: dict) -> int:
        missing = {kind for _, pointer, kind in self.parameters if pointer} - bindings.keys() - BY_NAME.keys()
        if missing:
            raise KernelError(f"skeleton {self.name} needs a dtype for {', '.join(sorted(missing))}, not {bindings}.")
        symbol = "_".join([self.name, *(_label(bindings[k]) for k in sorted(bindings))])
        key = self._key(bindings)
        return jit.load(symbol, key, lambda: self._build(symbol, bindings), optimise=True, unroll=self.unroll)

    def _key(self, bindings: dict) -> str | None:
        """All that determines the code; None where that cannot be written down."""
        function = self.function
        written = not function.__code__.co_filename.startswith("<")  # else by exec: one name may have many bodies
        if self.trusted_source and written and function.__closure__ is None:
            source: str | None = f"{function.__module__} {function.__qualname__} {function.__code__.co_firstlineno}"
        else:
            source = fingerprint(function)
        words = [(k, fingerprint(v) if type(v) is Inline else repr(v)) for k, v in sorted(bindings.items())]
        if source is None or any(word is None for _, word in words):
            return None
        return repr((source, self.signature, self.reassoc, words, numba_version()))

    def _build(self, symbol: str, bindings: dict) -> str:
        from .compile import build  # imports Numba

        return build(self, symbol, bindings)


def skeleton(signature: str, *, reassoc: bool = True, unroll: bool = True, trusted_source: bool | None = None):
    """Make a skeleton of the decorated function; see the module's text for the signature.

    `reassoc=False` keeps the order of floating-point operations. `unroll=False` leaves loops as they are, where their
    bodies are long already: the code is smaller and compiles faster. `trusted_source` says that the function's text is part
    of the cache's version already, which is so in tapegrad's own kernels (the default there) and nowhere else: other
    functions are known by their bytecode and all it uses.
    """
    return lambda function: Skeleton(function, signature, reassoc=reassoc, unroll=unroll, trusted_source=trusted_source)


def parse(signature: str, function: Callable) -> list[tuple[str, bool, str]]:
    """(name, is a pointer, kind) per parameter; checked against the function's own parameters."""
    parameters = []
    for part in filter(None, (p.strip() for p in signature.split(","))):
        match = _PARAMETER.match(part)
        if match is None or (not match[2] and match[3] not in ("int", "float", "address")):
            known = "'name: *T', 'name: int', 'name: float' or 'name: address'"
            raise KernelError(f"skeleton {function.__name__}: {part!r} is not {known}.")
        parameters.append((match[1], bool(match[2]), match[3]))
    names = [p[0] for p in parameters] + ["begin", "end"]
    have = list(inspect.signature(function).parameters)
    if names != have:
        raise KernelError(f"skeleton {function.__name__} takes {have}, but its signature says {names}.")
    return parameters


@cache
def numba_version() -> str:
    """A hash of Numba's version file, found without importing Numba (0.2 ms)."""
    spec = find_spec("numba")
    if spec is None or spec.origin is None:
        return "none"
    return hashlib.sha256(Path(spec.origin).with_name("_version.py").read_bytes()).hexdigest()[:16]


def _label(value) -> str:
    text = value.name if isinstance(value, DType) else getattr(value, "function", value)
    return re.sub(r"\W", "_", getattr(text, "__name__", str(text)))
