"""Joins accesses to neighbouring elements in PTX: four `ld.global.f32` from x, x+4, x+8, x+12 become one `ld.global.v4.f32`.

NVVM does this by itself only where it can prove that the address is a multiple of 16, and nothing that Numba offers can say
so. Kernels bound to vectors say so by construction: where a thread reads or writes neighbours, these are whole groups of 16
bytes from a multiple of 16 bytes on, and the launch checks the operand's address (`Launch.unaligned`). Only these kernels
are given to `joined`. Eight elements of two bytes are four words, each of which is taken apart, or put together, in registers.

An access is moved only within a block of straight code, a load up to the first of its group, a store down to the last,
never past an access that could meet it (loads not past stores, stores not past anything but arithmetic) and never past an
instruction that reads or writes its registers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ACCESS = re.compile(
    r"\t(ld|st)\.global\.([fbus])(16|32|64) \t(?:(%\w+), \[(%\w+)(?:\+(-?\d+))?\]|\[(%\w+)(?:\+(-?\d+))?\], (%\w+));"
)
WIDEST = 16  # bytes


@dataclass(frozen=True, slots=True)
class Access:
    """A load or store of one element: where in the text, of what type, from which address."""

    line: int
    load: bool
    kind: str
    size: int
    base: str
    offset: int
    register: str


def access(line: str, number: int) -> Access | None:
    """The access that the line is; None where it is something else, or one of another size."""
    m = ACCESS.fullmatch(line)
    if m is None:
        return None
    kind, size = m[2] + m[3], int(m[3]) // 8
    if m[1] == "ld":
        return Access(number, True, kind, size, m[5], int(m[6] or 0), m[4])
    return Access(number, False, kind, size, m[7], int(m[8] or 0), m[9])


def joined(ptx: str) -> str:
    """The text with neighbouring accesses joined."""
    lines = ptx.split("\n")
    start = words = 0
    for i, line in enumerate([*lines, "$end:"]):
        if _ends_block(line):
            words = _join_block(lines, start, i, words)
            start = i + 1
    if words:
        lines[next(i for i, line in enumerate(lines) if line is not None and "\t.reg ." in line)] += (
            f"\n\t.reg .b32 \t%pair<{words}>;"
        )
    return "\n".join(line for line in lines if line is not None)


def _ends_block(line: str) -> bool:
    """Labels, branches, barriers, atomics, returns: nothing moves past them."""
    return bool(re.match(r"\s*(\$?\w+:|@|bra|bar|barrier|atom|red|ret|membar|fence|shfl|call|\}|\{)", line))


def _join_block(lines: list, start: int, stop: int, words: int) -> int:
    """Joins what can be joined among lines start..stop, a block of straight code. `words`: registers for pairs that are in use; the
    number of them afterwards is returned."""
    open_loads: list[Access] = []
    open_stores: list[Access] = []
    groups: list[list[Access]] = []
    for i in range(start, stop):
        found = access(lines[i], i)
        is_memory = re.match(r"\s*(ld|st)\.", lines[i]) and ".param" not in lines[i]
        if found is None:
            if is_memory and "st." in lines[i]:
                groups += _groups(open_loads) + _groups(open_stores)
                open_loads, open_stores = [], []
            elif is_memory and open_stores:
                groups += _groups(open_stores)
                open_stores = []
        elif found.load:
            if open_stores:
                groups += _groups(open_stores)
                open_stores = []
            open_loads.append(found)
        else:
            if open_loads:
                groups += _groups(open_loads)
                open_loads = []
            open_stores.append(found)
    for group in groups + _groups(open_loads) + _groups(open_stores):
        words = _rewrite(lines, group, words)
    return words


def _groups(accesses: list[Access]) -> list[list[Access]]:
    """Accesses of 16 bytes among them. A run of neighbours starts at a multiple of 16 bytes if it has whole ones."""
    by_base: dict[tuple, dict[int, Access]] = {}
    for a in accesses:
        by_base.setdefault((a.base, a.kind), {}).setdefault(a.offset, a)
    found = []
    for places in by_base.values():
        size = next(iter(places.values())).size
        run: list[Access] = []
        for offset in [*sorted(places), None]:
            if run and (offset is None or offset != run[-1].offset + size):
                count = WIDEST // size
                if len(run) % count == 0:
                    found += [run[i : i + count] for i in range(0, len(run), count)]
                run = []
            if offset is not None:
                run.append(places[offset])
    return found


def _rewrite(lines: list, group: list[Access], words: int) -> int:
    """One access instead of the group's: at the first of loads, at the last of stores; nothing where that is not allowed.

    Returns how many registers for pairs are in use then, of which `words` were before.
    """
    first = group[0]
    if not all(_may_move(lines, a, (min if a.load else max)(b.line for b in group)) for a in group):
        return words
    registers, kind, moves = [a.register for a in group], first.kind, []
    if first.size == 2:
        if kind[0] == "s" and not all(r.startswith("%rs") for r in registers):
            return words  # in a register of 32 bits the sign would be wanted
        pairs = [(f"%pair{words + i}", *registers[2 * i : 2 * i + 2]) for i in range(len(registers) // 2)]
        moves = [line for pair in pairs for line in (_apart if first.load else _together)(*pair)]
        registers, kind, words = [pair[0] for pair in pairs], "b32", words + len(pairs)
    listed = "{" + ", ".join(registers) + "}"
    address = f"[{first.base}+{first.offset}]" if first.offset else f"[{first.base}]"
    at = (min if first.load else max)(a.line for a in group)
    for a in group:
        lines[a.line] = None
    vector = f"v{len(registers)}.{kind}"
    if first.load:
        lines[at] = "\n".join([f"\tld.global.{vector} \t{listed}, {address};", *moves])
    else:
        lines[at] = "\n".join([*moves, f"\tst.global.{vector} \t{address}, {listed};"])
    return words


def _apart(word: str, low: str, high: str) -> list[str]:
    """The halves of a word, in registers of 16 bits or of 32, as NVVM chose them."""
    if low.startswith("%rs") and high.startswith("%rs"):
        return [f"\tmov.b32 \t{{{low}, {high}}}, {word};"]
    lower = f"\tcvt.u16.u32 \t{low}, {word};" if low.startswith("%rs") else f"\tand.b32  \t{low}, {word}, 65535;"
    if high.startswith("%rs"):
        return [lower, f"\tmov.b32 \t{{_, {high}}}, {word};"]
    return [lower, f"\tshr.u32 \t{high}, {word}, 16;"]


def _together(word: str, low: str, high: str) -> list[str]:
    """A word of two halves; what lies above 16 bits of a register of 32 is not stored."""
    if low.startswith("%rs") and high.startswith("%rs"):
        return [f"\tmov.b32 \t{word}, {{{low}, {high}}};"]
    narrow = next((r for r in (low, high) if r.startswith("%rs")), None)
    widened = [f"\tcvt.u32.u16 \t{word}, {narrow};"] if narrow else []
    lower, upper = (word if r == narrow else r for r in (low, high))
    return [*widened, f"\tprmt.b32 \t{word}, {lower}, {upper}, 0x5410;"]


def _may_move(lines: list, a: Access, to: int) -> bool:
    """Whether no line between the access and its new place touches what it reads or writes."""
    for i in range(min(a.line, to) + 1, max(a.line, to)):
        line = lines[i]
        if line is None:
            continue
        written = _written(line)
        if a.base in written or a.register in written or (a.load and re.search(re.escape(a.register) + r"\b", line)):
            return False
    return True


def _written(line: str) -> set[str]:
    """The registers that an instruction writes: all of its first operand, unless it is a store. Of several lines, of all."""
    if "\n" in line:
        return set().union(*map(_written, line.split("\n")))
    m = re.match(r"\s*(?!st\.)[\w.]+\s+(\{[^}]*\}|[^,;]*)", line)
    return set(re.findall(r"%\w+", m[1])) if m else set()
