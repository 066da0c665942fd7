"""`tg.info()`: what this installation runs on."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

from . import config, cuda
from .kernels import blas, jit
from .kernels.run import get_num_threads
from .tape.pool import POOL

PACKAGES = ("numpy", "numba", "llvmlite", "scipy-openblas32", "safetensors")


class Info(dict):
    """A dict that prints as a table."""

    def __repr__(self) -> str:
        lines = []
        for key, value in self.items():
            if isinstance(value, dict):
                value = ", ".join(f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in value.items())
            lines.append(f"{key:10} {value}")
        return "\n".join(lines)


def info() -> Info:
    """Versions, CPU, vector width, BLAS core, threads, caches, memory and GPU, for bug reports and benchmarks.

    >>> sorted(info())
    ['blas', 'cache', 'cpu', 'device', 'gpu', 'memory', 'platform', 'threads', 'vector', 'versions']
    """
    return Info(
        versions={
            "tapegrad": sys.modules["tapegrad"].__version__,
            "python": sys.version.split()[0],
            **{name: _version(name) for name in PACKAGES},
        },
        platform=platform.platform(),
        cpu=_cpu(),
        vector=f"{jit.HOST.vector_bits} bits ({jit.HOST.cpu})",
        blas=f"OpenBLAS, core {blas.core_name()}, {blas.threads()} thread per call",
        threads={"used": get_num_threads(), "usable": config.usable_cores()},
        cache=dict(jit.statistics()),
        memory=POOL.stats(),
        device="cpu",
        gpu=_gpu(),
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _gpu() -> str:
    """What the first GPU is, or why there is none."""
    missing = cuda.why_not()
    if missing is not None:
        return f"none: {missing}"
    found = cuda.get_device_properties()
    return f"{found.name}, {found.memory >> 20:,} MiB, compute capability {'.'.join(map(str, found.capability))}"


def _cpu() -> str:
    """The processor's name as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or "unknown"
    return platform.processor() or "unknown"
