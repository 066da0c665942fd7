"""Fused kernels that reduce, as PTX: 16 bytes at a time, every element read once, nothing but global and shared memory."""

from __future__ import annotations

import re
import subprocess

import harvest
import pytest
from test_ptx import ptxas

from tapegrad.dtypes import bool_, float32, float64, int32, int64, uint8
from tapegrad.kernels.cuda.fused_reduce import work
from tapegrad.kernels.fused import Fused, Load, Map, Reduce
from tapegrad.layouts import layout
from tapegrad.ops import expression as ex

a, b, c = map(ex.argument, range(3))


def of(expression, *args: int, dtype=float32) -> Map:
    return Map(expression, args, dtype, dtype)


def layer_norm(rows: int, n: int) -> Fused:
    """Scale and shift, and 1/n, beside the rows."""
    shape = (rows, n)
    column, number = layout(shape, float32, (0, 1)), layout(shape, float32, (0, 0))
    nodes = (
        *map(Load, range(4)),
        Reduce("sum", 0, "row", float32),
        of(ex.node("mul", a, b), 4, 3),
        of(ex.node("sub", a, b), 0, 5),
        of(ex.node("mul", a, a), 6),
        Reduce("sum", 7, "row", float32),
        of(ex.node("sqrt", ex.node("mul", a, b)), 8, 3),
        of(ex.node("div", a, b), 6, 9),
        of(ex.node("add", ex.node("mul", a, b), c), 10, 1, 2),
    )
    x = layout(shape, float32)
    return Fused(shape, 1, (x, column, column, number), nodes, ((11, x),))


def tanh(over: str, kind: str = "sum", dtype=float32) -> Fused:
    """tanh(x) · y, or x · y of integers, or x | y of bools, written and reduced."""
    shape, row = ((1 << 20,), 0) if over == "all" else ((2048, 512), 1)
    x = layout(shape, dtype)
    product = ex.node("or" if dtype is bool_ else "mul", ex.node("tanh", a) if dtype.is_float else a, b)
    result = int64 if kind == "sum" and not dtype.is_float else dtype
    nodes = (Load(0), Load(1), of(product, 0, 1, dtype=dtype), Reduce(kind, 2, over, result))
    out = {"row": shape[:1], "columns": shape[1:], "all": ()}[over]
    return Fused(shape, row, (x, x), nodes, ((2, x), (3, layout(out, result))))


CASES = {
    "layer norm": layer_norm(4096, 1024),
    "layer norm of long rows": layer_norm(512, 20_000),
    "rows": tanh("row"),
    "columns": tanh("columns"),
    "everything": tanh("all"),
}


def texts(f: Fused, name: str, cc=(9, 0)) -> list[str]:
    return [harvest.ptx(kernel, name, cc) for kernel in harvest.kernels_of(work(f))]


@pytest.mark.parametrize("cc", [(9, 0), (10, 0)], ids=["sm_90", "sm_100"])
@pytest.mark.parametrize("name", CASES)
def test_accesses(name, cc):
    wide, plain, *_ = texts(CASES[name], name, cc)
    assert re.search(r"ld\.global\.v4\.[fb]32", wide) and re.search(r"st\.global\.v4\.[fb]32", wide)
    assert ".v4." not in plain
    for text in (wide, plain):
        assert not re.search(r"\b(ld|st)\.([fbu]\d|local)", text)


def test_rows_that_fit_are_read_once():
    """Eight groups of a thread, of the row, the scale and the shift; three passes read long rows three times, but compute no more."""
    text = texts(CASES["layer norm"], "layer norm")[0]
    assert len(re.findall(r"ld\.global\.v4", text)) == 24 and len(re.findall(r"ld\.global\.f32", text)) == 1
    long = texts(CASES["layer norm of long rows"], "layer norm")[0]
    assert len(re.findall(r"ld\.global\.v4", long)) >= 5
    assert len(text) < 40_000 and len(long) < 40_000


@pytest.mark.parametrize("dtype", [float32, float64, int32, int64, uint8, bool_], ids=lambda d: d.name)
@pytest.mark.parametrize("over", ["row", "columns", "all"])
def test_dtypes(over, dtype):
    kind = {float32: "min", float64: "max", int32: "sum", int64: "max", uint8: "sum", bool_: "max"}[dtype]
    for text in texts(tanh(over, kind, dtype), over):
        assert "call" not in text.split(), (over, dtype, kind)


@pytest.mark.skipif(ptxas() is None, reason="ptxas is not installed; pip install nvidia-cuda-nvcc")
@pytest.mark.parametrize("name", CASES)
def test_no_register_is_spilled(name, tmp_path):
    for text in texts(CASES[name], name):
        source = tmp_path / "kernel.ptx"
        source.write_text(text)
        command = [str(ptxas()), "-v", "-arch=sm_90", str(source), "-o", str(tmp_path / "kernel.cubin")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        assert "0 bytes spill stores, 0 bytes spill loads" in said, said
