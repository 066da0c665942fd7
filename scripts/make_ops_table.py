"""Write docs/ops.md from the registry: `python scripts/make_ops_table.py`. With --check, fail where the file is out of date."""

from __future__ import annotations

import sys
from pathlib import Path

import tapegrad  # noqa: F401  fills the registry
from tapegrad.ops.registry import REGISTRY, Op

TARGET = Path(__file__).resolve().parent.parent / "docs" / "ops.md"
ROOMS = {
    "elementwise": "Elementwise",
    "activation": "Activations",
    "comparison": "Comparisons, logic, tests",
    "reduce": "Reductions",
    "linalg": "Linear algebra",
    "einsum": "Einstein summation",
    "movement": "Movement",
    "joining": "Joining, cutting, repeating",
    "indexing": "Indexing",
    "sorting": "Sorting",
    "creation": "Creation",
    "losses": "Losses",
    "normalization": "Normalisation",
    "network": "Networks (`F` is `tapegrad.nn.functional`)",
    "convolution": "Convolution",
    "pooling": "Pooling",
    "random": "Random numbers",
}
SPACES = {"": "tg", "nn": "F", "linalg": "tg.linalg"}


def call(op: Op) -> str:
    """How the op is called, without annotations."""
    parameters = [p.replace(annotation=p.empty) for p in op.signature.parameters.values()]
    signature = op.signature.replace(parameters=parameters, return_annotation=op.signature.empty)
    return f"`{SPACES[op.namespace]}.{op.name}{signature}`"


def table() -> str:
    """The page."""
    lines = [
        "# Ops",
        "",
        "Written by `python scripts/make_ops_table.py` from the registry. A method is also `t.name(...)`.",
        "",
    ]
    for room, title in ROOMS.items():
        ops = [op for op in REGISTRY.values() if op.public and op.module.endswith("." + room)]
        lines += [f"## {title}", "", "| op | method | gradient | what it does |", "|---|---|---|---|"]
        for op in sorted(ops, key=lambda o: o.name):
            flat = not op.differentiable or op.dtype_rule in ("compare", "logic")
            first = op.doc.split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
            lines.append(f"| {call(op)} | {'yes' if op.method else ''} | {'no' if flat else 'yes'} | {first} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    text = table()
    if "--check" in sys.argv[1:]:
        sys.exit(
            0 if TARGET.read_text() == text else "docs/ops.md is out of date; run python scripts/make_ops_table.py"
        )
    TARGET.write_text(text)
