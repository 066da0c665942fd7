"""DLPack and the CUDA array interface for tensors on a GPU, without the help of NumPy, which knows host memory only.

Sources: dmlc/dlpack, dlpack.h (version 0.8, the structure that all libraries read); Numba's documentation of
`__cuda_array_interface__`, version 3. Copies into tapegrad are made on the device, behind what its owner has asked of it.
"""

from __future__ import annotations

import ctypes
from typing import Any

from ..dtypes import DType, as_dtype, bfloat16
from ..errors import DtypeError
from ..layouts import layout
from .apply import contiguous_copy, empty
from .spaces import space_of
from .tensor import Tensor

CUDA = 2  # kDLCUDA
CODES = {"i": 0, "u": 1, "f": 2, "b": 6}  # DLDataTypeCode by NumPy's kind
BFLOAT = 4  # kDLBfloat
KINDS = {(0, 32): "int32", (0, 64): "int64", (1, 8): "uint8", (2, 32): "float32", (2, 64): "float64", (6, 8): "bool"}
KINDS |= {(2, 16): "float16", (BFLOAT, 16): "bfloat16"}


class DLDevice(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("id", ctypes.c_int32))


class DLDataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", DLDevice),
        ("ndim", ctypes.c_int32),
        ("dtype", DLDataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class DLManagedTensor(ctypes.Structure):
    pass


Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(DLManagedTensor))
DLManagedTensor._fields_ = (("tensor", DLTensor), ("context", ctypes.c_void_p), ("deleter", Deleter))

_api = ctypes.pythonapi
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_New", _api))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", _api))
_named = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_raw_named = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_raw_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))

_given: dict[int, tuple] = {}  # address of a managed tensor -> what it needs to live
FRESH, USED = b"dltensor", b"used_dltensor"


def _delete(managed) -> None:
    _given.pop(ctypes.addressof(managed.contents), None)


_deleter = Deleter(_delete)


def _forget(capsule: int) -> None:
    """A capsule goes that nobody took over."""
    if _raw_named(capsule, FRESH):
        _given.pop(_raw_pointer(capsule, FRESH), None)


_destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_forget)


def number_of(device: str) -> int:
    """The 0 of "cuda:0"."""
    return int(device.partition(":")[2])


def capsule_of(t: Tensor) -> Any:
    """A DLPack capsule of a tensor on a GPU. What was asked of the device before is done first."""
    x = t.layout
    space_of(t.device).synchronize()
    managed = DLManagedTensor()
    shape, strides = (ctypes.c_int64 * max(x.ndim, 1))(*x.shape), (ctypes.c_int64 * max(x.ndim, 1))(*x.strides)
    managed.tensor = DLTensor(
        t.address if x.size else None,
        DLDevice(CUDA, number_of(t.device)),
        x.ndim,
        DLDataType(BFLOAT if x.dtype is bfloat16 else CODES[x.dtype.kind], 8 * x.dtype.itemsize, 1),
        shape,
        strides,
        0,
    )
    managed.deleter = _deleter
    address = ctypes.addressof(managed)
    _given[address] = managed, shape, strides, t.buffer
    return _new(address, FRESH, ctypes.cast(_destructor, ctypes.c_void_p))


def from_capsule(capsule: Any) -> Tensor:
    """A tensor with a copy of what a DLPack capsule of CUDA memory holds; the capsule is used up."""
    if not _named(capsule, FRESH):
        raise DtypeError(
            "from_dlpack: the capsule was used before, or is of a version that is not read; ask for another"
        )
    managed = DLManagedTensor.from_address(_pointer(capsule, FRESH))
    _rename(capsule, USED)
    try:
        d = managed.tensor
        if d.device.type != CUDA:
            raise DtypeError(
                f"from_dlpack: memory of device type {d.device.type} came; wanted is the host's, or CUDA's"
            )
        kind = KINDS.get((d.dtype.code, d.dtype.bits)) if d.dtype.lanes == 1 else None
        if kind is None:
            raise DtypeError(f"from_dlpack: elements of code {d.dtype.code} with {d.dtype.bits} bits cannot be taken")
        shape = tuple(d.shape[: d.ndim])
        strides = tuple(d.strides[: d.ndim]) if d.strides else None
        return _copied((d.data or 0) + d.byte_offset, shape, strides, as_dtype(kind), f"cuda:{d.device.id}")
    finally:
        if managed.deleter:
            managed.deleter(ctypes.pointer(managed))


def _copied(address: int, shape: tuple, strides: tuple | None, dtype: DType, device: str) -> Tensor:
    """A tensor of its own of foreign memory on a device."""
    x = layout(shape, dtype, strides, device)
    foreign = Tensor(None, address, x)  # type: ignore[arg-type]
    if not x.contiguous:
        made = contiguous_copy(foreign)
    else:
        made = empty(x, "from_dlpack")
        if x.nbytes:
            space_of(x.device).copy(made.address, address, x.nbytes)
    space_of(x.device).synchronize()  # before the owner may write there again
    return made


def cuda_array_interface(t: Tensor) -> dict[str, Any]:
    """Version 3 of the interface that Numba, CuPy and PyTorch read. All that was asked of the device is done before."""
    x = t.layout
    space_of(t.device).synchronize()
    item = x.dtype.itemsize
    return {
        "version": 3,
        "shape": x.shape,
        "typestr": x.dtype.numpy.str,
        "data": (t.address if x.size else 0, False),
        "strides": None if x.contiguous else tuple(s * item for s in x.strides),
        "stream": None,
    }


def from_interface(found: dict[str, Any], device: str) -> Tensor:
    """A tensor with a copy of what `__cuda_array_interface__` describes."""
    if found.get("mask") is not None:
        raise DtypeError("tensor: the CUDA array has a mask, which a tensor has not; fill the masked places first")
    import numpy as np

    dtype = as_dtype(np.dtype(found["typestr"]))
    strides = found.get("strides")
    if strides is not None:
        strides = tuple(s // dtype.itemsize for s in strides)
    return _copied(found["data"][0], tuple(found["shape"]), strides, dtype, device)
