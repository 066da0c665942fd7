"""The parent's side: starts contenders, asks them, lets them take turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


class Contender:
    """A child process, started at the first question."""

    def __init__(self, name: str, threads: int, settings: dict[str, str] | None = None):
        self.name, self.threads, self.settings = name, threads, settings or {}
        self.process: subprocess.Popen | None = None

    def ask(self, call: str, **arguments) -> dict:
        """The answer, which has "failed" where there is none."""
        if self.process is None:
            paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | self.settings
            self.process = subprocess.Popen(
                [sys.executable, "-m", "asv_bench.peers.child", self.name, str(self.threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if os.environ.get("SIDE_BY_SIDE_DEBUG") else subprocess.DEVNULL,
                env=environment,
                text=True,
            )
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps([call, arguments]) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self.process.wait()
            self.process = None
            return {"failed": f"its process ended with status {status}"}
        return json.loads(line)

    def build(self, task: str) -> tuple[dict[str, np.ndarray], str]:
        """Results of the task, and what went wrong, or nothing."""
        with tempfile.TemporaryDirectory(prefix="side-by-side-") as folder:
            path = Path(folder, "results.npz")
            answer = self.ask("build", task=task, results=str(path))
            if "failed" in answer:
                return {}, answer["failed"]
            with np.load(path) as found:
                return dict(found), ""

    def rest(self) -> None:
        """Let go of the task."""
        if self.process is not None:
            self.ask("rest")

    def end(self) -> None:
        """End the process."""
        if self.process is not None:
            assert self.process.stdin
            self.process.stdin.close()
            self.process.wait(30)
            self.process = None


def difference(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> tuple[float, float]:
    """‖a - b‖ / ‖b‖ of the outputs, and the largest of the other results; infinite where names or shapes differ."""
    if found.keys() != wanted.keys():
        return float("inf"), float("inf")
    apart = {name: _apart(found[name], b) for name, b in wanted.items()}
    return apart.pop("output", 0.0), max(apart.values(), default=0.0)


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.linalg.norm(a - b)) / (float(np.linalg.norm(b)) or 1.0)
