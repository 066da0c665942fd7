"""Joining accesses in PTX text: what is joined, and what must stay as it is."""

from __future__ import annotations

import pytest

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
