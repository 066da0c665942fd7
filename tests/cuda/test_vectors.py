"""Joining accesses in PTX text: what is joined, and what must stay as it is."""

from __future__ import annotations

import importlib.util
import os

import pytest

from tapegrad.kernels.cuda import door
from tapegrad.kernels.cuda.vectors import joined

FOUR = """\
\tld.global.f32 \t%f1, [%rd1];
\tadd.f32 \t%f9, %f1, %f8;
\tld.global.f32 \t%f2, [%rd1+4];
\tld.global.f32 \t%f3, [%rd1+8];
\tld.global.f32 \t%f4, [%rd1+12];
\tst.global.f32 \t[%rd2+-16], %f1;
\tst.global.f32 \t[%rd2+-12], %f2;
\tst.global.f32 \t[%rd2+-8], %f3;
\tst.global.f32 \t[%rd2+-4], %f4;"""


def test_four_floats():
    assert joined(FOUR).split("\n") == [
        "\tld.global.v4.f32 \t{%f1, %f2, %f3, %f4}, [%rd1];",
        "\tadd.f32 \t%f9, %f1, %f8;",
        "\tst.global.v4.f32 \t[%rd2+-16], {%f1, %f2, %f3, %f4};",
    ]


def test_doubles_and_words():
    text = "\tld.global.f64 \t%fd1, [%rd1];\n\tld.global.f64 \t%fd2, [%rd1+8];"
    assert joined(text) == "\tld.global.v2.f64 \t{%fd1, %fd2}, [%rd1];"
    text = "\n".join(f"\tld.global.u32 \t%r{i}, [%rd1+{4 * i}];" for i in range(8))
    assert joined(text).count("v4.u32") == 2


@pytest.mark.parametrize(
    "between",
    [
        "$L__BB0_1:",
        "\t@%p1 bra \t$L__BB0_2;",
        "\tbar.sync \t0;",
        "\tst.global.f32 \t[%rd9], %f7;",
        "\tadd.s64 \t%rd1, %rd1, 16;",
        "\tadd.f32 \t%f5, %f3, %f3;",
        "\tmov.f32 \t%f3, 0f00000000;",
        "\tst.shared.f32 \t[%rd9], %f7;",
        "\tatom.global.add.u32 \t%r1, [%rd9], 1;",
    ],
)
def test_loads_stay_where_something_is_in_between(between):
    lines = FOUR.split("\n")
    text = "\n".join([*lines[:3], between, *lines[3:5]])
    assert joined(text) == text


@pytest.mark.parametrize(
    "between",
    ["\tld.global.f32 \t%f7, [%rd9];", "\tmov.f32 \t%f1, 0f00000000;", "\tadd.s64 \t%rd2, %rd2, 4;", "\tbar.sync \t0;"],
)
def test_stores_stay_where_something_is_in_between(between):
    lines = FOUR.split("\n")[5:]
    text = "\n".join([*lines[:2], between, *lines[2:]])
    assert joined(text) == text


def test_odd_numbers_of_neighbours_stay():
    """Three, or five, are no whole groups: who knows where one would start."""
    for count in (2, 3, 5, 6):
        text = "\n".join(f"\tld.global.f32 \t%f{i}, [%rd1+{4 * i}];" for i in range(count))
        assert joined(text) == text


def whole(body: str) -> str:
    """A kernel of these lines, for an assembler."""
    head = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p)\n{\n"
    registers = "\t.reg .b16 \t%rs<9>;\n\t.reg .b64 \t%rd<9>;\n"
    return head + registers + body.replace("%pair<4>;", "%pair<4>;\n\tld.param.u64 \t%rd1, [p];") + "\n\tret;\n}\n"


def test_eight_halves_are_four_words():
    """In registers of 16 bits or of 32, as NVVM chose them; a sign is not lost."""
    names = ["%rs1", "%rs2", "%r1", "%r2", "%rs3", "%r3", "%r4", "%rs4"]
    load = "\n".join(
        ["\t.reg .b32 \t%r<9>;"] + [f"\tld.global.u16 \t{r}, [%rd1+{2 * i}];" for i, r in enumerate(names)]
    )
    assert joined(load).split("\n") == [
        "\t.reg .b32 \t%r<9>;",
        "\t.reg .b32 \t%pair<4>;",
        "\tld.global.v4.b32 \t{%pair0, %pair1, %pair2, %pair3}, [%rd1];",
        "\tmov.b32 \t{%rs1, %rs2}, %pair0;",
        "\tand.b32  \t%r1, %pair1, 65535;",
        "\tshr.u32 \t%r2, %pair1, 16;",
        "\tcvt.u16.u32 \t%rs3, %pair2;",
        "\tshr.u32 \t%r3, %pair2, 16;",
        "\tand.b32  \t%r4, %pair3, 65535;",
        "\tmov.b32 \t{_, %rs4}, %pair3;",
    ]
    store = "\n".join(
        ["\t.reg .b32 \t%r<9>;"] + [f"\tst.global.u16 \t[%rd1+{2 * i}], {r};" for i, r in enumerate(names)]
    )
    assert joined(store).split("\n") == [
        "\t.reg .b32 \t%r<9>;",
        "\t.reg .b32 \t%pair<4>;",
        "\tmov.b32 \t%pair0, {%rs1, %rs2};",
        "\tprmt.b32 \t%pair1, %r1, %r2, 0x5410;",
        "\tcvt.u32.u16 \t%pair2, %rs3;",
        "\tprmt.b32 \t%pair2, %pair2, %r3, 0x5410;",
        "\tcvt.u32.u16 \t%pair3, %rs4;",
        "\tprmt.b32 \t%pair3, %r4, %pair3, 0x5410;",
        "\tst.global.v4.b32 \t[%rd1], {%pair0, %pair1, %pair2, %pair3};",
    ]
    if importlib.util.find_spec("numba_cuda") and os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
        for text in (load, store):
            assert door.assemble(whole(joined(text)), (8, 0))
    signed = load.replace("u16", "s16")
    assert joined(signed) == signed
