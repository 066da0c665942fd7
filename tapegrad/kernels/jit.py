"""LLVM IR in, address out: compile a kernel for this processor, keep its object code on disk, load it.

    address = jit.load("add_f32", key, build)      # build() -> LLVM IR, called only where nothing is stored

All objects go into one MCJIT engine: 0.04 ms to load one, whether it is the first or the two-thousandth (LLJIT: 0.17
ms, growing to 0.36). llvmlite is imported at the first load (40 ms), Numba never.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import os
import sys
import threading
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path

from .. import config
from ..dtypes import DType
from ..errors import KernelError
from .cache import ObjectCache

OPT_LEVEL = 2  # of the target machine
# Wide registers on these cost clock frequency; LLVM prefers 256 bits on them, too.
_PREFER_256 = frozenset({"skylake-avx512", "cascadelake", "cooperlake", "cannonlake"})
_lock = threading.RLock()
_loaded: dict[str, int] = {}
_serial = itertools.count()


class Host:
    """The processor that kernels are compiled for. Every field is found at first use."""

    @cached_property
    def triple(self) -> str:
        """LLVM's name of the platform, such as x86_64-unknown-linux-gnu."""
        return _llvm().get_process_triple()

    @cached_property
    def cpu(self) -> str:
        """LLVM's name of the processor, such as znver4."""
        return _llvm().get_host_cpu_name()

    @cached_property
    def features(self) -> str:
        """The processor's instruction sets, as in "+avx2,-avx512f"."""
        return _llvm().get_host_cpu_features().flatten()

    @cached_property
    def vector_bits(self) -> int:
        """The width of vector to generate: 512, 256 or 128 bits."""
        has = set(self.features.split(","))
        if {"+avx512f", "+avx512bw", "+avx512dq", "+avx512vl"} <= has and self.cpu not in _PREFER_256:
            return 512
        return 256 if "+avx2" in has else 128

    def lanes(self, dtype: DType) -> int:
        """Elements of `dtype` in one vector."""
        return self.vector_bits // (8 * dtype.itemsize)

    def target_machine(self, opt: int = OPT_LEVEL):
        """A code generator for this processor (1 ms to make)."""
        target = _llvm().Target.from_triple(self.triple)
        # An engine maps code and constants piece by piece. Once a large array is mapped in between, the 32-bit distances of
        # the small code model overflow, and loading or running the kernel crashes; 64-bit addresses cost nothing measurable.
        # AArch64: what Numba uses there, with llvmlite's own memory, which keeps an object's pieces together.
        wide = self.triple.startswith("x86_64")
        reloc, codemodel = ("static", "large") if wide else ("default", "jitdefault")
        return target.create_target_machine(
            cpu=self.cpu, features=self.features, opt=opt, reloc=reloc, codemodel=codemodel
        )


HOST = Host()


def load(
    symbol: str,
    key: str | None,
    build: Callable[[], str],
    *,
    optimise: bool = False,
    unroll: bool = True,
    runtime: bool = False,
) -> int:
    """The address of the kernel `symbol`, compiled from `build()`'s LLVM IR if it is not in the cache.

    `key` holds all that determines the code, apart from tapegrad's own sources, the versions and the processor; with
    None the code is compiled afresh and not stored. `optimise` runs LLVM's O3 passes before the code generator, `unroll`
    those that unroll loops, too. Loading the same key twice gives the same address. `runtime` accepts code that calls the
    runtime of Numba, which `build` has started; it is not stored, because the next process may not have one.
    """
    if key is None:
        key, stored = f"unstored {next(_serial)}", False
    else:
        stored = True
    digest = hashlib.sha256(f"{symbol}\0{optimise}{unroll}\0{key}".encode()).hexdigest()[:40]
    address = _loaded.get(digest)
    if address is not None:
        return address
    with _lock:
        if digest not in _loaded:
            # names in the engine are global, so the digest makes them unique
            unique = f"{symbol}_{digest[:16]}"
            code = object_cache().read(digest) if stored else None
            if code is None:
                text = build()
                try:
                    code = compile_object(symbol, text, unique, optimise, unroll)
                except NeedsRuntime:
                    if not runtime:
                        raise
                    code, stored = compile_object(symbol, text, unique, optimise, unroll, registered=True), False
                if stored:
                    object_cache().write(digest, code)
            _loaded[digest] = _add_object(code, unique)
        return _loaded[digest]


class NeedsRuntime(KernelError):
    """The code calls functions that no library has and that somebody registered with LLVM: Numba's runtime."""


def compile_object(
    symbol: str, text: str, unique: str, optimise: bool = False, unroll: bool = True, registered: bool = False
) -> bytes:
    """Object code of the LLVM IR `text`, in which `symbol` is renamed to `unique`.

    `registered`: it may call functions that were registered with LLVM in this process.
    """
    llvm = _llvm()
    try:
        module = llvm.parse_assembly(text)
        module.verify()
        entry = module.get_function(symbol)
    except (RuntimeError, NameError) as error:
        first = str(error).strip().splitlines()
        raise KernelError(
            f"kernel {symbol}: the generated LLVM IR is not valid: {' '.join(first[:3])}. This is a fault in tapegrad, "
            "not in your code."
        ) from error
    entry.name = unique
    if optimise:
        run_passes(module, keep=unique, unroll=unroll)
    missing = unresolved(module)
    known = [name for name in missing if llvm.address_of_symbol(name)]
    if missing and not (registered and known == missing):
        kind = NeedsRuntime if known == missing else KernelError
        raise kind(f"kernel {symbol} {_what_is_missing(missing)}.")
    return _emitter().emit_object(module)


def run_passes(module, keep: str, unroll: bool = True) -> None:
    """Hide everything but the function `keep`, and run LLVM's O3 passes, so that what nobody calls goes away."""
    llvm = _llvm()
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name != keep:
            value.linkage = "internal"
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = options.loop_interleaving = True
    options.loop_unrolling = unroll
    builder = llvm.create_pass_builder(_emitter(), options)
    builder.getModulePassManager().run(module, builder)


def unresolved(module) -> list[str]:
    """Names that `module` declares and the libraries of this process do not have: loading it would abort."""
    names = [v.name for v in (*module.functions, *module.global_variables) if v.is_declaration]
    return sorted(n for n in names if not n.startswith("llvm.") and not _has_symbol(n))


def _what_is_missing(names: list[str]) -> str:
    listed = ", ".join(names)
    if any(n.startswith("NRT_") for n in names):
        return f"allocates memory, which a kernel cannot: take its buffers as arguments (it calls {listed})"
    if any(n.startswith(("numba_", "Py", "_Py")) for n in names):
        return f"uses Python objects or Numba's runtime, which a kernel cannot: no print (it calls {listed})"
    return f"calls {listed}, which no library of this process has"


def _has_symbol(name: str) -> bool:
    if sys.platform == "win32":
        return bool(_llvm().address_of_symbol(name))
    # not LLVM's own search: it would find what Numba registered, which the next process may not have
    return hasattr(_process(), name)


@cache
def _process() -> ctypes.CDLL:
    """The libraries whose functions a kernel may call."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # musl has libm in libc
            ctypes.CDLL("libm.so.6", mode=ctypes.RTLD_GLOBAL)  # expf and the like, even where Python is linked without
    return ctypes.CDLL(None)


@cache
def _llvm():
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


@cache
def _emitter():
    return HOST.target_machine()


@cache
def _engine():
    llvm = _llvm()
    if sys.platform != "win32":
        _process()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), HOST.target_machine())


def _add_object(code: bytes, name: str) -> int:
    engine = _engine()
    engine.add_object_file(_llvm().ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = engine.get_function_address(name)
    if not address:
        raise KernelError(f"kernel {name}: its object code does not define it. Clear the kernel cache and try again.")
    return address


@cache
def object_cache() -> ObjectCache:
    """The disk cache for this processor, these sources and these versions."""
    return ObjectCache(config.cache_directory(), version_digest())


@cache
def version_digest() -> str:
    """A hash of all that determines machine code and is not in a kernel's key."""
    import llvmlite

    llvm = _llvm()
    words = (HOST.cpu, HOST.features, HOST.triple, llvmlite.__version__, llvm.llvm_version_info, OPT_LEVEL, sys.maxsize)
    total = hashlib.sha256(repr(words).encode())
    package = Path(__file__).parent.parent
    sources = [package / "dtypes.py"]
    for folder in ("ops", "kernels"):
        for base, _, names in os.walk(package / folder):
            sources += [Path(base, name) for name in names if name.endswith(".py")]
    for path in sorted(sources):
        total.update(f"\0{path.relative_to(package)}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()[:24]


def statistics() -> dict[str, int | str | None]:
    """The disk cache's counts (see `ObjectCache.statistics`) and the number of kernels loaded."""
    return {**object_cache().statistics(), "loaded": len(_loaded)}


def clear_cache() -> None:
    """Delete all compiled kernels on disk. Those already loaded stay."""
    object_cache().clear()
