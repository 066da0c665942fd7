"""LLVM IR that differs from processor to processor and from system to system: modes, clocks, waiting and waking."""

from __future__ import annotations

import sys

from .jit import HOST

_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "powerpc64le": 221, "s390x": 238}  # numbers of the system call
_FLUSH_X86 = 0x8040  # of MXCSR: results (FTZ) and operands (DAZ) that are denormal become 0
_FLUSH_ARM = 1 << 24  # of FPCR: FZ, which does both


def architecture() -> str:
    """The processor family, as the first part of LLVM's triple names it."""
    name = HOST.triple.split("-")[0]
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def futex() -> int | None:
    """The number of the futex system call, or None where there is none."""
    return _FUTEX.get(architecture()) if sys.platform == "linux" else None


def flush(name: str) -> str:
    """IR that sets "denormals are 0" and keeps the caller's mode in %<name>.old; empty where the processor has none."""
    if architecture() == "x86_64":
        return f"""  call void @llvm.x86.sse.stmxcsr(ptr %{name}.at)
  %{name}.old = load i32, ptr %{name}.at
  %{name}.new = or i32 %{name}.old, {_FLUSH_X86}
  store i32 %{name}.new, ptr %{name}.at
  call void @llvm.x86.sse.ldmxcsr(ptr %{name}.at)
"""
    if architecture() == "aarch64":
        return f"""  %{name}.old = call i64 @llvm.aarch64.get.fpcr()
  %{name}.new = or i64 %{name}.old, {_FLUSH_ARM}
  call void @llvm.aarch64.set.fpcr(i64 %{name}.new)
"""
    return ""


def restore(name: str) -> str:
    """IR that brings back the mode that `flush(name)` kept."""
    if architecture() == "x86_64":
        return f"  store i32 %{name}.old, ptr %{name}.at\n  call void @llvm.x86.sse.ldmxcsr(ptr %{name}.at)\n"
    if architecture() == "aarch64":
        return f"  call void @llvm.aarch64.set.fpcr(i64 %{name}.old)\n"
    return ""


def declarations() -> str:
    """What the IR of this file calls."""
    lines = ["declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)", "declare i64 @llvm.readcyclecounter()"]
    if architecture() == "x86_64":
        lines += [
            "declare void @llvm.x86.sse2.pause()",
            "declare void @llvm.x86.sse.stmxcsr(ptr)",
            "declare void @llvm.x86.sse.ldmxcsr(ptr)",
        ]
    if architecture() == "aarch64":
        lines += [
            "declare void @llvm.aarch64.hint(i32)",
            "declare i64 @llvm.aarch64.get.fpcr()",
            "declare void @llvm.aarch64.set.fpcr(i64)",
        ]
    if futex() is not None:
        lines.append("declare i64 @syscall(i64, ...)")
    lines.append(f"declare i32 @{yields()}()")
    return "\n".join(lines) + "\n"


def pause() -> str:
    """IR of the instruction for loops that wait."""
    if architecture() == "x86_64":
        return "  call void @llvm.x86.sse2.pause()\n"
    return "  call void @llvm.aarch64.hint(i32 1)\n" if architecture() == "aarch64" else ""


def yields() -> str:
    """The function that gives up the time slice."""
    return "SwitchToThread" if sys.platform == "win32" else "sched_yield"


def spin(after: str, again: str) -> str:
    """IR that waits a moment and goes on at `again`, in a loop that counts %tries; the block's name is `after`.

    Every 64th time, some 2 µs apart, it lets another thread run, which may be the one that is waited for.
    """
    return f"""{pause()}  %{after}.low = and i64 %tries, 63
  %{after}.polite = icmp eq i64 %{after}.low, 63
  br i1 %{after}.polite, label %{after}.yield, label %{again}
{after}.yield:
  call i32 @{yields()}()
  br label %{again}
"""


def ticks(name: str) -> str:
    """IR that reads a clock into %<name>: cycles or ticks, or 0 where none can be read without asking the system."""
    if architecture() in ("x86_64", "aarch64"):
        return f"  %{name} = call i64 @llvm.readcyclecounter()\n"
    return f"  %{name} = add i64 0, 0\n"


def sleep(word: str, value: str) -> str:
    """IR that sleeps while the word at pointer `word` is `value`, or gives up the time slice."""
    if futex() is None:
        return f"  call i32 @{yields()}()\n"
    return f"  call i64 (i64, ...) @syscall(i64 {futex()}, ptr {word}, i32 128, i32 {value}, ptr null)\n"


def rouse(word: str, count: str) -> str:
    """IR that wakes up to `count` threads that sleep on the word at pointer `word`."""
    if futex() is None:
        return ""
    return f"  call i64 (i64, ...) @syscall(i64 {futex()}, ptr {word}, i32 129, i32 {count})\n"
