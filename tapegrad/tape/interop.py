"""Where tensors meet the rest: NumPy, DLPack, printing, devices."""

from __future__ import annotations

import numpy as np

from ..dtypes import as_dtype, bfloat16
from ..errors import DtypeError, ShapeError, TapeError
from ..halves import array_dtype
from ..kernels.prepare import backend
from ..layouts import device_named, is_device, layout
from ..ops.registry import REGISTRY
from .apply import as_tensor, contiguous_copy, empty, host_array, host_memory
from .spaces import HOST
from .state import local
from .tensor import Tensor


def numpy(self: Tensor) -> np.ndarray:
    """A NumPy array with a copy of the elements. Of bfloat16, of the dtype of ml_dtypes (extra "bfloat16")."""
    if self.dtype is bfloat16:
        dtype = array_dtype()
        return host_memory(self).copy().view(dtype)
    return host_array(self).copy()


def item(self: Tensor):
    """The one element as a Python number."""
    if self.size != 1:
        raise ShapeError(
            f"item: the tensor has {self.size} elements, shape {self.shape}; only one element is a number. Use .tolist() or .numpy()"
        )
    return host_array(self).item()


def tolist(self: Tensor):
    """The elements as nested lists of Python numbers."""
    return host_array(self).tolist()


def array(self: Tensor, dtype=None, copy=None) -> np.ndarray:
    """`np.asarray(t)`: a copy, since the buffer goes back to the pool when the tensor goes."""
    if copy is False:
        raise ValueError(
            "a tapegrad tensor cannot be viewed as a NumPy array without a copy; use np.from_dlpack(t) for a view that keeps it alive"
        )
    made = numpy(self)
    return made if dtype is None else made.astype(dtype, copy=False)


UFUNCS = {
    np.add: "add",
    np.subtract: "subtract",
    np.multiply: "multiply",
    np.divide: "divide",
    np.floor_divide: "floor_divide",
    np.remainder: "remainder",
    np.power: "power",
    np.float_power: "power",
    np.matmul: "matmul",
    np.rint: "round",
    np.absolute: "abs",
}


def array_ufunc(self: Tensor, ufunc, method: str, *inputs, **kwargs):
    """`numpy_array * tensor` and `np.sin(tensor)` are tensors, with gradients."""
    op = REGISTRY.get(UFUNCS.get(ufunc, ufunc.__name__))
    if method != "__call__" or op is None or kwargs:
        raise DtypeError(
            f"np.{ufunc.__name__} with method {method!r} and arguments {sorted(kwargs)} has no tapegrad op; "
            "use the functions of tapegrad, or convert with .numpy() where no gradient is needed"
        )
    return op(*(as_tensor(x, op.name, self.device) if isinstance(x, np.ndarray | np.generic) else x for x in inputs))


def array_function(self: Tensor, function, types, args, kwargs):
    """`np.sum(tensor, axis=0)` is the op of that name, with gradients; other functions of NumPy get arrays."""
    room = "linalg." if function.__module__ == "numpy.linalg" else ""
    op = REGISTRY.get(room + function.__name__)
    if op is not None and op.public:
        return op(*args, **kwargs)
    return function(*_as_arrays(args), **{k: _as_arrays(v) for k, v in kwargs.items()})


def _as_arrays(value):
    """The value with tensors, also inside lists and tuples, as NumPy arrays."""
    if type(value) is Tensor:
        return numpy(value)
    return type(value)(map(_as_arrays, value)) if type(value) in (list, tuple) else value


def dlpack(self: Tensor, **kwargs):
    """A DLPack capsule of the elements, without a copy. The consumer keeps the buffer alive. On a GPU, what was asked of it is done."""
    if self.requires_grad:
        raise TapeError(
            "__dlpack__: the tensor requires a gradient, which the consumer could not follow; pass t.detach()"
        )
    from .exchange import capsule_of

    session = local.state.session
    if session is not None:
        session.read(self)
    if kwargs.get("copy") and not (self.device in HOST and self.dtype is not bfloat16):  # there NumPy copies
        return capsule_of(contiguous_copy(self))
    return capsule_of(self, **kwargs)


def dlpack_device(self: Tensor) -> tuple[int, int]:
    """DLPack's name of the device: 1 is the CPU, 2 a GPU."""
    if self.device in HOST:
        return 1, 0
    from .exchange import CUDA, number_of

    return CUDA, number_of(self.device)


def cuda_array_interface(self: Tensor) -> dict:
    """What CuPy, Numba and PyTorch read of a tensor on a GPU. AttributeError on the host, as the interface wants it."""
    if self.device in HOST:
        raise AttributeError("a tensor on the host has no __cuda_array_interface__; move it with .to('cuda')")
    if self.requires_grad:
        raise AttributeError("a tensor that requires a gradient has no __cuda_array_interface__; pass t.detach()")
    from .exchange import cuda_array_interface

    session = local.state.session
    if session is not None:
        session.read(self)
    return cuda_array_interface(self)


def cpu(self: Tensor) -> Tensor:
    """The tensor on the host: `to("cpu")`."""
    return to(self, "cpu")


def from_dlpack(x, device=None) -> Tensor:
    """A tensor with a copy of the elements of anything that speaks DLPack: NumPy, PyTorch, JAX on the host, CuPy and PyTorch on a GPU.

    >>> import numpy as np
    >>> import tapegrad as tg
    >>> tg.from_dlpack(np.arange(3))
    tensor([0, 1, 2])
    """
    from .create import tensor

    if not hasattr(x, "__dlpack__"):
        raise DtypeError(f"from_dlpack: {type(x).__name__} has no __dlpack__ method; use tg.tensor for other data")
    kind = x.__dlpack_device__()[0] if hasattr(x, "__dlpack_device__") else 1
    if kind in (2, 13):  # CUDA's memory, and that which it manages
        from .exchange import taken

        made = taken(x)
        return made if device is None else to(made, device)
    from .exchange import dtype_of, from_capsule

    capsule = x.__dlpack__()
    if dtype_of(capsule) == "bfloat16":
        made = from_capsule(capsule)
        return made if device is None else to(made, device)
    return tensor(np.from_dlpack(x), device=device)


def to(self: Tensor, target) -> Tensor:
    """The tensor on another device ("cpu", "cuda:0", "reference"), or in another dtype. Gradients do not follow across devices."""
    if is_device(target):
        target = device_named(target)
        if target == self.device:
            return self
        backend(target)
        if not self.is_leaf:
            raise TapeError("to: gradients do not flow between devices; use .detach() first")
        made = empty(layout(self.shape, self.dtype, None, target), "to")
        if self.size:
            from .create import fill_from

            fill_from(made.address, made.layout, host_array(self))
        if self.requires_grad:
            made.requires_grad = True
        return made
    try:
        dtype = as_dtype(target)
    except DtypeError as error:
        raise DtypeError(f'to: {target!r} names no device ("cpu", "cuda:0" and so on) and no dtype: {error}') from None
    return REGISTRY["astype"](self, dtype)


SHOWN = 1000  # elements up to which a repr lists all of them, as in NumPy


def text(self: Tensor) -> str:
    """Like NumPy's repr, with dtype where it is not the default, and what the gradient knows."""
    body = np.array2string(host_array(self), separator=", ", prefix="tensor(", threshold=SHOWN)
    notes = []
    if self.size == 0 or self.size > SHOWN:
        notes.append(f"shape={self.shape}")
    if self.dtype.name not in ("float32", "int64", "bool") or self.size == 0:
        notes.append(f"dtype={self.dtype.name}")
    if self.device != "cpu":
        notes.append(f"device={self.device!r}")
    if not self.is_leaf:
        notes.append(f"op={self.node.op.title}")
    elif self.node is not None:
        notes.append("requires_grad=True")
    return f"tensor({', '.join([body, *notes])})"


def html(self: Tensor) -> str:
    """For notebooks: the text, then shape and dtype."""
    import html as escaping

    return (
        f"<pre>{escaping.escape(text(self))}</pre><small>shape {self.shape}, {self.dtype.name}, {self.device}</small>"
    )


def formatted(self: Tensor, spec: str) -> str:
    """f"{loss:.3f}" formats a tensor of one element as its number."""
    if not spec:
        return text(self)
    return format(item(self), spec)


for _name, _method in {
    "numpy": numpy,
    "item": item,
    "tolist": tolist,
    "__array__": array,
    "__array_ufunc__": array_ufunc,
    "__array_function__": array_function,
    "__dlpack__": dlpack,
    "__dlpack_device__": dlpack_device,
    "__cuda_array_interface__": property(cuda_array_interface),
    "cpu": cpu,
    "to": to,
    "__repr__": text,
    "_repr_html_": html,
    "__format__": formatted,
}.items():
    setattr(Tensor, _name, _method)
