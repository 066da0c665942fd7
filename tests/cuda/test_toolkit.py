"""The compiler of kernels is found wherever a toolkit lies, and named where there is none."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from tapegrad.errors import KernelError
from tapegrad.kernels.cuda import door, toolkit


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Makes toolkits below a folder in place of /usr/local; no package, no variable, no nvcc."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(toolkit, "PLACES", (str(tmp_path),))
    monkeypatch.setattr(toolkit, "packaged", lambda: False)
    toolkit.find_compiler.cache_clear()

    def install(name: str):
        file = tmp_path / name / toolkit.LIBDEVICE
        file.parent.mkdir(parents=True)
        file.touch()
        return tmp_path / name

    yield install
    toolkit.find_compiler.cache_clear()


def pathfinder(monkeypatch, load):
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", SimpleNamespace(load_nvidia_dynamic_lib=load))


def missing(name):
    raise RuntimeError(f"{name} was not found")


def test_the_newest_toolkit_is_named(machine):
    (machine("cuda-12.9").parent / "cuda-13.9").mkdir()  # without a compiler
    newest = machine("cuda-13.10")
    machine("cuda-13.2")
    toolkit.name_toolkit()
    assert os.environ["CUDA_HOME"] == str(newest)


def test_the_toolkit_of_nvcc_comes_first(machine, tmp_path):
    machine("cuda")
    nvcc = machine("elsewhere") / "bin" / "nvcc"
    for link, target in ((nvcc, None), (tmp_path / "bin" / "nvcc", nvcc)):
        link.parent.mkdir()
        link.symlink_to(target) if target else link.touch(0o755)
    toolkit.name_toolkit()
    assert os.environ["CUDA_HOME"] == str(tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["CUDA_HOME", "CUDA_PATH"])
def test_what_is_named_stays(machine, monkeypatch, name):
    machine("cuda")
    monkeypatch.setenv(name, "/mine")
    toolkit.name_toolkit()
    assert [os.environ[x] for x in ("CUDA_HOME", "CUDA_PATH")].count("/mine") == 1
    assert "" in (os.environ["CUDA_HOME"], os.environ["CUDA_PATH"])


def test_packages_come_first(machine, monkeypatch):
    machine("cuda")
    monkeypatch.setattr(toolkit, "packaged", lambda: True)
    toolkit.name_toolkit()
    assert os.environ["CUDA_HOME"] == ""


@pytest.mark.parametrize("folder", toolkit.FOLDERS)
def test_a_library_where_nobody_else_looks(machine, monkeypatch, folder):
    pathfinder(monkeypatch, missing)
    place = machine("cuda") / folder
    place.mkdir(parents=True)
    for name in ("libnvvm.so.3", "libnvvm.so.4"):
        (place / name).touch()
    loaded = []

    def load(path):
        if path.endswith("3"):
            raise OSError("of another kind of machine")
        loaded.append(path)

    monkeypatch.setattr(toolkit.ctypes, "CDLL", load)
    assert toolkit.find_compiler() == str(place / "libnvvm.so.4") == loaded[0]


def test_where_there_is_none(machine, monkeypatch):
    pathfinder(monkeypatch, missing)
    with pytest.raises(KernelError, match=r"NVVM was not found.*pip install .*or let CUDA_HOME name a CUDA toolkit"):
        toolkit.find_compiler()
    monkeypatch.setattr(door, "simulated", lambda: False)
    monkeypatch.setattr(door, "device_count", lambda: 1)
    assert "NVVM was not found" in door.why_not()
    pathfinder(monkeypatch, lambda name: SimpleNamespace(abs_path=f"/lib/{name}"))
    assert door.why_not() is None and toolkit.find_compiler() == "/lib/nvvm"
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    toolkit.find_compiler.cache_clear()
    with pytest.raises(KernelError, match="cuda-pathfinder is not installed"):
        toolkit.find_compiler()
