"""One launch for the same chain over several arrays of different lengths, as an optimizer's update of all parameters is.

Each array with its companions is a segment. Blocks are dealt out to segments by their lengths; a block finds its own by
comparing its number with the segments' last ones, and then walks it as an elementwise kernel of one axis does. Addresses and
lengths are parameters of the kernel, so that a graph that is captured needs no table in memory. An operand that is the same
in all segments (coefficients, mostly) is one parameter, and so is one that is read and written.

Kernels are made for 2, 4, 8, … segments; those that are left over name the last one again, and no block finds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...dtypes import DType
from ...errors import KernelError
from .elementwise import BYTES, GROUP, Chain, Form, Source, Written
from .template import MACHINE, Launch

PARAMETERS = 4096  # bytes of parameters that a kernel can have (CUDA C++ Programming Guide, "Function Parameters")
MOST = 64  # segments of a launch: the text grows with each


class Segment(NamedTuple):
    """The elements of each operand, and the operands' places in the launch."""

    length: int
    places: tuple[int, ...]


class Roles(NamedTuple):
    """Which operands are one for all segments, and which are another under a second name (operand -> that other)."""

    shared: tuple[int, ...]
    same: tuple[tuple[int, int], ...]

    def own(self, count: int) -> list[int]:
        """The operands of which each segment has its own."""
        other = dict(self.same)
        return [i for i in range(count) if i not in self.shared and i not in other]


def roles(segments: Sequence[Segment]) -> Roles:
    """What the segments' operands have in common."""
    columns = list(zip(*[s.places for s in segments], strict=True))
    first: dict[tuple, int] = {}
    same = tuple([(i, first[c]) for i, c in enumerate(columns) if first.setdefault(c, i) != i])
    other = dict(same)
    return Roles(tuple([i for i, c in enumerate(columns) if len(set(c)) == 1 and i not in other]), same)


def room(form: Form, common: Roles) -> int:
    """How many segments a launch of that form can have: a power of two."""
    own = common.own(len(form.operands))
    fixed = len(common.shared) + sum(1 for i in form.worded if i in common.shared)
    each = len(own) + sum(1 for i in form.worded if i in own) + 2
    found = MOST
    while found > 1 and 8 * (fixed + found * each) > PARAMETERS:
        found //= 2
    return found


class Segments(Source):
    """The text of the kernel of a form for so many segments."""

    def __init__(self, form: Form, common: Roles, count: int):
        super().__init__(form)
        if form.axes != 1 or "g" in form.moves:
            raise KernelError(f"segments are walked along one axis, in steps of one: not {form}")
        self.common, self.count = common, count
        self.own = common.own(len(form.operands))
        names = [("p", i) for i in range(len(form.operands))] + [("w", i) for i in form.worded]
        self.fixed = [n for n in names if n[1] in common.shared]
        self.each = [n for n in names if n[1] in self.own]

    @property
    def operands(self) -> list[tuple[str, int, int]]:
        """(p or w for words, operand, segment) of each address."""
        return [(*n, 0) for n in self.fixed] + [(*n, s) for s in range(self.count) for n in self.each]

    def arguments(self) -> tuple[str, ...]:
        dtypes = self.form.operands
        kinds = ["uint32" if kind == "w" else dtypes[i].name for kind, i, _ in self.operands]
        return (*kinds, *("int",) * (2 * self.count))

    def text(self) -> str:
        fixed = [f"{kind}{i}" for kind, i in self.fixed]
        each = [f"{kind}{i}_{s}" for s in range(self.count) for kind, i in self.each]
        words = [f"{word}_{s}" for s in range(self.count) for word in ("n", "stop")]
        self.add(0, f"def elementwise({', '.join(fixed + each + words)}):")
        self.add(1, "block = cuda.blockIdx.x")
        self.choose(1, 0, self.count)
        self.add(1, *[f"p{i} = p{other}" for i, other in self.common.same])
        self.add(1, *[f"w{i} = w{other}" for i, other in self.common.same if i in self.form.worded])
        self.add(1, "thread = (block - first) * cuda.blockDim.x + cuda.threadIdx.x")
        self.add(1, "step = (stop - first) * cuda.blockDim.x")
        self.flat()
        return "\n".join(self.lines) + "\n"

    def choose(self, depth: int, low: int, high: int) -> None:
        """The operands of the segment, one of `low` to `high`, that the block belongs to."""
        if high - low > 1:
            middle = (low + high) // 2
            self.add(depth, f"if block < stop_{middle - 1}:")
            self.choose(depth + 1, low, middle)
            self.add(depth, "else:")
            self.choose(depth + 1, middle, high)
            return
        self.add(depth, *[f"{kind}{i} = {kind}{i}_{low}" for kind, i in self.each])
        self.add(
            depth, f"n, stop = n_{low}, stop_{low}", f"first = stop_{low - 1}" if low else "first = stop_0 - stop_0"
        )


_kernels: dict[tuple, Written] = {}


def _kernel(form: Form, common: Roles, count: int) -> Written:
    key = (form.chain.text(), form.inputs, form.results, form.moves, form.group, common, count)
    found = _kernels.get(key)
    if found is None:
        found = _kernels[key] = Written(Segments(form, common, count))
    return found


def launches(
    chain: Chain, inputs: tuple[DType, ...], results: tuple[DType, ...], moves: str, segments: Sequence[Segment]
) -> list[tuple[Launch, Sequence[Segment]]]:
    """The launches that compute the chain over the segments, and which of these each one has.

    moves: as in `Form`, of v and s. The places of an operand that is read and written are the same for both.
    """
    group = BYTES if all(d.itemsize == 1 for d in (*inputs, *results)) else GROUP
    common, form = roles(segments), Form(chain, inputs, results, moves, 1, group)
    most, made = room(form, common), []
    for k in range(0, len(segments), most):
        some = segments[k : k + most]
        plain = _launch(Form(chain, inputs, results, moves, 1, 1), common, some)
        wide = any(s.length >= group for s in some)
        made.append((_launch(form, common, some, plain) if wide else plain, some))
    return made


def _launch(form: Form, common: Roles, segments: Sequence[Segment], unaligned: Launch | None = None) -> Launch:
    count = 2
    while count < len(segments):
        count *= 2
    kernel = _kernel(form, common, count)
    padded = [*segments, *[segments[-1]] * (count - len(segments))]
    stops = _dealt([-(-s.length // form.group) for s in segments])
    stops += stops[-1:] * (count - len(segments))
    assert isinstance(kernel.source, Segments)
    operands = kernel.source.operands
    places = tuple([padded[s].places[i] for _, i, s in operands])
    words = tuple([w for s, stop in zip(padded, stops, strict=True) for w in (s.length, stop)])
    wide = tuple([k for k, (_, i, _) in enumerate(operands) if form.moves[i] == "v"])
    return Launch(kernel, stops[-1], MACHINE.block, places, words, (), unaligned, wide)


def _dealt(items: list[int]) -> list[int]:
    """For each segment, the number behind its last block: as many as for launches of their own, or their share of the most."""
    wanted = [-(-n // MACHINE.block) for n in items]
    total, stop, stops = sum(wanted), 0, []
    for n in wanted:
        stop += max(1, n if total <= MACHINE.blocks else n * MACHINE.blocks // total)
        stops.append(stop)
    return stops
