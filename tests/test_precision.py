"""`tg.matmul_precision`: a setting of the thread, a block, and nothing to the CPU."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import tapegrad as tg
from tapegrad.errors import ConfigError


@pytest.fixture(autouse=True)
def _as_before():
    before = tg.matmul_precision.current()
    yield
    tg.matmul_precision(before)


def test_a_call_sets_it_and_a_block_puts_it_back():
    assert tg.matmul_precision.current() == "float32"
    tg.matmul_precision("tf32")
    assert tg.matmul_precision.current() == "tf32"
    with tg.matmul_precision("bfloat16"):
        with tg.matmul_precision("float32"):
            assert tg.matmul_precision.current() == "float32"
        assert tg.matmul_precision.current() == "bfloat16"
    assert tg.matmul_precision.current() == "tf32"


def test_one_object_in_several_blocks():
    fast = tg.matmul_precision("tf32")
    tg.matmul_precision("float32")
    for _ in range(2):
        with fast:  # the first block ends where the object was made
            with fast:
                assert tg.matmul_precision.current() == "tf32"
            assert tg.matmul_precision.current() == "tf32"
        assert tg.matmul_precision.current() == "float32"


def test_a_block_ends_by_an_error_too():
    with pytest.raises(ZeroDivisionError), tg.matmul_precision("tf32"):
        1 / 0
    assert tg.matmul_precision.current() == "float32"


def test_it_is_the_threads():
    tg.matmul_precision("tf32")
    seen = []
    other = threading.Thread(target=lambda: seen.append(tg.matmul_precision.current()))
    other.start()
    other.join()
    assert seen == ["float32"]


@pytest.mark.parametrize("name", ["high", "TF32", "float64", None, 3])
def test_other_names(name):
    with pytest.raises(
        ConfigError, match=rf'{name!r} is none of the precisions "float32", "tf32", "bfloat16", "float16"'
    ):
        tg.matmul_precision(name)
    assert tg.matmul_precision.current() == "float32"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_changes_on_the_cpu(dtype):
    a, b = (tg.tensor(x.astype(dtype)) for x in np.random.default_rng(0).standard_normal((2, 33, 33)))
    want = (a @ b).numpy().copy()
    for name in ("tf32", "bfloat16", "float16"):
        with tg.matmul_precision(name):
            assert np.array_equal((a @ b).numpy(), want)
