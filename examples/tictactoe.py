"""A network learns noughts and crosses by playing against itself: it learns what a position is worth to whom has just moved.

Temporal differences on after-states (Sutton & Barto 2018, 6.8): a position is worth what the best reply to it leaves.

    python examples/tictactoe.py --plot      # writes out/tictactoe.png; needs pip install 'tapegrad[plot]'
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import tapegrad as tg
from tapegrad import nn, optim

LINES = np.array([(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)])


class Player:
    """Boards are float32 (N, 9) as whoever moves sees them: 1 own stones, -1 the other's, 0 empty."""

    def __init__(self, steps: int):
        self.net = nn.Sequential(nn.Linear(9, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1), nn.Tanh())
        self.optimizer = optim.Adam(self.net.parameters(), lr=5e-3)
        self.schedule = optim.lr_scheduler.PolynomialLR(self.optimizer, steps)
        self.looking, self.learning = tg.Session(), tg.Session()

    def worth(self, boards: np.ndarray) -> np.ndarray:
        """What each move (N, 9) is worth: 1 wins, 0 draws, -1 loses, or between; -2 is no move."""
        after = boards[:, None] + np.eye(9, dtype=np.float32)
        with self.looking, tg.no_grad():
            guess = self.net(tg.tensor(after.reshape(-1, 9)))
        known = np.where(wins(after), 1, np.where((after != 0).all(2), 0, guess.numpy().reshape(-1, 9)))
        return np.where(boards == 0, known, -2).astype(np.float32)

    def learn(self, boards: np.ndarray, worth: np.ndarray) -> None:
        """A step towards what boards (N, 9) are worth (N, 1) to whom has just moved."""
        with self.learning:
            loss = (self.net(tg.tensor(boards)) - tg.tensor(worth)).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self.schedule.step()


def wins(boards: np.ndarray) -> np.ndarray:
    """Whether boards (..., 9) have three own stones in a row."""
    return (boards[..., LINES].sum(-1) == 3).any(-1)


def random_moves(boards: np.ndarray, rng) -> np.ndarray:
    """An empty cell (N,) of each board."""
    return (rng.random(boards.shape) * (boards == 0)).argmax(1)


def lost(player: Player, own: bool, games: int = 0, rng=None) -> float:
    """The share that the player loses of games against random moves; or, without games, how many lines of play beat it."""
    boards, beaten = np.zeros((games or 1, 9), np.float32), 0
    for _ in range(9):
        if own or games:
            moves = player.worth(boards).argmax(1) if own else random_moves(boards, rng)
        else:  # every move there is
            which, moves = np.nonzero(boards == 0)
            boards = boards[which]
        boards[np.arange(len(boards)), moves] = 1
        beaten += 0 if own else wins(boards).sum()
        boards, own = -boards[~wins(boards)], not own
    return beaten / games if games else beaten


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in {"steps": 6000, "games": 64, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    parser.add_argument("--quick", action="store_true", help="4,000 steps")
    parser.add_argument("--plot", nargs="?", const="out/tictactoe.png", type=Path, help="draw into this file")
    args = parser.parse_args()
    steps, rng = 4000 if args.quick else args.steps, np.random.default_rng(args.seed)
    tg.seed(args.seed)
    player, curve, look = Player(steps), [], 1
    boards = np.zeros((args.games, 9), np.float32)  # of many games at once
    for step in range(1, steps + 1):
        worth = player.worth(boards)
        player.learn(-boards, -worth.max(1, keepdims=True))  # each is worth what the best reply leaves
        moves = np.where(rng.random(args.games) < 0.5, random_moves(boards, rng), worth.argmax(1))
        boards[np.arange(args.games), moves] = 1
        boards = np.where(wins(boards)[:, None] | (boards != 0).all(1, keepdims=True), np.float32(0), -boards)
        if step in (look, steps):
            curve.append((step, 100 * lost(player, True, 500, rng), 100 * lost(player, False, 500, rng)))
            look = max(step + 1, int(step * 1.25))
    for own, name in ((True, "first"), (False, "second")):
        share, ways = lost(player, own, 2000, rng), lost(player, own)
        print(
            f"as {name} player it loses {share:.2%} of 2,000 games against random moves; {ways} lines of play beat it"
        )
    if args.plot:
        try:
            import matplotlib.pyplot as plt
        except ImportError:
            sys.exit("--plot needs matplotlib: pip install 'tapegrad[plot]'")
        figure, (left, *boards) = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
        left.plot(*np.hsplit(np.array(curve), [1]), label=["as first player", "as second player"])
        left.set(xlabel="step", ylabel="games lost to random moves (%)", xscale="log")
        left.legend()
        for axes, corner, title in zip(boards, (0, -1), ("worth of first moves", "worth of replies to a corner")):
            worth = player.worth(np.eye(1, 9, dtype=np.float32) * corner)[0]
            shown = np.where(worth < -1, np.nan, worth).reshape(3, 3)
            image = axes.imshow(shown, vmin=-1, vmax=1, cmap="RdYlGn", alpha=0.7)
            for (y, x), value in np.ndenumerate(shown):
                axes.text(x, y, "taken" if np.isnan(value) else f"{value:+.2f}", ha="center", va="center")
            axes.set(title=title, xticks=[], yticks=[])
        figure.colorbar(image, label="to whom moves: 1 wins, -1 loses")
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(args.plot, dpi=120)
        print(f"picture: {args.plot}")


if __name__ == "__main__":
    main()
