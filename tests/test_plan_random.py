"""Planning of random segments: the fixed values come out as they do row by row."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_rows import NAMED, Recorder, agree, arrays

from tapegrad.dtypes import as_dtype
from tapegrad.ops import registry
from tapegrad.ops.registry import partial

SHAPES = [(4, 6), (6,), (6, 6), (4, 1), (), (24,), (2, 2, 6), (1, 6), (4, 3, 2)]


class Draw:
    """Rows drawn at random, each from values that are there."""

    def __init__(self, data, r: Recorder):
        self.data, self.r = data, r
        self.numbers: list[int] = []
        self.assigned: set[int] = set()

    def one(self, among):
        return self.data.draw(st.sampled_from(among))

    def floats(self) -> list[int]:
        return [n for n in self.numbers if self.r.layout(n).dtype.is_float]

    def beside(self, n: int) -> int:
        """A value that broadcasts with n."""
        shape = self.r.layout(n).shape

        def fits(m: int) -> bool:
            try:
                return len(np.broadcast_shapes(shape, self.r.layout(m).shape)) <= 3
            except ValueError:
                return False

        return self.one([m for m in self.floats() if fits(m)])

    def unary(self) -> int:
        op = self.one(["tanh", "sigmoid", "relu", "negative", "square", "identity_copy", "abs"])
        return self.r(op, self.one(self.floats()))

    def slope(self) -> int:
        op = NAMED[self.one(["tanh", "sigmoid", "relu", "exp"])]
        n = self.one([n for n in self.floats() if op is not NAMED["relu"] or n in self.r.arrays])
        x = self.r("tanh", n)
        y = self.r(op, x)
        self.numbers.append(y)
        return self.r(partial(op, 0)[0], self.one([x, y]), x)

    def binary(self) -> int:
        n = self.one(self.floats())
        return self.r(self.one(["add", "subtract", "multiply", "maximum"]), n, self.beside(n))

    def cast(self) -> int:
        to = as_dtype(self.one(["float32", "float64", "int32", "bool"]))
        return self.r("cast", self.one([n for n in self.numbers if to.is_float or n in self.r.arrays]), dtype=to)

    def where(self) -> int:
        n = self.one(self.floats())
        m = self.beside(n)
        return self.r("where", self.r("greater", n, m), m, n)

    def reduce(self) -> int:
        n = self.one([n for n in self.floats() if self.r.layout(n).ndim])
        ndim = self.r.layout(n).ndim
        axes = tuple(sorted(self.data.draw(st.sets(st.integers(0, ndim - 1), min_size=1))))
        y = self.r(self.one(["sum", "max", "min"]), n, axes=axes, keepdims=True)
        small = self.r("tanh", y)
        self.numbers += [y, small]
        wide = self.r.view("broadcast_view", small, shape=self.r.layout(n).shape)
        return self.r("subtract", n, wide)

    def take(self) -> int:
        n = self.one([n for n in self.floats() if self.r.layout(n).ndim])
        return self.r("take_kernel", n, self.r.given(np.array([1, 0]) % self.r.layout(n).shape[0]), axis=0)

    def product(self) -> int:
        n = self.one([n for n in self.floats() if self.r.layout(n).ndim == 2])
        t = self.r.view("permute_view", n, axes=(1, 0))
        return self.r("tanh", self.r("matmul_kernel", *self.one([(n, t), (t, n)])))

    def summed(self) -> int:
        """Products of transposed arrays, or sums of columns, added up in any order, some of them more than once."""
        n = self.one([n for n in self.floats() if self.r.layout(n).ndim == 2])
        x = self.r.layout(n)
        same = [m for m in self.floats() if self.r.layout(m).shape == x.shape and self.r.layout(m).dtype is x.dtype]
        terms = []
        for _ in range(self.data.draw(st.integers(2, 4))):
            a, b = (self.r("tanh", self.one(same)) for _ in range(2))
            if self.data.draw(st.booleans()):
                a, b = self.one(same), self.one(same)
            if x.shape[0] > 4:
                terms.append(self.r("matmul_kernel", self.r.view("permute_view", a, axes=(1, 0)), b))
            else:
                terms.append(self.r("sum", a, axes=(0,), keepdims=False))
        for _ in range(self.data.draw(st.integers(1, 5))):
            terms.append(self.r("add", self.one(terms[-2:]), self.one(terms)))
        return terms[-1]

    def softmax(self) -> int:
        n = self.one([n for n in self.floats() if self.r.layout(n).ndim])
        return self.r("softmax_kernel", n, axis=self.r.layout(n).ndim - 1)

    def view(self) -> int:
        n = self.one(self.numbers)
        x = self.r.layout(n)
        kind = self.one(["permute", "slice", "flip", "reshape"])
        if kind == "permute":
            return self.r.view("permute_view", n, axes=tuple(range(x.ndim))[::-1])
        if kind == "reshape" and x.contiguous:
            return self.r.view(
                "reshape_view", n, shape=self.one([s for s in SHAPES if np.prod(s) == x.size] or [x.shape])
            )
        if kind == "flip":
            starts = tuple(m - 1 for m in x.shape)
            return self.r.view("slice_view", n, starts=starts, sizes=x.shape, steps=(-1,) * x.ndim)
        sizes = tuple(max(m // 2, 1) for m in x.shape)
        starts = tuple(self.data.draw(st.integers(0, m - k)) for m, k in zip(x.shape, sizes))
        return self.r.view("slice_view", n, starts=starts, sizes=sizes, steps=(1,) * x.ndim)

    def embed(self) -> int:
        """The sum of two arrays that are zero but for a part, which lie apart or not, forwards or backwards."""
        n = self.one([n for n in self.floats() if self.r.layout(n).ndim])
        sizes = self.r.layout(n).shape
        shape = tuple(2 * m for m in sizes)
        parts = []
        for _ in range(2):
            steps = tuple(self.one([1, -1, 2 if m > 1 else 1]) for m in sizes)
            spans = [(m - 1) * abs(k) for m, k in zip(sizes, steps)]
            first = [self.data.draw(st.integers(0, n - 1 - reach)) for n, reach in zip(shape, spans)]
            starts = tuple(a + reach if k < 0 else a for a, k, reach in zip(first, steps, spans))
            parts.append(self.r("embed", n, shape=shape, starts=starts, steps=steps))
        return self.r("add", *parts)

    def join(self) -> int:
        n = self.one([n for n in self.floats() if self.r.layout(n).ndim == 2])
        same = [
            m
            for m in self.floats()
            if self.r.layout(m).shape == self.r.layout(n).shape and self.r.layout(m).dtype is self.r.layout(n).dtype
        ]
        parts = [self.r("tanh", self.one(same)) for _ in range(self.data.draw(st.integers(1, 3)))] + [n]
        y = self.r("concatenate_same", *parts, axis=self.data.draw(st.integers(0, 1)))
        self.numbers += [parts[0], y]
        starts = (0, 0)
        return self.r("square", self.r.view("slice_view", y, starts=starts, sizes=self.r.layout(n).shape, steps=(1, 1)))

    def loop(self) -> int:
        """A small recurrent net with the gradient of its weight: sums of products, and of sums of columns."""
        r, (batch, width) = self.r, self.data.draw(st.sampled_from([(2, 3), (1, 4), (5, 2)]))
        w, h = (r.given(a - 1) for a in arrays(self.data.draw(st.integers(0, 9)), (width, width), (batch, width)))
        b, xs = (r.given(a - 1) for a in arrays(7, (width,), (4, batch, width)))
        hs = [h]
        for t in range(4):
            x = r.view(
                "reshape_view",
                r.view("slice_view", xs, starts=(t, 0, 0), sizes=(1, batch, width), steps=(1, 1, 1)),
                shape=(batch, width),
            )
            a = r("add", r("add", r("matmul_kernel", hs[-1], w), r("matmul_kernel", x, w)), b)
            hs.append(r("tanh", a))
        g, dw, db = hs[-1], None, None
        for t in reversed(range(4)):
            g = r(partial(NAMED["tanh"], 0)[0], g, hs[t + 1])
            for new in (
                r("matmul_kernel", r.view("permute_view", hs[t], axes=(1, 0)), g),
                r("matmul_kernel", r.view("permute_view", g, axes=(1, 0)), hs[t]),
            ):
                dw = new if dw is None else r("add", dw, new)
            column = r("sum", g, axes=(0,), keepdims=False)
            db = column if db is None else r("add", db, column)
            g = r("matmul_kernel", g, r.view("permute_view", w, axes=(1, 0)))
        self.numbers += [dw, hs[2], g, w, b]
        if self.data.draw(st.booleans()):
            self.numbers.append(r("concatenate_same", *hs[1:], axis=0))
        return db

    def assign(self) -> None:
        targets = [n for n in self.r.arrays if self.r.layout(n).dtype.name == "float32"]
        p = self.one(targets)
        fitting = [n for n in self.floats() if self.r.layout(n).shape == self.r.layout(p).shape]
        g = self.one([*fitting, p])
        if self.data.draw(st.booleans()):
            self.r.assign(registry.IDENTITY, (p,), g)
        else:
            self.r.assign(NAMED["multiply"], (p,), p, g)


def drawn(data) -> Recorder:
    """A random segment, some of whose values are kept."""
    r = Recorder()
    d = Draw(data, r)
    for k in range(data.draw(st.integers(1, 4))):
        d.numbers.append(
            r.given(
                arrays(k, data.draw(st.sampled_from(SHAPES)), dtype=data.draw(st.sampled_from(["f4", "f4", "f8"])))[0]
                - 1
            )
        )
    makers = [
        "unary",
        "slope",
        "binary",
        "binary",
        "cast",
        "where",
        "reduce",
        "product",
        "summed",
        "softmax",
        "take",
        "view",
        "embed",
        "join",
        "loop",
        "assign",
    ]
    for _ in range(data.draw(st.integers(1, 25))):
        kind = data.draw(st.sampled_from(makers))
        if kind in ("reduce", "softmax", "embed", "take") and not any(r.layout(n).ndim for n in d.floats()):
            continue
        if kind in ("product", "summed", "join") and not any(r.layout(n).ndim == 2 for n in d.floats()):
            continue
        if kind == "assign" and not any(r.layout(n).dtype.name == "float32" for n in r.arrays):
            continue
        made = getattr(d, kind)()
        if made is not None and r.layout(made).size <= 600:
            d.numbers.append(made)
    r.keep(*[n for n in d.numbers if data.draw(st.booleans())])
    return r


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_segments(data):
    agree(drawn(data), ulps=2048)
