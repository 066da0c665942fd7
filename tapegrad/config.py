"""Settings from the environment, each read once, at first use. A wrong value is a sentence, never a silent default.

TAPEGRAD_CACHE         folder of compiled kernels; "off" keeps them in memory only
TAPEGRAD_NUM_THREADS   threads that a kernel may use; default: the cores this process may run on
TAPEGRAD_DATA          folder with data sets such as mnist/; read by `tapegrad.data`
TAPEGRAD_SESSION       "off" makes sessions do nothing: everything runs eagerly, with the same results
TAPEGRAD_MEMORY_LIMIT  bytes of buffers, or a size such as "4GB"; default: 90 % of what the machine or container has
TAPEGRAD_CUDA          "simulator" makes "cuda:0" and "cuda:1" devices on host memory, for tests; default: "driver"
"""

from __future__ import annotations

import math
import os
import re
import sys
from functools import cache
from pathlib import Path

from .errors import ConfigError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_CGROUP = Path("/sys/fs/cgroup")


@cache
def cache_directory() -> Path | None:
    """The folder that holds compiled kernels, or None where TAPEGRAD_CACHE is "off"."""
    value = os.environ.get("TAPEGRAD_CACHE", "")
    if value.lower() == "off":
        return None
    if value:
        return Path(value).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "tapegrad"


@cache
def num_threads() -> int:
    """The number of threads a kernel may use."""
    value = os.environ.get("TAPEGRAD_NUM_THREADS")
    if value is None:
        return usable_cores()
    try:
        count = int(value)
    except ValueError:
        count = 0
    if count < 1:
        raise ConfigError(f"TAPEGRAD_NUM_THREADS is {value!r}; it must be a whole number from 1, for example 2.")
    return count


def usable_cores() -> int:
    """The cores this process may run on: its affinity, and the container's CPU quota where there is one."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _cpu_quota()
    return max(1, min(cores, math.ceil(quota))) if quota else cores


def _cpu_quota() -> float | None:
    """CPUs that the control group grants (version 2, then version 1), or None."""
    words = (_text(_CGROUP / "cpu.max") or "").split()
    if len(words) == 2 and words[0].isdigit():
        return int(words[0]) / int(words[1])
    quota = _text(_CGROUP / "cpu/cpu.cfs_quota_us")
    period = _text(_CGROUP / "cpu/cpu.cfs_period_us")
    if quota and period and int(quota) > 0 and int(period) > 0:
        return int(quota) / int(period)
    return None


@cache
def session_off() -> bool:
    """True where sessions do nothing."""
    value = os.environ.get("TAPEGRAD_SESSION", "on").lower()
    if value not in ("on", "off"):
        raise ConfigError(f'TAPEGRAD_SESSION is {value!r}; it is "on" or "off".')
    return value == "off"


@cache
def cuda() -> str:
    """What CUDA devices are: "driver" for GPUs, or "simulator"."""
    value = os.environ.get("TAPEGRAD_CUDA", "driver").lower()
    if value not in ("driver", "simulator"):
        raise ConfigError(f'TAPEGRAD_CUDA is {value!r}; it is "driver" or "simulator".')
    return value


@cache
def memory_limit() -> int:
    """The most bytes that buffers may take together."""
    value = os.environ.get("TAPEGRAD_MEMORY_LIMIT")
    if value is None:
        return available_memory() * 9 // 10
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", value, re.IGNORECASE)
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise ConfigError(f"TAPEGRAD_MEMORY_LIMIT is {value!r}; write bytes, or a size such as 512MB or 4GB.")
    return size


def available_memory() -> int:
    """Bytes of memory of the machine, or of the control group (version 2, then 1) if that grants less."""
    total = _physical_memory()
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _text(_CGROUP / name)
        if text and text.isdigit():
            total = min(total, int(text))
    return total


def _physical_memory() -> int:
    if sys.platform != "win32":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    import ctypes

    class MemoryStatus(ctypes.Structure):
        _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32), ("total", ctypes.c_uint64)] + [
            (f"other{i}", ctypes.c_uint64) for i in range(6)
        ]

    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return status.total


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
