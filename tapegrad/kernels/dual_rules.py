"""The rules of differentiation for dual numbers: one table, from which everything that Numba must know is registered.

A `Rule` names the callables it stands for (`math.sin`, `np.sin`), the one that computes the value, and the partial
derivative by each operand as an expression of (operands..., value). None is a derivative that is zero everywhere.
Registration concerns `DualType` alone: the typing functions answer None for every other type.
Slopes at points without a derivative are those of docs/design/derived-derivatives.md.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
from numba import njit, types
from numba.core.typing.templates import AbstractTemplate, infer, signature
from numba.extending import lower_builtin, type_callable

from .dual_numbers import DualType, Emitted, call, choose, level_of, scaled

SQRT_PI = math.sqrt(math.pi)
LN2, LN10 = math.log(2), math.log(10)


def emits(function: Callable) -> Callable:
    """A function Numba knows, for use in a rule."""
    return partial(call, function)


sin, cos, sinh, cosh = emits(math.sin), emits(math.cos), emits(math.sinh), emits(math.cosh)
exp, log, sqrt, power = emits(math.exp), emits(math.log), emits(math.sqrt), emits(operator.pow)
sign, copysign, rint, isnan = map(emits, (np.sign, np.copysign, np.rint, np.isnan))


@njit(error_model="numpy")
def digamma(x):
    """d/dx log|gamma(x)|: reflection, recurrence up to 8, asymptotic series (Abramowitz and Stegun 6.3.5-6.3.18)."""
    total = 0.0
    if x <= 0.0:
        total -= math.pi / math.tan(math.pi * x)
        x = 1.0 - x
    while x < 8.0:
        total -= 1.0 / x
        x += 1.0
    f = 1.0 / (x * x)
    series = f * (1 / 12 - f * (1 / 120 - f * (1 / 252 - f * (1 / 240 - f * (1 / 132 - f * (691 / 32760 - f / 12))))))
    return total + math.log(x) - 0.5 / x - series


psi = emits(digamma)


@dataclass(frozen=True, slots=True)
class Rule:
    """How to differentiate one function.

    `compute` emits the value where that is not a call of the first name; `tangent` emits the whole tangent from
    (operands, value, tangents or None) where that is cheaper than a sum over the partial derivatives.
    """

    names: tuple[Callable, ...]
    partials: tuple[Callable | None, ...]
    compute: Callable | None = None
    tangent: Callable | None = None


def literal_power(a: Emitted, n: int) -> Emitted:
    """a**n by repeated multiplication, for an exponent written in the source."""
    if n <= 0:
        return 1 / literal_power(a, -n) if n else a.constant(1)
    half = literal_power(a, n // 2)
    square = half * half if n > 1 else half
    return a * square if n % 2 else square


def power_value(a: Emitted, b: Emitted) -> Emitted:
    """a**b; short products for small literal exponents."""
    if b.literal is not None and abs(b.literal) <= 64:
        return literal_power(a, b.literal)
    return power(a, b)


def power_by_base(a: Emitted, b: Emitted, y: Emitted) -> Emitted:
    """b * a**(b-1), and 0 for b = 0 also at a = 0 (where a**-1 would raise or be inf)."""
    if b.literal is not None and abs(b.literal) <= 64:
        return b.literal * literal_power(a, b.literal - 1) if b.literal else a.constant(0)
    if isinstance(b.type, types.Integer):
        return b * power(a, choose(b.equals(0), 0, b - 1))
    slope = b * power(a, b - 1)
    return choose(a.equals(0), choose(b.equals(0), 0, slope), slope)


def power_by_exponent(a: Emitted, b: Emitted, y: Emitted) -> Emitted:
    """log(a) * a**b, and 0 where a = 0 and b >= 0 (the limit for b > 0)."""
    return choose(a.equals(0), choose(b < 0, y * log(a), 0), y * log(a))


def quotient_tangent(a: Emitted, b: Emitted, y: Emitted, da: Any, db: Any) -> Emitted:
    """(a' - y b') / b: one division."""
    if da is None:
        return -(y * db) / b
    return (da if db is None else da - y * db) / b


def product_tangent(a: Emitted, b: Emitted, y: Emitted, da: Any, db: Any) -> Emitted:
    """a' b + a b'."""
    if da is None or db is None:
        return a * db if da is None else da * b
    return da * b + a * db


def by_hypot(one: Emitted, y: Emitted) -> Emitted:
    """one / y, and 0 at the origin (the slope that abs has there)."""
    return choose(y.equals(0), 0, one / y)


def unary(*names: Callable, by: Callable) -> Rule:
    """A function of one operand; `by(x, y)` is its derivative."""
    return Rule(names, (by,))


RULES: tuple[Rule, ...] = (
    Rule((operator.add, operator.iadd, np.add), (lambda a, b, y: 1, lambda a, b, y: 1)),
    Rule((operator.sub, operator.isub, np.subtract), (lambda a, b, y: 1, lambda a, b, y: -1)),
    Rule((operator.mul, operator.imul, np.multiply), (lambda a, b, y: b, lambda a, b, y: a), tangent=product_tangent),
    Rule(
        (operator.truediv, operator.itruediv, np.true_divide),
        (lambda a, b, y: 1 / b, lambda a, b, y: -y / b),
        compute=operator.truediv,
        tangent=quotient_tangent,
    ),
    Rule((operator.mod, operator.imod, np.remainder), (lambda a, b, y: 1, lambda a, b, y: -rint((a - y) / b))),
    Rule((np.fmod, math.fmod), (lambda a, b, y: 1, lambda a, b, y: -rint((a - y) / b))),
    Rule(
        (operator.pow, operator.ipow, pow, math.pow, np.power, np.float_power),
        (power_by_base, power_by_exponent),
        compute=power_value,
    ),
    Rule((math.atan2, np.arctan2), (lambda a, b, y: b / (a * a + b * b), lambda a, b, y: -a / (a * a + b * b))),
    Rule((math.hypot, np.hypot), (lambda a, b, y: by_hypot(a, y), lambda a, b, y: by_hypot(b, y))),
    Rule((np.copysign, math.copysign), (lambda a, b, y: sign(a) * copysign(a.constant(1), b), None)),
    Rule((np.logaddexp,), (lambda a, b, y: exp(a - y), lambda a, b, y: exp(b - y))),
    Rule((np.logaddexp2,), (lambda a, b, y: exp((a - y) * LN2), lambda a, b, y: exp((b - y) * LN2))),
    unary(operator.neg, np.negative, by=lambda x, y: -1),
    unary(operator.pos, np.positive, by=lambda x, y: 1),
    unary(float, by=lambda x, y: 1),
    unary(abs, math.fabs, np.absolute, np.fabs, by=lambda x, y: sign(x)),
    unary(math.sin, np.sin, by=lambda x, y: cos(x)),
    unary(math.cos, np.cos, by=lambda x, y: -sin(x)),
    unary(math.tan, np.tan, by=lambda x, y: 1 + y * y),
    unary(math.asin, np.arcsin, by=lambda x, y: 1 / sqrt((1 - x) * (1 + x))),
    unary(math.acos, np.arccos, by=lambda x, y: -1 / sqrt((1 - x) * (1 + x))),
    unary(math.atan, np.arctan, by=lambda x, y: 1 / (1 + x * x)),
    unary(math.sinh, np.sinh, by=lambda x, y: cosh(x)),
    unary(math.cosh, np.cosh, by=lambda x, y: sinh(x)),
    unary(math.tanh, np.tanh, by=lambda x, y: 1 - y * y),
    unary(math.asinh, np.arcsinh, by=lambda x, y: 1 / sqrt(1 + x * x)),
    unary(math.acosh, np.arccosh, by=lambda x, y: 1 / sqrt((x - 1) * (x + 1))),
    unary(math.atanh, np.arctanh, by=lambda x, y: 1 / ((1 - x) * (1 + x))),
    unary(math.exp, np.exp, by=lambda x, y: y),
    unary(math.exp2, np.exp2, by=lambda x, y: y * LN2),
    unary(math.expm1, np.expm1, by=lambda x, y: exp(x)),
    unary(math.log, np.log, by=lambda x, y: 1 / x),
    unary(math.log2, np.log2, by=lambda x, y: 1 / (x * LN2)),
    unary(math.log10, np.log10, by=lambda x, y: 1 / (x * LN10)),
    unary(math.log1p, np.log1p, by=lambda x, y: 1 / (1 + x)),
    unary(math.sqrt, np.sqrt, by=lambda x, y: 0.5 / y),
    unary(np.cbrt, by=lambda x, y: 1 / (3 * y * y)),
    unary(np.square, by=lambda x, y: 2 * x),
    unary(np.reciprocal, by=lambda x, y: -y * y),
    unary(math.erf, by=lambda x, y: exp(-x * x) * (2 / SQRT_PI)),
    unary(math.erfc, by=lambda x, y: exp(-x * x) * (-2 / SQRT_PI)),
    unary(math.gamma, by=lambda x, y: y * psi(x)),
    unary(math.lgamma, by=lambda x, y: psi(x)),
    unary(math.degrees, np.degrees, np.rad2deg, by=lambda x, y: x.constant(180 / math.pi)),
    unary(math.radians, np.radians, np.deg2rad, by=lambda x, y: x.constant(math.pi / 180)),
)

# Flat functions: the result is a plain number (or bool), which no longer depends on the input. By number of operands.
FLAT: dict[int, tuple[Callable, ...]] = {
    1: (
        *(int, bool, round, operator.not_, math.floor, math.ceil, math.trunc),
        *(math.isnan, math.isinf, math.isfinite, np.isnan, np.isinf, np.isfinite, np.signbit, np.logical_not),
        *(np.sign, np.floor, np.ceil, np.trunc, np.rint),
    ),
    2: (
        *(operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne, operator.floordiv),
        *(operator.ifloordiv, np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal),
        *(np.floor_divide, np.logical_and, np.logical_or, np.logical_xor, round),
    ),
}

# Functions that return one of their operands, value and tangents; the first operand wins a tie. With max and min below.
CHOICES: dict[Callable, tuple[int, Callable]] = {
    np.maximum: (2, lambda a, b: choose(a >= b, a, choose(isnan(a), a, b))),
    np.minimum: (2, lambda a, b: choose(b >= a, a, choose(isnan(a), a, b))),
    np.fmax: (2, lambda a, b: choose(a >= b, a, choose(isnan(b), a, b))),
    np.fmin: (2, lambda a, b: choose(b >= a, a, choose(isnan(b), a, b))),
    np.where: (3, lambda condition, a, b: choose(call(bool, condition), a, b)),
    np.clip: (3, lambda x, low, high: choose(x > high, high, choose(x < low, low, x))),
}


def inner_types(operands: tuple[types.Type, ...]) -> tuple[types.Type, ...]:
    """The operands' types without the highest level of dual."""
    level = max(map(level_of, operands))
    return tuple(t.inner if isinstance(t, DualType) and t.level == level else t for t in operands)


def typer(arity: int, result: Callable) -> Callable:
    """The typing function Numba asks: `result(context, operand types)` if a dual is among numbers, else no answer."""

    def answer(context: Any, *operands: types.Type) -> types.Type | None:
        numbers = all(isinstance(t, DualType | types.Integer | types.Float | types.Boolean) for t in operands)
        return result(context, operands) if numbers and any(map(level_of, operands)) else None

    # Numba reads the signature, so each arity needs its own
    return {
        1: lambda context: lambda a: answer(context, a),
        2: lambda context: lambda a, b: answer(context, a, b),
        3: lambda context: lambda a, b, c: answer(context, a, b, c),
        4: lambda context: lambda a, b, c, d: answer(context, a, b, c, d),
    }[arity]


def register(name: Callable, arity: int, result: Callable, emit: Callable) -> None:
    """Tell Numba the result type of `name` on duals and how to emit it."""

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        operands = [emitted(context, builder, t, x) for t, x in zip(signature.args, arguments, strict=True)]
        return emit(*operands).cast(signature.return_type).ir

    type_callable(name)(typer(arity, result))
    for formal in itertools.product((DualType, types.Any), repeat=arity):
        if DualType in formal:
            lower_builtin(name, *formal)(lower)


def emitted(context: Any, builder: Any, numba_type: types.Type, value: Any) -> Emitted:
    """An operand as Numba hands it over; integer literals of the source come as Python ints."""
    if isinstance(value, int):
        constant = context.get_constant(types.unliteral(numba_type), value)
        return Emitted(context, builder, types.unliteral(numba_type), constant, value)
    return Emitted(context, builder, numba_type, value)


def known_result(name: Callable, context: Any, operands: tuple[types.Type, ...]) -> types.Type:
    """What Numba returns for `name` one level down."""
    return context.resolve_function_type(context.resolve_value_type(name), inner_types(operands), {}).return_type


def unified(context: Any, operands: tuple[types.Type, ...]) -> types.Type | None:
    """The type that holds every operand."""
    return context.unify_types(*operands)


def unified_branches(context: Any, operands: tuple[types.Type, ...]) -> types.Type | None:
    """The type that holds both branches of `np.where`."""
    return context.unify_types(*operands[1:])


def apply(rule: Rule, *operands: Emitted) -> Emitted:
    """Value and tangent of a rule's function on operands of which at least one is dual."""
    level = max(level_of(x.type) for x in operands)
    values, tangents = zip(*(x.split(level) for x in operands), strict=True)
    y = (rule.compute or emits(rule.names[0]))(*values)
    if rule.tangent:
        return y.joined(rule.tangent(*values, y, *tangents), level)
    total = None
    for slope, tangent in zip(rule.partials, tangents, strict=True):
        if slope is not None and tangent is not None:
            term = scaled(slope(*values, y), tangent)
            total = term if total is None else total + term
    return y.joined(y.constant(0).cast(y.type) if total is None else total, level)


def register_all() -> None:
    """Make Numba know the whole table."""
    for rule in RULES:
        for name in rule.names:

            def dual_result(context: Any, operands: Any, name: Callable = rule.names[0]) -> DualType:
                return DualType(known_result(name, context, operands), max(map(level_of, operands)))

            register(name, len(rule.partials), dual_result, partial(apply, rule))
    for arity, names in FLAT.items():
        for name in names:

            def flat(*operands: Emitted, name: Callable = name) -> Emitted:
                level = max(level_of(x.type) for x in operands)
                return call(name, *(x.split(level)[0] for x in operands))

            register(name, arity, partial(known_result, name), flat)
    for name, (arity, emit) in CHOICES.items():
        register(name, arity, unified_branches if name is np.where else unified, emit)
    for arity in (2, 3, 4):
        register(max, arity, unified, lambda *operands: reduce(lambda a, b: choose(b > a, b, a), operands))
        register(min, arity, unified, lambda *operands: reduce(lambda a, b: choose(b < a, b, a), operands))
    for number in (types.float32, types.float64):
        register_number_class(number)


def register_number_class(number: types.Float) -> None:
    """`np.float32(x)` converts both members of a dual. Numba's own typing of it refuses what is not a number."""

    def converted(numba_type: types.Type) -> types.Type:
        if isinstance(numba_type, DualType):
            return DualType(converted(numba_type.inner), numba_type.level)
        return number

    class NumberOfDual(AbstractTemplate):
        key = types.NumberClass(number)

        def generic(self, operands: Any, keywords: Any) -> Any:
            return signature(converted(operands[0]), operands[0]) if level_of(operands[0]) else None

    infer(NumberOfDual)


register_all()
