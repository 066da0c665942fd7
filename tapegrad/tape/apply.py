"""Runs ops and records rows. This is the eager path: what is here is paid by every op.

A call looks up its `Prepared` by the identity of the input layouts, takes output buffers from the pool, runs the steps and,
where recording is on and an input is differentiable, appends a row.
"""

from __future__ import annotations

import math
import struct

import numpy as np

from .. import dtypes
from ..dtypes import DType, as_dtype, weak_scalar
from ..errors import DtypeError, KernelError, TapeError
from ..halves import narrowed
from ..kernels import run
from ..kernels.memory import array_at, values
from ..kernels.prepare import Prepared, backend, takes_halves
from ..kernels.status import SENTENCES
from ..layouts import Layout, layout
from ..ops import registry
from ..ops.registry import Op
from .pool import POOL, Buffer
from .spaces import host_copy, pool_of, put
from .state import local, order, user_line
from .tensor import CONSTANT, Row, Tensor

HEAVY = (
    1 << 16
)  # bytes an op touches from which the interpreter's lock is dropped; taking it back costs about as much as 64 KiB
LAUNCHES = 4096  # prepared launches kept per op
SCALARS = (bool, int, float)


class Launch:
    """A Prepared with what the call needs at hand."""

    __slots__ = (
        "differentiable",
        "extent",
        "fast",
        "offset",
        "out",
        "outs",
        "pack",
        "prepared",
        "size_class",
        "static",
    )

    def __init__(self, op: Op, prepared: Prepared, ins: tuple[Layout, ...]):
        self.prepared = prepared
        self.outs = prepared.outs
        self.out = prepared.outs[0]
        self.offset = prepared.offset * self.out.dtype.itemsize  # of a view, in bytes
        self.differentiable = op.differentiable and self.out.dtype.is_float
        self.size_class = pool_of(self.out.device).size_class(self.out.nbytes)
        steps = prepared.steps
        operands = len(ins) + len(prepared.outs)
        touched = sum(x.nbytes for x in (*ins, *prepared.outs))
        single = len(steps) == 1 and len(prepared.outs) == 1 and not prepared.copies and not steps[0].workspace
        self.fast = None  # the kernel as a callable, where one step is all
        if single and steps[0].operands == tuple(range(operands)):
            step = steps[0]
            self.fast = run.caller(step, touched <= HEAVY)
            self.pack = run.words(operands).pack
            self.static = run.words(len(step.static)).pack(*step.static)
            self.extent = step.extent


def launch_for(op: Op, inputs: tuple[Tensor, ...], attrs: dict, key) -> Launch:
    """Prepare and remember the launch of `op` on those layouts."""
    ins = tuple(t.layout for t in inputs)
    device = next((x.device for x in ins if x.ndim), ins[0].device if ins else attrs.get("device", "cpu"))
    made = Launch(op, backend(device).prepare(op, ins, attrs), ins)
    if len(op.launches) >= LAUNCHES:
        op.launches.clear()
    op.launches[key] = made
    return made


def elementwise(op: Op, args: tuple):
    """Run an elementwise op on tensors, arrays or Python scalars."""
    state = local.state
    if state.session is not None:
        return state.session.elementwise(op, args)
    count = len(args)
    if count == 2:
        a, b = args
        if type(a) is not Tensor or type(b) is not Tensor:
            args = a, b = beside(a, b) or coerce(op, args)
        key: tuple = (a.layout, b.layout)
    elif count == 1:
        if type(args[0]) is not Tensor:
            args = coerce(op, args)
        key = (args[0].layout,)
    else:
        for a in args:
            if type(a) is not Tensor:
                args = coerce(op, args)
                break
        key = tuple([a.layout for a in args])
    launch = op.launches.get(key)
    if launch is None:
        launch = launch_for(op, args, {}, key)
    return call(op, args, None, launch, state)


def apply(op: Op, inputs: tuple, attrs: dict):
    """Run a primitive or a view on tensors with its static attributes."""
    if dtypes.halves_used and wants_float32(op, inputs, attrs):
        from .widening import in_float32

        return in_float32(op, inputs, attrs)
    state = local.state
    if state.session is not None:
        return state.session.apply(op, inputs, attrs)
    for t in inputs:
        if type(t) is not Tensor:
            inputs = coerce(op, inputs)
            break
    key: tuple = tuple([t.layout for t in inputs])
    if attrs:
        key += tuple(attrs.values())
    found = op.launches.get(key) or launch_for(op, inputs, attrs, key)
    if op.kind == "view":
        x = inputs[0]
        result = Tensor(x.buffer, x.address + found.offset, found.out)
        if x.node is not None and state.recording and op.differentiable:
            record(op, inputs, attrs, (result,), state)
        return result
    return call(op, inputs, attrs, found, state)


def wants_float32(op: Op, inputs: tuple, attrs: dict) -> bool:
    """Whether the op is to compute with halves and cannot."""
    given = attrs.get("dtype")
    if not (given is not None and as_dtype(given).is_half):
        if not any(t.layout.dtype.is_half for t in inputs if type(t) is Tensor):
            return False
    device = next((t.layout.device for t in inputs if type(t) is Tensor), attrs.get("device", "cpu"))
    return not takes_halves(op, device)


def call(op: Op, inputs: tuple[Tensor, ...], attrs: dict | None, launch: Launch, state):
    """Compute, wrap and record."""
    fast = launch.fast
    if fast is None:
        return finish(op, inputs, attrs, general(op, inputs, launch), state)
    size_class = launch.size_class
    free = size_class.free
    address = free.pop() if free else POOL.grow(size_class, f"the result of {op.name}")
    out = Tensor(Buffer(address, free), address, launch.out)
    if len(inputs) == 2:
        a, b = inputs
        status = fast(launch.pack(a.address, b.address, address) + launch.static, 0, launch.extent)
        passive = a.node is None and b.node is None
    elif len(inputs) == 1:
        a = inputs[0]
        status = fast(launch.pack(a.address, address) + launch.static, 0, launch.extent)
        passive = a.node is None
    else:
        status = fast(launch.pack(*[t.address for t in inputs], address) + launch.static, 0, launch.extent)
        passive = True
        for t in inputs:
            if t.node is not None:
                passive = False
    if status:
        fail(op, status, inputs)
    if state.anomaly:
        return finish(op, inputs, attrs, (out,), state)
    if not passive and launch.differentiable and state.recording:
        record(op, inputs, attrs, (out,), state)
    return out


def finish(op: Op, inputs: tuple[Tensor, ...], attrs: dict | None, results: tuple[Tensor, ...], state):
    """Look at the results where anomalies are watched for, and record."""
    if state.anomaly:
        from .anomaly import inspect

        inspect(op, inputs, results)
    if state.recording and op.differentiable and results[0].layout.dtype.is_float:
        for t in inputs:
            if t.node is not None:
                record(op, inputs, attrs, results, state)
                break
    return results[0] if len(results) == 1 else results


def general(op: Op, inputs: tuple[Tensor, ...], launch: Launch) -> tuple[Tensor, ...]:
    """Any number of steps and outputs, copies of strided inputs, scratch memory, other backends."""
    prepared = launch.prepared
    results = tuple(empty(x, op.name) for x in prepared.outs)  # first: where these do not fit, no copy is worth making
    if prepared.copies:
        inputs = tuple(contiguous_copy(t) if i in prepared.copies else t for i, t in enumerate(inputs))
    run_prepared(op, prepared, inputs, results)
    return results


def run_prepared(op: Op, prepared: Prepared, inputs: tuple[Tensor, ...], results: tuple[Tensor, ...]) -> None:
    """Run the steps from `inputs` into `results`, which may be existing buffers."""
    addresses = [t.address for t in (*inputs, *results)]
    if prepared.run is not None:
        prepared.run(op, [t.layout for t in inputs], [t.layout for t in results], addresses)
        return
    if prepared.ready is None:
        prepared.ready = tuple([run.Ready(step) for step in prepared.steps])
    scratch: list[Buffer] = []

    def workspace(nbytes: int) -> int:
        scratch.append(allocate(nbytes, f"scratch memory of {op.name}", results[0].layout.device))
        return scratch[-1].address

    for step in prepared.ready:
        status = step.run(addresses, workspace)
        if status:
            fail(op, status, inputs)


def fail(op: Op, status: int, inputs: tuple[Tensor, ...]):
    """Raise what a kernel's status says, with the range of the indices where one of them is at fault."""
    from ..errors import IndexOutOfRange
    from ..kernels.status import INDEX

    name = op.title
    sentence = SENTENCES.get(status, f"the kernel returned status {status}")
    if status != INDEX:
        raise KernelError(f"{name}: {sentence}")
    ranges = [host_array(t) for t in inputs if t.dtype.kind in "iu" and t.size]
    found = "".join(f" Indices from {x.min()} to {x.max()} came." for x in ranges[-1:])
    shapes = " and ".join(str(t.shape) for t in inputs)
    raise IndexOutOfRange(f"{name}: {sentence}.{found} The inputs have shapes {shapes}.")


def allocate(nbytes: int, what: str, device: str = "cpu") -> Buffer:
    """A buffer of at least that many bytes."""
    return (POOL if device == "cpu" else pool_of(device)).allocate(nbytes, what)


def empty(x: Layout, what: str = "empty") -> Tensor:
    """A tensor of that layout on a new buffer, its elements undefined."""
    buffer = allocate(x.nbytes, f"the result of {what}", x.device)
    return Tensor(buffer, buffer.address, x)


def contiguous_copy(t: Tensor) -> Tensor:
    """The same value in C order, unrecorded."""
    state = local.state
    before, state.recording = state.recording, False
    try:
        return elementwise(registry.IDENTITY, (t,))
    finally:
        state.recording = before


# recording


def record(op: Op, inputs: tuple[Tensor, ...], attrs: dict | None, results: tuple[Tensor, ...], state) -> None:
    """Append the row that made `results`."""
    parents: tuple
    if len(inputs) == 2:
        a, b = inputs
        parents = (a.node, b.node)
        keeps, needs_output = op.keeps.get((parents[0] is not None, parents[1] is not None)) or kept(op, parents)
        row = Row(op, parents, (a if keeps[0] else a.layout, b if keeps[1] else b.layout), attrs, order(), state)
        indexed = a.index or b.index
    elif len(inputs) == 1:
        a = inputs[0]
        parents = (a.node,)
        keeps, needs_output = op.keeps.get((True,)) or kept(op, parents)
        row = Row(op, parents, inputs if keeps[0] else (a.layout,), attrs, order(), state)
        indexed = a.index
    else:
        parents = tuple([t.node for t in inputs])
        keeps, needs_output = op.keeps.get(tuple([p is not None for p in parents])) or kept(op, parents)
        row = Row(op, parents, tuple([t if k else t.layout for t, k in zip(inputs, keeps)]), attrs, order(), state)
        indexed = False
        for t in inputs:
            if t.index:
                indexed = True
    for node in parents:
        if type(node) is Row and node.state is not state:
            raise TapeError(
                f"{op.title}: an input was recorded by thread {node.state.thread!r} and is used in thread {state.thread!r}; a tape "
                "belongs to one thread. Pass .detach() to the other thread, or record everything there."
            )
    if indexed:
        row.indices = tuple([t.index for t in inputs])
    if needs_output:
        row.output = tuple([(t.buffer, t.address, t.layout) for t in results])
    if state.anomaly:
        row.line = user_line()
    if len(results) == 1:
        results[0].node = row
        return
    for i, t in enumerate(results):
        t.node, t.index = row, i


def kept(op: Op, parents: tuple) -> tuple[tuple[bool, ...], bool]:
    """Which inputs the adjoints of the differentiable inputs read, and whether they read the output."""
    reads: set = set()
    for i, node in enumerate(parents):
        if node is None:
            continue
        if op.kind == "elementwise":
            reads.update(registry.partial(op, i)[1])
        else:
            saves = op.saves.get(i, op.saves.get(None))
            reads.update((*range(len(parents)), "y") if saves is None else saves)
    found = tuple([i in reads for i in range(len(parents))]), "y" in reads
    op.keeps[tuple([p is not None for p in parents])] = found
    return found


# inputs


def coerce(op: Op, args: tuple) -> tuple[Tensor, ...]:
    """All inputs as tensors; Python scalars take the dtype of the tensors beside them."""
    device = next((a.layout.device for a in args if type(a) is Tensor), "cpu")
    made: list = [a if type(a) is Tensor or isinstance(a, SCALARS) else as_tensor(a, op.name, device) for a in args]
    tensors = [t for i, t in enumerate(made) if type(t) is Tensor and i not in op.truths]
    beside: DType | None = None
    for t in tensors:
        beside = t.layout.dtype if beside is None else dtypes.promote(beside, t.layout.dtype)
    if beside is None:
        kinds = [as_scalar_dtype(a) for a in made if type(a) is not Tensor]
        beside = kinds[0]
        for d in kinds[1:]:
            beside = dtypes.promote(beside, d)
    for i, a in enumerate(made):
        if type(a) is not Tensor:
            wanted = as_scalar_dtype(a) if i in op.truths else weak_scalar(a, beside)
            made[i] = constant(a, wanted, device)
    return tuple(made)


def beside(a, b) -> tuple[Tensor, Tensor] | None:
    """A floating tensor and a Python number seen lately, as tensors: the common case, without questions."""
    if type(a) is Tensor and (type(b) is float or type(b) is int):
        x = a.layout
        if x.dtype.is_float:
            found = _constants.get((b, x.dtype, x.device, 0))
            return None if found is None else (a, found)
    elif type(b) is Tensor and (type(a) is float or type(a) is int):
        x = b.layout
        if x.dtype.is_float:
            found = _constants.get((a, x.dtype, x.device, 0))
            return None if found is None else (found, b)
    return None


def as_scalar_dtype(value) -> DType:
    return dtypes.bool_ if isinstance(value, bool) else dtypes.int64 if isinstance(value, int) else dtypes.DEFAULT


def as_tensor(x, op_name: str, device: str = "cpu") -> Tensor:
    """A tensor of an array, a list or a scalar that an op was given; a tensor stays what and where it is."""
    if type(x) is Tensor:
        return x
    from .create import tensor

    try:
        return tensor(x, device=device)
    except DtypeError as error:
        raise DtypeError(f"{op_name}: {error}") from None


FORMATS = {"float32": "f", "float64": "d", "int32": "i", "int64": "q", "uint8": "B", "bool": "?"}
_constants: dict[tuple, Tensor] = {}


def constant(value, dtype: DType, device: str = "cpu") -> Tensor:
    """A 0-d tensor of a Python scalar. Recent ones are shared; nothing writes into them."""
    key = (value, dtype, device, math.copysign(1.0, value) if value == 0 else 0)
    found = _constants.get(key)
    if found is not None:
        return found
    packed = pack_scalar(value, dtype)
    made = empty(layout((), dtype, None, device))
    put(made.layout.device, made.address, packed)
    made.value = CONSTANT  # made before any pass, as it were: whenever it is asked for, it has this value
    if len(_constants) > 1024:
        _constants.clear()
    if value == value:
        _constants[key] = made
    return made


def pack_scalar(value, dtype: DType) -> bytes:
    """The bytes of a Python number in a dtype; raises DtypeError where an integer does not fit."""
    packed: bytes | None
    if dtype.is_half:
        with np.errstate(over="ignore"):
            return (narrowed(np.array(value)) if dtype is dtypes.bfloat16 else np.array(value, np.float16)).tobytes()
    try:
        if dtype.is_float and isinstance(value, int):
            value = float(value)
        elif dtype.kind in "iu" and isinstance(value, float) and value.is_integer():
            value = int(value)
        packed = struct.pack(FORMATS[dtype.name], value)
    except (
        OverflowError
    ):  # of an int beyond float64, which stays an int, or of a float beyond float32, which becomes inf
        packed = struct.pack("f", math.copysign(math.inf, value)) if isinstance(value, float) else None
    except struct.error:
        packed = None
    if packed is None:
        raise DtypeError(
            f"the Python number {_shown(value)} does not fit in {dtype.name}; use a tensor of a wider dtype"
        )
    return packed


def _shown(value) -> str:
    """The number, or how long it is: Python refuses to print integers of more than 4300 digits."""
    return repr(value) if isinstance(value, float) or value.bit_length() < 256 else f"of {value.bit_length()} bits"


def is_tensor(x) -> bool:
    return type(x) is Tensor


def draw(state: np.ndarray, device: str) -> Tensor:
    """The int64 pair (seed, number of the draw) that a random op reads."""
    session = local.state.session
    return as_tensor(state, "random", device) if session is None else session.draw(state, device)


class Interpreter:
    """What `ops` calls; see `ops.registry.set_interpreter`."""

    elementwise = staticmethod(elementwise)
    apply = staticmethod(apply)
    is_tensor = staticmethod(is_tensor)
    tensor = staticmethod(as_tensor)
    draw = staticmethod(draw)
    constant = staticmethod(constant)
    kind = Tensor
    local = local  # whose `state.session` is the session whose pass is open in this thread

    @staticmethod
    def sums(op: Op, args: tuple, kwargs: dict):
        from .widening import sums

        return sums(op, args, kwargs)

    @staticmethod
    def differentiate(f, inputs, cotangents):
        from .functional import differentiate

        return differentiate(f, inputs, cotangents)

    @staticmethod
    def compiled_partial(op: Op, index: int):
        from ..kernels.compiled import partial

        return partial(op, index)


registry.set_interpreter(Interpreter)


def host_array(t: Tensor) -> np.ndarray:
    """The tensor's numbers: a NumPy view of its memory where that can be (`host_memory`), of bfloat16 a copy as float32."""
    return values(host_memory(t), t.layout)


def host_memory(t: Tensor) -> np.ndarray:
    """A NumPy view of the tensor's memory, which does not keep the buffer alive: copy before the tensor goes. Of a device, a copy."""
    session = local.state.session
    if session is not None:
        session.read(t)
    x = t.layout
    return array_at(t.address, x) if x.device == "cpu" else host_copy(t.address, x)
