"""Products with what follows them, where a library computes both at once: a bias along the last axis, and relu.

It pays where the last result has to lie in memory: where somebody keeps it, a kernel that is not elementwise reads it, or
several tasks do, as a layer's result that the next product and the backward pass read. That saves a launch, and the product
being written and read once more. A result that one elementwise task reads is left to that task's kernel, which adds the bias in
passing: there is nothing to save.
"""

from __future__ import annotations

from ..kernels.cuda import dense
from ..ops import expression as ex
from ..ops.registry import Op
from .graph import CALL, MAP, Graph, Task

Readers = dict[int, list[Task]]


def matmul_layer(a, b, bias=None):
    """a @ b with what follows it; `after` is a key of `dense.EPILOGUES`."""
    return (a, b, bias), {}


LAYER = Op("matmul_layer", matmul_layer, "primitive", public=False)
LAYER.shape(lambda a, b, bias=None, **attrs: ((*a.shape[:-1], b.shape[-1]), a.dtype))


def with_epilogues(g: Graph) -> None:
    """Let products compute what follows them, where that pays. The new task stands where the product stood."""
    readers = g.readers()
    place = {t: n for n, t in enumerate(g.tasks)}
    instead: dict[Task, Task | None] = {}
    for product in g.tasks:
        if product.kind != CALL or product.builder != "matmul" or not set(product.attrs) <= {"precision"}:
            continue
        after, bias, tasks = follow(g, product, readers)
        if after is None or product.part or not pays(g, tasks[-1], readers):
            continue
        if bias is None or steady(g, bias, product, tasks[-1], place):
            new = made(g, product, after, tasks, bias)
            if new is not None:
                instead |= {product: new, **dict.fromkeys(tasks)}
    if instead:
        g.tasks = [new for t in g.tasks if (new := instead.get(t, t)) is not None]


def follow(g: Graph, product: Task, readers: Readers) -> tuple[ex.Node | None, int | None, list[Task]]:
    """What is computed of a product and of nothing else but a bias: as an expression, the bias, the tasks."""
    after, bias, tasks, last = ex.argument(0), None, list[Task](), product
    while (t := only_reader(g, last, readers)) is not None:
        others = [i for i in t.ins if g.roots[i] != g.roots[last.outs[0]]]
        if len(others) > (last is product):
            break
        args = [after if g.roots[i] == g.roots[last.outs[0]] else ex.argument(1) for i in t.ins]
        (new,) = ex.substitute(t.exprs, tuple(args))
        if others and new is ex.node("add", *reversed(dense.ADD.args)):
            new = dense.ADD  # the order of two summands makes no difference
        if new not in dense.EPILOGUES:
            break
        after, last = new, t
        tasks.append(t)
        bias = others[0] if others else bias
    return (after, bias, tasks) if tasks else (None, None, tasks)


def only_reader(g: Graph, maker: Task, readers: Readers) -> Task | None:
    """The elementwise task that alone reads a result that nobody keeps, all of it as it lies, and computes as much of it."""
    root = g.roots[maker.outs[0]]
    found = readers.get(root, [])
    if len(found) != 1 or g.values[root].fixed or root in g.mutable or not g.whole(maker.outs[0]):
        return None
    (t,) = found
    if t.kind != MAP or t.part or t.assigns or t.truths or len(t.outs) != 1:
        return None
    x, y = g.values[root].layout, g.values[t.outs[0]].layout
    reads = [i for i in t.ins if g.roots[i] == root]
    same = len(reads) == 1 and g.whole(reads[0]) and y.contiguous and y.size == x.size
    if not same or not g.whole(t.outs[0]) or g.roots[t.outs[0]] in g.mutable:
        return None
    return t if x.dtype is y.dtype is t.compute else None


def pays(g: Graph, last: Task, readers: Readers) -> bool:
    """Whether the last result has to lie in memory anyway; see above."""
    root = g.roots[last.outs[0]]
    found = readers.get(root, [])
    return g.values[root].fixed or len(found) > 1 or any(t.kind != MAP for t in found)


def steady(g: Graph, bias: int, product: Task, last: Task, place: dict[Task, int]) -> bool:
    """Whether the bias is there when the product is computed, and is the same behind it."""
    between = g.tasks[place[product] + 1 : place[last]]
    return not any(g.roots[o] == g.roots[bias] for t in between for o in t.outs)


def made(g: Graph, product: Task, after: ex.Node, tasks: list[Task], bias: int | None) -> Task | None:
    """The task for a product and what follows it; None where the library has no call for these layouts."""
    values = g.values
    ins = product.ins if bias is None else (*product.ins, bias)
    out, x = tasks[-1].outs[0], values[product.outs[0]].layout
    layouts = tuple([values[i].layout for i in ins])
    if dense.call_of(layouts, x, after, product.attrs.get("precision", "float32"))[0] is None:
        return None
    target = g.view(g.roots[out], x, values[out].offset)
    rows = tuple([r for t in (product, *tasks) for r in t.rows])
    new = Task(CALL, LAYER, ins, (target,), rows)
    new.attrs = product.attrs | {"after": after}
    new.fallible = product.fallible
    new.title = "·".join([t.title for t in (product, *tasks)])
    return new
