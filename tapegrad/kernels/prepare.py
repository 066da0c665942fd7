"""From an op and the layouts of its inputs to the layouts of its outputs and the steps that compute them.

A backend is an object with `prepare(op, ins, attrs) -> Prepared`; one is chosen by the device of the inputs. `CPU` compiles;
`reference.py` computes the same with NumPy and is the oracle of the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..dtypes import DType
from ..errors import DtypeError, KernelError, ShapeError
from ..layouts import Layout, device_named, layout
from ..ops.reader import Unreadable
from ..ops.registry import IDENTITY, Op, elementwise_dtypes
from . import elementwise as generator
from .builders import BUILDERS
from .launch import ACCEPTS, Step
from .run import Ready


@dataclass(slots=True)
class Prepared:
    """Everything a call needs: output layouts, steps, and which inputs must be copied to C order first."""

    outs: tuple[Layout, ...]
    steps: tuple[Step, ...]
    copies: tuple[int, ...] = ()
    run: Callable | None = None  # a backend that does not go through steps: run(op, ins, outs, addresses)
    offset: int = 0  # of a view: first element, relative to the input's
    ready: tuple[Ready, ...] | None = None  # the steps as callables, made at the first run


def broadcast(op_name: str, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The common shape, by NumPy's rule: aligned at the last axis, lengths equal or 1."""
    ndim = max(map(len, shapes))
    result = []
    for axis in range(-ndim, 0):
        lengths = {s[axis] for s in shapes if len(s) >= -axis}
        wide = lengths - {1}
        if len(wide) > 1:
            raise ShapeError(
                f"{op_name}: shapes {' and '.join(map(str, shapes))} do not broadcast: lengths {sorted(wide)} meet at axis {axis}. "
                "Axes must be equal or 1, counted from the last; reshape or expand_dims one of them."
            )
        result.append(wide.pop() if wide else 1)
    return tuple(result)


def infer(op: Op, ins: tuple[Layout, ...], attrs: dict) -> tuple[tuple[Layout, ...], DType | None, int]:
    """Output layouts, the dtype an elementwise op computes in, and a view's offset."""
    device = device_of(op, ins) if ins else attrs.get("device", "cpu")
    if op.kind == "elementwise":
        compute, result = elementwise_dtypes(op, tuple(x.dtype for x in ins))
        if attrs.get("dtype") is not None:
            result = attrs["dtype"]
            compute = result.compute
        shape = broadcast(op.name, [x.shape for x in ins])
        return (layout(shape, result, None, device),) * _count(op), compute, 0
    if op.infer is None:
        raise KernelError(f"{op.name} has no shape rule; give it one with @{op.name}.shape")
    found = op.infer(*ins, **attrs)
    if op.kind == "view":
        shape, strides, offset = found
        return (layout(shape, ins[0].dtype, strides, device),), None, offset
    if isinstance(found, tuple):
        found = [found]
    return tuple(layout(tuple(shape), dtype, None, device) for shape, dtype in found), None, 0


def compute_dtype(op: Op, ins: tuple[Layout, ...], outs: tuple[Layout, ...]) -> DType:
    """What an elementwise op that writes to memory of given layouts computes in."""
    check_devices(op, (*ins, *outs))
    return outs[0].dtype.compute if op is IDENTITY else elementwise_dtypes(op, tuple(x.dtype for x in ins))[0]


def _count(op: Op) -> int:
    if op.jitted is None:
        try:
            return len(op.expression())
        except Unreadable:
            return 1
    return op.outputs


def device_of(op: Op, ins: tuple[Layout, ...]) -> str:
    """The device that all inputs share."""
    check_devices(op, ins)
    return ins[0].device


def check_devices(op: Op, ins: tuple[Layout, ...]) -> None:
    """DtypeError where not all are on one device."""
    if any(x.device != ins[0].device for x in ins):
        where = ", ".join(f"input {i} is on {x.device}" for i, x in enumerate(ins))
        raise DtypeError(f"{op.title}: {where}; bring them to one device with .to(device)")


class CPU:
    """Compiled kernels on the host."""

    name = "cpu"
    # builders of kernels that compute with float16 and bfloat16, beside elementwise ones
    halves: frozenset[str] = frozenset()

    def prepare(self, op: Op, ins: tuple[Layout, ...], attrs: dict) -> Prepared:
        outs, compute, offset = infer(op, ins, attrs)
        if op.kind == "view":
            return Prepared(outs, (), offset=offset)
        if any(x.size == 0 for x in outs) and all(x.size == 0 for x in outs):
            return Prepared(outs, ())
        if op.kind == "elementwise":
            return self._elementwise(op, ins, outs, compute)
        accepts = ACCEPTS.get(op.builder)
        copies = tuple(i for i, x in enumerate(ins) if not x.contiguous and not (accepts and accepts(x)))
        plain = tuple(layout(x.shape, x.dtype, None, x.device) if i in copies else x for i, x in enumerate(ins))
        builder = op.kernel or BUILDERS.get(op.builder)
        if builder is None:
            raise KernelError(
                f"{op.name} has no CPU kernel; register one with @kernel({op.name!r}) or give the op a kernel"
            )
        return Prepared(outs, tuple(builder(plain, outs, attrs)), copies)

    def into(self, op: Op, ins: tuple[Layout, ...], outs: tuple[Layout, ...]) -> Prepared:
        """An elementwise op that writes to memory of given layouts."""
        if outs[0].size == 0:
            return Prepared(outs, ())
        return Prepared(
            outs, generator.steps(op.expression(), ins, outs, compute_dtype(op, ins, outs), truths=op.truths)
        )

    def _elementwise(self, op: Op, ins, outs, compute) -> Prepared:
        try:
            expression = op.expression()
        except Unreadable:
            from .compiled import steps  # needs Numba

            return Prepared(outs, steps(op, ins, outs, compute))
        return Prepared(outs, generator.steps(expression, ins, outs, compute, truths=op.truths))


def takes_halves(op: Op, device: str) -> bool:
    """Whether the op runs on float16 and bfloat16 there as it is; else it is given float32."""
    return op.kind in ("elementwise", "view") or op.moves or op.builder in backend(device).halves


BACKENDS: dict[str, Any] = {"cpu": CPU()}


def backend(device: str):
    """The backend that computes on that device."""
    found = BACKENDS.get(device)
    if found is None:
        device = device_named(device)
        found = BACKENDS.get(device)
    if found is None:
        if device == "reference":
            from .reference import Reference

            found = BACKENDS.setdefault("reference", Reference())
        else:
            from .cuda import devices

            found = BACKENDS.setdefault(device, devices.open_device(device).backend)
    return found
