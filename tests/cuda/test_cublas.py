"""cuBLAS without a GPU: the table against CUDA's headers, the handle against an emulated library and the installed one."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from emulated_cublas import Emulated

from tapegrad.dtypes import float32
from tapegrad.errors import KernelError, OutOfMemory
from tapegrad.kernels.cuda import cublas
from tapegrad.kernels.cuda.cublas import Cublas, bound
from tapegrad.kernels.cuda.cublas_table import CONSTANTS, CUBLAS, CUBLASLT, STRUCTURES, ctype
from tapegrad.kernels.cuda.gemm import gemm
from tapegrad.layouts import layout

ROOT = Path(__file__).resolve().parents[2]
HEADERS = json.loads((ROOT / "tests" / "fixtures" / "cublas_signatures.json").read_text())
FUNCTIONS = (*CUBLAS, *CUBLASLT)


# the table


@pytest.mark.parametrize("major", ["12", "13"])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.name)
def test_functions_are_the_headers(function, major):
    stored = HEADERS[major]["functions"][function.name]
    assert stored["result"] == function.result
    assert [tuple(pair) for pair in stored["arguments"]] == list(function.arguments)


@pytest.mark.parametrize("major", ["12", "13"])
def test_constants_and_structures_are_the_headers(major):
    assert HEADERS[major]["constants"] == CONSTANTS
    assert HEADERS[major]["version"].startswith(major + ".")
    assert set(HEADERS[major]["structures"]) == set(STRUCTURES)
    for name, fields in HEADERS[major]["structures"].items():
        ours = STRUCTURES[name]._fields_
        assert [field for field, *_ in fields] == [field for field, _ in ours]
        for (_, kind, length), (_, own) in zip(fields, ours, strict=True):
            base = STRUCTURES.get(kind) or ctype(kind)
            assert own is base if length == 1 else (own._type_, own._length_) == (base, length)


def test_fixture_has_nothing_else():
    for one in HEADERS.values():
        assert set(one["functions"]) == {f.name for f in FUNCTIONS}


def installed_headers() -> list[Path]:
    """Folders of the packages of NVIDIA that have cuBLAS's headers and library_types.h."""
    roots = {Path(path) / "nvidia" for path in sys.path if path}
    folders = [root / "cu13" for root in roots] + list(roots)
    for folder in folders:
        if all(any(folder.rglob(name)) for name in ("cublas_api.h", "cublasLt.h", "library_types.h")):
            return [folder]
    return []


@pytest.mark.skipif(not installed_headers(), reason="no headers of cuBLAS are installed")
def test_headers_that_are_installed_still_say_so():
    spec = importlib.util.spec_from_file_location("maker", ROOT / "scripts" / "make_cublas_signatures.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    for folder in installed_headers():
        found = maker.extract(folder)
        stored = HEADERS[found["version"].partition(".")[0]]
        assert {k: v for k, v in found.items() if k != "version"} == {k: v for k, v in stored.items() if k != "version"}


def test_extraction_reads_what_headers_have(tmp_path):
    """Comments, arrays, enumerators without a value, and with an expression."""
    spec = importlib.util.spec_from_file_location("maker", ROOT / "scripts" / "make_cublas_signatures.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    text = """
    CUBLASAPI cublasStatus_t CUBLASWINAPI cublasOne(cublasHandle_t handle,
                                                    const void*  A,   int   counts[],
                                                    long long int strideA);
    typedef enum { A_ONE, A_THREE = 3, A_FOUR, A_MASK = (A_ONE | A_THREE | 1 << 4), A_LOW = -1 } a_t;
    typedef struct { uint64_t data[8]; size_t n; } thing_t;
    """
    assert maker.declaration(text, "cublasOne") == {
        "result": "cublasStatus_t",
        "arguments": [
            ["handle", "cublasHandle_t"],
            ["A", "const void*"],
            ["counts", "int*"],
            ["strideA", "long long int"],
        ],
    }
    assert maker.enumerations(text) == {"A_ONE": 0, "A_THREE": 3, "A_FOUR": 4, "A_MASK": 19, "A_LOW": -1}
    assert maker.structure(text, "thing_t") == [["data", "uint64_t", 8], ["n", "size_t", 1]]


# the handle


def test_stream_comes_before_workspace():
    """Setting the stream puts cuBLAS's own workspace back."""
    library = Emulated()
    handle = Cublas(bound(library, CUBLAS))
    handle.use(0x1234, 0x10000, 4096)
    (held,) = library.objects.values()
    assert held == {"stream": 0x1234, "workspace": (0x10000, 4096), "mode": 16}
    assert handle.version() == (12, 9, 3)
    handle.close()
    handle.close()
    assert library.objects == {}


@pytest.mark.parametrize("name", [n for n in CONSTANTS if n.startswith("CUBLAS_STATUS_") and not n.endswith("SUCCESS")])
def test_every_failure_is_a_sentence(name):
    library = Emulated(answers={"cublasCreate_v2": CONSTANTS[name]})
    error = OutOfMemory if name.endswith("ALLOC_FAILED") else KernelError
    with pytest.raises(error, match=rf"cuBLAS: making a handle: [^.]{{20,}}.*\({name}\)"):
        Cublas(bound(library, CUBLAS))


def test_unknown_failures_say_what_the_library_says():
    with pytest.raises(KernelError, match="cuBLAS: making a handle: it answered with status 99, emulated"):
        Cublas(bound(Emulated(answers={"cublasCreate_v2": 99}), CUBLAS))


def test_a_failed_product_names_its_sizes():
    library = Emulated(answers={"cublasGemmStridedBatchedEx_64": 15})
    a, b, out = layout((6, 2, 3), float32), layout((6, 3, 4), float32), layout((6, 2, 4), float32)
    handle = Cublas(bound(library, CUBLAS))
    with pytest.raises(KernelError, match=r"matmul of 2 x 3 by 3 x 4, 6 times: it has no product .*NOT_SUPPORTED"):
        handle.run(gemm(a, b, out).calls[0], (0, 0, 0))


def test_an_old_library_is_named():
    with pytest.raises(KernelError, match=r"has no cublasGemmEx_64; it is older than CUDA 12.*tapegrad\[cuda\]"):
        bound(Emulated("cublasGemmEx_64"), CUBLAS)


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    with pytest.raises(KernelError, match=r"cuda-pathfinder is not installed.*pip install 'tapegrad\[cuda\]'"):
        cublas.load("cublas")

    class Pathfinder:
        @staticmethod
        def load_nvidia_dynamic_lib(name):
            raise RuntimeError("not found")

    monkeypatch.setitem(sys.modules, "cuda.pathfinder", Pathfinder)
    with pytest.raises(KernelError, match=r"cublas was not found.*pip install 'tapegrad\[cuda\]'"):
        cublas.load("cublas")


def installed(name: str):
    try:
        return cublas.load(name)
    except KernelError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name, functions", [("cublas", CUBLAS), ("cublasLt", CUBLASLT)])
def test_the_installed_library_has_all_functions(name, functions):
    found = bound(installed(name), functions)
    say = getattr(found, f"{name}GetStatusString")
    texts = [say(code) for code in sorted(v for n, v in CONSTANTS.items() if n.startswith("CUBLAS_STATUS_"))]
    assert len(set(texts)) == len(texts) and all(isinstance(text, bytes) for text in texts)


def test_the_installed_library_without_a_gpu():
    functions = bound(installed("cublas"), CUBLAS)
    try:
        handle, said = Cublas(functions), ""
    except KernelError as error:
        handle, said = None, str(error)
    if handle is not None:
        handle.close()
        pytest.skip("there is a GPU")
    assert "cuBLAS: making a handle: it could not start; is there a GPU" in said
    assert said.endswith("tg.cuda.why_not() says what is missing (CUBLAS_STATUS_NOT_INITIALIZED)")
