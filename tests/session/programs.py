"""Random programs, for tests and for `random_search.py`: what they consist of, and how one is run and checked.

A program is a list of statements over a few variables: ops, branches on data, loops whose length changes, values that are
held, syncs, writes in place, updates of parameters, changing numbers and shapes, parts with no_grad and autocast, sessions
inside sessions. Its tensors lie on one device and have one dtype, but for what autocast makes of them.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from paired import EPS, SEED, Eager, Tolerance, agree, same
from program_ops import BINARY, LARGE, REDUCED, RESHAPED, SCALAR, SUMMING, UNARY

import tapegrad as tg
from tapegrad import optim
from tapegrad.errors import TapegradError

ITERATIONS = 10
WARM = 6  # iterations until a program without branches only replays: carried values need some more than others
REORDERED = 1 << 14  # ulps: such programs feed their results back for ten iterations
HALVES = 16  # the same in ulps of a dtype of two bytes, where few results are rounded otherwise
DTYPES = ("float32", "float64", "float16", "bfloat16")

LOOKS = ("item", "numpy", "text", "bool", "shape")

place = st.integers(0, 5)
simple = st.one_of(
    st.tuples(st.just("unary"), st.sampled_from(list(UNARY)), place),
    st.tuples(st.just("binary"), st.sampled_from(list(BINARY)), place, place),
    st.tuples(st.just("scalar"), st.sampled_from(list(SCALAR)), place, st.sampled_from(["fixed", "changing", "whole"])),
    st.tuples(st.just("weight"), place),
    st.tuples(st.just("weight"), place, st.just("relu")),
    st.tuples(st.just("fresh"), st.sampled_from(["array", "list", "full", "normal", "leaf"])),
    st.tuples(st.just("hold"), place),
    st.tuples(st.just("reshape"), st.sampled_from(list(RESHAPED)), place, st.booleans()),
    st.tuples(st.just("look"), st.sampled_from(LOOKS), place),
    st.tuples(st.just("carry"), place, st.booleans()),
    st.tuples(st.just("twin"), place, st.sampled_from(["same", "own", "own"])),
    st.tuples(st.just("second")),
    st.tuples(st.just("drop"), place),
    st.tuples(st.just("write"), st.sampled_from(["buffer", "part", "result", "view", "parameter"]), place),
    st.tuples(st.just("read"), st.sampled_from(["buffer", "view", "parameter"])),
)
summing = st.one_of(
    st.tuples(st.just("summing"), st.sampled_from(list(SUMMING)), place),
    st.tuples(st.just("backward"), place, st.sampled_from([True, True, False])),
    st.tuples(st.just("step")),
    st.tuples(st.just("learn"), place, st.booleans()),
    st.tuples(st.just("learn"), place, st.just(True)),
    st.tuples(st.just("gradient"), st.sampled_from(["hold", "drop", "halve"])),
    st.tuples(st.just("inner"), place),
    st.tuples(
        st.just("reduce"),
        st.sampled_from(list(LARGE)),
        st.sampled_from(list(REDUCED)),
        st.sampled_from([0, 1, None]),
        place,
        st.sampled_from(["", "", "large", "small", "both"]),
    ),
)


def blocks(statement, least: int = 1, most: int = 4):
    return st.lists(statement, min_size=least, max_size=most)


def casting(inner):
    return st.tuples(st.just("autocast"), st.sampled_from(["float16", "bfloat16", None]), blocks(inner))


def compound(inner):
    return st.one_of(
        st.tuples(st.just("branch"), place, blocks(inner), blocks(inner, 0)),
        st.tuples(st.just("loop"), st.sampled_from([(2,), (1, 2), (3, 1, 2), (0, 2)]), blocks(inner, 1, 3)),
        st.tuples(st.just("quiet"), blocks(inner)),
        casting(inner),
        st.tuples(st.just("session"), blocks(inner)),
        st.tuples(st.just("break"), st.sampled_from([(3,), (5, 6), (7,)])),
    )


@dataclass
class Program:
    body: list
    rows: tuple[int, ...]
    dtype: str
    scale = 0.0  # of elements, as `agree` takes it

    @property
    def exact(self) -> bool:
        """Nothing is summed in an order that could differ."""
        return not mentions(self.body, "summing", "backward", "step", "gradient", "inner", "learn", "reduce")

    @property
    def eps(self) -> float:
        """An ulp of 1 in the coarsest dtype that anything is rounded to."""
        return max(EPS[name] for name in EPS if name == self.dtype or mentions(self.body, name))

    def within(self) -> Tolerance:
        """What sums that are reordered, or another device's functions, may lead to."""
        if self.eps < EPS["float16"]:
            return Tolerance(REORDERED, self.scale, self.eps)
        return Tolerance(HALVES, 1.0, self.eps)

    @property
    def straight(self) -> bool:
        """Every iteration does the same."""
        branching = mentions(self.body, "branch", "break", "bool", (1, 2), (3, 1, 2), (0, 2))
        growing = mentions(self.body, *[("carry", a, False) for a in range(6)])  # a graph over all iterations so far
        return not branching and not growing and len(set(self.rows)) == 1


def mentions(tree, *words) -> bool:
    """True where one of the words, names or tuples, stands anywhere in the program."""
    if any(tree == word for word in words):
        return True
    return isinstance(tree, tuple | list) and any(mentions(part, *words) for part in tree)


def programs(*, sums: bool, control: bool):
    leaf = st.one_of(simple, summing) if sums else simple
    nested = compound(st.one_of(leaf, compound(leaf))) if control else casting(st.one_of(leaf, leaf, casting(leaf)))
    statement = st.one_of(leaf, leaf, leaf, nested)
    rows = st.sampled_from([(3,), (3, 3, 2), (1, 4)]) if control else st.just((3,))
    return st.builds(Program, blocks(statement, 6, 16), rows, st.sampled_from(DTYPES))


class Stop(Exception):
    """Leaves a pass in the middle."""


class Machine:
    """Runs a program on a device, iteration by iteration, and keeps what it sees."""

    def __init__(self, program: Program, make, device: str):
        self.program, self.make, self.device = program, make, device
        self.dtype = getattr(tg, program.dtype)
        self.rng = np.random.default_rng(5)
        self.weight, self.bias = (
            self.tensor(self.rng.normal(size=shape) * 0.5, requires_grad=True) for shape in ((4, 4), (4,))
        )
        self.params = [self.weight, self.bias]
        self.optimizer = optim.SGD(self.params, lr=0.05, momentum=0.5)
        self.buffer = self.tensor(self.rng.normal(size=(2, 4)))
        self.view = self.buffer[1:]
        self.carried = tg.zeros((1, 4), dtype=self.dtype, device=device)
        self.twin = tg.ones((1, 4), dtype=self.dtype, device=device)
        self.held: list[tg.Tensor] = []
        self.sessions: dict[int, Any] = {}
        self.refused = False  # an op that raises is never matched
        self.overwritten = False  # a backward wanted a value that was there no more

    def tensor(self, data, **settings) -> tg.Tensor:
        return tg.tensor(data, dtype=self.dtype, device=self.device, **settings)

    def iteration(self, i: int) -> list:
        self.i, self.rows, self.seen = i, self.program.rows[i % len(self.program.rows)], []
        self.data = self.rng.normal(size=(self.rows, 4))
        x = self.tensor(self.data)
        self.vars = [x, self.carried, tg.tanh(x @ self.weight + self.bias)]
        self.block(self.program.body)
        self.vars.clear()
        return self.seen

    def pick(self, k: int) -> tg.Tensor:
        return self.vars[-1 - k % len(self.vars)]

    def give(self, x: tg.Tensor) -> None:
        self.vars.append(x)
        if len(self.vars) > 5:
            del self.vars[0]

    def block(self, body: list) -> None:
        for statement in body:
            try:
                getattr(self, statement[0] + "_")(*statement[1:])
            except TapegradError as error:
                self.seen.append(self.said(error))
                self.refused = True

    def said(self, error: TapegradError) -> str:
        self.overwritten |= "overwritten in place" in str(error)
        return type(error).__name__

    # statements

    def unary_(self, op, a):
        self.give(UNARY[op](self.pick(a)))

    def summing_(self, op, a):
        self.give(SUMMING[op](self.pick(a)))

    def binary_(self, op, a, b):
        self.give(BINARY[op](self.pick(a), self.pick(b)))

    def scalar_(self, op, a, kind):
        number = {"fixed": 0.75, "changing": 0.3 + 0.1 * self.i, "whole": self.i % 3}[kind]
        self.give(SCALAR[op](self.pick(a), number))

    def weight_(self, a, after="tanh"):
        self.give(UNARY[after](self.pick(a) @ self.weight + self.bias))

    def fresh_(self, kind):
        shape, number = (self.rows, 4), 0.25 * (self.i + 1)
        self.give(
            {
                "array": lambda: self.tensor(np.sin(self.data + number)),
                "list": lambda: self.tensor([[number, 0.5, -0.5, 1.0]]),
                "full": lambda: tg.full(shape, number, dtype=self.dtype, device=self.device),
                "normal": lambda: tg.normal(size=shape, device=self.device).astype(self.dtype),
                "leaf": lambda: self.tensor(self.data * 0.5, requires_grad=True),
            }[kind]()
        )

    def reshape_(self, how, a, held):
        x = self.pick(a)
        make, use = RESHAPED[how]
        y = make(x)
        if held:
            self.held.append(y)
        self.give(use(x, y))

    def reduce_(self, large, how, axis, a, held):
        """A reduction of more elements, in a chain with what it is of; one of them, both or neither are held."""
        x = self.pick(a)
        y = tg.tanh(LARGE[large](x) * 1.5)
        z = REDUCED[how](y, axis)
        self.held += {"large": [y], "small": [z], "both": [y, z]}.get(held, [])
        self.give((y - z)[: x.shape[0], :4] * 0.5)

    def hold_(self, a):
        self.held.append(self.pick(a))

    def look_(self, how, a):
        x = self.pick(a)
        if how == "bool":
            if x[0, 0] > 0:
                self.give(x * 0.5)
        else:
            looks = {
                "item": lambda: x[0, 1].item(),
                "numpy": x.numpy,
                "text": lambda: str(x.shape),
                "shape": lambda: x.shape,
            }
            self.seen.append(looks[how]())

    def carry_(self, a, detached):
        x = self.pick(a)[:1]
        self.carried = x.detach() if detached else x

    def twin_(self, a, how):
        """Another value for the next iteration, which may be the very tensor that is carried already."""
        self.twin = self.carried if how == "same" else self.pick(a)[:1].detach() * 0.5

    def second_(self):
        self.give(tg.sin(self.twin @ self.weight + self.bias))

    def drop_(self, a):
        if len(self.vars) > 1:
            del self.vars[-1 - a % len(self.vars)]

    def write_(self, where, a):
        x = self.pick(a)[:1].detach()
        if where == "buffer":
            self.buffer.copy_(x)
        elif where == "view":
            self.view.copy_(x)
        elif where == "part":
            self.buffer[0, 1:3] = x[0, :2]
        elif where == "result":
            y = (self.pick(a) * 2).detach()
            y[0] = x[0]
            self.give(y)
        else:
            with tg.no_grad():
                self.bias.copy_(self.bias * 0.5 + x[0] * 0.1)

    def read_(self, where):
        self.give(
            {"buffer": self.buffer[:1] * 1, "view": self.view + 0, "parameter": self.bias.reshape((1, 4)) * 1}[where]
        )

    def backward_(self, a, retain):
        (self.pick(a) ** 2).mean().backward(retain_graph=retain)

    def learn_(self, a, step):
        """A whole step, or the gradients alone, which add to those that are there."""
        x = self.pick(a).detach()
        loss = (tg.tanh(x @ self.weight + self.bias) - 0.5).square().mean()
        loss.backward()
        if step:
            self.step_()
        self.give(loss.detach().reshape((1, 1)) + x)

    def gradient_(self, how):
        for p in self.params:
            if p.grad is not None:
                if how == "hold":
                    self.held.append(p.grad)
                elif how == "halve":
                    p.grad = p.grad * 0.5
                else:
                    p.grad = None

    def step_(self):
        self.optimizer.param_groups[0]["lr"] = 0.05 / (1 + self.i)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def inner_(self, a):
        self.give(tg.grad(lambda v: (tg.sin(v) * self.bias).sum())(self.pick(a)) * 0.5)

    def branch_(self, a, yes, no):
        self.block(yes if self.pick(a)[0].sum().item() > 0.01 else no)  # a sum may be 0 but for rounding

    def loop_(self, lengths, body):
        for _ in range(lengths[self.i % len(lengths)]):
            self.block(body)

    def quiet_(self, body):
        with tg.no_grad():
            self.block(body)

    def autocast_(self, dtype, body):
        with tg.autocast(dtype or "float16", enabled=dtype is not None):
            self.block(body)

    def session_(self, body):
        session = self.sessions.setdefault(id(body), None) or self.make()
        self.sessions[id(body)] = session
        with session:
            self.block(body)

    def break_(self, iterations):
        if self.i in iterations:
            raise Stop

    def between(self, session, i: int) -> None:
        """What happens between two passes: nothing."""

    def final(self) -> list:
        """What is left, and gradients of what is still held with its graph."""
        seen: list = [[t.detach() for t in self.held], self.weight.numpy(), self.bias.numpy(), self.buffer.numpy()]
        seen.append([None if p.grad is None else p.grad.numpy() for p in self.params])
        for t in [*self.held, self.carried]:
            if t.requires_grad:
                try:
                    (t * t).sum().backward()
                except TapegradError as error:
                    seen.append(self.said(error))
        seen.append([None if p.grad is None else p.grad.numpy() for p in self.params])
        return seen


def check(program: Program, kind: type[Machine] = Machine, device: str = "cpu") -> int:
    """Run a program eagerly and in sessions, and compare; how many passes were replays.

    On another device than the CPU, it is run eagerly on that, too, and compared: but not where a backward of halves failed
    because a factor was overwritten. Products that take halves as they are need them then; others keep what they converted.
    """
    machine: Any = None

    def run(make, device=device):
        nonlocal machine
        session = make()
        machine = kind(program, make, device)
        for i in range(ITERATIONS):
            seen: Any = "stopped"
            with contextlib.suppress(Stop), session:
                seen = machine.iteration(i)
            machine.between(session, i)
            yield seen, machine.weight.numpy() if i % 3 == 0 else None
        yield machine.final()

    near = program.within()
    passes = agree(run, ulps=Tolerance() if program.exact else near, restless=True)
    refused = machine.refused
    if device != "cpu" and not (near.eps >= EPS["float16"] and machine.overwritten):
        tg.seed(SEED)
        same(passes.wanted, list(run(Eager, "cpu")), near, f"eagerly, {device} and CPU: pass")
    stats = passes.session.stats
    assert stats.iterations == ITERATIONS
    if program.straight and not refused:
        passes.steady(WARM, ITERATIONS, sessions=slice(1))
    return stats.replays
