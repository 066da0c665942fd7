"""What rows make and read: values of the pass, tensors from outside in slots, numbers in memory of their own.

A row is compared with the next call of the user's code by identity, so what it compares with must be the very objects that
the code will pass: handles. A `Value` owns the handle that its row gives out, and knows every field that refers to it
(`uses`): when somebody keeps the handle, another one takes its place in all of them, and the number of uses tells whether
anyone outside holds it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ...layouts import Layout
from ..apply import pack_scalar
from ..pool import Buffer
from ..spaces import writer_of
from ..tensor import Leaf, Tensor

if TYPE_CHECKING:
    from .rows import SessionRow


refs = sys.getrefcount


def _calibrate() -> int:
    """What `map(getrefcount, handles)` counts beyond the references that are known."""
    probe = [object()]
    return next(map(refs, probe)) - 1


EXTRA = _calibrate()


class Value:
    """One array that a row makes, in every pass anew.

    A view has a `base`, the value or slot it looks into, and the byte offset of its first element.
    """

    __slots__ = (
        "base",
        "buffer",
        "handle",
        "index",
        "layout",
        "made_by",
        "now",
        "offset",
        "parked",
        "row",
        "spare",
        "uses",
    )

    def __init__(self, row: SessionRow, index: int, layout: Layout, base=None, offset: int = 0):
        self.row, self.index, self.layout = row, index, layout
        self.base, self.offset = base, offset
        self.uses: list[tuple[Any, Any]] = []
        self.spare: Buffer | None = None  # memory of a handle that was given away, to be used again when that is free
        self.buffer: Buffer | None = None  # the handle's memory, once it has some
        self.now: Tensor | None = None  # the tensor that it was in the matched part of a pass that is now recorded
        self.parked = False  # a gradient that its leaf holds between passes
        self.made_by: Any = None  # the execution that computed it last
        self.handle = self.new_handle()

    def new_handle(self) -> Tensor:
        made = Tensor.__new__(Tensor)
        made.layout, made.index = self.layout, self.index
        made.node = self.row if self.row.tracked else None
        made.value, made.trace = self, self.row.session.cursor
        return made

    @property
    def idle(self) -> int:
        """References to the handle, as `map` counts them, when nobody outside holds it."""
        return EXTRA + 1 + len(self.uses)

    @property
    def root(self):
        """What lies in the same memory has the same root."""
        base = self.base
        return self if base is None else base if type(base) is Value else base.tensor.buffer

    @property
    def memory(self) -> Buffer | None:
        """The buffer that it lies in, where it has one yet."""
        base = self.base
        return self.buffer if base is None else base.buffer if type(base) is Value else base.tensor.buffer

    def held(self) -> bool:
        """True where somebody outside holds the handle."""
        return refs(self.handle) > len(self.uses) + PLAIN

    def use(self, container, key) -> None:
        """Put the handle into a field and remember the field."""
        self.uses.append((container, key))
        place(container, key, self.handle)

    def repoint(self, handle: Tensor) -> None:
        """Put another handle in every field."""
        self.handle = handle
        for container, key in self.uses:
            if key.__class__ is int:
                container[key] = handle
            else:
                setattr(container, key, handle)


def place(container, key, thing) -> None:
    """container[key] or container.key = thing."""
    if isinstance(container, list):
        container[key] = thing
    else:
        setattr(container, key, thing)


class Slot:
    """A tensor from outside: a parameter, an input, a result of an earlier pass. Another of its layout may take its place."""

    __slots__ = ("bindable", "broken", "first", "layout", "mobile", "node", "tensor", "uses", "volatile", "written")

    def __init__(self, tensor: Tensor, first, volatile: bool):
        self.tensor, self.layout, self.node = tensor, tensor.layout, tensor.node
        self.first = first  # the row that reads it first: only there may it be bound to another tensor
        self.uses: list[tuple[Any, Any]] = []
        self.volatile = volatile  # made within the pass by something that no row stands for
        self.mobile = False  # was bound to another tensor at least once
        self.broken = False  # the tensor was changed into something else: another layout, another leaf
        self.written = False  # a row assigns to it
        self.bindable = True

    def use(self, container, key) -> None:
        self.uses.append((container, key))
        place(container, key, self.tensor)

    def bind(self, tensor: Tensor) -> None:
        """Read that tensor from now on."""
        self.tensor, self.node, self.mobile, self.broken = tensor, tensor.node, True, False
        for container, key in self.uses:
            if key.__class__ is int:
                container[key] = tensor
            else:
                setattr(container, key, tensor)

    def check(self) -> None:
        """Notice that the tensor is no longer what was recorded; no call compares equal to a broken slot."""
        node = self.tensor.node
        if type(node) is Leaf and type(self.node) is Leaf:
            self.node = node  # frozen and unfrozen since: a backward has to look for its leaves again
        broken = self.tensor.layout is not self.layout or node is not self.node
        if broken is not self.broken:
            self.broken = broken
            for container, key in self.uses:
                place(container, key, NEVER if broken else self.tensor)


class Scalar:
    """A Python number in memory of its own, so that another number is a write and not another recording."""

    __slots__ = ("kind", "last", "put", "tensor")
    index = 0

    def __init__(self, value, tensor: Tensor):
        self.kind = type(value)
        self.tensor = tensor
        self.last = value
        self.put = writer_of(tensor.layout.device)

    def write(self, value) -> None:
        """Store another number of the same kind."""
        packed = pack_scalar(value, self.tensor.layout.dtype)
        self.put(self.tensor.address, packed, len(packed))
        self.last = value


class Never:
    """What no argument is identical or equal to."""

    __slots__ = ()


NEVER = Never()


def tensor_of(x) -> Tensor:
    """The tensor that stands for an operand now."""
    return x.tensor if type(x) is not Value else x.handle if x.now is None else x.now


def root_of(x):
    """The value or slot whose memory an operand lies in."""
    return x.base if type(x) is Value and x.base is not None else x


def _plain() -> int:
    """What getrefcount says of a handle that only `Value.handle` refers to, asked from `Value.held`."""

    class Holder:
        handle: Any = None

        def held(self):
            return refs(self.handle)

    holder = Holder()
    holder.handle = object()
    return holder.held()


PLAIN = _plain()
