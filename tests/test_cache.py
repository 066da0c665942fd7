"""The disk cache: what is damaged is compiled again, what a stranger could have written is not read."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest

from tapegrad import config
from tapegrad.errors import ConfigError, KernelError
from tapegrad.kernels import cache, jit
from tapegrad.kernels.cache import MAGIC, ObjectCache

posix = pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX")
IR = """
define i32 @{symbol}(ptr %args, i64 %begin, i64 %end) {{
  ret i32 {value}
}}
"""


@pytest.fixture
def store(tmp_path):
    return ObjectCache(tmp_path / "root", "abc")


def reopened(store: ObjectCache) -> ObjectCache:
    return ObjectCache(store.folder.parent, "abc")


def run_python(code: str, folder: Path, **environment: str) -> subprocess.Popen:
    """A fresh interpreter whose kernel cache is `folder`."""
    env = {**os.environ, "TAPEGRAD_CACHE": str(folder), "PYTHONPATH": str(Path(__file__).parents[1]), **environment}
    env.pop("OPENBLAS_CORETYPE", None)
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip()


def test_an_entry_comes_back(store):
    assert store.read("k") is None
    store.write("k", b"payload")
    assert store.read("k") == b"payload"
    counts = store.statistics()
    assert (counts["hits"], counts["misses"], counts["damaged"]) == (1, 1, 0)
    assert counts["bytes"] == 2 * (len(MAGIC) + 32 + 7)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "header", "other name"])
def test_a_damaged_entry_is_dropped(store, damage):
    store.write("k", b"payload" * 100)
    path = store.folder / "k"
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-1] ^= 1
    elif damage == "header":
        data[0] ^= 1
    elif damage == "other name":
        store.write("j", b"another kernel")
        data = bytearray((store.folder / "j").read_bytes())
    else:
        del data[len(data) // 2 if damage == "truncate" else 0 :]
    path.write_bytes(data)
    assert store.read("k") is None
    assert store.statistics()["damaged"] == 1
    assert not path.exists()
    store.write("k", b"payload")
    assert store.read("k") == b"payload"


@posix
def test_folders_are_private(store):
    assert store.folder.stat().st_mode & 0o777 == 0o700
    assert store.folder.parent.stat().st_mode & 0o777 == 0o700
    store.write("k", b"x")
    assert (store.folder / "k").stat().st_mode & 0o777 == 0o600


@posix
@pytest.mark.parametrize("level", ["root", "version"])
def test_a_folder_others_may_write_is_refused(store, level):
    store.write("k", b"x")
    (store.folder if level == "version" else store.folder.parent).chmod(0o777)
    with pytest.warns(RuntimeWarning, match="may be written by one .* mode 777.* TAPEGRAD_CACHE"):
        again = reopened(store)
    assert again.read("k") is None
    again.write("k", b"y")
    assert again.statistics()["folder"] is None


@posix
def test_a_folder_of_another_user_is_refused(store, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.warns(RuntimeWarning, match="belongs to another user"):
        assert reopened(store).folder is None


@posix
@pytest.mark.parametrize("level", ["root", "version"])
def test_a_symbolic_link_is_refused(store, tmp_path, level):
    store.write("k", b"x")
    link = tmp_path / "link"
    if level == "root":
        link.symlink_to(store.folder.parent)
        root = link
    else:
        root = link
        root.mkdir(mode=0o700)
        (root / store.folder.name).symlink_to(store.folder)
    with pytest.warns(RuntimeWarning, match="is a symbolic link"):
        assert ObjectCache(root, "abc").read("k") is None


@posix
@pytest.mark.parametrize("fault", ["link", "mode"])
def test_an_entry_others_may_have_written_is_not_read(store, fault):
    store.write("k", b"x")
    path = store.folder / "k"
    if fault == "link":
        path.rename(store.folder / "real")
        path.symlink_to(store.folder / "real")
    else:
        path.chmod(0o666)
    assert store.read("k") is None
    store.write("k", b"ours")
    assert store.read("k") == b"ours"


def test_a_full_disk_warns_once_and_works(store, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_write_new", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        store.write("k", b"x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.write("j", b"x")
    assert store.read("k") is None


def test_a_root_that_is_a_file_turns_the_cache_off(tmp_path):
    (tmp_path / "root").write_text("")
    with pytest.warns(RuntimeWarning, match="is not a folder"):
        assert ObjectCache(tmp_path / "root", "abc").folder is None


def test_old_versions_go(tmp_path):
    root = tmp_path / "root"
    for i in range(cache.KEPT_VERSIONS + 3):
        folder = ObjectCache(root, f"{i}").folder
        os.utime(folder, (i, i))
    (root / "note.txt").write_text("not ours")
    ObjectCache(root, "last")
    left = sorted(p.name for p in root.iterdir())
    assert left == ["note.txt", "v-3", "v-4", "v-5", "v-6", "v-last"]


def test_a_pruned_folder_is_made_again(store):
    store.folder.rmdir()
    store.write("k", b"x")
    assert store.read("k") == b"x"


def test_clear(store):
    store.write("k", b"x")
    store.clear()
    assert store.read("k") is None
    store.write("k", b"y")
    assert store.read("k") == b"y"


def test_no_cache():
    off = ObjectCache(None, "abc")
    off.write("k", b"x")
    assert off.read("k") is None
    assert off.statistics()["folder"] is None


def test_load_compiles_once(tmp_path, monkeypatch):
    store = ObjectCache(tmp_path / "root", "abc")
    monkeypatch.setattr(jit, "object_cache", lambda: store)
    builds = []

    def build():
        builds.append(1)
        return IR.format(symbol="seven", value=7)

    first = jit.load("seven", "test_load_compiles_once", build)
    assert jit.load("seven", "test_load_compiles_once", build) == first
    assert call(first) == 7
    assert len(builds) == 1
    jit._loaded.clear()  # as a new process
    assert call(jit.load("seven", "test_load_compiles_once 2", lambda: IR.format(symbol="seven", value=8))) == 8
    assert len(list(store.folder.iterdir())) == 2


def call(address: int) -> int:
    from kernel_runner import ABI

    return ABI(address)(None, 0, 0)


def test_a_thousand_kernels_stay_loaded():
    addresses = [jit.load("many", None, lambda i=i: IR.format(symbol="many", value=i)) for i in range(1000)]
    assert len(set(addresses)) == 1000
    assert [call(a) for a in addresses] == list(range(1000))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("define i32 @bad(", "kernel bad: the generated LLVM IR is not valid"),
        (IR.format(symbol="other", value=1), "kernel bad: the generated LLVM IR is not valid"),
        ("define i32 @bad() { %1 = call i32 @no_such() ret i32 %1 } declare i32 @no_such()", "bad calls no_such"),
    ],
)
def test_ir_that_cannot_be_loaded(text, match):
    with pytest.raises(KernelError, match=match):
        jit.load("bad", text, lambda: text)


WARM = """
    import sys
    from tapegrad.dtypes import float32, float64
    from tapegrad.kernels import jit
    from tapegrad.kernels.language import A, T, fast_exp
    from tapegrad.kernels.skeleton import skeleton
    assert "numba" not in sys.modules and "llvmlite.binding" not in sys.modules

    @skeleton("x: *T, y: *A")
    def widen(x, y, begin, end):
        for i in range(begin, end):
            y[i] = A(fast_exp(x[i]))
        return 0

    import ctypes, numpy as np
    x = np.arange(5, dtype="f"); y = np.zeros(5); words = np.array([x.ctypes.data, y.ctypes.data])
    entry = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    for i in range(3):
        status = entry(widen.address(T=float32, A=float64))(words.ctypes.data, 0, 5)
        assert status == 0 and np.allclose(y, np.exp(x), rtol=1e-6)
    print("numba" in sys.modules, jit.statistics()["hits"], jit.statistics()["misses"])
"""


def test_a_warm_process_does_not_import_numba_and_concurrent_cold_ones_agree(tmp_path):
    both = [run_python(WARM, tmp_path / "c"), run_python(WARM, tmp_path / "c")]
    for process in both:
        assert output(process).startswith("True 0 1") or output(process) == "False 1 0"
    assert output(run_python(WARM, tmp_path / "c")) == "False 1 0"
    assert not list((tmp_path / "c").rglob(".*")), "a temporary file was left"


def test_off_keeps_nothing(tmp_path):
    code = "from tapegrad.kernels import jit; print(jit.object_cache().folder)"
    assert output(run_python(code, tmp_path, TAPEGRAD_CACHE="off")) == "None"


@pytest.mark.parametrize(
    ("name", "value", "function", "want"),
    [
        ("TAPEGRAD_MEMORY_LIMIT", "4GB", config.memory_limit, 4 * 2**30),
        ("TAPEGRAD_MEMORY_LIMIT", "1.5 MiB", config.memory_limit, 3 * 2**19),
        ("TAPEGRAD_MEMORY_LIMIT", "1000", config.memory_limit, 1000),
        ("TAPEGRAD_NUM_THREADS", "3", config.num_threads, 3),
        ("TAPEGRAD_MEMORY_LIMIT", "much", config.memory_limit, None),
        ("TAPEGRAD_NUM_THREADS", "0", config.num_threads, None),
        ("TAPEGRAD_NUM_THREADS", "two", config.num_threads, None),
    ],
)
def test_settings(monkeypatch, name, value, function, want):
    monkeypatch.setenv(name, value)
    read = function.__wrapped__  # settings are read once; this is the reading
    if want is None:
        with pytest.raises(ConfigError, match=f"{name} is '{value}'"):
            read()
    else:
        assert read() == want


def test_settings_have_defaults(monkeypatch):
    for name in ("TAPEGRAD_MEMORY_LIMIT", "TAPEGRAD_NUM_THREADS", "TAPEGRAD_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert 1 <= config.num_threads.__wrapped__() <= (os.cpu_count() or 1)
    assert config.memory_limit.__wrapped__() > 2**26
    assert config.cache_directory.__wrapped__().name == "tapegrad"


@posix
def test_kernels_load_however_far_apart_memory_is_mapped(tmp_path):
    """Between kernels, 3 GB of addresses go: code, constants and unwind tables of one kernel lie further apart than 2 GB."""
    code = """
        import mmap
        import numpy as np
        import tapegrad as tg

        taken, values = [], np.linspace(0.1, 1.2, 63).reshape(7, 9)
        for dtype in (np.float32, np.float64):
            for name in ("exp", "tanh", "sin", "cos", "log1p", "sqrt", "cosh", "sinh"):
                taken.append(mmap.mmap(-1, 3 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0))
                x = tg.tensor(values.astype(dtype), requires_grad=True)
                y = getattr(tg, name)(x)
                np.testing.assert_allclose(y.numpy(), getattr(np, name)(values), rtol=1e-5)
                (y * tg.log_softmax(x, -1)).sum().backward()
        print(len(taken))
    """
    assert output(run_python(code, tmp_path)) == "16"
    assert output(run_python(code, tmp_path)) == "16"
