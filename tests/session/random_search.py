"""Look for a program that a session runs differently than eager execution does, with a new seed each time.

    python tests/session/random_search.py                      a minute of programs; the seed is the clock's
    python tests/session/random_search.py --seed 5 --rounds 1  the programs of one seed again
    python tests/session/random_search.py --device cuda        on a GPU, and compared with the CPU

Without a GPU the last one needs NUMBA_ENABLE_CUDASIM=1 and TAPEGRAD_CUDA=simulator, which is slow: there are fewer programs then.
`--device late` is a simulated GPU that puts its work off until something waits for it, and to which small arrays go as large ones do;
`--device library` one whose products are those of an emulated cuBLAS.

Programs come in rounds: of each kind some dozens, with the seed of the round, which is one more than that of the round before. The
first failure ends the search. What is printed then is the shortest program that Hypothesis finds for it, and how to run it again;
the exit status is 1. A program that showed a mistake belongs to `FOUND` in `test_session_programs.py`.
"""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
from programs import check, programs
from programs_of_models import check_model, programs_of_models

KINDS: dict[str, tuple[Any, Callable]] = {
    "branches and loops": (programs(sums=True, control=True), check),
    "branches and loops, bitwise": (programs(sums=False, control=True), check),
    "straight": (programs(sums=True, control=False), check),
    "models": (programs_of_models(), check_model),
}


def search(kind: str, seed: int, count: int, device: str = "cpu") -> BaseException | None:
    """Check programs of one kind: the error of the shortest that fails, with Hypothesis's note of it."""
    strategy, run = KINDS[kind]
    where = {} if device == "cpu" else {"device": device}
    failed: list = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(strategy)
    def one(program):
        try:
            run(program, **where)
        except Exception:
            if not failed:  # said before it is shortened, which may take minutes
                failed.append(program)
                print(f"a program of the kind {kind!r}, seed {seed}, went wrong:\n{program}", flush=True)
            raise

    try:
        one()
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001  whatever a program raises is what is looked for
        return error
    return None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="of the first round (the time in seconds)")
    parser.add_argument("--rounds", type=int, help="stop after so many")
    parser.add_argument("--seconds", type=float, default=60.0, help="start no search later than that (60)")
    parser.add_argument(
        "--count", type=int, help="programs of each kind in a round (40; 4 on other devices than the CPU)"
    )
    parser.add_argument("--device", default="cpu", help="where all tensors lie: cpu, cuda, cuda:1, late, library (cpu)")
    parser.add_argument("--kind", choices=KINDS, action="append", help="search these only")
    given = parser.parse_args(arguments)
    device = given.device
    if device in ("late", "library"):
        sys.path.append(str(Path(__file__).parents[1] / "cuda"))
        from searched_devices import found

        device = found(device)
    seed = int(time.time()) if given.seed is None else given.seed
    count = given.count or (40 if given.device == "cpu" else 4)
    say = functools.partial(print, flush=True)
    say(f"random programs from seed {seed} on")
    warnings.simplefilter("ignore")  # NumPy's and sessions', of programs that overflow and never repeat
    start, rounds, searched = time.monotonic(), 0, 0
    while given.rounds is None or rounds < given.rounds:
        for kind in given.kind or KINDS:
            if given.rounds is None and time.monotonic() - start > given.seconds:
                say(f"{searched} programs in {time.monotonic() - start:.0f} s: each as eagerly")
                return 0
            error = search(kind, seed + rounds, count, device)
            if error is not None:
                traceback.print_exception(error, file=sys.stdout)
                say(f"FAILED, of the kind {kind!r}. To run it again:")
                again = f"--seed {seed + rounds} --rounds 1 --count {count} --kind {shlex.quote(kind)}"
                again += "" if given.device == "cpu" else f" --device {given.device}"
                say(f"python tests/session/random_search.py {again}")
                return 1
            searched += count
        rounds += 1
    say(f"{searched} programs in {time.monotonic() - start:.0f} s: each as eagerly")
    return 0


if __name__ == "__main__":
    sys.exit(main())
