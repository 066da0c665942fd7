"""Linear algebra: products, einsum, and `tg.linalg`."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from .. import precision
from ..dtypes import float32, promote
from ..errors import ShapeError
from .creation import eye, tril
from .elementwise import exp, multiply
from .movement import astype, broadcast_to, expand_dims, floating, permute, permute_view, reshape, swapaxes
from .registry import Tensor, composite, primitive, run_with


def _same_dtype(a, b):
    meet = promote(a.dtype, b.dtype)
    if meet.kind in "ub":
        from ..dtypes import int64 as meet
    return astype(a, meet), astype(b, meet)


@primitive(public=False, builder="matmul", product=True)
def matmul_kernel(a: Tensor, b: Tensor):
    """Matrix products over the last two axes; leading axes broadcast."""
    return (a, b), precise(a)


def precise(x) -> dict:
    """The attribute of a product of x that `tg.matmul_precision` asks for."""
    if not precision.used or x.dtype is not float32 or not x.device.startswith("cuda"):
        return {}
    name = precision.matmul_precision.current()
    return {} if name == "float32" else {"precision": name}


def factors(*xs):
    """The factors of a product as `tg.autocast` wants them."""
    dtype = precision.autocast.current()
    if dtype is None or any(x.dtype.name == "float64" or not x.dtype.is_float for x in xs):
        return xs
    return tuple(astype(x, dtype) for x in xs)


def _leading(x, y, op_name: str) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(x, y)
    except ValueError:
        raise ShapeError(f"{op_name}: leading axes {x} and {y} do not broadcast; they must be equal or 1") from None


@matmul_kernel.shape
def _(a, b, precision=None):
    return (*_leading(a.shape[:-2], b.shape[:-2], "matmul"), a.shape[-2], b.shape[-1]), a.dtype


@matmul_kernel.adjoint(0, saves=(1,))
def _(g, y, a, b, precision=None):
    return _product_like(a, g, _turned(b), precision)


@matmul_kernel.adjoint(1, saves=(0,))
def _(g, y, a, b, precision=None):
    return _product_like(b, _turned(a), g, precision)


@primitive(public=False, builder="matmul", product=True)
def linear_kernel(x: Tensor, w: Tensor, turned=True):
    """x @ w.T, with the weight (out, in) as it lies in memory."""
    return (x, w), {"turned": turned, **precise(x)}


@linear_kernel.shape
def _(x, w, turned, precision=None):
    return (x.shape[0], w.shape[0]), x.dtype


@linear_kernel.adjoint(0, saves=(1,))
def _(g, y, x, w, turned, precision=None):
    return _product_like(x, g, w, precision)


@linear_kernel.adjoint(1, saves=(0,))
def _(g, y, x, w, turned, precision=None):
    return _product_like(w, _turned(g), x, precision)


@primitive(public=False, builder="matmul", product=True)
def product_in_order(a: Tensor, b: Tensor, order, precision=None):
    """matmul_kernel's result with its axes in this order, and lying so in memory."""
    return (a, b), {"order": order, "precision": precision} if precision else {"order": order}


@product_in_order.shape
def _(a, b, order, precision=None):
    shape = (*_leading(a.shape[:-2], b.shape[:-2], "matmul"), a.shape[-2], b.shape[-1])
    return tuple(shape[axis] for axis in order), a.dtype


@product_in_order.adjoint(0, saves=(1,))
def _(g, y, a, b, order, precision=None):
    return _product_like(a, _unordered(g, order), _turned(b), precision)


@product_in_order.adjoint(1, saves=(0,))
def _(g, y, a, b, order, precision=None):
    return _product_like(b, _turned(a), _unordered(g, order), precision)


def _unordered(x, order: tuple[int, ...]):
    """x, whose axes come in this order, with its axes sorted."""
    return run_with(permute_view, (x,), axes=tuple(sorted(range(len(order)), key=order.__getitem__)))


def _turned(x):
    """x with its last two axes exchanged, as one row."""
    return run_with(permute_view, (x,), axes=(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def _product_like(x, left, right, precision=None):
    """left @ right, laid out as x is where that has no strides of its own making.

    The gradient of a transposed weight, or of attention's heads moved before time, comes out in the order of what is
    behind the view, so that nobody has to copy it.
    """
    order, attrs = _memory_order(x.shape, x.strides), {"precision": precision} if precision else {}
    if order is None or left.shape[:-2] != x.shape[:-2] or right.shape[:-2] != x.shape[:-2]:
        return run_with(matmul_kernel, (left, right), **attrs)
    rows, columns = x.ndim - 2, x.ndim - 1
    places = order
    if order[-1] == rows:  # (left @ right).T = right.T @ left.T
        left, right = _turned(right), _turned(left)
        places = tuple(columns if a == rows else rows if a == columns else a for a in order)
    if places == tuple(range(x.ndim)):
        return _unordered(run_with(matmul_kernel, (left, right), **attrs), order)
    return _unordered(run_with(product_in_order, (left, right), order=places, **attrs), order)


@lru_cache(4096)
def _memory_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes from the largest stride to the smallest, one of the last two at the end.

    None where they are in C order anyway, and where the elements do not lie together.
    """
    wide = [a for a, n in enumerate(shape) if n != 1]
    by_stride = sorted(wide, key=lambda a: -strides[a])
    step = 1
    for a in reversed(by_stride):
        if strides[a] != step:
            return None
        step *= shape[a]
    if by_stride == wide or by_stride[-1] < len(shape) - 2:
        return None
    return (*(a for a, n in enumerate(shape) if n == 1), *by_stride)


_MATMUL = [
    dict(shapes=((3, 4), (4, 2))),
    dict(shapes=((4,), (4,))),
    dict(shapes=((2, 3, 4), (4,))),
    dict(shapes=((4,), (2, 4, 3))),
    dict(shapes=((2, 1, 3, 4), (5, 4, 2))),
    dict(shapes=((2, 3, 4), (4, 2))),
]


@composite(reference=np.matmul, samples=_MATMUL, method=True)
def matmul(a: Tensor, b: Tensor):
    """The matrix product a @ b: over the last axis of a and the last but one of b; leading axes broadcast; 1-D is a vector."""
    if precision.used:
        a, b = factors(a, b)
    if a.ndim == 2 and b.ndim == 2 and a.dtype is b.dtype and a.dtype.is_float and a.shape[1] == b.shape[0]:
        if precision.used:
            return run_with(matmul_kernel, (a, b), **precise(a))
        return run_with(matmul_kernel, (a, b))  # the commonest case, without further questions
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError(f"matmul: shapes {a.shape} and {b.shape}: wanted at least one axis each; use * for numbers")
    inner = b.shape[0] if b.ndim == 1 else b.shape[-2]
    if a.shape[-1] != inner:
        raise ShapeError(
            f"matmul: shapes {a.shape} and {b.shape}: the last axis of the first ({a.shape[-1]}) and "
            f"{'the axis' if b.ndim == 1 else 'the last but one'} of the second ({inner}) must be equal; transpose one with .T?"
        )
    a, b = _same_dtype(a, b)
    left = expand_dims(a, 0) if a.ndim == 1 else a
    right = expand_dims(b, 1) if b.ndim == 1 else b
    if right.ndim == 2 and left.ndim > 2:  # one product of all rows instead of many small ones
        flat = matmul_kernel(reshape(left, (math.prod(left.shape[:-1]), left.shape[-1])), right)
        out = reshape(flat, (*left.shape[:-1], right.shape[-1]))
    else:
        out = matmul_kernel(left, right)
    if a.ndim == 1 or b.ndim == 1:
        out = reshape(
            out, out.shape[:-2] + (() if a.ndim == 1 else (a.shape[-2],)) + (() if b.ndim == 1 else (b.shape[-1],))
        )
    return out


@composite(
    reference=np.dot,
    samples=[dict(shapes=((4,), (4,))), dict(shapes=((2, 3), (3, 4))), dict(shapes=((2, 3), (5, 3, 4)))],
    method=True,
)
def dot(a: Tensor, b: Tensor):
    """NumPy's dot: the inner product of vectors, the matrix product of matrices; the last axis of a with the last but one of b."""
    if a.ndim == 0 or b.ndim == 0:
        return multiply(a, b)
    if a.ndim <= 2 and b.ndim <= 2:
        return matmul(a, b)
    if b.ndim <= 2:
        return matmul(a, b)
    inner, rest = b.shape[-2], b.shape[:-2] + b.shape[-1:]
    if a.shape[-1] != inner:
        raise ShapeError(f"dot: shapes {a.shape} and {b.shape}: lengths {a.shape[-1]} and {inner} must be equal")
    front = permute(b, (b.ndim - 2, *range(b.ndim - 2), b.ndim - 1))
    flat = matmul(reshape(a, (math.prod(a.shape[:-1]), inner)), reshape(front, (inner, math.prod(rest))))
    return reshape(flat, a.shape[:-1] + rest)


@composite(reference=np.outer, samples=[dict(shapes=((3,), (4,)))])
def outer(a: Tensor, b: Tensor):
    """Every product of an element of a with one of b, both flattened."""
    return multiply(reshape(a, (-1, 1)), reshape(b, (1, -1)))


@composite(
    method=True,
    reference=lambda x, offset=0: np.diagonal(x, offset),
    samples=[dict(shapes=((3, 3),)), dict(shapes=((3, 5),), attrs=dict(offset=1))],
)
def diagonal(x: Tensor, offset=0):
    """The diagonal of the last two axes' matrix; `offset` above 0 lies over the main one."""
    from .movement import slice_view

    if x.ndim < 2:
        raise ShapeError(f"diagonal: wanted at least two axes, got shape {x.shape}")
    rows, columns = x.shape[-2:]
    first = offset if offset >= 0 else -offset * columns
    count = max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))
    flat = reshape(x, (*x.shape[:-2], rows * columns))
    lead = flat.ndim - 1
    return slice_view(
        flat, (0,) * lead + (first if count else 0,), (*x.shape[:-2], count), (1,) * lead + (columns + 1,)
    )


# tg.linalg


def _matrix(x, op_name: str, square: bool = True):
    if x.ndim < 2 or (square and x.shape[-1] != x.shape[-2]):
        raise ShapeError(
            f"{op_name}: wanted {'square matrices' if square else 'matrices'} in the last two axes, got shape {x.shape}"
        )
    return floating(x)


@primitive(public=False, builder="solve")
def solve_kernel(a: Tensor, b: Tensor):
    """x with a @ x = b, by LU with partial pivoting."""
    return (a, b), {}


@solve_kernel.shape
def _(a, b):
    return b.shape, b.dtype


@solve_kernel.adjoint(0, saves=(0, "y"))
def _(g, y, a, b):
    return -matmul_kernel(solve_kernel(swapaxes(a, -1, -2), g), swapaxes(y, -1, -2))


@solve_kernel.adjoint(1, saves=(0,))
def _(g, y, a, b):
    return solve_kernel(swapaxes(a, -1, -2), g)


_SQUARE = [dict(shapes=((3, 3),), well_conditioned=True), dict(shapes=((2, 4, 4),), well_conditioned=True)]


def _solve(a, b):
    return np.linalg.solve(a, b[..., None])[..., 0] if b.ndim == 1 else np.linalg.solve(a, b)


@composite(
    namespace="linalg",
    reference=_solve,
    samples=[
        dict(shapes=((3, 3), (3,)), well_conditioned=True),
        dict(shapes=((2, 3, 3), (3, 2)), well_conditioned=True),
    ],
)
def solve(a: Tensor, b: Tensor):
    """x with a @ x = b. b is one vector (1-D), or matrices whose leading axes broadcast with those of a.

    Raises KernelError where a is singular.
    """
    a = _matrix(a, "linalg.solve")
    vector = b.ndim == 1
    right = expand_dims(b, 1) if vector else b
    if b.ndim == 0 or right.shape[-2] != a.shape[-1]:
        raise ShapeError(
            f"linalg.solve: a has shape {a.shape} and b {b.shape}; the rows of b must be as many as those of a"
        )
    a, right = _same_dtype(a, right)
    lead = _leading(a.shape[:-2], right.shape[:-2], "linalg.solve")
    x = solve_kernel(broadcast_to(a, lead + a.shape[-2:]), broadcast_to(right, lead + right.shape[-2:]))
    return reshape(x, x.shape[:-1]) if vector else x


@composite(namespace="linalg", reference=np.linalg.inv, samples=_SQUARE)
def inv(a: Tensor):
    """The inverse of each matrix. Raises KernelError where one is singular. To solve a system, `solve` is faster and more accurate."""
    a = _matrix(a, "linalg.inv")
    return solve_kernel(a, broadcast_to(eye(a.shape[-1], dtype=a.dtype, device=a.device), a.shape))


@primitive(public=False, builder="slogdet", outputs=2)
def slogdet_kernel(a: Tensor):
    """Sign and logarithm of the absolute value of the determinant."""
    return (a,), {}


@slogdet_kernel.shape
def _(a):
    return [(a.shape[:-2], a.dtype), (a.shape[:-2], a.dtype)]


@slogdet_kernel.adjoint(0, saves=(0,))
def _(g, y, a):
    if g[1] is None:
        return None  # the sign is constant wherever it has a derivative
    return swapaxes(inv(a), -1, -2) * expand_dims(g[1], (-1, -2))


@composite(namespace="linalg", reference=lambda a: tuple(np.linalg.slogdet(a)), samples=_SQUARE)
def slogdet(a: Tensor):
    """(sign, log|det|) of each matrix, without overflow; (0, -inf) where one is singular."""
    return slogdet_kernel(_matrix(a, "linalg.slogdet"))


@composite(namespace="linalg", reference=np.linalg.det, samples=_SQUARE)
def det(a: Tensor):
    """The determinant of each matrix. The gradient at a singular matrix raises KernelError, since it needs the inverse."""
    sign, logabs = slogdet(a)
    return sign * exp(logabs)


@primitive(public=False, builder="cholesky")
def cholesky_kernel(a: Tensor):
    """The lower factor of symmetric positive definite matrices."""
    return (a,), {}


@cholesky_kernel.shape
def _(a):
    return a.shape, a.dtype


@cholesky_kernel.adjoint(0, saves=("y",))
def _(g, y, a):
    # Murray 2016, "Differentiation of the Cholesky decomposition": L⁻ᵀ Φ(Lᵀ ḡ) L⁻¹, symmetrised.
    inner = tril(matmul_kernel(swapaxes(y, -1, -2), tril(g)))
    inner = inner - eye(a.shape[-1], dtype=g.dtype, device=g.device) * inner * 0.5
    left = triangular_solve(y, inner, lower=True, transpose=True)
    both = triangular_solve(y, swapaxes(left, -1, -2), lower=True, transpose=True)
    return (both + swapaxes(both, -1, -2)) * 0.5


@composite(
    namespace="linalg",
    reference=lambda a: np.linalg.cholesky(a),
    samples=[dict(shapes=((3, 3),), positive_definite=True), dict(shapes=((2, 4, 4),), positive_definite=True)],
)
def cholesky(a: Tensor):
    """The lower triangular L with L @ L.T = a, for symmetric positive definite a. (a + aᵀ)/2 is factored, so the gradient is symmetric.

    Raises KernelError where a is not positive definite.
    """
    a = _matrix(a, "linalg.cholesky")
    return cholesky_kernel((a + swapaxes(a, -1, -2)) * 0.5)


@primitive(public=False, builder="triangular_solve")
def triangular_solve(a: Tensor, b: Tensor, lower=True, transpose=False):
    """x with op(a) @ x = b for triangular a."""
    return (a, b), {"lower": lower, "transpose": transpose}


@triangular_solve.shape
def _(a, b, lower, transpose):
    return b.shape, b.dtype


@triangular_solve.adjoint(0, saves=(0, "y"))
def _(g, y, a, b, lower, transpose):
    back = triangular_solve(a, g, lower=lower, transpose=not transpose)
    d = -matmul_kernel(y, swapaxes(back, -1, -2)) if transpose else -matmul_kernel(back, swapaxes(y, -1, -2))
    from .creation import triu

    return tril(d) if lower else triu(d)


@triangular_solve.adjoint(1, saves=(0,))
def _(g, y, a, b, lower, transpose):
    return triangular_solve(a, g, lower=lower, transpose=not transpose)
