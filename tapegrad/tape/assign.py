"""Writing in place: the recorded exception to "values never change". Every write raises the buffer's version.

A row that saved the old value notices at backward and raises, naming the line of the write.
"""

from __future__ import annotations

from ..dtypes import bfloat16
from ..errors import ShapeError, TapeError
from ..halves import narrowed
from ..kernels.prepare import backend, broadcast
from ..ops import registry
from ..ops.registry import Op
from .apply import as_tensor, coerce, run_prepared
from .pool import writes
from .state import local, order, user_place
from .tensor import Leaf, Tensor, leaf_changed

latest: list = [None]  # the recorded step whose writes are the latest of all, or None


def written(*targets: Tensor) -> None:
    """Note that the buffers of the targets have just been written."""
    place = user_place()
    latest[0] = None
    state = local.state
    number = order() if state.moment is None else state.moment()
    for t in targets:
        writes[t.buffer.address] = (number, place)


def check_writable(t: Tensor, what: str) -> None:
    """Refuse writes that would change a value without its gradient."""
    if not t.is_leaf:
        raise TapeError(
            f"{what}: the tensor is the result of a recorded op; writing into it would make its gradient wrong. "
            "Write into .detach().copy()."
        )
    if t.node is not None and local.state.recording:
        raise TapeError(
            f"{what}: a leaf that requires a gradient may be written only inside tg.no_grad(), "
            "where no gradient is recorded"
        )
    if 0 in t.layout.strides and t.size > 1 and any(s == 0 and n > 1 for n, s in zip(t.shape, t.strides, strict=True)):
        raise TapeError(f"{what}: the tensor is broadcast, several elements share one place; write into a .copy()")


def check_source(source: Tensor, what: str) -> Tensor:
    """source, where no gradient is lost by writing it."""
    if source.node is not None and local.state.recording:
        raise TapeError(
            f"{what}: no gradient can flow through a write; use .detach() on the value, or compute a new tensor instead"
        )
    return source


def _beside(t: Tensor, value, what: str) -> Tensor:
    """A value as a tensor on the device of t."""
    made = as_tensor(value, what, t.device)
    return made if made.device == t.device else made.detach().to(t.device)


def copy_(self: Tensor, source) -> Tensor:
    """Write the values of `source`, broadcast to this shape and converted to this dtype, into this tensor.

    The source may be on another device. Allowed on tensors without gradient, and on leaves inside `tg.no_grad()`. A backward that
    needs the old value raises.
    """
    check_writable(self, "copy_")
    source = check_source(_beside(self, source, "copy_"), "copy_")
    if broadcast("copy_", [source.shape, self.shape]) != self.shape:
        raise ShapeError(f"copy_: shape {source.shape} does not broadcast to {self.shape}")
    update((self,), registry.IDENTITY, (source,))
    return self


Tensor.copy_ = copy_  # type: ignore[attr-defined]


def write(t: Tensor, key, value) -> None:
    """`t[key] = value`, for keys that select a view."""
    from ..ops.indexing import index
    from ..ops.movement import where_scalar
    from ..ops.registry import REGISTRY

    check_writable(t, "assignment to a part")
    value = check_source(_beside(t, value, "assignment"), "assignment to a part")
    keys = key if isinstance(key, tuple) else (key,)
    arrays = [k for k in keys if isinstance(k, list) or getattr(k, "shape", None)]
    if not arrays:
        index(t.detach(), key).copy_(value)
        written(t)
        return
    if len(keys) == 1 and as_tensor(keys[0], "assignment").dtype.kind == "b":
        mask = _beside(t, keys[0], "assignment")
        if mask.shape == t.shape[: mask.ndim] and value.size == 1 and mask.ndim:
            mask = REGISTRY["reshape"](mask, mask.shape + (1,) * (t.ndim - mask.ndim))
            value = value.astype(t.dtype)  # before they meet: int64 would not survive a detour through float32
            copy_(t, REGISTRY["where"](mask, where_scalar(value), t.detach()))
            return
    positions = index(REGISTRY["arange"](t.size, device=t.device).reshape(t.shape), key)
    scatter_into(t, positions, value)


def scatter_into(t: Tensor, positions: Tensor, value: Tensor) -> None:
    """Write values at flat positions; of positions named twice, the last value stays, as in NumPy."""
    import numpy as np

    from .apply import host_array, host_memory
    from .spaces import HOST

    if broadcast("assignment", [value.shape, positions.shape]) != positions.shape:
        raise ShapeError(f"assignment: value of shape {value.shape} does not broadcast to {positions.shape}")
    target, given = host_memory(t), host_array(value)
    with np.errstate(over="ignore", invalid="ignore"):
        target[np.unravel_index(host_array(positions), t.shape)] = narrowed(given) if t.dtype is bfloat16 else given
    if t.device not in HOST:  # target is a copy: send it back
        from .create import from_array

        t.copy_(from_array(target, t.dtype, t.device))
        return
    written(t)


_updates: dict[tuple, object] = {}


def update(targets: tuple[Tensor, ...], op: Op, inputs: tuple) -> None:
    """Run an elementwise op and write its results into `targets`: how optimizers change parameters and their state.

    The op reads its inputs, one of which may be a target, before it writes: element by element the old values are used.
    """
    session = local.state.session
    if session is not None:
        session.update(targets, op, inputs)
        return
    for t in inputs:
        if type(t) is not Tensor:
            inputs = coerce(op, inputs)
            break
    inputs = tuple([apart(t, targets) for t in inputs])
    key = (op, tuple([t.layout for t in inputs]), tuple([t.layout for t in targets]))
    prepared = _updates.get(key)
    if prepared is None:
        prepared = _updates[key] = backend(key[2][0].device).into(op, *key[1:])
        if len(_updates) > 4096:
            _updates.clear()
    run_prepared(op, prepared, inputs, targets)  # type: ignore[arg-type]
    written(*targets)


def apart(t: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
    """t, or a copy where it overlaps a target without being the very same elements."""
    for target in targets:
        if t.buffer is target.buffer and (t.address != target.address or t.layout is not target.layout):
            from .apply import contiguous_copy

            return contiguous_copy(t)
    return t


def replace(t: Tensor, other: Tensor) -> None:
    """Give a leaf the elements, dtype and device of another tensor: `Module.to`. A gradient that it had is dropped."""
    written(t)  # rows that saved it notice by its version
    t.buffer, t.address, t.layout = other.buffer, other.address, other.layout
    t.node = None if t.node is None else Leaf()
    written(t)
    leaf_changed(t)
