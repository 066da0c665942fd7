"""The LLVM IR of fused kernels (see `fused.py`) around @row, and of the kernel that brings their accumulators together.

@row works on one row (`fused_row.py`), @rows walks the rows of a range (`driver` of `elementwise.py`), and the ABI function
hands it the chunks.
"""

from __future__ import annotations

from .access import MEMORY, SIZE, read, write
from .elementwise import driver
from .emit import Emitter, Value
from .fused import Form
from .fused_row import Row, across, combined, start_of
from .jit import load


def module(form: Form, symbol: str) -> str:
    """The IR of a kernel whose ABI function is `symbol`."""
    row = Row(form)
    text = row.text()
    kinds = form.inputs + form.results
    hidden = bool(form.accumulators) + bool(form.stored)
    walk = driver(kinds, "rows", passed=("acc", "ws", "tail"), hidden=hidden)
    entry = entry_of(form, symbol, len(kinds), hidden)
    return "\n".join([*row.e.declared.values(), *row.e.definitions, text, walk, entry])


def entry_of(form: Form, symbol: str, operands: int, hidden: int) -> str:
    """The ABI function: it walks the rows begin..end or, where there are accumulators, those of the chunks begin..end."""
    e = Emitter(form.width)
    word = "  %{0}p = getelementptr i64, ptr %args, i64 {1}\n  %{0} = load i64, ptr %{0}p, align 8\n"
    first = operands + hidden
    out = [f"define i32 @{symbol}(ptr %args, i64 %begin, i64 %end) {{\nentry:\n", word.format("dims", first + 1)]
    out.append(f"""  %walked = mul i64 %dims, {operands + 1}
  %behind = add i64 %walked, {first + 2 + 2 * operands}
  %tail = getelementptr i64, ptr %args, i64 %behind
""")
    workspace = "null"
    if form.stored:
        out.append(word.format("w", first - 1) + "  %ws = inttoptr i64 %w to ptr\n")
        workspace = "%ws"
    if not form.accumulators:
        out.append(
            f"  %status = call i32 @rows(ptr %args, i64 %begin, i64 %end, ptr null, ptr {workspace}, ptr %tail)\n"
        )
        return "".join(out) + "  ret i32 %status\n}\n"
    out.append(
        word.format("scratch", operands)
        + "  %sets = inttoptr i64 %scratch to ptr\n  %chunk = load i64, ptr %tail, align 8\n"
    )
    for k, name in enumerate(("items", "nbytes")):
        out.append(
            f"  %{name}p = getelementptr i64, ptr %tail, i64 {k + 1}\n  %{name} = load i64, ptr %{name}p, align 8\n"
        )
    out.append("""  %some = icmp slt i64 %begin, %end
  br i1 %some, label %chunks, label %done
chunks:
  %c = phi i64 [%begin, %entry], [%next, %walk]
  %at = mul i64 %c, %nbytes
  %acc = getelementptr i8, ptr %sets, i64 %at
""")
    before, count = "chunks", len(form.accumulators)
    for k, a in enumerate(form.accumulators):
        start, name, memory = start_of(e, a.reduction, a.kind), f"z{k}", MEMORY[a.kind]
        out.append(f"""  %{name}sp = getelementptr i64, ptr %tail, i64 {3 + k}
  %{name}s = load i64, ptr %{name}sp, align 8
  %{name}vp = getelementptr i64, ptr %tail, i64 {3 + count + k}
  %{name}v = load i64, ptr %{name}vp, align 8
  %{name}b = getelementptr i8, ptr %acc, i64 %{name}s
  br label %{name}
{name}:
  %{name}i = phi i64 [0, %{before}], [%{name}n, %{name}]
  %{name}q = mul i64 %{name}i, {form.width}
  %{name}a = getelementptr {memory}, ptr %{name}b, i64 %{name}q
  store <{form.width} x {memory}> {start.name}, ptr %{name}a, align {SIZE[memory]}
  %{name}n = add nuw nsw i64 %{name}i, 1
  %{name}m = icmp slt i64 %{name}n, %{name}v
  br i1 %{name}m, label %{name}, label %{name}x
{name}x:
""")
        before = f"{name}x"
    out.append(f"""  br label %walk
walk:
  %from = mul i64 %c, %chunk
  %full = add i64 %from, %chunk
  %short = icmp slt i64 %items, %full
  %to = select i1 %short, i64 %items, i64 %full
  %status = call i32 @rows(ptr %args, i64 %from, i64 %to, ptr %acc, ptr {workspace}, ptr %tail)
  %next = add nuw nsw i64 %c, 1
  %more = icmp slt i64 %next, %end
  br i1 %more, label %chunks, label %done
done:
  ret i32 0
}}
""")
    return "".join(out)


def finish(reduction: str, gathered: str, result: str, columns: bool, width: int) -> int:
    """The address of the kernel that brings the accumulators of all chunks together.

    Words: the accumulators, the output, the number of chunks, the bytes of a chunk's accumulators, where these start there.
    """
    key = f"{reduction}|{gathered}|{result}|{columns}|{width}"
    return load("finish", key, lambda: _finish(reduction, gathered, result, columns, width))


def _finish(reduction: str, gathered: str, result: str, columns: bool, width: int) -> str:
    e, memory = Emitter(width, "block"), MEMORY[gathered]
    e.flags = ""
    first, place = start_of(e, reduction, gathered), Value("%total", gathered)
    e.lines += [
        "  %left = sub i64 %end, %at",
        f"  %li = insertelement <{width} x i64> poison, i64 %left, i32 0",
        f"  %lv = shufflevector <{width} x i64> %li, <{width} x i64> poison, <{width} x i32> zeroinitializer",
        f"  %mask = icmp slt <{width} x i64> %iota, %lv",
        f"  %from = getelementptr {memory}, ptr %sets, i64 %at",
        "  br label %chunk",
    ]
    e.start("chunk")
    e.lines += [
        "  %c = phi i64 [0, %block], [%c1, %chunk]",
        f"  %total = phi {e.vector(gathered)} [{first.name}, %block], [%sum, %chunk]",
        "  %skip = mul i64 %c, %nbytes",
        "  %here = getelementptr i8, ptr %from, i64 %skip",
    ]
    mask = "%mask" if columns else None
    total = combined(e, reduction, place, read(e, gathered, "%here", mask))
    e.lines += [
        f"  %sum = select i1 true, {e.vector(gathered)} {total.name}, {e.vector(gathered)} {total.name}",
        "  %c1 = add nuw nsw i64 %c, 1",
        "  %more = icmp slt i64 %c1, %chunks",
        "  br i1 %more, label %chunk, label %store",
    ]
    e.start("store")
    made = Value("%sum", gathered) if columns else across(e, reduction, Value("%sum", gathered))
    e.lines.append(f"  %to = getelementptr {MEMORY[result]}, ptr %out, i64 %at")
    write(e, made, result, "%to", "%mask")
    e.lines += [
        f"  %next = add nuw nsw i64 %at, {width}",
        "  %again = icmp slt i64 %next, %end",
        "  br i1 %again, label %block, label %done",
    ]
    iota = "<" + ", ".join(f"i64 {lane}" for lane in range(width)) + ">"
    words = "".join(
        f"  %{name}p = getelementptr i64, ptr %args, i64 {k}\n  %{name} = load i64, ptr %{name}p, align 8\n"
        for k, name in enumerate(("scratch", "o", "chunks", "nbytes", "start"))
    )
    head = f"""define i32 @finish(ptr %args, i64 %begin, i64 %end) {{
entry:
{words}  %all = inttoptr i64 %scratch to ptr
  %sets = getelementptr i8, ptr %all, i64 %start
  %out = inttoptr i64 %o to ptr
  %iota = add <{width} x i64> zeroinitializer, {iota}
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %block, label %done
block:
  %at = phi i64 [%begin, %entry], [%next, %store]
"""
    text = head + "\n".join(e.lines) + "\ndone:\n  ret i32 0\n}\n"
    return "\n".join([*e.declared.values(), *e.definitions, text])
