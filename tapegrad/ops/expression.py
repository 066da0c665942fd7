"""Scalar expressions: what an elementwise op computes for one element, as a graph of a few dozen primitive kinds.

A node is (kind, arguments); equal nodes are one object, so shared parts are computed once. Kernels are generated from
these graphs, and derivatives are graphs again, so every derivative of every order is an op like any other.

Differentiation is forward, one input at a time: `d(select(c, a, b)) = select(c, da, db)`, so a branch that was not taken
never multiplies its infinities into the result (`sqrt(x) if x > 0 else 0.0` has derivative 0 at 0, not nan).
"""

from __future__ import annotations

import math

COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})
BOOLEAN = COMPARISONS | {"and", "or", "xor", "not", "isnan", "isinf", "isfinite"}
ROUNDING = frozenset({"floor", "ceil", "rint", "trunc", "sign", "floordiv"})
MATH = frozenset(
    "exp exp2 expm1 log log1p log2 log10 sin cos tan arcsin arccos arctan arctan2 sinh cosh tanh erf sigmoid pow rsqrt".split()
)
# "product" is mul that is rounded before anything is added to it: the result of one op that a fused kernel gives to the next
ARITHMETIC = frozenset("add sub mul product div mod neg abs sqrt min max select copysign".split())
KINDS = BOOLEAN | ROUNDING | MATH | ARITHMETIC | {"input", "const"}


class Node:
    """One scalar operation. Made by `node()`, `const()` and `argument()`; compared by identity."""

    __slots__ = ("args", "kind", "value")

    def __init__(self, kind: str, args: tuple[Node, ...], value=None):
        self.kind = kind
        self.args = args
        self.value = value  # of a const: the number; of an input: its index

    @property
    def is_bool(self) -> bool:
        """True where the value is a truth value rather than a number."""
        if self.kind == "const":
            return isinstance(self.value, bool)
        if self.kind == "select":
            return self.args[1].is_bool and self.args[2].is_bool
        return self.kind in BOOLEAN

    def __repr__(self) -> str:
        return text((self,))

    # fmt: off
    # operators, so that derivative rules read as formulas
    def __add__(self, other): return plus(self, as_node(other))
    def __radd__(self, other): return plus(as_node(other), self)
    def __sub__(self, other): return plus(self, -as_node(other))
    def __rsub__(self, other): return plus(as_node(other), -self)
    def __mul__(self, other): return times(self, as_node(other))
    def __rmul__(self, other): return times(as_node(other), self)
    def __truediv__(self, other): return node("div", self, as_node(other))
    def __rtruediv__(self, other): return node("div", as_node(other), self)
    def __neg__(self): return const(-self.value) if self.kind == "const" else node("neg", self)
    # fmt: on


_nodes: dict[tuple, Node] = {}


def node(kind: str, *args: Node) -> Node:
    """The node of that kind over those arguments."""
    key = (kind, args)
    found = _nodes.get(key)
    if found is None:
        if kind not in KINDS:
            raise KeyError(kind)
        found = _nodes[key] = Node(kind, args)
    return found


def const(value) -> Node:
    """A constant. Its dtype is the one it meets."""
    key = ("const", type(value), value if value == value else "nan", math.copysign(1.0, value))
    found = _nodes.get(key)
    if found is None:
        found = _nodes[key] = Node("const", (), value)
    return found


def argument(index: int) -> Node:
    """The input of that index."""
    key = ("input", index)
    found = _nodes.get(key)
    if found is None:
        found = _nodes[key] = Node("input", (), index)
    return found


def as_node(x) -> Node:
    return x if isinstance(x, Node) else const(x)


def is_const(n: Node, value) -> bool:
    return n.kind == "const" and not isinstance(n.value, bool) and n.value == value


def plus(a: Node, b: Node) -> Node:
    """a + b, with structural zeros dropped. For derivatives only: it takes -0 + 0 for -0."""
    if is_const(a, 0):
        return b
    if is_const(b, 0):
        return a
    if b.kind == "neg":
        return node("sub", a, b.args[0])
    return node("add", a, b)


def times(a: Node, b: Node) -> Node:
    """a * b, with structural zeros and ones dropped. For derivatives only: a structural 0 times inf is 0."""
    if is_const(a, 0) or is_const(b, 0):
        return const(0.0)
    if is_const(a, 1):
        return b
    if is_const(b, 1):
        return a
    if is_const(a, -1):
        return -b
    if is_const(b, -1):
        return -a
    return node("mul", a, b)


def select(c: Node, a: Node, b: Node) -> Node:
    return a if a is b else node("select", c, a, b)


def walk(outputs: tuple[Node, ...]) -> list[Node]:
    """All nodes below the outputs, arguments before users, each once."""
    order, seen, stack = [], set(), [(n, False) for n in reversed(outputs)]
    while stack:
        n, ready = stack.pop()
        if ready:
            order.append(n)
        elif n not in seen:
            seen.add(n)
            stack.append((n, True))
            stack.extend((a, False) for a in reversed(n.args) if a not in seen)
    return order


def inputs_of(outputs: tuple[Node, ...]) -> tuple[int, ...]:
    """The indices of the inputs that the outputs read, ascending."""
    return tuple(sorted(n.value for n in walk(outputs) if n.kind == "input"))


def text(outputs: tuple[Node, ...]) -> str:
    """A complete, unambiguous text of the graph: the content key of its kernel."""
    names: dict[Node, str] = {}
    lines = []
    for i, n in enumerate(walk(outputs)):
        if n.kind == "input":
            names[n] = f"x{n.value}"
        elif n.kind == "const":
            names[n] = repr(n.value)
        else:
            names[n] = f"t{i}"
            lines.append(f"t{i}={n.kind}({','.join(names[a] for a in n.args)})")
    return ";".join([*lines, "->" + ",".join(names[n] for n in outputs)])


def substitute(outputs: tuple[Node, ...], inputs: tuple[Node, ...]) -> tuple[Node, ...]:
    """The graph with its inputs replaced by other nodes: how one op calls another."""
    new: dict[Node, Node] = {}
    for n in walk(outputs):
        if n.kind == "input":
            new[n] = inputs[n.value]
        elif n.kind == "const":
            new[n] = n
        else:
            new[n] = node(n.kind, *(new[a] for a in n.args))
    return tuple(new[n] for n in outputs)


def derivative(output: Node, index: int) -> Node:
    """The expression of ∂output/∂input[index]; `const(0.0)` where it does not depend on it.

    >>> derivative(node("mul", argument(0), argument(0)), 0)
    t1=add(x0,x0);->t1
    """
    zero = const(0.0)
    tangents: dict[Node, Node] = {}
    for n in walk((output,)):
        if n.kind == "input":
            tangents[n] = const(1.0) if n.value == index else zero
        elif n.kind == "select":
            c, a, b = n.args
            tangents[n] = select(c, tangents[a], tangents[b])
        elif n.kind == "const" or n.is_bool or all(is_const(tangents[a], 0) for a in n.args):
            tangents[n] = zero
        else:
            total = zero
            for i, a in enumerate(n.args):
                if not is_const(tangents[a], 0):
                    total = total + local_partial(n, i) * tangents[a]
            tangents[n] = total
    return tangents[output]


def local_partial(n: Node, i: int) -> Node:
    """∂n/∂args[i], for a primitive node."""
    if n.kind in ROUNDING:
        return const(0.0)
    return PARTIALS[n.kind](n, *n.args)[i]


def call(kind: str, *args) -> Node:
    return node(kind, *(as_node(a) for a in args))


def _pow_partials(y: Node, x: Node, p: Node):
    # p·x^(p-1) is 0·inf at p = 0, x = 0; ln x is -inf at x = 0, where x^p itself is constant 0 for p > 0.
    wrt_x = select(call("eq", p, 0.0), const(0.0), p * call("pow", x, node("sub", p, const(1.0))))
    at_zero = node("and", call("eq", x, 0.0), call("ge", p, 0.0))
    return wrt_x, select(at_zero, const(0.0), y * call("log", x))


def _extremum_partials(kind: str):
    def partials(y: Node, a: Node, b: Node):
        tie = call("eq", a, b)
        half = const(0.5)  # ties share the gradient, as in PyTorch and JAX
        first = node(kind, a, b)
        return select(tie, half, select(first, const(1.0), const(0.0))), select(
            tie, half, select(first, const(0.0), const(1.0))
        )

    return partials


# Abramowitz & Stegun, chapters 4 and 7; NIST DLMF 4 and 7. y is the node itself, so that its value is shared.
PARTIALS = {
    "add": lambda y, a, b: (const(1.0), const(1.0)),
    "sub": lambda y, a, b: (const(1.0), const(-1.0)),
    "mul": lambda y, a, b: (b, a),
    "div": lambda y, a, b: (const(1.0) / b, -(y / b)),
    "mod": lambda y, a, b: (const(1.0), -call("floordiv", a, b)),
    "neg": lambda y, x: (const(-1.0),),
    "abs": lambda y, x: (call("sign", x),),
    "copysign": lambda y, a, b: (call("sign", a) * call("copysign", 1.0, b), const(0.0)),
    "sqrt": lambda y, x: (0.5 / y,),
    "rsqrt": lambda y, x: (-0.5 * (y / x),),
    "min": _extremum_partials("lt"),
    "max": _extremum_partials("gt"),
    "exp": lambda y, x: (y,),
    "exp2": lambda y, x: (y * math.log(2.0),),
    "expm1": lambda y, x: (call("exp", x),),
    "log": lambda y, x: (1.0 / x,),
    "log1p": lambda y, x: (1.0 / (1.0 + x),),
    "log2": lambda y, x: ((1.0 / math.log(2.0)) / x,),
    "log10": lambda y, x: ((1.0 / math.log(10.0)) / x,),
    "sin": lambda y, x: (call("cos", x),),
    "cos": lambda y, x: (-call("sin", x),),
    "tan": lambda y, x: (1.0 + y * y,),
    "arcsin": lambda y, x: (call("rsqrt", (1.0 - x) * (1.0 + x)),),
    "arccos": lambda y, x: (-call("rsqrt", (1.0 - x) * (1.0 + x)),),
    "arctan": lambda y, x: (1.0 / (1.0 + x * x),),
    "arctan2": lambda y, a, b: (b / (a * a + b * b), -(a / (a * a + b * b))),
    "sinh": lambda y, x: (call("cosh", x),),
    "cosh": lambda y, x: (call("sinh", x),),
    "tanh": lambda y, x: ((1.0 - y) * (1.0 + y),),
    "erf": lambda y, x: ((2.0 / math.sqrt(math.pi)) * call("exp", -(x * x)),),
    "sigmoid": lambda y, x: (y * (1.0 - y),),
    "pow": _pow_partials,
}
