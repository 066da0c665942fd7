"""The vector functions against float64 (or wider) results, in ulps, over the whole range of their type."""

from __future__ import annotations

import ctypes
import itertools

import llvmlite.binding as llvm
import numpy as np
import pytest
from scipy import special

from tapegrad.kernels.emit import LLVM, Emitter, Value
from tapegrad.kernels.vecmath import MATH

NUMPY = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "i8": np.int8, "u8": np.uint8}
# what each function computes, on float64 or longdouble arrays
EXACT = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "log2": np.log2,
    "log10": np.log10, "sin": np.sin, "cos": np.cos, "tan": np.tan, "arcsin": np.arcsin, "arccos": np.arccos,
    "arctan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "erf": special.erf,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "rsqrt": lambda x: 1 / np.sqrt(x),
    "pow": np.power, "arctan2": np.arctan2,
}  # fmt: skip
UNARY = [name for name in EXACT if name not in ("pow", "arctan2")]
BOUND = dict.fromkeys(EXACT, 4.0) | dict.fromkeys(("exp", "log", "tanh", "sigmoid", "erf", "sin", "cos"), 2.0)
# where the method changes: the ends of a clamp, of a polynomial, of a reduction
BRANCHES = (
    0.1732868,
    0.25,
    0.3465736,
    0.5,
    0.7071068,
    0.93,
    1.0,
    1.4142135,
    1.5707963,
    3.1415927,
    3.95,
    9.1,
    18.0,
    87.33655,
    88.72284,
    89.4159,
    103.97208,
    104.0,
    126.0,
    128.0,
    149.0,
    1e5,
    1.17549435e-38,
)
SPECIAL = (0.0, 1.0, 0.5, 1.5, 2.0, 3.0, 1e-45, 1e-39, 3e38, np.inf)


def loop(width: int, body, inputs: list[str], output: str, triple: str = "") -> str:
    """A module with `void kernel(inputs…, out, n)`, n a multiple of width, that stores body(e, *values)."""
    e = Emitter(width, block="loop")
    result = body(e, *(Value(f"%v{k}", t) for k, t in enumerate(inputs)))
    head = [f"  %i = phi i64 [0, %entry], [%next, %{e.block}]"]
    for k, t in enumerate(inputs):
        head.append(f"  %q{k} = getelementptr {LLVM[t]}, ptr %p{k}, i64 %i")
        head.append(f"  %v{k} = load {e.vector(t)}, ptr %q{k}, align 1")
    tail = [
        f"  %q = getelementptr {LLVM[output]}, ptr %out, i64 %i",
        f"  store {e.vector(output)} {result.name}, ptr %q, align 1",
        f"  %next = add nuw nsw i64 %i, {width}",
        "  %more = icmp slt i64 %next, %n",
        "  br i1 %more, label %loop, label %exit",
        "exit:",
        "  ret void",
        "}",
    ]
    pointers = ", ".join([*(f"ptr noalias %p{k}" for k in range(len(inputs))), "ptr noalias %out", "i64 %n"])
    start = [f"define void @kernel({pointers}) {{", "entry:", "  br label %loop", "loop:"]
    first = [f'target triple = "{triple or llvm.get_process_triple()}"', *e.declared.values(), *e.definitions]
    return "\n".join([*first, *start, *head, *e.lines, *tail])


class Loop:
    """A compiled loop: calling it on arrays of equal size returns a new array."""

    def __init__(self, body, inputs: list[str], output: str, width: int = 16, opt: int = 2):
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        module = llvm.parse_assembly(loop(width, body, inputs, output))
        module.verify()
        target = llvm.Target.from_triple(llvm.get_process_triple())
        machine = target.create_target_machine(
            cpu=llvm.get_host_cpu_name(),
            features=llvm.get_host_cpu_features().flatten(),
            opt=opt,
            codemodel="small",
            reloc="pic",
            jit=True,
        )
        self.engine = llvm.create_mcjit_compiler(module, machine)
        self.engine.finalize_object()
        self.width, self.output = width, NUMPY[output]
        self.call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(inputs) + 1), ctypes.c_int64)(
            self.engine.get_function_address("kernel")
        )

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        n = len(arrays[0])
        whole = -(-n // self.width) * self.width
        padded = [np.ascontiguousarray(a if whole == n else np.resize(a, whole)) for a in arrays]
        out = np.empty(whole, self.output)
        self.call(*(a.ctypes.data for a in padded), out.ctypes.data, whole)
        return out[:n]


def compiled(name: str, type: str = "f32", width: int = 16, opt: int = 2) -> Loop:
    return Loop(MATH[name], [type] * (2 if name in ("pow", "arctan2") else 1), type, width, opt)


def ulps(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """|got - exact| in units of the last place of exact, in the type of got; inf where only one is NaN.

    Below the smallest normal number the unit is the smallest subnormal; infinity stands one unit above the largest.
    """
    info, wide = np.finfo(got.dtype), exact.dtype.type
    exponent = np.clip(np.frexp(exact)[1] - 1, info.minexp, info.maxexp - 1)
    unit = np.ldexp(wide(1), exponent - info.nmant)
    end = np.ldexp(wide(1), info.maxexp)
    with np.errstate(invalid="ignore"):
        error = np.abs(np.clip(got.astype(wide), -end, end) - np.clip(exact, -end, end)) / unit
    error = np.where(np.isnan(got) & np.isnan(exact), 0, error)
    return np.where(np.isnan(error), np.inf, error)


def every(stride: int, offset: int = 0) -> np.ndarray:
    """Each stride-th float32 of all 2^32, by its bits: all exponents and both signs, subnormals and NaNs too."""
    return np.arange(offset, 2**32, stride, dtype=np.uint64).astype(np.uint32).view(np.float32)


def neighbourhoods(points, type=np.float32, radius: int = 200) -> np.ndarray:
    """The floats around each point, and around its negative."""
    integer = np.int32 if type is np.float32 else np.int64
    bits = np.array(points, type).view(integer)[:, None] + np.arange(-radius, radius + 1, dtype=integer)
    near = bits.reshape(-1).view(type)
    return np.concatenate([near, -near])


def worst(name: str, kernel: Loop, *arrays: np.ndarray) -> tuple[float, tuple]:
    """The greatest error in ulps, and the arguments where it is made."""
    wide = np.float64 if arrays[0].dtype == np.float32 or name == "erf" else np.longdouble
    with np.errstate(all="ignore"):
        error = ulps(kernel(*arrays), EXACT[name](*(a.astype(wide) for a in arrays)))
    at = int(np.argmax(error))
    return float(error[at]), tuple(float(a[at]) for a in arrays)


def check_special(name: str, kernel: Loop, *arrays: np.ndarray):
    """As NumPy: infinities, NaNs and the signs of zeros."""
    with np.errstate(all="ignore"):
        want = EXACT[name](*(a.astype(np.float64) for a in arrays))
    got = kernel(*arrays)
    assert np.all(ulps(got, want) <= 4 if got.dtype == np.float32 else np.isclose(got, want, 1e-15, 0, equal_nan=True))
    signed = ~np.isnan(want)
    wrong = signed & (np.signbit(got) != np.signbit(want))
    assert not wrong.any(), [tuple(a[wrong] for a in arrays), got[wrong], want[wrong]]


@pytest.mark.parametrize("name", UNARY)
def test_float32_within_its_bound_over_the_whole_range(name):
    kernel = compiled(name)
    offset = int(np.random.default_rng().integers(2039))
    x = np.concatenate([every(2039, offset), neighbourhoods(BRANCHES)])
    error, at = worst(name, kernel, x)
    assert error <= BOUND[name], f"{error:.3f} ulp at {at} (offset {offset})"


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("type", ["f32", "f64"])
def test_special_values(name, type):
    x = np.array([*SPECIAL, *(-v for v in SPECIAL), np.nan], NUMPY[type])
    check_special(name, compiled(name, type, width=8), x)


@pytest.mark.parametrize("width", [4, 8])
def test_other_widths_and_optimisation_levels_give_the_same(width):
    x = every(1_000_003)
    for name in UNARY:
        same = np.array_equal(compiled(name, width=width, opt=1)(x), compiled(name)(x), equal_nan=True)
        assert same, name


def pairs(rng, n: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Arguments of functions of two: any bits, a moderate range, results over all magnitudes, bases near 1."""
    any_x, any_y = (rng.integers(0, 2**32, n, dtype=np.uint64).astype(np.uint32).view(np.float32) for _ in range(2))
    x = np.abs(np.nan_to_num(any_x, posinf=2, neginf=2, nan=2)) + np.float32(1e-45)
    fitting = rng.uniform(-1, 1, n) * 130 / np.maximum(np.abs(np.log2(x.astype(np.float64))), 1e-6)
    return {
        "bits": (any_x, any_y), "moderate": (rng.uniform(-9, 9, n), rng.uniform(-9, 9, n)),
        "magnitudes": (x, fitting), "near one": (1 + rng.uniform(-1e-3, 1e-3, n), rng.uniform(-9e4, 9e4, n)),
        "integers": (rng.uniform(-9, 9, n), rng.integers(-30, 30, n)),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["pow", "arctan2"])
def test_two_operands_within_the_bound(name):
    kernel = compiled(name)
    for what, (x, y) in pairs(np.random.default_rng(7), 400_000).items():
        error, at = worst(name, kernel, x.astype(np.float32), y.astype(np.float32))
        assert error <= BOUND[name], f"{error:.3f} ulp at {at} ({what})"


@pytest.mark.parametrize("name", ["pow", "arctan2"])
@pytest.mark.parametrize("type", ["f32", "f64"])
def test_special_values_of_two_operands(name, type):
    """For pow this is the table of C99 F.9.4.4, crossed with large odd and even integers."""
    values = [*SPECIAL, 2.5, 16777215.0, 16777216.0, 33554432.0]
    values = [np.nan, *values, *(-v for v in values)]
    x, y = (np.array(v, NUMPY[type]) for v in zip(*itertools.product(values, values), strict=True))
    check_special(name, compiled(name, type, width=8), x, y)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="needs a long double wider than float64")
@pytest.mark.parametrize("name", UNARY)
def test_float64(name):
    rng = np.random.default_rng(3)
    x = rng.integers(0, 2**64, 100_000, dtype=np.uint64).view(np.float64)
    x = np.concatenate(
        [
            x,
            rng.uniform(-1, 1, 30_000),
            rng.uniform(-40, 40, 30_000),
            rng.uniform(-750, 750, 30_000),
            neighbourhoods([b for b in BRANCHES if b > 1e-30] + [708.0, 709.78, 745.0], np.float64, 50),
        ]
    )
    error, at = worst(name, compiled(name, "f64", width=8), x)
    ours = ("exp", "expm1", "log", "log1p", "tanh", "sigmoid", "sin", "cos")  # the others are libm's
    assert error <= (2 if name in ours else 4), f"{error:.3f} ulp at {at}"


def test_exact_values_and_ranges():
    """Values a user compares with: exact ones at the exact places, and never out of range."""

    def at(name, *v):
        return compiled(name)(*(np.array([a], np.float32) for a in v))[0]

    assert [at("exp", 0), at("cos", 0), at("sigmoid", 0), at("exp2", 10), at("log2", 8), at("pow", 3, 2)] == [
        1,
        1,
        0.5,
        1024,
        3,
        9,
    ]
    x = every(4999)
    for name in ("tanh", "erf", "sin", "cos", "sigmoid"):
        y = compiled(name)(x)
        assert np.nanmax(np.abs(y)) <= 1, name


# the instructions themselves

INTEGERS = {"i32": (-(2**31), -7, -2, -1, 0, 1, 2, 7, 2**31 - 1), "i64": (-(2**63), -7, -1, 0, 1, 3, 2**63 - 1),
            "i8": (-128, -7, -1, 0, 1, 7, 127), "u8": (0, 1, 2, 7, 127, 128, 255)}  # fmt: skip


@pytest.mark.parametrize("type", INTEGERS)
def test_integer_division_truncates_and_never_traps(type):
    values = INTEGERS[type]
    a, b = zip(*itertools.product(values, values), strict=True)
    x, y = np.array(a, NUMPY[type]), np.array(b, NUMPY[type])
    info = np.iinfo(NUMPY[type])
    exact = [0 if q == 0 else abs(p) // abs(q) * (1 if (p < 0) == (q < 0) else -1) for p, q in zip(a, b, strict=True)]
    exact = [info.min if v > info.max else v for v in exact]
    rest = [0 if q == 0 else abs(p) % abs(q) * (1 if p >= 0 else -1) for p, q in zip(a, b, strict=True)]
    assert Loop(Emitter.div, [type, type], type, width=8)(x, y).tolist() == exact
    assert Loop(Emitter.rem, [type, type], type, width=8)(x, y).tolist() == rest


@pytest.mark.parametrize("kind", ["lt", "le", "gt", "ge", "eq", "ne"])
@pytest.mark.parametrize("type", ["f32", "i64", "u8"])
def test_comparisons(kind, type):
    values = (0.0, -0.0, 1.0, np.inf, np.nan, -2.0) if type == "f32" else INTEGERS[type]
    x, y = (np.array(v, NUMPY[type]) for v in zip(*itertools.product(values, values), strict=True))
    numpy = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal,
             "ne": np.not_equal}[kind]  # fmt: skip
    got = Loop(lambda e, a, b: e.cast(e.compare(kind, a, b), "u8"), [type, type], "u8", width=8)(x, y)
    assert np.array_equal(got, numpy(x, y).astype(np.uint8))


@pytest.mark.parametrize("type", ["f32", "f64"])
def test_extremes_hand_on_nan(type):
    values = (np.nan, -np.inf, -1.0, 0.0, 2.0, np.inf)
    x, y = (np.array(v, NUMPY[type]) for v in zip(*itertools.product(values, values), strict=True))
    for ours, numpy in ((Emitter.minimum, np.minimum), (Emitter.maximum, np.maximum)):
        assert np.array_equal(Loop(ours, [type, type], type)(x, y), numpy(x, y), equal_nan=True)
        beside = Loop(lambda e, a, f=ours: f(e, a, e.const(0.5, a.type)), [type], type)
        assert np.array_equal(beside(x), numpy(x, NUMPY[type](0.5)), equal_nan=True)


def test_rounding():
    x = np.array([-2.5, -1.5, -0.5, -0.2, 0.5, 1.5, 2.5, 1e30, np.inf, np.nan], np.float32)
    for name in ("floor", "ceil", "rint", "trunc"):
        assert np.array_equal(Loop(getattr(Emitter, name), ["f32"], "f32")(x), getattr(np, name)(x), equal_nan=True)


@pytest.mark.parametrize("source", ["f32", "f64", "i32", "i64", "i8", "u8"])
@pytest.mark.parametrize("target", ["f32", "f64", "i32", "i64", "i8", "u8"])
def test_casts(source, target):
    floats = (-3.7, -1.0, -0.0, 0.5, 2.0, 99.9)
    values = floats if source in ("f32", "f64") else INTEGERS[source]
    if source in ("f32", "f64") and target == "u8":
        values = (0.0, 0.5, 2.0, 254.9)
    x = np.array(values, NUMPY[source])
    got = Loop(lambda e, v: e.cast(v, target), [source], target, width=4)(x)
    assert np.array_equal(got, x.astype(NUMPY[target]))
    truth = Loop(lambda e, v: e.cast(e.cast(v, "i1"), target), [source], target, width=4)(x)
    assert np.array_equal(truth, (x != 0).astype(NUMPY[target]))


def test_casts_of_floats_to_integers_saturate():
    x = np.array([np.nan, np.inf, -np.inf, 3e9, -3e9], np.float32)
    assert Loop(lambda e, v: e.cast(v, "i32"), ["f32"], "i32")(x).tolist() == [
        0,
        2**31 - 1,
        -(2**31),
        2**31 - 1,
        -(2**31),
    ]
    assert Loop(lambda e, v: e.cast(v, "u8"), ["f32"], "u8")(x).tolist() == [0, 255, 0, 255, 0]


def test_cold_code_replaces_only_its_lanes_and_nests():
    def body(e, x):
        def deeper():
            return e.unlikely(e.compare("gt", x, e.const(100, "f32")), e.neg(x), lambda: e.const(-1, "f32"))

        return e.unlikely(e.compare("gt", x, e.const(10, "f32")), x, deeper)

    x = np.array([1, 2, 30, 400] * 4 + [1] * 16, np.float32)
    assert Loop(body, ["f32"], "f32")(x).tolist() == [1, 2, -30, -1] * 4 + [1] * 16


def test_flags_leave_math_alone():
    e = Emitter(4)
    x = Value("%x", "f32")
    MATH["exp"](e, x)
    assert not any("contract" in line for line in e.lines)
    e.mul(x, x)
    assert "contract" in e.lines[-1]


@pytest.mark.parametrize("name", EXACT)
def test_compiles_for_another_machine(name):
    """Nothing in the text belongs to x86: the same IR makes code for AArch64."""
    try:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        target = llvm.Target.from_triple("aarch64-linux-gnu")
    except RuntimeError:
        pytest.skip("this LLVM has no AArch64")
    inputs = ["f32"] * (2 if name in ("pow", "arctan2") else 1)
    module = llvm.parse_assembly(loop(4, MATH[name], inputs, "f32", target.triple))
    assembly = target.create_target_machine(cpu="neoverse-n1", opt=2).emit_assembly(module)
    calls = assembly.count("\tbl\t")
    assert calls == (4 if name in ("sin", "cos", "tan") else 0)  # only huge arguments go to libm, one lane at a time
