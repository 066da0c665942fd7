"""Matrix products on a GPU without one: what cuBLAS is asked, and through an emulated cuBLAS that it is NumPy's product."""

from __future__ import annotations

import numpy as np
import pytest
from emulated_cublas import Emulated, from_bfloat16, to_bfloat16

import tapegrad as tg
from tapegrad.dtypes import BY_NAME, float32, float64
from tapegrad.errors import DtypeError, KernelError
from tapegrad.kernels.cuda import door
from tapegrad.kernels.cuda.cublas import Cublas, bound
from tapegrad.kernels.cuda.cublas_table import CONSTANTS, CUBLAS, CUBLASLT, prototype
from tapegrad.kernels.cuda.cublaslt import CublasLt, alignment, dense
from tapegrad.kernels.cuda.gemm import MOST_CALLS, compute_type, gemm, operands_to_copy
from tapegrad.layouts import layout, row_major

STORED = {"float32": np.float32, "float64": np.float64, "float16": np.float16, "bfloat16": np.uint16}
TOLERANCES = {"float32": 2e-6, "float64": 1e-14, "float16": 1e-3, "bfloat16": 8e-3}


# products


class Memory:
    """An array with any strides inside a larger block of nan, so that a wrong address or stride shows."""

    def __init__(self, rng, shape, strides, dtype: str, device: str = "cpu"):
        reach = 1 + sum((n - 1) * s for n, s in zip(shape, strides)) if 0 not in shape else 1
        lead = int(rng.integers(0, 5))
        self.block = np.full(lead + reach + 8, np.nan, np.float32).astype(STORED[dtype])
        if dtype == "bfloat16":
            self.block[:] = 0x7FC0  # nan
        size = self.block.itemsize
        self.array = np.lib.stride_tricks.as_strided(self.block[lead:], shape, [s * size for s in strides])
        self.address = self.block.ctypes.data + lead * size
        self.layout = layout(tuple(shape), BY_NAME[dtype], tuple(strides), device)
        self.dtype = dtype

    def fill(self, rng) -> Memory:
        x = rng.standard_normal(self.array.shape)
        self.array[...] = to_bfloat16(x) if self.dtype == "bfloat16" else x
        return self

    def values(self) -> np.ndarray:
        x = from_bfloat16(self.array) if self.dtype == "bfloat16" else self.array
        return x.astype(np.float64)


def strides_of(rng, shape, how: str) -> tuple[int, ...]:
    """Strides of a matrix and its batches: by rows, transposed, or with room between rows, batches in any order."""
    *lead, rows, columns = shape
    gap = int(rng.integers(1, 4)) if "room" in how else 0
    last = (1, max(rows, 1) + gap) if "turned" in how else (max(columns, 1) + gap, 1)
    step = max(last) * max(rows if "turned" not in how else columns, 1) + gap
    found = [0] * len(lead)
    for axis in rng.permutation(len(lead)) if "mixed" in how else reversed(range(len(lead))):
        found[axis] = step
        step *= max(lead[axis], 1)
    return (*found, *last)


def run(product, out: Memory, a: Memory, b: Memory, library: Emulated) -> Emulated:
    handle = Cublas(bound(library, CUBLAS))
    for call in product.calls:
        handle.run(call, (a.address, b.address, out.address))
    if product.zero:
        out.array[...] = 0
    handle.close()
    return library


def close(got: np.ndarray, want: np.ndarray, k: int, dtype: str) -> None:
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCES[dtype] * max(k, 1) ** 0.5 * 8)


LENGTHS = (1, 2, 3, 5, 7, 31, 33)
HOWS = ("rows", "turned", "rows room", "turned room", "rows room mixed", "turned mixed")


@pytest.mark.parametrize("seed", range(60))
def test_products_are_numpys(seed):
    rng = np.random.default_rng(seed)
    dtype = ("float32", "float64", "float16", "bfloat16")[seed % 4]
    m, k, n = (int(x) for x in rng.choice(LENGTHS, 3))
    lead = tuple(int(x) for x in rng.choice((1, 2, 3, 5), int(rng.integers(0, 4))))
    cut = int(rng.integers(0, len(lead) + 1))
    of_a = tuple(1 if rng.random() < 0.3 else x for x in lead)
    of_b = tuple(x if x != y or rng.random() < 0.7 else 1 for x, y in zip(lead, of_a))[cut:]
    wide = np.broadcast_shapes(of_a, of_b)
    a = Memory(rng, (*of_a, m, k), strides_of(rng, (*of_a, m, k), rng.choice(HOWS)), dtype).fill(rng)
    b = Memory(rng, (*of_b, k, n), strides_of(rng, (*of_b, k, n), rng.choice(HOWS)), dtype).fill(rng)
    shape = (*wide, m, n)
    out = Memory(rng, shape, row_major(shape), dtype)
    accumulate = bool(seed % 3 == 0)
    if accumulate:
        out.fill(rng)
    want = a.values() @ b.values() + (out.values() if accumulate else 0)
    run(gemm(a.layout, b.layout, out.layout, accumulate=accumulate), out, a, b, Emulated())
    close(out.values(), want, k, dtype)


@pytest.mark.parametrize(
    "shapes", [((1, 4), (4, 1)), ((5, 4), (4, 1)), ((1, 4), (4, 6)), ((5, 1), (1, 6)), ((1, 1), (1, 1))]
)
@pytest.mark.parametrize("step", [1, 3])
def test_vectors(shapes, step):
    """Inner and outer products, a matrix times a vector; a vector's elements may lie apart."""
    rng = np.random.default_rng(5)
    memories = []
    for shape in shapes:
        rows, columns = shape
        strides = (step, 1) if columns == 1 else (1, step) if rows == 1 else (columns, 1)
        memories.append(Memory(rng, shape, strides, "float32").fill(rng))
    a, b = memories
    shape = (shapes[0][0], shapes[1][1])
    out = Memory(rng, shape, row_major(shape), "float32")
    product = gemm(a.layout, b.layout, out.layout)
    assert len(product.calls) == 1
    run(product, out, a, b, Emulated())
    close(out.values(), a.values() @ b.values(), shapes[0][1], "float32")


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 1, 2), (2, 0, 1), (0, 2, 1)])
def test_weights_as_they_lie_and_results_in_another_order(order):
    rng = np.random.default_rng(2)
    a = Memory(rng, (3, 5, 4), row_major((3, 5, 4)), "float32").fill(rng)
    b = Memory(rng, (3, 6, 4), row_major((3, 6, 4)), "float32").fill(rng)
    shape = tuple((3, 5, 6)[axis] for axis in order)
    out = Memory(rng, shape, row_major(shape), "float32")
    if order[-1] != 2:  # columns of the result do not lie together: cuBLAS writes no such matrix
        with pytest.raises(KernelError, match="cuBLAS cannot read Layout"):
            gemm(a.layout, b.layout, out.layout, turned_b=True, order=order)
        return
    run(gemm(a.layout, b.layout, out.layout, turned_b=True, order=order), out, a, b, Emulated())
    close(out.values(), (a.values() @ b.values().swapaxes(1, 2)).transpose(order), 4, "float32")


@pytest.mark.parametrize(
    "m, k, n, batch", [(0, 3, 4, ()), (3, 0, 4, ()), (3, 4, 0, ()), (3, 4, 5, (0,)), (3, 0, 4, (2,))]
)
def test_nothing_to_multiply(m, k, n, batch):
    a, b, out = (layout((*batch, *s), float32) for s in ((m, k), (k, n), (m, n)))
    product = gemm(a, b, out)
    assert product.calls == ()
    assert product.zero == (out.size > 0)
    assert gemm(a, b, out, accumulate=True) == ((), False)


def test_arguments_of_a_product_exactly():
    """2x3 by 3x4, by rows: cuBLAS is asked for the 4x2 of B^T A^T."""
    library = Emulated()
    rng = np.random.default_rng(0)
    a, b, out = (Memory(rng, s, row_major(s), "float32") for s in ((2, 3), (3, 4), (2, 4)))
    run(gemm(a.layout, b.layout, out.layout), out, a, b, library)
    ((_, *words),) = library.called("cublasGemmEx_64")
    alpha, beta = words.pop(5), words.pop(11)
    wanted = [0, 0, 4, 2, 3, b.address, 0, 4, a.address, 0, 3, out.address, 0, 4, 68, -1]
    assert words == wanted
    assert beta == alpha - 4  # the factors 0 and 1 lie side by side


def test_arguments_of_batches_exactly():
    """A transposed view of B is a flag; a batch that B does not have is a stride of 0."""
    a, b = layout((6, 2, 3), float64, (100, 7, 1)), layout((3, 4), float64, (1, 5))
    out = layout((6, 2, 4), float64)
    (call,) = gemm(a, b, out).calls
    assert call.function == "cublasGemmStridedBatchedEx_64"
    words = call.arguments((1000, 2000, 3000), 11, 12)
    assert words == (1, 0, 4, 2, 3, 11, 2000, 1, 5, 0, 1000, 1, 7, 100, 12, 3000, 1, 4, 8, 6, 70, -1)


def test_one_matrix_for_all_batches_is_one_tall_product():
    a, b, out = layout((6, 2, 3), float32), layout((3, 4), float32), layout((6, 2, 4), float32)
    (call,) = gemm(a, b, out).calls
    assert (call.m, call.n, call.k, call.batch) == (4, 12, 3, 1)


def test_sizes_past_int32_arrive():
    rows = 2**31 + 5
    a, b, out = layout((rows, 3), float32), layout((3, 2), float32), layout((rows, 2), float32)
    (call,) = gemm(a, b, out).calls
    seen = []
    function = next(f for f in CUBLAS if f.name == call.function)
    prototype(function)(lambda *words: seen.append(words) or 0)(1, *call.arguments((2**40, 2**41, 2**42), 8, 16))
    assert seen[0][4] == rows
    assert seen[0][7] == 2**41
    far = layout((2, 3, 3), float32, (2**33, 3, 1))
    (call,) = gemm(far, far, layout((2, 3, 3), float32)).calls
    assert call.first.stride == 2**33


def test_outer_batches_are_calls_with_offsets_in_bytes():
    a, b = layout((2, 5, 3, 4), float32, (12, 24, 4, 1)), layout((2, 5, 4, 3), float32)
    product = gemm(a, b, layout((2, 5, 3, 3), float32))
    assert [c.batch for c in product.calls] == [5, 5]
    assert [c.second.start for c in product.calls] == [0, 48]
    assert [c.first.start for c in product.calls] == [0, 240]
    assert [c.result.start for c in product.calls] == [0, 180]


def test_which_operands_to_copy():
    def f(a, b, out, **how):
        return operands_to_copy(a, b, out, **how)

    plain, out = layout((4, 4), float32), layout((4, 4), float32)
    assert f(plain, plain, out) == ()
    assert f(plain, layout((4, 4), float32, (1, 4)), out) == ()
    assert f(layout((4, 4), float32, (0, 1)), plain, out) == (0,)
    assert f(layout((4, 4), float32, (8, 2)), layout((4, 4), float32, (-4, 1)), out) == (0, 1)
    many = (16, 12, 4, 4)
    heads = layout(many, float32, (768, 4, 48, 1))  # heads beside time, as attention's products have them
    whole = layout(many, float32)
    assert f(heads, whole, whole) == (0,)
    assert f(heads, heads, whole) == (0, 1)
    few = layout((16, MOST_CALLS, 4, 4), float32)
    assert f(layout(few.shape, float32, (MOST_CALLS * 16, 4, MOST_CALLS * 4, 1)), few, few) == ()
    # a copy does not help where both are repeated
    assert f(layout((20, 1, 4, 4), float32), layout((1, 20, 4, 4), float32), layout((20, 20, 4, 4), float32)) == ()


# precision


def test_float32_is_float32_unless_asked_otherwise():
    assert compute_type("float32", "float32", "float32") == CONSTANTS["CUBLAS_COMPUTE_32F"]
    fast = {p: compute_type("float32", "float32", "float32", p) for p in ("tf32", "bfloat16", "float16")}
    assert fast == {
        "tf32": CONSTANTS["CUBLAS_COMPUTE_32F_FAST_TF32"],
        "bfloat16": CONSTANTS["CUBLAS_COMPUTE_32F_FAST_16BF"],
        "float16": CONSTANTS["CUBLAS_COMPUTE_32F_FAST_16F"],
    }
    for precision in ("float32", "tf32", "bfloat16", "float16"):
        assert compute_type("float64", "float64", "float64", precision) == CONSTANTS["CUBLAS_COMPUTE_64F"]
        for half in ("float16", "bfloat16"):
            for out in (half, "float32"):
                assert compute_type(half, half, out, precision) == CONSTANTS["CUBLAS_COMPUTE_32F"]


@pytest.mark.parametrize("precision, error", [("float32", 1e-6), ("tf32", 2e-3), ("bfloat16", 2e-2)])
def test_precision_reaches_the_library(precision, error):
    rng = np.random.default_rng(1)
    a, b = (Memory(rng, (33, 33), (33, 1), "float32").fill(rng) for _ in range(2))
    out = Memory(rng, (33, 33), (33, 1), "float32")
    run(gemm(a.layout, b.layout, out.layout, precision=precision), out, a, b, Emulated())
    want = a.values() @ b.values()
    off = np.linalg.norm(out.values() - want) / np.linalg.norm(want)
    assert error / 100 < off < error or (precision == "float32" and off < error)


def test_halves_may_give_float32():
    rng = np.random.default_rng(1)
    a, b = (Memory(rng, (5, 5), (5, 1), "bfloat16").fill(rng) for _ in range(2))
    out = Memory(rng, (5, 5), (5, 1), "float32")
    run(gemm(a.layout, b.layout, out.layout), out, a, b, Emulated())
    close(out.values(), a.values() @ b.values(), 5, "float32")


@pytest.mark.parametrize(
    "dtypes", [("int64",) * 3, ("float32", "float64", "float64"), ("float32", "float32", "float16")]
)
def test_products_that_cublas_does_not_have(dtypes):
    with pytest.raises(
        DtypeError, match=f"cuBLAS has no product of {dtypes[0]} and {dtypes[1]} that gives {dtypes[2]}"
    ):
        compute_type(*dtypes)
    with pytest.raises(KernelError, match="precision 'low' is none of float32, tf32"):
        compute_type("float32", "float32", "float32", "low")


# dense layers


@pytest.mark.parametrize("activation", [None, "relu", "gelu_tanh"])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dense_layers_are_numpys(activation, with_bias, dtype):
    rng = np.random.default_rng(3)
    library = Emulated()
    a = Memory(rng, (5, 7), (9, 1), dtype).fill(rng)
    b = Memory(rng, (3, 7), (7, 1), dtype).fill(rng)  # (out, in), as a layer keeps it
    bias = Memory(rng, (3,), (1,), dtype).fill(rng)
    out = Memory(rng, (5, 3), (3, 1), dtype)
    call = dense(
        a.layout, b.layout, out.layout, turned_b=True, bias=bias.layout if with_bias else None, activation=activation
    )
    addresses = (a.address, b.address, out.address, bias.address)
    handle = CublasLt(bound(library, CUBLASLT))
    prepared = handle.prepare(call, addresses, 1 << 20)
    assert prepared.workspace == 512 and prepared.algorithm.data[0] == 77
    handle.run(prepared, addresses, 0x99, 0x10000)
    assert library.used == (0x99, 0x10000, 512)
    want = a.values() @ b.values().T + (bias.values() if with_bias else 0)
    if activation == "relu":
        want = np.maximum(want, 0)
    if activation == "gelu_tanh":
        want = tg.gelu(tg.tensor(want), approximate="tanh").numpy()
    close(out.values(), want, 7, dtype)
    handle.close_prepared(prepared)
    handle.close()
    assert library.objects == {}


def test_cublaslt_is_told_how_addresses_are_aligned():
    library = Emulated()
    a, b, out = layout((4, 4), float32), layout((4, 4), float32), layout((4, 4), float32)
    handle = CublasLt(bound(library, CUBLASLT))
    prepared = handle.prepare(dense(a, b, out), (1 << 20, (1 << 20) + 4, (1 << 20) + 64), 4096)
    limits = {
        n: library.limits[CONSTANTS[f"CUBLASLT_MATMUL_PREF_{n}"]]
        for n in ("MAX_WORKSPACE_BYTES", *(f"MIN_ALIGNMENT_{x}_BYTES" for x in "ABCD"))
    }
    assert list(limits.values()) == [4096, 4, 256, 64, 64]  # its A is our B
    with pytest.raises(KernelError, match=r"aligned to \(4, 256, 64\) bytes and came with \(4, 16, 64\)"):
        handle.run(prepared, ((1 << 20) + 16, (1 << 20) + 4, (1 << 20) + 64), 0, 0)
    assert alignment(1 << 30) == 256 and alignment(0) == 256


def test_cublaslt_may_know_no_way():
    library = Emulated(answers={"cublasLtMatmulAlgoGetHeuristic": CONSTANTS["CUBLAS_STATUS_NOT_SUPPORTED"]})
    a = layout((4, 4), float32)
    handle = CublasLt(bound(library, CUBLASLT))
    assert handle.prepare(dense(a, a, a), (256, 512, 768), 0) is None
    assert len(library.objects) == 1  # the handle: no descriptor is left
    library.answers["cublasLtMatmulAlgoGetHeuristic"] = 14
    with pytest.raises(KernelError, match=r"cuBLASLt: choosing an algorithm: it failed inside.*INTERNAL_ERROR"):
        handle.prepare(dense(a, a, a), (256, 512, 768), 0)
    assert len(library.objects) == 1


def test_what_dense_leaves_to_others():
    plain, batch = layout((4, 4), float32), layout((2, 4, 4), float32)
    double, empty = layout((4, 4), float64), layout((4, 0), float32)
    assert dense(plain, plain, plain, activation="gelu") is None  # the exact one
    assert dense(double, double, double) is None
    assert dense(batch, batch, batch) is None
    assert dense(empty, layout((0, 4), float32), plain) is None
    assert dense(plain, plain, plain, bias=layout((3,), float32)) is None
    assert dense(plain, plain, plain, bias=layout((4,), float32, (2,))) is None
    assert dense(plain, plain, plain, bias=layout((4,), float64)) is None
    assert dense(layout((4, 4), BY_NAME["int64"]), plain, plain) is None


# on a GPU


@pytest.mark.skipif(door.why_not() is not None, reason="no CUDA GPU")
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_cublas_itself(dtype):
    """The real library on a GPU, against NumPy."""
    from cuda.bindings import driver

    def ok(answer):
        status, *found = answer
        assert status == driver.CUresult.CUDA_SUCCESS
        return found[0] if found else None

    ok(driver.cuInit(0))
    device = ok(driver.cuDeviceGet(0))
    ok(driver.cuCtxSetCurrent(ok(driver.cuDevicePrimaryCtxRetain(device))))
    handle = Cublas()
    workspace = ok(driver.cuMemAlloc(32 << 20))
    handle.use(0, int(workspace), 32 << 20)
    rng = np.random.default_rng(0)
    for shapes in [((33, 31), (31, 65)), ((3, 33, 31), (3, 31, 1)), ((2, 5, 7, 9), (5, 9, 3)), ((1, 1023), (1023, 1))]:
        shape = (*np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2]), shapes[0][-2], shapes[1][-1])
        memories = [Memory(rng, s, row_major(s), dtype).fill(rng) for s in (*shapes, shape)]
        held = [ok(driver.cuMemAlloc(x.array.nbytes)) for x in memories]
        for x, address in zip(memories, held, strict=True):
            flat = np.ascontiguousarray(x.array)
            ok(driver.cuMemcpyHtoD(address, flat.ctypes.data, flat.nbytes))
        a, b, out = memories
        for call in gemm(a.layout, b.layout, out.layout).calls:
            handle.run(call, tuple(map(int, held)))
        back = np.empty_like(out.array)
        ok(driver.cuMemcpyDtoH(back.ctypes.data, held[2], back.nbytes))
        out.array[...] = back
        close(out.values(), a.values() @ b.values(), shapes[0][-1], dtype)
        for address in held:
            ok(driver.cuMemFree(address))
    handle.close()
    ok(driver.cuMemFree(workspace))
