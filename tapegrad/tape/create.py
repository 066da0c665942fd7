"""Tensors from data, and tensors of known content."""

from __future__ import annotations

import ctypes
import math
import operator

import numpy as np

from ..dtypes import ALL, BY_NAME, DEFAULT, DType, as_dtype, bfloat16, bool_, float16, int64
from ..errors import DtypeError, OutOfMemory, ShapeError
from ..halves import narrowed
from ..kernels.memory import array_at
from ..layouts import MOST_ELEMENTS, Layout, layout
from .apply import as_tensor, constant, empty, host_array
from .pool import POOL
from .spaces import HOST, get, put
from .state import local
from .tensor import Leaf, Tensor

BY_ARRAY = {d.numpy: d for d in (*ALL, float16)}
SMALL = 4096  # bytes up to which a second copy costs less than asking an array for its address, 1.4 µs
HELD = frozenset({Tensor, np.ndarray, float, int, list, tuple, bool})  # what is on the host, without a question


def tensor(data, dtype=None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of `data`: a number, nested lists, a NumPy array, a tensor, or anything with DLPack.

    dtype: as `data` has it; Python floats become float32, Python integers int64.
    Raises DtypeError where the data is not numeric, ShapeError where nested lists are ragged.

    >>> tensor([[1.0, 2.0], [3.0, 4.0]]).shape
    (2, 2)
    """
    if dtype is None and type(data) is np.ndarray:
        known = BY_ARRAY.get(data.dtype)
        if known is not None:  # a batch, as a rule: no further questions
            made = of_array(data, known, device or "cpu")
            if requires_grad:
                made.requires_grad = True
            return made
    wanted = None if dtype is None else as_dtype(dtype)
    if type(data) not in HELD and hasattr(data, "__cuda_array_interface__"):
        return _from_gpu(data, wanted, device, requires_grad)
    array = _as_array(data)
    if type(data) is Tensor:
        wanted = wanted or data.dtype
    found = wanted or (DEFAULT if _from_python_floats(data, array) else _supported(array))
    made = from_array(array, found, device or (data.device if type(data) is Tensor else "cpu"))
    if requires_grad:
        made.requires_grad = True
    return made


def _from_gpu(data, wanted: DType | None, device: str | None, requires_grad: bool) -> Tensor:
    """A copy of an array that another library has on a GPU."""
    from .exchange import from_interface
    from .interop import from_dlpack, to

    if hasattr(data, "__dlpack_device__"):
        made = from_dlpack(data)
    else:
        made = from_interface(data.__cuda_array_interface__, device if device not in (None, "cpu") else "cuda:0")
    if wanted is not None:
        made = to(made, wanted)
    made = to(made, device) if device is not None else made
    if requires_grad:
        made.requires_grad = True
    return made


def _as_array(data) -> np.ndarray:
    if type(data) is Tensor:
        return host_array(data)
    if isinstance(data, np.ndarray | bool | int | float):
        if type(data) is int and not -(2**63) <= data < 2**63:
            raise DtypeError(f"tensor: an integer of {data.bit_length()} bits does not fit in int64; use a float")
        return np.asarray(data)
    if not isinstance(data, list | tuple) and hasattr(data, "__dlpack__") and not hasattr(data, "__array__"):
        return np.from_dlpack(data)
    try:
        return np.asarray(_lists(data))
    except RecursionError:
        raise ShapeError(
            "tensor: the lists are nested without end, or far deeper than 64, the most axes of a tensor"
        ) from None
    except ValueError as error:
        raise ShapeError(
            f"tensor: the nested lists are ragged or hold something that is not a number ({error})"
        ) from None


def _lists(data):
    """Tensors inside nested lists as arrays."""
    if type(data) is Tensor:
        return host_array(data)
    return [_lists(d) for d in data] if isinstance(data, list | tuple) else data


def _from_python_floats(data, array: np.ndarray) -> bool:
    """True where the data is Python numbers that NumPy made float64 of."""
    if array.dtype != np.float64 or isinstance(data, np.ndarray | np.generic) or type(data) is Tensor:
        return False
    while isinstance(data, list | tuple):
        if not data:
            return True
        data = data[0]
    return isinstance(data, bool | int | float) and not isinstance(data, np.generic)


def _supported(array: np.ndarray) -> DType:
    kind = array.dtype.kind
    if kind in "iu" and array.dtype.name not in ("uint8", "int32", "int64"):
        if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
            raise DtypeError("tensor: a uint64 value does not fit in int64; convert the data first")
        return int64
    if array.dtype.name not in BY_NAME:
        raise DtypeError(
            f"tensor: data of dtype {array.dtype} cannot be taken; tapegrad has {', '.join(BY_NAME)}. Convert it first."
        )
    return as_dtype(array.dtype.newbyteorder("="))


def from_array(array: np.ndarray, dtype: DType, device: str = "cpu") -> Tensor:
    """A tensor with a copy of an array's elements."""
    if array.dtype.kind not in "fiub":
        _supported(array)
    return of_array(array, dtype, device)


def of_array(array: np.ndarray, dtype: DType, device: str) -> Tensor:
    """`from_array`, of an array whose dtype can be taken."""
    x = layout(array.shape, dtype, None, device)
    session = local.state.session
    if session is not None:
        return session.fresh(array, x)
    made = empty(x, "tensor")
    fill_from(made.address, x, array)
    return made


def fill_from(address: int, x: Layout, array: np.ndarray) -> None:
    """Copy an array's elements to memory of that layout."""
    if x.dtype is bfloat16:
        array = array.view(np.uint16) if array.dtype.name == "bfloat16" else narrowed(array)
    if x.device not in HOST:
        with np.errstate(over="ignore", invalid="ignore"):
            put(x.device, address, np.ascontiguousarray(array, x.dtype.numpy))
    elif array.dtype == x.dtype.numpy and x.nbytes <= SMALL:
        ctypes.memmove(address, array.tobytes(), x.nbytes)
    elif array.dtype == x.dtype.numpy and array.flags.c_contiguous:
        ctypes.memmove(address, array.__array_interface__["data"][0], x.nbytes)
    elif array.size:
        with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold is inf, as in every op
            np.copyto(array_at(address, x), array, casting="unsafe")


def checked_shape(shape, op_name: str) -> tuple[int, ...]:
    """A shape as a tuple of non-negative ints whose elements can be addressed."""
    if not isinstance(shape, tuple | list):
        shape = (shape,)
    try:
        shape = tuple(operator.index(n) for n in shape)
    except TypeError:
        raise DtypeError(f"{op_name}: a shape is made of integers, not {shape!r}") from None
    if any(n < 0 for n in shape):
        raise ShapeError(f"{op_name}: shape {shape} has a negative length")
    if math.prod(n for n in shape if n) > MOST_ELEMENTS:  # an array of no elements has addresses too
        raise OutOfMemory(
            f"{op_name}: shape {shape} has more elements than any memory. Check the order of the arguments."
        )
    return shape


def full(shape, fill_value, dtype=None, device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """A tensor of that shape with every element `fill_value`.

    >>> full((2,), 7)
    tensor([7, 7])
    """
    shape = checked_shape(shape, "full")
    if not isinstance(fill_value, bool | int | float):
        fill_value = as_tensor(fill_value, "full").item()
    if dtype is None:
        dtype = bool_ if isinstance(fill_value, bool) else int64 if isinstance(fill_value, int) else DEFAULT
    made = _fill(shape, fill_value, as_dtype(dtype), device)
    if requires_grad:
        made.requires_grad = True
    return made


def _fill(shape: tuple[int, ...], value, dtype: DType, device: str) -> Tensor:
    from ..ops.creation import full as fill

    state = local.state
    before, state.recording = state.recording, False
    try:
        return fill(constant(value, dtype, device), shape)
    finally:
        state.recording = before


def zeros(shape, dtype=None, device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """A tensor of zeros, float32 unless said otherwise.

    >>> zeros((2, 2)).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    return full(checked_shape(shape, "zeros"), 0.0, dtype or DEFAULT, device, requires_grad)


def ones(shape, dtype=None, device: str = "cpu", requires_grad: bool = False) -> Tensor:
    """A tensor of ones, float32 unless said otherwise.

    >>> ones(3)
    tensor([1., 1., 1.])
    """
    return full(checked_shape(shape, "ones"), 1.0, dtype or DEFAULT, device, requires_grad)


def zeros_like(x: Tensor, dtype=None) -> Tensor:
    """Zeros of the shape, dtype and device of x."""
    x = as_tensor(x, "zeros_like")
    return zeros(x.shape, dtype or x.dtype, x.device)


def ones_like(x: Tensor, dtype=None) -> Tensor:
    """Ones of the shape, dtype and device of x."""
    x = as_tensor(x, "ones_like")
    return ones(x.shape, dtype or x.dtype, x.device)


def full_like(x: Tensor, fill_value, dtype=None) -> Tensor:
    """A tensor of the shape, dtype and device of x with every element `fill_value`."""
    x = as_tensor(x, "full_like")
    return full(x.shape, fill_value, dtype or x.dtype, x.device)


def memory_stats() -> dict[str, int]:
    """Bytes reserved and free in the buffer pool, their peak, the limit, and how many blocks were ever made.

    >>> sorted(memory_stats())
    ['allocations', 'free', 'limit', 'peak', 'reserved']
    """
    return POOL.stats()


def set_memory_limit(nbytes: int) -> None:
    """Bound the bytes of all tensors together; beyond it OutOfMemory is raised."""
    if not isinstance(nbytes, int) or isinstance(nbytes, bool) or nbytes <= 0:
        raise ShapeError(f"set_memory_limit: {nbytes!r} is not a number of bytes; give a whole number above 0")
    POOL.limit = nbytes


def empty_cache() -> None:
    """Give the pool's free large blocks back to the system."""
    POOL.trim()


def parameter(data) -> Tensor:
    """A leaf that requires a gradient, on a copy of the data."""
    made = tensor(data)
    made.node = Leaf()
    return made


def copy_bytes(t: Tensor) -> bytes:
    """The elements of a contiguous tensor as bytes."""
    return get(t.device, t.address, t.nbytes)
