"""The shape of the package: imports point down, nothing heavy is imported early, ops are registered, flags agreed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tapegrad as tg
from tapegrad.kernels import compile as compiling
from tapegrad.ops.registry import REGISTRY, Op

ROOT = Path(tg.__file__).parent

# Folders from the ground up. A module may import from its own folder and from those below it.
LAYERS = ["ground", "ops", "kernels", "plan", "tape", "top", "nn", "optim", "train"]
GROUND = {"errors", "config", "dtypes", "halves", "layouts", "paths", "precision"}
ALONE = {"data": {"data", "ground"}}  # data knows NumPy and the ground only


def layer_of(module: str) -> str:
    """The layer of a dotted name below tapegrad."""
    first = module.partition(".")[0]
    if first in GROUND or first == "":
        return "ground" if first else "top"
    return first if first in LAYERS or first in ALONE else "top"


def imports(path: Path) -> list[tuple[str, bool]]:
    """(dotted name, is inside a function) of everything a module imports; names below tapegrad start with a dot."""
    tree = ast.parse(path.read_text())
    here = list(path.relative_to(ROOT).with_suffix("").parts)
    found = []

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((a.name, inside) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = here[: len(here) - node.level]
                name = ".".join([*base, *(node.module.split(".") if node.module else [])])
                names = [f"{name}.{a.name}".lstrip(".") for a in node.names] if not node.module else [name]
                found.extend(("." + n, inside) for n in names)
            else:
                found.append((node.module or "", inside))
        for child in ast.iter_child_nodes(node):
            visit(child, inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _type_checking(node))

    visit(tree, False)
    return found


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


MODULES = sorted(p for p in ROOT.rglob("*.py") if "__pycache__" not in p.parts)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    own = layer_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if own == "top":
        return
    for name, _ in imports(path):
        if not name.startswith("."):
            continue
        other = layer_of(name[1:])
        allowed = ALONE.get(own) or set(LAYERS[: LAYERS.index(own) + 1])
        if own in ("nn", "optim", "train"):
            allowed = allowed | {"top"}
        if own == "train":
            allowed = allowed | {"data"}
        assert other in allowed, f"{path.relative_to(ROOT)} ({own}) imports {name[1:]} ({other})"


ALLOWED_IN_OPS = {
    "__future__",
    "ast",
    "collections",
    "contextlib",
    "dataclasses",
    "functools",
    "inspect",
    "itertools",
    "linecache",
    "math",
    "operator",
    "re",
    "string",
    "builtins",
    "textwrap",
    "threading",
    "types",
    "typing",
    "numpy",
}


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent.name == "ops"], ids=lambda p: p.name)
def test_ops_are_data(path):
    """Ops import NumPy and the standard library's small parts, nothing that computes."""
    outside = {name.partition(".")[0] for name, _ in imports(path) if not name.startswith(".")}
    assert outside <= ALLOWED_IN_OPS


def test_numba_cuda_has_one_door():
    for path in MODULES:
        if "cuda" not in path.relative_to(ROOT).parts:
            assert not any(name.startswith(("numba.cuda", "numba_cuda")) for name, _ in imports(path)), path


def test_import_is_light():
    """`import tapegrad` loads neither Numba nor llvmlite nor anything of size."""
    code = "import sys, tapegrad; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    ).stdout
    loaded = set(ast.literal_eval(out))
    assert not loaded & {
        "numba",
        "llvmlite",
        "scipy",
        "matplotlib",
        "torch",
        "jax",
        "pandas",
        "safetensors",
        "hypothesis",
        "pytest",
    }


def tops_that_import(wanted: str) -> set[str]:
    return {
        str(p.relative_to(ROOT))
        for p in MODULES
        for name, inside in imports(p)
        if name.partition(".")[0] == wanted and not inside
    }


def test_modules_that_need_numba_are_imported_inside_functions():
    """Whoever imports Numba at its top is imported only inside functions, or by such a module."""
    heavy = {
        name.removesuffix(".py").replace("/", ".")
        for wanted in ("numba", "llvmlite")
        for name in tops_that_import(wanted)
    }
    assert heavy, "nobody imports Numba; has the check gone blind?"
    for path in MODULES:
        own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name, inside in imports(path):
            if not inside and name.startswith(".") and name[1:] in heavy:
                assert own in heavy or own.startswith("kernels.cuda"), (
                    f"{own} imports {name[1:]}, and so Numba, at its top"
                )


# ops and names

NAMESPACES = {"": tg, "linalg": tg.linalg}


def functional():
    import importlib.util

    return (
        importlib.import_module("tapegrad.nn.functional")
        if importlib.util.find_spec("tapegrad.nn.functional")
        else None
    )


def test_every_op_has_its_public_name():
    for key, op in REGISTRY.items():
        if not op.public:
            continue
        home = functional() if op.namespace == "nn" else NAMESPACES[op.namespace]
        if home is not None:
            assert getattr(home, op.name, None) is op, (
                f"{key} is not tapegrad.{op.namespace + '.' if op.namespace else ''}{op.name}"
            )


def test_every_public_op_is_registered():
    for home in (tg, tg.linalg, functional()):
        for name, value in vars(home).items() if home else ():
            if isinstance(value, Op) and not name.startswith("_"):
                assert REGISTRY.get(f"{value.namespace}.{value.name}" if value.namespace else value.name) is value
                assert value.public, name


def test_methods_are_ops():
    for op in REGISTRY.values():
        if op.method:
            assert callable(getattr(tg.Tensor, op.name)), op.name


def test_every_op_is_documented():
    assert [name for name, op in REGISTRY.items() if not op.doc] == []


# compile flags


def jit_uses(path: Path):
    """(line, keywords) of every use of Numba's jit, called or as a bare decorator; `**name` counts as its own text."""
    tree = ast.parse(path.read_text())
    bare = [
        d
        for n in ast.walk(tree)
        if isinstance(n, ast.FunctionDef)
        for d in n.decorator_list
        if not isinstance(d, ast.Call)
    ]
    for node in [n for n in ast.walk(tree) if isinstance(n, ast.Call)] + bare:
        target = node.func if isinstance(node, ast.Call) else node
        if ast.unparse(target).rpartition(".")[2] in ("njit", "jit", "vectorize", "guvectorize", "cfunc"):
            owner = ast.unparse(target).rpartition(".")[0]
            if owner in ("", "numba"):
                yield (
                    node.lineno,
                    {k.arg or ast.unparse(k.value): ast.unparse(k.value) for k in getattr(node, "keywords", [])},
                )


def test_every_jit_has_the_agreed_flags():
    """NumPy's division everywhere, and never all of fast-math: kernels must see nan and inf."""
    uses = [
        (path, line, keywords)
        for path in MODULES
        if "cuda" not in path.relative_to(ROOT).parts
        for line, keywords in jit_uses(path)
    ]
    assert uses, "no use of Numba's jit found; has the check gone blind?"
    for path, line, keywords in uses:
        shared = any(k.startswith(("options(", "EXACT")) for k in keywords)  # checked below
        assert shared or keywords.get("error_model") == "'numpy'", f"{path.relative_to(ROOT)}:{line}"
        assert keywords.get("fastmath") != "True", f"{path.relative_to(ROOT)}:{line}"


UNSAFE = {"nnan", "ninf", "afn"}


@pytest.mark.parametrize("reassoc", [True, False])
def test_flags_of_skeletons(reassoc):
    options = compiling.options(reassoc)
    assert options["error_model"] == "numpy"
    assert set(options["fastmath"]) == {"contract", "nsz", "arcp"} | ({"reassoc"} if reassoc else set())


def test_no_flag_that_assumes_away_nan_and_inf():
    """No module names a flag that lets the compiler assume away nan or inf, or approximate functions."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Set | ast.Tuple | ast.List):
                words = {n.value for n in node.elts if isinstance(n, ast.Constant) and isinstance(n.value, str)}
                assert not words & UNSAFE, f"{path.relative_to(ROOT)}:{node.lineno}"
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                assert not set(node.value.value.split()) & UNSAFE, f"{path.relative_to(ROOT)}:{node.lineno}"
