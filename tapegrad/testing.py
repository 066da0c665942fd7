"""Checks of derivatives, for the library's ops and for yours.

>>> import tapegrad as tg
>>> tg.testing.check_grads(lambda x, y: (x * y).sin(), [1.0, 2.0], 3.0)

Both raise `GradientError` with a sentence that names the function, the argument, and what was expected and found.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from .errors import DtypeError, GradientError, TapegradError
from .finite_differences import EXACT, Check, Flat, argument, gradient_of, name_of, outputs_of, worst
from .ops import samples as sampling
from .ops.registry import REGISTRY, Op
from .tape.create import tensor
from .tape.state import enable_grad, no_grad


def check_grads(
    f: Callable,
    *args,
    order: int = 2,
    modes: tuple[str, ...] = ("reverse",),
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    directions: int = 3,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Compare the derivatives of f at `args` with central finite differences, in float64.

    f: takes tensors and returns a tensor, or a tuple, list or dict of them; it must give the same result every time.
    args: tensors, arrays, lists and Python floats are differentiated, in float64. Integers and anything else are passed
    on as they are.
    order: derivatives up to that order are checked; the second is that of the first, also by its incoming gradient.
    modes: "reverse" compares gradients, "forward" compares jvp.
    directions: in how many random directions; each of them for every argument alone and for all together.
    device: where f runs, as "cuda".

    Also checked: that a gradient is linear in the gradient that comes in, and does not depend on the strides of the
    inputs or of the incoming gradient.
    Raises GradientError, which is an AssertionError too.
    """
    unknown = set(modes) - {"reverse", "forward"}
    if unknown or order < 1:
        raise ValueError(
            f'check_grads: modes are "reverse" and "forward", order is at least 1; got {modes!r} and {order!r}'
        )
    check = Check(name_of(f), eps, atol, rtol, directions, np.random.default_rng(seed), tuple(modes), device)
    rest = [argument(a, device) for a in args]
    places = [i for i, a in enumerate(rest) if isinstance(a, np.ndarray)]
    if not places:
        raise DtypeError(
            f"check_grads: none of the {len(args)} arguments of {check.name} is floating; there is nothing to "
            "differentiate"
        )
    points = [rest[p] for p in places]
    names = [f"argument {p}" for p in places]
    function = Flat(f, rest, places, check)
    with enable_grad():
        check.incoming(function, points, names)
        fn: Callable = function
        for k in range(1, order + 1):
            check.level(fn, points, names, k)
            if k < order:
                points = [*points, check.rng.standard_normal(check.value_of(fn, points).shape)]
                names = [*names, "the incoming gradient"]
                fn = gradient_of(fn)


def check_op(
    op, samples: list[dict] | None = None, *, order: int = 2, seed: int = 0, device: str = "cpu", **tolerances
) -> None:
    """Check an op on inputs drawn from its samples: values against its NumPy reference, derivatives with `check_grads`.

    op: what `tg.elementwise` or `tg.kernel` made, or the name of a registered op.
    samples: dicts such as `dict(shapes=((3, 4), (4,)), domain=(0.1, 2.0))`; `tapegrad.ops.samples` lists the fields.
    Without them the op's own samples are used, and for an op that has none, numbers from (-2, 2) in several shapes.
    device: where the op runs, as "cuda". Values of an op without a reference are compared with those on the CPU.
    tolerances: as `check_grads` takes them.
    """
    op = REGISTRY[op] if isinstance(op, str) else op
    if not isinstance(op, Op):
        raise DtypeError(
            f"check_op: wanted an op, made with tg.elementwise or tg.kernel, got {type(op).__name__}; "
            "use check_grads for functions"
        )
    drawn = sampling.draw(op, np.random.default_rng(seed), samples)
    if not drawn:
        raise TapegradError(
            f"check_op: {op.name} has no samples, so its arguments are not known; "
            "pass samples=[dict(shapes=((3, 4),))], one shape for each tensor"
        )
    for d in drawn:

        def function(*tensors, d=d):
            return d.call(op, tensors, partial(tensor, device=tensors[0].device if tensors else device))

        function.__name__ = op.name
        with no_grad():
            out = function(*(tensor(x, device=device) for x in d.tensors))
            _compare_values(op, d, out, device)
        if op.differentiable and d.tensors and any(t.dtype.is_float for t in outputs_of(out)):
            check_grads(function, *d.tensors, order=order, seed=seed, device=device, **tolerances)


def _compare_values(op: Op, d: sampling.Drawn, out, device: str) -> None:
    reference = op.reference
    if reference is None and op.kind == "elementwise":
        reference = scalar_reference(op.fn)
    what = "its reference"
    if reference is None:
        if device == "cpu":
            return
        what = "the CPU's kernel"

        def reference(*args, **kwargs):
            return [t.numpy() for t in outputs_of(op(*args, **kwargs))]

    with np.errstate(all="ignore"):
        expected = d.call(reference, d.tensors)
    listed = expected if isinstance(expected, tuple | list) else [expected]
    got = outputs_of(out)
    if len(listed) != len(got):
        raise GradientError(f"check_op: {op.name} returned {len(got)} tensors, {what} {len(listed)}")
    for e, t in zip(listed, got, strict=True):
        e, g = np.asarray(e), t.numpy()
        if e.shape != g.shape:
            raise GradientError(
                f"check_op: {op.name} of shapes {[x.shape for x in d.tensors]} has shape {g.shape}, "
                f"{what} has {e.shape}"
            )
        if not np.allclose(g, e, rtol=EXACT, atol=EXACT, equal_nan=True):
            at = worst(e, g)
            raise GradientError(
                f"check_op: {op.name} differs from {what}: at element {at} it is {g[at]!s}, wanted {e[at]!s}"
            )


def scalar_reference(fn: Callable) -> Callable:
    """The scalar function of an elementwise op on arrays, run by Python; nan where Python raises."""

    def one(*xs):
        try:
            return fn(*xs)
        except (ValueError, ZeroDivisionError, OverflowError):
            return np.nan

    return np.vectorize(one, otypes=[np.float64])
