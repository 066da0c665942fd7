"""Tokens as numbers and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..errors import DataError
from .readers.text import tokens as cut
from .table import near


class Vocabulary:
    """Tokens by number: `encode` gives int64 codes, `decode` the tokens again.

    Args:
        tokens: the tokens that it is to know, by code; made from data by `Vocabulary.of`.
        unknown: the token that stands for all others, such as "<unk>". Without it they are an error.

    >>> vocabulary = Vocabulary.of("hello world", by="characters")
    >>> len(vocabulary), vocabulary.encode("hole")
    (8, array([3, 5, 4, 2]))
    >>> vocabulary.text([3, 5, 4, 2])
    'hole'
    """

    def __init__(self, tokens: Iterable[str], *, unknown: str | None = None, by: str | Callable = "characters"):
        self.tokens = list(tokens)
        if unknown is not None and unknown not in self.tokens:
            self.tokens.insert(0, unknown)
        self.unknown, self.by = unknown, by
        self.codes = {token: code for code, token in enumerate(self.tokens)}
        if len(self.codes) < len(self.tokens):
            doubled = [token for token, count in Counter(self.tokens).items() if count > 1]
            raise DataError(f"Vocabulary: {doubled[0]!r} stands twice among its tokens.")
        if not self.tokens:
            raise DataError("Vocabulary: there is no token; was the text empty?")

    @classmethod
    def of(
        cls,
        text: str | Iterable[str],
        *,
        by: str | Callable = "characters",
        max_size: int | None = None,
        min_count: int = 1,
        special: Iterable[str] = (),
        unknown: str | None = None,
    ) -> Vocabulary:
        """The tokens of a text, or of several.

        by: "characters", "words" or a function from a text to its tokens. They are sorted, unless `max_size` or
        `min_count` leaves some out: then the commonest come first. `special`: tokens such as "<pad>" that come before all,
        the first with code 0.
        """
        texts = [text] if isinstance(text, str) else text
        counts: Counter = Counter()
        for one in texts:
            counts.update(cut(one, by))
        first = list(special)
        if unknown is not None and unknown not in first:
            first.append(unknown)
        if max_size is None and min_count <= 1:
            rest = sorted(token for token in counts if token not in first)
        else:
            common = sorted(counts, key=lambda token: (-counts[token], token))
            rest = [token for token in common if counts[token] >= min_count and token not in first]
            rest = rest[: None if max_size is None else max(0, max_size - len(first))]
        return cls([*first, *rest], unknown=unknown, by=by)

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self.codes

    def encode(self, text: str | Iterable[str]) -> np.ndarray:
        """int64 (N,): the codes of a text, which is cut as the vocabulary's were, or of tokens.

        DataError for a token that it does not know, unless `unknown` stands for it.
        """
        parts = cut(text, self.by) if isinstance(text, str) else list(text)
        known = self.codes
        try:
            return np.array([known[token] for token in parts], np.int64)
        except KeyError:
            if self.unknown is not None:
                other = known[self.unknown]
                return np.array([known.get(token, other) for token in parts], np.int64)
        place, token = next((i, t) for i, t in enumerate(parts) if t not in known)
        raise DataError(
            f"Vocabulary: token {place}, {token!r}, is not among its {len(self)}. {near(token, self.tokens)} Give "
            "unknown='<unk>' when it is made, to let one code stand for all such."
        )

    def decode(self, codes: Any) -> list[str]:
        """The tokens of codes (N,). DataError for a code that there is not."""
        found = np.asarray(codes).reshape(-1)
        if found.dtype.kind not in "iu" or (found.size and (found.min() < 0 or found.max() >= len(self))):
            raise DataError(f"Vocabulary: codes are whole numbers from 0 to {len(self) - 1}; got {found!r}.")
        return [self.tokens[code] for code in found.tolist()]

    def text(self, codes: Any) -> str:
        """The tokens of codes as one text: words with spaces between them, characters without."""
        return (" " if self.by == "words" else "").join(self.decode(codes))

    def state_dict(self) -> dict[str, Any]:
        """The tokens, to be saved with a model."""
        return {
            "tokens": self.tokens,
            "unknown": self.unknown,
            "by": self.by if isinstance(self.by, str) else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the tokens that another vocabulary saved."""
        by = state["by"] if state["by"] is not None else self.by
        self.__init__(state["tokens"], unknown=state["unknown"], by=by)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} tokens)"
