"""Does the suite catch a regression, and how often does it see one that is not there? `python -m asv_bench.catches`

In a clone of the repository, made for this and deleted afterwards, one kernel is slowed twofold in a commit: the kernel of
`tg.sin` runs twice. `asv continuous`, as the README has it, must flag that benchmark and no other. Then commits that change
nothing are compared, each with the one before it, and what asv flags is a false alarm. The last committed state is used;
40 minutes, most of them for the comparisons without a change.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FACTOR = "1.25"
BENCHMARKS = ("elementwise.Million.time_forward", "record.SmallOps.time_forward_backward", "train.Step.time_step")
SLOWED = re.compile(r"elementwise\.Million\.time_forward\('sin'")

KERNELS = "tapegrad/kernels/prepare.py"
ONCE = "return Prepared(outs, generator.steps(expression, ins, outs, compute, truths=op.truths))"
TWICE = (
    "return Prepared(outs, generator.steps(expression, ins, outs, compute, truths=op.truths) "
    '* (2 if op.name == "sin" else 1))'
)


class Clone:
    """A clone of the repository's last commit."""

    def __init__(self, folder: Path):
        self.folder = folder
        _run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(folder)], ROOT)
        self._git("checkout", "--quiet", "-B", "main")
        self.start = self._git("rev-parse", "HEAD").strip()

    def _git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=benchmarks", "-c", "user.email=benchmarks@localhost")
        return _run(["git", *identity, *arguments], self.folder)

    def commit(self, change: Callable[[], None] | None = None) -> str:
        """A commit on top of the last one, empty where there is no change."""
        if change is not None:
            change()
        self._git("commit", "--quiet", "--all", "--allow-empty", "--message", "For a comparison")
        return self._git("rev-parse", "HEAD").strip()

    def slow(self) -> None:
        """Make the kernel of tg.sin run twice."""
        path = self.folder / KERNELS
        text = path.read_text(encoding="utf-8")
        if text.count(ONCE) != 1:
            raise RuntimeError(
                f"{KERNELS} no longer has the line that is to be patched; change ONCE and TWICE here:\n{ONCE}"
            )
        path.write_text(text.replace(ONCE, TWICE), encoding="utf-8")

    def back(self) -> None:
        """To the first commit."""
        self._git("reset", "--quiet", "--hard", self.start)

    def compare(self, before: str, after: str, benchmarks: tuple[str, ...]) -> list[str]:
        """Names of the benchmarks that asv calls slower or faster."""
        bench = [word for name in benchmarks for word in ("-b", name)]
        options = ["--factor", FACTOR, "--interleave-rounds", "-a", "rounds=4"]
        said = _asv(["continuous", *options, *bench, before, after], self.folder / "asv_bench")
        rows = [line.split("|") for line in said.splitlines() if re.match(r"\| [+-] ", line)]
        return [cells[-2].strip() for cells in rows]  # a row begins and ends with a bar; the name is its last cell


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout


def _asv(arguments: list[str], folder: Path) -> str:
    """asv's output. Its exit status is 1 where it found something slower."""
    done = subprocess.run(
        [sys.executable, "-m", "asv", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode > 1 or "failed" in done.stdout.lower() or "Traceback" in done.stderr:
        raise RuntimeError(f"asv {' '.join(arguments)}: {done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    print(done.stdout[done.stdout.find("| Change") :] if "| Change" in done.stdout else "(no change)", flush=True)
    return done.stdout


def regression(clone: Clone, benchmarks: tuple[str, ...]) -> bool:
    """Whether the slowed kernel's benchmarks, and they alone, are flagged."""
    flagged = clone.compare(clone.start, clone.commit(clone.slow), benchmarks)
    clone.back()
    others = [name for name in flagged if not SLOWED.search(name)]
    caught = len(flagged) - len(others)
    print(
        f"slowed twofold: {caught} of 2 benchmarks (float32, float64) flagged, and {len(others)} others {others}",
        flush=True,
    )
    return caught == 2


def nothing(clone: Clone, benchmarks: tuple[str, ...], count: int) -> int:
    """How many benchmarks were flagged although nothing changed."""
    alarms = 0
    for i in range(count):
        flagged = clone.compare(clone.start, clone.commit(), benchmarks)
        clone.back()
        alarms += len(flagged)
        print(f"no change, comparison {i + 1} of {count}: {len(flagged)} flagged {flagged}", flush=True)
    return alarms


def main() -> int:
    """1 where the regression went unseen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=5, metavar="N", help="of commits that change nothing")
    parser.add_argument("--only", nargs="+", default=BENCHMARKS, metavar="NAME", help="benchmarks, as asv's -b")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tapegrad-catches-") as folder:
        clone = Clone(Path(folder, "tapegrad"))
        _run([sys.executable, "-m", "asv", "machine", "--yes"], clone.folder / "asv_bench")
        caught = regression(clone, tuple(options.only))
        alarms = nothing(clone, tuple(options.only), options.comparisons)
    print(
        f"regression {'caught' if caught else 'NOT caught'}; {alarms} false alarms in {options.comparisons} comparisons"
    )
    return 0 if caught else 1


if __name__ == "__main__":
    sys.exit(main())
