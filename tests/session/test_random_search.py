"""The command that looks for programs which go wrong: what it says and returns when it finds one, and when it does not."""

from __future__ import annotations

import random_search
from programs import mentions


def test_nothing_is_found(monkeypatch, capsys):
    seen = []
    strategy, _ = random_search.KINDS["straight"]
    monkeypatch.setattr(random_search, "KINDS", {"straight": (strategy, seen.append)})
    assert random_search.main(["--seed", "5", "--rounds", "2", "--count", "10"]) == 0
    said = capsys.readouterr().out
    assert "from seed 5 on" in said and "20 programs in" in said
    assert len(seen) == 20 and str(seen[:10]) != str(seen[10:])  # the second round is another


def test_a_program_that_goes_wrong(monkeypatch, capsys):
    """It is shortened, and the line that is printed finds it again."""
    strategy, _ = random_search.KINDS["straight"]

    def run(program):
        assert not mentions(program.body, "tanh"), "a planted mistake"

    monkeypatch.setattr(random_search, "KINDS", {"straight": (strategy, run)})
    assert random_search.main(["--rounds", "1", "--count", "100"]) == 1
    said = capsys.readouterr().out
    assert "a planted mistake" in said and "program=Program(" in said and "'tanh'" in said
    assert said.index("went wrong:\nProgram(body=[") < said.index("a planted mistake")
    line = said.strip().splitlines()[-1]
    assert line.startswith("python tests/session/random_search.py --seed ") and line.endswith("--kind straight")
    assert random_search.main(line.split()[2:]) == 1
    assert "a planted mistake" in capsys.readouterr().out


def test_on_another_device(monkeypatch, capsys):
    """Programs are given its name, and the line that is printed has it."""

    def run(program, device):
        raise AssertionError(f"on {device}")

    monkeypatch.setattr(random_search, "KINDS", {"straight": (random_search.KINDS["straight"][0], run)})
    assert random_search.main(["--seed", "5", "--device", "cuda:1"]) == 1
    said = capsys.readouterr().out
    assert "on cuda:1" in said and said.strip().endswith(
        "--seed 5 --rounds 1 --count 4 --kind straight --device cuda:1"
    )


def test_it_starts_no_search_after_its_time(monkeypatch, capsys):
    monkeypatch.setattr(random_search, "KINDS", {})
    assert random_search.main(["--rounds", "0"]) == 0
    monkeypatch.setattr(random_search, "KINDS", {"straight": (None, None)})
    assert random_search.main(["--seconds", "-1"]) == 0
    assert "0 programs in" in capsys.readouterr().out
