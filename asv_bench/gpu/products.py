"""Matrix products beside cuBLAS called directly, through the same table of functions and by PyTorch, the faster counts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from .rows import DEVICE, Outcome, Row, device_seconds

SIZES = (1024, 2048, 4096, 8192)
BAR = 0.98
# ‖a - b‖ / ‖b‖ of a product of normal numbers beside the same one in float64
TOLERANCE = {"float32": 1e-6, "tf32": 1e-3, "bfloat16": 5e-3}


def _direct(x, y, out, precision: str) -> Callable[[], object]:
    """A call of cuBLAS on PyTorch's memory, in its stream."""
    import torch

    from tapegrad import dtypes
    from tapegrad.kernels.cuda.cublas import Cublas, workspace_bytes
    from tapegrad.kernels.cuda.gemm import gemm
    from tapegrad.layouts import layout

    nbytes = workspace_bytes(torch.cuda.get_device_capability())
    workspace = torch.empty(nbytes, dtype=torch.uint8, device=DEVICE)
    handle = Cublas()
    handle.use(torch.cuda.current_stream().cuda_stream, workspace.data_ptr(), nbytes)
    dtype = dtypes.as_dtype("bfloat16" if precision == "bfloat16" else "float32")
    square = layout(tuple(x.shape), dtype)
    (call,) = gemm(square, square, square, precision="float32" if precision == "bfloat16" else precision).calls
    addresses = (x.data_ptr(), y.data_ptr(), out.data_ptr())

    def run(held=(workspace, x, y, out)):
        handle.run(call, addresses)

    return run


def measure(n: int, precision: str) -> Outcome:
    """One size in one precision: bfloat16 is a dtype, TF32 a setting."""
    import numpy as np
    import torch

    import tapegrad as tg

    halves = precision == "bfloat16"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    kind = torch.bfloat16 if halves else torch.float32
    rng = np.random.default_rng(n)
    data = [rng.standard_normal((n, n), dtype=np.float32) for _ in range(2)]
    x, y = (torch.tensor(a, device=DEVICE).to(kind) for a in data)
    out = torch.empty_like(x)
    a, b = (tg.tensor(m, device=DEVICE) for m in data)
    if halves:
        a, b = a.astype("bfloat16"), b.astype("bfloat16")
    setting: AbstractContextManager = nullcontext() if halves else tg.matmul_precision(precision)
    with setting:
        off = _error((a @ b).astype("float32").numpy()[:8], x, y)
        candidates = {
            "tapegrad": lambda: a @ b,
            "PyTorch": lambda: torch.mm(x, y, out=out),
            "direct": _direct(x, y, out, precision),
        }
        times = device_seconds(candidates, rounds=5)
    best = min(times["direct"], times["PyTorch"])
    share = best / times["tapegrad"]
    rate = 2 * n**3 / times["tapegrad"] / 1e12
    right = off <= TOLERANCE[precision]
    text = f"{rate:.1f} TFLOP/s, {share:.1%} of cuBLAS; error {off:.1e}" + ("" if right else ", too large")
    return Outcome(text, right and share >= BAR)


def _error(rows, x, y) -> float:
    """Of the first rows of a product, beside the same in float64."""
    import torch

    want = (x[: len(rows)].double() @ y.double()).cpu()
    got = torch.tensor(rows).double()
    return float(torch.linalg.norm(got - want) / torch.linalg.norm(want))


ROWS = tuple(
    Row(f"{n}³, {precision}", f"≥ {BAR:.0%} of cuBLAS", partial(measure, n, precision))
    for precision in ("float32", "tf32", "bfloat16")
    for n in SIZES
)
