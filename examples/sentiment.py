"""Is a message bullish or bearish? A GRU learns from the few whose authors tagged them, and fills in the tags of the rest.

The messages are made up, with slang, negations and typos, so the truth behind the missing tags is known. A linear model of word
counts learns from the same tags, to see what the order of words is worth: it cannot do better than about 60 %.

    python examples/sentiment.py --plot      # writes out/sentiment.png; needs pip install 'tapegrad[plot]'
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import tapegrad as tg
from tapegrad import data, nn, optim, train

WORDS = {  # by what they say: bearish ones, bullish ones
    "move": ("dump tank crash bleed fade rug".split(), "moon pump rip rally fly bounce".split()),
    "trade": ("selling shorting dropping ditching".split(), "buying longing holding stacking".split()),
    "mood": ("bearish scared out rekt".split(), "bullish greedy in hyped".split()),
}
ASSETS = "btc eth gold oil tsla $gme silver yen nvda doge wheat spy".split()
KINDS = {  # {move+} is what the author expects, {move-} the opposite
    "plain": "{a} about to {move+}|{trade+} {a} all day|so {mood+} on {a}|never been this {mood+} on {a}|watch {a} {move+}",
    "negated": "{a} will not {move-}|no way {a} can {move-}|stop {trade-} {a}|not {mood-} on {a} at all|{a} cannot {move-}",
    "turned": "had to {move-} , now it will {move+}|was {mood-} on {a} , now {mood+}|done {trade-} , {trade+} now|all {mood-} , me {mood+}",
}
SLANG = ["", "", "", "lol", "ngl", "imo", "guys", "ok so", "lfg", "smh", "!!", "tbh", "no joke", "not financial advice"]


def typed(word: str, rng) -> str:
    """The word, or one in 40 times a typo: a letter doubled, left out, or swapped with the next."""
    if len(word) < 3 or rng.random() > 1 / 40:
        return word
    i = rng.integers(len(word) - 1)
    a, b = word[i], word[i + 1]
    return word[:i] + (a + a + b, b, b + a)[rng.integers(3)] + word[i + 2 :]


def message(kind: str, bullish: int, rng) -> str:
    """A message of a kind, by an author of that opinion."""
    before, text, after = rng.choice(SLANG), rng.choice(KINDS[kind].split("|")), rng.choice(SLANG)
    for name, sides in WORDS.items():
        for sign, side in (("+", bullish), ("-", 1 - bullish)):
            text = text.replace(f"{{{name}{sign}}}", rng.choice(sides[side]))
    text = f"{before} {text} {after}".replace("{a}", rng.choice(ASSETS))
    return " ".join(typed(word, rng) for word in text.split())


class Reader(nn.Module):
    """Words (N, T) by number, and how many of each row are words (N,) -> logits (N,) of being bullish."""

    def __init__(self, words: int, width: int = 48):
        super().__init__()
        self.embedding, self.drop = nn.Embedding(words, 24), nn.Dropout(0.2)
        self.gru, self.head = nn.GRU(24, width, batch_first=True), nn.Linear(width, 1)

    def forward(self, codes, lengths):
        _, last = self.gru(self.drop(self.embedding(codes)), lengths=lengths)
        return self.head(self.drop(last[0])).squeeze(1)


def fill_in(model, *arrays, tagged: int, epochs: int, seed: int) -> np.ndarray:
    """Train on the first `tagged` samples; the probabilities of being bullish for all others."""
    optimizer = optim.AdamW(model.parameters(), 5e-3)
    trainer = train.Trainer(model, nn.BCEWithLogitsLoss(), optimizer, progress=False, seed=seed, clip_grad_norm=1.0)
    known, others = (data.ArrayDataset(*[a[part] for a in arrays]) for part in (slice(tagged), slice(tagged, None)))
    trainer.fit(data.DataLoader(known, 32, shuffle=True, seed=seed), epochs=epochs)
    return 1 / (1 + np.exp(-np.concatenate(list(trainer.predict(data.DataLoader(others, 500))))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in {"messages": 6000, "tagged": 1200, "epochs": 20, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    parser.add_argument("--quick", action="store_true", help="4,000 messages, 800 of them tagged")
    parser.add_argument("--plot", nargs="?", const="out/sentiment.png", type=Path, help="draw into this file")
    args = parser.parse_args()
    count, tagged = (4000, 800) if args.quick else (args.messages, args.tagged)
    rng = np.random.default_rng(args.seed)
    kinds, truth = rng.choice(list(KINDS), count, p=[0.5, 0.3, 0.2]), rng.integers(0, 2, count)
    texts = [message(kind, bullish, rng) for kind, bullish in zip(kinds, truth)]
    words = data.Vocabulary.of(texts[:tagged], by=str.split, min_count=2, special=["<pad>"], unknown="<other>")
    codes = [words.encode(text) for text in texts]
    lengths, tags = np.array([len(c) for c in codes]), truth.astype(np.float32)
    table = np.stack([np.pad(c, (0, lengths.max() - len(c))) for c in codes])
    counts = np.stack([np.bincount(c, minlength=len(words)) for c in codes]).astype(np.float32)
    tg.seed(args.seed)
    counter = nn.Sequential(nn.Linear(len(words), 1), nn.Flatten(0))
    models = {"GRU": (Reader(len(words)), table, lengths, tags), "word counts": (counter, counts, tags)}
    given = {name: fill_in(*rest, tagged=tagged, epochs=args.epochs, seed=args.seed) for name, rest in models.items()}
    kinds, truth, texts = kinds[tagged:], truth[tagged:], texts[tagged:]
    by_kind = {name: [((p > 0.5) == truth)[kinds == kind].mean() for kind in KINDS] for name, p in given.items()}
    for i, kind in enumerate(KINDS):
        scores = "  ".join(f"{name} {shares[i]:.1%}" for name, shares in by_kind.items())
        print(f"{kind:8} {scores}   {texts[np.flatnonzero(kinds == kind)[0]]!r}")
    gru, plain = (((p > 0.5) == truth).mean() for p in given.values())
    print(f"{tagged:,} tags; of {len(truth):,} missing ones the GRU fills in {gru:.1%} right, word counts {plain:.1%}")
    if args.plot:
        try:
            import matplotlib.pyplot as plt
        except ImportError:
            sys.exit("--plot needs matplotlib: pip install 'tapegrad[plot]'")
        figure, (left, *others) = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
        for shift, (name, shares), color in zip((-0.2, 0.2), by_kind.items(), ("#2962a8", "#9aa5b1")):
            left.bar(np.arange(len(KINDS)) + shift, shares, 0.4, label=name, color=color)
        left.set(xticks=range(len(KINDS)), xticklabels=KINDS, ylim=(0, 1.25), ylabel="share of missing tags right")
        left.legend(ncols=2)
        for axes, (name, p) in zip(others, given.items()):
            axes.hist([p[truth == 0], p[truth == 1]], 20, color=["#c0392b", "#2e7d32"], label=["bearish", "bullish"])
            axes.set(title=name, xlabel="probability of bullish", ylabel="messages")
            axes.legend(title="in truth")
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(args.plot, dpi=120)
        print(f"picture: {args.plot}")


if __name__ == "__main__":
    main()
