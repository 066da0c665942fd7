"""Footgun w: random programs, run eagerly and in a session for several iterations, agree; and those that repeat are replayed.

`random_search.py` goes on where these stop.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from programs import ITERATIONS, Program, check, programs


@given(programs(sums=False, control=False))
@settings(max_examples=120)
def test_w_straight_programs_without_sums_agree_bitwise(program):
    check(program)


@given(programs(sums=True, control=False))
@settings(max_examples=150)
def test_w_straight_programs(program):
    check(program)


def test_w_programs_with_branches_and_loops():
    replays = []

    @given(programs(sums=True, control=True))
    @settings(max_examples=200)
    def run(program):
        replays.append(check(program))

    run()
    assert np.mean(replays) >= 0.25 * ITERATIONS, np.mean(replays)


@given(programs(sums=False, control=True))
@settings(max_examples=100)
def test_w_programs_with_branches_and_loops_bitwise(program):
    check(program)


FOUND = [  # by random search, one for each mistake that it showed
    Program([("learn", 0, False), ("weight", 0), ("loop", (0, 1), [("weight", 3), ("backward", 0, True), ("step",),
             ("backward", 0, True), ("step",)]), ("unary", "tanh", 0), ("carry", 2, False)], (3,), "float64"),
    Program([("step",), ("weight", 0), ("inner", 2), ("carry", 0, False), ("loop", (2,), [("unary", "tanh", 2)]),
             ("branch", 0, [("step",)], []), ("backward", 0, True)], (3,), "float32"),
    Program([("unary", "tanh", 0), ("unary", "tanh", 0), ("look", "bool", 0), ("carry", 0, False), ("write", "buffer", 4),
             ("weight", 0)], (3,), "float32"),
    Program([("loop", (2,), [("carry", 0, False), ("branch", 0, [("unary", "tanh", 0)], [])]), ("write", "parameter", 3),
             *[("unary", "tanh", 0)] * 4], (3,), "float32"),
    Program([("step",), ("learn", 0, True), ("unary", "tanh", 0), ("unary", "where", 1), ("unary", "relu", 0),
             ("write", "buffer", 0)], (3,), "float32"),
    Program([("weight", 0), ("hold", 0), ("summing", "softmax", 0), ("break", (3,)), ("learn", 0, False),
             ("backward", 1, False)], (3,), "float32"),
    Program([("weight", 0), ("hold", 0), ("summing", "softmax", 0), ("learn", 0, False), ("backward", 1, False)], (3,),
            "float32"),
    Program([("weight", 0), ("unary", "tanh", 0), ("weight", 0), ("weight", 0), ("weight", 2), ("break", (5, 6))], (1, 4),
            "float32"),
    Program([("summing", "max", 0), ("second",), ("weight", 0), ("unary", "tanh", 0), ("quiet", [("weight", 0),
             ("unary", "flip", 4)]), ("learn", 0, False)], (3,), "float32"),
    Program([("backward", 1, False), ("read", "parameter"), ("loop", (0, 2), [("inner", 0)]), ("carry", 2, False),
             ("step",)], (3,), "float64"),
]  # fmt: skip


@pytest.mark.parametrize("program", FOUND)
def test_w_programs_that_went_wrong_once(program):
    check(program)
