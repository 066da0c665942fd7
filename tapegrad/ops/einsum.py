"""Einstein summation, as pairwise batched matrix products."""

from __future__ import annotations

import string

import numpy as np

from ..errors import DtypeError, ShapeError
from .linalg import diagonal, matmul
from .movement import broadcast_to, permute, reshape
from .reduce import sum_
from .registry import composite


@composite(
    reference=np.einsum,
    samples=[
        dict(args=("ij,jk->ik",), shapes=((3, 4), (4, 2)), at=(1, 2)),
        dict(args=("bij,bjk,k->bi",), shapes=((2, 3, 4), (2, 4, 5), (5,)), at=(1, 2, 3)),
        dict(args=("ii->i",), shapes=((3, 3),), at=(1,)),
        dict(args=("i...,i->...",), shapes=((3, 2), (3,)), at=(1, 2)),
        dict(args=("ij->j",), shapes=((3, 4),), at=(1,)),
    ],
)
def einsum(subscripts, *operands):
    """Einstein summation, as in NumPy: "ij,jk->ik" is a matrix product. Letters, `...`, repeated letters, implicit output."""
    from .registry import _interpreter, device_among

    device = device_among(operands)
    tensors = [_interpreter.tensor(t, "einsum", device) for t in operands]
    terms, output = _einsum_terms(subscripts, tensors)
    pairs = [(_without_repeats(t, term)) for t, term in zip(tensors, terms, strict=True)]
    while len(pairs) > 1:
        (a, ta), (b, tb) = pairs[:2]
        later = set(output).union(*(t for _, t in pairs[2:]))
        pairs[:2] = [_contract(a, ta, b, tb, later)]
    result, term = pairs[0]
    gone = tuple(i for i, c in enumerate(term) if c not in output)
    if gone:
        result, term = sum_(result, gone), [c for c in term if c in output]
    return permute(result, tuple(term.index(c) for c in output)) if output else result


def _einsum_terms(subscripts: str, tensors: list) -> tuple[list[list[str]], list[str]]:
    """Each operand's axes as a list of letters, `...` spelled out with capitals that nobody used, and the output's."""
    if not isinstance(subscripts, str):
        raise DtypeError(f"einsum: the subscripts are a string such as 'ij,jk->ik', not {type(subscripts).__name__}")
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    parts = left.split(",")
    if len(parts) != len(tensors):
        raise ShapeError(f"einsum: {subscripts!r} describes {len(parts)} operands, {len(tensors)} were given")
    spare = [c for c in string.ascii_letters[::-1] if c not in text]
    dots = max(
        [t.ndim - len(p.replace("...", "")) for p, t in zip(parts, tensors, strict=True) if "..." in p], default=0
    )
    wild = spare[:dots]
    terms: list[list[str]] = []
    lengths: dict[str, int] = {}
    for part, t in zip(parts, tensors, strict=True):
        named = len(part.replace("...", ""))
        extra = t.ndim - named if "..." in part else 0
        term = list(part.replace("...", "\0"))
        if "\0" in term:
            at = term.index("\0")
            term[at : at + 1] = wild[dots - extra :] if extra else []
        if len(term) != t.ndim or not all(c.isalpha() for c in term):
            raise ShapeError(f"einsum: {part!r} of {subscripts!r} does not describe an operand of shape {t.shape}")
        for c, n in zip(term, t.shape, strict=True):
            if lengths.setdefault(c, n) != n and 1 not in (n, lengths[c]):
                raise ShapeError(f"einsum: index {c!r} of {subscripts!r} has lengths {lengths[c]} and {n}")
            lengths[c] = max(lengths[c], n)
        terms.append(term)
    if arrow:
        output = list(right.replace("...", "\0"))
        if "\0" in output:
            at = output.index("\0")
            output[at : at + 1] = wild
    else:
        flat = [c for t in terms for c in t]
        output = wild + sorted(c for c in set(flat) if flat.count(c) == 1 and c not in wild)
    if len(set(output)) != len(output) or any(c not in lengths for c in output):
        raise ShapeError(f"einsum: the output of {subscripts!r} repeats an index or names one that no operand has")
    return terms, output


def _without_repeats(t, term: list[str]):
    """An operand in which no letter stands twice: diagonals are taken."""
    while len(set(term)) < len(term):
        c = next(c for c in term if term.count(c) > 1)
        i, j = [k for k, x in enumerate(term) if x == c][:2]
        order = [k for k in range(t.ndim) if k not in (i, j)] + [i, j]
        t = diagonal(permute(t, tuple(order)))
        term = [term[k] for k in order[:-1]]
    return t, term


def _contract(a, ta: list[str], b, tb: list[str], later: set[str]):
    """Two operands as one batched matrix product: shared and kept, shared and summed, own of each."""
    for x, tx, other in ((a, ta, tb), (b, tb, ta)):
        gone = tuple(i for i, c in enumerate(tx) if c not in other and c not in later)
        if gone:
            x2 = sum_(x, gone)
            kept = [c for c in tx if c in other or c in later]
            a, ta, b, tb = (x2, kept, b, tb) if x is a else (a, ta, x2, kept)
    batch = [c for c in ta if c in tb and c in later]
    inner = [c for c in ta if c in tb and c not in later]
    rows, columns = [c for c in ta if c not in tb], [c for c in tb if c not in ta]
    sizes: dict[str, int] = {}
    for x, tx in ((a, ta), (b, tb)):
        for c, n in zip(tx, x.shape, strict=True):
            sizes[c] = max(n, sizes.get(c, 1)) if n != 0 else 0
    a = broadcast_to(a, tuple(sizes[c] for c in ta))
    b = broadcast_to(b, tuple(sizes[c] for c in tb))

    def volume(letters):
        n = 1
        for c in letters:
            n *= sizes[c]
        return n

    lead = tuple(sizes[c] for c in batch)
    left = reshape(permute(a, tuple(ta.index(c) for c in batch + rows + inner)), (*lead, volume(rows), volume(inner)))
    right = reshape(
        permute(b, tuple(tb.index(c) for c in batch + inner + columns)), (*lead, volume(inner), volume(columns))
    )
    made = reshape(matmul(left, right), (*lead, *(sizes[c] for c in rows), *(sizes[c] for c in columns)))
    return made, batch + rows + columns
