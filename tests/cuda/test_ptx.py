"""Kernels as PTX, without a GPU: they compile for every target, read 16 bytes at a time, and approximate nothing by accident."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import harvest
import numpy as np
import pytest
from registry_cases import elementwise, params
from test_ops_reference import run

import tapegrad as tg
from tapegrad.dtypes import ALL, HALVES, bool_, float32, float64, int32, int64, uint8
from tapegrad.errors import KernelError
from tapegrad.kernels.cuda import door
from tapegrad.kernels.cuda.elementwise import Chain, chain, work
from tapegrad.kernels.cuda.segments import Segment, launches
from tapegrad.kernels.fused import Load, Map
from tapegrad.layouts import layout
from tapegrad.ops import expression as ex
from tapegrad.ops import samples
from tapegrad.ops.registry import REGISTRY, partial
from tapegrad.optim import rules

# What libdevice's full-precision functions use inside (CUDA C++ Programming Guide, "Mathematical Functions", has their errors:
# 0 to 3 ulp): a first guess that is refined, or the hardware's 2**x on a reduced argument. There is no tanh, sin, cos, log2,
# sqrt and no division among them but that of fmod, whose result is exact.
LEGITIMATE = {
    "float32": {
        "arccos": {"rsqrt.approx.ftz.f32"},
        "arcsin": {"rsqrt.approx.ftz.f32"},
        "arctan": {"rcp.approx.ftz.f32"},
        "cosh": {"div.approx.ftz.f32", "ex2.approx.ftz.f32"},
        "erf": {"ex2.approx.ftz.f32"},
        "exp": {"ex2.approx.ftz.f32"},
        "exp2": {"ex2.approx.f32"},
        "floordiv": {"div.approx.f32", "rcp.approx.ftz.f32"},
        "mod": {"div.approx.f32", "rcp.approx.ftz.f32"},
        "pow": {"rcp.approx.ftz.f32"},
        "sigmoid": {"ex2.approx.ftz.f32"},
        "sinh": {"div.approx.ftz.f32", "ex2.approx.ftz.f32"},
        "tan": {"rcp.approx.ftz.f32"},
        "tanh": {"ex2.approx.ftz.f32", "rcp.approx.ftz.f32"},
    },
    "float64": {
        "arccos": {"rsqrt.approx.ftz.f64"},
        "arcsin": {"rsqrt.approx.ftz.f64"},
        "arctan": {"rcp.approx.ftz.f64"},
        "cosh": {"rcp.approx.ftz.f64"},
        "erf": {"ex2.approx.ftz.f32"},
        "log": {"rcp.approx.ftz.f64"},
        "log10": {"rcp.approx.ftz.f64"},
        "log1p": {"rcp.approx.ftz.f64"},
        "log2": {"rcp.approx.ftz.f64"},
        "pow": {"rcp.approx.ftz.f64"},
        "tan": {"rcp.approx.ftz.f64"},
        "tanh": {"ex2.approx.ftz.f32", "rcp.approx.ftz.f64"},
    },
}
IN_DOUBLE = {"sin", "cos", "tan"}  # reduce large float32 arguments in float64
ALL_INSIDE = set().union(*(s for table in LEGITIMATE.values() for s in table.values()))
SIZE = 64


def approximations(ptx: str) -> set[str]:
    return set(re.findall(r"[\w.]*\.(?:approx|full)[\w.]*", ptx))


def kinds_of(op) -> set[str]:
    return {n.kind for n in ex.walk(op.expression())}


def first_derivatives(op) -> list:
    return [made for i in range(op.arity) if (made := partial(op, i)[0]) is not None and made.kind == "elementwise"]


def inputs(op, dtype) -> list:
    return [layout((SIZE,), dtype)] * op.arity


def check_elementwise(op, dtype, cc=(9, 0)) -> None:
    """Compiles the op's kernels for contiguous inputs; looks at the one that takes groups."""
    grouped, plain = harvest.kernels(op, inputs(op, dtype), **({"dtype": float64} if op.name == "cast" else {}))
    text = harvest.ptx(grouped, op.name, cc)
    harvest.ptx(plain, op.name, cc)
    loads, stores = (re.findall(rf"{word}\.global\.\S+", text) for word in ("ld", "st"))
    wide = {1: r"\.[ub]32", 2: r"v4\.b32", 4: r"v4.[fub]32", 8: r"v2.[fub]64"}[dtype.itemsize]
    if op.arity and loads:
        assert any(re.search(wide, x) for x in loads), (op.name, loads)
    assert any(".v4." in x or ".v2." in x or x.endswith((".u32", ".b32")) for x in stores), (op.name, stores)
    kinds = kinds_of(op)
    allowed = set().union(*(LEGITIMATE.get(dtype.name, {}).get(k, set()) for k in kinds))
    assert approximations(text) <= allowed, op.name
    if dtype is float32 and not kinds & IN_DOUBLE and op.name != "cast":
        assert not re.search(r"\.f64\b", text), f"{op.name} computes float32 in float64"


@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in elementwise()])
def test_elementwise(op):
    """The op and its first derivatives, in float32."""
    for one in (op, *first_derivatives(op)):
        check_elementwise(one, float32)


# NVVM compiles for these two by two generations of LLVM, which write different PTX.
@pytest.mark.parametrize("cc", [(9, 0), (10, 0)], ids=["sm_90", "sm_100"])
@pytest.mark.parametrize(
    "op", [pytest.param(REGISTRY[name], id=name) for name in ("add", "maximum", "where", "square")]
)
@pytest.mark.parametrize("dtype", ALL + HALVES, ids=lambda d: d.name)
def test_dtypes(op, dtype, cc):
    check_elementwise(op, dtype, cc)


@pytest.mark.parametrize("source", ALL + HALVES, ids=lambda d: d.name)
@pytest.mark.parametrize("to", ALL + HALVES, ids=lambda d: d.name)
def test_casts(source, to):
    for kernel in harvest.kernels(REGISTRY["cast"], [layout((SIZE,), source)], dtype=to):
        harvest.ptx(kernel, "cast")


def of_kind(kind: str, dtype):
    """The kernel of one primitive function."""
    count = 2 if kind in ("pow", "arctan2", "mod", "floordiv", "div") else 1
    expression = ex.node(kind, *map(ex.argument, range(count)))
    x = layout((SIZE,), dtype)
    one = Chain((*map(Load, range(count)), Map(expression, tuple(range(count)), dtype, dtype)), (count,))
    return work(one, (x,) * count, (x,)).launches[0].kernel


@pytest.mark.parametrize("dtype", [float32, float64], ids=lambda d: d.name)
@pytest.mark.parametrize("kind", sorted(ex.MATH | {"div", "sqrt", "mod", "floordiv"}))
def test_no_approximation_but_those_inside_libdevice(kind, dtype):
    """The table above is what is used, neither more nor less."""
    assert approximations(harvest.ptx(of_kind(kind, dtype), kind)) == LEGITIMATE[dtype.name].get(kind, set())


@pytest.mark.parametrize("cc", [(9, 0), (10, 0)])
def test_a_product_that_is_rounded_is_not_contracted(cc):
    """mul + add become one fma within an op, as on the CPU, and stay two where a fused chain joins two ops."""
    a, b, c = map(ex.argument, range(3))
    x = layout((SIZE,), float32)

    def text(product: str) -> str:
        expression = ex.node("add", ex.node(product, a, b), c)
        one = Chain((*map(Load, range(3)), Map(expression, (0, 1, 2), float32, float32)), (3,))
        return work(one, (x,) * 3, (x,)).launches[0].kernel.ptx(cc)

    assert "fma.rn.f32" in text("mul") and "mul.rn.f32" not in text("mul")
    assert "mul.rn.f32" in text("product") and "fma" not in text("product")


SHARES = 4  # of the registry: one test would keep one process busy for two minutes


def primitives(dtype: str, share: int | None = None) -> list:
    """Kernels of the ops that are no scalar functions, by the registry's samples and their gradients, with an op's name."""
    device = harvest.install()
    device.kernels.clear()
    ops = params("primitive", "composite")
    for param in ops if share is None else ops[share::SHARES]:
        (op,) = param.values
        run(op, samples.draw(op, np.random.default_rng(0))[0], dtype, harvest.DEVICE)
    return [(kernel, name) for kernel, name in device.kernels.items() if kernel.name != "elementwise"]


def large(dtype) -> list:
    """Kernels that only large shapes need: parts, merged runs, sorted indices."""
    found = []
    for name in ("sum", "prod", "max", "min", "any", "all"):
        for shape in ((1 << 24,), (64, 1 << 20, 3)):
            found += harvest.kernels(REGISTRY[name], [layout(shape, dtype)], axes=(len(shape) // 2,), keepdims=False)
    found += harvest.kernels(REGISTRY["argmax"], [layout((1 << 22,), dtype)], axis=None, keepdims=False)
    found += harvest.kernels(REGISTRY["argsort_kernel"], [layout((5000, 3), dtype)], axis=0, descending=True)
    found += harvest.kernels(REGISTRY["cumsum_kernel"], [layout((1 << 20,), dtype)], axis=0)
    places = layout((5000,), int64), layout((5000, 8), int32)
    values = layout((5000, 8), dtype)
    found += harvest.kernels(REGISTRY["index_add"], [values, places[0]], axis=0, size=100)
    found += harvest.kernels(REGISTRY["scatter_kernel"], [values, places[1]], axis=0, size=100)
    if dtype.is_float:
        found += harvest.kernels(REGISTRY["logsumexp_kernel"], [layout((1 << 24,), dtype)], axes=(0,), keepdims=False)
        wide = layout((64, 50_000), dtype)  # rows that a block cannot keep
        classes = [wide, layout((64,), int64)]
        found += harvest.kernels(REGISTRY["softmax_kernel"], [layout((64, 5000), dtype)], axis=1)
        found += harvest.kernels(REGISTRY["softmax_kernel"], [wide], axis=1)
        found += harvest.kernels(REGISTRY["log_softmax_kernel"], [wide], axis=1)
        found += harvest.kernels(REGISTRY["softmax_slope"], [wide, wide], axis=1)
        found += harvest.kernels(REGISTRY["log_softmax_slope"], [wide, wide], axis=1)
        found += harvest.kernels(REGISTRY["cross_entropy_slope"], [*classes, layout((64,), dtype)], ignore_index=-100)
    return found


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_primitives(dtype, share):
    found = primitives(dtype, share)
    assert len(found) > 5
    check_templates(found)


@pytest.mark.parametrize("dtype", ALL, ids=lambda d: d.name)
def test_large_shapes(dtype):
    found = dict.fromkeys(large(dtype), dtype.name)
    assert len(found) > 15
    check_templates(list(found.items()))


def check_templates(found: list) -> None:
    for kernel, name in found:
        text = harvest.ptx(kernel, name)
        assert approximations(text) <= ALL_INSIDE - {"div.approx.f32"}, (name, kernel)
        assert not re.search(r"^\s*(@%p\d+ )?(atom|red)\.", text, re.M), (
            f"{name}: atomics depend on the order of threads"
        )


def test_rows_are_read_by_groups():
    kernel, plain = harvest.kernels(REGISTRY["sum"], [layout((64, 4096), float32)], axes=(1,), keepdims=False)
    assert "ld.global.v4.f32" in kernel.ptx() and ".v4." not in plain.ptx()


@pytest.mark.parametrize("cc", [(7, 5), (9, 0), (10, 0)], ids=lambda cc: f"sm_{cc[0]}{cc[1]}")
@pytest.mark.parametrize("count", [2, 5, 50])
def test_an_update_of_several_arrays(count, cc):
    """Global accesses of 16 bytes, although each block finds its addresses among the parameters; names that stay short."""
    x = layout((8,), float32)
    adam = chain(rules.adam.expression(), 11, (x,) * 3, float32)
    shared = tuple(range(1, 8))
    arrays = [Segment(1000 + k, (-4 * k, -4 * k - 1, -4 * k - 2, -4 * k - 3)) for k in range(count)]
    some = [Segment(n, (*p, *shared, p[0], *p[2:])) for n, p in arrays]
    ((launch, _),) = launches(adam, (float32,) * 11, (float32,) * 3, "vvvvsssssssvvv", some)
    text = harvest.ptx(launch.kernel, "adam", cc)
    kind = r"\.global\.v4\.[fb]32"
    assert len(re.findall("ld" + kind, text)) == 4 and len(re.findall("st" + kind, text)) == 3
    assert not re.search(r"\b(ld|st)\.([fbu]\d|local)", text), "nothing but global memory and parameters"
    assert text.count("\t.param .u64") <= 512 and len(text) < 2000 * count + 10_000
    assert launch.unaligned is not None and ".v4." not in harvest.ptx(launch.unaligned.kernel, "adam", cc)


HOT = {
    "add": (REGISTRY["add"], [layout((1 << 20,), float32)] * 2, {}),
    "bias": (REGISTRY["add"], [layout((1024, 1024), float32), layout((1024,), float32)], {}),
    "tanh": (REGISTRY["tanh"], [layout((1 << 20,), float32)], {}),
    "gelu": (REGISTRY["gelu_erf"], [layout((1 << 20,), float32)], {}),
    "sum": (REGISTRY["sum"], [layout((1024, 4096), float32)], {"axes": (1,), "keepdims": False}),
    "sum of columns": (REGISTRY["sum"], [layout((4096, 1024), float32)], {"axes": (0,), "keepdims": False}),
    "softmax": (REGISTRY["softmax_kernel"], [layout((1024, 1000), float32)], {"axis": 1}),
    "softmax of long rows": (REGISTRY["softmax_kernel"], [layout((64, 50_000), float32)], {"axis": 1}),
    "matmul": (REGISTRY["matmul_kernel"], [layout((512, 512), float32)] * 2, {}),
    "uniform": (REGISTRY["uniform_kernel"], [layout((2,), int64)], {"shape": (1 << 20,), "dtype": float32}),
    "argsort": (REGISTRY["argsort_kernel"], [layout((1 << 20,), float32)], {"axis": 0, "descending": False}),
    "take": (REGISTRY["take_kernel"], [layout((1000, 64), float32), layout((512,), int64)], {"axis": 0}),
}


def hot(name: str) -> list:
    op, ins, attrs = HOT[name]
    return harvest.kernels(op, ins, **attrs)


@pytest.mark.parametrize("cc", door.TARGETS, ids=lambda cc: f"sm_{cc[0]}{cc[1]}")
@pytest.mark.parametrize("name", HOT)
def test_targets(name, cc):
    for kernel in hot(name):
        assert f".target sm_{cc[0]}{cc[1]}" in harvest.ptx(kernel, name, cc)


def ptxas() -> str | None:
    """NVIDIA's assembler, from a wheel such as nvidia-cuda-nvcc."""
    roots = [Path(p) / "nvidia" for p in sys.path if p]
    found = [
        str(p) for root in roots if root.is_dir() for p in (*root.glob("*/bin/ptxas"), *root.glob("*/nvvm/bin/ptxas"))
    ]
    return found[0] if found else None


@pytest.mark.skipif(ptxas() is None, reason="ptxas is not installed; pip install nvidia-cuda-nvcc")
@pytest.mark.parametrize("name", HOT)
def test_no_register_is_spilled(name, tmp_path):
    for cc in ((8, 0), (9, 0), (10, 0)):
        for kernel in hot(name):
            source = tmp_path / "kernel.ptx"
            source.write_text(harvest.ptx(kernel, name, cc))
            command = [
                str(ptxas()),
                "-v",
                f"-arch=sm_{cc[0]}{cc[1]}",
                str(source),
                "-o",
                str(tmp_path / "kernel.cubin"),
            ]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
            assert "0 bytes spill stores, 0 bytes spill loads" in said, (kernel, said)


def test_machine_code_without_a_gpu():
    """nvJitLink makes it, so that a driver older than the compiler can run it."""
    (kernel, *_) = hot("tanh")
    code = door.assemble(kernel.ptx(), (9, 0))
    assert code[:4] == b"\x7fELF" and door.entry(kernel.ptx()).encode() in code


@pytest.mark.parametrize("name", HOT)
def test_older_drivers_take_the_text_under_their_version(name):
    """No kernel has an instruction that is newer than the first driver for its target."""
    for cc, cuda, version in (((9, 0), (12, 0), "8.0"), ((10, 0), (12, 8), "8.7"), ((9, 0), (13, 0), "9.0")):
        for kernel in hot(name):
            text = door.lowered(harvest.ptx(kernel, name, cc), cuda)
            assert f".version {version}\n" in text
            assert door.assemble(text, cc)[:4] == b"\x7fELF"


def test_a_text_that_cannot_be_assembled():
    (kernel, *_) = hot("tanh")
    with pytest.raises(KernelError, match=r"(?s)nvJitLink makes no machine code.*Not a name of any known instruction"):
        door.assemble(kernel.ptx().replace("ret;", "rett;"), (9, 0))


# users' functions


def newton(x):
    y = x
    for _ in range(20):
        if abs(y * y - x) < 1e-7 * x:
            return y
        y = half_of(y + x / y)
    return y


def half_of(x):
    return x * 0.5


def test_a_users_function_is_compiled_with_what_it_calls():
    for dtype in (float32, float64):
        for kernel in harvest.kernels(tg.elementwise(newton), [layout((SIZE,), dtype)]):
            assert not re.search(r"^\s*call", harvest.ptx(kernel, "newton"), re.M)


def test_derived_derivatives_compile():
    op = tg.elementwise(newton)
    first, _ = partial(op, 0)
    second, _ = partial(first, 1)
    for one in (first, second):
        for dtype in (float32, float64):
            for kernel in harvest.kernels(one, inputs(one, dtype)):
                assert not re.search(r"^\s*call", harvest.ptx(kernel, one.name), re.M)


def test_a_users_function_that_cannot_be_compiled():
    @tg.elementwise
    def unknown(x):
        for _ in range(3):
            x = print(x)
        return x

    (kernel, *_) = harvest.kernels(unknown, [layout((SIZE,), float32)])
    with pytest.raises(KernelError, match="unknown"):
        harvest.ptx(kernel, "unknown")


# everything


@pytest.mark.slow
@pytest.mark.parametrize("cc", door.TARGETS, ids=lambda cc: f"sm_{cc[0]}{cc[1]}")
def test_everything(cc):
    """All elementwise ops with their first derivatives in the dtypes that they compute in, all templates, for a target."""
    for op in elementwise():
        for one in (op, *first_derivatives(op)):
            for dtype in (float32, float64):
                check_elementwise(one, dtype, cc)
        for dtype in (int32, int64, uint8, bool_):
            for kernel in harvest.kernels(op, inputs(op, dtype)):
                harvest.ptx(kernel, op.name, cc)
    templates = dict(primitives("float32") + primitives("float64"))
    for dtype in ALL:
        templates |= dict.fromkeys(large(dtype), dtype.name)
    for kernel, name in templates.items():
        harvest.ptx(kernel, name, cc)
