"""Reads an elementwise function's source into a scalar expression.

Taken: arithmetic, comparisons, conditional expressions, `if` statements, assignments, `abs`, `min`, `max`, functions of
`math` and `numpy` that are primitive, calls to other elementwise ops and to plain functions that can be read the same
way, and numbers from the enclosing scopes. Anything else (loops, arrays, unknown calls) raises `Unreadable`, and the
caller lets Numba compile the function instead.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import linecache
import textwrap
import types
from collections.abc import Callable

from .expression import COMPARISONS, MATH, Node, argument, as_node, const, node, select, substitute
from .scalar import PRIMITIVES

DEPTH = 16  # nested calls read before giving up: a recursive function would not end

_BINARY = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.FloorDiv: "floordiv", ast.Mod: "mod"}
_COMPARE = {ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne"}
_BITWISE = {ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor"}
_RENAMED = {
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "atan2": "arctan2",
    "fabs": "abs",
    "absolute": "abs",
    "maximum": "max",
    "minimum": "min",
    "power": "pow",
    "where": "select",
    "remainder": "mod",
}
_UNARY_NAMES = {"abs", "sqrt", "floor", "ceil", "rint", "trunc", "sign", "isnan", "isinf", "isfinite", "copysign"}
_MODULE_FUNCTIONS = (MATH - {"sigmoid", "rsqrt"}) | _UNARY_NAMES | {"min", "max", "pow", "select", "mod"}


class Unreadable(Exception):
    """The function is not a plain expression; the message says what stood in the way."""


def read(fn: Callable) -> tuple[Node, ...]:
    """The expressions that `fn` returns: one, or several where it returns a tuple."""
    arity = len(inspect.signature(fn).parameters)
    return _call(fn, tuple(argument(i) for i in range(arity)), 0)


def _call(fn: Callable, args: tuple[Node, ...], depth: int) -> tuple[Node, ...]:
    fn = getattr(fn, "py_func", fn)
    if not isinstance(fn, types.FunctionType) or depth > DEPTH:
        raise Unreadable(f"{fn!r} is not a plain function")
    definition = _definition(fn)
    spec = definition.args
    if spec.vararg or spec.kwarg or spec.kwonlyargs:
        raise Unreadable(f"{fn.__name__} takes *args, **kwargs or keyword-only arguments")
    names = [a.arg for a in [*spec.posonlyargs, *spec.args]]
    defaults = fn.__defaults__ or ()
    if len(args) < len(names):
        args = (*args, *(as_node(d) for d in defaults[len(defaults) - (len(names) - len(args)) :]))
    if len(args) != len(names):
        raise Unreadable(f"{fn.__name__} takes {len(names)} arguments, {len(args)} given")
    reader = _Reader(fn, dict(zip(names, args, strict=True)), depth)
    body = [ast.Return(definition.body)] if isinstance(definition, ast.Lambda) else definition.body
    result = reader.block(body)
    if result is None:
        raise Unreadable(f"{fn.__name__} has a path without a return")
    return result


def _definition(fn) -> ast.FunctionDef | ast.Lambda:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(fn)))
    except (OSError, SyntaxError, TypeError):
        raise Unreadable(f"the source of {fn.__name__} is not available") from None
    found = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.Lambda)]
    if fn.__name__ != "<lambda>":
        found = [n for n in found if getattr(n, "name", None) == fn.__name__][:1]
    else:
        found = [n for n in found if isinstance(n, ast.Lambda)]
    if len(found) != 1:
        raise Unreadable(f"the source of {fn.__name__} is ambiguous")
    if not fn.__module__.startswith("tapegrad.") and not _is_what_runs(fn.__code__):
        raise Unreadable(f"the source of {fn.__name__} is not what is running: its file was edited since")
    return found[0]


def _is_what_runs(code: types.CodeType) -> bool:
    """True where the file, as it is now, still compiles to that code: it may have been edited since it was imported."""
    text = "".join(linecache.getlines(code.co_filename))
    try:
        stack = [_compiled(text, code.co_filename)]
    except (SyntaxError, ValueError):
        return False
    while stack:
        found = stack.pop()
        if found == code:
            return True
        stack.extend(c for c in found.co_consts if isinstance(c, types.CodeType))
    return False


@functools.lru_cache(maxsize=8)
def _compiled(text: str, filename: str) -> types.CodeType:
    return compile(text, filename, "exec", dont_inherit=True)


class _Reader:
    """Follows one function's statements, with a value for each local name."""

    def __init__(self, fn, env: dict[str, Node], depth: int):
        self.fn, self.env, self.depth = fn, env, depth
        self.scope = {**vars(builtins), **fn.__globals__}
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            try:
                self.scope[name] = cell.cell_contents
            except ValueError:
                raise Unreadable(f"{name} has no value yet") from None

    def block(self, statements) -> tuple[Node, ...] | None:
        """Runs statements; the returned values, or None where the end is reached without a return."""
        for i, s in enumerate(statements):
            if isinstance(s, ast.Return):
                if s.value is None:
                    raise Unreadable("a return without a value")
                values = s.value.elts if isinstance(s.value, ast.Tuple) else [s.value]
                return tuple(self.value(v) for v in values)
            if isinstance(s, ast.If):
                return self.branch(s, statements[i + 1 :])
            if isinstance(s, ast.Assign) and len(s.targets) == 1:
                self.assign(s.targets[0], s.value)
            elif isinstance(s, ast.AnnAssign) and s.value is not None:
                self.assign(s.target, s.value)
            elif isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Name):
                self.assign(s.target, ast.BinOp(ast.Name(s.target.id, ast.Load()), s.op, s.value))
            elif not (isinstance(s, ast.Pass) or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))):
                raise Unreadable(f"a {type(s).__name__} statement")
        return None

    def branch(self, s: ast.If, rest) -> tuple[Node, ...] | None:
        """Both arms are followed to the end of the function, and each result is selected by the test."""
        test = self.truth(s.test)
        results = []
        for arm in (s.body, s.orelse):
            env, self.env = self.env, dict(self.env)
            results.append(self.block([*arm, *rest]))
            self.env = env
        yes, no = results
        if yes is None or no is None:
            raise Unreadable("a path without a return")
        if len(yes) != len(no):
            raise Unreadable("branches that return different numbers of values")
        return tuple(select(test, a, b) for a, b in zip(yes, no, strict=True))

    def assign(self, target, value):
        if isinstance(target, ast.Name):
            self.env[target.id] = self.value(value)
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            values = [self.value(v) for v in value.elts]
            for t, v in zip(target.elts, values, strict=True):
                if not isinstance(t, ast.Name):
                    raise Unreadable("an assignment to something other than a name")
                self.env[t.id] = v
        else:
            raise Unreadable("an assignment to something other than a name")

    def truth(self, e) -> Node:
        n = self.value(e)
        return n if n.is_bool else node("ne", n, const(0.0))

    def value(self, e) -> Node:
        method = getattr(self, "read_" + type(e).__name__, None)
        if method is None:
            raise Unreadable(f"a {type(e).__name__} expression")
        return method(e)

    def read_Constant(self, e):
        if not isinstance(e.value, bool | int | float):
            raise Unreadable(f"the constant {e.value!r}")
        return const(e.value)

    def read_Name(self, e):
        if e.id in self.env:
            return self.env[e.id]
        return self.number(e)

    read_Attribute = lambda self, e: self.number(e)  # noqa: E731  math.pi and the like

    def number(self, e) -> Node:
        found = self.resolve(e)
        if isinstance(found, bool | int | float):
            return const(found)
        if hasattr(found, "dtype") and getattr(found, "ndim", 1) == 0 and found.dtype.kind in "fiub":
            return const(found.item())
        raise Unreadable(f"{ast.unparse(e)}, which is not a number")

    def resolve(self, e):
        """The Python object a name or a dotted name stands for."""
        if isinstance(e, ast.Name) and e.id not in self.env:
            if e.id in self.scope:
                return self.scope[e.id]
        elif isinstance(e, ast.Attribute):
            owner = self.resolve(e.value)
            if isinstance(owner, types.ModuleType) and hasattr(owner, e.attr):
                return getattr(owner, e.attr)
        raise Unreadable(f"the name {ast.unparse(e)}")

    def read_UnaryOp(self, e):
        if isinstance(e.op, ast.Not):
            return node("not", self.truth(e.operand))
        n = self.value(e.operand)
        if isinstance(e.op, ast.USub):
            return const(-n.value) if n.kind == "const" and not isinstance(n.value, bool) else node("neg", n)
        if isinstance(e.op, ast.UAdd):
            return n
        if n.is_bool:
            return node("not", n)
        raise Unreadable("~ on a number")

    def read_BinOp(self, e):
        a, b = self.value(e.left), self.value(e.right)
        kind = _BINARY.get(type(e.op))
        if kind:
            return node(kind, a, b)
        if isinstance(e.op, ast.Pow):
            return power(a, b)
        kind = _BITWISE.get(type(e.op))
        if kind and a.is_bool and b.is_bool:
            return node(kind, a, b)
        raise Unreadable(f"the operator {type(e.op).__name__}")

    def read_Compare(self, e):
        left, result = self.value(e.left), None
        for op, right in zip(e.ops, e.comparators, strict=True):
            kind, right = _COMPARE.get(type(op)), self.value(right)
            if kind is None:
                raise Unreadable(f"the comparison {type(op).__name__}")
            one = node(kind, left, right)
            result = one if result is None else node("and", result, one)
            left = right
        return result

    def read_BoolOp(self, e):
        values = [self.value(v) for v in e.values]
        if not all(v.is_bool for v in values):
            raise Unreadable("and / or between numbers")
        result = values[0]
        for v in values[1:]:
            result = node("and" if isinstance(e.op, ast.And) else "or", result, v)
        return result

    def read_IfExp(self, e):
        return select(self.truth(e.test), self.value(e.body), self.value(e.orelse))

    def read_Call(self, e):
        if e.keywords or any(isinstance(a, ast.Starred) for a in e.args):
            raise Unreadable("a call with keywords")
        target, args = self.resolve(e.func), tuple(self.value(a) for a in e.args)
        primitive = primitive_of(target)
        if primitive in ("min", "max") and len(args) > 2:
            return node(primitive, node(primitive, args[0], args[1]), *args[2:]) if len(args) == 3 else self.too_many(e)
        if primitive == "pow":
            return power(*args)
        if primitive:
            return node(primitive, *args)
        expression = getattr(target, "expression", None)  # another elementwise op
        if callable(expression):
            values = expression()
            defaults = getattr(target.fn, "__defaults__", None) or ()
            missing = target.arity - len(args)
            if missing > len(defaults) or missing < 0:
                raise Unreadable(f"{target.name} with {len(args)} arguments")
            values = substitute(values, (*args, *(as_node(d) for d in defaults[len(defaults) - missing :])))
        else:
            values = _call(target, args, self.depth + 1)
        if len(values) != 1:
            raise Unreadable("a call that returns several values")
        return values[0]

    def too_many(self, e):
        raise Unreadable(f"{ast.unparse(e.func)} of more than three values")


def power(a: Node, b: Node) -> Node:
    """a ** b; small constant exponents become products, which are exact and differentiate everywhere."""
    if b.kind == "const" and not isinstance(b.value, bool):
        if b.value == 1:
            return a
        if b.value == 2:
            return node("mul", a, a)
        if b.value == 3:
            return node("mul", node("mul", a, a), a)
        if b.value == -1:
            return node("div", const(1.0), a)
    return node("pow", a, b)


def primitive_of(target) -> str | None:
    """The primitive kind a Python function stands for: `math.exp`, `numpy.maximum`, `abs`, `max`."""
    if not callable(target):
        return None
    if target in (abs, min, max, pow):
        return target.__name__
    if isinstance(target, types.FunctionType):
        return PRIMITIVES.get(target)
    name: str = getattr(target, "__name__", "")
    module: str = getattr(target, "__module__", "") or ""
    is_numpy = type(target).__module__ == "numpy" or module.startswith("numpy")
    if module == "math" or is_numpy:
        kind = _RENAMED.get(name, name)
        if module == "math" and name == "remainder":
            return None  # IEEE remainder, not the floor modulus
        if kind in _MODULE_FUNCTIONS or kind in COMPARISONS:
            return kind
    return None
