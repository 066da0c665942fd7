"""Runs every benchmark once, to see that it still works: `python -m asv_bench.smoke [part of a name ...]`.

Finds benchmarks by asv's conventions (time_, timeraw_, track_, peakmem_, mem_; setup, setup_cache, teardown, params), without asv.
Ends with status 1 where one of them fails.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import pkgutil
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from types import ModuleType

from . import benchmarks
from .benchmarks import fresh

BENCHMARK = re.compile(r"(time|timeraw|track|peakmem|mem)_\w+")


def modules() -> Iterator[ModuleType]:
    """Every module of the package of benchmarks."""
    for found in pkgutil.walk_packages(benchmarks.__path__, f"{benchmarks.__name__}."):
        yield importlib.import_module(found.name)


def cases(module: ModuleType) -> Iterator[tuple[str, type | None, Callable, tuple]]:
    """Name, class or None, function, parameters of every benchmark that the module defines."""
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        prefix = module.__name__.rpartition(".")[2]
        if inspect.isfunction(value) and BENCHMARK.fullmatch(name):
            for values in combinations(value):
                yield f"{prefix}.{name}", None, value, values
        elif inspect.isclass(value):
            for method, function in inspect.getmembers(value, inspect.isfunction):
                if BENCHMARK.fullmatch(method):
                    for values in combinations(function, value):
                        yield f"{prefix}.{name}.{method}", value, function, values


def combinations(*sources) -> Iterator[tuple]:
    """Every combination of the parameters of the first source that has some; one empty one where none has."""
    params = next((p for p in (getattr(source, "params", ()) for source in sources) if p), ())
    if params and not isinstance(params[0], list | tuple):  # asv's rule: the values of a single parameter
        params = (params,)
    return itertools.product(*params)


@functools.cache
def cached(owner: type):
    """What the class's setup_cache returns, made once."""
    return owner().setup_cache()


def once(owner: type | None, function: Callable, values: tuple) -> str:
    """Set up, run once, tear down. Returns what there is to say beside its time."""
    kind = function.__name__.partition("_")[0]
    holder = owner() if owner is not None else function
    if owner is not None and hasattr(owner, "setup_cache"):
        values = (cached(owner), *values)
    try:
        if hasattr(holder, "setup"):
            holder.setup(*values)
    except NotImplementedError:  # how asv is told to leave a combination out
        return "left out"
    try:
        result = function(holder, *values) if owner is not None else function(*values)
    finally:
        if hasattr(holder, "teardown"):
            holder.teardown(*values)
    if kind == "timeraw":
        statement, setup = (result, "") if isinstance(result, str) else result
        fresh.code(f"{setup}\n{statement}")
    elif kind == "track":
        unit = getattr(function, "unit", getattr(owner, "unit", ""))
        return f"{float(result):.4g} {unit}"
    return ""


def main(wanted: list[str]) -> int:
    """Run the benchmarks whose name has one of those parts, or all; the number of failures."""
    start, count, failures = time.perf_counter(), 0, []
    for module in modules():
        for name, owner, function, values in cases(module):
            label = name + (f" {values if len(values) > 1 else values[0]!r}" if values else "")
            if wanted and not any(part in label for part in wanted):
                continue
            count += 1
            before = time.perf_counter()
            try:
                said = once(owner, function, values)
            except Exception:  # noqa: BLE001  reported below; the other benchmarks still run
                failures.append(label)
                said = f"FAILED\n{traceback.format_exc()}"
            print(f"{time.perf_counter() - before:7.2f} s  {label}  {said}".rstrip(), flush=True)
    print(f"{count} benchmarks, {len(failures)} failed, {time.perf_counter() - start:.0f} s")
    for label in failures:
        print(f"failed: {label}")
    if not count:
        print("no benchmark has such a name")
    return len(failures) + (not count)


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
