"""Planning: whatever is merged, fused, moved or left out, the fixed values come out as they do row by row."""

from __future__ import annotations

import math

import numpy as np
import pytest
from plan_rows import NAMED, Memory, Recorder, agree, arrays

import tapegrad
from tapegrad.dtypes import bool_, int64
from tapegrad.ops import registry
from tapegrad.ops.registry import partial
from tapegrad.optim import rules
from tapegrad.plan.planner import plan
from tapegrad.plan.program import Program


def test_an_elementwise_chain_is_one_kernel():
    r = Recorder()
    a, b, s = (r.given(x) for x in arrays(0, (5, 7), (7,), ()))
    y = r("tanh", r("add", r("multiply", a, s), b))
    z = r("exp", r("negative", y), keep=True)
    p = agree(r)
    assert len(p.records) == 1
    assert p.fused == 5
    assert p.arena == 0
    assert set(p.records[0].values) == {a, b, s, z}


def test_dead_rows_are_dropped():
    r = Recorder()
    a = r.given(arrays(0, (3, 3))[0])
    r("exp", r("add", a, a))
    r("softmax_kernel", a, axis=1)
    r("tanh", a, keep=True)
    p = agree(r)
    assert [record.rows for record in p.records] == [(3,)]


def compiled(x):
    total = 0.0
    while x > 1.0:
        x, total = x * 0.5, total + x
    return total


def refusing(x, out):
    if x[0] > 0:
        raise ValueError
    out[0] = x[0]


INDEX, WRONG = np.array([7]), np.array([[7, 7, 7]])
SQUARE = np.zeros((3, 3), "f4")
FAILING = {
    "take_kernel": ((SQUARE, INDEX), {"axis": 0}),
    "take_along_kernel": ((SQUARE, WRONG), {"axis": 0}),
    "index_add": ((SQUARE[:1], INDEX), {"axis": 0, "size": 3}),
    "scatter_kernel": ((SQUARE[:1], WRONG), {"axis": 0, "size": 3}),
    "cross_entropy_kernel": ((SQUARE, np.array([0, 1, 7])), {"ignore_index": -100}),
    "cholesky_kernel": ((SQUARE - 1,), {}),
    "solve_kernel": ((SQUARE, SQUARE), {}),
    "bernoulli_kernel": ((np.array([1, 1]), np.float32(7)), {"shape": (3,), "dtype": bool_}),
    "randint_kernel": ((np.array([1, 1]), np.array(3), np.array(1)), {"shape": (3,), "dtype": int64}),
    "tg.kernel": ((SQUARE + 1,), {}),
}


@pytest.mark.parametrize("name", FAILING)
def test_rows_that_can_fail_are_not_dropped(name):
    """Eagerly the error would have come, whether anybody reads the result or not."""
    r = Recorder()
    op = tapegrad.kernel("(n)->()")(refusing) if name == "tg.kernel" else name
    given, attrs = FAILING[name]
    r(op, *[r.given(a) for a in given], **attrs)
    kept = r("tanh", r.given(SQUARE), keep=True)
    program = Program(plan(r.segment), Memory)
    for n, a in {**r.arrays, kept: np.zeros((3, 3), "f4")}.items():
        program.bind(n, a.ctypes.data)
    assert program.run() != 0
    assert program.failed is not None
    assert program.failed.rows == (0,)


@pytest.mark.parametrize("name", ["matmul", "sum", "embed", "full", "softmax"])
def test_a_user_s_op_is_no_op_of_the_library_s_whatever_its_name(name):
    r = Recorder()
    x, w = (r.given(a) for a in arrays(7, (3, 3), (3, 3)))
    looping = tapegrad.elementwise(compiled, name=name)

    @tapegrad.kernel("(m,k),(k,n)->(m,n)", name=name)
    def last_of_both(a, b, out):
        out[:] = a[-1, -1] + b[-1, -1]

    for _ in range(2):
        r("tanh", r.view("permute_view", r(last_of_both, x, r(looping, w)), axes=(1, 0)), keep=True)
    p = agree(r)
    ours = [n for n, row in enumerate(r.segment.rows) if row.op in (looping, last_of_both)]
    assert [n for record in p.records for n in record.rows if n in ours] == ours


def test_a_user_s_expression_is_fused():
    r = Recorder()
    x = r.given(arrays(7, (5, 7))[0])
    bump = tapegrad.elementwise(lambda x, s: math.exp(-s * x * x) + x)
    r("tanh", r(bump, r("multiply", x, x), r("negative", x)), keep=True)
    assert len(agree(r).records) == 1


def test_equal_rows_are_computed_once():
    r = Recorder()
    a, b = (r.given(x) for x in arrays(0, (4, 4), (4, 4)))
    first = r("matmul_kernel", a, b)
    second = r("matmul_kernel", a, b)
    r("add", first, second, keep=True)
    p = agree(r)
    assert sum(record.title.startswith("matmul") for record in p.records) == 1


def test_a_value_read_before_and_after_it_is_assigned():
    r = Recorder()
    p, g, lr = (r.given(x) for x in arrays(1, (4, 6), (4, 6), ()))
    before = r("multiply", p, p)
    r.assign(rules.sgd, (p,), p, g, lr, lr)
    after = r("multiply", p, p)
    turned = r("add", r.view("permute_view", p, axes=(1, 0)), lr)
    r.assign(registry.IDENTITY, (p,), before)
    r("subtract", after, p, keep=True)
    r.keep(before, turned)
    agree(r)


def test_a_view_read_across_an_assignment():
    r = Recorder()
    p, x = (r.given(a) for a in arrays(2, (4, 4), (4, 4)))
    t = r.view("permute_view", p, axes=(1, 0))
    a = r("add", t, x)
    r.assign(NAMED["multiply"], (p,), p, t)
    b = r("add", t, a)
    row = r.view("slice_view", p, starts=(1, 0), sizes=(1, 4), steps=(1, 1))
    r.assign(registry.IDENTITY, (row,), r.view("slice_view", p, starts=(2, 0), sizes=(1, 4), steps=(1, 1)))
    r("multiply", b, t, keep=True)
    agree(r)


def test_assignments_stay_behind_rows_that_can_fail():
    r = Recorder()
    p, g, lr = (r.given(x) for x in arrays(3, (4,), (4,), ()))
    i = r.given(np.array([9]))
    r("take_kernel", p, i, axis=0, keep=True)
    r.assign(rules.sgd, (p,), p, g, lr, lr)
    program = Program(plan(r.segment), Memory)
    held = {
        n: np.copy(r.arrays[n]) if n in r.arrays else np.zeros(4, "f4")
        for n, v in enumerate(r.segment.values)
        if v.fixed
    }
    for n, a in held.items():
        program.bind(n, a.ctypes.data)
    assert program.run() != 0
    np.testing.assert_array_equal(held[p], r.arrays[p])


def test_what_is_written_over_at_once_is_not_computed():
    r = Recorder()
    x, p = (r.given(a) for a in arrays(9, (6, 4), (6, 4)))
    s = r("sum", x, axes=(1,), keepdims=True)
    r.assign(registry.IDENTITY, (p,), r("multiply", x, r("tanh", s)))
    r.assign(registry.IDENTITY, (p,), r("multiply", x, x))
    r("exp", r("sum", p, axes=(1,), keepdims=True), keep=True)
    agree(r, ulps=4)


def layer_norm(r: Recorder, x: int, w: int, b: int, one_over_n: int, eps: int) -> dict[str, int]:
    c = r("subtract", x, r("multiply", r("sum", x, axes=(1,), keepdims=True), one_over_n))
    v = r("multiply", r("sum", r("square", c), axes=(1,), keepdims=True), one_over_n)
    d = r("sqrt", r("add", v, eps))
    y = r("divide", c, d)
    return {"centred": c, "deviation": d, "rows": y, "out": r("add", r("multiply", y, w), b)}


@pytest.mark.parametrize("shape", [(6, 10), (1, 33), (40, 3), (3, 257)])
def test_layer_norm_is_one_kernel(shape):
    r = Recorder()
    x, w, b = (r.given(a) for a in arrays(4, shape, shape[1:], shape[1:]))
    n, eps = r.given(np.float32(1 / shape[1])), r.given(np.float32(1e-5))
    r.keep(layer_norm(r, x, w, b, n, eps)["out"])
    p = agree(r, ulps=4)
    assert len(p.records) == 1


def test_sums_along_rows_columns_and_all_go_with_their_chain():
    r = Recorder()
    x, w = (r.given(a) for a in arrays(5, (12, 40), (40,)))
    y = r("multiply", x, w)
    for axes in ((0,), (1,), (0, 1)):
        r("sum", y, axes=axes, keepdims=False, keep=True)
    p = agree(r, ulps=4)
    assert [record.title for record in p.records if not record.title.endswith("finished")] == [
        "fused 12×40 multiply·sum"
    ]
    assert sum(record.moved for record in p.records) < 1.2 * 4 * 12 * 40  # y is never in memory


def test_a_row_wise_assignment_behind_a_read_of_the_whole():
    r = Recorder()
    x, p = (r.given(a) for a in arrays(8, (6, 6), (6,)))
    y = r("multiply", x, p)  # reads p along each row
    s = r("sum", y, axes=(1,), keepdims=False)
    r.assign(NAMED["multiply"], (p,), p, s)  # one element a row
    r.keep(y)
    agree(r, ulps=4)


def test_values_in_place_and_memory_used_again():
    r = Recorder()
    x = r.given(arrays(6, (64, 64))[0])
    y = x
    for _ in range(6):
        y = r("tanh", r("matmul_kernel", y, x))
    r.keep(y)
    p = agree(r)
    assert p.arena <= 2 * 64 * 64 * 4
    assert p.unplanned == 11 * 64 * 64 * 4


# products


def test_a_product_copied_transposed_is_written_transposed():
    r = Recorder()
    a, b = (r.given(x) for x in arrays(0, (5, 4), (4, 7)))
    y = r("matmul_kernel", a, b)
    r("identity_copy", r.view("permute_view", y, axes=(1, 0)), keep=True)
    p = agree(r, ulps=8)
    assert len(p.records) == 1


def test_a_product_is_added_in_place():
    r = Recorder()
    a, b, x = (r.given(x) for x in arrays(0, (5, 4), (4, 7), (5, 7)))
    y = r("add", r("exp", x), r("matmul_kernel", a, b))
    r("softmax_kernel", y, axis=1, keep=True)
    p = agree(r, ulps=8)
    assert [record.title.split()[0] for record in p.records] == ["exp", "matmul_added", "softmax"]
    assert p.arena == 192


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_gradient_descent_goes_into_the_product(dtype):
    r = Recorder()
    p, g, x = (r.given(a) for a in arrays(0, (6, 5), (9, 6), (9, 5), dtype=dtype))
    lr, decay = (r.given(np.array(v, dtype)) for v in (0.1, 0.01))
    gradient = r("matmul_kernel", r.view("permute_view", g, axes=(1, 0)), x)
    r.assign(rules.sgd, (p,), p, gradient, lr, decay)
    plan_ = agree(r, ulps=8)
    assert [record.title.split()[0] for record in plan_.records] == ["matmul_descended"]
    kept = Recorder()
    kept.segment, kept.arrays = r.segment, r.arrays
    kept.keep(gradient)
    assert len(agree(kept).records) == 2


@pytest.mark.parametrize("stacked", [False, True])
def test_products_that_a_loop_adds_up_become_one(stacked):
    r = Recorder()
    times, batch, width = 6, 3, 5
    w, h = (r.given(a - 1) for a in arrays(0, (width, width), (batch, width)))
    hs = [h]
    for _ in range(times):
        hs.append(r("tanh", r("matmul_kernel", hs[-1], w)))
    if stacked:
        r("concatenate_same", *hs[1:], axis=0, keep=True)
    g, dw, db = hs[-1], None, None
    for t in reversed(range(times)):
        g = r(partial(NAMED["tanh"], 0)[0], g, hs[t + 1])
        new = r("matmul_kernel", r.view("permute_view", hs[t], axes=(1, 0)), g)
        dw = new if dw is None else r("add", dw, new)
        column = r("sum", g, axes=(0,), keepdims=False)
        db = column if db is None else r("add", db, column)
        g = r("matmul_kernel", g, r.view("permute_view", w, axes=(1, 0)))
    r.keep(dw, db)
    p = agree(r, ulps=64)
    inner = [
        record
        for record in p.records
        if record.title.startswith("matmul") and f"×{(times - 1) * batch} " in record.title
    ]
    assert len(inner) == 1
    assert sum("sum" in record.title for record in p.records) == 1


def test_a_sum_of_products_that_is_added_to_itself():
    r = Recorder()
    xs = [r.given(a) for a in arrays(3, *[(4, 4)] * 6)]
    total = None
    for a, b in zip(xs[::2], xs[1::2]):
        new = r("matmul_kernel", r.view("permute_view", r("tanh", a), axes=(1, 0)), r("tanh", b))
        total = new if total is None else r("add", total, new)
    double = r("add", total, total)
    r("exp", r("add", double, xs[0]), keep=True)
    agree(r, ulps=64)


def test_products_of_slices_with_one_matrix_are_one():
    r = Recorder()
    xs, w = (r.given(a) for a in arrays(1, (4, 3, 5), (5, 2)))
    for t in range(4):
        x = r.view("slice_view", xs, starts=(t, 0, 0), sizes=(1, 3, 5), steps=(1, 1, 1))
        r.keep(r("tanh", r("matmul_kernel", r.view("reshape_view", x, shape=(3, 5)), w)))
    p = agree(r, ulps=4)
    assert sum(record.title.startswith("matmul") for record in p.records) == 1


def test_gradients_of_slices_are_written_part_by_part():
    r = Recorder()
    parts = [r.given(a) for a in arrays(2, *[(4, 3)] * 3)]
    whole = None
    for k, x in enumerate(parts):
        new = r("embed", r("exp", x), shape=(4, 9), starts=(0, 3 * k), steps=(1, 1))
        whole = new if whole is None else r("add", whole, new)
    r.keep(whole)
    p = agree(r)
    assert all("add" not in record.title and "embed" not in record.title for record in p.records)
    assert p.arena == 0


def test_a_cheap_result_read_in_parts_is_computed_in_parts():
    r = Recorder()
    x, y, b = (r.given(a) for a in arrays(3, (4, 12), (4, 12), (12,)))
    z = r("add", r("add", x, y), b)
    gates = [r.view("slice_view", z, starts=(0, 3 * k), sizes=(4, 3), steps=(1, 1)) for k in range(4)]
    i, f, u, o = (r(op, gate) for op, gate in zip(("sigmoid", "sigmoid", "tanh", "sigmoid"), gates))
    r("add", r("multiply", i, u), r("multiply", f, o), keep=True)
    p = agree(r)
    assert len(p.records) == 1


def test_a_derivative_reads_the_result():
    r = Recorder()
    x, g, w = (r.given(a) for a in arrays(4, (6, 6), (6, 6), (6, 6)))
    pre = r("matmul_kernel", x, w)
    y = r("tanh", pre)
    z = r("relu", r("matmul_kernel", y, w))
    back = r("matmul_kernel", r(partial(NAMED["relu"], 0)[0], g, r.segment.rows[-1].ins[0]), w)
    r.keep(r(partial(NAMED["tanh"], 0)[0], back, pre), z)
    p = agree(r, ulps=2)
    assert sum("tanh" in record.title.split("d_tanh")[0] for record in p.records) == 1
    assert p.arena <= 3 * 192  # what tanh and relu read is not kept


def test_sums_over_outer_and_inner_axes_go_in_two_stages():
    r = Recorder()
    x, b = (r.given(a) for a in arrays(5, (4, 3, 5, 6), (3, 1, 1)))
    r("sum", r("multiply", x, b), axes=(0, 2, 3), keepdims=False, keep=True)
    p = agree(r, ulps=4)
    assert len(p.records) == 2


def test_a_plan_that_reads_what_is_not_written_is_refused(monkeypatch):
    from tapegrad.errors import KernelError
    from tapegrad.plan import planner

    r = Recorder()
    a, b = r.given(np.ones((4, 5), np.float32)), r.given(np.ones((5, 3), np.float32))
    r("matmul_kernel", r("softmax_kernel", a, axis=1), b, keep=True)
    backwards = planner.records

    def wrong(g, groups, target):
        made, overlays = backwards(g, groups, target)
        return made[::-1], overlays

    assert len(plan(r.segment).records) == 2
    monkeypatch.setattr(planner, "records", wrong)
    with pytest.raises(
        KernelError, match=r"matmul 4×5 5×3 would read a value before it is computed.*TAPEGRAD_SESSION=off"
    ):
        plan(r.segment)
