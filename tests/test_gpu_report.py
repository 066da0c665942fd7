"""The report on a GPU: it runs without one, survives what fails, and its comparisons find differences."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tapegrad as tg

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from asv_bench import gpu_report  # noqa: E402
from asv_bench.gpu import checker, parity, rows  # noqa: E402
from asv_bench.gpu.rows import NotMeasured, Outcome, Row  # noqa: E402
from tapegrad.kernels.cuda.faults import ContextLost  # noqa: E402


def cells(text: str) -> list[list[str]]:
    """The rows of all tables, heads left out."""
    found = [[c.strip() for c in line.strip("| ").split(" | ")] for line in text.splitlines() if line.startswith("|")]
    return [row for row in found if row[0] != "what" and not row[0].startswith("-")]


def test_without_a_gpu_every_row_says_not_measured_and_why(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu_report, "why_not", lambda: "the machine has no GPU")
    monkeypatch.setattr(sys, "argv", ["gpu_report", "--write", str(tmp_path / "gpu.md")])
    gpu_report.main()
    text = (tmp_path / "gpu.md").read_text()
    assert capsys.readouterr().out == text
    listed = cells(text)
    assert len(listed) == sum(len(s.rows()) for s in gpu_report.SECTIONS.values()) > 30
    assert all(row[2].startswith("not measured: the machine has no GPU") for row in listed)
    assert "met" not in [row[-1] for row in listed]


def test_the_document_is_the_reports():
    """Its rows are those of the script, whatever was measured."""
    wanted = [[row.what, row.bar] for s in gpu_report.SECTIONS.values() for row in s.rows()]
    assert [row[:2] for row in cells(gpu_report.DOCUMENT.read_text())] == wanted


def test_the_sections_fit_into_eight_minutes():
    assert sum(s.seconds for s in gpu_report.SECTIONS.values()) <= gpu_report.ALLOWED <= 480


def test_a_row_that_fails_is_said_and_the_others_go_on(monkeypatch, tmp_path):
    def fail():
        raise ValueError("no | such kernel\nmore")

    def cannot():
        raise NotMeasured("the tool is not installed")

    section = gpu_report.SECTIONS["checker"]
    made = [Row("a", "1", fail), Row("b", "2", cannot), Row("c", "3", lambda: Outcome("5 µs", True))]
    monkeypatch.setattr(checker, "ROWS", tuple(made))
    out = tmp_path / "rows.json"
    gpu_report.measure_here(section, out)
    lines = [gpu_report.json.loads(line) for line in out.read_text().splitlines()]
    assert [(x["text"], x["met"]) for x in lines] == [
        ("failed: ValueError: no | such kernel", False),
        ("not measured: the tool is not installed", None),
        ("5 µs", True),
    ]


def test_a_section_that_takes_too_long_is_ended(monkeypatch):
    section = gpu_report.SECTIONS["checker"]
    popen = gpu_report.subprocess.Popen
    slow = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(gpu_report.subprocess, "Popen", lambda command, **how: popen(slow, **how))
    start = time.perf_counter()
    found = gpu_report.measured(section, 0.5)
    assert time.perf_counter() - start < 20
    assert found == {0: ("not measured: the 0 seconds of this section were over", None)}


def test_a_section_whose_process_dies_says_so(monkeypatch):
    popen = gpu_report.subprocess.Popen
    dying = [sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr(gpu_report.subprocess, "Popen", lambda command, **how: popen(dying, **how))
    found = gpu_report.measured(gpu_report.SECTIONS["checker"], 60)
    assert found == {0: ("not measured: the process ended with 3", None)}


def test_rows_behind_a_lost_gpu_get_another_process(monkeypatch):
    """The second row kills its process, the fourth loses its GPU; late rows come last, and all are in the order of the table."""
    order = ["a", "dies", "late", "loses", "b"]
    rows = tuple(Row(name, "", lambda: Outcome("", None), late=name == "late") for name in order)
    monkeypatch.setattr(checker, "ROWS", rows)
    popen, started = gpu_report.subprocess.Popen, []
    program = (
        "import json, os, sys\nfile, *numbers = sys.argv[1:]\n"
        "for i in map(int, numbers):\n    i == 1 and os._exit(7)\n"
        "    open(file, 'a').write(json.dumps({'row': i, 'text': str(i), 'met': i != 3}) + '\\n')\n    i == 3 and os._exit(0)"
    )

    def start(command, **how):
        started.append(command[5:])
        return popen([sys.executable, "-c", program, *command[5:]], **how)

    monkeypatch.setattr(gpu_report.subprocess, "Popen", start)
    found = gpu_report.measured(gpu_report.SECTIONS["checker"], 60)
    assert [numbers[1:] for numbers in started] == [["0", "1", "3", "4", "2"], ["3", "4", "2"], ["4", "2"]]
    assert found == {
        0: ("0", True),
        1: ("not measured: the process ended with 7", None),
        2: ("2", True),
        3: ("3", False),
        4: ("4", True),
    }


def test_a_row_that_loses_the_gpu_ends_its_process(monkeypatch, tmp_path):
    def lose():
        try:
            raise ContextLost("a kernel read outside its memory")
        except ContextLost:
            raise ValueError("because of that")  # noqa: B904

    rows = Row("a", "1", lose), Row("b", "2", lambda: Outcome("5 µs", True))
    monkeypatch.setattr(checker, "ROWS", rows)
    out = tmp_path / "rows.json"
    gpu_report.measure_here(gpu_report.SECTIONS["checker"], out, [0, 1])
    (line,) = out.read_text().splitlines()
    assert "because of that" in line


def test_parity_stops_in_time(monkeypatch):
    monkeypatch.setattr(parity, "DEVICE", "reference")
    monkeypatch.setattr(parity, "operations", lambda: {n: OPS[n] for n in ("exp", "sum", "matmul")})
    monkeypatch.setattr(parity, "SECONDS", -1)
    found = parity.compare(0, 2)
    assert found == {"ops": 0, "compared": 0, "wrong": [], "left": 2}
    monkeypatch.setattr(parity, "_parts", lambda: [found])
    row = parity._registry()
    assert row.met is None and "2 ops not reached" in row.text


# what it measures with, on the devices that are here


def test_parity_finds_agreement_and_differences(monkeypatch):
    monkeypatch.setattr(parity, "DEVICE", "reference")
    monkeypatch.setattr(parity, "operations", lambda: {n: OPS[n] for n in ("exp", "sum", "matmul", "softmax")})
    found = parity.compare(0, 1)
    assert found["ops"] == 4 and found["wrong"] == [] and found["compared"] > 4 * len(parity.SIZES)
    honest = parity.results

    def wrong(op, drawn, dtype, device):
        found = honest(op, drawn, dtype, device)
        return [found[0] * 1.001, *found[1:]] if device == "reference" and op.name == "exp" else found

    monkeypatch.setattr(parity, "results", wrong)
    names = parity.compare(0, 1)["wrong"]
    assert names and all(name.startswith("exp float") for name in names)


OPS = parity.operations()


def test_parity_covers_odd_sizes_of_nearly_every_op():
    sized = [name for name, op in OPS.items() if any(parity.resized(op, n) for n in parity.SIZES)]
    assert len(OPS) >= 150 and len(sized) >= 0.8 * len(OPS)
    shapes = parity.resized(OPS["matmul"], 31)[0]["shapes"]
    assert shapes == ((3, 31), (31, 2))


@pytest.mark.parametrize("a, b", [(1.0, 1.001), (np.nan, 1.0), (np.inf, -np.inf)])
def test_what_differs(a, b):
    one, other = ([np.array([x, 0.5], np.float32)] for x in (a, b))
    assert parity.differs(one, other, "float32")
    assert not parity.differs(one, one, "float32")
    assert parity.differs(one, [x.astype(np.float64) for x in one], "float32")
    assert parity.differs([np.array([1])], [np.array([2])], "float32")


def test_the_large_array_at_a_small_size(monkeypatch):
    monkeypatch.setattr(parity, "DEVICE", "cpu")
    assert parity.huge(100_003).met
    honest = tg.arange
    monkeypatch.setattr(tg, "arange", lambda n, **how: honest(n, **how) * (honest(n, **how) != 77_777))
    assert not parity.huge(100_003).met


def test_what_runs_under_the_checker_is_enough():
    assert checker.run_ops("reference", 60)["ops"] >= checker.LEAST


def test_times(monkeypatch):
    monkeypatch.setattr(rows, "wait", lambda: None)
    times = rows.device_seconds({"a": lambda: time.sleep(0.002), "b": lambda: time.sleep(0.004)}, rounds=2)
    assert 1.5 < times["b"] / times["a"] < 2.6
    assert 0.002 < rows.host_seconds(lambda: time.sleep(0.002), rounds=2, calls=3) < 0.01
    assert [rows.short(x) for x in (1.5e-6, 0.0021, 3.0)] == ["1.5 µs", "2.1 ms", "3 s"]
