"""`tg.info()`."""

from __future__ import annotations

import json
import platform

import tapegrad as tg


def test_keys_and_values():
    info = tg.info()
    assert sorted(info) == [
        "blas",
        "cache",
        "cpu",
        "device",
        "gpu",
        "memory",
        "platform",
        "threads",
        "vector",
        "versions",
    ]
    assert info["versions"]["python"] == platform.python_version()
    assert info["versions"]["numpy"][0].isdigit() and "tapegrad" in info["versions"]
    assert info["threads"]["used"] == tg.get_num_threads() and info["threads"]["usable"] >= 1
    assert any(f"{bits} bits" in info["vector"] for bits in (128, 256, 512))
    assert "OpenBLAS" in info["blas"] and info["cpu"] and info["device"] == "cpu"


def test_threads_and_memory_follow_the_settings():
    before = tg.get_num_threads()
    try:
        tg.set_num_threads(1)
        assert tg.info()["threads"]["used"] == 1
    finally:
        tg.set_num_threads(before)
    kept = tg.zeros(1 << 20)
    assert tg.info()["memory"]["peak"] >= kept.size * 4


def test_repr_is_a_table():
    info = tg.info()
    text = repr(info)
    lines = text.splitlines()
    assert [line.split()[0] for line in lines] == list(info)
    assert all(len(line) > 11 and line[10] == " " for line in lines)
    assert "{" not in text and "<" not in text
    assert f"python {platform.python_version()}" in text


def test_it_is_plain_data():
    """For bug reports, and benchmarks that keep it as JSON."""
    assert json.loads(json.dumps(tg.info()))["device"] == "cpu"
