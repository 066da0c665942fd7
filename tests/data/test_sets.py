"""Sets that ship, that are generated, and that are downloaded. No test needs a network."""

from __future__ import annotations

import gzip
import hashlib
import struct

import numpy as np
import pytest

from tapegrad import config, data
from tapegrad.data.sets import fashion, tictactoe
from tapegrad.data.sources.download import Content
from tapegrad.errors import DataError


def test_iris():
    """Means and standard deviations are those of the set's own description."""
    flowers = data.iris()
    assert flowers.inputs.dtype == np.float32 and flowers.targets.dtype == np.int64 and len(flowers) == 150
    np.testing.assert_allclose(flowers.inputs.mean(axis=0), [5.84, 3.05, 3.76, 1.20], atol=0.011)
    np.testing.assert_allclose(flowers.inputs.min(axis=0), [4.3, 2.0, 1.0, 0.1], rtol=1e-6)
    np.testing.assert_allclose(flowers.inputs.max(axis=0), [7.9, 4.4, 6.9, 2.5], rtol=1e-6)
    assert np.bincount(flowers.targets).tolist() == [50, 50, 50] and len(flowers.features) == 4
    x, y = next(iter(data.DataLoader(flowers, 10)))
    assert x.shape == (10, 4) and y.tolist() == [0] * 10


def test_breast_cancer():
    tumours = data.breast_cancer()
    assert tumours.inputs.shape == (569, 30) and np.bincount(tumours.targets).tolist() == [212, 357]
    assert tumours.features[0] == "mean radius" and tumours.features[10] == "radius error"
    assert tumours.features[29] == "worst fractal dimension" and len(set(tumours.features)) == 30
    np.testing.assert_allclose(tumours.inputs[:, 0].min(), 6.981, rtol=1e-5)  # as the set's description says
    np.testing.assert_allclose(tumours.inputs[:, 3].max(), 2501.0)
    # malignant nuclei are larger
    assert tumours.inputs[tumours.targets == 0, 0].mean() > tumours.inputs[tumours.targets == 1, 0].mean() + 4


def test_a_shipped_file_that_is_damaged(tmp_path, monkeypatch):
    from tapegrad.data.sets import tables

    (tmp_path / "iris.csv").write_text("150,4,a,b,c\n1,2,3,4,0\n")
    monkeypatch.setattr(tables, "__file__", str(tmp_path / "tables.py"))
    with pytest.raises(DataError, match="holds .* and announces 150 by 4. Reinstall"):
        data.iris()
    with pytest.raises(DataError, match="is missing or damaged"):
        data.breast_cancer()


# generated


def test_gates():
    for gate, wanted in (("xor", [0, 1, 1, 0]), ("and", [0, 0, 0, 1]), ("or", [0, 1, 1, 1])):
        inputs, targets = data.logic_gate(gate)[:]
        assert targets.tolist() == wanted and inputs.dtype == np.float32
    inputs, targets = data.logic_gate("xor", 4000, noise=0.1, seed=1)[:]
    corners = np.rint(inputs)
    assert abs((inputs - corners).std() - 0.1) < 0.01
    assert ((corners[:, 0] != corners[:, 1]) == targets).mean() > 0.99
    with pytest.raises(DataError, match="there is no gate 'nand'"):
        data.logic_gate("nand")


def test_spirals():
    inputs, targets = data.spirals(300, classes=3, noise=0.0)[:]
    radius = np.hypot(*inputs.T)
    assert radius.max() <= 1 + 1e-6 and np.bincount(targets).tolist() == [100] * 3
    angle = np.arctan2(inputs[:, 1], inputs[:, 0])
    wanted = 2 * np.pi * (1.5 * radius + targets / 3)
    np.testing.assert_allclose(np.cos(angle - wanted), 1, atol=1e-6)


def test_blobs():
    inputs, targets = data.blobs(3000, classes=3, features=4, spread=0.1, seed=2)[:]
    centres = np.array([inputs[targets == c].mean(axis=0) for c in range(3)])
    assert abs(centres).max() < 1.05
    assert abs((inputs - centres[targets]).std() - 0.1) < 0.005


def test_addition():
    sums = data.addition(2000, digits=3, seed=1)
    assert len(sums) == 2000 and len(set(sums["question"].tolist())) == 2000
    for question, answer in zip(sums["question"].tolist(), sums["answer"].tolist()):
        a, b = question.split("+")
        assert int(a) + int(b) == int(answer) and len(question) == 7 and len(answer) == 4
        assert max(int(a), int(b)) < 1000
    assert len(set(data.addition(100, digits=1)["question"].tolist())) == 100  # every one that there is
    with pytest.raises(DataError, match="101 sums are wanted, and there are 100 of 1 digits"):
        data.addition(101, digits=1)


def test_sine_mixtures():
    waves = data.sine_mixtures(20, length=512, components=2, noise=0.1, seed=3)
    t = np.arange(512) / 512
    f, a, p = (waves[name][:, :, None].astype(np.float64) for name in ("frequency", "amplitude", "phase"))
    np.testing.assert_allclose(waves["clean"], (a * np.sin(2 * np.pi * f * t + p)).sum(axis=1), atol=1e-4)
    assert abs((waves["signal"] - waves["clean"]).std() - 0.1) < 0.01
    assert f.min() >= 1 and f.max() <= 64 and (np.diff(f[:, :, 0]) >= 0).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: data.logic_gate("xor", 8, noise=0.1, seed=seed),
        lambda seed: data.spirals(8, seed=seed),
        lambda seed: data.blobs(8, seed=seed),
        lambda seed: data.addition(8, seed=seed),
        lambda seed: data.sine_mixtures(8, seed=seed),
    ],
)
def test_generated_sets_follow_from_their_seed(make):
    def first(made):
        return (
            (made.data["question"] if "question" in made.columns else made["signal"])
            if isinstance(made, data.Table)
            else made.arrays[0]
        )

    assert np.array_equal(first(make(1)), first(make(1))) and not np.array_equal(first(make(1)), first(make(2)))


def test_generated_sets_are_the_same_everywhere():
    """Written down: examples and their stated results depend on them."""
    np.testing.assert_allclose(data.blobs(2, seed=0)[0][0], [-1.0953, -0.4656], atol=1e-4)
    assert data.addition(3, digits=2)["question"].tolist() == ["9+3  ", "7+9  ", "0+9  "]


@pytest.mark.parametrize(
    "call",
    [
        lambda: data.logic_gate(count=0),
        lambda: data.spirals(classes=0),
        lambda: data.blobs(features=1.5),
        lambda: data.addition(digits=0),
        lambda: data.sine_mixtures(length=0),
    ],
)
def test_numbers_that_are_refused(call):
    with pytest.raises(DataError, match="a whole number from 1 is wanted"):
        call()


def test_tic_tac_toe():
    """Counts are those of the literature: 5,478 positions, of which 958 end the game: 626 and 316 wins, 16 draws."""
    positions = data.tic_tac_toe()
    over = positions["player"] == 0
    assert len(positions) == 5478 and over.sum() == 958
    assert np.unique(positions["value"][over], return_counts=True)[1].tolist() == [316, 16, 626]
    assert positions["value"][0] == 0 and positions["moves"][0].all()  # any first move draws
    assert len(np.unique(positions["board"], axis=0)) == 5478
    for row in range(0, 5478, 97):
        board, player, value = (positions[name][row] for name in ("board", "player", "value"))
        stones = (board == 1).sum() - (board == -1).sum()
        assert player in (0, 1 if stones == 0 else -1) and not positions["moves"][row][board != 0].any()
        if player:
            assert positions["moves"][row].any()
        else:
            assert not positions["moves"][row].any() and value == tictactoe.winner(tuple(board.tolist()))
    positions["board"][...] = 9  # it belongs to the caller
    assert data.tic_tac_toe()["board"].max() == 1


def test_perfect_play_never_loses():
    """Following the moves, the second player does not lose to any opponent, nor the first."""
    positions = data.tic_tac_toe()
    best = {tuple(b): m for b, m in zip(positions["board"].tolist(), positions["moves"])}

    def results(board, player, perfect):
        won = tictactoe.winner(board)
        if won or 0 not in board:
            return {won}
        found = set()
        for cell in range(9):
            if board[cell] == 0 and (player != perfect or best[board][cell]):
                found |= results((*board[:cell], player, *board[cell + 1 :]), -player, perfect)
        return found

    assert -1 not in results((0,) * 9, 1, 1)
    assert 1 not in results((0,) * 9, 1, -1)


# Fashion-MNIST


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror in a folder, with the digests of its small files."""
    monkeypatch.delenv("TAPEGRAD_DATA", raising=False)
    monkeypatch.setattr(config, "cache_directory", lambda: tmp_path / "cache")
    folder = tmp_path / "mirror"
    folder.mkdir()
    rng, files = np.random.default_rng(0), {}
    for split, count in (("train", 20), ("t10k", 10)):
        for kind, array in (
            ("images-idx3", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)),
            ("labels-idx1", (np.arange(count) % 10).astype(np.uint8)),
        ):
            packed = gzip.compress(idx(array), mtime=0)
            name = f"{split}-{kind}-ubyte"
            (folder / f"{name}.gz").write_bytes(packed)
            files[name] = Content(len(packed), hashlib.sha256(packed).hexdigest(), packed=False)
    monkeypatch.setattr(fashion, "FILES", files)
    monkeypatch.setattr(fashion, "MIRRORS", ((tmp_path / "away").as_uri() + "/", folder.as_uri() + "/"))
    return folder


def test_fashion_mnist(mirror, tmp_path, capsys):
    with pytest.raises(
        DataError, match="fashion_mnist: TAPEGRAD_DATA and the cache do not hold the set.*download=True"
    ):
        data.fashion_mnist()
    train, test = data.fashion_mnist(download=True)
    assert (len(train), len(test)) == (20, 10) and train.images.shape == (20, 1, 28, 28)
    assert capsys.readouterr().err.count("downloading") == 8  # the first mirror has none of four
    assert len(data.fashion_mnist()[0]) == 20 and capsys.readouterr().err == ""
    assert len(data.fashion_mnist(mirror)[0]) == 20  # files in the folder itself
    (mirror / "train-labels-idx1-ubyte.gz").write_bytes(b"other")
    with pytest.raises(DataError, match="could not be downloaded.*bytes"):
        data.fashion_mnist(tmp_path / "mine", download=True)


def test_fashion_digests_are_whole():
    assert all(len(c.sha256) == 64 and not c.packed for c in fashion.FILES.values()) and len(fashion.FILES) == 4
    assert sum(c.size for c in fashion.FILES.values()) == 30_878_645
    assert len(data.FASHION_CLASSES) == 10
