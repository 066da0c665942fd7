"""Scalar expressions as Python text: what stands inside the loops of elementwise and fused kernels for CUDA.

The same rules as `kernels/body.py` has for the CPU: a product is fused with the sum that it goes into here and nowhere else,
every other operation rounds by itself, casts from floats saturate. So the results differ from the CPU's in the last digits
of elementary functions only.
"""

from __future__ import annotations

import math

from ...dtypes import DType, bfloat16, bool_, float32, uint8
from ...errors import KernelError
from ...ops import expression as ex
from .functions import LIBDEVICE

SUFFIX = {"float32": "f32", "float64": "f64"}
COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
LIMITS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1), "uint8": (0, 255)}


class Value:
    """A name or a constant in the text, and its dtype; bool_ is a truth value."""

    __slots__ = ("dtype", "text")

    def __init__(self, text: str, dtype: DType):
        self.text = text
        self.dtype = dtype


class Lines:
    """The statements of one element. `tag` ends every name, so that several elements can stand side by side."""

    def __init__(self, tag: str = ""):
        self.tag = tag
        self.lines: list[str] = []

    def let(self, text: str, dtype: DType) -> Value:
        name = f"t{len(self.lines)}{self.tag}"
        self.lines.append(f"{name} = {text}")
        return Value(name, dtype)

    def cast(self, v: Value, to: DType) -> Value:
        """v as another dtype. Floats saturate on the way to integers (nan gives 0), all to bool is `!= 0`."""
        have = v.dtype
        if have is to:
            return v
        if have.is_half:
            wide = f"widened({v.text})" if have is bfloat16 else f"float32({v.text})"
            return self.cast(self.let(wide, float32), to)
        if to.is_half:
            number = self.cast(v, float32).text
            return self.let(f"narrowed({number})" if to is bfloat16 else f"float16({number})", to)
        if to is bool_:
            return self.let(f"{v.text} != {have.name}(0)", bool_)
        if have.is_float and not to.is_float:
            low, high = LIMITS[to.name]
            number, x = have.name, v.text
            least, most = f"{number}({float(low)!r})", f"{number}({float(high)!r})"
            if to is uint8:
                return self.let(
                    f"uint8(int32({x})) if {least} < {x} < {most} else uint8({high} if {x} >= {most} else 0)", to
                )
            limit = f"{to.name}({high}) if {x} >= {most} else ({to.name}({low}) if {x} <= {least} else {to.name}(0))"
            return self.let(f"{to.name}({x}) if {least} < {x} < {most} else ({limit})", to)
        return self.let(f"{to.name}({v.text})", to)


class Body:
    """Emits expressions over the same inputs, what they share but once."""

    def __init__(self, lines: Lines, inputs: list[Value], compute: DType):
        self.e, self.inputs, self.compute = lines, inputs, compute
        self.values: dict[ex.Node, Value] = {}

    def outputs(self, nodes: tuple[ex.Node, ...]) -> list[Value]:
        for n in ex.walk(nodes):
            if n not in self.values:
                self.values[n] = self.emit(n)
        return [self.values[n] for n in nodes]

    def number(self, n: ex.Node) -> Value:
        return self.e.cast(self.values[n], self.compute)

    def truth(self, n: ex.Node) -> Value:
        return self.e.cast(self.values[n], bool_)

    def let(self, text: str) -> Value:
        """A number of the dtype computed in; integers, which Numba widens, are cut to their size again."""
        return self.e.let(text if self.compute.is_float else f"{self.compute.name}({text})", self.compute)

    def const(self, value) -> str:
        """The constant in the dtype computed in."""
        name = self.compute.name
        if self.compute is bool_:
            return repr(bool(value))
        if self.compute.is_float:
            value = float(value)
            text = "NAN" if value != value else ("INF" if value > 0 else "-INF") if math.isinf(value) else repr(value)
            return f"{name}({text})"
        return f"{name}({int(value) & 255 if self.compute is uint8 else int(value)})"

    def call(self, name: str, *values: Value | str) -> str:
        texts = [v.text if isinstance(v, Value) else v for v in values]
        return f"{name}_{SUFFIX[self.compute.name]}({', '.join(texts)})"

    def emit(self, n: ex.Node) -> Value:
        kind = n.kind
        if kind == "input":
            return self.inputs[n.value]
        if kind == "const":
            return (
                Value(repr(n.value), bool_) if isinstance(n.value, bool) else Value(self.const(n.value), self.compute)
            )
        if kind in ("and", "or", "xor"):
            first, second = self.truth(n.args[0]), self.truth(n.args[1])
            return self.e.let(f"{first.text} {'!=' if kind == 'xor' else kind} {second.text}", bool_)
        if kind == "not":
            return self.e.let(f"not {self.truth(n.args[0]).text}", bool_)
        if kind == "select":
            c, a, b = n.args
            taken = self.truth if n.is_bool else self.number
            return self.chosen(self.truth(c), taken(a), taken(b))
        if kind in ("add", "sub") and self.compute.is_float and "mul" in (n.args[0].kind, n.args[1].kind):
            return self.contracted(kind, *n.args)
        if kind in ("ne", "eq") and self.values[n.args[0]].dtype is bool_ and ex.is_const(n.args[1], 0):
            v = self.values[n.args[0]]
            return v if kind == "ne" else self.e.let(f"not {v.text}", bool_)
        args = [self.number(a) for a in n.args]
        if self.compute is bool_:
            return self.of_bools(kind, args)
        return getattr(self, "emit_" + kind, self.plain)(kind, n, *args)

    def chosen(self, condition: Value, a: Value, b: Value) -> Value:
        return self.e.let(f"{a.text} if {condition.text} else {b.text}", a.dtype)

    def of_bools(self, kind: str, args: list[Value]) -> Value:
        """What the dtype rules let through to truth values: comparisons, extrema, what changes nothing."""
        texts = [a.text for a in args]
        if kind in COMPARE:
            return self.e.let(f"uint8({texts[0]}) {COMPARE[kind]} uint8({texts[1]})", bool_)
        if kind in ("min", "max"):
            return self.e.let(f"{texts[0]} {'and' if kind == 'min' else 'or'} {texts[1]}", bool_)
        if kind == "neg":
            return self.e.let(f"not {texts[0]}", bool_)
        if kind in ("isnan", "isinf", "isfinite"):
            return Value(repr(kind == "isfinite"), bool_)
        if kind in ("abs", "sign", "floor", "ceil", "rint", "trunc"):
            return args[0]
        raise KernelError(f"{kind} of truth values has no CUDA kernel; convert them to numbers first")

    def plain(self, kind: str, n: ex.Node, *args: Value) -> Value:
        texts = [a.text for a in args]
        if kind in COMPARE:
            return self.e.let(f"{texts[0]} {COMPARE[kind]} {texts[1]}", bool_)
        if kind in ex.MATH:
            return self.let(self.call(kind, *args))
        operators = {"add": "+", "sub": "-", "div": "/"}
        if kind in operators:
            return self.let(f"{texts[0]} {operators[kind]} {texts[1]}")
        if kind in LIBDEVICE and self.compute.is_float:
            return self.let(self.call(kind, *args))
        raise KernelError(f"{kind} of {self.compute.name} has no CUDA kernel; convert the numbers first")

    def contracted(self, kind: str, a: ex.Node, b: ex.Node) -> Value:
        """a + b or a - b, one of which is a product that is not rounded by itself."""
        if a.kind == "mul":
            c = self.number(b).text
            return self.let(self.call("fma", *map(self.number, a.args), c if kind == "add" else f"-{c}"))
        x = self.number(b.args[0]).text
        return self.let(self.call("fma", x if kind == "add" else f"-{x}", self.number(b.args[1]), self.number(a)))

    def emit_mul(self, kind: str, n: ex.Node, a: Value, b: Value) -> Value:
        return self.let(self.call("mul", a, b) if self.compute.is_float else f"{a.text} * {b.text}")

    emit_product = emit_mul

    def extremum(self, kind: str, n: ex.Node, a: Value, b: Value) -> Value:
        """Nan where either is nan; of equal values the second, as on the CPU, where constants come first."""
        if n.args[1].kind == "const":
            a, b = b, a
        beside = f" or {a.text} != {a.text}" if self.compute.is_float else ""
        return self.e.let(
            f"{a.text} if {a.text} {'<' if kind == 'min' else '>'} {b.text}{beside} else {b.text}", a.dtype
        )

    emit_min = emit_max = extremum

    def rounded(self, kind: str, n: ex.Node, x: Value) -> Value:
        return self.let(self.call(kind, x)) if self.compute.is_float else x

    emit_floor = emit_ceil = emit_rint = emit_trunc = rounded

    def emit_neg(self, kind: str, n: ex.Node, x: Value) -> Value:
        return self.let(f"-{x.text}")

    def emit_abs(self, kind: str, n: ex.Node, x: Value) -> Value:
        if self.compute.is_float:
            return self.let(self.call("abs", x))
        return x if self.compute is uint8 else self.let(f"-{x.text} if {x.text} < 0 else {x.text}")

    def emit_sign(self, kind: str, n: ex.Node, x: Value) -> Value:
        one, minus, t = self.const(1), self.const(-1) if self.compute is not uint8 else "uint8(0)", x.text
        return self.let(f"{one} if {t} > {self.const(0)} else ({minus} if {t} < {self.const(0)} else {t})")

    def emit_isnan(self, kind: str, n: ex.Node, x: Value) -> Value:
        return self.e.let(f"{x.text} != {x.text}", bool_) if self.compute.is_float else Value("False", bool_)

    def emit_isinf(self, kind: str, n: ex.Node, x: Value) -> Value:
        if not self.compute.is_float:
            return Value("False", bool_)
        return self.e.let(f"{self.call('abs', x)} == {self.const(math.inf)}", bool_)

    def emit_isfinite(self, kind: str, n: ex.Node, x: Value) -> Value:
        if not self.compute.is_float:
            return Value("True", bool_)
        return self.e.let(f"{self.call('abs', x)} < {self.const(math.inf)}", bool_)

    def emit_sigmoid(self, kind: str, n: ex.Node, x: Value) -> Value:
        one = self.const(1)
        e = self.let(self.call("exp", f"-{self.call('abs', x)}"))
        return self.let(f"({one} if {x.text} >= {self.const(0)} else {e.text}) / ({one} + {e.text})")

    def emit_rsqrt(self, kind: str, n: ex.Node, x: Value) -> Value:
        return self.let(f"{self.const(1)} / {self.call('sqrt', x)}")  # libdevice's own is an approximation

    def emit_floordiv(self, kind: str, n: ex.Node, a: Value, b: Value) -> Value:
        return self.floor_division(a, b)[0]

    def emit_mod(self, kind: str, n: ex.Node, a: Value, b: Value) -> Value:
        return self.floor_division(a, b)[1]

    def floor_division(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Quotient and remainder with the divisor's sign, as NumPy computes them (npy_divmod, npymath)."""
        x, y, zero, one = a.text, b.text, self.const(0), self.const(1)
        if not self.compute.is_float:
            safe = self.let(f"{one} if {y} == 0 else {y}").text
            if self.compute is not uint8:  # the lowest integer by -1 overflows, and by 1 it has the same remainder
                least = self.const(LIMITS[self.compute.name][0])
                safe = self.let(f"{one} if {safe} == -1 and {x} == {least} else {safe}").text
            none = f"{zero} if {y} == 0 else "
            return self.let(f"{none}{x} // {safe}"), self.let(f"{none}{x} % {safe}")
        r = self.let(self.call("fmod", a, b)).text
        q = self.let(f"({x} - {r}) / {y}").text
        low = self.e.let(f"{r} != {zero} and ({r} < {zero}) != ({y} < {zero})", bool_).text
        q = self.let(f"{q} - {one} if {low} else {q}").text
        r = self.let(f"{r} + {y} if {low} else {r}").text
        rest = self.let(f"{self.call('copysign', zero, b)} if {r} == {zero} else {r}")
        whole = self.let(self.call("floor", q)).text
        whole = self.let(f"{whole} + {one} if {q} - {whole} > {self.const(0.5)} else {whole}").text
        signed = self.call("copysign", zero, f"{x} / {y}")
        whole = self.let(f"{signed} if {q} == {zero} else {whole}").text
        return self.let(f"{x} / {y} if {y} == {zero} else {whole}"), rest

    def emit_pow(self, kind: str, n: ex.Node, a: Value, b: Value) -> Value:
        if self.compute.is_float:
            return self.let(self.call("pow", a, b))
        made, base, left = (self.let(t).text for t in (self.const(1), a.text, b.text))
        name, count = self.compute.name, f"c{made}"
        self.e.lines += [  # square and multiply, bit by bit of the exponent
            f"for {count} in range({8 if self.compute is uint8 else 31}):",
            f"    {made} = {name}({made} * {base}) if {left} & 1 else {made}",
            f"    {base} = {name}({base} * {base})",
            f"    {left} = {name}({left} >> 1)",
        ]
        if self.compute is uint8:
            return Value(made, self.compute)
        x, p, one = a.text, b.text, self.const(1)
        negative = (
            f"({one} if {x} == 1 or not {p} & 1 else {self.const(-1)}) if {x} == 1 or {x} == -1 else {self.const(0)}"
        )
        return self.let(f"({negative}) if {p} < 0 else {made}")
