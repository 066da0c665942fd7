"""Derivatives of functions: grad, value_and_grad, vjp, jvp, jacobian, hessian, hvp. All nest in each other.

Each runs the function on its arguments under fresh names (`alias` rows), so that a derivative inside a derivative asks only
for its own inputs, and sweeps back with the adjoints recorded wherever an outer derivative is watching.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

from ..errors import DtypeError, ShapeError
from ..ops.registry import REGISTRY, run_with, view
from .apply import is_tensor
from .create import tensor, zeros, zeros_like
from .reverse import seed_for, sweep
from .state import enable_grad
from .tensor import Leaf, Tensor


@view(public=False)
def alias(x: Tensor):
    """The same value under another name."""
    return (x,), {}


@alias.shape
def _(x):
    return x.shape, x.strides, 0


@alias.adjoint(0, saves=())
def _(g, y, x):
    return g


def _places(argnums, count: int, what: str) -> tuple[int, ...]:
    try:
        listed = (
            tuple(operator.index(a) for a in argnums)
            if isinstance(argnums, tuple | list)
            else (operator.index(argnums),)
        )
    except TypeError:
        raise DtypeError(f"{what}: argnums is an integer or a tuple of integers, not {argnums!r}") from None
    for a in listed:
        if not -count <= a < count:
            raise ShapeError(f"{what}: argnums names argument {a}, but {count} positional arguments were given")
    return tuple(a % count for a in listed)


def _fresh(x, what: str, place: int) -> Tensor:
    """x as a tensor whose gradient can be asked for: an alias where an outer derivative follows x, a new leaf elsewhere."""
    x = x if is_tensor(x) else tensor(x)
    if not x.dtype.is_float:
        raise DtypeError(
            f"{what}: argument {place} has dtype {x.dtype.name}; only floating arguments have derivatives. Use .astype(tg.float32)."
        )
    if x.node is not None:
        return run_with(alias, (x,))
    made = x.detach()
    made.node = Leaf()
    return made


def _run(f: Callable, args: tuple, kwargs: dict, places: tuple[int, ...], what: str):
    """f's output and the fresh inputs."""
    inputs = list(args)
    for p in places:
        inputs[p] = _fresh(inputs[p], what, p)
    return f(*inputs, **kwargs), [inputs[p] for p in places]


def _outer(tensors, args) -> bool:
    """True where an outer derivative watches: the results must be recorded."""
    return any(is_tensor(a) and a.node is not None for a in args) or any(type(t.node) is not Leaf for t in tensors)


def _pull(y: Tensor, seed: Tensor, fresh: list[Tensor], record: bool, release: bool) -> list[Tensor]:
    if y.node is None:
        return [zeros_like(x) for x in fresh]
    if type(y.node) is Leaf:
        return [seed if x.node is y.node else zeros_like(x) for x in fresh]
    nodes = [x.node for x in fresh]  # now: where a session stops matching in the sweep, tensors get other nodes
    found = sweep([(y, seed)], set(nodes), create_graph=record, release=release)
    return [found[n] if n in found else zeros_like(x) for n, x in zip(nodes, fresh, strict=True)]


def value_and_grad(f: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable:
    """A function that returns f's value and its gradient with respect to the arguments that `argnums` names.

    f returns a tensor of one element; with has_aux=True, a pair of that and anything else, and so does the value.

    >>> import tapegrad as tg
    >>> tg.value_and_grad(lambda x: (x * x).sum())(tg.tensor([1.0, 2.0]))
    (tensor(5.), tensor([2., 4.]))
    """

    @functools.wraps(f)
    def computed(*args, **kwargs):
        places = _places(argnums, len(args), "grad")
        with enable_grad():
            y, fresh = _run(f, args, kwargs, places, "grad")
            if has_aux and not (isinstance(y, tuple | list) and len(y) == 2):
                raise DtypeError(
                    f"grad: with has_aux=True the function returns a pair (value, anything), not {type(y).__name__}"
                )
            y, aux = y if has_aux else (y, None)
            _check_tensor(y, "grad")
            if y.size != 1:
                raise ShapeError(
                    f"grad: the function returned shape {y.shape}, wanted a single number. Sum it, or use tg.jacobian or tg.vjp."
                )
            record = _outer(fresh, args) or _tracks(y, fresh)
            grads = _pull(y, seed_for(y, None, "grad"), fresh, record, release=False)
            aux = _without_graph(aux, fresh)
        value = y if record else y.detach()
        grads = grads if record else [g.detach() for g in grads]
        made = tuple(grads) if isinstance(argnums, tuple | list) else grads[0]
        return ((value, aux) if has_aux else value), made

    return computed


def _tracks(y: Tensor, fresh: list[Tensor]) -> bool:
    """True where y also depends on differentiable values other than the fresh ones: a closed-over outer argument or parameter."""
    own = {x.node for x in fresh}
    stack, seen = [y.node], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen or node in own:
            continue
        seen.add(node)
        if type(node) is Leaf:
            return True
        stack.extend(node.parents)
    return False


def _without_graph(aux, fresh: list[Tensor]):
    """aux, its tensors detached where they depend on the fresh inputs alone: their graph would only hold memory."""
    if is_tensor(aux):
        watched = any(type(x.node) is not Leaf for x in fresh) or _tracks(aux, fresh)
        return aux if watched else aux.detach()
    if type(aux) is dict:
        return {k: _without_graph(v, fresh) for k, v in aux.items()}
    return type(aux)(_without_graph(v, fresh) for v in aux) if type(aux) in (list, tuple) else aux


def _check_tensor(y, what: str) -> None:
    if not is_tensor(y):
        raise DtypeError(
            f"{what}: the function returned {type(y).__name__}, wanted a tensor (has_aux=True takes a pair)"
        )
    if not y.dtype.is_float:
        raise DtypeError(f"{what}: the function returned dtype {y.dtype.name}, which has no derivative")


def grad(f: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable:
    """A function that returns the gradient of f with respect to the arguments that `argnums` names.

    >>> import tapegrad as tg
    >>> tg.grad(tg.grad(lambda x: x ** 3))(2.0)
    tensor(12.)
    """
    both = value_and_grad(f, argnums, has_aux)

    @functools.wraps(f)
    def computed(*args, **kwargs):
        value, grads = both(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

    return computed


def vjp(f: Callable, *args) -> tuple[Tensor, Callable]:
    """f(*args) and a function that maps a cotangent u of its shape to the tuple of uᵀ·J, one for each argument. May be called repeatedly.

    >>> import tapegrad as tg
    >>> y, pull = tg.vjp(lambda x: x * x, tg.tensor([1.0, 2.0]))
    >>> pull(tg.tensor([1.0, 10.0]))[0]
    tensor([ 2., 40.])
    """
    with enable_grad():
        y, fresh = _run(f, args, {}, tuple(range(len(args))), "vjp")
        _check_tensor(y, "vjp")
    outer = _outer(fresh, args) or _tracks(y, fresh)

    def pull(cotangent):
        u = seed_for(y, cotangent, "vjp")
        record = outer or u.requires_grad
        with enable_grad():
            grads = _pull(y, u, fresh, record, release=False)
        return tuple(g if record else g.detach() for g in grads)

    return (y if outer else y.detach()), pull


def differentiate(f: Callable, inputs: tuple, cotangents: tuple) -> tuple:
    """The gradients of the inputs, given those of the tensors of the tuple f(*inputs); None is a gradient of zeros.

    >>> import tapegrad as tg
    >>> differentiate(lambda x: (x * x, -x), (tg.tensor([1.0, 2.0]),), (tg.tensor([1.0, 1.0]), None))
    (tensor([2., 4.]),)
    """

    def weighed(*xs):
        total = None
        for y, u in zip(f(*xs), cotangents, strict=True):
            if u is not None:
                part = (y * u).sum()
                total = part if total is None else total + part
        return total

    _, pull = vjp(weighed, *inputs)
    return pull(None)


def jvp(f: Callable, primals: tuple, tangents: tuple) -> tuple[Tensor, Tensor]:
    """f(*primals) and J·tangents, its derivative in the direction of the tangents.

    Computed as the derivative of uᵀ·J with respect to u, which costs about two reverse sweeps.

    >>> import tapegrad as tg
    >>> tg.jvp(lambda x: x * x, (tg.tensor([1.0, 2.0]),), (tg.tensor([1.0, 0.5]),))[1]
    tensor([2., 2.])
    """
    primals, tangents = tuple(primals), tuple(tangents)
    if len(primals) != len(tangents):
        raise ShapeError(f"jvp: {len(primals)} primals and {len(tangents)} tangents; give one tangent for each primal")
    with enable_grad():
        y, fresh = _run(f, primals, {}, tuple(range(len(primals))), "jvp")
        _check_tensor(y, "jvp")
        outer = _outer(fresh, (*primals, *tangents)) or _tracks(y, fresh)
        u = zeros_like(y)
        u.node = Leaf()
        pulled = _pull(y, u, fresh, True, release=False)
        total = None
        for g, x, t in zip(pulled, fresh, tangents, strict=True):
            t = seed_for(x, t, "jvp")
            if g.node is not None:
                part = (g * t).sum()
                total = part if total is None else total + part
        if total is None or total.node is None:
            direction = zeros_like(y)
        else:
            direction = _pull(total, seed_for(total, None, "jvp"), [u], outer, release=False)[0]
    return (y, direction) if outer else (y.detach(), direction.detach())


def jacobian(f: Callable, argnums: int | tuple[int, ...] = 0) -> Callable:
    """A function that returns ∂f/∂x, of shape f(x).shape + x.shape; a tuple of them where argnums is one.

    One reverse sweep for each element of the output.

    >>> import tapegrad as tg
    >>> tg.jacobian(lambda x: x * x)(tg.tensor([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """

    @functools.wraps(f)
    def computed(*args, **kwargs):
        places = _places(argnums, len(args), "jacobian")
        with enable_grad():
            y, fresh = _run(f, args, kwargs, places, "jacobian")
            _check_tensor(y, "jacobian")
            record = _outer(fresh, args) or _tracks(y, fresh)
            rows: list[list[Tensor]] = [[] for _ in fresh]
            units = REGISTRY["eye"](y.size, dtype=y.dtype, device=y.device)
            for i in range(y.size):
                for row, g in zip(rows, _pull(y, units[i].reshape(y.shape), fresh, record, release=False), strict=True):
                    row.append(g)
            made = [
                REGISTRY["stack"](r).reshape(y.shape + x.shape) if r else zeros(y.shape + x.shape, x.dtype, x.device)
                for r, x in zip(rows, fresh, strict=True)
            ]
        made = made if record else [m.detach() for m in made]
        return tuple(made) if isinstance(argnums, tuple | list) else made[0]

    return computed


def hessian(f: Callable, argnums: int = 0) -> Callable:
    """A function that returns the matrix of second derivatives of f, of shape x.shape + x.shape. f returns one number.

    >>> import tapegrad as tg
    >>> tg.hessian(lambda x: (x ** 3).sum())(tg.tensor([1.0, 2.0])).tolist()
    [[6.0, 0.0], [0.0, 12.0]]
    """
    if not isinstance(argnums, int):
        raise DtypeError(
            f"hessian: argnums is one integer, not {argnums!r}; combine jacobian and grad for mixed blocks"
        )
    return jacobian(grad(f, argnums), argnums)


def hvp(f: Callable, primals: tuple, tangents: tuple) -> Tensor | tuple[Tensor, ...]:
    """The Hessian of f at `primals` times `tangents`, without forming it: two reverse sweeps. A tuple for several primals.

    >>> import tapegrad as tg
    >>> tg.hvp(lambda x: (x ** 3).sum(), (tg.tensor([1.0, 2.0]),), (tg.tensor([1.0, 1.0]),))
    tensor([ 6., 12.])
    """
    primals = primals if isinstance(primals, tuple | list) else (primals,)
    tangents = tangents if isinstance(tangents, tuple | list) else (tangents,)
    if len(primals) != len(tangents):
        raise ShapeError(f"hvp: {len(primals)} primals and {len(tangents)} tangents; give one tangent for each primal")
    places = tuple(range(len(primals)))

    def slope(*xs):
        grads = grad(f, places)(*xs)
        total = None
        for g, t in zip(grads, tangents, strict=True):
            part = (g * seed_for(g, t, "hvp")).sum()
            total = part if total is None else total + part
        return total

    made = grad(slope, places)(*primals)
    return made if len(primals) > 1 else made[0]
