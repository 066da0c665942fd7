"""Derivatives of users' scalar functions for CUDA kernels, by rewriting their source: `derivative(fn, index)`.

On the CPU such derivatives come from a dual-number type that Numba is taught (`kernels/dual.py`); numba-cuda is used through its
public functions only, so here the function's text is followed instead. Beside each local variable that depends on the input
stands another one, its tangent; branches and loops stay as they are; a call of another function becomes a call of that
function's derivative. What comes out is a function of the same kind, so higher derivatives are had by doing it again. The
slopes where there is none, and the strong zero (a tangent of 0 contributes nothing), are those of the CPU:
docs/design/derived-derivatives.md.
"""

from __future__ import annotations

import ast
import builtins
import copy
import inspect
import textwrap
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import KernelError
from ...ops.registry import Op
from .slopes import FLAT, PASSING, SLOPES, power_by_base, power_by_exponent, remainder_by_divisor, scaled

texts: dict[Any, tuple[ast.FunctionDef, dict]] = {}  # of functions made here: their definition and their globals
_made: dict[tuple, types.FunctionType] = {}


def derivative(function: Callable, index: int, component: int | None = None) -> types.FunctionType:
    """The partial derivative of a scalar function by its input `index`, a function of the same inputs.

    component: which of its results, where it returns a tuple. KernelError where a line has no derivative.
    """
    arity = len(definition_of(_plain(function))[0].args.args)
    return _derived(_plain(function), tuple(i == index for i in range(arity)), component, seeded=True)


def _plain(function: Any) -> types.FunctionType:
    return getattr(function, "py_func", function)


def _derived(function, active: tuple[bool, ...], component: int | None, seeded: bool) -> types.FunctionType:
    """The tangent of `function` for tangents of its `active` parameters: 1 where `seeded`, else further parameters."""
    key = (function, active, component, seeded)
    found = _made.get(key)
    if found is None:
        found = _made[key] = _Rewriting(function, active, component, seeded).function()
    return found


def definition_of(function) -> tuple[ast.FunctionDef, dict]:
    """A function's definition and the names that it sees."""
    known = texts.get(function)
    if known is not None:
        return known
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        raise KernelError(
            f"the source of {function.__name__} is not available, so its derivative cannot be derived for CUDA; give it one "
            "with .derivative"
        ) from None
    named = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function.__name__]
    lambdas = [n for n in ast.walk(tree) if isinstance(n, ast.Lambda)]
    if named:
        definition = named[0]
        ast.increment_lineno(definition, function.__code__.co_firstlineno - 1)
    elif len(lambdas) == 1:
        body: list[ast.stmt] = [ast.copy_location(ast.Return(lambdas[0].body), lambdas[0])]
        definition = ast.FunctionDef("function", lambdas[0].args, body, [])
    else:
        raise KernelError(f"the source of {function.__name__} is ambiguous; give it a derivative with .derivative")
    scope = {**vars(builtins), **function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        scope[name] = cell.cell_contents
    return definition, scope


class _Rewriting:
    """From one function to its tangent."""

    def __init__(self, original, active: tuple[bool, ...], component: int | None, seeded: bool):
        self.original, self.component, self.seeded = original, component, seeded
        self.definition, self.scope = definition_of(original)
        self.names = [a.arg for a in self.definition.args.args]
        self.parameters = [n for n, on in zip(self.names, active, strict=True) if on]
        self.extra: dict[str, Any] = {}
        used = {n.id for n in ast.walk(self.definition) if isinstance(n, ast.Name)} | set(self.names)
        self.suffix = "_d"
        while any(name + self.suffix in used for name in used):
            self.suffix += "_"
        self.active = set(self.parameters)
        self.locals = {
            n.id for n in ast.walk(self.definition) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }
        while self._spread():
            """What is assigned from what depends on the input depends on it, until nothing new does."""

    def _spread(self) -> bool:
        before = len(self.active)
        for s in ast.walk(self.definition):
            if isinstance(s, ast.Assign | ast.AnnAssign | ast.AugAssign) and s.value is not None:
                for target in s.targets if isinstance(s, ast.Assign) else [s.target]:
                    for place, value in _pairs(target, s.value):
                        if self.depends(value):
                            self.active |= {n.id for n in ast.walk(place) if isinstance(n, ast.Name)}
        return len(self.active) > before

    def depends(self, e: ast.expr) -> bool:
        return any(isinstance(n, ast.Name) and n.id in self.active for n in ast.walk(e))

    def function(self) -> types.FunctionType:
        body: list[ast.stmt] = []
        arguments = [ast.arg(n) for n in self.names]
        defaults = list(self.definition.args.defaults)
        for name in self.parameters:
            if self.seeded:
                body.append(_assign(name + self.suffix, ast.Constant(1.0)))
            else:
                arguments.append(ast.arg(name + self.suffix))
        if not self.seeded:
            defaults = []
        body += self.block(self.definition.body)
        signature = ast.arguments([], arguments, None, [], [], None, copy.deepcopy(defaults))
        made: Any = ast.FunctionDef(f"{self.definition.name}_slope", signature, body, [], None)
        if hasattr(made, "type_params"):
            made.type_params = []
        scope = {**self.scope, **self.extra}
        module = ast.fix_missing_locations(ast.Module([made], []))
        exec(compile(module, self.original.__code__.co_filename, "exec"), scope)
        result = scope[made.name]
        texts[result] = made, scope
        return result

    def refuse(self, what: str, e: ast.AST) -> KernelError:
        name, line = self.original.__name__, getattr(e, "lineno", None)
        where = f", at line {line}: `{ast.unparse(e)}`" if line else ""
        return KernelError(f"{name}{where}: {what} has no derivative in CUDA kernels; give the op one with .derivative")

    # statements

    def block(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        return [made for s in statements for made in self.statement(s)]

    def statement(self, s: ast.stmt) -> list[ast.stmt]:
        if isinstance(s, ast.Return):
            if s.value is None:
                raise self.refuse("a return without a value", s)
            value = s.value
            if self.component is not None and isinstance(value, ast.Tuple):
                value = value.elts[self.component]
            return [ast.copy_location(ast.Return(self.tangent(value) or ast.Constant(0.0)), s)]
        if isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Name):
            whole = ast.BinOp(ast.Name(s.target.id, ast.Load()), s.op, s.value)
            return self.assignment(s.target, ast.copy_location(whole, s))
        if isinstance(s, ast.Assign) and len(s.targets) == 1:
            return self.assignment(s.targets[0], s.value)
        if isinstance(s, ast.AnnAssign) and s.value is not None:
            return self.assignment(s.target, s.value)
        if isinstance(s, ast.If | ast.While):
            made = copy.copy(s)
            made.body, made.orelse = self.block(s.body), self.block(s.orelse)
            return [made]
        if isinstance(s, ast.For) and not self.depends(s.iter):
            loop = copy.copy(s)
            loop.body, loop.orelse = self.block(s.body), self.block(s.orelse)
            return [loop]
        if isinstance(s, ast.Pass | ast.Break | ast.Continue):
            return [s]
        if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant):
            return []
        raise self.refuse(f"a {type(s).__name__} statement", s)

    def assignment(self, target: ast.expr, value: ast.expr) -> list[ast.stmt]:
        """Values and tangents at once, since each may read what the others had before."""
        places: list[ast.expr] = []
        values: list[ast.expr] = []
        for place, one in _pairs(target, value):
            if not isinstance(place, ast.Name):
                if self.depends(value):
                    raise self.refuse("an assignment to something other than a name", target)
                return [ast.Assign([copy.deepcopy(target)], copy.deepcopy(value))]
            places.append(ast.Name(place.id, ast.Store()))
            values.append(copy.deepcopy(one))
            if place.id in self.active:
                places.append(ast.Name(place.id + self.suffix, ast.Store()))
                values.append(self.tangent(one) or ast.Constant(0.0))
        if len(places) == 1:
            return [ast.Assign(places, values[0])]
        return [ast.Assign([ast.Tuple(places, ast.Store())], ast.Tuple(values, ast.Load()))]

    # expressions: the tangent, or None where it is 0 whatever the numbers are

    def tangent(self, e: ast.expr) -> ast.expr | None:
        if not self.depends(e) or isinstance(e, ast.Compare | ast.BoolOp):
            return None
        if isinstance(e, ast.Name):
            return ast.Name(e.id + self.suffix, ast.Load())
        if isinstance(e, ast.UnaryOp):
            inner = self.tangent(e.operand)
            return inner if isinstance(e.op, ast.UAdd) or inner is None else ast.UnaryOp(ast.USub(), inner)
        if isinstance(e, ast.IfExp):
            yes, no = self.tangent(e.body), self.tangent(e.orelse)
            if yes is None and no is None:
                return None
            return ast.IfExp(copy.deepcopy(e.test), yes or ast.Constant(0.0), no or ast.Constant(0.0))
        if isinstance(e, ast.BinOp):
            return self.binary(e)
        if isinstance(e, ast.Call):
            return self.call(e)
        raise self.refuse(f"a {type(e).__name__} expression", e)

    def binary(self, e: ast.BinOp) -> ast.expr | None:
        a, b = e.left, e.right
        da, db = self.tangent(a), self.tangent(b)
        if isinstance(e.op, ast.Add | ast.Sub):
            if db is not None and isinstance(e.op, ast.Sub):
                db = ast.UnaryOp(ast.USub(), db)
            return _sum(da, db)
        if isinstance(e.op, ast.Mult):
            return _sum(self.term(copy.deepcopy(b), da), self.term(copy.deepcopy(a), db))
        if isinstance(e.op, ast.Div):
            by_a = ast.BinOp(ast.Constant(1.0), ast.Div(), copy.deepcopy(b))
            by_b = ast.UnaryOp(ast.USub(), ast.BinOp(copy.deepcopy(e), ast.Div(), copy.deepcopy(b)))
            return _sum(self.term(by_a, da), self.term(by_b, db))
        if isinstance(e.op, ast.Pow):
            return self.by_rules((power_by_base, power_by_exponent), [a, b])
        if isinstance(e.op, ast.Mod):
            by_divisor = self.by_rules((None, remainder_by_divisor), [a, b])
            return _sum(da, by_divisor)
        if isinstance(e.op, ast.FloorDiv):
            return None
        raise self.refuse(f"the operator {type(e.op).__name__}", e)

    def term(self, slope: ast.expr, tangent: ast.expr | None) -> ast.expr | None:
        """slope · tangent, and 0 where the tangent is."""
        if tangent is None:
            return None
        return self.use(scaled, "scaled_", [slope, tangent])

    def use(self, function: Callable, name: str, arguments: list[ast.expr]) -> ast.expr:
        """A call of a function that the text does not name."""
        while self.extra.get(name, function) is not function or name in self.scope or name in self.locals:
            name += "_"
        self.extra[name] = function
        return ast.Call(ast.Name(name, ast.Load()), arguments, [])

    def by_rules(self, rules: tuple[Callable | None, ...], arguments: list[ast.expr]) -> ast.expr | None:
        """The sum of slope · tangent over the arguments; each rule is a function of all of them."""
        total: ast.expr | None = None
        for rule, e in zip(rules, arguments, strict=True):
            tangent = self.tangent(e)
            if rule is not None and tangent is not None:
                slope = self.use(rule, f"{rule.__name__}_", [copy.deepcopy(x) for x in arguments])
                total = _sum(total, self.term(slope, tangent))
        return total

    def call(self, e: ast.Call) -> ast.expr | None:
        if e.keywords or any(isinstance(a, ast.Starred) for a in e.args):
            raise self.refuse("a call with keywords", e)
        target = self.resolve(e.func)
        if isinstance(target, Op) and target.kind == "elementwise":
            target = target.fn
        target = getattr(target, "py_func", target)
        name = getattr(target, "__name__", "")
        known = (
            target in vars(builtins).values()
            or isinstance(target, np.ufunc | type)
            or not isinstance(target, types.FunctionType)
        )
        if known and name in FLAT:
            return None
        if known and name in PASSING and len(e.args) == 1:
            inner = self.tangent(e.args[0])
            return inner and ast.Call(copy.deepcopy(e.func), [inner], [])
        if known and name in ("max", "min", "maximum", "minimum", "fmax", "fmin") and len(e.args) >= 2:
            return self.extremum(e, ">=" if "max" in name else "<=")
        if known and name in SLOPES and len(SLOPES[name]) == len(e.args):
            return self.by_rules(SLOPES[name], e.args)
        if isinstance(target, types.FunctionType):
            tangents = [self.tangent(a) for a in e.args]
            flags = [t is not None for t in tangents]
            if not any(flags):
                return None
            count = len(definition_of(target)[0].args.args)
            if len(e.args) != count:
                raise self.refuse("a call that leaves out arguments", e)
            derived = _derived(target, tuple(flags), None, seeded=False)
            given = [copy.deepcopy(a) for a in e.args] + [t for t in tangents if t is not None]
            return self.use(derived, f"{target.__name__}_slope".replace("<lambda>", "function"), given)
        raise self.refuse(f"{ast.unparse(e.func)}", e)

    def extremum(self, e: ast.Call, sign: str) -> ast.expr | None:
        """The tangent of the operand that is taken, the first of equals."""
        chosen, tangent = e.args[0], self.tangent(e.args[0])
        for other in e.args[1:]:
            compare = ast.GtE() if sign == ">=" else ast.LtE()
            test = ast.Compare(copy.deepcopy(chosen), [compare], [copy.deepcopy(other)])
            branch = self.tangent(other)
            if tangent is not None or branch is not None:
                tangent = ast.IfExp(copy.deepcopy(test), tangent or ast.Constant(0.0), branch or ast.Constant(0.0))
            chosen = ast.IfExp(test, copy.deepcopy(chosen), copy.deepcopy(other))
        return tangent

    def resolve(self, e: ast.expr) -> Any:
        """The object that a name or a dotted name stands for."""
        if isinstance(e, ast.Name) and e.id in self.scope and e.id not in self.locals:
            return self.scope[e.id]
        if isinstance(e, ast.Name) and e.id in self.extra:
            return self.extra[e.id]
        if isinstance(e, ast.Attribute):
            owner = self.resolve(e.value)
            if hasattr(owner, e.attr):
                return getattr(owner, e.attr)
        raise self.refuse(ast.unparse(e), e)


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """(name, value) of an assignment, element by element where both sides are tuples."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]


def _assign(name: str, value: ast.expr) -> ast.stmt:
    return ast.Assign([ast.Name(name, ast.Store())], value)


def _sum(a: ast.expr | None, b: ast.expr | None) -> ast.expr | None:
    if a is None or b is None:
        return a or b
    return ast.BinOp(a, ast.Add(), b)
