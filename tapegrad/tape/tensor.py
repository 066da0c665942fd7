"""Tensor: a value on a buffer, and where it came from.

Map of the tape: `tensor.py` holds Tensor, Leaf and Row; `apply.py` runs ops and records rows; `reverse.py` walks rows
backwards; `functional.py` builds grad, vjp, jvp and the rest on it; `pool.py` owns memory; `interop.py` meets NumPy,
DLPack and the terminal; `methods.py` hangs the registry's ops on Tensor.

Ownership: a tensor holds its row, a row holds its parents' rows and the values its adjoint reads. Nothing points forward,
so there are no cycles, and dropping the last tensor of a computation frees rows and buffers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..dtypes import DType
from ..errors import TapeError
from ..layouts import Layout
from ..ops.movement import detach_view
from ..ops.registry import run_with
from .pool import Buffer
from .state import local

leaf_changes = [0]  # counts the times that a tensor became, or ceased to be, a leaf, or got another layout
passes = [1]  # counts the recorded passes of all sessions; see `Tensor.value`
CONSTANT = -1  # the pass in which shared tensors of Python numbers were made, as it were
RELEASED = ("released",)  # in place of the saved values of a row that a backward has gone through


class Leaf:
    """What makes a tensor differentiable without a row: the place where its gradient is collected."""

    __slots__ = ("cover", "own")

    def __init__(self):
        self.own: Tensor | None = None
        self.cover: Any = None  # of a session: stands for the gradients of several leaves until somebody asks for one

    @property
    def grad(self) -> Tensor | None:
        if self.cover is not None:
            self.cover.lift()
        return self.own

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if self.cover is not None:
            self.cover.lift()
        self.own = value


class Row:
    """One recorded operation.

    `parents[i]` is the Row or Leaf that input i came from, or None; `inputs[i]` the input tensor where the adjoint reads
    it, else its layout. `output` is the result's (buffer, address, layout) where the adjoint reads that. `released` rows
    have given their values back.
    """

    __slots__ = ("attrs", "indices", "inputs", "line", "number", "op", "output", "parents", "state")

    def __init__(self, op, parents, inputs, attrs, number, state):
        self.op = op
        self.parents = parents
        self.inputs = inputs
        self.attrs = attrs
        self.number = number
        self.state = state
        self.indices: tuple[int, ...] | None = (
            None  # which output of its row each parent is, where not always the first
        )
        self.output: Any = None
        self.line: str | None = None


def leaf_changed(t: Tensor) -> None:
    """Tell sessions that a tensor is no longer what they recorded."""
    leaf_changes[0] += 1
    session = local.state.session
    if session is not None:
        session.check_slots(t)


def memory_of(t: Tensor) -> Buffer | None:
    """The buffer that a tensor's elements lie in; None where these are still to be computed."""
    value = t.value
    return value.memory if type(value) not in PLAIN and value.handle is t else t.buffer


class Made:
    """What a tensor stands for that was computed while a session recorded: a value, or a number, of that pass."""

    __slots__ = ("session", "stamp", "value")

    def __init__(self, value, session):
        self.value, self.session, self.stamp = value, session, session.stamp


PLAIN = (int, Made)


class Tensor:
    """An n-dimensional array that ops are recorded on. Made by `tg.tensor`, `tg.zeros` and the like, and by ops.

    >>> import tapegrad as tg
    >>> x = tg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> y = (x * x).sum()
    >>> y.backward()
    >>> x.grad
    tensor([2., 4., 6.])
    """

    # `trace` and `value` belong to sessions: the cursor of the session whose handle this is, and the recorded value it stands
    # for; of other tensors None and the number of the pass in which they were made. A handle whose value is still to be
    # computed has no `address`.
    __slots__ = ("__weakref__", "address", "buffer", "index", "layout", "node", "trace", "value")
    __array_priority__ = 1000
    __hash__ = object.__hash__

    def __init__(self, buffer: Buffer, address: int, layout: Layout, node=None, index: int = 0):
        self.buffer = buffer
        self.address = address
        self.layout = layout
        self.node = node
        self.index = index
        self.trace = None
        self.value: Any = passes[0]

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name == "address" or name == "buffer":
                self.value.row.session.compute(self)
                return object.__getattribute__(self, name)
            raise AttributeError(f"a tensor has no attribute {name!r}")

    # what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self.layout.shape

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.layout.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.layout.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.layout.size

    @property
    def nbytes(self) -> int:
        """The number of bytes of the elements."""
        return self.layout.nbytes

    @property
    def device(self) -> str:
        """Where the tensor lives: "cpu", or "reference" for the slow NumPy backend."""
        return self.layout.device

    @property
    def strides(self) -> tuple[int, ...]:
        """The step of each axis, in elements."""
        return self.layout.strides

    def is_contiguous(self) -> bool:
        """True where the elements lie in C order without gaps."""
        return self.layout.contiguous

    # where it came from

    @property
    def is_leaf(self) -> bool:
        """True where no recorded op made it."""
        return self.node is None or type(self.node) is Leaf

    @property
    def requires_grad(self) -> bool:
        """True where gradients flow to it. Can be set on leaves of floating dtype."""
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, on: bool) -> None:
        if not self.is_leaf:
            if on:
                return
            raise TapeError(
                "requires_grad: this tensor is the result of an op; only leaves can be switched off. Use .detach()."
            )
        if on and not self.dtype.is_float:
            raise TapeError(
                f"requires_grad: only floating tensors have gradients, this one is {self.dtype.name}. Use .astype(tg.float32)."
            )
        if on is not (self.node is not None):
            self.node = Leaf() if on else None
            if type(self.value) in PLAIN:
                leaf_changed(self)
            elif local.state.session is not None:
                local.state.session.rename(self)

    def requires_grad_(self, on: bool = True) -> Tensor:
        """Set `requires_grad` and return the tensor."""
        self.requires_grad = on
        return self

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward()` collected in this leaf; None before, and for tensors that are no leaves."""
        return self.node.grad if type(self.node) is Leaf else None

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if type(self.node) is not Leaf:
            raise TapeError("grad: only leaves with requires_grad=True have a gradient to set")
        if value is not None and (
            type(value) is not Tensor or value.shape != self.shape or value.dtype is not self.dtype
        ):
            raise TapeError(f"grad: wanted a tensor of shape {self.shape} and dtype {self.dtype.name}, or None")
        self.node.grad = value

    def detach(self) -> Tensor:
        """The same value, on the same buffer, that no gradient flows through."""
        if local.state.session is not None:
            return run_with(detach_view, (self,))
        return Tensor(self.buffer, self.address, self.layout)

    def backward(self, gradient=None, retain_graph: bool = False) -> None:
        """Collect the gradients of this tensor in the `.grad` of every leaf it came from.

        gradient: the gradient of this tensor, of its shape; may be left out where it has one element.
        retain_graph: keep the recorded values, so that backward can run through them again.
        Raises TapeError where nothing was recorded, on a second call, and where a saved value was overwritten.
        """
        session = local.state.session
        if session is not None:
            session.backward(self, gradient, retain_graph)
            return
        from .reverse import backward

        backward(self, gradient, retain_graph)

    def __reduce__(self):
        from .create import tensor

        return tensor, (self.numpy(), None, None, self.requires_grad and self.is_leaf)

    def __deepcopy__(self, memo):
        if not self.is_leaf:
            raise TapeError("deepcopy: this tensor is the result of recorded ops; copy its .detach() instead")
        fn, args = self.__reduce__()
        copied = memo[id(self)] = fn(*args)
        return copied

    if TYPE_CHECKING:  # what methods.py, assign.py and interop.py hang on the class, for type checkers

        def __getattr__(self, name: str) -> Any: ...
        def __getitem__(self, key: Any) -> Tensor: ...
        def __setitem__(self, key: Any, value: Any) -> None: ...
        def __len__(self) -> int: ...
        def __iter__(self) -> Any: ...
        def __bool__(self) -> bool: ...
        def __int__(self) -> int: ...
        def __float__(self) -> float: ...
        def __index__(self) -> int: ...
        def __neg__(self) -> Tensor: ...
        def __pos__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __rfloordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __rmod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __rand__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __ror__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __rxor__(self, other: Any) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
