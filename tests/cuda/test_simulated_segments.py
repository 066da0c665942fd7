"""The same chain over several arrays as one launch: values as on the CPU, launch lists, and what may not be joined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_rows import NAMED, Recorder, one_by_one
from test_simulated_plans import DEVICE, moved, on_gpu, simulator  # noqa: F401  the fixture

import tapegrad as tg
from tapegrad import nn, optim
from tapegrad.kernels.cuda import segments
from tapegrad.optim import rules
from tapegrad.plan import gpu
from tapegrad.plan.planner import plan
from tapegrad.tape import spaces

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
SIZES = [(3, 5), (1,), (33,), (0,), (), (8,), (1023,), (1, 1), (4, 4)]
NUMBERS = {rules.adam: 7, rules.sgd: 2, rules.sgd_momentum: 4, rules.lion: 6}
KEPT = {rules.adam: 2, rules.sgd: 0, rules.sgd_momentum: 1, rules.lion: 1}


def updates(rule, shapes, dtype=np.float32, numbers: int = 1) -> Recorder:
    """Updates of parameters of these shapes, whose coefficients are views of one of `numbers` arrays."""
    r, rng = Recorder(), np.random.default_rng(len(shapes))
    blocks = [r.given(rng.uniform(0.1, 0.9, NUMBERS[rule]).astype(dtype)) for _ in range(numbers)]
    for k, shape in enumerate(shapes):
        tensors = [r.given(rng.normal(size=shape).astype(dtype)) for _ in range(2)]
        tensors += [r.given(rng.uniform(size=shape).astype(dtype)) for _ in range(KEPT[rule])]
        block = blocks[k % numbers]
        coefficients = []
        for i in range(NUMBERS[rule]):
            one = r.view("slice_view", block, starts=(i,), sizes=(1,), steps=(1,))
            coefficients.append(r.view("reshape_view", one, shape=()))
        r.assign(rule, (tensors[0], *tensors[2:]), *tensors, *coefficients)
    return r


def titles(r: Recorder) -> list[str]:
    """The launches of a plan, which is not run."""
    return [record.title for record in plan(moved(r.segment), gpu.Target(spaces.space_of(DEVICE))).records]


def agrees(r: Recorder, rtol: float = 1e-6) -> None:
    want, have = one_by_one(r), on_gpu(r)
    for n in want:
        np.testing.assert_allclose(
            have[n].ravel(), want[n].ravel()[: have[n].size], rtol=rtol, atol=rtol, err_msg=f"value {n}"
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", NUMBERS, ids=lambda rule: rule.name)
def test_updates_of_odd_sizes_are_one_launch(rule, dtype):
    r = updates(rule, SIZES, dtype)
    assert len(titles(r)) == 1 and titles(r)[0].startswith(f"{rule.name} 3×5")
    assert titles(r)[0].endswith("and 7 more"), "but for the array without elements"
    agrees(r)


def test_coefficients_of_several_groups_of_parameters():
    r = updates(rules.adam, SIZES, numbers=3)
    assert len(titles(r)) == 1
    agrees(r)


def test_arrays_of_one_element():
    r = updates(rules.adam, [(), (1,), (1, 1)])
    assert len(titles(r)) == 1
    agrees(r)


def test_more_arrays_than_one_launch_takes():
    shapes = [(k % 5 + 1,) for k in range(segments.MOST + 5)]
    r = updates(rules.sgd, shapes)
    assert len(titles(r)) == 2
    agrees(r)
    few = updates(rules.sgd, shapes[: segments.MOST + 1])
    assert [t.endswith("more") for t in titles(few)] == [True, False], "the last one is a launch of its own"


def test_the_parameters_of_a_launch_fit():
    """4 KB: with coefficients for each array there is room for fewer."""
    for numbers in (1, 8):
        r = updates(rules.adam, [(k + 4,) for k in range(64)], numbers=numbers)
        made = plan(moved(r.segment), gpu.Target(spaces.space_of(DEVICE))).records
        assert len(made) == (1 if numbers == 1 else 2)
        for record in made:
            launch = record.step
            assert 8 * len(launch.kernel.arguments) <= 4096 and launch.unaligned is not None
            assert launch.grid <= 3 * segments.MOST and launch.kernel.aligned


def test_an_address_that_is_no_multiple_of_16():
    """The whole launch then takes element by element."""
    r = updates(rules.sgd, [(9,), (12,)])
    (record,) = plan(moved(r.segment), gpu.Target(spaces.space_of(DEVICE))).records
    addresses = [4096 * (k + 1) for k in range(len(record.values) + 1)]
    assert record.step.fitting(addresses) is record.step
    addresses[1] += 4
    assert record.step.fitting(addresses) is record.step.unaligned


def test_launches_that_depend_on_each_other_stay_apart():
    r = Recorder()
    x = r.given(np.linspace(-1, 1, 6, dtype=np.float32))
    i = r.given(np.array([3, 0, 1]))
    y = r("tanh", x)
    z = r("tanh", r("take_kernel", y, i, axis=0))
    r.keep(y, z)
    assert len(titles(r)) == 3
    agrees(r)


def test_a_launch_does_not_pass_one_that_reads_what_it_writes():
    """p is read between the two updates, through a view, so the first cannot wait for the second."""
    r = updates(rules.sgd, [(6,), (4,)])
    first, second = r.segment.rows
    p = first.outs[0]
    part = r.view("slice_view", p, starts=(2,), sizes=(3,), steps=(1,))
    i = r.given(np.array([2, 0]))
    r.segment.rows = [first]
    seen = r("take_kernel", part, i, axis=0, keep=True)
    r.segment.rows.append(second)
    assert [t.split()[0] for t in titles(r)] == ["sgd", "take", "sgd"]
    agrees(r)
    assert seen in one_by_one(r)


def test_memory_is_placed_for_the_order_of_launches():
    """Gradients that are computed apart live until the one launch that reads them all."""
    r, rng = Recorder(), np.random.default_rng(1)
    lr, decay = (r.given(np.float32(v)) for v in (0.5, 0.25))
    for n in (4, 6, 4):
        x = r.given(rng.normal(size=(n, n)).astype(np.float32))
        p = r.given(rng.normal(size=(n, n)).astype(np.float32))
        grad = r("matmul_kernel", x, x)
        r.assign(rules.sgd, (p,), p, grad, lr, decay)
    words = titles(r)
    assert [t.split()[0] for t in words] == ["matmul"] * 3 + ["sgd"] and "2 more" in words[-1]
    agrees(r, 1e-5)


def test_an_input_of_two_arrays_is_not_written_over():
    """Chains too long to be one kernel read the same value, which nothing else needs any more."""
    r, rng = Recorder(), np.random.default_rng(2)
    x = r("matmul_kernel", *[r.given(rng.normal(size=(4, 4)).astype(np.float32)) for _ in range(2)])
    ends = []
    for _ in range(2):
        y = r("add", x, r.given(rng.normal(size=(4, 4)).astype(np.float32)))
        for _ in range(9):
            y = r("sin", y)
        ends.append(y)
    r.keep(r("matmul_kernel", *ends))
    assert [t.split()[0] for t in titles(r)] == ["matmul", "fused", "matmul"] and "1 more" in titles(r)[1]
    agrees(r, 1e-5)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_random_chains_over_several_arrays(data):
    """The same few ops on arrays of several sizes and dtypes, with results that are kept, dropped or read again."""
    r = Recorder()
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    shapes = data.draw(st.lists(st.sampled_from([(5,), (8,), (2, 4), (1,), (), (12,)]), min_size=2, max_size=5))
    known = [r.given(rng.normal(size=s).astype(data.draw(st.sampled_from(["f4", "f8"])))) for s in shapes]
    flags = [r.given(rng.integers(0, 2, s).astype(bool)) for s in shapes]
    seven = r.given(np.zeros(1, np.int64))
    for _ in range(data.draw(st.integers(2, 12))):
        op = data.draw(st.sampled_from(["tanh", "logical_not", "greater", "assign", "take"]))
        n = data.draw(st.sampled_from(known))
        if op == "tanh":
            known.append(r("tanh", n))
        elif op == "greater":
            flags.append(r("greater", n, data.draw(st.sampled_from([k for k in known if r.layout(k) is r.layout(n)]))))
        elif op == "logical_not":
            flags.append(r("logical_not", data.draw(st.sampled_from(flags))))
        elif op == "take" and r.layout(n).ndim:
            r.keep(r("take_kernel", n, seven, axis=0))
        elif op == "assign" and n in r.arrays:
            r.assign(NAMED["multiply"], (n,), n, n)
    r.keep(*[n for n in known + flags if data.draw(st.booleans())])
    agrees(r)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.Adam(p, lr=0.01),
        lambda p: optim.AdamW([{"params": p[:2]}, {"params": p[2:], "lr": 0.1}]),
        lambda p: optim.SGD(p, lr=0.1),
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    ],
    ids=["adam", "adamw of two groups", "sgd", "momentum", "nesterov"],
)
def test_a_session_updates_all_parameters_at_once(make):
    def trained(device, session):
        tg.seed(0)
        model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Linear(4, 2)).to(device)
        optimizer, rng = make(list(model.parameters())), np.random.default_rng(0)
        for _ in range(6):
            with session:
                loss = (model(tg.tensor(rng.normal(size=(4, 3)).astype(np.float32), device=device)) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return [p.numpy() for p in model.parameters()]

    wanted, session = trained("cpu", tg.Session()), tg.Session()
    for a, b in zip(trained("cuda", session), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    name = make([tg.ones(1, requires_grad=True), tg.ones(1, requires_grad=True), tg.ones(1, requires_grad=True)])
    rule = name.rule_for(name.param_groups[0], False).name
    lines = [line for line in session.explain().splitlines() if rule in line.split()[1:3] or f"·{rule}" in line]
    assert len(lines) == 1 and "and 5 more" in lines[0], session.explain()
