"""tapegrad on an NVIDIA GPU: right, how fast, beside PyTorch. Prints the tables and writes docs/performance-gpu.md.

    python -m asv_bench.gpu_report [--write FILE] [--only SECTION ...]

At most 8 minutes. Needs the extra "cuda" and PyTorch with CUDA; where there is no GPU, every row says "not measured" and why.

Every section runs in a process of its own and has its share of the time; what was measured until then counts. A kernel that fails
takes its process's GPU with it: the rows behind it get another process. Times are the least of several rounds in which the
contenders take turns. The work of a round is put into the queue at once and waited for at its end (`gpu/rows.py`). Nothing else
should run on the GPU.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .gpu.rows import NotMeasured, Row

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "performance-gpu.md"
ALLOWED = 480  # seconds for everything
PACKAGES = ("tapegrad", "numba-cuda", "nvidia-cublas", "nvidia-cublas-cu12", "torch", "numpy")


@dataclass(frozen=True)
class Section:
    """A table of the document: the module with its rows, and the seconds it may take."""

    title: str
    module: str
    seconds: int
    said: str = ""

    def rows(self) -> tuple[Row, ...]:
        return importlib.import_module(f"asv_bench.gpu.{self.module}").ROWS


SECTIONS = {
    s.module: s
    for s in (
        Section(
            "Memory bandwidth",
            "bandwidth",
            60,
            "Bytes that a kernel cannot but read and write, by its time, beside a plain copy on the same GPU.",
        ),
        Section(
            "Matrix products",
            "products",
            60,
            "Beside cuBLAS on the same sizes, called by ctypes and by torch.mm, the faster of the two; errors are ‖a - b‖ / ‖b‖ "
            "to float64.",
        ),
        Section(
            "Training steps",
            "steps",
            150,
            'Forward, backward and update in a session; PyTorch with fused optimizers, compiled with mode="reduce-overhead".',
        ),
        Section("Beside the CPU", "parity", 120, "Same op, same numbers, both devices."),
        Section("Memory checker", "checker", 90),
    )
}


def why_not() -> str | None:
    """Why nothing can be measured here, or None."""
    from tapegrad import cuda

    missing = cuda.why_not()
    if missing is not None:
        return missing
    try:
        import torch
    except ImportError:
        return "PyTorch is not installed"
    return None if torch.cuda.is_available() else "the installed PyTorch has no CUDA"


def machine() -> list[str]:
    """What it was measured on."""
    lines = [f"* {dt.date.today().isoformat()}, Python {platform.python_version()}, {platform.platform()}"]
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    lines.append(f"* {', '.join(found)}")
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.max.sm,memory.total", "--format=csv,noheader"]
        gpus = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.strip().splitlines()
        lines += [f"* GPU (name, driver, clock, memory): {line}" for line in gpus]
    except (OSError, subprocess.SubprocessError):
        lines.append("* GPU: none found")
    return lines


def measure_here(section: Section, out: Path, numbers: Sequence[int] | None = None) -> None:
    """Measure a section's rows, or those of these numbers, in this process; each is a line of JSON in the file as soon as it is there.

    It ends behind a row that has cost the process its GPU.
    """
    rows = section.rows()
    for i in range(len(rows)) if numbers is None else numbers:
        row, start, ends = rows[i], time.perf_counter(), False
        try:
            text, met = row.measure()
        except NotMeasured as reason:
            text, met = f"not measured: {reason}", None
        except Exception as error:  # noqa: BLE001  the other rows are measured all the same
            text, met = (
                f"failed: {type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0][:200]}",
                False,
            )
            ends = lost(error)
        taken = time.perf_counter() - start
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"row": i, "text": text, "met": met, "seconds": taken}) + "\n")
        if ends:
            return


def lost(error: BaseException | None) -> bool:
    """Whether no kernel runs in this process any more: by tapegrad's error, or PyTorch's for whatever CUDA says."""
    from tapegrad.kernels.cuda.faults import ContextLost

    if error is None:
        return False
    return isinstance(error, ContextLost) or type(error).__name__ == "AcceleratorError" or lost(error.__context__)


def measured(section: Section, seconds: float) -> dict[int, tuple[str, bool | None]]:
    """Texts and verdicts of a section's rows, by processes that are ended after so many seconds in all.

    A process that dies in a row, or loses its GPU there, is followed by one for the rows behind it.
    """
    rows, until, over = section.rows(), time.perf_counter() + seconds, False
    found: dict[int, tuple[str, bool | None]] = {}
    open_rows = sorted(range(len(rows)), key=lambda i: rows[i].late)
    with tempfile.TemporaryDirectory(prefix="gpu-report-") as folder:
        out = Path(folder, "rows.json")
        while open_rows and not over:
            command = [sys.executable, "-m", "asv_bench.gpu_report", "--measure", section.module, str(out)]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
            process = subprocess.Popen(
                [*command, *map(str, open_rows)], cwd=ROOT, env=environment, start_new_session=os.name == "posix"
            )
            try:
                ended = f"the process ended with {process.wait(max(until - time.perf_counter(), 0.1))}"
            except subprocess.TimeoutExpired:
                ended, over = f"the {seconds:.0f} seconds of this section were over", True
                _end(process)
            before = len(found)
            text = out.read_text(encoding="utf-8") if out.exists() else ""
            found |= {line["row"]: (line["text"], line["met"]) for line in map(json.loads, text.splitlines())}
            open_rows = [i for i in open_rows if i not in found]
            if open_rows and not over and (process.returncode or len(found) == before):
                found[open_rows.pop(0)] = f"not measured: {ended}", None
    return {i: found.get(i, (f"not measured: {ended}", None)) for i in range(len(rows))}


def _end(process: subprocess.Popen) -> None:
    """End a process and those that it started, which are a group of their own."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def tables(names: list[str]) -> Iterator[str]:
    """The lines of the sections, as they are measured."""
    missing, start = why_not(), time.perf_counter()
    brief = re.split(r";| \(", missing or "")[0]
    if missing is not None:
        yield f"\nNothing was measured: {missing}."
    for name in names:
        section = SECTIONS[name]
        rows = section.rows()
        left = ALLOWED - (time.perf_counter() - start)
        if missing is not None:
            found = dict.fromkeys(range(len(rows)), (f"not measured: {brief}", None))
        elif left < 10:
            found = dict.fromkeys(
                range(len(rows)), (f"not measured: the {ALLOWED} seconds of the report were over", None)
            )
        else:
            found = measured(section, min(section.seconds, left))
        yield f"\n## {section.title}\n"
        if section.said:
            yield f"{section.said}\n"
        yield "| what | bar | measured | |\n|---|---|---|---|"
        for i, row in enumerate(rows):
            text, met = found[i]
            yield f"| {row.what} | {row.bar} | {text.replace('|', '/')} | {'' if met is None else 'met' if met else 'missed'} |"


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, default=DOCUMENT, metavar="FILE", help="default: docs/performance-gpu.md")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="only these sections; nothing is written")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)  # a section, a file, numbers of rows
    options = parser.parse_args()
    if options.measure:
        name, file, *numbers = options.measure
        measure_here(SECTIONS[name], Path(file), list(map(int, numbers)))
        return
    head = ["# Performance on a GPU", "", "Made by `python -m asv_bench.gpu_report`; not edited by hand."]
    lines = [*head, "", *machine()]
    print("\n".join(lines), flush=True)
    for line in tables(options.only or list(SECTIONS)):
        print(line, flush=True)
        lines.append(line)
    if not options.only:
        options.write.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
