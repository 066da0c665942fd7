"""A dual number as a type Numba knows, and the means to write its arithmetic as LLVM IR.

A dual is a pair (value, tangent). `DualType(inner, level)`: the inner type is a float, or a dual of a lower level when
derivatives are nested. The level tells apart the inputs of nested derivatives ("perturbation confusion", Siskind and
Pearlmutter 2008): a number without level L is a constant to the derivative of level L.

A rule of differentiation is an ordinary expression over `Emitted` operands; evaluating it appends instructions where
Numba is lowering the call. So a rule costs microseconds to compile, where a Numba overload costs a compilation.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir as llvm
from numba import types
from numba.extending import box, lower_cast, models, register_model


class DualType(types.Type):
    """Numba's type of a dual number: a value of type `inner` and a tangent of the same type."""

    def __init__(self, inner: types.Type, level: int):
        self.inner, self.level = inner, level
        super().__init__(name=f"dual({inner}, level={level})")

    def unify(self, typingctx: Any, other: types.Type) -> types.Type | None:
        """The type of a variable that is this dual on one path and `other` (a number or a dual) on another."""
        other = types.unliteral(other)
        if isinstance(other, DualType) and other.level > self.level:
            return other.unify(typingctx, self)
        if isinstance(other, DualType) and other.level == self.level:
            inner = typingctx.unify_pairs(self.inner, other.inner)
        elif isinstance(other, types.Boolean):
            inner = self.inner
        elif isinstance(other, DualType | types.Integer | types.Float):
            inner = typingctx.unify_pairs(self.inner, other)
        else:
            return None
        return None if inner is None else DualType(inner, self.level)


@register_model(DualType)
class DualModel(models.StructModel):
    """Two members side by side, so that LLVM sees two scalars."""

    def __init__(self, manager: Any, dual: DualType):
        super().__init__(manager, dual, [("value", dual.inner), ("tangent", dual.inner)])


@box(DualType)
def boxed(dual: DualType, value: Any, box_context: Any) -> Any:
    """A dual that reaches Python (`print(x)` in a function) shows its value."""
    return box_context.box(dual.inner, box_context.builder.extract_value(value, 0))


def level_of(numba_type: types.Type) -> int:
    """The derivative level of a type; 0 for a plain number."""
    return numba_type.level if isinstance(numba_type, DualType) else 0


def scalar_of(numba_type: types.Type) -> types.Type:
    """The number type at the bottom of a (nested) dual type."""
    while isinstance(numba_type, DualType):
        numba_type = numba_type.inner
    return numba_type


def pair(context: Any, builder: Any, dual: DualType, value: Any, tangent: Any) -> Any:
    """The IR of a dual from the IR of its two members."""
    empty = llvm.Constant(context.get_value_type(dual), llvm.Undefined)
    return builder.insert_value(builder.insert_value(empty, value, 0), tangent, 1)


@lower_cast(types.Integer, DualType)
@lower_cast(types.Float, DualType)
@lower_cast(types.Boolean, DualType)
def number_to_dual(context: Any, builder: Any, source: types.Type, target: DualType, number: Any) -> Any:
    """A number, or a dual of a lower level, is a constant: its tangent is zero."""
    zero = context.get_constant_null(target.inner)
    return pair(context, builder, target, context.cast(builder, number, source, target.inner), zero)


@lower_cast(DualType, DualType)
def dual_to_dual(context: Any, builder: Any, source: DualType, target: DualType, dual: Any) -> Any:
    """Widen both members; a dual of a lower level becomes the value of a constant."""
    if source.level < target.level:
        return number_to_dual(context, builder, source, target, dual)
    if source.level > target.level:
        raise NotImplementedError(f"a cast from {source} to {target} would lose a derivative")
    members = (context.cast(builder, builder.extract_value(dual, i), source.inner, target.inner) for i in (0, 1))
    return pair(context, builder, target, *members)


@dataclass(frozen=True, slots=True, eq=False)
class Emitted:
    """A number while IR is being written: its Numba type and its IR value. Arithmetic on it appends instructions.

    `literal` is its value where it is an integer written in the user's source (the 3 of `x ** 3`).
    """

    context: Any
    builder: Any
    type: types.Type
    ir: Any
    literal: int | None = None

    def constant(self, number: float) -> Emitted:
        """A constant in the scalar type of this number, so that float32 arithmetic stays float32."""
        scalar = scalar_of(self.type)
        return Emitted(self.context, self.builder, scalar, self.context.get_constant(scalar, number))

    def cast(self, target: types.Type) -> Emitted:
        """This number as another type."""
        if target == self.type:
            return self
        value = self.context.cast(self.builder, self.ir, self.type, target)
        return Emitted(self.context, self.builder, target, value)

    def split(self, level: int) -> tuple[Emitted, Emitted | None]:
        """Value and tangent at a level; the tangent is None where this number does not depend on that level."""
        if not isinstance(self.type, DualType) or self.type.level != level:
            return self, None
        value, tangent = (self.builder.extract_value(self.ir, i) for i in (0, 1))
        inner = self.type.inner
        return Emitted(self.context, self.builder, inner, value), Emitted(self.context, self.builder, inner, tangent)

    def joined(self, tangent: Any, level: int) -> Emitted:
        """The dual with this value and that tangent."""
        dual = DualType(self.type, level)
        both = pair(self.context, self.builder, dual, self.ir, tangent.cast(self.type).ir)
        return Emitted(self.context, self.builder, dual, both)

    def _float_op(self, other: Any, function: Callable, instruction: str) -> Emitted:
        other = other if isinstance(other, Emitted) else self.constant(other)
        if self.type == other.type and isinstance(self.type, types.Float):
            value = getattr(self.builder, instruction)(self.ir, other.ir)
            return Emitted(self.context, self.builder, self.type, value)
        return call(function, self, other)

    def __add__(self, other: Any) -> Emitted:
        return self._float_op(other, operator.add, "fadd")

    def __sub__(self, other: Any) -> Emitted:
        return self._float_op(other, operator.sub, "fsub")

    def __mul__(self, other: Any) -> Emitted:
        return self._float_op(other, operator.mul, "fmul")

    def __truediv__(self, other: Any) -> Emitted:
        """IEEE division: also in a function that Numba compiles to raise ZeroDivisionError."""
        other = other if isinstance(other, Emitted) else self.constant(other)
        if level_of(self.type) or level_of(other.type):
            return call(operator.truediv, self, other)
        typing = self.context.typing_context
        common = typing.resolve_function_type(operator.truediv, (self.type, other.type), {}).return_type
        return self.cast(common)._float_op(other.cast(common), operator.truediv, "fdiv")

    def __radd__(self, other: float) -> Emitted:
        return self.constant(other) + self

    def __rsub__(self, other: float) -> Emitted:
        return self.constant(other) - self

    def __rmul__(self, other: float) -> Emitted:
        return self.constant(other) * self

    def __rtruediv__(self, other: float) -> Emitted:
        return self.constant(other) / self

    def __neg__(self) -> Emitted:
        return call(operator.neg, self)

    def __lt__(self, other: Any) -> Emitted:
        return call(operator.lt, self, other)

    def __gt__(self, other: Any) -> Emitted:
        return call(operator.gt, self, other)

    def __ge__(self, other: Any) -> Emitted:
        return call(operator.ge, self, other)

    def equals(self, other: Any) -> Emitted:
        """Whether the values are equal (`==` keeps its Python meaning)."""
        return call(operator.eq, self, other)


def call(function: Callable, *operands: Any) -> Emitted:
    """Call any function Numba knows, builtin or jitted, on emitted operands and Python numbers."""
    first = next(x for x in operands if isinstance(x, Emitted))
    context, builder, typing = first.context, first.builder, first.context.typing_context
    operands = tuple(x if isinstance(x, Emitted) else first.constant(x) for x in operands)
    known = typing.resolve_value_type(function)
    signature = typing.resolve_function_type(known, tuple(x.type for x in operands), {})
    arguments = [x.cast(wanted).ir for x, wanted in zip(operands, signature.args, strict=True)]
    value = context.get_function(known, signature)(builder, arguments)
    return Emitted(context, builder, signature.return_type, value)


def choose(condition: Emitted, a: Any, b: Any) -> Emitted:
    """`a` where the condition holds, else `b`, without a branch, member by member so that LLVM sees scalars."""
    a = a if isinstance(a, Emitted) else b.constant(a)
    b = b if isinstance(b, Emitted) else a.constant(b)
    common = a.context.typing_context.unify_types(a.type, b.type)
    a, b = a.cast(common), b.cast(common)
    level = level_of(common)
    if level:
        (value_a, tangent_a), (value_b, tangent_b) = a.split(level), b.split(level)
        return choose(condition, value_a, value_b).joined(choose(condition, tangent_a, tangent_b), level)
    value = a.builder.select(condition.ir, a.ir, b.ir)
    return Emitted(a.context, a.builder, common, value)


def scaled(slope: Any, tangent: Emitted) -> Emitted:
    """slope * tangent, with the strong zero of Griewank and Walther: nothing at all comes from a zero tangent.

    An infinite slope (sqrt at 0) on a constant path would give inf * 0 = NaN otherwise.
    """
    if not isinstance(slope, Emitted):
        return tangent if slope == 1 else -tangent if slope == -1 else tangent * slope
    level = max(level_of(slope.type), level_of(tangent.type))
    if not level:
        return choose(tangent.equals(0), 0, slope * tangent)
    (slope_value, slope_tangent), (value, tangent_tangent) = slope.split(level), tangent.split(level)
    total = None if tangent_tangent is None else scaled(slope_value, tangent_tangent)
    if slope_tangent is not None:
        cross = scaled(slope_tangent, value)
        total = cross if total is None else total + cross
    return scaled(slope_value, value).joined(total, level)
