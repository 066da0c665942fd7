#!/usr/bin/env python3
"""Write tests/fixtures/cublas_signatures.json: what the headers of CUDA say of the functions and constants that tapegrad uses.

    python scripts/make_cublas_signatures.py FOLDER [FOLDER ...] [--check]

FOLDER: one that has cublas_api.h, cublasLt.h and library_types.h in it or below it, one for each version of CUDA. The packages
nvidia-cublas and nvidia-cuda-runtime (CUDA 13), nvidia-cublas-cu12 and nvidia-cuda-runtime-cu12 bring them, in
site-packages/nvidia. The file holds names, types and numbers only.
"""

from __future__ import annotations

import argparse
import ast
import json
import operator
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tapegrad.kernels.cuda.cublas_table import CONSTANTS, CUBLAS, CUBLASLT, STRUCTURES

FIXTURE = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "cublas_signatures.json"
HEADERS = ("cublas_api.h", "cublasLt.h", "library_types.h")
OPERATORS = {ast.BitOr: operator.or_, ast.LShift: operator.lshift, ast.Add: operator.add}


def read_headers(folder: Path) -> str:
    """The text of the headers without comments and preprocessor lines."""
    texts = []
    for name in HEADERS:
        found = sorted(folder.rglob(name))
        if not found:
            raise SystemExit(f"{name} is neither in {folder} nor below it.")
        texts.append(found[0].read_text(encoding="utf-8", errors="replace"))
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", "\n".join(texts), flags=re.S)


def version(text: str) -> str:
    """The version of cuBLAS, such as 12.9.3."""
    return ".".join(re.search(rf"#define CUBLAS_VER_{part}\s+(\d+)", text)[1] for part in ("MAJOR", "MINOR", "PATCH"))


def c_type(text: str) -> str:
    """A C type with single spaces and the star at the type."""
    return re.sub(r"\s*\*\s*", "*", " ".join(text.split()))


def declaration(text: str, name: str) -> dict:
    """The result and the arguments of a function; an array argument counts as a pointer."""
    found = re.search(rf"([\w\s*]+?)\s*CUBLASWINAPI\s+{name}\s*\(([^;]*?)\)\s*;", text)
    if found is None:
        raise SystemExit(f"the headers declare no {name}")
    result = re.sub(r"\bCUBLASAPI\b", "", found[1])
    arguments = []
    for part in found[2].split(","):
        m = re.fullmatch(r"\s*(.*?[\s*])(\w+)\s*(\[\])?\s*", part, re.S)
        arguments.append([m[2], c_type(m[1]) + ("*" if m[3] else "")])
    return {"result": c_type(result), "arguments": arguments}


def enumerations(text: str) -> dict[str, int]:
    """The values of all enumerators, counted on from the last where none is written."""
    values: dict[str, int] = {}
    for body in re.findall(r"\benum\b[^;{]*\{(.*?)\}", text, re.S):
        last = -1
        for entry in body.split(","):
            entry = re.sub(r"^\s*#.*$", "", entry, flags=re.M).strip()
            if not entry:
                continue
            name, _, value = (part.strip() for part in entry.partition("="))
            try:
                last = evaluated(value, values) if value else last + 1
            except (KeyError, ValueError, SyntaxError):  # an expression of other macros; nothing that is used
                continue
            values[name] = last
    return values


def evaluated(text: str, values: dict[str, int]) -> int:
    """The value of a constant expression of numbers, |, <<, + and names that came before."""

    def value(node: ast.expr) -> int:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.Name):
            return values[node.id]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        raise ValueError(text)

    return value(ast.parse(re.sub(r"(?<=\d)[uUlL]+\b", "", text), mode="eval").body)


def structure(text: str, name: str) -> list[list]:
    """[name, type, length] of each field; length 1 where it is no array."""
    body = re.search(rf"typedef struct\s*\w*\s*\{{([^}}]*)\}}\s*{name}\s*;", text)[1]
    fields = re.findall(r"([\w\s]+?)\s+(\w+)\s*(?:\[(\d+)\])?\s*;", body)
    return [[field, c_type(kind), int(length or 1)] for kind, field, length in fields]


def extract(folder: Path) -> dict:
    """Everything that the table has, as this version's headers have it."""
    text = read_headers(folder)
    values = enumerations(text)
    missing = set(CONSTANTS) - set(values)
    if missing:
        raise SystemExit(f"the headers have no {', '.join(sorted(missing))}")
    return {
        "version": version(text),
        "functions": {f.name: declaration(text, f.name) for f in (*CUBLAS, *CUBLASLT)},
        "constants": {name: values[name] for name in CONSTANTS},
        "structures": {name: structure(text, name) for name in STRUCTURES},
    }


def main() -> int:
    """Parse, extract, write or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--check", action="store_true", help="compare with the file instead of writing it")
    options = parser.parse_args()
    found = {}
    for folder in options.folders:
        extracted = extract(folder)
        found[extracted["version"].partition(".")[0]] = extracted
    if not options.check:
        FIXTURE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return 0
    stored = json.loads(FIXTURE.read_text(encoding="utf-8"))
    differ = [major for major, one in found.items() if (one | {"version": ""}) != (stored[major] | {"version": ""})]
    print("\n".join(f"CUDA {major} differs from {FIXTURE}" for major in differ), end="\n" if differ else "")
    return len(differ)


if __name__ == "__main__":
    raise SystemExit(main())
