"""Derivatives of any Numba-compilable scalar function, without reading its source: `partial(fn, index, arity)`.

`fn` is compiled once more with one input replaced by a dual number (value, tangent). What depends on that input becomes
dual by type inference; everything else stays a plain number and costs nothing. See docs/design/derived-derivatives.md.
`dual_numbers` holds the type and its conversions, `dual_rules` the table of derivatives, this file the door.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import numba
from numba import njit, types
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from ..errors import KernelError
from . import dual_rules  # noqa: F401  registers the table with Numba
from .dual_numbers import DualType, Emitted, level_of, scalar_of

# No "reassoc" and no "arcp": compensated sums in a user's function must survive. NaN and inf always count.
FLAGS = {"contract", "nsz"}

NUMBERS = (DualType, types.Float, types.Integer, types.Boolean)


def partial(fn: Callable, index: int, arity: int) -> Callable:
    """The partial derivative of a scalar function by its input `index`, as a Numba-jitted function of the same inputs.

    fn: a Python function or a Numba dispatcher of `arity` (1 to 4) float scalars that returns a number. It may hold
    loops, branches, constants, tuples and calls to other jitted functions. Numba compiles the result for float32 and
    float64 inputs; its type is the type that fn's own expressions give (a literal 2.0 makes float64, as in fn).
    The result is accepted by `partial` again: second and higher derivatives.

    Raises KernelError, when the result is compiled, naming the function and the line that has no derivative.

        >>> cube = lambda x: x ** 3
        >>> partial(cube, 0, 1)(2.0)
        12.0
    """
    if not 1 <= arity <= 4 or not 0 <= index < arity:
        raise KernelError(f"partial() takes functions of 1 to 4 inputs and an index below that; got {index} of {arity}")
    function = fn.py_func if isinstance(fn, Dispatcher) else fn
    unboxed: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # a dual never enters from Python
    primal = njit(error_model="numpy", fastmath=FLAGS, **unboxed)(function)

    def typed(typingctx: Any, inputs: Any) -> Any:
        plain = tuple(inputs)
        level = 1 + max(map(level_of, plain))
        seeded = plain[index] if isinstance(plain[index], DualType | types.Float) else types.float64
        wanted = (*plain[:index], DualType(seeded, level), *plain[index + 1 :])
        dispatcher = types.Dispatcher(primal)
        try:
            call = typingctx.resolve_function_type(dispatcher, wanted, {})
        except NumbaError as error:
            raise translated(function, error) from error
        if not isinstance(call.return_type, NUMBERS):
            raise KernelError(
                f"{place(function)} returns {DUAL_TYPE.sub(DUAL, str(call.return_type))}; a derivative needs one number"
            )
        result = derivative_type(call.return_type, seeded, level)

        def emit(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            values = [builder.extract_value(arguments[0], i) for i in range(arity)]
            seed = Emitted(context, builder, plain[index], values[index]).cast(seeded)
            values[index] = seed.joined(seed.constant(1), level).ir
            values += [context.get_constant_generic(builder, t, t.value) for t in call.args[arity:]]  # defaults
            output = context.get_function(dispatcher, call)(builder, values)
            tangent = Emitted(context, builder, call.return_type, output).split(level)[1]
            return tangent.ir if tangent else context.get_constant_null(result)

        return signature(result, inputs), emit

    derive: Any = intrinsic(typed)
    body: Any = {
        1: lambda a: derive((a,)),
        2: lambda a, b: derive((a, b)),
        3: lambda a, b, c: derive((a, b, c)),
        4: lambda a, b, c, d: derive((a, b, c, d)),
    }[arity]
    body.__name__ = body.__qualname__ = f"{getattr(function, '__name__', 'function')}_by_{index}"
    body.derived_from = function, index  # names this function for a cache: the intrinsic in its closure has no text
    return njit(error_model="numpy", fastmath=FLAGS)(body)


def derivative_type(output: types.Type, seeded: types.Type, level: int) -> types.Type:
    """The type of the derivative; of a result that does not depend on the input, a zero of a fitting float type."""
    if isinstance(output, DualType) and output.level == level:
        return output.inner
    return output if isinstance(output, DualType | types.Float) else scalar_of(seeded)


def place(function: Callable) -> str:
    """Name, file and line of a user's function."""
    code = function.__code__
    return f"{function.__name__} ({code.co_filename}:{code.co_firstlineno})"


def translated(function: Callable, error: NumbaError) -> KernelError:
    """Numba's pages of noise as one sentence about the user's line."""
    text = str(error)
    sites = (site for site in re.findall(r"typing of [^\n]*? at (.+?) \((\d+)\)", text) if NUMBA not in site[0])
    where = next((f"line {line} of {file} " for file, line in sites), "it ")
    if "dual(" not in text:
        lines = [line for line in text.splitlines() if line and not line.startswith("Failed in nopython mode")]
        return KernelError(f"{place(function)} cannot be compiled by Numba: {where}fails with: {lines[0]}")
    text = DUAL_TYPE.sub(DUAL, text)
    reason = next(say.format(*found.groups()) for pattern, say in REASONS if (found := re.search(pattern, text)))
    return KernelError(
        f"the derivative of {place(function)} cannot be derived: {where}{reason}; "
        f"give the derivative explicitly with `@{function.__name__}.derivative`"
    )


NUMBA = os.path.dirname(numba.__file__)

# A dual in a translated message.
DUAL = "<dual>"
DUAL_TYPE = re.compile(r"(dual\()+\w+(, level=\d+\))+")

# What Numba's message contains, and what the user's line does; the first that fits.
REASONS = (
    (r"setitem\(.*<dual>", "writes a number that depends on the input into an array or list of plain numbers"),
    (
        r"CPUDispatcher\(<function (\w+).*with parameters.*\nKnown sig",
        "calls {0}, which is compiled for fixed types only",
    ),
    (r"No implementation of function ExternalFunction", "calls an external C function, which Numba cannot see into"),
    (r"Unknown attribute '(\w+)' of type <dual>", "uses the attribute '{0}', which has no rule for derivatives"),
    (
        r"(?:getitem\(|getiter with parameters \()\w*Tuple\(.*<dual>",
        "loops over or indexes by a variable a tuple in which only some numbers depend on the input",
    ),
    (r"Cannot unify", "gives one variable two types that do not go together"),
    (
        r"No implementation of function Function\(<?(?:[a-z-]+ )?(?:function |class )?'?(\w+).*\s+>>> [^(]*(\(.*\))",
        "calls {0}{1}, which has no rule for derivatives (<dual> is a number that depends on the input)",
    ),
    (r"", "does something with a number that depends on the input for which there is no rule"),
)
