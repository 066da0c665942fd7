"""Every position of noughts and crosses, with what it is worth when both sides play perfectly."""

from __future__ import annotations

from functools import cache

import numpy as np

from ..table import Table

LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))
Board = tuple[int, ...]


def winner(board: Board) -> int:
    """1 or -1 where that side has three in a row, else 0. The nine cells are 1 (first player), -1 or 0, row by row.

    >>> winner((1, 1, 1, -1, -1, 0, 0, 0, 0))
    1
    """
    for a, b, c in LINES:
        if board[a] and board[a] == board[b] == board[c]:
            return board[a]
    return 0


def tic_tac_toe() -> Table:
    """The 5,478 positions that games of noughts and crosses can reach, found by playing them all.

    Columns: "board" int64 (N, 9), row by row, 1 for the first player, -1 for the second, 0 for empty; "player" int64, who is
    to move, 1 or -1, 0 where the game is over; "value" int64, the outcome of perfect play, 1 where the first player wins,
    0 a draw, -1; "moves" bool (N, 9), the moves that reach that value. Sorted by the number of stones.

    >>> positions = tic_tac_toe()
    >>> len(positions), positions["value"][0]
    (5478, np.int64(0))
    """
    boards, players, values, moves = _positions()
    return Table({"board": boards.copy(), "player": players.copy(), "value": values.copy(), "moves": moves.copy()})


@cache
def _positions() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    value: dict[Board, int] = {}

    def solve(board: Board, player: int) -> int:
        if board not in value:
            won = winner(board)
            if won or 0 not in board:
                value[board] = won
            else:
                value[board] = player * max(
                    player * solve(_played(board, cell, player), -player) for cell in _free(board)
                )
        return value[board]

    solve((0,) * 9, 1)
    boards = sorted(value, key=lambda b: (9 - b.count(0), b))
    players, moves = [], []
    for board in boards:
        over = winner(board) != 0 or 0 not in board
        player = 0 if over else 1 if board.count(1) == board.count(-1) else -1
        players.append(player)
        moves.append(
            [not over and c == 0 and value[_played(board, i, player)] == value[board] for i, c in enumerate(board)]
        )
    return np.array(boards), np.array(players), np.array([value[b] for b in boards]), np.array(moves)


def _free(board: Board) -> list[int]:
    return [cell for cell, stone in enumerate(board) if not stone]


def _played(board: Board, cell: int, player: int) -> Board:
    return (*board[:cell], player, *board[cell + 1 :])
