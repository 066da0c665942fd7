"""What an optimizer's step does besides its assignments, so that a session can match the step as a whole."""

from __future__ import annotations

import ctypes
import struct
import sys
from typing import Any

from ..tape.apply import FORMATS, pack_scalar
from ..tape.spaces import HOST, put
from ..tape.tensor import leaf_changes

refs = sys.getrefcount


class Numbers:
    """The coefficients of one bucket's rule, in memory that the recorded updates read."""

    __slots__ = ("block", "buffer", "device", "dtype", "pack", "value")

    def __init__(self, value, count: int):
        self.value, self.dtype, self.device = value, value.layout.dtype, value.layout.device
        self.pack = struct.Struct(f"{count}{FORMATS[self.dtype.name]}").pack_into
        self.buffer: Any = None
        self.block: Any = None

    def write(self, numbers: tuple[float, ...]) -> None:
        buffer = self.value.buffer
        if buffer is not self.buffer:
            self.buffer = buffer
            kind = ctypes.c_char * self.value.layout.nbytes
            self.block = kind.from_address(buffer.address) if self.device in HOST else kind()
        try:
            self.pack(self.block, 0, *numbers)
        except OverflowError:  # beyond float32: inf
            packed = b"".join([pack_scalar(n, self.dtype) for n in numbers])
            self.block[: len(packed)] = packed
        if self.device not in HOST:
            put(self.device, buffer.address, bytes(self.block))


class Bucket:
    """Parameters with one rule and one step count: where the next coefficients go."""

    __slots__ = ("counted", "group", "new", "numbers", "params", "rule", "step", "tensors")

    def __init__(self, optimizer, group: dict[str, Any], new: bool, members: list):
        self.group, self.new, self.rule = group, new, optimizer.rule_for(group, new)
        self.params = [p for p, _, _ in members]
        self.counted = "step" in optimizer.numbers
        self.tensors = [(p, name, state[name]) for p, _, state in members for name in optimizer.kept(group)]
        self.numbers: list[Numbers] = []
        self.step = 0  # steps done, while `Steady` counts them

    def write(self, optimizer, step: int) -> None:
        """The coefficients of that step."""
        if self.numbers:
            values = optimizer.coefficients(self.group, step, False)
            for n in self.numbers:
                n.write(values)


class Leaves:
    """The leaves of the parameters of some groups, and whether they still are."""

    __slots__ = ("changes", "count", "groups", "lists", "nodes", "sizes", "trained")

    def __init__(self, groups: list[dict[str, Any]]):
        self.nodes = [p.node for group in groups for p in group["params"]]  # None where a parameter is frozen
        self.trained = [leaf for leaf in self.nodes if leaf is not None]
        self.groups, self.sizes = list(groups), [len(group["params"]) for group in groups]
        self.count, self.changes = len(groups), leaf_changes[0]
        self.lists = []
        for group in groups:
            params = group["params"]
            if hasattr(params, "version"):
                self.lists.append((group, params, params.version))
            else:  # a list of the user's own, which does not tell when it is changed
                self.count = -1

    def same(self, other: Leaves) -> bool:
        """True where the others are the same leaves in the same groups."""
        return (
            self.nodes == other.nodes
            and self.sizes == other.sizes
            and len(self.groups) == len(other.groups)
            and all(a is b for a, b in zip(self.groups, other.groups))
        )

    def current(self, groups: list[dict[str, Any]]) -> bool:
        """True where nothing has changed since, for sure."""
        if leaf_changes[0] != self.changes or len(groups) != self.count:
            return False
        if self.count == 1:  # without a loop: 0.1 µs in place of 0.25
            group, params, version = self.lists[0]
            return groups[0] is group and group["params"] is params and params.version == version
        for (group, params, version), given in zip(self.lists, groups):
            if given is not group or group["params"] is not params or params.version != version:
                return False
        return True


class Steady:
    """A recorded step. `ready()`: only numbers differ from it.

    While nobody else refers to the optimizer's state, its step counts stand here alone, and its tensors cannot have been
    exchanged: `optimizer.counting` is this object. Whoever asks for `optimizer.state` gets the counts written there first.
    """

    def __init__(self, optimizer, buckets: list[Bucket]):
        self.optimizer, self.buckets = optimizer, buckets
        self.leaves = Leaves(optimizer.param_groups)

    def renew(self) -> list:
        """The step went as recorded with other leaves, or other groups: those of now. Returns the leaves."""
        groups = self.optimizer.param_groups
        self.leaves = Leaves(groups)
        group_of = {id(p): group for group in groups for p in group["params"]}
        for b in self.buckets:
            b.group = group_of[id(b.params[0])]
        return self.leaves.trained

    def ready(self) -> bool:
        """True where the same parameters would be updated by the same rules, reading and writing the same tensors."""
        optimizer = self.optimizer
        if not self.same_rules():
            return False
        states = optimizer.state
        for b in self.buckets:
            if b.new or any(p not in states for p in b.params):
                return False
            if b.counted:
                step = states[b.params[0]]["step"]
                for p in b.params:
                    if states[p]["step"] != step:
                        return False
            for p, name, t in b.tensors:
                if states[p].get(name) is not t:
                    return False
        return True

    def same_rules(self) -> bool:
        """True where settings give the recorded parameters the recorded rules."""
        optimizer = self.optimizer
        leaves = optimizer.leaves
        if not leaves.current(optimizer.param_groups):
            leaves = optimizer.leaves = Leaves(optimizer.param_groups)
        if leaves is not self.leaves:
            if not leaves.same(self.leaves):
                return False
            self.leaves = leaves
        for b in self.buckets:
            optimizer.check_lr(b.group)
            if optimizer.rule_for(b.group, False) is not b.rule:
                return False
        return True

    def again(self) -> bool:
        """Do what `ready` and `advance` do, where the step counts are here; False, and nothing done, where they are not."""
        optimizer = self.optimizer
        if optimizer.counting is not self or not self.same_rules():
            return False
        for b in self.buckets:
            if b.counted:
                b.step += 1
            b.write(optimizer, b.step)
        return True

    def advance(self) -> None:
        """Count the step and write its coefficients."""
        optimizer = self.optimizer
        states = optimizer.state
        for b in self.buckets:
            step = 1
            if b.counted:
                step += states[b.params[0]]["step"]
                for p in b.params:
                    states[p]["step"] = step
            b.step = step
            b.write(optimizer, step)
        del states
        if refs(optimizer.kept_state) == OUTER and set(map(refs, optimizer.kept_state.values())) == INNER:
            optimizer.counting = self

    def show(self) -> None:
        """Write the step counts where users find them."""
        optimizer = self.optimizer
        optimizer.counting = None
        states = optimizer.state
        for b in self.buckets:
            if b.counted:
                for p in b.params:
                    states[p]["step"] = b.step

    def take_back(self, _=None) -> None:
        """The step did not happen."""
        states = self.optimizer.state
        for b in self.buckets:
            if b.counted:
                for p in b.params:
                    states[p]["step"] -= 1


def _calibrate() -> tuple[int, set[int]]:
    """What getrefcount says of a dict that one attribute refers to, and of the values of a dict."""

    class Holder:
        kept: Any = None

    holder = Holder()
    holder.kept = {1: {}, 2: {}}
    return refs(holder.kept), set(map(refs, holder.kept.values()))


OUTER, INNER = _calibrate()


def steady(optimizer, buckets: list, values: list) -> Steady | None:
    """What `optimizer` did with `buckets`, whose coefficients it put into `values`; None where these are not as expected."""
    made = []
    left = list(values)
    for group, step, new, members in buckets:
        b = Bucket(optimizer, group, new, members)
        count = len(optimizer.coefficients(group, step, new))
        for _ in {(p.layout.dtype.compute, p.layout.device) for p, _, _ in members} if count else ():
            if not left or left[0].layout.shape != (count,):
                return None
            b.numbers.append(Numbers(left.pop(0), count))
        made.append(b)
    return None if left else Steady(optimizer, made)
