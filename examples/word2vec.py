"""Words as vectors, by skip-gram with negative sampling: king - man + woman = ? (Mikolov et al. 2013).

A word's vector is learned from the words around it, in sentences of a small grammar. How well is seen in analogies, where one
answer of the whole vocabulary is right: 8,000 sentences are enough for nearly all.

    python examples/word2vec.py --plot       # writes out/word2vec.png; needs pip install 'tapegrad[plot]'
"""

import argparse
import random
import sys
from pathlib import Path

import numpy as np

import tapegrad as tg
from tapegrad import data, nn, optim, train

NOUNS = {  # one man, one woman, several men, several women: what is around them
    "king queen kings queens": "crown throne palace",
    "actor actress actors actresses": "stage film applause",
    "waiter waitress waiters waitresses": "tray menu kitchen",
    "wizard witch wizards witches": "spell broom potion",
    "uncle aunt uncles aunts": "cousin birthday visit",
    "bull cow bulls cows": "meadow hay barn",
    "man woman men women": "street house job",
}
ONE, SEVERAL = ("a every this one", "is was has sits"), ("many all these two", "are were have sit")
GENDER = "beard he his sir".split(), "gown she her madam".split()
OTHERS = "often old here near always there young with".split()


def sentences(count: int, rng: random.Random) -> list[str]:
    """Article, noun, verb, and four words of which most say nothing of the noun."""
    made, rows = [], [(forms.split(), around.split()) for forms, around in NOUNS.items()]
    for _ in range(count):
        (forms, around), gender, number = rng.choice(rows), rng.randrange(2), rng.randrange(2)
        article, verb = (rng.choice(words.split()) for words in (ONE, SEVERAL)[number])
        sources = [own if rng.random() < 0.5 else OTHERS for own in (around, around, GENDER[gender])] + [OTHERS]
        more = rng.sample([rng.choice(source) for source in sources], 4)
        made.append(" ".join([article, forms[2 * number + gender], verb, *more]))
    return made


class SkipGram(nn.Module):
    """Words (N,) and candidates for a word near them (N, K) -> logits (N, K) of having been there."""

    def __init__(self, words: int, size: int):
        super().__init__()
        self.word, self.near = nn.Embedding(words, size), nn.Embedding(words, size)
        nn.init.apply(self, {"*.weight": nn.init.normal(0.0, 0.1)})

    def forward(self, words, candidates):
        return tg.einsum("nd,nkd->nk", self.word(words), self.near(candidates))


def nearest(vectors: np.ndarray, wanted: np.ndarray, but: list[int], count: int = 1) -> list[int]:
    """The words whose vectors (V, D), of length 1, point most nearly where `wanted` (D,) does, other than some."""
    order = np.argsort(-(vectors @ wanted))
    return order[~np.isin(order, but)][:count].tolist()


def analogies(vectors: np.ndarray, rows: list[list[int]]) -> float:
    """The share of right answers to "a is to b as c is to ?", a and b of one row of NOUNS, c of another."""
    changes = [(0, 1), (1, 0), (2, 3), (3, 2), (0, 2), (2, 0), (1, 3), (3, 1)]  # of gender, of number
    asked = [(x[a], x[b], y[a], y[b]) for x in rows for y in rows if x is not y for a, b in changes]
    return np.mean([nearest(vectors, vectors[b] - vectors[a] + vectors[c], [a, b, c]) == [d] for a, b, c, d in asked])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in {"sentences": 8_000, "size": 24, "epochs": 3, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    parser.add_argument("--quick", action="store_true", help="2,500 sentences")
    parser.add_argument("--plot", nargs="?", const="out/word2vec.png", type=Path, help="draw into this file")
    args = parser.parse_args()
    texts = sentences(2500 if args.quick else args.sentences, random.Random(args.seed))
    words = data.Vocabulary.of(texts, by=str.split)
    codes = np.stack([words.encode(text) for text in texts])
    i, j = np.nonzero(~np.eye(codes.shape[1], dtype=bool))  # words of one sentence are near each other
    pairs = codes[:, i].ravel(), codes[:, j].ravel()
    share, rng = np.bincount(codes.ravel()) ** 0.75, np.random.default_rng(args.seed)

    def with_others(batch):
        """Beside the word that was near, five drawn from all; the first of the six is the one to be told."""
        drawn = rng.choice(len(words), (len(batch[0]), 5), p=share / share.sum())
        return batch[0], np.column_stack([batch[1], drawn]), np.tile(np.eye(1, 6, dtype=np.float32), (len(drawn), 1))

    tg.seed(args.seed)
    model = SkipGram(len(words), args.size)
    trainer = train.Trainer(model, nn.BCEWithLogitsLoss(), optim.Adam(model.parameters(), 3e-3))
    trainer.fit(data.DataLoader(pairs, 512, True, seed=args.seed, transform=with_others), epochs=args.epochs)
    vectors = model.word.weight.detach().numpy()
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for code in words.encode("king witch cows uncles"):
        print(f"{words.tokens[code]}: {', '.join(words.decode(nearest(vectors, vectors[code], [code], 5)))}")
    rows = np.stack([words.encode(forms) for forms in NOUNS])
    right = analogies(vectors, rows.tolist())
    print(f"{len(pairs[0]):,} pairs of {len(words)} words: {right:.1%} of the analogies right, and 1 % by chance")
    if args.plot:
        try:
            import matplotlib.pyplot as plt
        except ImportError:
            sys.exit("--plot needs matplotlib: pip install 'tapegrad[plot]'")
        figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
        shown = vectors[rows.ravel()] - vectors[rows.ravel()].mean(0)
        places = shown @ np.linalg.svd(shown)[2][:2].T
        for k, (x, y) in enumerate(places):
            side = "left" if x > 0 else "right"
            axes.text(x, y, f" {words.tokens[rows.flat[k]]} ", ha=side, va="center", color=f"C{k // 4}")
        for k in range(0, len(places), 4):
            axes.plot(*places[[k, k + 1, k + 3, k + 2, k]].T, ".-", lw=0.4, color=f"C{k // 4}")
        axes.set(xlabel="first principal component of the nouns", ylabel="second", xmargin=0.2)
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(args.plot, dpi=120)
        print(f"picture: {args.plot}")


if __name__ == "__main__":
    main()
