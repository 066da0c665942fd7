"""Emits a scalar expression for one vector of elements: what stands inside the loops of `elementwise.py` and `fused.py`.

Every instruction is IEEE arithmetic without fast-math flags, and a product is fused with the sum it goes into here, not by
LLVM. So the bits of a result depend on the expression alone, not on what else a kernel computes.
"""

from __future__ import annotations

import math

from ..ops import expression as ex
from .emit import Emitter, Value
from .vecmath import MATH


class Body:
    """Emits expressions over the same inputs for one vector of elements, what they share but once."""

    def __init__(self, e: Emitter, inputs: list[Value], compute: str):
        self.e, self.inputs, self.compute = e, inputs, compute
        self.values: dict[ex.Node, Value] = {}

    def outputs(self, nodes: tuple[ex.Node, ...]) -> list[Value]:
        with self.e.exact():
            for n in ex.walk(nodes):
                if n not in self.values:
                    self.values[n] = self.emit(n)
        return [self.values[n] for n in nodes]

    def number(self, n: ex.Node) -> Value:
        """The node's value in the dtype computed in; a truth value becomes 0 or 1."""
        v = self.values[n]
        return v if v.type == self.compute else self.e.cast(v, self.compute)

    def truth(self, n: ex.Node) -> Value:
        v = self.values[n]
        return v if v.type == "i1" else self.e.cast(v, "i1")

    def emit(self, n: ex.Node) -> Value:
        e, kind = self.e, n.kind
        if kind == "input":
            return self.inputs[n.value]
        if kind == "const":
            return e.const(n.value, "i1" if isinstance(n.value, bool) else self.compute)
        if kind in ("and", "or", "xor"):
            return getattr(e, kind if kind == "xor" else kind + "_", e.xor)(
                self.truth(n.args[0]), self.truth(n.args[1])
            )
        if kind == "not":
            return e.not_(self.truth(n.args[0]))
        if kind == "select":
            c, a, b = n.args
            as_value = self.truth if n.is_bool else self.number
            return e.select(self.truth(c), as_value(a), as_value(b))
        if kind in ("add", "sub") and self.is_float and "mul" in (n.args[0].kind, n.args[1].kind):
            return self.contracted(kind, *n.args)
        if kind in ("ne", "eq") and self.values[n.args[0]].type == "i1" and ex.is_const(n.args[1], 0):
            v = self.values[n.args[0]]
            return v if kind == "ne" else e.not_(v)
        return getattr(self, "emit_" + kind, self.plain)(kind, *(self.number(a) for a in n.args))

    def plain(self, kind: str, *args: Value) -> Value:
        e = self.e
        if kind in ex.COMPARISONS:
            return e.compare(kind, *args)
        if kind in MATH:
            return MATH[kind](e, *args)
        return getattr(e, {"min": "minimum", "max": "maximum"}.get(kind, kind))(*args)

    def contracted(self, kind: str, a: ex.Node, b: ex.Node) -> Value:
        """a + b or a - b, one of which is a product that is not rounded by itself."""
        e, number = self.e, self.number
        if a.kind == "mul":
            c = number(b)
            return e.fma(number(a.args[0]), number(a.args[1]), c if kind == "add" else e.neg(c))
        x = number(b.args[0])
        return e.fma(x if kind == "add" else e.neg(x), number(b.args[1]), number(a))

    def emit_product(self, kind: str, a: Value, b: Value) -> Value:
        return self.e.mul(a, b)

    @property
    def is_float(self) -> bool:
        return self.compute in ("f32", "f64")

    def zero(self) -> Value:
        return self.e.const(0, self.compute)

    def rounded(self, kind: str, x: Value) -> Value:
        return getattr(self.e, kind)(x) if self.is_float else x

    emit_floor = emit_ceil = emit_rint = emit_trunc = rounded

    def emit_neg(self, kind: str, x: Value) -> Value:
        return self.e.xor(x, self.e.const(True, "i1")) if self.compute == "i1" else self.e.neg(x)

    def emit_abs(self, kind: str, x: Value) -> Value:
        return x if self.compute in ("u8", "i1") else self.e.abs(x)

    def emit_sign(self, kind: str, x: Value) -> Value:
        e, zero, one = self.e, self.zero(), self.e.const(1, self.compute)
        if self.compute == "i1":
            return x
        if self.compute == "u8":
            return e.select(e.compare("ne", x, zero), one, zero)
        return e.select(
            e.compare("gt", x, zero), one, e.select(e.compare("lt", x, zero), e.const(-1, self.compute), x)
        )  # x itself where it is 0, -0 or nan

    def emit_isnan(self, kind: str, x: Value) -> Value:
        return self.e.compare("ne", x, x) if self.is_float else self.e.const(False, "i1")

    def emit_isinf(self, kind: str, x: Value) -> Value:
        if not self.is_float:
            return self.e.const(False, "i1")
        return self.e.compare("eq", self.e.abs(x), self.e.const(math.inf, self.compute))

    def emit_isfinite(self, kind: str, x: Value) -> Value:
        if not self.is_float:
            return self.e.const(True, "i1")
        return self.e.compare("lt", self.e.abs(x), self.e.const(math.inf, self.compute))

    def emit_floordiv(self, kind: str, a: Value, b: Value) -> Value:
        return self.floor_division(a, b)[0]

    def emit_mod(self, kind: str, a: Value, b: Value) -> Value:
        return self.floor_division(a, b)[1]

    def floor_division(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Quotient and remainder with the divisor's sign, as NumPy computes them (npy_divmod, npymath)."""
        e, zero, one = self.e, self.zero(), self.e.const(1, self.compute)
        if not self.is_float:
            q, r = e.div(a, b), e.rem(a, b)
            none = e.compare("eq", b, zero)
            if self.compute == "u8":
                return e.select(none, zero, q), e.select(none, zero, r)
            low = e.and_(e.compare("ne", r, zero), e.xor(e.compare("lt", r, zero), e.compare("lt", b, zero)))
            q, r = e.select(low, e.sub(q, one), q), e.select(low, e.add(r, b), r)
            return e.select(none, zero, q), e.select(none, zero, r)
        r = e.libm("fmodf" if self.compute == "f32" else "fmod", a, b)
        q = e.div(e.sub(a, r), b)
        low = e.and_(e.compare("ne", r, zero), e.xor(e.compare("lt", r, zero), e.compare("lt", b, zero)))
        r, q = e.select(low, e.add(r, b), r), e.select(low, e.sub(q, one), q)
        r = e.select(e.compare("eq", r, zero), e.copysign(zero, b), r)
        nearest = e.floor(q)
        nearest = e.select(e.compare("gt", e.sub(q, nearest), e.const(0.5, self.compute)), e.add(nearest, one), nearest)
        nearest = e.select(e.compare("eq", q, zero), e.copysign(zero, e.div(a, b)), nearest)
        return e.select(e.compare("eq", b, zero), e.div(a, b), nearest), r

    def emit_pow(self, kind: str, a: Value, b: Value) -> Value:
        e = self.e
        if self.is_float:
            return MATH["pow"](e, a, b)
        one, result, base, left = e.const(1, self.compute), e.const(1, self.compute), a, b
        for _ in range(8 if self.compute == "u8" else 31):  # square and multiply, bit by bit of the exponent
            odd = e.compare("ne", e.and_(left, one), self.zero())
            result = e.select(odd, e.mul(result, base), result)
            base, left = e.mul(base, base), e.lshr(left, one)
        if self.compute == "u8":
            return result
        reciprocal = e.div(one, a)  # 0 unless a is 1 or -1
        odd = e.compare("ne", e.and_(b, one), self.zero())
        negative = e.select(e.compare("eq", e.abs(a), one), e.select(odd, reciprocal, one), self.zero())
        return e.select(e.compare("lt", b, self.zero()), negative, result)
