"""Matrix products that write where their result is wanted: transposed, added to another array, or into a parameter."""

from __future__ import annotations

from ..kernels import gemm_update  # noqa: F401  registers the kernels
from ..layouts import layout
from ..ops import expression as ex
from ..ops.registry import Op
from .graph import CALL, MAP, Graph, Task, turned
from .parts import ADD, COPY


def matmul_added(a, b, x):
    """x + a @ b, for matrices."""
    return (a, b, x), {}


def matmul_descended(p, a, b, lr, decay):
    """p - lr · (a @ b + decay · p), for matrices."""
    return (p, a, b, lr, decay), {}


ADDED = Op("matmul_added", matmul_added, "primitive", public=False)
ADDED.shape(lambda a, b, x: (x.shape, x.dtype))
DESCENDED = Op("matmul_descended", matmul_descended, "primitive", public=False)
DESCENDED.shape(lambda p, a, b, lr, decay: (p.shape, p.dtype))


def _descent() -> tuple[ex.Node, ...]:
    """What plain gradient descent computes from p, its gradient, the rate and the decay: `sgd` of optim/rules.py."""
    p, g, lr, decay = map(ex.argument, range(4))
    return (ex.node("sub", p, ex.node("mul", lr, ex.node("add", g, ex.node("mul", decay, p)))),)


DESCENT = _descent()


def into_place(g: Graph) -> None:
    """Let products write their result where the task that reads it would have put it."""
    readers, writers = g.readers(), g.writers()
    drop: set[Task] = set()
    instead: dict[Task, Task] = {}
    for t in g.tasks:
        if t.kind != MAP or t.part:
            continue
        made = (
            _turned(g, t, readers, writers)
            or _added(g, t, readers, writers, drop)
            or _descended(g, t, readers, writers)
        )
        if made is not None:
            product, new = made
            drop.add(product)
            instead[t] = new
            for o in new.outs:
                writers[g.roots[o]] = new
    if drop:
        g.tasks = [instead.get(t, t) for t in g.tasks if t not in drop]


def _product(g: Graph, i: int, readers, writers) -> Task | None:
    """The matrix product whose result only one task reads, namely as value i, and whose operands keep their elements."""
    root = g.roots[i]
    t = writers.get(root)
    if (
        t is None
        or t.kind != CALL
        or t.builder != "matmul"
        or t.attrs
        or g.values[root].fixed
        or len(readers[root]) != 1
    ):
        return None
    if not g.values[root].layout.dtype.is_float or any(g.roots[v] in g.mutable for v in t.ins):
        return None
    return t


def _turned(g: Graph, t: Task, readers, writers) -> tuple[Task, Task] | None:
    """The copy of a transposed product: Cᵀ = BᵀAᵀ."""
    if t.exprs != COPY or t.assigns:
        return None
    (i,) = t.ins
    product = _product(g, i, readers, writers)
    v, out = g.values[i], g.values[t.outs[0]].layout
    if product is None or v.offset or out.dtype is not v.layout.dtype or not out.contiguous or out.ndim < 2:
        return None
    result = turned(g.values[product.outs[0]].layout)
    if g.values[product.outs[0]].base is not None or (v.layout.shape, v.layout.strides) != (
        result.shape,
        result.strides,
    ):
        return None
    a, b = [g.view(g.roots[v], turned(g.values[v].layout), g.values[v].offset) for v in product.ins]
    return product, Task(CALL, product.op, (b, a), t.outs, product.rows + t.rows)


def _plain(g: Graph, i: int, product: Task) -> bool:
    """True where value i is all of a product of two matrices, read as it is."""
    return (
        i == product.outs[0]
        and g.values[i].base is None
        and g.values[i].layout.ndim == 2
        and g.values[product.ins[0]].layout.ndim == 2
    )


def _added(g: Graph, t: Task, readers, writers, drop: set[Task]) -> tuple[Task, Task] | None:
    """A product that is added to a result which nothing else reads."""
    if t.exprs != ADD or t.assigns or t.ins[0] == t.ins[1]:
        return None
    for i, x in (t.ins[::-1], t.ins):
        product = _product(g, i, readers, writers)
        v = g.values[x]
        if (
            product is None
            or product in drop
            or not _plain(g, i, product)
            or v.base is not None
            or v.fixed
            or x not in writers
        ):
            continue
        out, want = g.values[t.outs[0]].layout, g.values[i].layout
        if len(readers[x]) == 1 and v.layout is want and out is want and min(want.shape) > 1:
            return product, Task(CALL, ADDED, (*product.ins, x), t.outs, product.rows + t.rows)
    return None


def _descended(g: Graph, t: Task, readers, writers) -> tuple[Task, Task] | None:
    """A step of gradient descent with a gradient that is a product and that nobody keeps."""
    if t.exprs != DESCENT or not t.assigns or t.ins[0] != t.outs[0]:
        return None
    p, i, lr, decay = t.ins
    product, x = _product(g, i, readers, writers), g.values[p].layout
    if product is None or not _plain(g, i, product) or not x.contiguous or x.ndim != 2 or min(x.shape) < 2:
        return None
    numbers = [g.values[v].layout for v in (lr, decay)]
    if any(n.size != 1 or n.dtype is not x.dtype for n in numbers) or g.values[i].layout.dtype is not x.dtype:
        return None
    new = Task(CALL, DESCENDED, (p, *product.ins, *[_number(g, v) for v in (lr, decay)]), t.outs, product.rows + t.rows)
    new.assigns = True
    return product, new


def _number(g: Graph, i: int) -> int:
    """A value of one element, without axes."""
    v = g.values[i]
    return g.view(g.roots[i], layout((), v.layout.dtype, None, v.layout.device), v.offset)
