"""Every op of the registry on the GPU and on the CPU: values, gradients, second derivatives; odd sizes; one very large array.

python -m asv_bench.gpu.parity PART PARTS       # a part of the ops, as a line of JSON: several processes share them
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache

import numpy as np

from .rows import DEVICE, Outcome, Row

SIZES = (1, 31, 33, 1023, 1025)
PROCESSES = 8
MOST = 1 << 17  # elements of an input; the CPU has to compute it, too
TOLERANCES = {"float32": 2e-5, "float64": 1e-10}
HUGE = (1 << 31) + 17
SECONDS = 90  # after which a process compares no further op


def operations() -> dict:
    """The ops that can be called with drawn arguments, by name."""
    import tapegrad  # noqa: F401  registers the ops
    from tapegrad.ops.registry import REGISTRY

    drawn = {name: op for name, op in REGISTRY.items() if op.samples or op.kind == "elementwise"}
    return {name: op for name, op in drawn.items() if name != "cast"}


def resized(op, n: int) -> list[dict]:
    """The op's samples with n in place of the last length of the first shape, wherever that length is."""
    from tapegrad.ops.samples import STANDARD

    made = []
    for sample in op.samples or [{}]:
        shapes = sample.get("shapes") or (STANDARD[op.arity][0] if op.kind == "elementwise" else ())
        lengths = shapes[0] if shapes else ()
        if not lengths:
            continue
        changed = tuple(tuple(n if length == lengths[-1] else length for length in shape) for shape in shapes)
        if max(map(math.prod, changed)) <= MOST:
            made.append({**sample, "shapes": changed})
    return made


def cases(op) -> Iterator[tuple[str, object]]:
    """What the op is called with: its own samples, then odd sizes; only what the CPU accepts."""
    from tapegrad.errors import TapegradError
    from tapegrad.ops import samples

    for drawn in samples.draw(op, np.random.default_rng(0)):
        yield "sample", drawn
    for n in SIZES:
        for sample in resized(op, n):
            try:
                (drawn,) = samples.draw(op, np.random.default_rng(n), [sample])
                results(op, drawn, "float32", "cpu")
            except (TapegradError, ValueError, np.linalg.LinAlgError):
                continue  # the sample's other arguments belong to its own shapes
            yield str(n), drawn


def results(op, drawn, dtype: str, device: str) -> list[np.ndarray]:
    """Values, gradients and a second derivative."""
    import tapegrad as tg

    def place(x):
        return tg.tensor(x, device=device)

    tensors = [tg.tensor(x, dtype=dtype, device=device, requires_grad=True) for x in drawn.tensors]
    found = list(_outputs(drawn.call(op, tensors, place)))
    slopes = [(y * y).sum() for y in found if y.requires_grad]
    if slopes and tensors:
        sum(slopes[1:], slopes[0]).backward()
        found += [t.grad for t in tensors if t.grad is not None]

        def slope(*xs):
            zero = tg.zeros((), dtype=dtype, device=device)
            return sum(((y * y).sum() for y in _outputs(drawn.call(op, xs, place)) if y.requires_grad), zero)

        plain = [t.detach() for t in tensors]
        found += _outputs(tg.hvp(slope, plain, [tg.ones_like(x) for x in plain]))
    return [t.numpy() for t in found]


def _outputs(out) -> tuple:
    return out if isinstance(out, tuple) else (out,)


def differs(got: list[np.ndarray], want: list[np.ndarray], dtype: str) -> bool:
    """Whether two lists of results are not the same within the dtype's tolerance."""
    for a, b in zip(got, want, strict=True):
        if a.dtype != b.dtype or a.shape != b.shape:
            return True
        if b.dtype.kind != "f":
            if not np.array_equal(a, b):
                return True
            continue
        scale = np.abs(b[np.isfinite(b)]).max(initial=1.0)
        tolerance = TOLERANCES[dtype] * max(1.0, math.sqrt(max(x.size for x in want)) / 100)
        if not np.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
            return True
    return False


def compare(part: int, parts: int) -> dict:
    """Compare every `parts`-th op, from `part` on; `left`: those for which there was no time."""
    compared, ops, wrong, start = 0, 0, [], time.perf_counter()
    names = list(operations())[part::parts]
    for name in names:
        if time.perf_counter() - start > SECONDS:
            break
        op, ops = operations()[name], ops + 1
        for dtype in ("float32", "float64"):
            for size, drawn in cases(op):
                if dtype == "float64" and size != "sample":
                    break
                compared += 1
                try:
                    if differs(results(op, drawn, dtype, DEVICE), results(op, drawn, dtype, "cpu"), dtype):
                        wrong.append(f"{name} {dtype} {size}")
                except Exception as error:  # noqa: BLE001  reported in the row; the other ops still run
                    wrong.append(f"{name} {dtype} {size}: {type(error).__name__}")
    return {"ops": ops, "compared": compared, "wrong": wrong, "left": len(names) - ops}


@cache
def _parts() -> list[dict]:
    """All parts, each by a process of its own: nearly all the time goes into compiling on the host."""
    commands = [[sys.executable, "-m", "asv_bench.gpu.parity", str(i), str(PROCESSES)] for i in range(PROCESSES)]
    running = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for c in commands]
    found = []
    for process in running:
        out, err = process.communicate()
        lines = out.strip().splitlines()
        if process.returncode or not lines:
            said = (err.strip().splitlines() or ["silently"])[-1]
            found.append(
                {"ops": 0, "compared": 0, "wrong": [f"a process ended with {process.returncode}: {said}"], "left": 0}
            )
        else:
            found.append(json.loads(lines[-1]))
    return found


def _registry() -> Outcome:
    ops, compared, left = (sum(part[key] for part in _parts()) for key in ("ops", "compared", "left"))
    wrong = [name for part in _parts() for name in part["wrong"]]
    text = f"{ops} ops, {compared} calls compared, {len(wrong)} differ"
    text += f", {left} ops not reached" if left else ""
    text += ": " + "; ".join(wrong[:12]) + " …" * (len(wrong) > 12) if wrong else ""
    return Outcome(text, False if wrong else None if left else True)


def huge(count: int = HUGE) -> Outcome:
    """3 i + 1 of that many elements of int64: single elements, and the sum, which is exact modulo 2^64."""
    import tapegrad as tg

    x = tg.arange(count, dtype="int64", device=DEVICE)
    y = x * 3 + 1
    edge = min(1 << 31, count - 1)
    places = [0, 1, edge - 1, edge, count - 1, *np.random.default_rng(0).integers(0, count, 20).tolist()]
    right = all(y[i].item() == 3 * i + 1 for i in places)
    total = (3 * (count * (count - 1) // 2) + count + (1 << 63)) % (1 << 64) - (1 << 63)
    summed, largest = y.sum().item(), y.argmax().item()
    text = f"elements {'agree' if right else 'differ'}, sum {summed} of {total}, largest at {largest}"
    return Outcome(text, right and summed == total and largest == count - 1)


ROWS = (
    Row(
        f"every op of the registry beside the CPU: values and gradients, its samples and sizes {', '.join(map(str, SIZES))}",
        "none differs",
        _registry,
        late=True,
    ),
    Row(
        f"one array of 2³¹ + 17 elements of int64: x * 3 + 1, sum, argmax, {HUGE * 8 / 1e9:.0f} GB each", "exact", huge
    ),
)


if __name__ == "__main__":
    print(json.dumps(compare(int(sys.argv[1]), int(sys.argv[2]))))
