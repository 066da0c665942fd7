"""What the documents say is what the code does."""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if ">>>" in p.read_text())
NUMBER = re.compile(r"-?\d+\.\d+")


def test_ops_table_is_up_to_date():
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "make_ops_table.py", "--check"], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_examples_of_pages(page):
    failed, tried = doctest.testfile(str(page), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert tried > 0
    assert failed == 0


def test_readme_example_prints_what_the_readme_shows():
    text = (ROOT / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S).group(1)
    shown = re.search(r"```text\n(.*?)```", text, re.S).group(1)
    assert len(code.strip().splitlines()) <= 24
    path = ROOT / "README.md"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(path), "exec"), {"__name__": "readme"})
    got, want = printed.getvalue(), shown
    assert NUMBER.sub("#", got) == NUMBER.sub("#", want)
    # figures may differ in the last digits between vector widths: training amplifies the order of rounding
    assert [float(n) for n in NUMBER.findall(got)] == pytest.approx([float(n) for n in NUMBER.findall(want)], rel=0.05)
