"""NVIDIA's memory checker over many kernels.

compute-sanitizer --error-exitcode 9 python -m asv_bench.gpu.checker      # runs the kernels, says how many ops they were
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np

from .rows import DEVICE, NotMeasured, Outcome, Row

LEAST = 60
SECONDS = 55  # of running kernels under the checker; starting, compiling and ending take the rest of the section's time
FOLDERS = ("bin", "compute-sanitizer")  # of a CUDA toolkit, where the tool lies
LENGTHS = (33, 1025)  # not multiples of a vector or a block: where accesses past the end happen


def run_ops(device: str, seconds: float) -> dict:
    """Run ops on odd sizes, forward and backward, elementwise ones last, as long as the time lasts; what was run."""
    import tapegrad as tg
    from tapegrad.errors import TapegradError
    from tapegrad.ops import samples
    from tapegrad.tape.spaces import space_of

    from .parity import operations, resized

    start, ran = time.perf_counter(), []
    if device == DEVICE:  # each block an allocation of its own: the checker knows those alone
        space_of(device).pool.carved = 0
    for name, op in sorted(operations().items(), key=lambda item: item[1].kind == "elementwise"):
        if time.perf_counter() - start > seconds:
            break
        for n in LENGTHS:
            for sample in resized(op, n)[:1] or op.samples[:1]:
                drawn = samples.draw(op, np.random.default_rng(n), [sample])[0]
                tensors = [tg.tensor(x, dtype="float32", device=device, requires_grad=True) for x in drawn.tensors]
                try:
                    out = drawn.call(op, tensors, lambda x: tg.tensor(x, device=device))
                except (TapegradError, ValueError):
                    continue  # the sample's other arguments belong to its own shapes
                slopes = [y.sum() for y in (out if isinstance(out, tuple) else (out,)) if y.requires_grad]
                if slopes and tensors:
                    sum(slopes[1:], slopes[0]).backward()
                for y in (
                    *(out if isinstance(out, tuple) else (out,)),
                    *(t.grad for t in tensors if t.grad is not None),
                ):
                    y.numpy()
                if name not in ran:
                    ran.append(name)
    return {"ops": len(ran)}


def _checked() -> Outcome:
    homes = [os.environ.get("CUDA_HOME", "/usr/local/cuda"), "/usr/local/cuda"]
    tools = [shutil.which("compute-sanitizer", path=p) for p in (None, *(f"{h}/{d}" for h in homes for d in FOLDERS))]
    tool = next(filter(None, tools), None)
    if tool is None:
        raise NotMeasured("compute-sanitizer is not installed; it comes with the CUDA toolkit")
    command = [tool, "--tool", "memcheck", "--error-exitcode", "9", sys.executable, "-m", "asv_bench.gpu.checker"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # the tool's status is looked at
    said = done.stdout + done.stderr
    errors = re.search(r"ERROR SUMMARY: (\d+) error", said)
    ran = re.search(r'\{"ops": (\d+)\}', said)
    if errors is None or ran is None:
        last = (said.strip().splitlines() or ["nothing"])[-1]
        raise NotMeasured(f"the tool does not work here: it ended with {done.returncode} and said: {last}")
    text = f"{ran[1]} ops, forward and backward: {errors[1]} errors"
    return Outcome(text, int(errors[1]) == 0 and int(ran[1]) >= LEAST)


ROWS = (Row("compute-sanitizer, memcheck", f"at least {LEAST} kernels, no error", _checked),)


if __name__ == "__main__":
    print(json.dumps(run_ops(DEVICE, SECONDS)))
