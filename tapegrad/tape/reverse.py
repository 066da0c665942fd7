"""The reverse sweep: one descending walk over the rows. The only place that accumulates, un-broadcasts and releases.

Rows carry order numbers, so "from last to first" is a sort, and there is no recursion. Adjoints record ops of their own:
with `create_graph` these are rows like any other and can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import precision
from ..dtypes import DType
from ..errors import DtypeError, ShapeError, TapeError
from ..layouts import Layout
from ..ops import registry
from ..ops.elementwise import add
from .apply import as_tensor, elementwise, is_tensor
from .pool import Buffer, writes
from .state import line_of, local, recording
from .tensor import PLAIN, RELEASED, Leaf, Row, Tensor, memory_of


def backward(t: Tensor, gradient=None, retain_graph: bool = False) -> None:
    """`Tensor.backward`: collect gradients in the leaves below t."""
    if t.node is None:
        raise TapeError(
            "backward: nothing was recorded for this tensor. Make an input with requires_grad=True, and do not compute it "
            "inside no_grad() or behind detach()."
        )
    seed = seed_for(t, gradient, "backward")
    taken = set() if gradient is None else {storage(seed)}
    if type(t.node) is Leaf:
        accumulate(t.node, seed, taken)
        return
    found = sweep([(t, seed)], None, create_graph=False, release=not retain_graph)
    for leaf, g in found.items():
        accumulate(leaf, g, taken)


def seed_for(t: Tensor, gradient, what: str) -> Tensor:
    """The gradient to start from, checked against t."""
    from .create import ones

    if gradient is None:
        if t.size != 1:
            raise ShapeError(
                f"{what}: the tensor has shape {t.shape}, and only a single number has a gradient without saying which. "
                "Reduce it, for example with .sum() or .mean(), or pass gradient=, a tensor of its shape."
            )
        return ones(t.shape, dtype=t.dtype, device=t.device)
    gradient = as_tensor(gradient, what)
    if gradient.shape != t.shape:
        raise ShapeError(f"{what}: gradient has shape {gradient.shape}, the tensor has {t.shape}; they must be equal")
    if gradient.dtype is not t.dtype:
        gradient = cast(gradient, t.dtype)
    return gradient


def cast(t: Tensor, dtype: DType) -> Tensor:
    from ..ops.movement import astype

    return astype(t, dtype)


def storage(t: Tensor):
    """What tensors that share their memory have in common."""
    value = t.value
    return t.buffer if type(value) in PLAIN or value.handle is not t else value.root


def accumulate(leaf: Leaf, g: Tensor, taken: set) -> None:
    """Add g to the leaf's gradient. A gradient never shares its buffer with another one, so that it may be scaled in place."""
    session = local.state.session
    if session is not None:
        session.accumulates(leaf)
    with recording(False):
        if leaf.grad is not None:
            leaf.grad = elementwise(add, (leaf.grad, g))
        elif not g.layout.contiguous or storage(g) in taken or (session is not None and session.borrowed(g)):
            leaf.grad = elementwise(registry.IDENTITY, (g,))
        else:
            taken.add(storage(g))
            leaf.grad = g.detach() if g.node is not None else g


def drop_gradients(leaves: list[Leaf]) -> None:
    """Set the gradients of leaves to None."""
    session = local.state.session
    if leaves and leaves[0].cover is not None and leaves[0].cover.drop(leaves, session):
        return
    if session is not None:
        session.dropping(leaves)
    for leaf in leaves:
        leaf.grad = None


def rows_below(outputs: Iterable[Tensor], wanted: set | None) -> list[Row]:
    """The rows that a sweep has to visit, last first: those between the outputs and the wanted nodes."""
    seen: set[Row] = set()
    stack = [t.node for t in outputs if not t.is_leaf]
    seen.update(stack)
    while stack:
        for parent in stack.pop().parents:
            if parent is not None and type(parent) is not Leaf and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    rows = sorted(seen, key=_number)
    if wanted is not None:
        leads: set = set(wanted)
        for row in rows:
            for parent in row.parents:
                if parent in leads:
                    leads.add(row)
                    break
        rows = [row for row in rows if row in leads]
    rows.reverse()
    return rows


def _number(row: Row) -> int:
    return row.number


def sweep(seeds: list[tuple[Tensor, Tensor]], wanted: set | None, *, create_graph: bool, release: bool) -> dict:
    """Gradients of the seeds' weighted sum: by wanted node, or by leaf where `wanted` is None."""
    rows = rows_below((t for t, _ in seeds), wanted)
    needed: set | None = None if wanted is None else wanted | set(rows)
    grads: dict = {}
    found: dict = {}
    state = local.state
    if state.session is not None:
        state.session.sweeps(rows)
    before, outer, state.recording = state.recording, state.sweeping, create_graph
    factors = precision.set_factors(None) if precision.used else None  # adjoints multiply what they are given
    try:
        for t, g in seeds:
            add_to(grads, t.node, t.index, g)
        for row in rows:
            if row.state is not state:
                raise TapeError(
                    f"backward: {row.op.title} was recorded by thread {row.state.thread!r}; run backward in that thread"
                )
            held = grads.get(row) if wanted is not None and row in wanted else grads.pop(row, None)
            if held is not None:
                pull(row, held, grads, needed, create_graph, state)
            if release:
                row.inputs, row.output = RELEASED, None
    finally:
        state.recording, state.sweeping = before, outer
        if factors is not None:
            precision.set_factors(factors)
    for node, g in grads.items():
        if type(node) is Leaf if wanted is None else node in wanted:
            found[node] = g[0] if type(g) is list else g
    return found


def add_to(grads: dict, node: Any, index: int, g: Tensor) -> None:
    """Add g to the gradient of that output of that node."""
    if type(node) is not Leaf and node.op.outputs > 1:
        several = grads.setdefault(node, [None] * node.op.outputs)
        several[index] = g if several[index] is None else elementwise(add, (several[index], g))
    else:
        have = grads.get(node)
        grads[node] = g if have is None else elementwise(add, (have, g))


def pull(row: Row, g, grads: dict, needed: set | None, create_graph: bool, state) -> None:
    """Ask the row's adjoint for the gradients of its inputs and hand them to their nodes."""
    if row.inputs is RELEASED:
        raise TapeError(
            f"backward: the values that {row.op.title} saved were released by an earlier backward. "
            "Pass retain_graph=True to the earlier call, or run the forward computation again."
        )
    if state.anomaly:
        state.sweeping = row
    together = None
    for i, parent in enumerate(row.parents):
        if parent is None or (needed is not None and parent not in needed):
            continue
        x = row.inputs[i]
        if not x.dtype.is_float:
            continue
        if row.op.kind == "elementwise":
            d = pull_elementwise(row, i, g)
        elif i in row.op.adjoints:
            d = row.op.adjoints[i](g, output_of(row, create_graph), *saved(row), **(row.attrs or {}))
        elif None in row.op.adjoints:
            if together is None:
                together = row.op.adjoints[None](g, output_of(row, create_graph), *saved(row), **(row.attrs or {}))
                if not isinstance(together, tuple):
                    together = (together,)
                if len(together) != len(row.parents):
                    raise ShapeError(
                        f"{row.op.title}: its adjoint returned {len(together)} gradients for {len(row.parents)} inputs; return "
                        f"one for each, or None"
                    )
            d = together[i]
        else:
            raise TapeError(
                f"{row.op.title} has no derivative with respect to input {i}; use .detach() on it if none is wanted"
            )
        if d is not None:
            index = row.indices[i] if row.indices is not None else 0
            add_to(grads, parent, index, fitted(d, x, row.op.name, i))


def pull_elementwise(row: Row, i: int, g: Tensor) -> Tensor | None:
    part, reads = registry.partial(row.op, i)
    if part is None or part is registry.IDENTITY:
        return None if part is None else g
    return elementwise(part, (g, *[checked(row, k) for k in reads]))


def saved(row: Row) -> list:
    return [checked(row, k) for k in range(len(row.inputs))]


def checked(row: Row, k: int):
    """Saved input k, after making sure that nobody has written into it since."""
    t = row.inputs[k]
    if writes and type(t) is Tensor and stale(memory_of(t), row):
        raise overwritten(row, f"input {k}", t.shape, t.buffer)
    return t


def stale(buffer: Buffer | None, row: Row) -> bool:
    """True where the buffer was written after the row was recorded."""
    if buffer is None:
        return False
    last = writes.get(buffer.address)
    return last is not None and last[0] > row.number


def overwritten(row: Row, what: str, shape, buffer) -> TapeError:
    return TapeError(
        f"backward: {what} of {row.op.title}, of shape {shape}, was overwritten in place after it was "
        f"recorded, by {line_of(writes[buffer.address][1])}. "
        "Its gradient needs the old value: write after backward, or into a copy."
    )


def output_of(row: Row, create_graph: bool):
    """The row's saved output (a tuple where it has several), None where no adjoint reads it."""
    if row.output is None:
        return None
    made = []
    for index, saved in enumerate(row.output):
        if type(saved) is Tensor:  # of a row that a session matches: its handle
            made.append(saved)
            continue
        buffer, address, layout, *stands_for = saved
        if writes and stale(buffer, row):
            raise overwritten(row, "the output", layout.shape, buffer)
        t = Tensor(buffer, address, layout, row if create_graph else None, index)
        if stands_for:
            t.value = stands_for[0]
        made.append(t)
    return made[0] if len(made) == 1 else tuple(made)


def fitted(d: Tensor, x: Tensor | Layout, op_name: str, i: int) -> Tensor:
    """The gradient in the shape and dtype of its input: summed over broadcast axes."""
    if not is_tensor(d):
        raise DtypeError(
            f"{op_name}: the adjoint returned {type(d).__name__} for input {i}; it must return a tensor or None"
        )
    if d.shape != x.shape:
        d = sum_to(d, x.shape, op_name, i)
    return d if d.dtype is x.dtype else cast(d, x.dtype)


def sum_to(d: Tensor, shape: tuple[int, ...], op_name: str, i: int) -> Tensor:
    """Sum d over the axes along which `shape` was broadcast."""
    lead = d.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(a + lead for a, n in enumerate(shape) if n == 1 and d.shape[a + lead] != 1)
    left = tuple(n for a, n in enumerate(d.shape) if a not in axes)
    if lead < 0 or left != tuple(n for a, n in enumerate(shape) if a + lead not in axes):
        raise ShapeError(
            f"{op_name}: the adjoint returned a gradient of shape {d.shape} for input {i} of shape {shape}; they "
            f"must be equal, or broadcast from it"
        )
    total = registry.REGISTRY["sum"](d, axes)
    return total if total.shape == shape else registry.REGISTRY["reshape"](total, shape)
