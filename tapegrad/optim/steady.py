"""What an optimizer's step does besides its assignments, so that a session can match the step as a whole."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

from ..tape.apply import FORMATS, pack_scalar


class Numbers:
    """The coefficients of one bucket's rule, in memory that the recorded updates read."""

    __slots__ = ("dtype", "pack", "value")

    def __init__(self, value, count: int):
        self.value, self.dtype = value, value.layout.dtype
        self.pack = struct.Struct(f"{count}{FORMATS[self.dtype.name]}").pack

    def write(self, numbers: tuple[float, ...]) -> None:
        try:
            packed = self.pack(*numbers)
        except OverflowError:  # beyond float32: inf
            packed = b"".join([pack_scalar(n, self.dtype) for n in numbers])
        ctypes.memmove(self.value.buffer.address, packed, len(packed))


class Bucket:
    """Parameters with one rule and one step count: where the next coefficients go."""

    __slots__ = ("counted", "group", "new", "numbers", "rule", "states", "tensors")

    def __init__(self, optimizer, group: dict[str, Any], new: bool, members: list):
        self.group, self.new, self.rule = group, new, optimizer.rule_for(group, new)
        self.states = [state for _, _, state in members]
        self.counted = "step" in optimizer.numbers
        self.tensors = [(state, name, state[name]) for state in self.states for name in optimizer.kept(group)]
        self.numbers: list[Numbers] = []


class Steady:
    """A recorded step. `ready()`: only numbers differ from it."""

    def __init__(self, optimizer, buckets: list[Bucket]):
        self.optimizer, self.buckets = optimizer, buckets
        self.state = optimizer.state
        self.nodes = self.leaves()

    def leaves(self) -> list:
        """The leaves of all parameters; None for those that are frozen."""
        return [p.node for group in self.optimizer.param_groups for p in group["params"]]

    def ready(self) -> bool:
        """True where the same parameters would be updated by the same rules, reading and writing the same tensors."""
        optimizer = self.optimizer
        if optimizer.state is not self.state or self.leaves() != self.nodes:
            return False
        for b in self.buckets:
            optimizer.check_lr(b.group)
            if b.new or optimizer.rule_for(b.group, False) is not b.rule:
                return False
            if b.counted:
                step = b.states[0]["step"]
                for state in b.states:
                    if state["step"] != step:
                        return False
            for state, name, t in b.tensors:
                if state.get(name) is not t:
                    return False
        return True

    def advance(self) -> None:
        """Count the step and write its coefficients."""
        for b in self.buckets:
            step = 1
            if b.counted:
                step += b.states[0]["step"]
                for state in b.states:
                    state["step"] = step
            if b.numbers:
                values = self.optimizer.coefficients(b.group, step, False)
                for n in b.numbers:
                    n.write(values)

    def take_back(self, _=None) -> None:
        """The step did not happen."""
        for b in self.buckets:
            if b.counted:
                for state in b.states:
                    state["step"] -= 1


def steady(optimizer, buckets: list, values: list) -> Steady | None:
    """What `optimizer` did with `buckets`, whose coefficients it put into `values`; None where these are not as expected."""
    made = []
    left = list(values)
    for group, step, new, members in buckets:
        b = Bucket(optimizer, group, new, members)
        count = len(optimizer.coefficients(group, step, new))
        for _ in {(p.layout.dtype, p.layout.device) for p, _, _ in members} if count else ():
            if not left or left[0].layout.shape != (count,):
                return None
            b.numbers.append(Numbers(left.pop(0), count))
        made.append(b)
    return None if left else Steady(optimizer, made)
