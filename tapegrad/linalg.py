"""`tg.linalg`: linear systems and factorisations, batched over leading axes."""

from .ops.linalg import cholesky, det, diagonal, inv, slogdet, solve
from .ops.reduce import norm as vector_norm

__all__ = ["cholesky", "det", "diagonal", "inv", "slogdet", "solve", "vector_norm"]
