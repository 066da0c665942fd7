"""Text of LLVM IR for straight-line code on vectors: what generated elementwise kernels are written with.

An `Emitter` holds the instructions of one function body under construction. Every `Value` is a vector of `width` lanes
of one element type, so a kernel that mixes float32 and int64 mixes <16 x float> and <16 x i64>, and LLVM splits the
wide ones over registers. No pass manager runs on the text: what is emitted is what is selected, so each method writes
the instructions it wants and folds nothing later.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LLVM = {"f32": "float", "f64": "double", "i64": "i64", "i32": "i32", "i8": "i8", "u8": "i8", "i1": "i1"}
BITS = {"f32": 32, "f64": 64, "i64": 64, "i32": 32, "i8": 8, "u8": 8, "i1": 1}
HALVES = ("f16", "bf16")  # the bits of floats of two bytes: loaded, stored and cast, never computed with
LLVM |= dict.fromkeys(HALVES, "i16")
BITS |= dict.fromkeys(HALVES, 16)
FLOATS = ("f32", "f64")
UNSIGNED = ("u8", "i1")
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
# the metadata node every cold branch names; the number is high so that it meets no other in a module
COLD = '!9001 = !{!"branch_weights", i32 1, i32 2000}'


class Value:
    """A vector in the code being written: `name` stands in the text, `type` is the type of one lane."""

    __slots__ = ("name", "type")

    def __init__(self, name: str, type: str):
        self.name = name
        self.type = type

    def __repr__(self) -> str:
        return f"{self.type} {self.name}"

    @property
    def is_constant(self) -> bool:
        return self.name[0] != "%"


class Emitter:
    """Writes vector IR of `width` lanes, instruction by instruction.

    lines: the instructions so far. block: the label of the current basic block, for phis (emission can open blocks).
    declared: name -> declaration of every intrinsic and libm function called. definitions: other module-level lines.
    flags: fast-math flags of floating-point instructions; `exact()` clears them where rounding must be as written.

    >>> e = Emitter(4)
    >>> e.mul(Value("%x", "f32"), e.const(2.0, "f32"))
    f32 %t0
    >>> e.lines
    ['  %t0 = fmul contract nsz <4 x float> %x, splat (float 0x4000000000000000)']
    """

    def __init__(self, width: int, block: str = "entry"):
        self.width = width
        self.lines: list[str] = []
        self.block = block
        self.declared: dict[str, str] = {}
        self.definitions: list[str] = []
        self.flags = "contract nsz"
        self._names = 0
        self._labels = 0

    # names, blocks, text

    def new(self) -> str:
        """A fresh SSA name."""
        self._names += 1
        return f"%t{self._names - 1}"

    def label(self, prefix: str) -> str:
        """A fresh block label, without the `%`."""
        self._labels += 1
        return f"{prefix}{self._labels}"

    def start(self, label: str) -> None:
        """Open the block `label`; the block before it must have been ended by a branch."""
        self.lines.append(f"{label}:")
        self.block = label

    def vector(self, type: str) -> str:
        """The LLVM type of a value whose lanes are `type`."""
        return f"<{self.width} x {LLVM[type]}>"

    def raw(self, text: str, type: str) -> Value:
        """Emit one instruction and name its result."""
        value = Value(self.new(), type)
        self.lines.append(f"  {value.name} = {text}")
        return value

    @contextmanager
    def exact(self) -> Iterator[None]:
        """No fast-math flags within: products and sums round one by one, as error-compensated arithmetic needs."""
        flags, self.flags = self.flags, ""
        try:
            yield
        finally:
            self.flags = flags

    def const(self, value, type: str) -> Value:
        """The constant `value` in every lane; a float is written by its bits, so nan, inf and -0.0 are exact."""
        if type in FLOATS:
            text = float_bits(float(value), type)
        elif type == "i1":
            text = "true" if value else "false"
        else:
            text = str(int(value))
        return Value(f"splat ({LLVM[type]} {text})", type)

    def intrinsic(self, name: str, *values: Value, result: str | None = None, tail: str = "") -> Value:
        """Call `llvm.<name>`, overloaded on the first operand; `tail` is scalar arguments after the operands."""
        return self._intrinsic(f"llvm.{name}.{self._suffix(values[0].type)}", values, result or values[0].type, tail)

    def _suffix(self, type: str) -> str:
        return f"v{self.width}{type.replace('u', 'i')}"

    def _intrinsic(self, name: str, values: tuple[Value, ...], result: str, tail: str = "") -> Value:
        out = self.vector(result)
        types = [self.vector(v.type) for v in values]
        extra = [t.split()[0] for t in tail.split(", ")] if tail else []
        self.declared[name] = f"declare {out} @{name}({', '.join(types + extra)})"
        operands = [f"{t} {v.name}" for t, v in zip(types, values, strict=True)] + ([tail] if tail else [])
        flags = f"{self.flags} " if result in FLOATS and self.flags else ""
        return self.raw(f"call {flags}{out} @{name}({', '.join(operands)})", result)

    def _binary(self, opcode: str, a: Value, b: Value) -> Value:
        assert a.type == b.type, (opcode, a, b)
        flags = f" {self.flags}" if opcode[0] == "f" and self.flags else ""
        return self.raw(f"{opcode}{flags} {self.vector(a.type)} {a.name}, {b.name}", a.type)

    # arithmetic

    def add(self, a: Value, b: Value) -> Value:
        return self._binary("fadd" if a.type in FLOATS else "add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        return self._binary("fsub" if a.type in FLOATS else "sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        return self._binary("fmul" if a.type in FLOATS else "mul", a, b)

    def div(self, a: Value, b: Value) -> Value:
        """a / b; integers truncate, n / 0 is 0 and the lowest integer / -1 is itself."""
        if a.type in FLOATS:
            return self._binary("fdiv", a, b)
        zero, safe = self._divisor(a, b)
        return self.select(zero, self.const(0, a.type), self._quotient(a, safe))

    def rem(self, a: Value, b: Value) -> Value:
        """The remainder of `div`, with the sign of a, like C's `%` and fmod; n rem 0 is 0 for integers."""
        if a.type in FLOATS:
            return self.libm("fmodf" if a.type == "f32" else "fmod", a, b)
        zero, safe = self._divisor(a, b)
        return self.select(zero, self.const(0, a.type), self.sub(a, self.mul(self._quotient(a, safe), safe)))

    def _divisor(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Where b is 0, and b with 1 in the places where dividing by it would trap."""
        zero = self.compare("eq", b, self.const(0, b.type))
        trap = zero
        if a.type not in UNSIGNED:
            lowest = self.compare("eq", a, self.const(-(1 << (BITS[a.type] - 1)), a.type))
            trap = self.or_(zero, self.and_(lowest, self.compare("eq", b, self.const(-1, b.type))))
        return zero, self.select(trap, self.const(1, b.type), b)

    def _quotient(self, a: Value, b: Value) -> Value:
        if BITS[a.type] == 64:  # one idiv per lane: no vector instruction divides integers
            return self._binary("sdiv", a, b)
        # A float64 quotient of 32-bit integers never rounds across an integer, so truncating it is exact.
        with self.exact():
            q = self._binary("fdiv", self.cast(a, "f64"), self.cast(b, "f64"))
        q = self._convert("fptosi", q, "i32")
        return q if a.type == "i32" else self.cast(q, a.type)

    def neg(self, a: Value) -> Value:
        if a.type in FLOATS:
            return self.raw(f"fneg {self.vector(a.type)} {a.name}", a.type)
        return self._binary("sub", self.const(0, a.type), a)

    def abs(self, a: Value) -> Value:
        if a.type in FLOATS:
            return self.intrinsic("fabs", a)
        return a if a.type in UNSIGNED else self.intrinsic("abs", a, tail="i1 false")

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a*b + c, rounded once for floats."""
        if a.type in FLOATS:
            return self.intrinsic("fma", a, b, c)
        return self.add(self.mul(a, b), c)

    def sqrt(self, a: Value) -> Value:
        return self.intrinsic("sqrt", a)

    def floor(self, a: Value) -> Value:
        return self._round("floor", a)

    def ceil(self, a: Value) -> Value:
        return self._round("ceil", a)

    def rint(self, a: Value) -> Value:
        """To the nearest integer, ties to even."""
        return self._round("roundeven", a)

    def trunc(self, a: Value) -> Value:
        return self._round("trunc", a)

    def _round(self, name: str, a: Value) -> Value:
        return self.intrinsic(name, a) if a.type in FLOATS else a

    def copysign(self, a: Value, sign: Value) -> Value:
        return self.intrinsic("copysign", a, sign)

    def minimum(self, a: Value, b: Value) -> Value:
        """The smaller of the two, NaN where either is NaN."""
        return self._extreme("lt", a, b)

    def maximum(self, a: Value, b: Value) -> Value:
        """The larger of the two, NaN where either is NaN."""
        return self._extreme("gt", a, b)

    def _extreme(self, kind: str, a: Value, b: Value) -> Value:
        # `a < b ? a : b` is what minps computes: b where either is NaN. So only a NaN in a needs care, and a constant
        # goes first, because it has none.
        if b.is_constant:
            a, b = b, a
        m = self.select(self.compare(kind, a, b), a, b)
        if a.type not in FLOATS or (a.is_constant and "0x7FF8" not in a.name):
            return m
        nan = self.raw(f"fcmp uno {self.vector(a.type)} {a.name}, {a.name}", "i1")
        return self.select(nan, a, m)

    # comparison and bits

    def compare(self, kind: str, a: Value, b: Value) -> Value:
        """An i1: kind is lt, le, gt, ge, eq (false beside a NaN) or ne (true beside a NaN)."""
        assert a.type == b.type and kind in COMPARISONS, (kind, a, b)
        if a.type in FLOATS:
            predicate = "fcmp une" if kind == "ne" else f"fcmp o{kind}"
        elif kind in ("eq", "ne"):
            predicate = f"icmp {kind}"
        else:
            predicate = f"icmp {'u' if a.type in UNSIGNED else 's'}{kind}"
        return self.raw(f"{predicate} {self.vector(a.type)} {a.name}, {b.name}", "i1")

    def unsigned_le(self, a: Value, b: Value) -> Value:
        """a <= b of two integers read as unsigned: one comparison that checks a range."""
        return self.raw(f"icmp ule {self.vector(a.type)} {a.name}, {b.name}", "i1")

    def select(self, c: Value, a: Value, b: Value) -> Value:
        """a in the lanes where c, an i1, is set, else b."""
        assert c.type == "i1" and a.type == b.type, (c, a, b)
        t = self.vector(a.type)
        return self.raw(f"select {self.vector('i1')} {c.name}, {t} {a.name}, {t} {b.name}", a.type)

    def and_(self, a: Value, b: Value) -> Value:
        return self._binary("and", a, b)

    def or_(self, a: Value, b: Value) -> Value:
        return self._binary("or", a, b)

    def xor(self, a: Value, b: Value) -> Value:
        return self._binary("xor", a, b)

    def not_(self, a: Value) -> Value:
        return self._binary("xor", a, self.const(1 if a.type == "i1" else -1, a.type))

    def shl(self, a: Value, b: Value) -> Value:
        return self._binary("shl", a, b)

    def lshr(self, a: Value, b: Value) -> Value:
        return self._binary("lshr", a, b)

    def ashr(self, a: Value, b: Value) -> Value:
        return self._binary("ashr", a, b)

    def bitcast(self, v: Value, type: str) -> Value:
        """The same bits read as another type of the same size."""
        assert BITS[v.type] == BITS[type], (v, type)
        return self._convert("bitcast", v, type)

    def _convert(self, opcode: str, v: Value, type: str) -> Value:
        return self.raw(f"{opcode} {self.vector(v.type)} {v.name} to {self.vector(type)}", type)

    def cast(self, v: Value, type: str) -> Value:
        """v as another element type. Floats saturate on the way to integers (NaN gives 0), all to i1 is `!= 0`."""
        source = v.type
        if source == type:
            return v
        if source in HALVES:
            return self.cast(self._widened(v), type)
        if type in HALVES:
            return self._narrowed(self.cast(v, "f32"), type)
        if type == "i1":
            return self.compare("ne", v, self.const(0, source))
        if source in FLOATS:
            if type in FLOATS:
                return self._convert("fpext" if type == "f64" else "fptrunc", v, type)
            name = f"llvm.fpto{'u' if type == 'u8' else 's'}i.sat.{self._suffix(type)}.{self._suffix(source)}"
            return self._intrinsic(name, (v,), type)
        if source == "i1":
            return self.select(v, self.const(1, type), self.const(0, type))
        if type in FLOATS:
            return self._convert("uitofp" if source in UNSIGNED else "sitofp", v, type)
        if BITS[source] == BITS[type]:
            return Value(v.name, type)
        if BITS[source] > BITS[type]:
            return self._convert("trunc", v, type)
        return self._convert("zext" if source in UNSIGNED else "sext", v, type)

    def _widened(self, v: Value) -> Value:
        """The bits of halves as float32, exactly."""
        if v.type == "f16":
            half = self.raw(f"bitcast {self.vector('f16')} {v.name} to <{self.width} x half>", "f32").name
            return self.raw(f"fpext <{self.width} x half> {half} to {self.vector('f32')}", "f32")
        upper = self.shl(self._convert("zext", v, "i32"), self.const(16, "i32"))
        return self.bitcast(upper, "f32")

    def _narrowed(self, v: Value, type: str) -> Value:
        """float32 as the bits of halves: to the nearest, ties to even; nan stays nan."""
        if type == "f16":
            half = self.raw(f"fptrunc {self.vector('f32')} {v.name} to <{self.width} x half>", "f32").name
            return self.raw(f"bitcast <{self.width} x half> {half} to {self.vector('f16')}", "f16")
        bits = self.bitcast(v, "i32")
        upper = self.lshr(bits, self.const(16, "i32"))
        odd = self.and_(upper, self.const(1, "i32"))
        nearest = self.lshr(self.add(self.add(bits, odd), self.const(0x7FFF, "i32")), self.const(16, "i32"))
        nan = self.raw(f"fcmp uno {self.vector('f32')} {v.name}, {v.name}", "i1")
        return self._convert("trunc", self.select(nan, self.or_(upper, self.const(0x40, "i32")), nearest), type)

    # control

    def any(self, mask: Value) -> str:
        """The name of a scalar i1: is any lane of the mask set?"""
        name = f"llvm.vector.reduce.or.v{self.width}i1"
        self.declared[name] = f"declare i1 @{name}({self.vector('i1')})"
        return self.raw(f"call i1 @{name}({self.vector('i1')} {mask.name})", "i1").name

    def unlikely(self, mask: Value, usual: Value, slow: Callable[[], Value]) -> Value:
        """`usual`, but what `slow` emits in the lanes of mask: its code runs only if a lane is set, out of the way."""
        if COLD not in self.definitions:
            self.definitions.append(COLD)
        cold, join, before = self.label("cold"), self.label("join"), self.block
        self.lines.append(f"  br i1 {self.any(mask)}, label %{cold}, label %{join}, !prof !9001")
        self.start(cold)
        mixed = self.select(mask, slow(), usual)
        after = self.block
        self.lines.append(f"  br label %{join}")
        self.start(join)
        t = self.vector(usual.type)
        return self.raw(f"phi {t} [{usual.name}, %{before}], [{mixed.name}, %{after}]", usual.type)

    def libm(self, name: str, *values: Value) -> Value:
        """Call a scalar libm function on every lane, float32 or float64 by the operands: `e.libm("expf", x)`."""
        scalar = LLVM[values[0].type]
        self.declared[name] = f"declare {scalar} @{name}({', '.join([scalar] * len(values))}) nounwind"
        t = self.vector(values[0].type)
        out = "poison"
        for lane in range(self.width):
            operands = []
            for v in values:
                operands.append(self.new())
                self.lines.append(f"  {operands[-1]} = extractelement {t} {v.name}, i64 {lane}")
            result, whole = self.new(), self.new()
            self.lines.append(f"  {result} = call {scalar} @{name}({', '.join(f'{scalar} {o}' for o in operands)})")
            self.lines.append(f"  {whole} = insertelement {t} {out}, {scalar} {result}, i64 {lane}")
            out = whole
        return Value(out, values[0].type)


def float_bits(value: float, type: str) -> str:
    """The LLVM literal of a float: the bits of a double, which for float32 must be a value float32 holds.

    >>> float_bits(0.5, "f32"), float_bits(float("-inf"), "f64")
    ('0x3FE0000000000000', '0xFFF0000000000000')
    """
    if type == "f32":
        try:
            value = struct.unpack("<f", struct.pack("<f", value))[0]
        except OverflowError:
            value = float("inf") if value > 0 else float("-inf")
    if value != value:
        return "0x7FF8000000000000"
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
