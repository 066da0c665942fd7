"""Users' code as PTX, without a GPU: array kernels compile for every target, and what does not compile is one readable error."""

from __future__ import annotations

import re

import array_kernels
import harvest
import pytest
from numba import cuda

import tapegrad as tg
from tapegrad.dtypes import bool_, float32, float64, int64
from tapegrad.errors import KernelError
from tapegrad.kernels.cuda import door
from tapegrad.layouts import layout
from tapegrad.ops.registry import partial

CASES = {
    "sampled": ((2, 1, 7), (3, 5)),
    "sampled_slope": ((2, 3, 5), (2, 3, 5), (2, 1, 7), (3, 5)),
    "smoothed": ((2, 3, 5),),
    "total": ((3, 11),),
    "chamfer": ((3, 1, 4, 2), (5, 6, 2)),
    "chamfer_slope": ((3,), (3,), (3, 4, 2), (6, 2)),
}


def kernel_of(op, *ins):
    return next(k for k in harvest.kernels(op, ins) if k.name == op.name)


@pytest.mark.parametrize("cc", door.TARGETS, ids=lambda cc: f"sm_{cc[0]}{cc[1]}")
@pytest.mark.parametrize("dtype", [float32, float64], ids=lambda d: d.name)
@pytest.mark.parametrize("name", CASES)
def test_bodies_compile(name, dtype, cc):
    kernel = kernel_of(getattr(array_kernels, name), *(layout(s, dtype) for s in CASES[name]))
    text = harvest.ptx(kernel, name, cc)
    assert f".target sm_{cc[0]}{cc[1]}" in text and not re.search(r"^\s*call", text, re.M)
    parameters = re.findall(r"\.param \.u64 ", text.partition(")")[0])
    assert len(parameters) == len(kernel.arguments), "a word for each parameter, as the driver is given them"
    if name == "total":
        assert "bar.sync" in text and ".shared" in text
    if name == "sampled_slope":
        assert re.search(rf"(red|atom)\.[\w.]*add\.f{8 * dtype.itemsize}", text)


def test_integers_and_bools():
    ins = layout((6,), float32), layout((2, 2), int64), layout((6,), bool_)
    assert "st.global.u8" in kernel_of(array_kernels.picked, *ins).ptx()


def test_the_words_are_where_numba_reads_them():
    """An address is the fifth word of an array, as the order of the launch has it; the code reads global memory through it."""
    x = layout((3, 11), float32)
    outs, compute, _ = harvest.infer(array_kernels.total, (x,), {})
    (launch,) = harvest.work_of(array_kernels.total, (x,), outs, {}, compute)[0].launches
    words = launch.words([1000, 2000])
    assert words[:9] == (0, 0, 33, 4, 1000, 3, 11, 44, 4)
    assert words[9:18] == (0, 0, 3, 4, 2000, 3, 1, 4, 4)
    assert words[18:] == (3, 1, 1)
    assert [i for i, kind in enumerate(launch.kernel.arguments) if kind == "float32"] == [4, 13]
    read = set(re.findall(r"_param_(\d+)\]", launch.kernel.ptx()))
    assert {"4", "13", "18"} <= read and not {"0", "1", "9", "10"} & read


def test_ptx_is_stored(monkeypatch):
    """By all that the body depends on: a second process compiles nothing."""
    x = layout((3, 11), float32)
    first = kernel_of(array_kernels.total, x)
    text = first.ptx()
    again = type(first)(first.user, first.form)
    monkeypatch.setattr(door, "compile_ptx", None)
    assert again.ptx() == text


# bodies that do not compile


def writes_input(x, out):
    x[0] = 3.0


def opens(x, out):
    for i in range(3):
        out[i] = open("f")  # noqa: SIM115


def returning(x, out):
    return out


def misspelt(x, out):
    out[cuda.grid(1)] = cuda.atomik(x)


def undefined(x, out):
    out[0] = nowhere(x)  # type: ignore[name-defined]  # noqa: F821


def sized(x, out):
    tile = cuda.shared.array(x.shape[0], x.dtype)
    out[0] = tile[0]


def two_axes(x, out):
    out[0, 1] = x[0]


def calls(x, out):
    out[0] = helper(x)


def helper(x):
    return x.nothing


FAULTS = [
    (writes_input, "x[0] = 3.0", "readonly array"),
    (opens, 'out[i] = open("f")', "open"),
    (misspelt, "out[cuda.grid(1)] = cuda.atomik(x)", "atomik"),
    (undefined, "out[0] = nowhere(x)", "name 'nowhere' is not defined"),
    (sized, "tile = cuda.shared.array(x.shape[0], x.dtype)", "shared.array"),
    (two_axes, "out[0, 1] = x[0]", "setitem"),
    (calls, "return x.nothing", "Unknown attribute 'nothing'"),
]


def compiled(body) -> str:
    op = tg.kernel("(n)->(n)", name="sampled")(body)
    op.cuda(body)
    return kernel_of(op, layout((5,), float32)).ptx()


@pytest.mark.parametrize("body, line, words", FAULTS, ids=[f.__name__ for f, _, _ in FAULTS])
def test_a_body_that_does_not_compile(body, line, words):
    """One sentence: the op, the function's file and line, the line at fault, the reason; Numba's text behind it."""
    with pytest.raises(KernelError) as caught:
        compiled(body)
    text = str(caught.value)
    assert f"sampled's CUDA body ({__file__}:{body.__code__.co_firstlineno}) cannot be compiled by Numba" in text
    assert re.search(rf"at line \d+: `{re.escape(line)}", text) and words in text
    assert "\n" not in text and len(text) < 700 and caught.value.__cause__ is not None


def test_a_body_that_returns_something():
    with pytest.raises(
        KernelError, match=r"sampled's CUDA body \(.*\) returns an array .*; an array kernel returns nothing"
    ):
        compiled(returning)


def test_a_body_with_too_much_shared_memory():
    def large(x, out):
        tile = cuda.shared.array(20000, x.dtype)
        tile[cuda.threadIdx.x] = x[0]
        cuda.syncthreads()
        out[0] = tile[int(x[0])]

    with pytest.raises(KernelError, match="sampled's CUDA body has 80,000 bytes of shared arrays; a block has 49,152"):
        compiled(large)


def test_a_body_that_raises():
    def positive(x, out):
        if x[0] < 0:
            raise ValueError("negative")

    with pytest.raises(
        KernelError, match=r"positive \(.*test_ptx_arrays.py:\d+\) raises an exception, which a GPU cannot tell of"
    ):
        compiled(positive)


# scalar functions that do not compile


def uncompilable(x):
    for _ in range(3):
        x = x + open("file")  # noqa: SIM115
    return x


def unknown(x):
    for _ in range(3):
        x = x + nowhere(x)  # type: ignore[name-defined]  # noqa: F821
    return x


def calls_helper(x):
    for _ in range(3):
        x = helper(x)
    return x


SCALAR = [
    (uncompilable, 'x = x + open("file")', "open"),
    (unknown, "x = x + nowhere(x)", "name 'nowhere' is not defined"),
    (calls_helper, "return x.nothing", "Unknown attribute 'nothing' of type float32"),
]


@pytest.mark.parametrize("function, line, words", SCALAR, ids=[f.__name__ for f, _, _ in SCALAR])
def test_a_scalar_function_that_does_not_compile(function, line, words):
    op = tg.elementwise(function, name="mine")
    (kernel, *_) = harvest.kernels(op, [layout((64,), float32)])
    with pytest.raises(KernelError) as caught:
        kernel.ptx()
    text = str(caught.value)
    assert text.startswith(
        f"mine ({__file__}:{function.__code__.co_firstlineno}) cannot be compiled by Numba for inputs (float32)"
    )
    assert f"`{line}" in text and words in text
    assert "\n" not in text and len(text) < 600 and caught.value.__cause__ is not None


def pair(x):
    for _ in range(3):
        x += 1.0
    return x, x


def nothing(x):
    for _ in range(3):
        x += 1.0


def sometimes(x):
    for _ in range(3):
        if x > 1.0:
            return None
    return x


@pytest.mark.parametrize(
    "function, words",
    [(pair, "a tuple of 2"), (nothing, "nothing"), (sometimes, "float32 on some paths and nothing on others")],
    ids=["pair", "nothing", "sometimes"],
)
def test_a_scalar_function_that_returns_no_number(function, words):
    (kernel, *_) = harvest.kernels(tg.elementwise(function), [layout((64,), float32)])
    with pytest.raises(
        KernelError, match=rf"returns {words}; an elementwise function returns one number on every path"
    ):
        kernel.ptx()


def test_derivatives_that_do_not_compile():
    @tg.elementwise
    def op(x, y):
        for _ in range(3):
            x += y
        return x

    def slope():
        made, _ = partial(op, 0)
        return harvest.kernels(made, [layout((64,), float32)] * made.arity)[0].ptx()

    @op.derivative
    def _(x, y):
        for _ in range(3):
            x += open("a")  # noqa: SIM115
        return x, y

    with pytest.raises(KernelError, match=r'd_op_0 \(.*at line \d+: `x \+= open\("a"\)  # noqa: SIM115`'):
        slope()

    @op.derivative
    def _(x, y):
        for _ in range(3):
            x += 1.0
        return x

    with pytest.raises(
        KernelError, match="a derivative, returns float.* for 2 inputs; return one partial derivative per input"
    ):
        slope()
