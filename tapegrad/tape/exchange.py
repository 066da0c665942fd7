"""DLPack and the CUDA array interface, also for what NumPy does not know: memory of a GPU, and bfloat16.

Sources: dmlc/dlpack, dlpack.h (version 0.8, the structure that all libraries read); Numba's documentation of
`__cuda_array_interface__`, version 3; the array API standard, `__dlpack__`. Copies into tapegrad are made on the device, behind
what its owner has asked of it: the owner is told the queue that reads. Memory that others were given is used again behind what
they have asked of CUDA's default stream by then; work in streams of their own they wait for before they let go of it.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

import numpy as np

from ..dtypes import DType, as_dtype, bfloat16
from ..errors import DtypeError, TapegradError
from ..layouts import layout
from .apply import contiguous_copy, empty
from .spaces import HOST, copied, space_of
from .tensor import Tensor

CPU, CUDA = 1, 2  # kDLCPU, kDLCUDA
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
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", _api))
_named = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
FRESH, USED = b"dltensor", b"used_dltensor"


class Exported:
    """What NumPy makes an array of: the array holds this, and this the tensor's buffer. Nothing points back, or it would leak."""

    def __init__(self, t: Tensor):
        self.tensor = t
        x = t.layout
        item = x.dtype.itemsize
        self.__array_interface__ = {
            "version": 3,
            "shape": x.shape,
            "typestr": x.dtype.numpy.str,
            "data": (t.address if x.size else 0, False),
            "strides": tuple(s * item for s in x.strides),
        }

    def __del__(self):
        if self.tensor.device not in HOST:
            with contextlib.suppress(TapegradError):  # of a GPU that failed: its memory is of no use any more
                space_of(self.tensor.device).follow()


def number_of(device: str) -> int:
    """The 0 of "cuda:0"."""
    return int(device.partition(":")[2])


def capsule_of(t: Tensor, **kwargs) -> Any:
    """A DLPack capsule of a tensor. What was asked of a GPU before is done first.

    NumPy makes it and lets go of it, also where its consumer fails. It never looks at the elements, so that it need not know
    that they lie on a GPU or are bfloat16: that is written into the capsule.
    """
    finish(t.device)
    if t.device in HOST and t.dtype is not bfloat16:
        return np.asarray(Exported(t)).__dlpack__(**kwargs)
    capsule = np.asarray(Exported(t)).__dlpack__()
    found = DLManagedTensor.from_address(_pointer(capsule, FRESH)).tensor
    if t.device not in HOST:
        found.device = DLDevice(CUDA, number_of(t.device))
    if t.dtype is bfloat16:
        found.dtype.code = BFLOAT
    return capsule


def finish(device: str) -> None:
    """Wait until what was asked of a device is done."""
    if device not in HOST:
        space_of(device).synchronize()


def dtype_of(capsule: Any) -> str | None:
    """The name of the dtype that a DLPack capsule holds; None where there is none here, or the capsule was used."""
    if not _named(capsule, FRESH):
        return None
    d = DLManagedTensor.from_address(_pointer(capsule, FRESH)).tensor.dtype
    return KINDS.get((d.code, d.bits)) if d.lanes == 1 else None


def taken(x: Any) -> Tensor:
    """A tensor with a copy of what an object with `__dlpack__` holds in CUDA memory."""
    return from_capsule(x.__dlpack__(stream=space_of(f"cuda:{x.__dlpack_device__()[1]}").queue))


def from_capsule(capsule: Any) -> Tensor:
    """A tensor with a copy of what a DLPack capsule of the host's or CUDA's memory holds; the capsule is used up."""
    if not _named(capsule, FRESH):
        raise DtypeError(
            "from_dlpack: the capsule was used before, or is of a version that is not read; ask for another"
        )
    managed = DLManagedTensor.from_address(_pointer(capsule, FRESH))
    _rename(capsule, USED)
    try:
        d = managed.tensor
        if d.device.type not in (CPU, CUDA):
            raise DtypeError(
                f"from_dlpack: memory of device type {d.device.type} came; wanted is the host's, or CUDA's"
            )
        kind = KINDS.get((d.dtype.code, d.dtype.bits)) if d.dtype.lanes == 1 else None
        if kind is None:
            raise DtypeError(f"from_dlpack: elements of code {d.dtype.code} with {d.dtype.bits} bits cannot be taken")
        shape = tuple(d.shape[: d.ndim])
        strides = tuple(d.strides[: d.ndim]) if d.strides else None
        device = "cpu" if d.device.type == CPU else f"cuda:{d.device.id}"
        return _copied((d.data or 0) + d.byte_offset, shape, strides, as_dtype(kind), device)
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
        copied(x.device, made.address, address, x.nbytes)
    finish(x.device)  # before the owner may write there again
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
    dtype = as_dtype(np.dtype(found["typestr"]))
    strides = found.get("strides")
    if strides is not None:
        strides = tuple(s // dtype.itemsize for s in strides)
    stream = found.get("stream", 1)  # up to version 2 it is not said; None: there is nothing to wait for
    if stream is not None:
        space_of(device).follow(int(stream))
    return _copied(found["data"][0], tuple(found["shape"]), strides, dtype, device)
