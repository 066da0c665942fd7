"""Elementary functions on vectors, written as IR: `MATH[name](e, *values)`.

exponential.py comes first: the reduction and the powers of two there serve the others. forms.py holds what all share.
Coefficients are minimax fits (docs/design/vector-math.md); the bounds are tested in ulps over the whole range.
"""

from . import exponential, inverse, logarithm, special, trigonometry  # noqa: F401  each registers its functions
from .forms import MATH

__all__ = ["MATH"]
